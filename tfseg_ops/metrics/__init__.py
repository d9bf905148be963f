"""Keras 3 metrics, each over the whole set of images rather than a mean of batches.

Those of segmentation take class numbers `[batch, ...]` or `[batch, ..., 1]` as truth (or one-hot
targets) and logits, probabilities or class numbers as prediction; `MeanIoU` says how. Those of
image quality take pairs of images `[batch, height, width, channels]`; `MeanPSNR` says how.
"""

from tfseg_ops.metrics.boundary_f1 import BoundaryF1
from tfseg_ops.metrics.dice_score import DiceScore
from tfseg_ops.metrics.mean_iou import MeanIoU
from tfseg_ops.metrics.mean_psnr import MeanPSNR
from tfseg_ops.metrics.mean_ssim import MeanSSIM
from tfseg_ops.metrics.psnr_of_mse import PSNROfMSE

__all__ = ["BoundaryF1", "DiceScore", "MeanIoU", "MeanPSNR", "MeanSSIM", "PSNROfMSE"]
