"""The mean peak signal-to-noise ratio."""

import keras
import tensorflow as tf

from tfseg_ops.metrics._image_metric import ImageMetric
from tfseg_ops.metrics._psnr import psnr_of, squared_errors


@keras.saving.register_keras_serializable(package="tfseg_ops")
class MeanPSNR(ImageMetric):
    """The mean over the images of their peak signal-to-noise ratios, in dB.

        psnr = 10 log10(max_val^2 / mse),  mse the mean over the image's pixels and channels

    This is what papers on super-resolution report. An image counts as 100 dB at most: that is what
    two equal images get, whose PSNR is infinite. Since the logarithm is concave, the result is
    never below `PSNROfMSE` (as long as no image reaches 100 dB).

    Args:
        max_val: the greatest value a pixel can have: 1 for images in [0, 1], 255 for uint8.
        name: as in Keras.
        dtype: of the result. Images are compared and sums kept in float64, whatever it is.

    Call arguments:
        y_true: images `[batch, height, width, channels]`, of any integer or floating dtype, in
            units of `max_val`: integers are not rescaled.
        y_pred: likewise, of the same shape, not necessarily of the same dtype.
        sample_weight: of images, `[batch]`, or a number. An image of weight 0 may be anything.

    Raises:
        ValueError: a `max_val` that is not positive, or shapes that do not fit or whose rank is
            unknown.
        tf.errors.InvalidArgumentError: at run time, shapes that do not fit. Under XLA, which cannot
            raise, the result is NaN then.

    Example:
        >>> model.compile("adam", "mae", metrics=[MeanPSNR(), MeanSSIM()])

    References:
        Wang & Bovik 2009, "Mean squared error: love it or leave it?", equation 4.
    """

    _default_name = "mean_psnr"

    def _scores(self, truth: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
        return psnr_of(squared_errors(truth, prediction), self.max_val)
