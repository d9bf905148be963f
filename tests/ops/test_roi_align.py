"""`ops.roi_align`: against the oracle and stock TF, gradients, shapes, paths, edges."""

import contextlib
import time
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.drawing import BOX_KINDS, RoiCase, box_of, roi_cases
from helpers.gpu import EMULATED
from helpers.tolerances import (
    FLOAT_DTYPES,
    INDEX_DTYPES,
    assert_close,
    assert_close_sums,
    assert_same,
    assert_same_bits,
    name_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.roi_align import Axis, axis_of, boxes_grad, features_grad, roi_align

import tfseg_ops
from tfseg_ops import ops
from tfseg_ops.testing import check_adjoint, check_gradients, check_paths

one_level = st.just(1)


def arguments_of(case: RoiCase) -> tuple[Any, ...]:
    """The arguments of `roi_align`, of a case of one level."""
    features, boxes, box_indices, _, size, scales, ratio, aligned = case
    return features[0], boxes, box_indices, size, scales[0], ratio, aligned


def gradients_of(case: RoiCase, upstream: np.ndarray) -> list[tf.Tensor]:
    """The gradients to features and boxes."""
    features, boxes, *rest = arguments_of(case)
    sources = [tf.constant(features), tf.constant(boxes)]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        output = ops.roi_align(*sources, *rest)
    gradients: list[tf.Tensor] = tape.gradient(output, sources, output_gradients=upstream)
    return gradients


def smooth_boxes(
    count: int,
    size: tuple[int, int],
    bins: tuple[int, int],
    scale: float,
    ratio: int,
    aligned: bool,
) -> np.ndarray:
    """float64 boxes in and around a map; what they read bends and jumps nowhere near."""
    generator = np.random.default_rng(0)
    found: list[np.ndarray] = []
    while len(found) < count:
        kind = generator.choice(["inside", "across", "small"])
        box = box_of(generator, kind, size, scale)
        if all(
            is_smooth(
                axis_of(box[axis], box[axis + 2], scale, bins[axis], size[axis], ratio, aligned),
                ratio,
            )
            for axis in (0, 1)
        ):
            found.append(box)
    return np.array(found)


def is_smooth(axis: Axis, ratio: int) -> bool:
    """Whether no point is near a pixel's centre, nor another number of points or the least side."""
    if axis.points == 0 or abs(axis.bin * axis.bins - 1) < 1e-2:
        return False
    if ratio == 0 and abs(axis.bin - round(axis.bin)) < 1e-2:
        return False
    i, p = np.arange(axis.points), np.arange(axis.bins)[:, None]
    positions = axis.start + p * axis.bin + (i + 0.5) * axis.bin / axis.points
    return bool((np.abs(positions - np.round(positions)) > 1e-2).all())


@settings(max_examples=100)
@given(roi_cases(num_levels=one_level))
def test_drawn_boxes_are_resampled_as_the_oracle_does(case: RoiCase) -> None:
    actual, expected = ops.roi_align(*arguments_of(case)).numpy(), roi_align(*arguments_of(case))
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert_close(actual, expected)


@settings(max_examples=60)
@given(roi_cases(num_levels=one_level))
def test_gradients_are_those_of_the_oracle(case: RoiCase) -> None:
    features, boxes, box_indices, levels, bins = case[:5]
    how: Any = case[5:]
    shape = (len(boxes), *bins, features[0].shape[3])
    upstream = np.random.default_rng(1).normal(size=shape).astype(features[0].dtype)
    magnitudes = np.abs(upstream.astype(np.float64))
    to_features, to_boxes = (gradient.numpy() for gradient in gradients_of(case, upstream))

    places = boxes, box_indices, levels, case.sizes
    expected = features_grad(upstream, *places, *how)[0]
    assert to_features.dtype == expected.dtype
    assert_close_sums(to_features, expected, features_grad(magnitudes, *places, *how)[0])

    expected = boxes_grad(upstream, features, boxes, box_indices, levels, *how)
    assert to_boxes.dtype == expected.dtype
    largest = np.abs(features[0].astype(np.float64)).max(initial=0) * case.spatial_scales[0]
    terms = 2 * largest * magnitudes.sum((1, 2, 3))[:, None]
    assert_close_sums(to_boxes, expected, np.broadcast_to(terms, expected.shape))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
def test_first_and_second_order_gradients_are_those_of_central_differences(
    ratio: int, aligned: bool
) -> None:
    """To features and boxes at once; padding and a box that is not finite among them."""
    size, bins = (5, 6), (2, 3)
    boxes = smooth_boxes(4, size, bins, 0.5, ratio, aligned)
    features = np.random.default_rng(1).normal(size=(2, *size, 2))
    indices = np.array([1, 0, -1, 0])

    def align(features: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        lost = tf.constant([[0.0, np.inf, 3.0, 4.0]], tf.float64)
        every = tf.concat([boxes, lost], 0)
        return ops.roi_align(features, every, [*indices, 1], bins, 0.5, ratio, aligned)

    check_gradients(align, [features, boxes], order=2, rtol=1e-4, atol=1e-6)


def test_second_order_gradient_to_boxes_is_not_lost_behind_a_square() -> None:
    """The curvature of a bilinear sample is its mixed difference; squares have one of their own."""
    boxes = smooth_boxes(3, (5, 6), (2, 2), 1.0, 2, True)
    features = np.random.default_rng(1).normal(size=(1, 5, 6, 2))

    def align(features: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        return ops.roi_align(features, boxes, [0, 0, 0], 2, sampling_ratio=2) ** 2

    check_gradients(align, [features, boxes], order=2, rtol=1e-4, atol=1e-6)


@settings(max_examples=25)
@given(roi_cases(dtypes=st.just(np.float64), num_levels=one_level))
def test_gradient_to_features_is_the_adjoint(case: RoiCase) -> None:
    features, *rest = arguments_of(case)
    shape = roi_align(features, *rest).shape
    check_adjoint(
        lambda x: ops.roi_align(x, *rest),
        lambda y: gradients_of(case, y)[0],
        features,
        np.random.default_rng(1).normal(size=shape),
    )


def test_gradient_of_the_gradient_to_features_is_the_op_again() -> None:
    """They are each other's adjoints, to any order."""
    features = tf.constant(np.random.default_rng(0).normal(size=(1, 4, 5, 3)))
    boxes = tf.constant([[0.3, 0.4, 3.1, 4.2]], tf.float64)
    upstream = tf.ones((1, 2, 2, 3), tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([features, upstream])
        output = ops.roi_align(features, boxes, [0], 2)
        first = tape.gradient(output, features, output_gradients=upstream)
        second = tape.gradient(first, upstream, output_gradients=features)
        third = tape.gradient(second, features, output_gradients=upstream)
    assert_close(second, output)
    assert_close(third, first)


def test_box_gradient_is_one_sided_on_pixel_centres_and_none_where_clamped() -> None:
    """To the right; beyond the centres of the first and last pixel nothing moves."""
    image = tf.constant(np.array([0.0, 1.0, 5.0, 7.0]).reshape(1, 1, 4, 1))

    def speed(x: float) -> float:
        boxes = tf.constant([[0, x, 1, x + 1]], tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(boxes)
            output = ops.roi_align(image, boxes, [0], 1, sampling_ratio=1)
        gradient = tape.gradient(output, boxes).numpy()[0]
        np.testing.assert_array_equal(gradient[[0, 2]], 0)  # one row: nothing to move to
        assert gradient[1] == gradient[3]
        return float(gradient.sum())

    positions = [-1.5, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.5]
    assert [speed(x) for x in positions] == [0, 0, 1, 1, 4, 4, 2, 2, 0, 0, 0]


@pytest.mark.parametrize("shape", [(4, 6), (7, 7), (1, 5), (3, 1)])
@pytest.mark.parametrize("size", [(4, 6), (8, 9), (14, 14), (2, 3), (1, 1)])
def test_box_over_the_image_with_one_sample_a_bin_is_a_bilinear_resize(
    size: tuple[int, int], shape: tuple[int, int]
) -> None:
    image = np.random.default_rng(0).normal(size=(2, *shape, 3))
    boxes = [[0, 0, *shape]] * 2
    result = ops.roi_align(image, boxes, [0, 1], size, sampling_ratio=1)
    expected = tf.image.resize(tf.cast(image, tf.float32), size, antialias=False)
    assert_close(result, expected, np.float32)


def test_plane_is_upsampled_as_tensorflow_issue_26278_expects() -> None:
    """github.com/tensorflow/tensorflow/issues/26278, where `crop_and_resize` gives something else.

    2x2 pixels out of 5x5, resized to 4x4: as cut out of the image that was resized to 10x10.
    """
    image = tf.reshape(tf.range(25.0), [1, 5, 5, 1])
    expected = [
        [4.5, 5.0, 5.5, 6.0],
        [7.0, 7.5, 8.0, 8.5],
        [9.5, 10.0, 10.5, 11.0],
        [12.0, 12.5, 13.0, 13.5],
    ]
    boxes = [[1, 1, 3, 3]]
    np.testing.assert_array_equal(ops.roi_align(image, boxes, [0], 4)[0, ..., 0], expected)
    resized = tf.image.resize(image, [10, 10])
    np.testing.assert_array_equal(resized[0, 2:6, 2:6, 0], expected)
    stock = tf.image.crop_and_resize(image, np.array(boxes, np.float32) / 4, [0], [4, 4])
    assert np.abs(stock[0, ..., 0] - expected).max() > 1


@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("aligned", [True, False])
def test_image_and_boxes_moved_together_give_the_same(ratio: int, aligned: bool) -> None:
    generator = np.random.default_rng(0)
    content = generator.normal(size=(1, 8, 9, 2))
    boxes = np.concatenate([generator.uniform(2, 4, (9, 2)), generator.uniform(3, 6, (9, 2))], 1)
    still = ops.roi_align(content, boxes, [0] * 9, 3, 1.0, ratio, aligned)
    moved = ops.roi_align(
        np.pad(content, [(0, 0), (5, 1), (2, 4), (0, 0)]),
        boxes + np.array([5, 2, 5, 2]),
        [0] * 9,
        3,
        1.0,
        ratio,
        aligned,
    )
    assert still.numpy().any()
    assert_close(moved, still)


def paths_case(dtype: Any, index: Any, box_dtype: Any) -> tuple[np.ndarray, ...]:
    """Features, boxes of all kinds but those whose gradient rounding may decide, and indices."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(2, 7, 9, 5)).astype(dtype)
    kinds = [kind for kind in BOX_KINDS if kind not in ("halves", "tenths")]
    boxes = [box_of(generator, kind, (7, 9), 0.5) for kind in kinds]
    boxes += [np.array([0.1, np.nan, 3, 4]), np.array([1, 2, np.inf, 4]), np.full(4, 1e30)]
    indices = generator.integers(0, 2, len(boxes)).astype(index)
    indices[[1, -1]] = -1
    return features, np.array(boxes, box_dtype), indices


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_all_paths_agree(dtype: Any, ratio: int, aligned: bool) -> None:
    inputs = paths_case(dtype, INDEX_DTYPES[ratio // 2], np.float64)
    check_paths(
        lambda x, b, i: ops.roi_align(x, b, i, (3, 2), 0.5, ratio, aligned),
        inputs,
        names=["features", "boxes", "box_indices"],
    )


@pytest.mark.parametrize("ratio", [0, 1, 2])
def test_all_paths_read_nan_and_infinity_only_with_weight(ratio: int) -> None:
    generator = np.random.default_rng(0)
    special = [np.nan, np.inf, -np.inf, 0, 1, 1, 1, 1]
    features = generator.choice(special, size=(2, 7, 9, 3)).astype(np.float32)
    boxes, indices = paths_case(np.float32, np.int32, np.float32)[1:]
    boxes[0] = [0, 0, 14, 18]  # the image: with a bin and a point for each pixel nothing is mixed
    size = (7, 9)
    check_paths(
        lambda x, b, i: ops.roi_align(x, b, i, size, 0.5, ratio),
        [features, boxes, indices],
        gradient=False,
    )
    output = ops.roi_align(features, boxes, indices, size, 0.5, ratio)
    if ratio < 2:
        assert_same(output[0], features[indices[0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=name_of)
def test_all_paths_agree_on_second_order(dtype: Any) -> None:
    features = np.random.default_rng(1).normal(size=(1, 5, 6, 2)).astype(dtype)
    boxes = smooth_boxes(3, (5, 6), (2, 2), 1.0, 2, True).astype(dtype)

    def slopes(features: tf.Tensor, boxes: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([features, boxes])
            output = ops.roi_align(features, boxes, [0, 0, 0], 2, sampling_ratio=2)
        return list(tape.gradient(output**2, [features, boxes]))

    check_paths(slopes, [features, boxes])


@pytest.mark.parametrize(
    ("shape", "count", "index"),
    [
        ((1, 4, 5, 3), 0, 0),
        ((1, 4, 5, 0), 2, 0),
        ((1, 0, 5, 3), 2, 0),
        ((1, 4, 0, 3), 2, 0),
        ((0, 4, 5, 3), 2, -1),
    ],
    ids=["boxes", "channels", "height", "width", "batch"],
)
@pytest.mark.parametrize("ratio", [0, 2])
def test_arrays_without_elements_give_zeros_on_all_paths(
    shape: tuple[int, ...], count: int, index: int, ratio: int
) -> None:
    boxes = np.tile(np.array([[0, 0, 2, 2]], np.float32), (count, 1))
    indices = np.full(count, index)
    inputs: Any = [np.ones(shape, np.float32), boxes, indices]
    result = ops.roi_align(*inputs, (2, 3), sampling_ratio=ratio)
    assert_same(result, np.zeros((count, 2, 3, shape[3]), np.float32))
    check_paths(lambda x, b, i: ops.roi_align(x, b, i, (2, 3), sampling_ratio=ratio), inputs)


@pytest.mark.parametrize("path", ["eager", "graph", "xla", "portable"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_padding_and_boxes_that_are_not_finite_give_zeros_and_no_gradient(
    ratio: int, path: str
) -> None:
    """Whatever else they hold; the other boxes notice nothing of them."""
    features = tf.constant(np.random.default_rng(0).normal(size=(2, 6, 7, 3)))
    good = np.array([[0.3, 1, 4, 5], [1, 1.7, 5, 6.2]])
    lost = [[np.nan, 0, 1, 1], [0, 0, np.inf, 1], [0, -np.inf, 1, 1], [1, 1, 4, np.nan]]
    boxes = tf.constant(np.array([good[0], *lost, [0, 0, 4, 4], [np.nan] * 4, good[1]]))
    indices = tf.constant([1, 0, 1, 0, 1, -1, -1, 0])
    kept = [0, 7]

    def run(boxes: tf.Tensor, indices: tf.Tensor, upstream: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([features, boxes])
            output = ops.roi_align(features, boxes, indices, 2, sampling_ratio=ratio)
        return [output, *tape.gradient(output, [features, boxes], output_gradients=upstream)]

    function = tf.function(run, jit_compile=path == "xla") if path in ("graph", "xla") else run
    upstream = np.random.default_rng(1).normal(size=(8, 2, 2, 3))
    if path == "portable":
        with tfseg_ops.portable():
            output, to_features, to_boxes = function(boxes, indices, tf.constant(upstream))
    else:
        output, to_features, to_boxes = function(boxes, indices, tf.constant(upstream))
    assert_same(output[1:7], np.zeros((6, 2, 2, 3)))
    assert_same(to_boxes[1:7], np.zeros((6, 4)))
    wanted = run(tf.gather(boxes, kept), tf.gather(indices, kept), tf.gather(upstream, kept))
    assert_close(tf.gather(output, kept), wanted[0])
    assert_close(to_features, wanted[1])
    assert_close(tf.gather(to_boxes, kept), wanted[2])
    assert wanted[2].numpy().all()


@pytest.mark.parametrize("dtype", FLOAT_DTYPES[:2], ids=name_of)
def test_boxes_keep_their_fractions_beside_narrow_features(dtype: Any) -> None:
    """bfloat16 holds no 777.25: as float32 the box reads the slope at its place."""
    ramp = np.broadcast_to(np.arange(1000.0)[:, None, None] % 8, (1, 1000, 2, 1))
    features = tf.cast(ramp, dtype)
    boxes = tf.constant([[777.25, 0, 778.25, 1]], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([features, boxes])
        output = ops.roi_align(features, boxes, [0], 1, sampling_ratio=1)
    to_features, to_boxes = tape.gradient(output, [features, boxes])
    assert output.dtype == to_features.dtype == features.dtype
    assert to_boxes.dtype == tf.float32
    assert tf.cast(output, tf.float64).numpy().item() == 777 % 8 + 0.25
    np.testing.assert_array_equal(to_boxes, [[0.5, 0, 0.5, 0]])
    nonzero = {777: 0.75, 778: 0.25}
    assert {int(k): float(to_features[0, k, 0, 0]) for k in nonzero} == nonzero


def test_gradient_to_boxes_has_their_own_dtype() -> None:
    boxes = tf.constant([[0.25, 0.5, 3, 2]], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        output = ops.roi_align(np.ones((1, 4, 4, 1), np.float32), boxes, [0], 2)
    assert output.dtype == tf.float32
    assert tape.gradient(output, boxes).dtype == tf.float64


def test_indices_have_no_gradient_and_one_source_may_be_asked_for_alone() -> None:
    features = tf.constant(np.random.default_rng(0).normal(size=(1, 4, 4, 2)))
    boxes, indices = tf.constant([[0.3, 0.4, 3, 2.9]], tf.float64), tf.constant([0])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([features, boxes, indices])
        output = ops.roi_align(features, boxes, indices, 2)
    to_features, to_boxes, to_indices = tape.gradient(output, [features, boxes, indices])
    assert to_indices is None
    assert_same(tape.gradient(output, features), to_features.numpy())
    assert_same(tape.gradient(output, boxes), to_boxes.numpy())


def test_huge_adaptive_boxes_are_done_in_no_time() -> None:
    features = tf.constant(np.random.default_rng(0).normal(size=(1, 64, 64, 16)), tf.float32)
    boxes = tf.constant([[-1e9, -1e9, 1e9, 1e9], [0, 0, 1e30, 9], [-1e5, 3, 1e5, 1e7]], tf.float32)

    def run(features: tf.Tensor, boxes: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch([features, boxes])
            output = ops.roi_align(features, boxes, [0, 0, 0], 7)
        return output, tape.gradient(output, [features, boxes])

    for function in (run, tf.function(run, jit_compile=True)):
        function(features, boxes / 1e30)
        start = time.perf_counter()
        output, gradients = function(features, boxes)
        for result in (output, *gradients):
            assert np.isfinite(result).all()
        assert time.perf_counter() - start < 5


@pytest.mark.skipif(EMULATED, reason="a GPU's kernels round sums in another order")
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_gradient_to_features_is_the_same_bits_eagerly_in_graphs_and_under_xla(dtype: Any) -> None:
    generator = np.random.default_rng(0)
    features = tf.constant(generator.normal(size=(2, 40, 50, 33)).astype(dtype))
    boxes = np.array([box_of(generator, "across", (40, 50)) for _ in range(50)], np.float32)
    indices = generator.integers(0, 2, 50)

    def gradient(features: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(features)
            output = ops.roi_align(features, boxes, indices, 7)
        return tape.gradient(output, features, output_gradients=output)

    expected = gradient(features).numpy()
    assert_same_bits(tf.function(gradient)(features).numpy(), expected)
    assert_same_bits(tf.function(gradient, jit_compile=True)(features).numpy(), expected)


NOTHING = [None, None, None, None]


@pytest.mark.parametrize("jit_compile", [None, True])
@pytest.mark.parametrize(
    ("features", "boxes", "indices", "static"),
    [
        (None, None, None, [None, 2, 3, None]),
        (NOTHING, [None, 4], [None], [None, 2, 3, None]),
        ([None, None, None, 3], [None, None], [5], [5, 2, 3, 3]),
        ([2, 6, 7, 3], [5, 4], [5], [5, 2, 3, 3]),
        ([2, 6, None, None], [5, 4], None, [5, 2, 3, None]),
    ],
    ids=["unknown ranks", "unknown sizes", "from indices", "known", "from boxes"],
)
def test_static_shape_is_what_can_be_known(
    features: Any, boxes: Any, indices: Any, static: Any, jit_compile: bool | None
) -> None:
    @tf.function(
        input_signature=[
            tf.TensorSpec(features),
            tf.TensorSpec(boxes),
            tf.TensorSpec(indices, tf.int64),
        ],
        jit_compile=jit_compile,
    )
    def align(x: tf.Tensor, b: tf.Tensor, i: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([x, b])
            output = ops.roi_align(x, b, i, (2, 3), sampling_ratio=2)
        return [output, *tape.gradient(output, [x, b])]

    output, to_features, to_boxes = align.get_concrete_function().structured_outputs
    assert output.shape.as_list() == static
    assert to_features.shape.is_compatible_with(features)
    assert to_boxes.shape.is_compatible_with([None, 4])
    case = paths_case(np.float32, np.int64, np.float32)
    x, b, i = case[0][:, :6, :7, :3], case[1][:5], case[2][:5]
    assert_close(align(x, b, i)[0], roi_align(x, b, i, (2, 3), sampling_ratio=2))


def test_one_trace_serves_any_number_of_boxes_and_any_size_of_map() -> None:
    traces = []

    @tf.function(
        input_signature=[
            tf.TensorSpec(NOTHING),
            tf.TensorSpec([None, 4]),
            tf.TensorSpec([None], tf.int32),
        ]
    )
    def align(x: tf.Tensor, b: tf.Tensor, i: tf.Tensor) -> tf.Tensor:
        traces.append(1)
        return ops.roi_align(x, b, i, 3, 0.5)

    generator = np.random.default_rng(0)
    for size, count in [((5, 6), 3), ((8, 2), 0), ((1, 1), 1)]:
        x = generator.normal(size=(1, *size, 2)).astype(np.float32)
        boxes = [box_of(generator, "across", size, 0.5) for _ in range(count)]
        b, i = np.reshape(boxes, (-1, 4)).astype(np.float32), np.zeros(count, np.int32)
        assert_close(align(x, b, i), roi_align(x, b, i, (3, 3), 0.5))
    assert len(traces) == 1


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("portable", [False, True])
def test_ranks_may_be_unknown_up_to_the_second_order(portable: bool, ratio: int) -> None:
    @tf.function(input_signature=[tf.TensorSpec(None, tf.float64), tf.TensorSpec(None, tf.float64)])
    def second(x: tf.Tensor, b: tf.Tensor) -> Any:
        with tf.GradientTape() as outer:
            outer.watch([x, b])
            with tf.GradientTape() as inner:
                inner.watch(b)
                output = ops.roi_align(x, b, tf.constant([0]), 2, sampling_ratio=ratio) ** 2
            first = inner.gradient(output, b)
        return first, outer.gradient(first, [x, b])

    generator = np.random.default_rng(0)
    x, b = generator.normal(size=(1, 6, 7, 2)), np.array([[0.9, 1.3, 4.7, 5.2]])
    with tfseg_ops.portable() if portable else contextlib.nullcontext():
        actual = second(x, b)
    with tfseg_ops.portable():
        expected = second.python_function(tf.constant(x), tf.constant(b))
    tf.nest.map_structure(assert_close, actual, expected)


@pytest.mark.parametrize(
    "size", [3, np.int64(3), (3, 3), [3, np.int32(3)], np.array([3, 3])], ids=repr
)
def test_output_size_is_an_int_or_a_pair(size: Any) -> None:
    image = np.random.default_rng(0).normal(size=(1, 7, 8, 2))
    result = ops.roi_align(image, [[1.0, 2.0, 6.0, 7.0]], [0], size)
    assert_same(result, ops.roi_align(image, [[1.0, 2.0, 6.0, 7.0]], [0], (3, 3)).numpy())


def test_numbers_of_lists_are_taken_for_boxes_and_indices() -> None:
    image = np.random.default_rng(0).normal(size=(1, 7, 8, 2))
    result = ops.roi_align(image, [[1, 2, 6, 7.5]], [0], 2)
    assert_close(result, roi_align(image, np.array([[1, 2, 6, 7.5]]), np.array([0]), (2, 2)))
    assert ops.roi_align(image, np.zeros((0, 4), np.float32), [], 2).shape == (0, 2, 2, 2)
