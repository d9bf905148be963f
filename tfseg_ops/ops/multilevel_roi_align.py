"""RoI Align over a feature pyramid."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfseg_ops import _checks, _portable, pure_tf
from tfseg_ops.ops.roi_align import align


def multilevel_roi_align(
    features: Sequence[Any],
    boxes: Any,
    box_indices: Any,
    levels: Any,
    output_size: Any,
    spatial_scales: Sequence[float],
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> tf.Tensor:
    """Resamples each box of one level of a feature pyramid to `output_size` bins, in one call.

    As `ops.roi_align` of `features[levels[k]]` for box k; see there for the formula, borders,
    gradients and special boxes.

    Args:
        features: 1 to 16 maps `[batch, height, width, channels]`, finest first by custom, of one
            dtype, batch and number of channels.
        boxes: `[num_boxes, 4]`, each `[y1, x1, y2, x2]` in pixels of the image, float32 or float64.
        box_indices: `[num_boxes]`, int32 or int64: the image of each box; -1 gives zeros and no
            gradient.
        levels: `[num_boxes]`, int32 or int64: the number of the map in `features`, as
            `ops.fpn_levels` gives it. Not looked at where the box index is -1.
        output_size: bins, an int or `[height, width]`.
        spatial_scales: for each map, its pixels per pixel of the image.
        sampling_ratio: points per bin along each axis; 0 takes `ceil(bin size)`.
        aligned: whether pixel centres lie at halves.

    Returns:
        `[num_boxes, output height, output width, channels]` with the dtype of `features`.

    Raises:
        TypeError: a dtype is none of the above.
        ValueError, tf.errors.InvalidArgumentError: as in `ops.roi_align`, and a level that does not
            exist (at run time, not on GPUs).

    Example:
        >>> levels = fpn_levels(boxes, num_levels=4)
        >>> scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
        >>> crops = multilevel_roi_align([p2, p3, p4, p5], boxes, indices, levels, 7, scales)

    References:
        Lin et al. 2017, "Feature Pyramid Networks for Object Detection", section 4.2.
        He, Gkioxari, Dollar & Girshick 2017, "Mask R-CNN", section 3.
    """
    args = _checks.roi_alignment(
        "multilevel_roi_align",
        features,
        boxes,
        box_indices,
        levels,
        output_size,
        spatial_scales,
        sampling_ratio,
    )
    if _portable.is_portable():
        return pure_tf.multilevel_roi_align(
            args.features,
            args.boxes,
            args.box_indices,
            args.levels,
            args.output_size,
            args.spatial_scales,
            sampling_ratio,
            aligned,
        )
    return align(args, args.levels, aligned)
