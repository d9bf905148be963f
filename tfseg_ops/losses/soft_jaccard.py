"""The soft Jaccard loss."""

import keras
import tensorflow as tf

from tfseg_ops.losses._overlap_loss import OverlapLoss
from tfseg_ops.losses._sums_loss import Sums


@keras.saving.register_keras_serializable(package="tfseg_ops")
class SoftJaccard(OverlapLoss):
    """One minus the mean over the classes of the soft Jaccard index, the IoU of probabilities.

        jaccard = (I + smooth_numerator) / (P + T - I + smooth_denominator)

    See `ops.soft_dice_sums` for the sums `I`, `P`, `T`, and `losses.SoftDice` for the arguments,
    which are the same. Without smoothing, `jaccard = dice / (2 - dice)`.

    References:
        Rahman & Wang 2016, "Optimizing intersection-over-union in deep neural networks for image
        segmentation".
    """

    def _overlap(self, sums: Sums) -> tuple[tf.Tensor, tf.Tensor]:
        return sums.intersection, sums.prediction + sums.target - sums.intersection
