"""The Tversky loss."""

from typing import Any

import keras
import tensorflow as tf

from tfseg_ops import _checks
from tfseg_ops.losses._overlap_loss import OverlapLoss
from tfseg_ops.losses._sums_loss import Sums


@keras.saving.register_keras_serializable(package="tfseg_ops")
class Tversky(OverlapLoss):
    """One minus the mean over the classes of the Tversky index: errors of two kinds, weighed apart.

        tversky = (I + smooth_numerator)
                  / (I + alpha (P - I) + beta (T - I) + smooth_denominator)

    See `ops.soft_dice_sums` for the sums `I`, `P`, `T`. Without smoothing, alpha = beta = 0.5 is
    the Dice coefficient and alpha = beta = 1 the Jaccard index.

    Args:
        alpha: weight of false positives, at least 0.
        beta: weight of false negatives, at least 0; above `alpha` it favours recall.
        **options: those of `losses.SoftDice`.

    Raises:
        ValueError, TypeError, tf.errors.InvalidArgumentError: as in `losses.SoftDice`.

    Example:
        >>> loss = Tversky(alpha=0.3, beta=0.7, activation="sigmoid")  # rather too much than missed
        >>> model.compile("adam", loss, jit_compile=True)

    References:
        Salehi, Erdogmus & Gholipour 2017, "Tversky loss function for image segmentation using 3D
        fully convolutional deep networks".
    """

    def __init__(self, alpha: float = 0.5, beta: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        op = type(self).__name__
        self.alpha = _checks.not_negative(op, "alpha", alpha)
        self.beta = _checks.not_negative(op, "beta", beta)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha, "beta": self.beta}

    def _overlap(self, sums: Sums) -> tuple[tf.Tensor, tf.Tensor]:
        false_positives = sums.prediction - sums.intersection
        false_negatives = sums.target - sums.intersection
        errors = self.alpha * false_positives + self.beta * false_negatives
        return sums.intersection, sums.intersection + errors
