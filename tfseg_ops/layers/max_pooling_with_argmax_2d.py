"""The layer of `ops.max_pool_with_argmax`."""

from typing import Any

import keras
import tensorflow as tf

from tfseg_ops import _checks, ops


@keras.saving.register_keras_serializable(package="tfseg_ops")
class MaxPoolingWithArgmax2D(keras.layers.Layer):
    """Max-pooling that also returns where each maximum stood, for a `MaxUnpooling2D` further on.

    See `ops.max_pool_with_argmax`.

    Args:
        pool_size: the window's size in pixels, an int or `[height, width]`.
        strides: the distance between windows, likewise; None: `pool_size`.
        padding: "valid" or "same".
        argmax_dtype: dtype of the positions, "int64" or "int32" (faster, for images of up to 2^31
            elements).

    Call arguments:
        inputs: `[batch, height, width, channels]`, floating.

    Returns:
        `[output, argmax]`, both `[batch, out_height, out_width, channels]`.

    Example:
        >>> x, mask = MaxPoolingWithArgmax2D()(images)
        >>> x = keras.layers.Conv2D(images.shape[-1], 3, padding="same")(x)
        >>> x = MaxUnpooling2D()([x, mask, images])
    """

    def __init__(
        self,
        pool_size: int | tuple[int, int] = 2,
        strides: int | tuple[int, int] | None = None,
        padding: str = "valid",
        argmax_dtype: str = "int64",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        name = type(self).__name__
        self.pool_size = _checks.pair(name, "pool_size", pool_size)
        self.strides = _checks.pair(name, "strides", pool_size if strides is None else strides)
        if not isinstance(padding, str) or padding.lower() not in ("valid", "same"):
            raise ValueError(f'{name}: \'padding\' must be "valid" or "same", got {padding}')
        self.padding = padding.lower()
        _checks.require_dtype(name, "argmax_dtype", tf.as_dtype(argmax_dtype), _checks.INDEX_DTYPES)
        self.argmax_dtype = tf.as_dtype(argmax_dtype).name

    def call(self, inputs: tf.Tensor) -> list[tf.Tensor]:
        output, argmax = ops.max_pool_with_argmax(
            inputs, self.pool_size, self.strides, self.padding, output_dtype=self.argmax_dtype
        )
        return [output, argmax]

    def compute_output_shape(self, input_shape: Any) -> list[tuple[int | None, ...]]:
        outputs = self.compute_output_spec(keras.KerasTensor(input_shape, self.compute_dtype))
        return [output.shape for output in outputs]

    def compute_output_spec(self, inputs: keras.KerasTensor) -> list[keras.KerasTensor]:
        # From the op itself: a layer's own rule would give positions the dtype of the values.
        return keras.Operation.compute_output_spec(self, inputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "strides": self.strides,
            "padding": self.padding,
            "argmax_dtype": self.argmax_dtype,
        }
