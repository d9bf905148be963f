"""RoI Align in stock TF, one level and several: oracle, gradients, paths, illegal indices."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.drawing import RoiCase, roi_cases
from helpers.tolerances import FLOAT_DTYPES, assert_close, assert_close_sums, assert_same, name_of
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.roi_align import boxes_grad, features_grad, multilevel_roi_align

from tfseg_ops import pure_tf
from tfseg_ops.pure_tf.roi_align import roi_align_by_crop_and_resize
from tfseg_ops.testing import check_gradients

RATIOS = [0, 2]


def few_points(case: RoiCase) -> RoiCase:
    """The case, small enough to gather four pixels of each of its points."""
    return case._replace(sampling_ratio=min(case.sampling_ratio, 3))


def gradients_of(case: RoiCase, upstream: np.ndarray) -> list[tf.Tensor]:
    """The gradients to each map and to the boxes."""
    maps, boxes = [tf.constant(level) for level in case.features], tf.constant(case.boxes)
    with tf.GradientTape() as tape:
        tape.watch([*maps, boxes])
        output = pure_tf.multilevel_roi_align(maps, boxes, *case[2:])
    gradients: list[tf.Tensor] = tape.gradient(output, [*maps, boxes], upstream)
    return gradients


@settings(max_examples=60)
@given(roi_cases().map(few_points))
def test_boxes_are_resampled_as_the_oracle_does(case: RoiCase) -> None:
    result, expected = pure_tf.multilevel_roi_align(*case), multilevel_roi_align(*case)
    assert result.dtype == expected.dtype
    magnitudes = case._replace(features=[np.abs(level) for level in case.features])
    assert_close_sums(result, expected, multilevel_roi_align(*magnitudes))


@settings(max_examples=30)
@given(roi_cases(num_levels=st.just(1)).map(few_points))
def test_one_level_is_a_pyramid_of_one(case: RoiCase) -> None:
    (features,), boxes, box_indices, _, output_size, (scale,), *how = case
    result = pure_tf.roi_align(features, boxes, box_indices, output_size, scale, *how)
    assert_same(result, pure_tf.multilevel_roi_align(*case))


@settings(max_examples=40)
@given(roi_cases().map(few_points))
def test_gradients_are_those_of_the_oracle(case: RoiCase) -> None:
    features, boxes, box_indices, levels, bins = case[:5]
    how: Any = case[5:]
    shape = (len(boxes), *bins, features[0].shape[3])
    upstream = np.random.default_rng(1).normal(size=shape).astype(features[0].dtype)
    magnitudes = np.abs(upstream.astype(np.float64))
    *to_features, to_boxes = gradients_of(case, upstream)

    places = boxes, box_indices, levels, case.sizes
    terms = features_grad(magnitudes, *places, *how)
    for actual, expected, limit in zip(
        to_features, features_grad(upstream, *places, *how), terms, strict=True
    ):
        assert actual.dtype == expected.dtype
        assert_close_sums(tf.convert_to_tensor(actual), expected, limit)

    expected = boxes_grad(upstream, features, boxes, box_indices, levels, *how)
    assert to_boxes.dtype == expected.dtype
    largest = max(np.abs(level.astype(np.float64)).max(initial=0) for level in features)
    limit = 2 * largest * max(case.spatial_scales) * magnitudes.sum((1, 2, 3))[:, None]
    assert_close_sums(to_boxes, expected, np.broadcast_to(limit, expected.shape))


FEATURES = np.random.default_rng(0).normal(size=(2, 6, 7, 3))
PYRAMID = [FEATURES, FEATURES[:, :4, :5]]
# One inside, one across the border, one that reads nothing: no point on or near a pixel's centre.
BOXES = np.array(
    [[0.83, 1.12, 4.3, 5.97], [-2.63, 2.07, 3.36, 11.46], [1.0, np.nan, 2.0, 3.0], [1, 1, 2, 3]]
)
INDICES, LEVELS = np.array([1, 0, 0, -1]), np.array([0, 1, 0, 7])
SIZE, SCALES = (2, 3), [1.0, 0.5]


def align(features: Any, boxes: Any, ratio: int, aligned: bool = True) -> tf.Tensor:
    """Of one map, or of two."""
    if isinstance(features, list):
        return pure_tf.multilevel_roi_align(
            features, boxes, INDICES, LEVELS, SIZE, SCALES, ratio, aligned
        )
    return pure_tf.roi_align(features, boxes, INDICES, SIZE, 1.0, ratio, aligned)


@pytest.mark.parametrize(("aligned", "jit_compile"), [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize("ratio", RATIOS)
def test_gradients_of_both_orders_are_those_of_central_differences(
    ratio: int, aligned: bool, jit_compile: bool
) -> None:
    @tf.function(jit_compile=jit_compile)
    def function(fine: tf.Tensor, coarse: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        return align([fine, coarse], boxes, ratio, aligned) ** 2

    maps = [level[..., :1] for level in PYRAMID]
    # The third box is not finite: no difference could be taken.
    boxes = np.concatenate([BOXES[:2], BOXES[:1] + 50, BOXES[3:]])
    check_gradients(function, [*maps, boxes], order=2)


@pytest.mark.parametrize("ratio", RATIOS)
def test_boxes_that_are_not_finite_give_zeros_and_no_gradient(ratio: int) -> None:
    boxes = np.array([[np.nan] * 4, [0, -np.inf, 3, np.inf], [0, 0, 3, 3e38], [0, 0, 1e300, 3]])
    features, boxes = tf.constant(FEATURES, tf.float32), tf.constant(boxes)
    with tf.GradientTape() as tape:
        tape.watch([features, boxes])
        output = pure_tf.roi_align(features, boxes, [0] * 4, SIZE, 4.0, ratio)
    assert_same(output, np.zeros((4, *SIZE, 3), np.float32))
    to_features, to_boxes = tape.gradient(output, [features, boxes])
    assert_same(tf.convert_to_tensor(to_features), np.zeros(FEATURES.shape, np.float32))
    assert_same(to_boxes, np.zeros((4, 4)))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("ratio", RATIOS)
def test_pixels_of_weight_zero_are_not_read(ratio: int, jit_compile: bool) -> None:
    """Not even beside a point that stands on a pixel's centre."""
    boxes = np.array([[0.0, 0.0, 4.0, 6.0]] * 2)  # bins of 2 by 2: rows 0 and 1, then 2 and 3

    @tf.function(jit_compile=jit_compile)
    def run(features: tf.Tensor, boxes: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([features, boxes])
            output = pure_tf.roi_align(features, boxes, [0, -1], SIZE, 1.0, ratio)
            finite = output[:, :1]
        return [output, *map(tf.convert_to_tensor, tape.gradient(finite, [features, boxes]))]

    expected = pure_tf.roi_align(FEATURES, boxes, [0, -1], SIZE, 1.0, ratio).numpy()
    for value in (np.nan, np.inf, -np.inf):
        features = FEATURES.copy()
        features[:, 3, 2] = value
        output, to_features, to_boxes = run(tf.constant(features), tf.constant(boxes))
        expected[0, 1, 1] = value
        assert_close(output, expected)
        assert np.isfinite(to_features).all()
        assert np.isfinite(to_boxes).all()


@pytest.mark.parametrize("jit_compile", [None, True])
@pytest.mark.parametrize("ratio", RATIOS)
def test_one_trace_serves_all_sizes(ratio: int, jit_compile: bool | None) -> None:
    def run(fine: Any, coarse: Any, boxes: Any, indices: Any, levels: Any) -> list[tf.Tensor]:
        sources = [fine, coarse, boxes]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            output = pure_tf.multilevel_roi_align(
                [fine, coarse], boxes, indices, levels, SIZE, SCALES, ratio
            )
            squares = output**2
        return [output, *map(tf.convert_to_tensor, tape.gradient(squares, sources))]

    floats = [tf.TensorSpec([None] * rank, tf.float64) for rank in (4, 4, 2)]
    ints = [tf.TensorSpec([None], tf.int64)] * 2
    function = tf.function(run, input_signature=[*floats, *ints], jit_compile=jit_compile)
    for maps, boxes in [
        (PYRAMID, 4),
        ([FEATURES[:, :1, :1], FEATURES[:, :5]], 2),
        ([FEATURES[:, :0], FEATURES], 3),
        ([FEATURES[..., :0]] * 2, 2),
        (PYRAMID, 0),
    ]:
        arguments = [*maps, BOXES[:boxes], INDICES[:boxes], LEVELS[:boxes]]
        results = function(*arguments), run(*map(tf.constant, arguments))
        for actual, expected in zip(*results, strict=True):
            assert_close(actual, expected)


def test_no_batch_takes_boxes_without_an_image() -> None:
    for ratio in RATIOS:
        result = pure_tf.roi_align(FEATURES[:0], BOXES, [-1] * 4, SIZE, 1.0, ratio)
        assert_same(result, np.zeros((4, *SIZE, 3)))


def test_giant_boxes_visit_only_points_inside_the_map() -> None:
    """Millions of points in each bin: of a map of ones, a bin inside it has the mean one."""
    boxes = [[-4e6, -4e6, 4e6, 4e6], [-1e3, 0, 1e3, 2e3]]
    result = pure_tf.roi_align(np.ones((1, 40, 50, 1)), boxes, [0, 0], 3).numpy()
    assert result.shape == (2, 3, 3, 1)
    assert 0 < result[0, 1, 1] < 1e-9
    np.testing.assert_allclose(result[1, 1, 0], 41 / 667 * 51 / 667, rtol=0.02)


@pytest.mark.parametrize("ratio", RATIOS)
def test_static_shape_is_what_can_be_known(ratio: int) -> None:
    aligned = tf.function(lambda f, b, i: pure_tf.roi_align(f, b, i, SIZE, 1.0, ratio))
    for spec, count, static in [
        ([None, None, None, 5], None, [None, 2, 3, 5]),
        ([2, 4, 4, None], 7, [7, 2, 3, None]),
    ]:
        trace = aligned.get_concrete_function(
            tf.TensorSpec(spec), tf.TensorSpec([count, 4]), tf.TensorSpec([count], tf.int32)
        )
        assert trace.structured_outputs.shape.as_list() == static


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES[:2], ids=name_of)
def test_gradients_to_halves_are_summed_in_float32(dtype: Any, ratio: int) -> None:
    """64 ones after 4096 would each be lost in a sum of the dtype itself."""
    features = tf.constant(np.zeros((1, 1, 1, 1), dtype))
    upstream = np.ones((65, 1, 1, 1), dtype)
    upstream[0] = 4096
    with tf.GradientTape() as tape:
        tape.watch(features)
        output = pure_tf.roi_align(features, [[0.0, 0.0, 1.0, 1.0]] * 65, [0] * 65, 1, 1.0, ratio)
    gradient = tf.convert_to_tensor(tape.gradient(output, features, upstream))
    assert gradient.dtype == dtype
    np.testing.assert_array_equal(gradient.numpy().astype(np.float32), [[[[4160]]]])


