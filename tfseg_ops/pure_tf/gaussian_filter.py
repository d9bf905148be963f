"""The Gaussian filter on a permutohedral lattice in stock TensorFlow: segment sums and gathers."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfseg_ops import _crf_checks
from tfseg_ops.pure_tf.permutohedral_lattice import Lattice


def gaussian_filter(values: Any, lattice: Lattice) -> tf.Tensor:
    """Filters values at the points of a lattice.

    See `ops.gaussian_filter`. One segment sum for each corner of the simplices (splat), two gathers
    for each axis (blur), one gather for each corner (slice). Not under XLA, since the tables have
    as many rows as the data have vertices.

    The gradient to the features is that of the Gaussian kernel that the lattice approximates,
    `k_ij = exp(-|f_i - f_j|^2 / 2)`. Since `d k_ij / d f_i = (f_j - f_i) k_ij`, the loss
    `<g, K v> = sum_ij g_i k_ij v_j` has by feature a of point i the derivative

        sum_j (f_ja - f_ia) k_ij (g_i v_j + v_i g_j)
            = g_i ([K (f_a v)]_i - f_ia [K v]_i) + v_i ([K^T (f_a g)]_i - f_ia [K^T g]_i)

    which is a filter again, of values times features. The lattice's K takes the place of the
    Gaussian one, and its transpose, which blurs the axes in reverse order, that of K^T.
    """
    args = _crf_checks.filtering(values, lattice)
    own = Lattice(*args.lattice)
    wide = tf.cast(args.values, _crf_checks.wide(args.values.dtype))
    return tf.cast(apply(wide, own), args.values.dtype)


def apply(values: tf.Tensor, lattice: Lattice, reverse: bool = False) -> tf.Tensor:
    """The filter of checked values in the accumulator's dtype, or its transpose, with gradients."""

    @tf.custom_gradient
    def to_values(values: tf.Tensor) -> Any:
        # Its transpose, rather than the gradient of segment sums and gathers.
        return linear(values, lattice, reverse), lambda upstream: apply(
            upstream, lattice, not reverse
        )

    def gradient(features: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        own = lattice._replace(features=features)
        # <upstream, K^T values> = <values, K upstream>
        pair = (upstream, values) if reverse else (values, upstream)
        return features_grad(pair[0], own, pair[1])

    filtered = to_values(values)
    return filtered + to_features(lattice.features, filtered, gradient)


def norms(lattice: Lattice, dtype: tf.DType) -> tf.Tensor:
    """The filter of ones, `[batch, points]`, with the gradient of `apply` to the features."""
    own = tf.cast(tf.stop_gradient(lattice.norms), dtype)[..., None]

    def gradient(features: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        return features_grad(tf.ones_like(upstream), lattice._replace(features=features), upstream)

    return (own + to_features(lattice.features, own, gradient))[..., 0]


def to_features(
    features: tf.Tensor,
    like: tf.Tensor,
    gradient: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """Returns zeros like `like` whose gradient to the features is `gradient(features, upstream)`.

    So a tape that does not watch the features does not compute it, which it would if one function
    had both gradients.
    """

    @tf.custom_gradient
    def nothing(features: tf.Tensor) -> Any:
        return tf.zeros_like(like), lambda upstream: tf.cast(
            gradient(features, upstream), features.dtype
        )

    return nothing(features)


def features_grad(values: tf.Tensor, lattice: Lattice, grad: tf.Tensor) -> tf.Tensor:
    """The gradient of `<grad, filter(values)>` to the features: see `gaussian_filter`."""
    features = tf.cast(lattice.features, values.dtype)[..., None, :]
    count = lattice.features.shape[2]

    def moved(values: tf.Tensor, reverse: bool) -> tf.Tensor:
        """`[K (f_a v_c)]_i - f_ia [K v_c]_i`, [batch, points, channels, dimensions]."""
        products = tf.concat([values[..., None], features * values[..., None]], -1)
        shape = tf.shape(products)
        flat = tf.reshape(products, tf.stack([shape[0], shape[1], shape[2] * (count + 1)]))
        filtered = tf.reshape(apply(flat, lattice, reverse), shape)
        return filtered[..., 1:] - features * filtered[..., :1]

    return tf.reduce_sum(
        grad[..., None] * moved(values, False) + values[..., None] * moved(grad, True), 2
    )


def linear(values: tf.Tensor, lattice: Lattice, reverse: bool) -> tf.Tensor:
    """Splat, blur, slice; without gradients."""
    dtype = values.dtype
    corners = lattice.vertices.shape[2]
    batch, points, channels = tf.unstack(tf.shape(values, out_type=tf.int64), num=3)
    # All images in one table, each with as many rows as the image of most vertices, and a row of
    # zeros at the end for neighbours that do not exist.
    most = tf.cast(tf.reduce_max(tf.concat([lattice.num_vertices, [0]], 0)), tf.int64)
    size = batch * most
    start = tf.range(batch)[:, None] * most
    flat = tf.reshape(values, tf.stack([batch * points, channels]))
    places = [
        tf.reshape(tf.cast(lattice.vertices[..., r], tf.int64) + start, [-1])
        for r in range(corners)
    ]
    weights = [tf.reshape(tf.cast(lattice.weights[..., r], dtype), [-1, 1]) for r in range(corners)]
    table = tf.zeros(tf.stack([size, channels]), dtype)
    for place, weight in zip(places, weights, strict=True):
        table += tf.math.unsorted_segment_sum(flat * weight, place, size)

    nothing = tf.zeros(tf.stack([1, channels]), dtype)
    for axis in reversed(range(corners)) if reverse else range(corners):
        ends = tf.cast(lattice.neighbours[:, axis, :most], tf.int64)
        ends = tf.reshape(tf.where(ends < 0, size, ends + start[..., None]), [-1, 2])
        padded = tf.concat([table, nothing], 0)
        table += 0.5 * (tf.gather(padded, ends[:, 0]) + tf.gather(padded, ends[:, 1]))

    # Padded again, since TensorFlow gathers nothing from an empty table.
    table = tf.concat([table, nothing], 0)
    total = tf.zeros_like(flat)
    for place, weight in zip(places, weights, strict=True):
        total += weight * tf.gather(table, place)
    scale = 1 / (1 + 2.0 ** (1 - corners))
    result = tf.reshape(total * tf.constant(scale, dtype), tf.stack([batch, points, channels]))
    result.set_shape(values.shape)
    return result
