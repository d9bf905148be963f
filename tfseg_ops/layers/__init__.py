"""Keras 3 layers over `tfseg_ops.ops`."""

from tfseg_ops.layers.max_pooling_with_argmax_2d import MaxPoolingWithArgmax2D
from tfseg_ops.layers.max_unpooling_2d import MaxUnpooling2D

__all__ = ["MaxPoolingWithArgmax2D", "MaxUnpooling2D"]