def changed(array: np.ndarray, place: int, value: int) -> np.ndarray:
    """A copy with another number at one place."""
    copy = array.copy()
    copy[place] = value
    return copy


ILLEGAL: dict[str, tuple[np.ndarray, np.ndarray, str]] = {
    "index": (
        changed(INDICES, 1, 2),
        LEVELS,
        "'box_indices' must be -1 or lie in [0, 2), got 2 at [1]",
    ),
    "negative index": (
        changed(INDICES, 0, -2),
        LEVELS,
        "'box_indices' must be -1 or lie in [0, 2), got -2 at [0]",
    ),
    "level": (INDICES, changed(LEVELS, 1, 2), "'levels' must lie in [0, 2), got 2 at [1]"),
    "level before index": (
        changed(INDICES, 2, 9),
        changed(LEVELS, 1, -1),
        "'levels' must lie in [0, 2), got -1 at [1]",
    ),
}


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("case", ILLEGAL)
def test_illegal_number_is_named(case: str, ratio: int) -> None:
    indices, levels, words = ILLEGAL[case]
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        pure_tf.multilevel_roi_align(PYRAMID, BOXES, indices, levels, SIZE, SCALES, ratio)
    assert str(caught.value) == f"multilevel_roi_align: {words}"


@pytest.mark.parametrize("case", ILLEGAL)
def test_illegal_number_is_an_error_in_a_graph(case: str) -> None:
    indices, levels, words = ILLEGAL[case]
    function = tf.function(
        lambda i, n: pure_tf.multilevel_roi_align(PYRAMID, BOXES, i, n, SIZE, SCALES)
    )
    rule = "must" if case == "level before index" else words.partition("' ")[2].partition("[")[0]
    with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
        function(indices, levels)


