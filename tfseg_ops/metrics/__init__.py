"""Keras 3 metrics of segmentation, each over the whole set of images rather than a mean of batches.

All take class numbers `[batch, ...]` or `[batch, ..., 1]` as truth (or one-hot targets) and logits,
probabilities or class numbers as prediction. `MeanIoU` says how.
"""

from tfseg_ops.metrics.boundary_f1 import BoundaryF1
from tfseg_ops.metrics.dice_score import DiceScore
from tfseg_ops.metrics.mean_iou import MeanIoU

__all__ = ["BoundaryF1", "DiceScore", "MeanIoU"]
