"""The cross entropy with weights of classes and pixels."""

import keras
import tensorflow as tf

from tfseg_ops.losses._sums_loss import Sums, SumsLoss


@keras.saving.register_keras_serializable(package="tfseg_ops")
class WeightedCrossEntropy(SumsLoss):
    """The mean cross entropy of the pixels, weighted by class and by pixel.

        loss = sum_x w(x) class_weights[g(x)] (-log p_g(x)) / sum_x w(x) class_weights[g(x)]

    and with `activation="sigmoid"` the same of the binary cross entropy of each class, whose weight
    is `w(x) class_weights[c]`. See `ops.soft_dice_sums`. Weights are those of a mean: a weight map
    shifts the attention within an image and does not make its loss larger. An image of which no
    pixel counts has loss 0. `weights.class_weights`, `weights.border_weights` and
    `weights.outline_weights` compute weights.

    Args:
        activation: "softmax" over the classes or "sigmoid" of each.
        from_logits: False where the model's output is activated already: probabilities are then
            clipped to [1e-7, 1 - 1e-7].
        per_image: True: a mean for each image. False: one over the batch, repeated for each image.
        class_weights: of the classes, `[classes]`, at least 0.
        ignore_label: the label of pixels that do not count; integer labels only.
        sync_replicas: as in `losses.SoftDice`, also the arguments below and those of calls.
        reduction: as in Keras.
        name: as in Keras.
        dtype: of the result.

    Raises:
        ValueError, TypeError, tf.errors.InvalidArgumentError: as in `losses.SoftDice`.

    Example:
        >>> weights = class_weights(labels, num_classes=21, ignore_label=255)
        >>> loss = WeightedCrossEntropy(class_weights=weights, ignore_label=255)
        >>> model.compile("adam", loss, jit_compile=True)

    References:
        Ronneberger, Fischer & Brox 2015, "U-Net: convolutional networks for biomedical image
        segmentation", equation 1.
    """

    _uses_cross_entropy = True

    def _losses(self, sums: Sums) -> tf.Tensor:
        return self._mean_cross_entropy(sums)
