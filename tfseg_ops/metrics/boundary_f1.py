"""The F1 score of boundaries."""

from typing import Any

import keras
import tensorflow as tf

from tfseg_ops import _checks
from tfseg_ops.metrics._class_metric import ClassMetric


@keras.saving.register_keras_serializable(package="tfseg_ops")
class BoundaryF1(ClassMetric):
    """The mean over the classes of the F1 score of their boundaries, within a tolerance.

        precision[c] = share of the predicted boundary within `tolerance` of the true one
        recall[c]    = share of the true boundary within `tolerance` of the predicted one
        f1[c]        = 2 precision[c] recall[c] / (precision[c] + recall[c])

    A pixel of a class is on its boundary if one of its eight neighbours is of another class. The
    edge of the image is no boundary, nor is that of an ignored region; ignored pixels are on none.
    Distances are those of a square: the greater one of rows and columns, found by max-pooling, so
    that the metric compiles. Shares are of the boundary pixels of the whole set, each with its
    weight. A class without a boundary in truth and prediction is left out and counted.

    See `MeanIoU` for the arguments that are not here.

    Args:
        num_classes: at least 2.
        tolerance: in pixels, at least 0.
        **options: `ignore_label`, `include_background`, `from_logits`, `threshold`, `name`,
            `dtype`.

    Call arguments:
        y_true: as in `MeanIoU`, of images `[batch, height, width]`.
        y_pred: likewise.
        sample_weight: likewise.

    Raises:
        ValueError: a wrong option, shapes that do not fit, or a truth that is not of images.
        tf.errors.InvalidArgumentError: as in `MeanIoU`.

    Example:
        >>> metric = BoundaryF1(2, tolerance=1, include_background=False)
        >>> metric.update_state(masks, model.predict(images))

    References:
        Csurka, Larlus & Perronnin 2013, "What is a good evaluation measure for semantic
        segmentation?" (there with the mean over images).
    """

    _default_name = "boundary_f1"
    _rank = 3

    def __init__(self, num_classes: int, tolerance: int = 2, **options: Any) -> None:
        super().__init__(num_classes, **options)
        self.tolerance = _checks.integer(type(self).__name__, "tolerance", tolerance, 0)
        # Of each class: pixels of the predicted boundary near the true one, and of the whole.
        self.predicted = self._add_counts(2, self.num_classes, name="predicted")
        # Of each class: pixels of the true boundary near the predicted one, and of the whole.
        self.true = self._add_counts(2, self.num_classes, name="true")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "tolerance": self.tolerance}

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        pixels = self._pixels(y_true, y_pred, sample_weight)
        if pixels.truth.shape.rank != self._rank:
            got = _checks.describe(pixels.truth.shape)
            rule = "be of images [batch, height, width]"
            _checks.refuse(type(self).__name__, "y_true", rule, got)
        truth = self._boundaries(pixels.truth, pixels.counts)
        prediction = self._boundaries(pixels.prediction, pixels.counts)
        for counts, boundaries, others in (
            (self.predicted, prediction, truth),
            (self.true, truth, prediction),
        ):
            near = boundaries * _dilated(others, self.tolerance)
            sums = [_sums(masks, pixels.weights) for masks in (near, boundaries)]
            counts.assign_add(tf.stack(sums))

    def _boundaries(self, labels: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
        """Returns 1 for the pixels on the boundary of each class, `[batch, height, width, n]`."""
        regions = tf.one_hot(tf.where(counts, labels, -1), self.num_classes)
        elsewhere = tf.cast(counts, regions.dtype)[..., None] - regions
        return regions * _dilated(elsewhere, 1)

    def _ratio(self) -> tuple[tf.Tensor, tf.Tensor]:
        hits, predicted = tf.unstack(tf.convert_to_tensor(self.predicted))
        found, true = tf.unstack(tf.convert_to_tensor(self.true))
        precision = tf.math.divide_no_nan(hits, predicted)
        recall = tf.math.divide_no_nan(found, true)
        f1 = tf.math.divide_no_nan(2 * precision * recall, precision + recall)
        # The denominator says which classes have a boundary.
        boundaries = predicted + true
        return f1 * boundaries, boundaries


def _dilated(masks: tf.Tensor, radius: int) -> tf.Tensor:
    """Returns masks of 0 and 1 grown by a square, `[batch, height, width, classes]`."""
    if radius == 0:
        return masks
    side = 2 * radius + 1
    # Rows, then columns: what a square does, in linear time of its side.
    for window in ([side, 1], [1, side]):
        masks = tf.nn.max_pool2d(masks, window, strides=1, padding="SAME")
    return masks


def _sums(masks: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
    """Returns the sums of masks over pixels with their weights, `[classes]`, float64."""
    if weights is not None:
        masks *= tf.cast(weights, masks.dtype)[..., None]
    # float32 counts the pixels of a row exactly; a whole set of masks in float64 would be large.
    rows = tf.reduce_sum(masks, axis=2)
    return tf.reduce_sum(tf.cast(rows, tf.float64), axis=[0, 1])
