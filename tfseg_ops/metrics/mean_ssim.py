"""The mean structural similarity."""

from typing import Any

import keras
import tensorflow as tf

from tfseg_ops import _checks
from tfseg_ops.metrics._image_metric import ImageMetric

_WINDOW = 11


@keras.saving.register_keras_serializable(package="tfseg_ops")
class MeanSSIM(ImageMetric):
    """The mean over the images of their structural similarity, at most 1, which equal images have.

    See `tf.image.ssim`, in the paper's setting: Gaussian windows of 11 x 11 pixels with a standard
    deviation of 1.5, K1 = 0.01, K2 = 0.03, the mean over the windows that lie inside of the image
    and over the channels. It is computed in float32.

    See `MeanPSNR` for the arguments and what they may be. Images smaller than the window are
    refused.

    Raises:
        ValueError: as `MeanPSNR`; images known to be smaller than 11 x 11.
        tf.errors.InvalidArgumentError: at run time, shapes that do not fit, or smaller images.

    Example:
        >>> metric = MeanSSIM(max_val=255)
        >>> metric.update_state(photographs, restored)

    References:
        Wang, Bovik, Sheikh & Simoncelli 2004, "Image quality assessment: from error visibility to
        structural similarity", section III.
    """

    _default_name = "mean_ssim"

    def _scores(self, truth: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
        # Not in the units of `max_val`, of which squares of squares could leave float32.
        truth, prediction = (
            tf.cast(images / self.max_val, tf.float32) for images in (truth, prediction)
        )
        return tf.image.ssim(truth, prediction, max_val=1.0)

    def _images(self, y_true: Any, y_pred: Any) -> tuple[tf.Tensor, tf.Tensor]:
        truth, prediction = super()._images(y_true, y_pred)
        rule = f"be images of at least {_WINDOW} x {_WINDOW} pixels"
        if any(size is not None and size < _WINDOW for size in truth.shape[1:3]):
            _checks.refuse(type(self).__name__, "y_true", rule, _checks.describe(truth.shape))
        shape = tf.shape(truth)
        words = f"{type(self).__name__}: 'y_true' must {rule}, got:"
        tf.debugging.Assert(tf.reduce_all(shape[1:3] >= _WINDOW), [words, shape])
        return truth, prediction
