"""What the metrics of regions share: one confusion matrix of the whole set."""

from typing import Any

import tensorflow as tf

from tfseg_ops.metrics._class_metric import ClassMetric


class ConfusionMetric(ClassMetric):
    """A score of each class from its row, its column and its diagonal of the confusion matrix."""

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__(num_classes, **options)
        # [truth, prediction]; the last column is for predictions that are no class.
        self.confusion = self._add_counts(self.num_classes, self.num_classes + 1, name="confusion")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        pixels = self._pixels(y_true, y_pred, sample_weight)
        rows, columns = self.confusion.shape
        known = (pixels.prediction >= 0) & (pixels.prediction < rows)
        cell = pixels.truth * columns + tf.where(known, pixels.prediction, rows)
        # What does not count has no cell: negative ones are dropped.
        cell = tf.where(pixels.counts, cell, -1)
        weights = pixels.weights
        if weights is None:
            weights = tf.ones(tf.shape(cell), tf.float64)
        cells = tf.math.unsorted_segment_sum(weights, cell, rows * columns)
        self.confusion.assign_add(tf.reshape(cells, [rows, columns]))

    def _sums(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the pixels of each class in both, in the truth and in the prediction."""
        confusion = tf.convert_to_tensor(self.confusion)
        return (
            tf.linalg.diag_part(confusion),
            tf.reduce_sum(confusion, axis=1),
            tf.reduce_sum(confusion, axis=0)[:-1],
        )
