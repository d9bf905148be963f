"""Keras 3 layers over `tfseg_ops.ops`."""

from tfseg_ops.layers.max_pooling_with_argmax_2d import MaxPoolingWithArgmax2D
from tfseg_ops.layers.max_unpooling_2d import MaxUnpooling2D
from tfseg_ops.layers.multilevel_roi_align import MultilevelROIAlign
from tfseg_ops.layers.roi_align import ROIAlign

__all__ = ["MaxPoolingWithArgmax2D", "MaxUnpooling2D", "MultilevelROIAlign", "ROIAlign"]
