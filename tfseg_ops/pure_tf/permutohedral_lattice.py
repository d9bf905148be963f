"""The permutohedral lattice in stock TensorFlow: vertices by `tf.unique` of their coordinates."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfseg_ops import _crf_checks


class Lattice(NamedTuple):
    """Which vertices surround each point in feature space, and with which weights.

    Of each image of a batch; `corners` is dimensions + 1, `bound` is points * corners: how many
    vertices there may be. The numbers of vertices are those of one image. Only `features` has a
    gradient.
    """

    features: tf.Tensor  # [batch, points, dimensions], float32
    vertices: tf.Tensor  # [batch, points, corners], int32: around each point, by remainder
    weights: tf.Tensor  # [batch, points, corners], float32: barycentric, of these vertices
    splat_points: tf.Tensor  # [batch, points * corners], int32: of each vertex, one after another
    splat_weights: tf.Tensor  # [batch, points * corners], float32: of these
    splat_offsets: tf.Tensor  # [batch, bound + 1], int32: where in them each vertex begins
    neighbours: tf.Tensor  # [batch, corners, bound, 2], int32: along each axis, or -1
    norms: tf.Tensor  # [batch, points], float32: the filter of ones
    num_vertices: tf.Tensor  # [batch], int32


def permutohedral_lattice(features: Any) -> Lattice:
    """Builds the lattice of each image's points.

    See `ops.permutohedral_lattice`, which gives the same lattice, so that each path takes those of
    the other. The rows of all vertices' coordinates are told apart by TensorFlow's `UniqueV2`, so
    this runs eagerly and in graphs, but not under XLA, which cannot compile sizes that only the
    data decide.
    """
    return build(_crf_checks.features(features))


def build(features: tf.Tensor) -> Lattice:
    """The lattice of checked features, float32."""
    # The structure is piecewise constant, and the filter has its own gradient to the features.
    points = tf.stop_gradient(features)
    _require_finite(points)
    batch, count, _ = tf.unstack(tf.shape(points, out_type=tf.int64), num=3)
    known = points.shape[2]
    if known is None:
        raise ValueError(
            "permutohedral_lattice: 'features' must have a static number of dimensions in stock "
            "TensorFlow, got an unknown one"
        )
    corners = known + 1
    keys, weights = _simplices(points, known)
    bound = count * corners

    # Images are told apart by a coordinate of their own, so that vertices are numbered image by
    # image, and in each by first appearance.
    image = tf.repeat(tf.range(batch), bound)
    rows = tf.concat([image[:, None], tf.reshape(keys, tf.stack([batch * bound, known]))], 1)
    unique, numbers = _unique_rows(rows)
    num_vertices = tf.math.bincount(
        tf.cast(unique[:, 0], tf.int32), minlength=tf.cast(batch, tf.int32), dtype=tf.int64
    )
    first = tf.cumsum(num_vertices, exclusive=True)
    numbers = tf.reshape(numbers - tf.gather(first, image), tf.stack([batch, bound]))

    order = tf.argsort(numbers, axis=1, stable=True)
    flat_numbers = image * bound + tf.reshape(numbers, [-1])
    counts = tf.math.unsorted_segment_sum(tf.ones_like(flat_numbers), flat_numbers, batch * bound)
    ends = tf.cumsum(tf.reshape(counts, tf.stack([batch, bound])), axis=1)
    offsets = tf.cast(tf.pad(ends, [[0, 0], [1, 0]]), tf.int32)
    flat_weights = tf.reshape(weights, tf.stack([batch, bound]))
    static = points.shape
    static_bound = None if static[1] is None else static[1] * corners
    lattice = Lattice(
        features,
        tf.reshape(tf.cast(numbers, tf.int32), tf.stack([batch, count, corners])),
        weights,
        order // corners,
        tf.gather(flat_weights, order, axis=1, batch_dims=1),
        offsets,
        _neighbours(unique, first, batch, bound, known),
        tf.zeros(tf.stack([batch, count])),
        tf.cast(num_vertices, tf.int32),
    )
    shapes = [
        static,
        [*static[:2], corners],
        [*static[:2], corners],
        [static[0], static_bound],
        [static[0], static_bound],
        [static[0], None if static_bound is None else static_bound + 1],
        [static[0], corners, static_bound, 2],
        static[:2],
        static[:1],
    ]
    from tfseg_ops.pure_tf.gaussian_filter import linear

    norms = linear(tf.ones(tf.stack([batch, count, 1])), lattice, reverse=False)
    lattice = lattice._replace(norms=tf.stop_gradient(norms[..., 0]))
    for member, shape in zip(lattice, shapes, strict=True):
        member.set_shape(shape)
    return lattice


def _require_finite(features: tf.Tensor) -> None:
    """Raises InvalidArgumentError at the first feature that no lattice can hold.

    Eagerly the words are those of the kernel; in a graph, which cannot format text under XLA, the
    numbers follow the words.
    """
    fits = tf.abs(features) <= _crf_checks.LARGEST_FEATURE
    text = f"permutohedral_lattice: 'features' {_crf_checks.FEATURES_RULE}"
    if not tf.executing_eagerly():
        worst = tf.stack([tf.reduce_min(features), tf.reduce_max(features)])
        tf.debugging.Assert(tf.reduce_all(fits), [f"{text}, got values between:", worst])
        return
    if not bool(tf.reduce_all(fits)):
        where = tf.where(~fits)[0].numpy().tolist()
        raise tf.errors.InvalidArgumentError(
            None, None, f"{text}, got {float(features[tuple(where)]):g} at {where}"
        )


def _simplices(features: tf.Tensor, dimensions: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the coordinates of the vertices around each point, and their weights.

    `[batch, points, corners, dimensions]`, int64 (the last coordinate, which makes their sum 0, is
    left out), and `[batch, points, corners]`. Adams et al. 2010, section 3.1. In float32, operation
    by operation as core has it, so that points near a face fall on the same side of it.
    """
    corners = dimensions + 1
    i = np.arange(dimensions)
    sdev = np.float32(np.sqrt(2.0 / 3.0) * corners)
    scales = (np.float64(sdev) / np.sqrt((i + 1) * (i + 2))).astype(np.float32)
    total = tf.zeros_like(features[..., 0])
    elevated = []
    for j in range(dimensions, 0, -1):
        scaled = features[..., j - 1] * scales[j - 1]
        elevated.append(total - np.float32(j) * scaled)
        total += scaled
    position = tf.stack([total, *reversed(elevated)], -1)

    # The nearest point whose coordinates are all divisible by `corners`, and the rank of each
    # coordinate's distance from it, the largest first.
    down = np.float32(1) / np.float32(corners)
    rounded = tf.round(position * down)
    nearest = rounded * np.float32(corners)
    distance = position - nearest
    rank = [tf.zeros_like(features[..., 0])] * corners
    for a in range(corners):
        for b in range(a + 1, corners):
            before = tf.cast(distance[..., a] < distance[..., b], tf.float32)
            rank[a] += before
            rank[b] += 1 - before
    # Where the sum of the coordinates is not 0, those of extreme ranks are moved.
    ranks = tf.stack(rank, -1) + tf.reduce_sum(rounded, -1, keepdims=True)
    shift = tf.cast(ranks < 0, tf.float32) - tf.cast(ranks >= corners, tf.float32)
    ranks += corners * shift
    nearest += corners * shift

    parts = (position - nearest) * down
    places = tf.cast(dimensions - ranks, tf.int32)
    hot = tf.one_hot(places, corners, dtype=tf.float32)
    by_place = tf.reduce_sum(parts[..., None] * hot, -2)
    first = by_place[..., :1] + (1 - by_place[..., -1:])
    weights = tf.concat([first, by_place[..., 1:] - by_place[..., :-1]], -1)

    # Vertex r adds r to each coordinate, and takes `corners` off those of the r largest ranks.
    remainder = tf.range(corners, dtype=tf.float32)[:, None]
    wraps = tf.cast(ranks[..., None, :dimensions] > dimensions - remainder, tf.float32)
    keys = nearest[..., None, :dimensions] + remainder - corners * wraps
    return tf.cast(keys, tf.int64), weights


