"""Pictures of what a model does: what its feature maps answer to, its codes, its progress."""

from tfseg_ops.visualize.deconvnet import FeatureProjections as FeatureProjections
from tfseg_ops.visualize.deconvnet import deconvnet

__all__ = ["deconvnet"]
