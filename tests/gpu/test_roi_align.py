"""`ops.roi_align` and `ops.multilevel_roi_align` on the GPU: what core and oracle compute.

Only illegal indices and levels differ: the CPU raises an error, on the GPU they are taken as -1.
"""

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.drawing import BOX_KINDS, RoiCase, box_of, generators, roi_cases
from helpers.gpu import PATHS, require_gpu, run
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
from reference.roi_align import boxes_grad, features_grad, multilevel_roi_align

from tfseg_ops import ops
from tfseg_ops.testing import check_gradients

require_gpu()
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device")]

Core = types.ModuleType

paths = st.sampled_from(PATHS)
dtypes = st.sampled_from(FLOAT_DTYPES)
indices = st.sampled_from(INDEX_DTYPES)
# Odd numbers, and multiples of what a vector load takes.
channels = st.integers(1, 67) | st.sampled_from([4, 8, 12, 16, 24, 32, 64])


def forth_and_back(case: RoiCase) -> Callable[..., list[tf.Tensor]]:
    """A function of boxes, indices, levels, the gradient from above, and features.

    It returns the output, the gradients to the features, and the gradient to the boxes.
    """
    size, scales, ratio, aligned = case[4:]

    def function(
        boxes: tf.Tensor, where: tf.Tensor, levels: tf.Tensor, upstream: tf.Tensor, *maps: tf.Tensor
    ) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([*maps, boxes])
            if len(maps) == 1:
                output = ops.roi_align(maps[0], boxes, where, size, scales[0], ratio, aligned)
            else:
                output = ops.multilevel_roi_align(
                    maps, boxes, where, levels, size, scales, ratio, aligned
                )
        gradients = tape.gradient(output, [*maps, boxes], output_gradients=upstream)
        return [output, *gradients]

    return function


def results_of(path: str, case: RoiCase, upstream: np.ndarray) -> list[np.ndarray]:
    """The output and all gradients, from the GPU."""
    inputs = case.boxes, case.box_indices, case.levels, upstream
    return run(path, forth_and_back(case), *inputs, *case.features)


def upstream_of(case: RoiCase) -> np.ndarray:
    """Random gradients of the output."""
    shape = (len(case.boxes), *case.output_size, case.features[0].shape[3])
    return np.random.default_rng(1).normal(size=shape).astype(case.features[0].dtype)


def check(
    results: list[np.ndarray],
    case: RoiCase,
    upstream: np.ndarray,
    forward: Callable[..., Any],
    to_features: Callable[..., Any],
    to_boxes: Callable[..., Any],
) -> None:
    """Compares with the core's functions or the oracle's. (Sums are in another order.)"""
    places, how = (case.boxes, case.box_indices, case.levels), case[5:]
    expected = forward(*case)
    assert results[0].dtype == expected.dtype
    assert results[0].shape == expected.shape
    assert_close(results[0], expected)

    magnitudes = np.abs(upstream.astype(np.float64))
    terms = features_grad(magnitudes, *places, case.sizes, *how)
    for actual, wanted, limit in zip(
        results[1:-1], to_features(upstream, *places, case.sizes, *how), terms, strict=True
    ):
        assert actual.dtype == wanted.dtype
        assert_close_sums(actual, wanted, limit)

    wanted = to_boxes(upstream, case.features, *places, *how)
    assert results[-1].dtype == wanted.dtype
    largest = max((float(np.abs(level).max(initial=0)) for level in case.features), default=0.0)
    sums = magnitudes.sum((1, 2, 3))[:, None] * max(case.spatial_scales)
    assert_close_sums(results[-1], wanted, np.broadcast_to(2 * largest * sums, wanted.shape))


def check_with_core(
    core: Core, results: list[np.ndarray], case: RoiCase, upstream: np.ndarray
) -> None:
    """Compares the output and all gradients with those of the core."""
    check(
        results,
        case,
        upstream,
        core.multilevel_roi_align,
        core.roi_align_features_grad,
        core.roi_align_boxes_grad,
    )


