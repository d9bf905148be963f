"""The mean intersection over union."""

import keras
import tensorflow as tf

from tfseg_ops.metrics._confusion_metric import ConfusionMetric


@keras.saving.register_keras_serializable(package="tfseg_ops")
class MeanIoU(ConfusionMetric):
    """The mean over the classes of intersection over union, from one confusion matrix of the set.

        iou[c] = both[c] / (truth[c] + prediction[c] - both[c])

    with the pixels of class `c` in truth and prediction, in the truth, and in the prediction. A
    class that neither has anywhere is left out of the mean and counted by `num_absent()`;
    `per_class()` gives the scores one by one. Without any class the result is 0.

    Args:
        num_classes: at least 2.
        ignore_label: the label of pixels of the truth that do not count.
        include_background: False leaves class 0 out of the mean; its pixels still count against
            the others.
        from_logits: whether one channel holds logits or probabilities.
        threshold: probability in (0, 1); above it one channel means class 1.
        name: as in Keras.
        dtype: of the result. Counts are kept in float64, whatever it is.

    Call arguments:
        y_true: class numbers `[batch, ...]` or `[batch, ..., 1]`, any integer dtype or
            whole floats; or targets `[batch, ..., num_classes]`, of which the greatest counts.
        y_pred: scores `[batch, ..., num_classes]`, floating, of which the greatest counts (the
            first of equal ones); of two classes also one channel; or class numbers, integers, of
            which one that is no class is wrong.
        sample_weight: of pixels, `[batch, ...]` or `[batch, ..., 1]`, of images, `[batch]`, or a
            number.

    Raises:
        ValueError: a wrong option, or shapes that do not fit or whose rank is unknown.
        tf.errors.InvalidArgumentError: at run time, a truth that is neither a class nor ignored.
            Under XLA such a pixel does not count instead.

    Example:
        >>> model.compile("adam", loss, metrics=[MeanIoU(21, ignore_label=255)])

    References:
        Everingham et al. 2015, "The PASCAL visual object classes challenge: a retrospective".
    """

    _default_name = "mean_iou"

    def _ratio(self) -> tuple[tf.Tensor, tf.Tensor]:
        both, truth, prediction = self._sums()
        return both, truth + prediction - both
