"""`DepthToSpace2D`: where each channel goes, gradients, half precision, sizes, config."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfseg_ops.layers import DepthToSpace2D


@pytest.mark.parametrize("jit_compile", [None, False, True])
@pytest.mark.parametrize("block", [2, 3, 4])
def test_channels_go_to_the_pixels_of_their_block(block, jit_compile) -> None:
    layer = DepthToSpace2D(block)
    x = np.random.default_rng(0).normal(size=(2, 3, 5, block**2 * 3)).astype(np.float32)
    call = layer if jit_compile is None else tf.function(layer, jit_compile=jit_compile)
    outputs = call(x).numpy()
    assert outputs.shape == (2, 3 * block, 5 * block, 3)
    assert layer.compute_output_shape(x.shape) == outputs.shape
    for i in range(block):
        for j in range(block):
            first = (block * i + j) * 3
            np.testing.assert_array_equal(outputs[:, i::block, j::block], x[..., first : first + 3])


def test_gradient_goes_back_to_the_channels() -> None:
    x = tf.random.stateless_normal([1, 2, 3, 8], (0, 0))
    weights = tf.random.stateless_normal([1, 4, 6, 2], (1, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(weights * DepthToSpace2D(2)(x))
    gradient = tape.gradient(total, x)
    np.testing.assert_array_equal(DepthToSpace2D(2)(gradient), weights)


def test_half_precision_and_batches_of_none() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    outputs = DepthToSpace2D(2)(np.ones((0, 3, 3, 4), np.float32))
    assert outputs.dtype == tf.bfloat16
    assert outputs.shape == (0, 6, 6, 1)


def test_sizes_may_be_unknown_until_the_call() -> None:
    x = keras.Input([None, 5, 18])
    outputs = DepthToSpace2D(3)(x)
    assert outputs.shape == (None, None, 15, 2)
    assert keras.Model(x, outputs)(np.zeros([1, 1, 5, 18])).shape == (1, 3, 15, 2)


def test_what_does_not_fit_is_named() -> None:
    for block in (1, 0, 2.5, True):
        rule = f"DepthToSpace2D: 'block_size' must be an int of at least 2, got {block}"
        with pytest.raises(ValueError, match=rule):
            DepthToSpace2D(block)
    for shape, words in (([1, 2, 3, 6], "[1, 2, 3, 6]"), ([2, 3, 4], "[2, 3, 4]")):
        with pytest.raises(ValueError, match="a multiple of 4") as caught:
            DepthToSpace2D(2).compute_output_shape(shape)
        rule = "'inputs' must have shape [batch, height, width, a multiple of 4]"
        assert str(caught.value) == f"DepthToSpace2D: {rule}, got {words}"
        with pytest.raises(ValueError, match="a multiple of 4"):
            DepthToSpace2D(2)(np.zeros(shape))


def test_config_makes_the_same_layer() -> None:
    assert DepthToSpace2D.from_config(DepthToSpace2D(3).get_config()).block_size == 3
