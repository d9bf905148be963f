"""The mean Dice coefficient."""

import keras
import tensorflow as tf

from tfseg_ops.metrics._confusion_metric import ConfusionMetric


@keras.saving.register_keras_serializable(package="tfseg_ops")
class DiceScore(ConfusionMetric):
    """The mean over the classes of the Dice coefficient, from one confusion matrix of the set.

        dice[c] = 2 both[c] / (truth[c] + prediction[c])

    It is the F1 score of the pixels, and `iou = dice / (2 - dice)` for each class. See `MeanIoU`,
    whose arguments and rules are the same.

    References:
        Dice 1945, "Measures of the amount of ecologic association between species".
    """

    _default_name = "dice_score"

    def _ratio(self) -> tuple[tf.Tensor, tf.Tensor]:
        both, truth, prediction = self._sums()
        return 2 * both, truth + prediction
