"""The generalised Dice loss."""

import keras
import tensorflow as tf

from tfseg_ops.losses._overlap_loss import OverlapLoss
from tfseg_ops.losses._sums_loss import Sums


@keras.saving.register_keras_serializable(package="tfseg_ops")
class GeneralizedDice(OverlapLoss):
    """One minus a Dice coefficient over all classes at once, where small classes count most.

        dice = (2 sum_c v_c I_c + smooth_numerator)
               / (sum_c v_c (P_c + T_c) + smooth_denominator),   v_c = class_weights[c] / T_c^2

    See `ops.soft_dice_sums` for the sums `I`, `P`, `T`, and `losses.SoftDice` for the arguments.
    The `v` of an image are multiplied by the square of its smallest `T`, which changes nothing but
    the smoothing: it is in pixels of the rarest class, however large the image.

    A class that the truth lacks would have an infinite weight. With `absent="smooth"` it has that
    of the rarest class there (1 where there is none), with "skip" none, and an image without any
    class has loss 0. There is no dice of a single class that could be "one".

    Raises:
        ValueError, TypeError, tf.errors.InvalidArgumentError: as in `losses.SoftDice`.

    Example:
        >>> loss = GeneralizedDice(ignore_label=255, smooth_numerator=1, smooth_denominator=1)
        >>> model.compile("adam", loss, jit_compile=True)

    References:
        Sudre, Li, Vercauteren, Ourselin & Cardoso 2017, "Generalised Dice overlap as a deep
        learning loss function for highly unbalanced segmentations", section 2.
    """

    _absent_rules = ("smooth", "skip")

    def _losses(self, sums: Sums) -> tf.Tensor:
        target = sums.target
        weights = self._without_background(tf.ones_like(target))
        weights = weights * self._weights_of_classes(target)
        present = (target > 0) & (weights > 0)
        smallest = tf.reduce_min(
            tf.where(present, target, target.dtype.max), axis=-1, keepdims=True
        )
        relative = tf.where(present, smallest / tf.where(present, target, 1), 1)
        weights = weights * tf.square(relative)
        if self.absent == "skip":
            weights = tf.where(present, weights, 0)
        overlap = tf.reduce_sum(weights * sums.intersection, -1)
        both = tf.reduce_sum(weights * (sums.prediction + target), -1)
        losses = 1 - self._smoothed_ratio(2 * overlap, both)
        return tf.where(tf.reduce_any(weights > 0, -1), losses, 0)
