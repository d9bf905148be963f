"""Padding of small images."""

from typing import Any

import keras
import tensorflow as tf

from tfseg_ops import _checks


@keras.saving.register_keras_serializable(package="tfseg_ops")
class PadToMinimum2D(keras.layers.Layer):
    """Appends rows and columns of zeros to what is smaller than a size; the rest passes unchanged.

    A `CropLike2D` further on takes them off again.

    Args:
        size: the least height and width, an int or `(height, width)`.

    Call arguments:
        inputs: `[batch, height, width, channels]`.

    Returns:
        `[batch, max(height, size[0]), max(width, size[1]), channels]`.
    """

    def __init__(self, size: int | tuple[int, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = _checks.pair("PadToMinimum2D", "size", size)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        shape = self.compute_output_shape(inputs.shape)
        missing = tf.maximum(0, self.size - tf.shape(inputs)[1:3])
        padded = tf.pad(inputs, [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]])
        padded.set_shape(shape)
        return padded

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        if len(input_shape) != 4:
            rule = "have shape [batch, height, width, channels]"
            _checks.refuse("PadToMinimum2D", "inputs", rule, _checks.describe(input_shape))
        batch, height, width, channels = input_shape
        sizes = [
            None if size is None else max(size, least)
            for size, least in zip((height, width), self.size, strict=True)
        ]
        return (batch, *sizes, channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size}
