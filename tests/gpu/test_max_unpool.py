"""`ops.max_unpool` on the GPU: what the core computes on the CPU, to the last bit.

Only illegal masks differ: the CPU raises an error, on the GPU they contribute nothing.
"""

import types
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.drawing import contents, generators, masks_of, values
from helpers.gpu import PATHS, replaced, require_gpu, run
from helpers.tolerances import (
    FLOAT_DTYPES,
    INDEX_DTYPES,
    assert_same,
    assert_same_bits,
    name_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.max_unpool import in_own_window, max_unpool, max_unpool_grad

from tfseg_ops import ops
from tfseg_ops.testing import check_gradients
from tfseg_ops.testing.strategies import argmax_masks, windows

require_gpu()
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device")]

Core = types.ModuleType

paths = st.sampled_from(PATHS)
sides = st.integers(1, 7)
dtypes = st.sampled_from(FLOAT_DTYPES)
indices = st.sampled_from(INDEX_DTYPES)
# Odd numbers, and multiples of what a vector load takes.
channels = st.integers(1, 67) | st.sampled_from([4, 8, 12, 16, 24, 32, 64])
small_shapes = st.tuples(st.integers(0, 3), st.integers(0, 7), st.integers(0, 7), st.integers(1, 4))


def both_ways(size: Any, batch: bool = False, pooling: Any = None) -> Any:
    """A function of values, masks, the gradient from above and a direction of that.

    It returns the output, the gradient, and the gradient of the gradient.
    """

    def function(x: tf.Tensor, masks: tf.Tensor, upstream: tf.Tensor, u: tf.Tensor) -> Any:
        with tf.GradientTape() as outer:
            outer.watch(upstream)
            with tf.GradientTape() as inner:
                inner.watch(x)
                output = ops.max_unpool(x, masks, size, batch, windows=pooling)
            first = inner.gradient(output, x, output_gradients=upstream)
        return [output, first, outer.gradient(first, upstream, output_gradients=u)]

    return function


def check_both_ways(
    core: Core,
    path: str,
    generator: np.random.Generator,
    masks: np.ndarray,
    size: tuple[int, int],
    dtype: Any,
    content: str = "any values",
    batch: bool = False,
    pooling: Any = None,
) -> list[np.ndarray]:
    """Compares the output and both gradients with the core's; returns them and what was given."""
    x = values(generator, masks.shape, dtype, content)
    upstream = values(generator, (masks.shape[0], *size, masks.shape[3]), dtype, content)
    u = values(generator, masks.shape, dtype, content)
    output, first, second = run(path, both_ways(size, batch, pooling), x, masks, upstream, u)
    assert_same(output, core.max_unpool(x, masks, size, batch))
    assert_same(first, core.max_unpool_grad(upstream, masks, batch))
    assert_same(second, core.max_unpool(u, masks, size, batch))
    return [output, first, x, upstream]


@settings(max_examples=25)
@given(st.data(), paths, generators, contents, small_shapes, dtypes, indices, st.booleans())
def test_results_and_gradients_are_those_of_core_and_oracle(
    core: Core,
    data: st.DataObject,
    path: str,
    generator: np.random.Generator,
    content: str,
    shape: tuple[int, int, int, int],
    dtype: Any,
    index: Any,
    batch: bool,
) -> None:
    """Empty batches and empty masks included."""
    window = data.draw(windows(height=max(1, shape[1]), width=max(1, shape[2])))
    masks = data.draw(argmax_masks(shape, window, index, batch))
    size = shape[1:3]
    output, first, x, upstream = check_both_ways(
        core, path, generator, masks, size, dtype, content, batch
    )
    assert_same(output, max_unpool(x, masks, size, batch))
    assert_same(first, max_unpool_grad(upstream, masks, batch))


@settings(max_examples=20)
@given(st.data(), paths, generators, dtypes, indices, st.booleans(), sides, sides, channels)
def test_any_number_of_channels_gives_what_the_core_gives(
    core: Core,
    data: st.DataObject,
    path: str,
    generator: np.random.Generator,
    dtype: Any,
    index: Any,
    batch: bool,
    height: int,
    width: int,
    channels: int,
) -> None:
    window = data.draw(windows(height=height, width=width))
    masks = masks_of(generator, (2, height, width, channels), window, index, batch)
    check_both_ways(core, path, generator, masks, (height, width), dtype, batch=batch)


@settings(max_examples=15)
@given(paths, generators, dtypes, indices, st.booleans(), sides, sides, channels)
def test_masks_that_no_pooling_makes_give_what_the_core_gives(
    core: Core,
    path: str,
    generator: np.random.Generator,
    dtype: Any,
    index: Any,
    batch: bool,
    height: int,
    width: int,
    channels: int,
) -> None:
    limit = height * width * channels * (2 if batch else 1)
    masks = generator.integers(0, limit, (2, 3, 4, channels)).astype(index)
    check_both_ways(core, path, generator, masks, (height, width), dtype, batch=batch)


POOLINGS: dict[str, Any] = {
    "cells": ((2, 2), (2, 2), "VALID"),
    "cells, cut short": ((2, 3), (2, 3), "SAME"),
    "overlapping": ((3, 3), (2, 2), "SAME"),
    "overlapping, VALID": ((3, 2), (1, 2), "VALID"),
    "gaps": ((2, 2), (3, 4), "VALID"),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_masks_in_their_windows_are_kept(core: Core, dtype: Any, pooling: str, path: str) -> None:
    generator = np.random.default_rng(0)
    for index, channels, batch in ((np.int32, 8, False), (np.int64, 5, True)):
        masks = masks_of(generator, (2, 7, 9, channels), POOLINGS[pooling], index, batch)
        own = POOLINGS[pooling][:2]
        check_both_ways(core, path, generator, masks, (7, 9), dtype, batch=batch, pooling=own)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("batch", [False, True], ids=["image", "batch"])
@pytest.mark.parametrize("index", INDEX_DTYPES, ids=name_of)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_masks_outside_the_output_contribute_nothing(
    core: Core, dtype: Any, index: Any, batch: bool, path: str
) -> None:
    """NaN among the values: a dropped one is not multiplied by zero."""
    generator = np.random.default_rng(0)
    for pooling in ("cells", "overlapping"):
        for channels in (5, 8):
            legal = masks_of(generator, (2, 7, 9, channels), POOLINGS[pooling], index, batch)
            limit = 7 * 9 * channels * (2 if batch else 1)
            largest = np.iinfo(index).max
            wrong = [-1, limit, limit + 1, -limit, largest, -largest - 1]
            masks, kept = replaced(legal, generator, wrong)
            x = np.where(kept, values(generator, masks.shape, dtype, "any values"), dtype(np.nan))
            upstream = values(generator, (2, 7, 9, channels), dtype, "special values")
            u = values(generator, masks.shape, dtype, "any values")
            results = run(path, both_ways((7, 9), batch), x, masks, upstream, u)
            zero = np.zeros((), dtype)
            assert_same(results[0], core.max_unpool(np.where(kept, x, zero), legal, (7, 9), batch))
            gathered = core.max_unpool_grad(upstream, legal, batch)
            assert_same(results[1], np.where(kept, gathered, zero))
            assert_same(results[2], core.max_unpool(np.where(kept, u, zero), legal, (7, 9), batch))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_masks_outside_their_windows_contribute_nothing(
    core: Core, dtype: Any, pooling: str, path: str
) -> None:
    generator = np.random.default_rng(0)
    size = 7, 9
    for index, channels, batch in ((np.int32, 8, False), (np.int64, 5, True)):
        legal = masks_of(generator, (2, *size, channels), POOLINGS[pooling], index, batch)
        image = 7 * 9 * channels
        limit = image * (2 if batch else 1)
        masks, _ = replaced(legal, generator, [-1, 0, channels + 1, limit // 2, limit - 1, limit])
        own = POOLINGS[pooling][:2]
        kept = np.zeros(masks.shape, bool)
        for element in np.ndindex(masks.shape):
            position = int(masks[element]) - (element[0] * image if batch else 0)
            kept[element] = in_own_window(position, element, masks.shape, size, own)
        assert not kept.all()
        x = values(generator, masks.shape, dtype, "any values")
        upstream = values(generator, (2, *size, channels), dtype, "any values")

        def both_ways(
            x: tf.Tensor, m: tf.Tensor, upstream: tf.Tensor, batch: bool = batch, own: Any = own
        ) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(x)
                output = ops.max_unpool(x, m, size, batch, windows=own)
            return output, tape.gradient(output, x, upstream)

        result, gradient = run(path, both_ways, x, masks, upstream)
        zero = np.zeros((), dtype)
        given, places = np.where(kept, x, zero), np.where(kept, masks, legal)
        assert_same(result, core.max_unpool(given, places, size, batch))
        picked = core.max_unpool_grad(upstream, places, batch)
        assert_same(gradient, np.where(kept, picked, zero))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_many_values_at_one_position_give_the_same_bits_in_every_run(
    core: Core, dtype: Any, path: str
) -> None:
    generator = np.random.default_rng(0)
    x = values(generator, (2, 24, 20, 8), dtype, "any values")
    masks = generator.integers(0, 3 * 2 * 8, x.shape)
    expected = core.max_unpool(x, masks, (3, 2))
    function = lambda x, m: ops.max_unpool(x, m, (3, 2))  # noqa: E731
    for _ in range(5):
        (result,) = run(path, function, x, masks)
        assert_same_bits(result, expected)


@settings(max_examples=3)
@given(st.data(), indices)
def test_gradients_are_those_of_central_differences(
    device: str, data: st.DataObject, index: Any
) -> None:
    shape = data.draw(st.tuples(st.just(1), st.integers(1, 4), st.integers(1, 4), st.just(2)))
    window = data.draw(windows(height=shape[1], width=shape[2]))
    masks = data.draw(argmax_masks(shape, window, index))
    x = np.random.default_rng(0).normal(size=masks.shape)

    def unpool(x: tf.Tensor, masks: tf.Tensor) -> Any:
        # Squared, so that the gradient depends on the values and there is a second one to them.
        return ops.max_unpool(x, masks, shape[1:3]) ** 2

    with tf.device(device):
        check_gradients(unpool, [x, masks], order=2)


@pytest.mark.parametrize("path", PATHS)
def test_size_may_be_that_of_another_tensor(core: Core, path: str) -> None:
    generator = np.random.default_rng(0)
    masks = masks_of(generator, (2, 5, 7, 3), POOLINGS["overlapping"], np.int32)
    x = values(generator, masks.shape, np.float32, "any values")
    like = np.zeros((2, 5, 7, 3), np.float32)
    (result,) = run(
        path, lambda x, m, like: ops.max_unpool(x, m, tf.shape(like)[1:3]), x, masks, like
    )
    assert_same(result, core.max_unpool(x, masks, (5, 7)))
