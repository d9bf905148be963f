"""The peak signal-to-noise ratio of a mean squared error."""

import keras
import tensorflow as tf

from tfseg_ops.metrics._image_metric import ImageMetric
from tfseg_ops.metrics._psnr import psnr_of, squared_errors


@keras.saving.register_keras_serializable(package="tfseg_ops")
class PSNROfMSE(ImageMetric):
    """The peak signal-to-noise ratio of the mean squared error of all images, in dB.

        psnr = 10 log10(max_val^2 / mse),  mse the mean over the images of theirs

    One bad image weighs more here than in `MeanPSNR`, which is never below this (as long as no
    image reaches 100 dB). Each image counts the same, whatever its size. The result is 100 dB at
    most, also where all images equal the truth and it would be infinite.

    See `MeanPSNR` for the arguments, what they may be and what is raised.

    Example:
        >>> metric = PSNROfMSE(max_val=255)
        >>> metric.update_state(photographs, restored)
    """

    _default_name = "psnr_of_mse"

    def _scores(self, truth: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
        return squared_errors(truth, prediction)

    def _mean(self) -> tf.Tensor:
        seen = tf.convert_to_tensor(self.count) > 0
        return tf.where(seen, psnr_of(super()._mean(), self.max_val), 0)
