"""The ops in stock TensorFlow, with the same arguments and results as in `tfseg_ops.ops`.

Eagerly their errors are the same too. In a graph, what only shows at run time is reported by
`tf.debugging.Assert`, and under XLA, which drops such checks, not at all.

They are the baseline of the benchmarks, a second witness in the tests, and what runs inside
`tfseg_ops.portable()`. `exact_gaussian_filter` alone is no op of ours: it is what
`gaussian_filter` approximates.
"""

from tfseg_ops.pure_tf.exact_gaussian_filter import exact_gaussian_filter
from tfseg_ops.pure_tf.gaussian_filter import gaussian_filter
from tfseg_ops.pure_tf.max_pool_with_argmax import max_pool_with_argmax
from tfseg_ops.pure_tf.max_unpool import max_unpool
from tfseg_ops.pure_tf.mean_field_step import mean_field_step
from tfseg_ops.pure_tf.multilevel_roi_align import multilevel_roi_align
from tfseg_ops.pure_tf.permutohedral_lattice import permutohedral_lattice
from tfseg_ops.pure_tf.roi_align import roi_align
from tfseg_ops.pure_tf.soft_dice_sums import soft_dice_sums

__all__ = [
    "exact_gaussian_filter",
    "gaussian_filter",
    "max_pool_with_argmax",
    "max_unpool",
    "mean_field_step",
    "multilevel_roi_align",
    "permutohedral_lattice",
    "roi_align",
    "soft_dice_sums",
]
