"""Functions on tensors, each with its gradient.

All take and give float16, bfloat16, float32 and float64, any batch, unknown static dimensions, and
work eagerly, in `tf.function`, under `jit_compile=True` and in a SavedModel. XLA compiles for one
shape at a time: it refuses sizes that only the data decide, such as those of `tf.boolean_mask`.
"""

from tfseg_ops.ops.dense_crf import dense_crf
from tfseg_ops.ops.fpn_levels import fpn_levels
from tfseg_ops.ops.gaussian_filter import gaussian_filter
from tfseg_ops.ops.max_pool_with_argmax import max_pool_with_argmax
from tfseg_ops.ops.max_unpool import max_unpool
from tfseg_ops.ops.mean_field_step import mean_field_step
from tfseg_ops.ops.multilevel_roi_align import multilevel_roi_align
from tfseg_ops.ops.permutohedral_lattice import permutohedral_lattice
from tfseg_ops.ops.roi_align import roi_align
from tfseg_ops.ops.soft_dice_sums import soft_dice_sums
from tfseg_ops.pure_tf.permutohedral_lattice import Lattice as Lattice

__all__ = [
    "dense_crf",
    "fpn_levels",
    "gaussian_filter",
    "max_pool_with_argmax",
    "max_unpool",
    "mean_field_step",
    "multilevel_roi_align",
    "permutohedral_lattice",
    "roi_align",
    "soft_dice_sums",
]
