"""RoI Align in stock TensorFlow: by gathering, and the approximation that users run today."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfseg_ops import _checks


def roi_align(
    features: Any,
    boxes: Any,
    box_indices: Any,
    output_size: Any,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> tf.Tensor:
    """Cuts boxes out of feature maps, each resampled to the same number of bins.

    See `ops.roi_align`. With a `sampling_ratio`, four `tf.gather` of one pixel for each sample
    point, `boxes * output_size * sampling_ratio^2 * channels` numbers each. Without, one box after
    the other: two matrix products with the whole map. Under XLA, which cannot raise, a box with an
    illegal index gives zeros.
    """
    args = _checks.roi_alignment(
        "roi_align",
        [features],
        boxes,
        box_indices,
        None,
        output_size,
        [spatial_scale],
        sampling_ratio,
    )
    return align("roi_align", args, aligned)


def roi_align_by_crop_and_resize(
    features: Any,
    boxes: Any,
    box_indices: Any,
    output_size: Any,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 2,
    aligned: bool = True,
) -> tf.Tensor:
    """Approximates `roi_align` by `tf.image.crop_and_resize` and average-pooling.

    The recipe of tensorpack and of the TF Object Detection API. Samples stand where those of
    `roi_align` stand, up to the rounding of normalized coordinates. It differs in this:

    - Samples beyond the centres of the first and last pixels count as zero; `roi_align` lets them
      see the border for another pixel.
    - There is no adaptive sampling, and no index of -1 for a box that is to give zeros.
    - Boxes that are not finite give no zeros.
    - Samples are float32, whatever the dtype of `features`.
    """
    (maps,), boxes, box_indices, _, bins, scales, ratio = _checks.roi_alignment(
        "roi_align",
        [features],
        boxes,
        box_indices,
        None,
        output_size,
        [spatial_scale],
        sampling_ratio,
    )
    samples = [ratio * count for count in bins]
    offset = 0.5 if aligned else 0.0
    first, second = tf.split(tf.cast(boxes, tf.float32) * scales[0] - offset, 2, axis=1)
    size = second - first if aligned else tf.maximum(second - first, 1.0)
    spacing = size / tf.constant(samples, tf.float32)
    last = tf.cast(tf.maximum(tf.shape(maps)[1:3] - 1, 1), tf.float32)
    corners = tf.concat([(first + spacing / 2) / last, (first + size - spacing / 2) / last], axis=1)
    crops = tf.image.crop_and_resize(maps, corners, tf.cast(box_indices, tf.int32), samples)
    return tf.cast(tf.nn.avg_pool2d(crops, ratio, ratio, "VALID"), maps.dtype)


class _Axis(NamedTuple):
    """The sample points of each box along one axis, in pixels of its map; all of shape [boxes]."""

    start: tf.Tensor  # of the first bin
    bin: tf.Tensor  # the size of a bin; negative in a box that is reversed
    points: tf.Tensor  # of a bin, a whole number; 0 where the box is not finite
    extent: tf.Tensor  # of the map


class _Samples(NamedTuple):
    """What points read along one axis; all of one shape."""

    low: tf.Tensor
    high: tf.Tensor  # the pixel after `low`; the same one where a point stands still
    weight_low: tf.Tensor  # both zero of a point outside the map
    weight_high: tf.Tensor


class _Places(NamedTuple):
    """Where each box finds its map in the table of all pixels."""

    start: tf.Tensor  # [boxes], the first pixel
    width: tf.Tensor  # [boxes]
    sizes: tf.Tensor  # height and width of the largest map, pixels and channels of the table


def align(op: str, args: _checks.RoiAlignment, aligned: bool) -> tf.Tensor:
    """`multilevel_roi_align`, and `roi_align` as the one of a single level."""
    features, boxes, _, _, bins, scales, ratio = args
    batch, _, _, channels = tf.unstack(tf.shape(features[0], out_type=tf.int64), num=4)
    sizes = tf.stack([tf.shape(level, out_type=tf.int64)[1:3] for level in features])
    legal, image, level = _legal_indices(op, args, batch)

    y1, x1, y2, x2 = tf.unstack(boxes, num=4, axis=1)
    height, width = tf.unstack(tf.gather(sizes, level), num=2, axis=1)
    scale = tf.gather(tf.constant(scales, boxes.dtype), level)
    y = _axis(y1, y2, scale, bins[0], height, ratio, aligned)
    x = _axis(x1, x2, scale, bins[1], width, ratio, aligned)
    full = legal & (y.points > 0) & (x.points > 0)

    pixels = batch * tf.reduce_prod(sizes, axis=1)
    start = tf.gather(tf.cumsum(pixels, exclusive=True), level) + image * height * width
    table = _table(features, pixels, channels, boxes.dtype)
    largest = tf.reduce_max(tf.maximum(sizes, 1), axis=0)
    places = _Places(
        tf.where(full, start, tf.zeros_like(start)),
        width,
        tf.concat([largest, tf.shape(table, out_type=tf.int64)], axis=0),
    )
    if ratio == 0:
        output = _by_products(table, places, y, x, full, bins)
    else:
        output = _by_gathering(table, places, y, x, full, bins, ratio)
    count = tf.where(full, y.points * x.points, tf.ones_like(y.points))
    output = output[..., :channels] / count[:, None, None, None]
    output.set_shape([*boxes.shape.with_rank(2)[:1], *bins, *features[0].shape.with_rank(4)[3:]])
    return tf.cast(output, features[0].dtype)


def _legal_indices(
    op: str, args: _checks.RoiAlignment, batch: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns which boxes name a map, and the image and level of each, 0 for the others."""
    image = tf.cast(args.box_indices, tf.int64)
    level = tf.zeros_like(image) if args.levels is None else tf.cast(args.levels, tf.int64)
    num_levels = len(args.features)
    in_batch = (image >= 0) & (image < batch)
    in_pyramid = (level >= 0) & (level < num_levels)
    checks = [
        ("box_indices", "be -1 or lie", image, in_batch | (image == -1), batch),
        ("levels", "lie", level, in_pyramid | ~in_batch, num_levels),
    ]
    _require_legal(op, checks)
    legal, zero = in_batch & in_pyramid, tf.zeros_like(image)
    return legal, tf.where(legal, image, zero), tf.where(legal, level, zero)


