"""The Gaussian filter itself, of all pairs of points, which a lattice approximates."""

from typing import Any

import tensorflow as tf

from tfseg_ops import _crf_checks
from tfseg_ops._checks import FLOAT_DTYPES, require_dtype, require_shape
from tfseg_ops.pure_tf.gaussian_filter import to_features

# Numbers of a block of the kernel's matrix, over all images: 16 MiB of float32.
_BLOCK = 2**22


def exact_gaussian_filter(values: Any, features: Any) -> tf.Tensor:
    """Filters values at scattered points by the Gaussian of their features' distance.

    `output[b, i, c] = sum_j exp(-|f_bi - f_bj|^2 / 2) values[b, j, c]`, j = i included. Time grows
    with the square of the number of points, memory linearly: the matrix of the kernel is made in
    blocks of rows, and made again for gradients. There are gradients to values and features, of any
    order where they are computed eagerly. Runs under XLA.

    What `ops.gaussian_filter` computes approximates this up to a factor that depends on the number
    of dimensions.

    Args:
        values: `[batch, points, channels]`, float16, bfloat16, float32 or float64.
        features: `[batch, points, dimensions]`, likewise, in units of the standard deviation. Any
            number of dimensions.

    Returns:
        `[batch, points, channels]` with the dtype of the values. The kernel and its sums are in
        float32, or in float64 if the values are.

    Raises:
        TypeError: a dtype is none of the above.
        ValueError: shapes do not fit.

    Example:
        >>> smooth = exact_gaussian_filter(values, positions / 3.0)
    """
    op = "exact_gaussian_filter"
    values, features = tf.convert_to_tensor(values), tf.convert_to_tensor(features)
    require_dtype(op, "values", values.dtype, FLOAT_DTYPES)
    require_dtype(op, "features", features.dtype, FLOAT_DTYPES)
    sizes: dict[str, int | None] = {}
    require_shape(op, "values", values, sizes, "batch points channels")
    require_shape(op, "features", features, sizes, "batch points dimensions")
    dtype = _crf_checks.wide(values.dtype)
    filtered = apply(tf.cast(values, dtype), tf.cast(features, dtype))
    return tf.cast(filtered, values.dtype)


def apply(values: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
    """The filter of values and features of one dtype, with its gradients."""
    filtered = _to_values(values, features)

    def gradient(features: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        return _features_grad(values, features, upstream)

    return filtered + to_features(features, filtered, gradient)


def _to_values(values: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
    """The filter, which is its own transpose, with the gradient to the values."""

    @tf.custom_gradient
    def filtered(values: tf.Tensor) -> Any:
        return _by_blocks(
            lambda kernel, *_: tf.matmul(kernel, values), features, values
        ), lambda upstream: apply(upstream, features)

    return filtered(values)


def _features_grad(values: tf.Tensor, features: tf.Tensor, grad: tf.Tensor) -> tf.Tensor:
    """See `gaussian_filter`: `sum_j (f_j - f_i) k_ij (g_i v_j + v_i g_j)`."""

    def of_rows(
        kernel: tf.Tensor, own: tf.Tensor, own_values: tf.Tensor, own_grad: tf.Tensor
    ) -> tf.Tensor:
        products = tf.matmul(own_grad, values, transpose_b=True)
        products += tf.matmul(own_values, grad, transpose_b=True)
        products *= kernel
        return tf.matmul(products, features) - own * tf.reduce_sum(products, -1, keepdims=True)

    return _by_blocks(of_rows, features, features, values, grad)


def _by_blocks(function: Any, features: tf.Tensor, like: tf.Tensor, *others: tf.Tensor) -> Any:
    """Returns `function(kernel's rows, features, *others of these points)` of all rows.

    The result has the shape of `like`.
    """
    size = features.shape[:2].num_elements()
    if size is not None and size * features.shape[1] <= _BLOCK:
        return function(_kernel(features, features), features, *others)
    batch, points, _ = tf.unstack(tf.shape(features, out_type=tf.int64), num=3)
    rows = tf.clip_by_value(_BLOCK // tf.maximum(batch * points, 1), 1, tf.maximum(points, 1))
    # At least one, of zeros if need be: of none map_fn does not know the rank. All are of one size,
    # as XLA needs it, so the last one is filled up.
    blocks = tf.maximum((points + rows - 1) // rows, 1)
    padding = [[0, 0], [0, blocks * rows - points], [0, 0]]

    def in_blocks(tensor: tf.Tensor) -> tf.Tensor:
        channels = tf.shape(tensor, out_type=tf.int64)[2]
        cut = tf.reshape(tf.pad(tensor, padding), tf.stack([batch, blocks, rows, channels]))
        cut.set_shape([tensor.shape[0], None, None, tensor.shape[2]])
        return tf.transpose(cut, [1, 0, 2, 3])

    result = tf.map_fn(
        lambda own: function(_kernel(own[0], features), *own),
        tuple(map(in_blocks, (features, *others))),
        parallel_iterations=1,
        fn_output_signature=like.dtype,
    )
    # [blocks, batch, rows, channels] -> [batch, points, channels]
    channels = tf.shape(like, out_type=tf.int64)[2]
    result = tf.reshape(
        tf.transpose(result, [1, 0, 2, 3]), tf.stack([batch, blocks * rows, channels])
    )[:, :points]
    result.set_shape(like.shape)
    return result


def _kernel(rows: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
    """`exp(-|f_i - f_j|^2 / 2)`, [batch, rows, points]."""
    # One dimension after the other: the differences of all at once would be the largest tensor, and
    # squares and products instead would cancel.
    count = rows.shape[2]
    if count is None:
        total = tf.reduce_sum(tf.square(rows[:, :, None] - features[:, None]), -1)
        return tf.exp(-0.5 * total)
    total = tf.zeros([], rows.dtype)
    for a in range(count):
        total += tf.square(rows[:, :, None, a] - features[:, None, :, a])
    return tf.exp(-0.5 * total)
