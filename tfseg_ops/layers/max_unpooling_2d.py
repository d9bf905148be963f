"""The layer of `ops.max_unpool`."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfseg_ops import _checks, ops


@keras.saving.register_keras_serializable(package="tfseg_ops")
class MaxUnpooling2D(keras.layers.Layer):
    """Puts values back where a `MaxPoolingWithArgmax2D` took its maxima, and zeros elsewhere.

    See `ops.max_unpool`. Give it the pool's input as `like`, and its size is restored exactly,
    whatever it was. Without `like` the output has the size of the values times the strides; then
    each position must lie in its own pooling window, since masks of an input of another size would
    be legal numbers in wrong places.

    Args:
        pool_size: the pool's window in pixels, an int or `[height, width]`.
        strides: the pool's strides, likewise; None: `pool_size`.

    Call arguments:
        inputs: `[values, argmax]` or `[values, argmax, like]`: values `[batch, height, width,
            channels]`, floating; argmax, the same shape, int32 or int64; like `[batch, out_height,
            out_width, any]`, of which only the size counts.

    Returns:
        `[batch, out_height, out_width, channels]`.

    Raises:
        ValueError: another number of inputs, or shapes that do not fit.
        tf.errors.InvalidArgumentError: at run time, a position outside the output, or without
            `like` one outside its own window. On GPUs such a value is dropped instead.
    """

    def __init__(
        self,
        pool_size: int | tuple[int, int] = 2,
        strides: int | tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        name = type(self).__name__
        self.pool_size = _checks.pair(name, "pool_size", pool_size)
        self.strides = _checks.pair(name, "strides", pool_size if strides is None else strides)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        _require_inputs(inputs)
        values, argmax = inputs[:2]
        if len(inputs) == 3:
            return ops.max_unpool(values, argmax, _size(inputs[2]))
        size = [extent * stride for extent, stride in zip(_size(values), self.strides, strict=True)]
        return ops.max_unpool(values, argmax, size, windows=(self.pool_size, self.strides))

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[int | None, ...]:
        _require_inputs(input_shape)
        dtypes = (self.compute_dtype, "int64", self.compute_dtype)
        inputs = [
            keras.KerasTensor(shape, dtype)
            for shape, dtype in zip(input_shape, dtypes, strict=False)
        ]
        return self.compute_output_spec(inputs).shape

    def compute_output_spec(self, inputs: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        # From the op itself, so that what it would refuse is refused when the model is built.
        return keras.Operation.compute_output_spec(self, inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pool_size": self.pool_size, "strides": self.strides}


def _require_inputs(inputs: Sequence[Any]) -> None:
    if not isinstance(inputs, (list, tuple)) or len(inputs) not in (2, 3):
        count = len(inputs) if isinstance(inputs, (list, tuple)) else f"a {type(inputs).__name__}"
        raise ValueError(
            f"MaxUnpooling2D: 'inputs' must be [values, argmax] or [values, argmax, like], "
            f"got {count}"
        )


def _size(tensor: tf.Tensor) -> list[Any]:
    """Returns [height, width], ints where they are known."""
    dynamic = tf.shape(tensor)
    return [dynamic[axis] if tensor.shape[axis] is None else tensor.shape[axis] for axis in (1, 2)]
