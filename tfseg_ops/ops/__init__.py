"""Functions on tensors, each with its gradient.

All take and give float16, bfloat16, float32 and float64, any batch, unknown static dimensions, and
work eagerly, in `tf.function`, under `jit_compile=True` and in a SavedModel. XLA compiles for one
shape at a time: it refuses sizes that only the data decide, such as those of `tf.boolean_mask`.
"""

from tfseg_ops.ops.fpn_levels import fpn_levels
from tfseg_ops.ops.max_pool_with_argmax import max_pool_with_argmax
from tfseg_ops.ops.max_unpool import max_unpool
from tfseg_ops.ops.multilevel_roi_align import multilevel_roi_align
from tfseg_ops.ops.roi_align import roi_align
from tfseg_ops.ops.soft_dice_sums import soft_dice_sums

__all__ = [
    "fpn_levels",
    "max_pool_with_argmax",
    "max_unpool",
    "multilevel_roi_align",
    "roi_align",
    "soft_dice_sums",
]
