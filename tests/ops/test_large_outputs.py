"""Outputs larger than the caches, which are written past them: every element, in order, once.

TensorFlow's memory begins with a cache line, as that asks for; numpy's, in tests/core, need not.
"""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.large import large_windows, masks_of, unpooled
from helpers.tolerances import FLOAT_DTYPES, assert_same_bits, name_of

from tfseg_ops import ops

DTYPES = pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
# Pixels of whole cache lines, also with a rest of lanes, and pixels that share lines.
CHANNELS = pytest.mark.parametrize(
    ("channels", "index"), [(64, np.int64), (96, np.int32), (65, np.int64)]
)


@DTYPES
@CHANNELS
def test_pooling_writes_every_maximum_and_position(dtype: Any, channels: int, index: Any) -> None:
    values, larger = large_windows(dtype, channels)
    output, argmax = ops.max_pool_with_argmax(
        unpooled(values, larger), (1, 2), (1, 2), "VALID", index
    )
    assert_same_bits(output.numpy(), values)
    assert_same_bits(argmax.numpy(), masks_of(larger, index))


@DTYPES
@CHANNELS
def test_unpooling_and_its_gradient_write_every_element(
    dtype: Any, channels: int, index: Any
) -> None:
    values, larger = large_windows(dtype, channels)
    masks = masks_of(larger, index)
    x = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(x)
        # One row more, that no window reaches.
        output = ops.max_unpool(x, masks, (values.shape[1] + 1, 2 * values.shape[2]))
    expected = unpooled(values, larger)
    np.testing.assert_array_equal(output[:, -1], np.zeros_like(expected[:, 0]))
    assert_same_bits(output[:, :-1].numpy(), expected)
    gradient = tape.gradient(output, x, output_gradients=output)
    assert_same_bits(gradient.numpy(), values)


@DTYPES
def test_one_foreign_mask_in_a_large_array_is_not_dropped(dtype: Any) -> None:
    values, larger = large_windows(dtype, 64)
    masks = masks_of(larger, np.int32)
    size = values.shape[1], 2 * values.shape[2]
    expected = unpooled(values, larger)
    # Late in the last image, where much has been written already, to the first pixel.
    late = (1, values.shape[1] - 2, 5, 7)
    expected[1, late[1], 10 + larger[late], 7] = 0
    masks[late] = 3
    expected[1, 0, 0, 3] = (np.float32(expected[1, 0, 0, 3]) + np.float32(values[late])).astype(
        dtype
    )
    assert_same_bits(ops.max_unpool(values, masks, size).numpy(), expected)


def test_xla_writes_every_element() -> None:
    values, larger = large_windows(np.float32, 64)
    image = unpooled(values, larger)

    @tf.function(jit_compile=True)
    def run(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        output, argmax = ops.max_pool_with_argmax(image, (1, 2), (1, 2), "VALID", tf.int32)
        return output, argmax, ops.max_unpool(output, argmax, image.shape[1:3])

    output, argmax, restored = run(image)
    assert_same_bits(output.numpy(), values)
    assert_same_bits(argmax.numpy(), masks_of(larger, np.int32))
    assert_same_bits(restored.numpy(), image)
