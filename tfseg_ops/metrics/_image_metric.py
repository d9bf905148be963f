"""What the metrics of image quality share: checked pairs of images, and the mean over images."""

import math
from typing import Any

import keras
import tensorflow as tf

from tfseg_ops import _checks


class ImageMetric(keras.metrics.Metric):
    """A mean over images of a score that each image has, kept in float64.

    It adds up over batches, replicas and images of different sizes. Without any image the result
    is 0.
    """

    # Keras would make "psnr_of_mse_1" of a class's name.
    _default_name: str | None = None

    def __init__(self, max_val: float = 1.0, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name or self._default_name, dtype=dtype)
        self.max_val = _checks.positive(type(self).__name__, "max_val", max_val)
        self.total, self.count = (
            self.add_variable(shape=(), initializer="zeros", dtype="float64", name=part)
            for part in ("total", "count")
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "max_val": self.max_val}

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        truth, prediction = self._images(y_true, y_pred)
        scores = tf.cast(self._scores(truth, prediction), tf.float64)
        weights = self._weights(sample_weight, scores)
        # An image without weight may be anything, NaN too.
        self.total.assign_add(tf.reduce_sum(tf.math.multiply_no_nan(scores, weights)))
        self.count.assign_add(tf.reduce_sum(weights))

    def result(self) -> tf.Tensor:
        return tf.cast(self._mean(), self.dtype)

    def _mean(self) -> tf.Tensor:
        return tf.math.divide_no_nan(
            tf.convert_to_tensor(self.total), tf.convert_to_tensor(self.count)
        )

    def _scores(self, truth: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
        """Returns the score of each image, `[batch]`."""
        raise NotImplementedError

    def _images(self, y_true: Any, y_pred: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns both as float64 `[batch, height, width, channels]`.

        In the dtype of a model half precision would round what is to be measured.
        """
        op = type(self).__name__
        truth, prediction = tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred)
        sizes: dict[str, int | None] = {}
        for argument, images in (("y_true", truth), ("y_pred", prediction)):
            if images.shape.rank is None:
                _checks.refuse(op, argument, "have a known rank", _checks.describe(images.shape))
            _checks.require_shape(op, argument, images, sizes, "batch height width channels")
        # Sizes that are known at run time only must not broadcast either.
        shapes = [tf.shape(truth), tf.shape(prediction)]
        words = f"{op}: 'y_true' and 'y_pred' must have one shape, got:"
        same = tf.reduce_all(tf.equal(*shapes))
        tf.debugging.Assert(same, [words, *shapes])
        # Compiled, the assertion is nothing: then the score is NaN.
        zero = tf.constant(0, tf.float64)
        truth = tf.cast(truth, tf.float64) + tf.where(same, zero, math.nan)
        return truth, tf.cast(prediction, tf.float64)

    def _weights(self, sample_weight: Any, scores: tf.Tensor) -> tf.Tensor:
        """Returns the weights of the images, `[batch]`."""
        if sample_weight is None:
            return tf.ones_like(scores)
        weights = tf.cast(tf.convert_to_tensor(sample_weight), scores.dtype)
        if weights.shape.rank != 0 and not weights.shape.is_compatible_with(scores.shape):
            rule = f"be a number or have shape {_checks.describe(scores.shape)}"
            got = _checks.describe(weights.shape)
            _checks.refuse(type(self).__name__, "sample_weight", rule, got)
        return tf.broadcast_to(weights, tf.shape(scores))
