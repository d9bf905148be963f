"""Soft Dice and cross entropy together."""

from typing import Any

import keras
import tensorflow as tf

from tfseg_ops import _checks
from tfseg_ops.losses._sums_loss import Sums
from tfseg_ops.losses.soft_dice import SoftDice


@keras.saving.register_keras_serializable(package="tfseg_ops")
class SoftDiceCrossEntropy(SoftDice):
    """`dice_weight * SoftDice + cross_entropy_weight * WeightedCrossEntropy`, in one pass.

    See `ops.soft_dice_sums`. Dice looks at the overlap, whatever the size of a class; the cross
    entropy has a gradient at every pixel from the first step on. `class_weights` go into both, and
    `include_background`, `absent`, `power` and the smoothing into Dice alone.

    Args:
        dice_weight: at least 0.
        cross_entropy_weight: at least 0.
        **options: those of `losses.SoftDice`.

    Raises:
        ValueError, TypeError, tf.errors.InvalidArgumentError: as in `losses.SoftDice`.

    Example:
        >>> loss = SoftDiceCrossEntropy(ignore_label=255, include_background=False)
        >>> model.compile("adam", loss, jit_compile=True)

    References:
        Isensee et al. 2021, "nnU-Net: a self-configuring method for deep learning-based biomedical
        image segmentation".
    """

    _uses_cross_entropy = True

    def __init__(
        self, dice_weight: float = 1.0, cross_entropy_weight: float = 1.0, **options: Any
    ) -> None:
        super().__init__(**options)
        op = type(self).__name__
        self.dice_weight = _checks.not_negative(op, "dice_weight", dice_weight)
        self.cross_entropy_weight = _checks.not_negative(
            op, "cross_entropy_weight", cross_entropy_weight
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "dice_weight": self.dice_weight,
            "cross_entropy_weight": self.cross_entropy_weight,
        }

    def _losses(self, sums: Sums) -> tf.Tensor:
        dice, cross_entropy = super()._losses(sums), self._mean_cross_entropy(sums)
        return self.dice_weight * dice + self.cross_entropy_weight * cross_entropy