def pyramid_case(
    generator: np.random.Generator,
    dtype: Any,
    index: Any,
    channels: int,
    kinds: Any,
    ratio: int = 0,
    aligned: bool = True,
) -> RoiCase:
    """Two images of two levels, and a box of each kind in one of them."""
    sizes, scales = [(7, 9), (4, 5)], [0.5, 0.25]
    levels = generator.integers(0, 2, len(kinds)).astype(index)
    boxes = [
        box_of(generator, kind, sizes[level], scales[level])
        for kind, level in zip(kinds, levels, strict=True)
    ]
    return RoiCase(
        [generator.normal(size=(2, *size, channels)).astype(dtype) for size in sizes],
        np.array(boxes, np.float64 if dtype == np.float64 else np.float32),
        generator.integers(0, 2, len(kinds)).astype(index),
        levels,
        (3, 2),
        scales,
        ratio,
        aligned,
    )


@settings(max_examples=40)
@given(paths, roi_cases())
def test_results_and_gradients_are_those_of_core_and_oracle(
    core: Core, path: str, case: RoiCase
) -> None:
    """Arrays of no elements, and boxes that are huge or not finite, included."""
    upstream = upstream_of(case)
    results = results_of(path, case, upstream)
    check_with_core(core, results, case, upstream)
    check(results, case, upstream, multilevel_roi_align, features_grad, boxes_grad)


@settings(max_examples=20)
@given(paths, generators, dtypes, indices, channels, st.integers(0, 3), st.booleans())
def test_any_number_of_channels_gives_what_the_core_gives(
    core: Core,
    path: str,
    generator: np.random.Generator,
    dtype: Any,
    index: Any,
    channels: int,
    ratio: int,
    aligned: bool,
) -> None:
    case = pyramid_case(generator, dtype, index, channels, BOX_KINDS, ratio, aligned)
    upstream = upstream_of(case)
    check_with_core(core, results_of(path, case, upstream), case, upstream)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("index", INDEX_DTYPES, ids=name_of)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_boxes_whose_image_or_level_does_not_exist_give_zeros_and_no_gradient(
    core: Core, dtype: Any, index: Any, path: str
) -> None:
    """NaN as their gradients from above: these are not multiplied by zero."""
    generator = np.random.default_rng(0)
    legal = pyramid_case(generator, dtype, index, 8, BOX_KINDS * 2)
    largest = int(np.iinfo(index).max)
    wrong = [-1, 2, -2, 2**31 - 1, -(2**31), largest, -largest - 1]
    wrong += [2**32, -(2**32) + 1] if index == np.int64 else []
    where, levels = legal.box_indices.copy(), legal.levels.copy()
    lost = np.arange(len(where)) % 3 == 0
    where[::6], levels[3::6] = (
        generator.choice(wrong, np.size(part)) for part in (where[::6], levels[3::6])
    )
    upstream = upstream_of(legal)
    without = upstream.copy()
    upstream[lost], without[lost] = np.nan, 0
    results = results_of(path, legal._replace(box_indices=where, levels=levels), upstream)
    padded = legal._replace(box_indices=np.where(lost, index(-1), legal.box_indices))
    check_with_core(core, results, padded, without)
    assert_same(results[0][lost], np.zeros_like(results[0][lost]))
    assert_same(results[-1][lost], np.zeros_like(results[-1][lost]))
    assert results[-1][~lost].any()


