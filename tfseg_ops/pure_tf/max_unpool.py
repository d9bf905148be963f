"""Max-unpooling in stock TensorFlow."""

from typing import Any

import tensorflow as tf

from tfseg_ops import _checks


def max_unpool(
    input: Any,
    argmax: Any,
    output_shape: Any,
    include_batch_in_index: bool = False,
    *,
    windows: tuple[Any, Any] | None = None,
) -> tf.Tensor:
    """Puts values at their masked positions, and zeros elsewhere: one `tf.scatter_nd`.

    See `ops.max_unpool`. Under XLA, which cannot raise, an illegal position contributes nothing.
    """
    input, argmax, size, numbers = _checks.unpooling(input, argmax, output_shape, windows)
    batch, height, width, channels = tf.unstack(tf.shape(argmax, out_type=tf.int64))
    out_height, out_width = tf.unstack(tf.cast(size, tf.int64))
    image = out_height * out_width * channels
    limit = batch * image if include_batch_in_index else image

    position = tf.cast(argmax, tf.int64)
    legal = (position >= 0) & (position < limit)
    in_range = legal
    if not include_batch_in_index:
        place = position + (tf.range(batch) * image)[:, None, None, None]
    else:
        place = position
    if numbers:
        sizes = [height, width, channels, out_height, out_width]
        legal &= _in_own_window(place, image, sizes, numbers)
    _require_legal(legal, in_range, argmax, limit, numbers)

    # Sums of half-precision values are kept in float32, as the kernels keep them.
    wide = input.dtype if input.dtype in (tf.float32, tf.float64) else tf.float32
    values = tf.where(legal, tf.cast(input, wide), tf.zeros([], wide))
    place = tf.where(legal, place, tf.zeros([], tf.int64))
    flat = tf.scatter_nd(
        tf.reshape(place, [-1, 1]), tf.reshape(values, [-1]), tf.reshape(batch * image, [1])
    )
    output = tf.reshape(flat, tf.stack([batch, out_height, out_width, channels]))
    static = tf.get_static_value(size)
    rows, columns = (None, None) if static is None else (int(static[0]), int(static[1]))
    if argmax.shape.rank is not None:
        output.set_shape([argmax.shape[0], rows, columns, argmax.shape[3]])
    return tf.cast(output, input.dtype)


def _in_own_window(
    place: tf.Tensor, image: tf.Tensor, sizes: list[tf.Tensor], numbers: list[int]
) -> tf.Tensor:
    """Returns whether each place lies in its own image, channel and pooling window."""
    height, width, channels, out_height, out_width = sizes
    safe_width, safe_channels = tf.maximum(out_width, 1), tf.maximum(channels, 1)
    batch = tf.shape(place, out_type=tf.int64)[0]
    in_image = place - (tf.range(batch) * image)[:, None, None, None]
    pixel = in_image // safe_channels
    own = (in_image >= 0) & (in_image < image) & (in_image % safe_channels == tf.range(channels))
    axes = (
        (pixel // safe_width, tf.range(height)[:, None, None], out_height, height),
        (pixel % safe_width, tf.range(width)[:, None], out_width, width),
    )
    for axis, ksize, stride in zip(axes, numbers[:2], numbers[2:], strict=True):
        position, window, size, windows = axis
        # VALID pooling pads nothing, SAME pooling half of what its windows reach over the border.
        padding = tf.maximum((windows - 1) * stride + ksize - size, 0) // 2
        own &= position >= window * stride - padding
        own &= position < window * stride + ksize
    return own


def _require_legal(
    legal: tf.Tensor, in_range: tf.Tensor, argmax: tf.Tensor, limit: tf.Tensor, numbers: list[int]
) -> None:
    """Raises InvalidArgumentError at the first illegal position; compiled to nothing by XLA.

    Eagerly the words are those of the kernels; in a graph, which cannot format text under XLA, the
    numbers follow the words.
    """
    window_rule = f"lie in its own window of ksize {numbers[:2]} and strides {numbers[2:]}"
    all_legal = tf.reduce_all(legal)
    if not tf.executing_eagerly():
        rule = window_rule if numbers else "lie in [0, limit)"
        worst = tf.stack(
            [tf.reduce_min(tf.cast(argmax, tf.int64)), tf.reduce_max(tf.cast(argmax, tf.int64))]
        )
        text = f"max_unpool: 'argmax' must {rule}, got values between, and limit:"
        tf.debugging.Assert(all_legal, [text, worst, limit])
        return
    if bool(all_legal):
        return
    where = tf.where(~legal)[0].numpy().tolist()
    rule = window_rule if bool(in_range[tuple(where)]) else f"lie in [0, {int(limit)})"
    value = int(argmax[tuple(where)])
    raise tf.errors.InvalidArgumentError(
        None, None, f"max_unpool: 'argmax' must {rule}, got {value} at {where}"
    )
