"""The soft Dice loss."""

import keras
import tensorflow as tf

from tfseg_ops.losses._overlap_loss import OverlapLoss
from tfseg_ops.losses._sums_loss import Sums


@keras.saving.register_keras_serializable(package="tfseg_ops")
class SoftDice(OverlapLoss):
    """One minus the mean over the classes of the soft Dice coefficient.

    With the sums `I`, `P`, `T` of `ops.soft_dice_sums` over the pixels of an image, for a class:

        dice = (2 I + smooth_numerator) / (P + T + smooth_denominator)

    See `ops.soft_dice_sums`. Where no pixel counts, and where a class is in neither truth nor
    prediction, its dice is smooth_numerator / smooth_denominator, 1 by default (0 where both are
    0). The loss is NaN only where logits or targets of pixels that count are, or where weights are
    so large that sums of them overflow.

    Args:
        activation: "softmax" over the classes or "sigmoid" of each.
        from_logits: False where the model's output is activated already.
        power: of prediction and target in the denominator: 1, or 2 as in V-Net.
        per_image: True: a loss for each image from its own sums. False: from the sums over the
            batch, one loss that is repeated for each image.
        smooth_numerator: is added to the numerator, in pixels.
        smooth_denominator: is added to the denominator, in pixels.
        absent: what a class does that the truth lacks. "smooth": nothing special, so that its dice
            is near 0 as soon as it is predicted anywhere, and 1 where it is not. "skip": it is
            left out of the mean; an image without any class has loss 0. "one": its dice is 1.
        class_weights: of the classes in the mean, `[classes]`, at least 0.
        include_background: False leaves class 0 out of the mean.
        ignore_label: the label of pixels that do not count; integer labels only.
        sync_replicas: under `tf.distribute` take the sums over the batches of all replicas; with
            `per_image=False`, and not under `jit_compile`, which cannot wait for other replicas.
        reduction: as in Keras.
        name: as in Keras.
        dtype: of the result, by default `keras.config.floatx()`. The sums are kept in float32
            (float64 for float64 logits), whatever it is.

    Call arguments:
        y_true: class numbers `[batch, ...]` or `[batch, ..., 1]`, integers or whole floats (of
            one sigmoid channel the mask, 0 or 1; without `ignore_label` it may be a soft one, of
            floats between); or dense targets of the shape of `y_pred`.
        y_pred: logits `[batch, ..., classes]`, any floating dtype.
        sample_weight: None; `[batch, ...]` or `[batch, ..., 1]`, which multiplies pixels; or
            `[batch]` or a number, which multiply the losses of images, or with `per_image=False`
            all pixels of an image.

    Raises:
        ValueError: a wrong option, or shapes that do not fit.
        TypeError: a dtype is none of the above.
        tf.errors.InvalidArgumentError: at run time, a label that is neither a class nor ignored.

    Example:
        >>> loss = SoftDice(ignore_label=255, absent="skip")
        >>> model.compile("adam", loss, jit_compile=True)
        >>> model.fit(images, labels, sample_weight=pixel_weights)

    References:
        Milletari, Navab & Ahmadi 2016, "V-Net: fully convolutional neural networks for volumetric
        medical image segmentation", section 3.
    """

    def _overlap(self, sums: Sums) -> tuple[tf.Tensor, tf.Tensor]:
        return 2 * sums.intersection, sums.prediction + sums.target
