"""RoI Align over a feature pyramid in stock TensorFlow."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfseg_ops import _checks
from tfseg_ops.pure_tf.roi_align import align


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
    """Cuts each box out of its own level of a feature pyramid.

    See `ops.multilevel_roi_align`. The maps are copied into one table of pixels, from which all
    boxes are gathered as in `roi_align`.
    """
    op = "multilevel_roi_align"
    args = _checks.roi_alignment(
        op, features, boxes, box_indices, levels, output_size, spatial_scales, sampling_ratio
    )
    return align(op, args, aligned)
