"""`ops.max_pool_with_argmax` on the GPU: what the core computes on the CPU, to the last bit."""

import types
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.drawing import contents, generators, values
from helpers.gpu import PATHS, require_gpu, run
from helpers.tolerances import FLOAT_DTYPES, INDEX_DTYPES, assert_same, name_of
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.max_pool_with_argmax import max_pool_with_argmax

from tfseg_ops import ops
from tfseg_ops.testing import check_gradients
from tfseg_ops.testing.strategies import images, windows

require_gpu()
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device")]

Core = types.ModuleType

paths = st.sampled_from(PATHS)
sides = st.integers(1, 7)
dtypes = st.sampled_from(FLOAT_DTYPES)
indices = st.sampled_from(INDEX_DTYPES)
# Odd numbers, and multiples of what a vector load takes.
channels = st.integers(1, 67) | st.sampled_from([4, 8, 12, 16, 24, 32, 64])


@settings(max_examples=25)
@given(st.data(), paths, dtypes, indices, st.booleans(), st.booleans())
def test_maxima_and_positions_of_images_are_those_of_core_and_oracle(
    core: Core, data: st.DataObject, path: str, dtype: Any, index: Any, batch: bool, has_nan: bool
) -> None:
    special = st.sampled_from([0.0, -0.0, 1.0, -2.0, np.nan, np.inf, -np.inf]).map(dtype)
    image = data.draw(images(dtype, elements=special if has_nan else None))
    window = data.draw(windows(height=max(1, image.shape[1]), width=max(1, image.shape[2])))
    results = run(path, lambda x: ops.max_pool_with_argmax(x, *window, index, batch), image)
    for expected in (
        core.max_pool_with_argmax(image, *window, index, batch),
        max_pool_with_argmax(image, *window, index, batch),
    ):
        assert_same(results[0], expected[0])
        assert_same(results[1], expected[1])


@settings(max_examples=25)
@given(st.data(), paths, generators, contents, dtypes, indices, sides, sides, channels)
def test_any_number_of_channels_gives_what_the_core_gives(
    core: Core,
    data: st.DataObject,
    path: str,
    generator: np.random.Generator,
    content: str,
    dtype: Any,
    index: Any,
    height: int,
    width: int,
    channels: int,
) -> None:
    window = data.draw(windows(height=height, width=width))
    image = values(generator, (2, height, width, channels), dtype, content)
    results = run(path, lambda x: ops.max_pool_with_argmax(x, *window, index), image)
    expected = core.max_pool_with_argmax(image, *window, index)
    assert_same(results[0], expected[0])
    assert_same(results[1], expected[1])


CASES: dict[str, tuple[tuple[int, ...], tuple[Any, ...]]] = {
    "cells": ((2, 8, 6, 64), ((2, 2), (2, 2), "VALID")),
    "cells, odd size": ((2, 7, 9, 5), ((2, 2), (2, 2), "SAME")),
    "overlapping": ((2, 9, 8, 3), ((3, 3), (2, 2), "SAME")),
    "gaps": ((1, 9, 8, 4), ((2, 2), (3, 4), "VALID")),
    "larger than the image": ((1, 3, 2, 8), ((7, 5), (1, 2), "SAME")),
    "empty batch": ((0, 4, 4, 3), ((2, 2), (2, 2), "SAME")),
    "no channels": ((2, 4, 4, 0), ((2, 2), (2, 2), "SAME")),
    "nothing fits": ((2, 5, 6, 3), ((6, 2), (2, 2), "VALID")),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_each_kind_of_window_gives_what_the_core_gives(
    core: Core, dtype: Any, case: str, path: str
) -> None:
    shape, window = CASES[case]
    image = values(np.random.default_rng(0), shape, dtype, "any values")
    for index in INDEX_DTYPES:
        for batch in (False, True):
            arguments = (*window, index, batch)
            results = run(path, lambda x, a=arguments: ops.max_pool_with_argmax(x, *a), image)
            expected = core.max_pool_with_argmax(image, *arguments)
            assert_same(results[0], expected[0])
            assert_same(results[1], expected[1])


@settings(max_examples=20)
@given(st.data(), paths, generators, dtypes, indices, st.booleans(), sides, sides, channels)
def test_first_and_second_order_gradients_are_those_of_the_core(
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
    """Sums of any numbers, where windows overlap: the order of summation is that of the core."""
    arguments = (*data.draw(windows(height=height, width=width)), index, batch)
    image = values(generator, (2, height, width, channels), dtype, "any values")
    _, argmax = core.max_pool_with_argmax(image, *arguments)
    upstream = values(generator, argmax.shape, dtype, "any values")
    direction = values(generator, image.shape, dtype, "any values")

    def gradients(x: tf.Tensor, upstream: tf.Tensor, direction: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as outer:
            outer.watch(upstream)
            with tf.GradientTape() as inner:
                inner.watch(x)
                output, _ = ops.max_pool_with_argmax(x, *arguments)
            first = inner.gradient(output, x, output_gradients=upstream)
        return [first, outer.gradient(first, upstream, output_gradients=direction)]

    first, second = run(path, gradients, image, upstream, direction)
    assert_same(first, core.max_unpool(upstream, argmax, image.shape[1:3], batch))
    assert_same(second, core.max_unpool_grad(direction, argmax, batch))


@settings(max_examples=3)
@given(st.data(), indices)
def test_gradients_are_those_of_central_differences(
    device: str, data: st.DataObject, index: Any
) -> None:
    small = st.integers(1, 4)
    image = data.draw(images(np.float64, 1, small, small, st.integers(1, 2), distinct=True))
    window = data.draw(windows(height=image.shape[1], width=image.shape[2]))
    with tf.device(device):
        check_gradients(lambda x: ops.max_pool_with_argmax(x, *window, index), [image], order=2)


@pytest.mark.parametrize("path", PATHS)
def test_one_trace_serves_all_sizes(core: Core, path: str) -> None:
    def pool(x: tf.Tensor) -> Any:
        return ops.max_pool_with_argmax(x, 3, 2, "SAME", tf.int32)

    if path != "eager":
        pool = tf.function(
            pool, input_signature=[tf.TensorSpec([None] * 4)], jit_compile=path == "xla" or None
        )
    for shape in [(1, 4, 4, 1), (2, 5, 7, 3), (0, 4, 4, 2), (1, 6, 3, 8)]:
        image = values(np.random.default_rng(0), shape, np.float32, "few values")
        results = run("eager", pool, image)
        expected = core.max_pool_with_argmax(image, (3, 3), (2, 2), "SAME", np.int32)
        assert_same(results[0], expected[0])
        assert_same(results[1], expected[1])