def _require_legal(op: str, checks: Sequence[tuple[str, str, tf.Tensor, tf.Tensor, Any]]) -> None:
    """Raises InvalidArgumentError at the first illegal number; compiled to nothing by XLA.

    Eagerly the words are those of the kernels; in a graph, which cannot format text under XLA, the
    numbers follow the words.
    """
    if not tf.executing_eagerly():
        for argument, rule, numbers, legal, limit in checks:
            worst = tf.stack([tf.reduce_min(numbers), tf.reduce_max(numbers)])
            text = f"{op}: '{argument}' must {rule} in [0, limit), got values between, and limit:"
            tf.debugging.Assert(tf.reduce_all(legal), [text, worst, limit])
        return
    illegal = tf.where(~tf.reduce_all([legal for _, _, _, legal, _ in checks], axis=0))
    if tf.size(illegal) > 0:
        k = int(illegal[0, 0])
        argument, rule, numbers, _, limit = next(check for check in checks if not check[3][k])
        message = f"'{argument}' must {rule} in [0, {int(limit)}), got {int(numbers[k])} at [{k}]"
        raise tf.errors.InvalidArgumentError(None, None, f"{op}: {message}")


def _table(
    features: Sequence[tf.Tensor], pixels: tf.Tensor, channels: tf.Tensor, dtype: tf.DType
) -> tf.Tensor:
    """Returns the pixels of all maps, in the accumulator's dtype: so are gradients summed.

    There is at least one pixel and one channel, of zeros if need be.
    """
    tables = [
        tf.reshape(tf.cast(level, dtype), tf.stack([pixels[n], channels]))
        for n, level in enumerate(features)
    ]
    table = tf.concat(tables, axis=0) if len(tables) > 1 else tables[0]
    full = any(level.shape.num_elements() for level in features)
    if not full:
        # TensorFlow neither gathers from nor scatters into an empty table.
        missing = tf.maximum(1 - tf.shape(table), 0)
        table = tf.pad(table, [[0, missing[0]], [0, missing[1]]])
    # The gradient of a gather is sparse, which concat's does not take under XLA; here it is dense.
    return tf.reshape(table, tf.shape(table))


