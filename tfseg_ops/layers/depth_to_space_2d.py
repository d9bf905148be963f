"""Channels moved to pixels."""

from typing import Any

import keras
import tensorflow as tf

from tfseg_ops import _checks


@keras.saving.register_keras_serializable(package="tfseg_ops")
class DepthToSpace2D(keras.layers.Layer):
    """Moves blocks of channels to blocks of pixels: the sub-pixel output, or pixel shuffle.

        output[b, s y + i, s x + j, c] = input[b, y, x, (s i + j) channels + c]

    with the block size `s` and the `channels` of the output, as `tf.nn.depth_to_space`. After a
    convolution it enlarges images at the cost of a convolution at low resolution.

    Args:
        block_size: pixels along each side of a block, at least 2.

    Call arguments:
        inputs: `[batch, height, width, block_size**2 * channels]`.

    Returns:
        `[batch, block_size * height, block_size * width, channels]`.

    Raises:
        ValueError: a wrong block size, or channels that it does not divide.

    Example:
        >>> x = keras.layers.Conv2D(4 * 4 * 3, 3, padding="same")(x)
        >>> image = DepthToSpace2D(4)(x)

    References:
        Shi et al. 2016, "Real-time single image and video super-resolution using an efficient
        sub-pixel convolutional neural network", section 2.2.
    """

    def __init__(self, block_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.block_size = _checks.integer("DepthToSpace2D", "block_size", block_size, 2)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        shape = self.compute_output_shape(inputs.shape)
        outputs = tf.nn.depth_to_space(inputs, self.block_size)
        outputs.set_shape(shape)
        return outputs

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        area = self.block_size**2
        if len(input_shape) != 4 or input_shape[3] is None or input_shape[3] % area:
            rule = f"have shape [batch, height, width, a multiple of {area}]"
            _checks.refuse("DepthToSpace2D", "inputs", rule, _checks.describe(input_shape))
        batch, *size, channels = input_shape
        height, width = (None if side is None else self.block_size * side for side in size)
        return (batch, height, width, channels // area)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "block_size": self.block_size}