@pytest.mark.parametrize("ratio", RATIOS)
def test_illegal_number_contributes_nothing_under_xla(ratio: int) -> None:
    """XLA cannot raise, as on a GPU; all other boxes are still there."""
    indices, levels = changed(INDICES, 3, 2), changed(LEVELS, 1, 2)

    @tf.function(jit_compile=True)
    def run(features: list[tf.Tensor], boxes: tf.Tensor) -> list[tf.Tensor]:
        sources = [*features, boxes]
        output = pure_tf.multilevel_roi_align(features, boxes, indices, levels, SIZE, SCALES, ratio)
        return [output, *tf.gradients(output, sources)]

    legal = np.array([1, -1, -1, -1])
    with tf.GradientTape() as tape:
        sources = [*map(tf.constant, PYRAMID), tf.constant(BOXES)]
        tape.watch(sources)
        output = pure_tf.multilevel_roi_align(
            sources[:2], sources[2], legal, LEVELS, SIZE, SCALES, ratio
        )
    expected = [output, *map(tf.convert_to_tensor, tape.gradient(output, sources))]
    assert np.any(expected[0])
    for actual, wanted in zip(run(sources[:2], sources[2]), expected, strict=True):
        assert_close(actual, wanted)


def test_crop_and_resize_takes_the_same_samples_inside_the_map() -> None:
    boxes = np.array([[0.8, 1.1, 4.3, 5.9], [1.0, 1.0, 5.0, 6.0]], np.float32)
    features = FEATURES.astype(np.float32)
    for ratio in (1, 2):
        for aligned in (True, False):
            how = [0, 1], SIZE, 0.9, ratio, aligned
            result = roi_align_by_crop_and_resize(features, boxes, *how)
            assert_close(result, pure_tf.roi_align(features, boxes, *how))
    # Beyond the outermost centres it has zeros, where the border is to be seen.
    ones, whole = np.ones((1, 4, 4, 1), np.float32), [[0.0, 0.0, 4.0, 4.0]]
    np.testing.assert_array_equal(pure_tf.roi_align(ones, whole, [0], 2, 1.0, 4), 1)
    assert np.all(roi_align_by_crop_and_resize(ones, whole, [0], 2, 1.0, 4) < 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"boxes": np.zeros((7, 5))}, "'boxes' must have shape [num_boxes, 4], got [7, 5]"),
        ({"box_indices": [0, 1]}, "'box_indices' must have shape [num_boxes=4], got [2]"),
        (
            {"boxes": BOXES.astype(np.float16)},
            "'boxes' must be float32 or float64, got float16",
        ),
        ({"sampling_ratio": -1}, "'sampling_ratio' must lie in [0, 1048576], got -1"),
        ({"spatial_scale": 0}, "'spatial_scale' must be positive and finite, got 0"),
        ({"output_size": 0}, "'output_size' must lie in [1, 2147483647], got [0, 0]"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_wrong_argument_is_named(change: dict[str, Any], words: str) -> None:
    arguments = {
        "features": FEATURES,
        "boxes": BOXES,
        "box_indices": INDICES,
        "output_size": SIZE,
        **change,
    }
    with pytest.raises((ValueError, TypeError)) as caught:
        pure_tf.roi_align(**arguments)
    assert str(caught.value) == f"roi_align: {words}"
