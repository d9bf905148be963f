"""Keras 3 losses over `ops.soft_dice_sums`: one pass over the logits, no softmax or one-hot tensor.

All take logits (or probabilities) `[batch, ..., classes]` in float16, bfloat16, float32 or float64,
and labels uncast: class numbers `[batch, ...]` or `[batch, ..., 1]`, or dense targets of the shape
of the logits. `SoftDice` says what their common options do.
"""

from tfseg_ops.losses.generalized_dice import GeneralizedDice
from tfseg_ops.losses.soft_dice import SoftDice
from tfseg_ops.losses.soft_dice_cross_entropy import SoftDiceCrossEntropy
from tfseg_ops.losses.soft_jaccard import SoftJaccard
from tfseg_ops.losses.tversky import Tversky
from tfseg_ops.losses.weighted_cross_entropy import WeightedCrossEntropy

__all__ = [
    "GeneralizedDice",
    "SoftDice",
    "SoftDiceCrossEntropy",
    "SoftJaccard",
    "Tversky",
    "WeightedCrossEntropy",
]
