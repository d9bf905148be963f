"""Which level of a feature pyramid a box is cut out of."""

from typing import Any

import tensorflow as tf

from tfseg_ops import _checks


def fpn_levels(
    boxes: Any,
    num_levels: int = 4,
    finest_level: int = 2,
    canonical_size: float = 224.0,
    canonical_level: int = 4,
) -> tf.Tensor:
    """Assigns boxes to the levels of a feature pyramid by their size.

    `floor(canonical_level + log2(sqrt(height * width) / canonical_size)) - finest_level`, clipped
    to the levels that there are. It is computed as the number of coarser levels `L` with
    `sqrt(height * width) >= canonical_size * 2^(L - canonical_level)`, so that a box exactly as
    large as a threshold has the coarser level.

    Boxes of no area, reversed ones and ones with NaN have the finest level, ones of infinite area
    the coarsest. There is no gradient.

    Args:
        boxes: `[..., 4]`, `[y1, x1, y2, x2]` in image pixels, float32 or float64.
        num_levels: the number of levels, 1 to 16.
        finest_level: the number of the finest one, 2 for P2: a pixel of it is `2^finest_level`
            image pixels wide.
        canonical_size: the size in image pixels of the boxes that belong to `canonical_level`.
        canonical_level: see there.

    Returns:
        `[...]`, int32, in `[0, num_levels)`: 0 is the finest level. `levels` of
        `multilevel_roi_align`.

    Raises:
        TypeError: `boxes` is of another dtype.
        ValueError: `boxes` has another last dimension, a number of levels or a level is
            out of range, or `canonical_size` is not positive and finite.

    Example:
        >>> fpn_levels([[0.0, 0.0, 224.0, 224.0], [0.0, 0.0, 111.0, 112.0]]).numpy()
        array([2, 0], dtype=int32)

    References:
        Lin et al. 2017, "Feature Pyramid Networks for Object Detection", equation 1.
    """
    op = "fpn_levels"
    boxes = tf.convert_to_tensor(boxes, tf.float32 if isinstance(boxes, (list, tuple)) else None)
    _checks.require_dtype(op, "boxes", boxes.dtype, _checks.BOX_DTYPES)
    if boxes.shape.rank is not None and not boxes.shape[-1:].is_compatible_with([4]):
        got = _checks.describe(boxes.shape)
        raise ValueError(f"{op}: 'boxes' must have shape [..., 4], got {got}")
    count = _checks.integer(op, "num_levels", num_levels, 1, _checks.MOST_LEVELS)
    finest = _checks.integer(op, "finest_level", finest_level, 0, _checks.COARSEST_LEVEL)
    canonical = _checks.integer(op, "canonical_level", canonical_level, 0, _checks.COARSEST_LEVEL)
    unit = _checks.positive(op, "canonical_size", canonical_size)
    y1, x1, y2, x2 = tf.unstack(tf.stop_gradient(boxes), num=4, axis=-1)
    size = tf.sqrt(tf.maximum(y2 - y1, 0) * tf.maximum(x2 - x1, 0))
    coarser = range(finest + 1, finest + count)
    sizes = [unit * 2.0 ** (level - canonical) for level in coarser]
    reached = size[..., None] >= tf.constant(sizes, boxes.dtype)
    return tf.reduce_sum(tf.cast(reached, tf.int32), axis=-1)
