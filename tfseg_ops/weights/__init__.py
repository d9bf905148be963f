"""Weights for the losses, computed from labels with numpy and scipy, before the training.

Weights of classes go into the option `class_weights` of a loss, maps of pixels into
`sample_weight`. The maps need scipy: `pip install "tfseg_ops[weights]"`.
"""

from tfseg_ops.weights.border_weights import border_weights
from tfseg_ops.weights.class_weights import class_weights
from tfseg_ops.weights.outline_weights import outline_weights

__all__ = ["border_weights", "class_weights", "outline_weights"]
