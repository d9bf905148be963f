"""What the metrics share: truth and prediction as class numbers, and the mean of classes."""

import math
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfseg_ops import _checks
from tfseg_ops._labels import whole_numbers


class Pixels(NamedTuple):
    """What a batch says of its pixels, `[batch, ...]` each."""

    truth: tf.Tensor  # int32, in [0, num_classes) where a pixel counts
    prediction: tf.Tensor  # int32, any number
    counts: tf.Tensor  # bool: the truth is a class that is not ignored
    weights: tf.Tensor | None  # float64, 0 where a pixel does not count


class ClassMetric(keras.metrics.Metric):
    """A mean over the classes of a score that is made of counts over the whole set.

    The counts are kept in float64, which is exact up to 2^53 pixels, and never in the dtype of a
    policy. They add up over batches and replicas.
    """

    # Keras would make "mean_io_u_1" of a class's name.
    _default_name: str | None = None
    # Of `[batch, ...]`, if the metric takes one only.
    _rank: int | None = None

    def __init__(
        self,
        num_classes: int,
        *,
        ignore_label: int | None = None,
        include_background: bool = True,
        from_logits: bool = True,
        threshold: float = 0.5,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name or self._default_name, dtype=dtype)
        op = type(self).__name__
        self.num_classes = _checks.integer(op, "num_classes", num_classes, 2)
        self.ignore_label = _checks.ignore_label_of(op, ignore_label)
        self.include_background = _checks.boolean(op, "include_background", include_background)
        self.from_logits = _checks.boolean(op, "from_logits", from_logits)
        self.threshold = _checks.probability(op, "threshold", threshold)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "ignore_label": self.ignore_label,
            "include_background": self.include_background,
            "from_logits": self.from_logits,
            "threshold": self.threshold,
        }

    def result(self) -> tf.Tensor:
        scores = self.per_class()
        present = ~tf.math.is_nan(scores)
        total = tf.reduce_sum(tf.where(present, scores, 0))
        return tf.math.divide_no_nan(total, tf.reduce_sum(tf.cast(present, scores.dtype)))

    def per_class(self) -> tf.Tensor:
        """Returns the scores of the classes, `[num_classes]`, NaN for those left out.

        Left out is a class that neither truth nor prediction has anywhere, and the background
        without `include_background`.
        """
        numerator, denominator = self._ratio()
        counted = denominator > 0
        if not self.include_background:
            counted &= tf.range(self.num_classes) > 0
        scores = tf.math.divide_no_nan(numerator, denominator)
        return tf.cast(tf.where(counted, scores, math.nan), self.dtype)

    def num_absent(self) -> tf.Tensor:
        """Returns how many classes are in neither truth nor prediction, and so not in the mean."""
        _, denominator = self._ratio()
        absent = tf.cast(denominator <= 0, tf.int32)
        return tf.reduce_sum(absent if self.include_background else absent[1:])

    def _ratio(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns numerator and denominator of the score of each class, `[num_classes]`."""
        raise NotImplementedError

    def _add_counts(self, *shape: int, name: str) -> Any:
        return self.add_variable(shape=shape, initializer="zeros", dtype="float64", name=name)

    def _pixels(self, y_true: Any, y_pred: Any, sample_weight: Any) -> Pixels:
        """Returns truth, prediction and weights as `[batch, ...]`.

        A truth that is neither a class nor ignored is an error; under XLA and on GPUs, which cannot
        raise, such a pixel does not count. A prediction that is no class is wrong everywhere.
        """
        truth, prediction = self._labels(tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred))
        legal = (truth >= 0) & (truth < self.num_classes)
        ignored = tf.zeros_like(legal)
        if self.ignore_label is not None:
            ignored = truth == self.ignore_label
        self._require_legal(truth, legal | ignored)
        counts = legal & ~ignored
        weights = None
        if sample_weight is not None:
            weights = tf.where(counts, self._weights(sample_weight, prediction), 0)
        return Pixels(tf.cast(truth, tf.int32), prediction, counts, weights)

    def _labels(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns class numbers `[batch, ...]` of truth, int64, and prediction, int32."""
        for argument, tensor in (("y_true", y_true), ("y_pred", y_pred)):
            if tensor.shape.rank is None:
                got = _checks.describe(tensor.shape)
                _checks.refuse(type(self).__name__, argument, "have a known rank", got)
        if y_pred.dtype.is_floating:
            y_pred = self._decided(y_pred)
        elif y_pred.shape.rank >= y_true.shape.rank and y_pred.shape.rank != self._rank:
            y_pred = _without_last_one(y_pred)
        if y_true.shape.rank == y_pred.shape.rank + 1 and y_true.shape[-1] == self.num_classes:
            y_true = tf.argmax(y_true, -1)
        if y_true.shape.rank > y_pred.shape.rank:
            y_true = _without_last_one(y_true)
        if not y_true.shape.is_compatible_with(y_pred.shape):
            rule = f"have shape {_checks.describe(y_pred.shape)}"
            _checks.refuse(type(self).__name__, "y_true", rule, _checks.describe(y_true.shape))
        return tf.cast(whole_numbers(y_true), tf.int64), tf.cast(y_pred, tf.int32)

    def _decided(self, scores: tf.Tensor) -> tf.Tensor:
        """Returns the class of the greatest score, or whether one score is above the threshold."""
        channels = scores.shape[-1]
        if channels == self.num_classes:
            return tf.argmax(scores, -1, tf.int32)
        if channels != 1 or self.num_classes != 2:
            rule = f"have {self.num_classes} channels" + " or 1" * (self.num_classes == 2)
            _checks.refuse(type(self).__name__, "y_pred", rule, _checks.describe(scores.shape))
        odds = math.log(self.threshold / (1 - self.threshold))
        # In the dtype of the scores the threshold could be rounded.
        return tf.cast(scores[..., 0], tf.float64) > (odds if self.from_logits else self.threshold)

    def _require_legal(self, truth: tf.Tensor, legal: tf.Tensor) -> None:
        """Raises InvalidArgumentError at the first illegal label; compiled to nothing by XLA."""
        other = "" if self.ignore_label is None else f" or be {self.ignore_label}"
        rule = f"{type(self).__name__}: 'y_true' must lie in [0, {self.num_classes}){other}, got"
        if not tf.executing_eagerly():
            # A graph cannot format text under XLA: the numbers follow the words.
            worst = tf.stack([tf.reduce_min(truth), tf.reduce_max(truth)])
            tf.debugging.Assert(tf.reduce_all(legal), [f"{rule} values between:", worst])
        elif not bool(tf.reduce_all(legal)):
            where = tf.where(~legal)[0].numpy().tolist()
            words = f"{rule} {int(truth[tuple(where)])} at {where}"
            raise tf.errors.InvalidArgumentError(None, None, words)

    def _weights(self, sample_weight: Any, prediction: tf.Tensor) -> tf.Tensor:
        """Returns the weights of pixels, float64."""
        pixels = prediction.shape
        weights = _checks.sample_weight(type(self).__name__, sample_weight, pixels, tf.float64)
        if weights.shape.rank is None:
            weights = tf.ensure_shape(weights, pixels)
        if weights.shape.rank > pixels.rank:
            weights = tf.squeeze(weights, -1)
        elif weights.shape.rank == 1:
            weights = tf.reshape(weights, [-1] + [1] * (pixels.rank - 1))
        return tf.broadcast_to(weights, tf.shape(prediction))


def _without_last_one(labels: tf.Tensor) -> tf.Tensor:
    """Returns labels without a last dimension of 1, which not all have."""
    return tf.squeeze(labels, -1) if labels.shape.rank > 1 and labels.shape[-1] == 1 else labels
