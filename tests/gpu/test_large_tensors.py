"""Tensors of more elements than 32 bits count, forth and back through both ops."""

import os
import types

import numpy as np
import pytest
import tensorflow as tf
from helpers.gpu import EMULATED, require_gpu, run
from helpers.tolerances import assert_same_bits

from tfseg_ops import ops

require_gpu()
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device")]

# A little more than 2**31 elements, with odd sides.
SHAPE = (1, 4099, 8193, 64)
HOST_GIBIBYTES = 40


def test_more_than_two_to_the_31_elements_are_pooled_and_unpooled(core: types.ModuleType) -> None:
    if EMULATED:
        pytest.skip("an emulator would take hours")
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    if free < HOST_GIBIBYTES:
        pytest.skip(f"needs {HOST_GIBIBYTES} GiB of free host memory, got {free:.0f}")
    # Whole numbers that float16 holds, none of them 0; a prime period lies across all strides.
    image = np.resize(np.arange(1, 1010, dtype=np.float16), SHAPE)
    assert image.size > 2**31

    def forth_and_back(x: tf.Tensor) -> list[tf.Tensor]:
        output, argmax = ops.max_pool_with_argmax(x, 2, 2, "SAME")
        return [output, argmax, ops.max_unpool(output, argmax, SHAPE[1:3])]

    try:
        output, argmax, restored = run("eager", forth_and_back, image)
    except tf.errors.ResourceExhaustedError:
        pytest.skip("needs 26 GiB of free memory on the GPU")
    expected = core.max_pool_with_argmax(image, (2, 2), (2, 2), "SAME")
    assert_same_bits(output, expected[0])
    np.testing.assert_array_equal(argmax, expected[1])
    assert_same_bits(restored, core.max_unpool(output, argmax, SHAPE[1:3]))
