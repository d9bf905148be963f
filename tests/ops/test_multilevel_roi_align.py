"""`ops.multilevel_roi_align` and `ops.fpn_levels`: oracle, gradients, paths, levels, shapes."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.drawing import BOX_KINDS, RoiCase, box_of, generators, roi_cases
from helpers.tolerances import (
    FLOAT_DTYPES,
    INDEX_DTYPES,
    assert_close,
    assert_close_sums,
    assert_same,
    name_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.roi_align import boxes_grad, features_grad, fpn_levels, multilevel_roi_align

from tfseg_ops import ops
from tfseg_ops.testing import check_gradients, check_paths

SCALES = [0.5, 0.25, 0.125]


def pyramid(dtype: Any = np.float64, channels: int = 2, batch: int = 2) -> list[np.ndarray]:
    """Random maps of an image of 12 by 16 pixels."""
    generator = np.random.default_rng(0)
    sizes = [(6, 8), (3, 4), (2, 2)]
    return [generator.normal(size=(batch, *size, channels)).astype(dtype) for size in sizes]


def boxes_on_levels(dtype: Any = np.float64, index: Any = np.int32) -> tuple[np.ndarray, ...]:
    """Boxes, box indices and levels; some padding, some not finite."""
    generator = np.random.default_rng(0)
    kinds = [kind for kind in BOX_KINDS if kind not in ("halves", "tenths")] * 2
    levels = np.arange(len(kinds)) % 3
    maps = pyramid()
    boxes = [
        box_of(generator, kind, maps[level].shape[1:3], SCALES[level])
        for kind, level in zip(kinds, levels, strict=True)
    ]
    boxes[3][2] = np.nan
    indices = generator.integers(0, 2, len(kinds))
    indices[[4, -1]] = -1
    levels[4] = 99
    return np.array(boxes, dtype), indices.astype(index), levels.astype(index)


@settings(max_examples=100)
@given(roi_cases(num_levels=st.sampled_from([1, 2, 3, 5])))
def test_each_box_is_resampled_on_its_level_as_the_oracle_does(case: RoiCase) -> None:
    actual, expected = ops.multilevel_roi_align(*case).numpy(), multilevel_roi_align(*case)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert_close(actual, expected)


@settings(max_examples=40)
@given(roi_cases(num_levels=st.sampled_from([2, 3, 5])))
def test_gradients_are_those_of_the_oracle(case: RoiCase) -> None:
    features, boxes, box_indices, levels, bins = case[:5]
    how: Any = case[5:]
    shape = (len(boxes), *bins, features[0].shape[3])
    upstream = np.random.default_rng(1).normal(size=shape).astype(features[0].dtype)
    sources = [*map(tf.constant, features), tf.constant(boxes)]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        output = ops.multilevel_roi_align(sources[:-1], sources[-1], *case[2:])
    *to_features, to_boxes = tape.gradient(output, sources, output_gradients=upstream)

    places = boxes, box_indices, levels, case.sizes
    magnitudes = np.abs(upstream.astype(np.float64))
    expected = features_grad(upstream, *places, *how)
    terms = features_grad(magnitudes, *places, *how)
    for actual, wanted, bound in zip(to_features, expected, terms, strict=True):
        assert actual.dtype == wanted.dtype
        assert_close_sums(actual, wanted, bound)
    largest = max(float(np.abs(x.astype(np.float64)).max(initial=0)) for x in features)
    bound = 2 * max(case.spatial_scales) * largest * magnitudes.sum((1, 2, 3))[:, None]
    wanted = boxes_grad(upstream, features, boxes, box_indices, levels, *how)
    assert_close_sums(to_boxes, wanted, np.broadcast_to(bound, wanted.shape))


def test_several_levels_are_the_single_ones_put_together() -> None:
    maps = pyramid()
    boxes, indices, levels = boxes_on_levels()
    result = ops.multilevel_roi_align(maps, boxes, indices, levels, 3, SCALES).numpy()
    for level, (features, scale) in enumerate(zip(maps, SCALES, strict=True)):
        here = levels == level
        assert here.sum() > 2
        alone = ops.roi_align(features, boxes[here], indices[here], 3, scale)
        assert_same(result[here], alone.numpy())
    assert_same(result[levels == 99], np.zeros((1, 3, 3, 2)))


def test_sixteen_levels_are_legal() -> None:
    generator = np.random.default_rng(0)
    maps = [generator.normal(size=(1, 3 + level, 4, 2)) for level in range(16)]
    scales = [1 / (1 + level) for level in range(16)]
    boxes = np.tile([[0.25, 0.5, 3.0, 3.25]], (16, 1))
    case = RoiCase(maps, boxes, np.zeros(16, int), np.arange(16)[::-1], (2, 2), scales, 2, True)
    assert_close(ops.multilevel_roi_align(*case), multilevel_roi_align(*case))


@pytest.mark.parametrize("ratio", [0, 2])
def test_first_and_second_order_gradients_are_those_of_central_differences(ratio: int) -> None:
    """To all maps and the boxes at once. No sample point stands near a pixel's centre."""
    maps = pyramid(channels=1, batch=1)
    boxes = np.array(
        [
            [1.13, 2.21, 9.72, 13.4],
            [0.57, 1.37, 10.31, 14.83],
            [1.71, 2.27, 11.13, 11.9],
            [3.39, 0.73, 5.91, 9.17],
        ]
    )

    def align(p2: tf.Tensor, p3: tf.Tensor, p4: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        return ops.multilevel_roi_align(
            [p2, p3, p4], boxes, [0, 0, 0, -1], [0, 1, 2, 1], 2, SCALES, sampling_ratio=ratio
        )

    check_gradients(align, [*maps, boxes], order=2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_all_paths_agree(dtype: Any, ratio: int) -> None:
    boxes, indices, levels = boxes_on_levels(np.float64, INDEX_DTYPES[ratio // 2])
    check_paths(
        lambda a, b, c, boxes, i, n: ops.multilevel_roi_align(
            [a, b, c], boxes, i, n, (3, 2), SCALES, ratio
        ),
        [*pyramid(dtype), boxes, indices, levels],
        names=["p2", "p3", "p4", "boxes", "box_indices", "levels"],
    )


def test_level_without_boxes_or_pixels_has_a_gradient_of_zeros() -> None:
    maps = [tf.constant(level) for level in (*pyramid(), np.zeros((2, 0, 3, 2)))]
    boxes = tf.constant([[1.0, 2, 9, 11], [0, 0, 4, 4]], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(maps)
        output = ops.multilevel_roi_align(maps, boxes, [0, 1], [1, 3], 2, [*SCALES, 1 / 16])
    gradients = tape.gradient(output, maps)
    assert gradients[1].numpy().any()
    for k in (0, 2, 3):
        assert_same(gradients[k], np.zeros(maps[k].shape))
    assert_same(output[1], np.zeros((2, 2, 2)))


def test_gradient_of_one_level_may_be_asked_for_alone() -> None:
    maps = [tf.constant(level) for level in pyramid()]
    boxes, indices, levels = boxes_on_levels()
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(maps)
        output = ops.multilevel_roi_align(maps, boxes, indices, levels, 2, SCALES)
    every = tape.gradient(output, maps)
    assert_same(tape.gradient(output, maps[1]), every[1].numpy())


def test_levels_and_indices_may_differ_in_dtype() -> None:
    boxes, indices, levels = boxes_on_levels()
    expected = ops.multilevel_roi_align(pyramid(), boxes, indices, levels, 2, SCALES)
    for one, other in [(np.int32, np.int64), (np.int64, np.int32)]:
        places = indices.astype(one), levels.astype(other)
        result = ops.multilevel_roi_align(pyramid(), boxes, *places, 2, SCALES)
        assert_same(result, expected.numpy())


NOTHING = [None, None, None, None]


@pytest.mark.parametrize("jit_compile", [None, True])
@pytest.mark.parametrize(
    ("features", "boxes", "static"),
    [
        ([None, None, None], None, [None, 2, 2, None]),
        ([NOTHING, NOTHING, NOTHING], [None, 4], [None, 2, 2, None]),
        ([NOTHING, [None, None, None, 2], None], [12, 4], [12, 2, 2, 2]),
    ],
    ids=["unknown ranks", "unknown sizes", "channels of one map"],
)
def test_static_shape_is_what_can_be_known(
    features: Any, boxes: Any, static: Any, jit_compile: bool | None
) -> None:
    @tf.function(
        input_signature=[
            [tf.TensorSpec(shape, tf.float64) for shape in features],
            tf.TensorSpec(boxes, tf.float64),
            tf.TensorSpec(None, tf.int32),
            tf.TensorSpec(None, tf.int32),
        ],
        jit_compile=jit_compile,
    )
    def align(maps: list[tf.Tensor], b: tf.Tensor, i: tf.Tensor, n: tf.Tensor) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch([*maps, b])
            output = ops.multilevel_roi_align(maps, b, i, n, 2, SCALES)
        return [output, *tape.gradient(output, [*maps, b])]

    output, *_ = align.get_concrete_function().structured_outputs
    assert output.shape.as_list() == static
    places: Any = boxes_on_levels()
    result, *gradients = align(pyramid(), *places)
    assert_close(result, multilevel_roi_align(pyramid(), *places, (2, 2), SCALES))
    assert [g.shape for g in gradients[:3]] == [level.shape for level in pyramid()]


@settings(max_examples=100)
@given(
    generators,
    st.sampled_from([(4, 2, 224.0, 4), (5, 2, 224.0, 4), (1, 3, 100.0, 3), (3, 0, 50.0, 1)]),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([(), (0,), (7,), (2, 5), (2, 3, 2)]),
)
def test_levels_of_boxes_are_those_of_the_pyramid_formula(
    generator: np.random.Generator,
    arguments: tuple[int, int, float, int],
    dtype: Any,
    shape: tuple[int, ...],
) -> None:
    first = generator.uniform(-100, 900, (*shape, 2))
    boxes = np.concatenate([first, first + np.exp(generator.uniform(-3, 8, (*shape, 2)))], -1)
    boxes = boxes.astype(dtype)
    result = ops.fpn_levels(boxes, *arguments)
    assert_same(result, fpn_levels(boxes, *arguments))


@pytest.mark.parametrize(
    ("height", "width", "level"),
    [
        (224, 224, 2),
        (223.9, 224, 1),
        (112, 448, 2),
        (112, 112, 1),
        (111.9, 112, 0),
        (448, 448, 3),
        (447.9, 448, 2),
        (896, 896, 3),
        (1e6, 1e6, 3),
        (56, 56, 0),
        (1, 1, 0),
        (1e-20, 1e-20, 0),
        (0, 100, 0),
        (0, 0, 0),
        (-300, 300, 0),
        (300, -300, 0),
        (-300, -300, 0),
        (np.nan, 300, 0),
        (300, np.nan, 0),
        (1e30, 1e30, 3),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=name_of)
@pytest.mark.parametrize("path", ["eager", "xla"])
def test_level_changes_exactly_at_powers_of_two_of_the_canonical_size(
    path: str, dtype: Any, height: float, width: float, level: int
) -> None:
    function = tf.function(ops.fpn_levels, jit_compile=True) if path == "xla" else ops.fpn_levels
    for y, x in [(0, 0), (32, -64)]:
        box = np.array([[y, x, y + height, x + width]], dtype)
        if abs(height) < 1e-3 and y:
            continue  # lost beside the coordinate
        assert_same(function(box), np.array([level], np.int32))


def test_number_and_finest_of_the_levels_shift_the_index() -> None:
    boxes = [[0, 0, side, side] for side in (1.0, 50.0, 120.0, 230.0, 500.0, 5000.0)]
    assert ops.fpn_levels(boxes).numpy().tolist() == [0, 0, 1, 2, 3, 3]
    assert ops.fpn_levels(boxes, num_levels=2).numpy().tolist() == [0, 0, 1, 1, 1, 1]
    assert ops.fpn_levels(boxes, finest_level=3).numpy().tolist() == [0, 0, 0, 1, 2, 3]
    assert ops.fpn_levels(boxes, num_levels=1).numpy().tolist() == [0] * 6
    assert ops.fpn_levels(boxes, canonical_size=112.0).numpy().tolist() == [0, 0, 2, 3, 3, 3]


def test_levels_of_boxes_feed_the_alignment_in_a_graph() -> None:
    maps = pyramid(np.float32)
    generator = np.random.default_rng(0)
    boxes = np.array([box_of(generator, "inside", (12, 16)) for _ in range(20)], np.float32)

    @tf.function(
        input_signature=[tf.TensorSpec([None, 4]), tf.TensorSpec([None], tf.int32)],
        jit_compile=True,
    )
    def crops(boxes: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        levels = ops.fpn_levels(boxes, num_levels=3, canonical_size=4.0, canonical_level=3)
        return ops.multilevel_roi_align(maps, boxes, indices, levels, 2, SCALES)

    levels = fpn_levels(boxes, 3, canonical_size=4.0, canonical_level=3)
    assert set(levels) == {0, 1, 2}
    indices = np.zeros(20, np.int32)
    expected = multilevel_roi_align(maps, boxes, indices, levels, (2, 2), SCALES)
    assert_close(crops(boxes, indices), expected)