def _unique_rows(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the different rows by first appearance, and the number of each row among them."""
    return tf.raw_ops.UniqueV2(x=rows, axis=[0], out_idx=tf.int64)


def _neighbours(
    unique: tf.Tensor, first: tf.Tensor, batch: tf.Tensor, bound: tf.Tensor, dimensions: int
) -> tf.Tensor:
    """Returns the numbers of the vertices before and after, `[batch, corners, bound, 2]`."""
    corners = dimensions + 1
    steps = np.concatenate(
        [np.zeros([corners, 1], np.int64), np.full([corners, dimensions], -1)], 1
    )
    steps[np.arange(dimensions), np.arange(dimensions) + 1] = dimensions
    # [corners, 2, vertices, 1 + dimensions]
    both = unique + tf.constant(np.stack([steps, -steps], 1))[:, :, None]
    count = tf.shape(unique, out_type=tf.int64)[0]
    rows = tf.concat([unique, tf.reshape(both, tf.stack([-1, dimensions + 1]))], 0)
    numbers = _unique_rows(rows)[1][count:]
    numbers = tf.reshape(numbers, tf.stack([corners, 2, count]))
    image = unique[:, 0]
    start = tf.gather(first, image)
    own = tf.where(numbers < count, numbers - start, -1)
    # From [vertices of all images] to [batch, bound], where what is not written is -1.
    place = image * bound + tf.range(count) - start
    table = tf.scatter_nd(
        place[:, None],
        tf.transpose(own, [2, 0, 1]) + 1,
        tf.stack([batch * bound, corners, 2]),
    )
    table = tf.reshape(tf.cast(table, tf.int32) - 1, tf.stack([batch, bound, corners, 2]))
    return tf.transpose(table, [0, 2, 1, 3])
