"""Cropping to the size of another tensor."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfseg_ops import _checks


@keras.saving.register_keras_serializable(package="tfseg_ops")
class CropLike2D(keras.layers.Layer):
    """Cuts a window of the height and width of another tensor out of a tensor.

    It undoes what padding and rounding up added, whatever the size of the images:
    `keras.layers.Cropping2D` has to know that in advance.

    Args:
        offset: first row and column of the window, in pixels, an int or `(y, x)`; or "center",
            which leaves `(larger - smaller) // 2` before the window (U-Net's skip connections).

    Call arguments:
        inputs: `[x, like]`: x `[batch, height, width, channels]`; like `[batch, out_height,
            out_width, any]`, of which only the size counts.

    Returns:
        `[batch, out_height, out_width, channels]`.

    Raises:
        ValueError: another number of inputs, or a window that is known to reach beyond `x`.
        tf.errors.InvalidArgumentError: at run time, a window that reaches beyond `x`.
    """

    def __init__(self, offset: str | int | tuple[int, int] = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.offset: str | list[int] = "center"
        if offset != "center":
            pair = offset if isinstance(offset, (list, tuple)) else [offset, offset]
            if isinstance(offset, str) or len(pair) != 2:
                _checks.refuse("CropLike2D", "offset", 'be "center", an int or (y, x)', offset)
            self.offset = [_checks.integer("CropLike2D", "offset", value, 0) for value in pair]

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        shape = self.compute_output_shape([tensor.shape for tensor in inputs])
        x, like = inputs
        size, wanted = tf.shape(x)[1:3], tf.shape(like)[1:3]
        offset = (size - wanted) // 2 if self.offset == "center" else self.offset
        begin = tf.concat([[0], offset, [0]], 0)
        cropped = tf.slice(x, begin, tf.concat([[-1], wanted, [-1]], 0))
        cropped.set_shape(shape)
        return cropped

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[int | None, ...]:
        if len(input_shape) != 2:
            _checks.refuse("CropLike2D", "inputs", "be [x, like]", f"{len(input_shape)}")
        x, like = (tuple(shape) for shape in input_shape)
        for name, shape in (("x", x), ("like", like)):
            if len(shape) != 4:
                rule = "have shape [batch, height, width, channels]"
                _checks.refuse("CropLike2D", name, rule, _checks.describe(shape))
        offsets = [0, 0] if self.offset == "center" else self.offset
        for larger, smaller, offset in zip(x[1:3], like[1:3], offsets, strict=True):
            if larger is not None and smaller is not None and larger < smaller + offset:
                rule = f"hold a window of {list(like[1:3])} at {self.offset}"
                _checks.refuse("CropLike2D", "x", rule, _checks.describe(x))
        return (x[0], *like[1:3], x[3])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "offset": self.offset}
