"""Keras 3 layers over `tfseg_ops.ops`."""

from tfseg_ops.layers.dense_crf import DenseCRF
from tfseg_ops.layers.max_pooling_with_argmax_2d import MaxPoolingWithArgmax2D
from tfseg_ops.layers.max_unpooling_2d import MaxUnpooling2D
from tfseg_ops.layers.mean_field_step import MeanFieldStep
from tfseg_ops.layers.multilevel_roi_align import MultilevelROIAlign
from tfseg_ops.layers.roi_align import ROIAlign

__all__ = [
    "DenseCRF",
    "MaxPoolingWithArgmax2D",
    "MaxUnpooling2D",
    "MeanFieldStep",
    "MultilevelROIAlign",
    "ROIAlign",
]
