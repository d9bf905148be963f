"""Keras 3 layers over `tfseg_ops.ops`, and those that fit sizes to one another."""

from tfseg_ops.layers.crop_like_2d import CropLike2D
from tfseg_ops.layers.dense_crf import DenseCRF
from tfseg_ops.layers.depth_to_space_2d import DepthToSpace2D
from tfseg_ops.layers.max_pooling_with_argmax_2d import MaxPoolingWithArgmax2D
from tfseg_ops.layers.max_unpooling_2d import MaxUnpooling2D
from tfseg_ops.layers.mean_field_step import MeanFieldStep
from tfseg_ops.layers.multilevel_roi_align import MultilevelROIAlign
from tfseg_ops.layers.pad_to_minimum_2d import PadToMinimum2D
from tfseg_ops.layers.roi_align import ROIAlign

__all__ = [
    "CropLike2D",
    "DenseCRF",
    "DepthToSpace2D",
    "MaxPoolingWithArgmax2D",
    "MaxUnpooling2D",
    "MeanFieldStep",
    "MultilevelROIAlign",
    "PadToMinimum2D",
    "ROIAlign",
]