@pytest.mark.parametrize("path", PATHS)
def test_image_that_does_not_exist_gives_zeros_on_one_level(path: str) -> None:
    image = np.ones((2, 4, 5, 3), np.float32)
    boxes = np.tile(np.array([[0, 0, 4, 5]], np.float32), (4, 1))
    output, to_image, to_boxes = run(
        path,
        forth_and_back(RoiCase([image], boxes, boxes, boxes, (2, 2), [1.0], 0, True)),
        boxes,
        np.array([2, 1, -2, 10**9]),
        np.zeros(4, np.int64),
        np.ones((4, 2, 2, 3), np.float32),
        image,
    )
    np.testing.assert_array_equal(output.any((1, 2, 3)), [False, True, False, False])
    np.testing.assert_array_equal(to_image.any((1, 2, 3)), [False, True])
    assert_same(to_boxes, np.zeros((4, 4), np.float32))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("channels", [5, 8])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_nan_and_infinity_reach_the_bins_and_pixels_that_read_them(
    core: Core, dtype: Any, channels: int, path: str
) -> None:
    generator = np.random.default_rng(0)
    special = [0, 1, 1, 1, 1, 1, 2, np.nan, np.inf, -np.inf]
    for ratio in (0, 2):
        case = pyramid_case(generator, dtype, np.int64, channels, BOX_KINDS * 3, ratio)
        case = case._replace(
            features=[
                generator.choice(special, level.shape).astype(dtype) for level in case.features
            ]
        )
        upstream = generator.choice(special, upstream_of(case).shape).astype(dtype)
        results = results_of(path, case, upstream)
        expected = multilevel_roi_align(*case)
        assert {True, False} == set(np.isfinite(expected.astype(np.float64)).ravel())
        assert_close(results[0], expected)
        wanted = core.roi_align_features_grad(upstream, *case[1:4], case.sizes, *case[5:])
        for actual, level in zip(results[1:-1], wanted, strict=True):
            assert_close(actual, level)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_boxes_over_each_other_give_the_same_bits_in_every_run(
    core: Core, dtype: Any, path: str
) -> None:
    case = pyramid_case(np.random.default_rng(0), dtype, np.int32, 8, ["across"] * 60)
    upstream = upstream_of(case)
    expected = results_of(path, case, upstream)
    check_with_core(core, expected, case, upstream)
    for _ in range(4):
        for actual, first in zip(results_of(path, case, upstream), expected, strict=True):
            assert_same_bits(actual, first)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_many_boxes_on_larger_maps_give_what_the_core_gives(core: Core, dtype: Any) -> None:
    """Several blocks in each kernel."""
    generator = np.random.default_rng(0)
    sizes, scales = [(37, 31), (19, 16)], [0.25, 0.125]
    levels = generator.integers(0, 2, 40)
    kinds = generator.choice(["inside", "across", "small", "outside"], 40)
    boxes = [
        box_of(generator, kind, sizes[level], scales[level])
        for kind, level in zip(kinds, levels, strict=True)
    ]
    case = RoiCase(
        [generator.normal(size=(2, *size, 24)).astype(dtype) for size in sizes],
        np.array(boxes, np.float64 if dtype == np.float64 else np.float32),
        generator.integers(-1, 2, 40),
        levels,
        (7, 7),
        scales,
        0,
        True,
    )
    upstream = upstream_of(case)
    check_with_core(core, results_of("eager", case, upstream), case, upstream)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_gradients_are_those_of_central_differences(device: str, ratio: int, aligned: bool) -> None:
    """To features and boxes at once, and theirs; no point lies near a pixel's centre."""
    maps = [np.random.default_rng(0).normal(size=(2, *size, 2)) for size in [(5, 6), (3, 3)]]
    boxes = np.array([[0.3, 0.4, 3.1, 4.2], [0.65, 1.25, 5.1, 4.5], [1.3, 0.4, 4.1, 4.2]])
    if not aligned:
        boxes -= 0.5

    def align(fine: tf.Tensor, coarse: tf.Tensor, boxes: tf.Tensor) -> Any:
        arguments = [0, 1, 1], [0, 1, 0], 2, [1.0, 0.5], ratio, aligned
        return ops.multilevel_roi_align([fine, coarse], boxes, *arguments)

    with tf.device(device):
        check_gradients(align, [*maps, boxes], order=2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("path", PATHS)
def test_one_trace_serves_all_sizes(core: Core, path: str) -> None:
    def align(features: tf.Tensor, boxes: tf.Tensor, where: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(features)
            output = ops.roi_align(features, boxes, where, (2, 3))
        return [output, tape.gradient(output, features)]

    if path != "eager":
        align = tf.function(
            align,
            input_signature=[
                tf.TensorSpec([None] * 4),
                tf.TensorSpec([None, 4]),
                tf.TensorSpec([None], tf.int64),
            ],
            jit_compile=path == "xla" or None,
        )
    generator = np.random.default_rng(0)
    for shape, count in [
        ((1, 4, 4, 1), 1),
        ((2, 5, 7, 8), 3),
        ((1, 0, 4, 2), 2),
        ((1, 6, 3, 8), 0),
    ]:
        features = generator.normal(size=shape).astype(np.float32)
        boxes = np.reshape(
            [box_of(generator, "across", (5, 5)) for _ in range(count)], (-1, 4)
        ).astype(np.float32)
        where = generator.integers(0, shape[0], count)
        output, gradient = run("eager", align, features, boxes, where)
        assert_close(output, core.roi_align(features, boxes, where, (2, 3)))
        assert_close(
            gradient,
            core.roi_align_features_grad(
                np.ones_like(output), boxes, where, 0 * where, shape[:3], [1.0]
            )[0],
        )
