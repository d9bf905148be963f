"""Max-pooling that also says where each maximum stood."""

from typing import Any

import tensorflow as tf

from tfseg_ops import _checks, _library, _portable, pure_tf
from tfseg_ops.ops.max_unpool import max_unpool


def max_pool_with_argmax(
    input: Any,
    ksize: Any,
    strides: Any,
    padding: str,
    output_dtype: Any = tf.int64,
    include_batch_in_index: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes the maximum of each window and its position.

    `output[b, i, j, c]` is the maximum of `input[b, y, x, c]` over the window (i, j), and
    `argmax[b, i, j, c] = (y * width + x) * channels + c` says where it stood, plus
    `b * height * width * channels` with `include_batch_in_index`. Arguments and positions are those
    of `tf.nn.max_pool_with_argmax`; this op adds XLA, gradients with int32 masks, second-order
    gradients, empty batches, and float64 speed.

    Of equal values the first in row-major order wins. The first NaN of a window beats every number,
    so NaN is never hidden (`tf.nn.max_pool_with_argmax` hides it unless it comes first). Padding
    never wins, so a position always lies inside the input. A window that reaches less than one
    stride over an input under VALID padding gives an empty output, as in `tf.nn`.

    The gradient goes to the positions of the maxima and is summed where windows overlap.

    Args:
        input: `[batch, height, width, channels]`, float16, bfloat16, float32 or float64.
        ksize: the window's size in pixels: an int, `[height, width]` or `[1, height, width, 1]`.
        strides: the distance between windows in pixels, in the same forms.
        padding: "VALID" or "SAME".
        output_dtype: dtype of `argmax`, int32 or int64. int32 is faster.
        include_batch_in_index: whether positions count from the start of the batch.

    Returns:
        `output` with the dtype of `input`, and `argmax`, both `[batch, out_height, out_width,
        channels]`.

    Raises:
        TypeError: a dtype is none of the above.
        ValueError, tf.errors.InvalidArgumentError: `input` has another rank, a window does not fit
            into it, or int32 cannot count its positions.

    Example:
        >>> output, argmax = max_pool_with_argmax(images, 2, 2, "VALID")
        >>> restored = max_unpool(output, argmax, tf.shape(images)[1:3])

    References:
        Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 2.1.
    """
    args = _checks.pooling(input, ksize, strides, padding, output_dtype)
    if _portable.is_portable():
        return pure_tf.max_pool_with_argmax(*args, include_batch_in_index=include_batch_in_index)
    result = _library.load_ops().tfseg_max_pool_with_argmax(
        input=args.input,
        ksize=args.ksize,
        strides=args.strides,
        padding=args.padding,
        Index=args.output_dtype,
        include_batch_in_index=include_batch_in_index,
    )
    return result.output, result.argmax


@tf.RegisterGradient("Tfseg>MaxPoolWithArgmax")
def _gradient(op: Any, grad: tf.Tensor, _: Any) -> tf.Tensor:
    return max_unpool(
        grad,
        op.outputs[1],
        tf.shape(op.inputs[0])[1:3],
        include_batch_in_index=op.get_attr("include_batch_in_index"),
    )