def _axis(
    first: tf.Tensor,
    second: tf.Tensor,
    scale: tf.Tensor,
    bins: int,
    extent: tf.Tensor,
    ratio: int,
    aligned: bool,
) -> _Axis:
    """See `AxisOf` in `cc/core/roi_align.h`."""
    offset = 0.5 if aligned else 0.0

    def span(first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        start = first * scale - offset
        size = second * scale - offset - start
        return start, size if aligned else tf.where(size >= 1, size, tf.ones_like(size))

    ends = tf.stack([first, second, *span(first, second)])
    some = tf.reduce_all(tf.math.is_finite(ends), axis=0) & (extent > 0)
    # What is not finite is replaced before it is computed with: NaN times zero is NaN in gradients.
    zero = tf.zeros_like(first)
    start, size = span(tf.where(some, first, zero), tf.where(some, second, zero))
    # Not by a constant: compilers would multiply by its reciprocal, which rounds differently.
    bin_size = size / tf.where(some, tf.constant(bins, size.dtype), 1)
    if ratio:
        points = tf.fill(tf.shape(bin_size), tf.constant(ratio, bin_size.dtype))
    else:
        points = tf.math.ceil(tf.clip_by_value(tf.stop_gradient(bin_size), 0, _checks.MOST_POINTS))
    return _Axis(start, bin_size, tf.where(some, points, zero), extent)


def _samples(axis: _Axis, bins: int, i: tf.Tensor, full: tf.Tensor) -> _Samples:
    """Points `i`, `[boxes, bins, points]` or ones instead, of the boxes that are full.

    See `Position` and `SampleAt` in `cc/core/roi_align.h`.
    """
    start, bin_size, points, extent, full = (t[:, None, None] for t in (*axis, full))
    p = tf.range(bins, dtype=start.dtype)[:, None]
    position = start + p * bin_size + (i + 0.5) * bin_size / tf.maximum(points, 1)
    inside = full & (i < points) & (position >= -1) & (position <= tf.cast(extent, start.dtype))
    position = tf.where(inside, position, tf.zeros_like(position))
    low = tf.cast(tf.maximum(position, 0), tf.int64)
    moves = inside & (position >= 0) & (low < extent - 1)
    low = tf.minimum(low, tf.maximum(extent - 1, 0))
    fraction = tf.where(moves, position - tf.cast(low, start.dtype), tf.zeros_like(position))
    weight_low = tf.where(inside, 1 - fraction, tf.zeros_like(fraction))
    return _Samples(low, low + tf.cast(moves, tf.int64), weight_low, fraction)


def _by_gathering(
    table: tf.Tensor,
    places: _Places,
    y: _Axis,
    x: _Axis,
    full: tf.Tensor,
    bins: Sequence[int],
    ratio: int,
) -> tf.Tensor:
    """Returns the sum of each bin's samples, `[boxes, *bins, channels]`: four gathers."""
    i = tf.range(ratio, dtype=y.start.dtype)
    boxes = tf.shape(full)[0]
    # [boxes, bins, points] -> [boxes, bins * points]
    rows, columns = (
        [tf.reshape(part, tf.stack([boxes, bins[n] * ratio])) for part in samples]
        for n, samples in enumerate(_samples(a, bins[n], i, full) for n, a in enumerate((y, x)))
    )
    total = tf.zeros([], table.dtype)
    for row, weight_y in zip(rows[:2], rows[2:], strict=True):
        for column, weight_x in zip(columns[:2], columns[2:], strict=True):
            pixel = (places.start[:, None] + row * places.width[:, None])[:, :, None]
            weight = weight_y[:, :, None, None] * weight_x[:, None, :, None]
            # A pixel of weight zero is not read, whatever it holds.
            total += tf.math.multiply_no_nan(tf.gather(table, pixel + column[:, None, :]), weight)
    channels = tf.shape(table)[1]
    total = tf.reshape(total, tf.stack([boxes, bins[0], ratio, bins[1], ratio, channels]))
    return tf.reduce_sum(total, axis=(2, 4))


def _by_products(
    table: tf.Tensor,
    places: _Places,
    y: _Axis,
    x: _Axis,
    full: tf.Tensor,
    bins: Sequence[int],
) -> tf.Tensor:
    """Returns the sum of each bin's samples, `[boxes, *bins, channels]`: two products with a map.

    Weights and border rule are products of a part for y and a part for x, so each box is
    `rows @ map @ columns^T`, with what each bin reads of each row, and of each column.
    """
    # One box more, that reads nothing: of none TensorFlow compiles no loop.
    start, width = (tf.pad(part, [[0, 1]]) for part in (places.start, places.width))
    rows, columns = (
        tf.pad(_reads(axis, bins[n], places.sizes[n], full), [[0, 1], [0, 0], [0, 0]])
        for n, axis in enumerate((y, x))
    )
    factors = {"rows": rows, "columns": columns, "table": table}
    return _derivative("output", factors, _Places(start, width, places.sizes), bins)[:-1]


def _reads(axis: _Axis, bins: int, extent: tf.Tensor, full: tf.Tensor) -> tf.Tensor:
    """Returns the weight of each pixel in the sum of each bin, `[boxes, bins, extent]`.

    Of an adaptive bin, whose points are half a pixel apart or more: the ones that may lie inside
    the map follow each other, and there are twice as many as pixels, and a few.
    """
    start, bin_size, points = (tf.stop_gradient(part)[:, None] for part in axis[:3])
    p = tf.range(bins, dtype=start.dtype)
    some = tf.where(bin_size > 0, bin_size, tf.ones_like(bin_size))
    first = tf.floor((-1 - (start + p * bin_size)) * points / some) - 2
    first = tf.clip_by_value(first, 0, points)[:, :, None]
    few = tf.range(tf.cast(2 * extent + 12, start.dtype), dtype=start.dtype)
    samples = _samples(axis, bins, first + few, full)

    boxes = tf.shape(full, out_type=tf.int64)[0]
    row = tf.reshape(tf.range(boxes * bins) * extent, tf.stack([boxes, bins, 1]))
    pixels = tf.stack([row + samples.low, row + samples.high])
    weights = tf.stack([samples.weight_low, samples.weight_high])
    flat = tf.scatter_nd(
        tf.reshape(pixels, [-1, 1]), tf.reshape(weights, [-1]), [boxes * bins * extent]
    )
    return tf.reshape(flat, tf.stack([boxes, bins, extent]))


def _derivative(
    which: str, factors: dict[str, tf.Tensor], places: _Places, bins: Sequence[int]
) -> tf.Tensor:
    """Returns the derivative, by the factor `which`, of a number that is linear in four factors.

    It is the sum over boxes of `rows[p, y] table[y, x, c] columns[q, x] output[p, q, c]`. So the
    derivative by `output` is the op itself, with the other three for gradients, and these have
    derivatives of the same kind: to any order, and no box's copy of the map is kept for them.
    """

    @tf.custom_gradient
    def linear(start: tf.Tensor, width: tf.Tensor, sizes: tf.Tensor, *values: tf.Tensor) -> Any:
        own, own_places = dict(zip(factors, values, strict=True)), _Places(start, width, sizes)

        def gradient(upstream: tf.Tensor) -> list[tf.Tensor | None]:
            def towards(name: str) -> tf.Tensor:
                others = {other: own[other] for other in own if other != name}
                return _derivative(name, {**others, which: upstream}, own_places, bins)

            return [None, None, None, *map(towards, own)]

        return _box_by_box(which, own, own_places, bins), gradient

    # A gradient is built in a graph of its own, and its gradient in a third one, which reaches back
    # to the second, where the identities then are, and not to the first.
    return linear(*map(tf.identity, [*places, *factors.values()]))


def _box_by_box(
    which: str, factors: dict[str, tf.Tensor], places: _Places, bins: Sequence[int]
) -> tf.Tensor:
    """Returns what `_derivative` says: of the table a sum over the boxes, else one for each box."""
    boxes = tf.shape(places.start, out_type=tf.int64)[0]
    height, width, pixels, channels = tf.unstack(places.sizes, num=4)
    shapes = {
        "rows": [boxes, bins[0], height],
        "columns": [boxes, bins[1], width],
        "table": [pixels, channels],
        "output": [boxes, *bins, channels],
    }
    dtype = next(iter(factors.values())).dtype
    y, x = tf.range(height)[:, None], tf.range(width)

    def add(k: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Beyond a map that is smaller than the largest one lie other pixels, of weight zero.
        place = tf.minimum(places.start[k] + y * places.width[k] + x, pixels - 1)
        own = {
            name: tf.gather(factor, place) if name == "table" else factor[k]
            for name, factor in factors.items()
        }
        one = _of_one_box(which, own)
        if which == "table":
            return k + 1, tf.tensor_scatter_nd_add(total, place[:, :, None], one)
        return k + 1, tf.tensor_scatter_nd_update(total, [[k]], one[None])

    start = [tf.constant(0, tf.int64), tf.zeros(shapes[which], dtype)]
    return tf.while_loop(lambda k, _: k < boxes, add, start, parallel_iterations=1)[1]


def _of_one_box(which: str, own: dict[str, tf.Tensor]) -> tf.Tensor:
    """Returns the derivative of one box's number."""
    if which in ("output", "columns"):
        by_rows = _sum_of_products("py,yxc->pxc", own["rows"], own["table"])
        if which == "output":
            return _sum_of_products("qx,pxc->pqc", own["columns"], by_rows)
        return _sum_of_products("pqc,pxc->qx", own["output"], by_rows)
    by_columns = _sum_of_products("qx,pqc->pxc", own["columns"], own["output"])
    if which == "table":
        return _sum_of_products("py,pxc->yxc", own["rows"], by_columns)
    return _sum_of_products("pxc,yxc->py", by_columns, own["table"])


def _sum_of_products(equation: str, weights: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Returns an einsum in which zero weights times anything are zero, also times NaN and Inf."""
    product = tf.einsum(equation, weights, values)

    def without_nan() -> tf.Tensor:
        finite = tf.where(tf.math.is_finite(values), values, tf.zeros_like(values))
        total = tf.einsum(equation, weights, finite)
        # Values of +Inf and of -Inf; NaN counts as both, which makes NaN of their sum.
        nan = tf.math.is_nan(values)
        over, under = nan | (values == math.inf), nan | (values == -math.inf)
        for sign, ups, downs in ((1, over, under), (-1, under, over)):
            read = tf.cast(sign * weights > 0, values.dtype)
            for extreme, seen in ((math.inf, ups), (-math.inf, downs)):
                count = tf.einsum(equation, read, tf.cast(seen, values.dtype))
                total += tf.where(count > 0, tf.constant(extreme, values.dtype), 0)
        return total

    return tf.cond(tf.reduce_all(tf.math.is_finite(product)), lambda: product, without_nan)
