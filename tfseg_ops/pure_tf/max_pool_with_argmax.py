"""Max-pooling with positions in stock TensorFlow."""

from typing import Any

import tensorflow as tf

from tfseg_ops import _checks


def max_pool_with_argmax(
    input: Any,
    ksize: Any,
    strides: Any,
    padding: str,
    output_dtype: Any = tf.int64,
    include_batch_in_index: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes the maximum of each window and its position, by one comparison a pixel of the window.

    See `ops.max_pool_with_argmax`. Unlike `tf.nn.max_pool_with_argmax` it can be compiled by XLA.
    Its graph grows with the window: it is not meant for windows of thousands of pixels.
    """
    input, ksize, strides, padding, dtype = _checks.pooling(
        input, ksize, strides, padding, output_dtype
    )
    batch, height, width, channels = _sizes(input)
    out_height, pad_top, bottom = _axis(height, ksize[0], strides[0], padding)
    out_width, pad_left, right = _axis(width, ksize[1], strides[1], padding)
    _require_fit(input, ksize, strides, padding)
    _require_countable(input, dtype, include_batch_in_index)

    padded = tf.pad(input, [[0, 0], [pad_top, bottom], [pad_left, right], [0, 0]])
    rows = tf.range(out_height, dtype=tf.int64) * strides[0] - tf.cast(pad_top, tf.int64)
    columns = tf.range(out_width, dtype=tf.int64) * strides[1] - tf.cast(pad_left, tf.int64)
    best: tf.Tensor | None = None
    for dy in range(ksize[0]):
        for dx in range(ksize[1]):
            candidate = padded[
                :,
                dy : dy + (out_height - 1) * strides[0] + 1 : strides[0],
                dx : dx + (out_width - 1) * strides[1] + 1 : strides[1],
            ][:, :out_height, :out_width]
            y, x = (rows + dy)[:, None, None], (columns + dx)[None, :, None]
            inside = (y >= 0) & (y < tf.cast(height, tf.int64)) & (x >= 0)
            inside &= x < tf.cast(width, tf.int64)
            here = (y * tf.cast(width, tf.int64) + x) * tf.cast(channels, tf.int64)
            here = tf.broadcast_to(tf.cast(here, dtype), tf.shape(candidate))
            if best is None:
                best, where, found = candidate, here, tf.broadcast_to(inside, tf.shape(candidate))
                continue
            # NaN beats numbers and is not beaten: `not <=` holds for it, `==` with itself does not.
            beats = ~(candidate <= best) & (best == best)
            takes = inside & (~found | beats)
            best = tf.where(takes, candidate, best)
            where = tf.where(takes, here, where)
            found |= inside
    argmax = where + tf.range(tf.cast(channels, dtype), dtype=dtype)
    if include_batch_in_index:
        image = tf.cast(height * width * channels, dtype)
        argmax += (tf.range(tf.cast(batch, dtype), dtype=dtype) * image)[:, None, None, None]
    return best, argmax


def _sizes(input: tf.Tensor) -> list[Any]:
    dynamic = tf.shape(input)
    static = input.shape.as_list() if input.shape.rank is not None else [None] * 4
    return [dynamic[axis] if size is None else size for axis, size in enumerate(static)]


def _axis(size: Any, ksize: int, stride: int, padding: str) -> tuple[Any, Any, Any]:
    """Returns the output's size and the padding before and after, ints or scalar tensors."""
    maximum = max if isinstance(size, int) else tf.maximum
    if padding == "VALID":
        # Empty outputs slice beyond the input, which needs a little room.
        return maximum((size - ksize + stride) // stride, 0), 0, ksize
    out = (size + stride - 1) // stride
    total = maximum((out - 1) * stride + ksize - size, 0)
    return out, total // 2, total - total // 2 + ksize


def _require_fit(input: tf.Tensor, ksize: list[int], strides: list[int], padding: str) -> None:
    """Requires a window to reach less than a stride over the input, at the latest when it runs."""
    if padding == "SAME":
        return
    rule = "max_pool_with_argmax: 'ksize' must fit into the input of shape"
    for size, k, stride in zip(_sizes(input)[1:3], ksize, strides, strict=True):
        if not isinstance(size, int):
            text = f"{rule} that follows with padding VALID, got {ksize}"
            tf.debugging.Assert(size - k + stride >= 0, [text, tf.shape(input)])
        elif size - k + stride < 0:
            raise ValueError(
                f"{rule} {_checks.describe(input.shape)} with padding VALID, got {ksize}"
            )


def _require_countable(input: tf.Tensor, dtype: tf.DType, include_batch_in_index: bool) -> None:
    sizes = input.shape if include_batch_in_index else input.shape[1:]
    positions = sizes.num_elements()
    if positions is not None and positions - 1 > dtype.max:
        raise ValueError(
            f"max_pool_with_argmax: 'output_dtype' must be int64 for {positions} positions, "
            f"got {dtype.name}"
        )
