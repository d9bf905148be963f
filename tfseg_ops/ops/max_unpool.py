"""Max-unpooling: values back to the positions that a max-pooling's mask names."""

from typing import Any

import tensorflow as tf

from tfseg_ops import _checks, _library, _portable, pure_tf


def max_unpool(
    input: Any,
    argmax: Any,
    output_shape: Any,
    include_batch_in_index: bool = False,
    *,
    windows: tuple[Any, Any] | None = None,
) -> tf.Tensor:
    """Puts values at their masked positions, and zeros elsewhere.

    `output[b, p]` is the sum of `input[b, e]` over the elements `e` with `argmax[b, e] = p`, where
    `p = (y * width + x) * channels + c` counts the elements of one output image (of the whole
    output, with `include_batch_in_index`). Positions named twice, as overlapping windows name them,
    are summed: that makes this op the exact adjoint of its gradient, which gathers
    `grad[b, argmax[b, e]]`. Sums are kept in float32 (float64 for float64), in the order of the
    masks: the same bits for any number of threads, and on a GPU.

    A mask fits the output size it was made from. Masks of an input with another width or other
    channels are legal numbers in wrong places, which `windows` finds.

    NaN and infinite values are moved like any other. A batch of 0 or an empty mask gives zeros.

    Args:
        input: values, `[batch, height, width, channels]`, float16, bfloat16, float32 or float64.
        argmax: positions, the shape of `input`, int32 or int64.
        output_shape: `[out_height, out_width]`, ints or an integer tensor.
        include_batch_in_index: whether positions count from the start of the batch.
        windows: `(pool_size, strides)`, each an int or a pair: then each position must lie in its
            element's own channel and pooling window, as VALID or SAME pooling of the output would
            place it.

    Returns:
        `[batch, out_height, out_width, channels]` with the dtype of `input`.

    Raises:
        TypeError: a dtype is none of the above.
        ValueError, tf.errors.InvalidArgumentError: shapes do not fit, `output_shape` is negative,
            or (at run time) a position lies outside the output or its window. On GPUs such an
            element contributes nothing instead; so it does under XLA inside `tfseg_ops.portable()`.

    Example:
        >>> output, argmax = max_pool_with_argmax(images, 2, 2, "SAME")
        >>> restored = max_unpool(output, argmax, tf.shape(images)[1:3])

    References:
        Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 2.1.
        Noh, Hong & Han 2015, "Learning Deconvolution Network for Semantic Segmentation", section
        3.2.1.
    """
    args = _checks.unpooling(input, argmax, output_shape, windows)
    if _portable.is_portable():
        return pure_tf.max_unpool(
            args.input, args.argmax, args.output_shape, include_batch_in_index, windows=windows
        )
    return _library.load_ops().tfseg_max_unpool(
        input=args.input,
        argmax=args.argmax,
        output_shape=args.output_shape,
        include_batch_in_index=include_batch_in_index,
        windows=args.windows,
    )


@tf.RegisterGradient("Tfseg>MaxUnpool")
def _gradient(op: Any, grad: tf.Tensor) -> tuple[tf.Tensor, None, None]:
    grad_input = _library.load_ops().tfseg_max_unpool_grad(
        grad=grad, argmax=op.inputs[1], **_attributes(op)
    )
    return grad_input, None, None


@tf.RegisterGradient("Tfseg>MaxUnpoolGrad")
def _gradient_of_gradient(op: Any, grad: tf.Tensor) -> tuple[tf.Tensor, None]:
    # The gather is linear in its `grad`, and unpooling is its adjoint.
    grad_grad = _library.load_ops().tfseg_max_unpool(
        input=grad,
        argmax=op.inputs[1],
        output_shape=tf.shape(op.inputs[0])[1:3],
        **_attributes(op),
    )
    return grad_grad, None


def _attributes(op: Any) -> dict[str, Any]:
    """Returns what the op and its gradient share. On a GPU `windows` decides what is dropped."""
    return {name: op.get_attr(name) for name in ("include_batch_in_index", "windows")}
