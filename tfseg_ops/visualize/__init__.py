"""Pictures of what a model does: what its feature maps answer to, its codes, its progress."""

from tfseg_ops.visualize.deconvnet import FeatureProjections as FeatureProjections
from tfseg_ops.visualize.deconvnet import deconvnet
from tfseg_ops.visualize.sample_grid_callback import SampleGridCallback
from tfseg_ops.visualize.tsne_plot import tsne_plot

__all__ = ["SampleGridCallback", "deconvnet", "tsne_plot"]
