"""What the losses share: weights, the sums over images or the batch, and the mean of classes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfseg_ops import _checks, ops
from tfseg_ops._labels import whole_numbers

# What Keras's own losses clip probabilities to.
_SMALLEST_PROBABILITY = 1e-7


class Sums(NamedTuple):
    """The sums of `ops.soft_dice_sums`; with batch sums, `images` is 1."""

    intersection: tf.Tensor  # [images, classes]
    prediction: tf.Tensor  # [images, classes]
    target: tf.Tensor  # [images, classes]
    cross_entropy: tf.Tensor  # [images]
    weight_sum: tf.Tensor  # [images]


class SumsLoss(keras.losses.Loss):
    """A loss that is arithmetic on the sums of `ops.soft_dice_sums`.

    Keras's `__call__` would cast labels and logits to the dtype of the loss, and would refuse
    pixel weights for a loss of one number an image. This one hands both to the op as they are.
    """

    # Whether the sums of the cross entropy are used, for which probabilities become logits again.
    _uses_cross_entropy = False
    # Of prediction and target.
    power = 1

    def __init__(
        self,
        *,
        activation: str = "softmax",
        from_logits: bool = True,
        per_image: bool = True,
        class_weights: Sequence[float] | None = None,
        ignore_label: int | None = None,
        sync_replicas: bool = False,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        op = type(self).__name__
        if activation not in ("softmax", "sigmoid"):
            _checks.refuse(op, "activation", 'be "softmax" or "sigmoid"', activation)
        self.activation = activation
        self.from_logits = _checks.boolean(op, "from_logits", from_logits)
        self.per_image = _checks.boolean(op, "per_image", per_image)
        self.sync_replicas = _checks.boolean(op, "sync_replicas", sync_replicas)
        if sync_replicas and per_image:
            _checks.refuse(op, "sync_replicas", "be False unless 'per_image' is", True)
        self.class_weights: list[float] | None = None
        if class_weights is not None:
            self.class_weights = _checks.weights_of_classes(op, class_weights)
        self.ignore_label = _checks.ignore_label_of(op, ignore_label)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        y_pred = tf.convert_to_tensor(y_pred)
        pixel_weights, image_weights = self._split(sample_weight, y_pred)
        with tf.name_scope(self.name):
            values = self._values(y_true, y_pred, pixel_weights)
        return self._reduce(values, image_weights)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        return self._values(y_true, tf.convert_to_tensor(y_pred))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "activation": self.activation,
            "from_logits": self.from_logits,
            "per_image": self.per_image,
            "class_weights": self.class_weights,
            "ignore_label": self.ignore_label,
            "sync_replicas": self.sync_replicas,
            "dtype": self.dtype,
        }

    def _losses(self, sums: Sums) -> tf.Tensor:
        """Returns `[images]`."""
        raise NotImplementedError

    def _values(self, y_true: Any, y_pred: tf.Tensor, weights: Any = None) -> tf.Tensor:
        """Returns the losses `[batch]`; the weights are those of pixels."""
        logits, activation = self._logits(y_pred)
        is_mask = y_pred.shape[-1:] == [1] and activation != "softmax"
        sums = Sums(
            *ops.soft_dice_sums(
                logits,
                # An ignored label is a number among whole ones.
                _labels(y_true, y_pred.shape, is_mask and self.ignore_label is None),
                weights=weights,
                # The cross entropy alone has them in it, but their number is checked as well.
                class_weights=self.class_weights,
                ignore_label=self.ignore_label,
                activation=activation,
                power=self.power,
            )
        )
        if not self.per_image:
            sums = self._over_batch(sums)
        losses = tf.cast(self._losses(sums), self.dtype)
        return losses if self.per_image else tf.broadcast_to(losses, [tf.shape(y_pred)[0]])

    def _logits(self, y_pred: tf.Tensor) -> tuple[tf.Tensor, str]:
        """Returns what the op takes, and its activation."""
        if self.from_logits:
            return y_pred, self.activation
        if self.activation == "softmax" or not self._uses_cross_entropy:
            return y_pred, "none"
        # The op takes probabilities of several classes as shares of one.
        p = tf.cast(y_pred, _accumulator(y_pred))
        p = tf.clip_by_value(p, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
        return tf.math.log(p) - tf.math.log1p(-p), "sigmoid"

    def _over_batch(self, sums: Sums) -> Sums:
        """Adds up the images and the replicas."""
        sums = Sums(*(tf.reduce_sum(s, 0, keepdims=True) for s in sums))
        context = tf.distribute.get_replica_context()
        if self.sync_replicas and context is not None and context.num_replicas_in_sync > 1:
            sums = Sums(*context.all_reduce(tf.distribute.ReduceOp.SUM, list(sums)))
        return sums

    def _split(
        self, sample_weight: Any, y_pred: tf.Tensor
    ) -> tuple[tf.Tensor | None, tf.Tensor | None]:
        """Returns the weights of pixels `[batch, ...]` and those of the losses `[batch]`."""
        if sample_weight is None:
            return None, None
        weights = _checks.sample_weight(
            type(self).__name__, sample_weight, y_pred.shape[:-1], _accumulator(y_pred)
        )
        if weights.shape.rank == 0:
            weights = tf.fill([tf.shape(y_pred)[0]], weights)
        if weights.shape.rank != 1:
            return weights, None
        if self.per_image:
            return None, weights
        # Of all pixels of an image, so that a weight of 0 leaves it out whatever it holds.
        pixels = tf.shape(y_pred)[:-1]
        sizes = tf.concat([pixels[:1], tf.ones_like(pixels[1:])], 0)
        return tf.broadcast_to(tf.reshape(weights, sizes), pixels), None

    def _reduce(self, values: tf.Tensor, image_weights: tf.Tensor | None) -> tf.Tensor:
        """Returns the losses of the images, reduced as Keras reduces them."""
        if values.shape == [0] and self.reduction not in (None, "none"):
            return tf.reduce_sum(values)  # Keras would leave them as they are
        reduction = _Reduction(name=self.name, reduction=self.reduction, dtype=self.dtype)
        return reduction(values, values, image_weights)

    def _mean_cross_entropy(self, sums: Sums) -> tf.Tensor:
        """Returns the weighted means `[images]`; 0 where nothing has a weight."""
        return tf.math.divide_no_nan(sums.cross_entropy, sums.weight_sum)

    def _mean_of_classes(self, values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Returns the means `[images]` of values `[images, classes]`; 0 where all weigh 0."""
        weights = weights * self._weights_of_classes(values)
        return tf.math.divide_no_nan(
            tf.reduce_sum(weights * values, -1), tf.reduce_sum(weights, -1)
        )

    def _weights_of_classes(self, values: tf.Tensor) -> tf.Tensor:
        """Returns `[classes]`, or `[1]` where all weigh the same."""
        if self.class_weights is None:
            return tf.ones([1], values.dtype)
        return tf.constant(self.class_weights, values.dtype)


class _Reduction(keras.losses.Loss):
    """Keras's own reduction, of values that are there already."""

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return y_pred


def _labels(y_true: Any, logits: tf.TensorShape, soft_mask: bool) -> tf.Tensor:
    """Returns labels as the op takes them: floats are dense targets there.

    Args:
        y_true: labels of any dtype, or targets.
        logits: their shape.
        soft_mask: whether floats of one channel are targets of it.
    """
    labels = tf.convert_to_tensor(y_true)
    if labels.dtype == tf.bool:
        return tf.cast(labels, tf.uint8)
    if labels.dtype.is_integer and labels.dtype not in _checks.LABEL_DTYPES:
        return tf.cast(labels, tf.int64)
    if logits.rank is None or not labels.dtype.is_floating:
        return labels
    if labels.shape.rank == logits.rank - 1:
        return labels[..., None] if soft_mask else whole_numbers(labels)
    one = labels.shape[-1:] == [1] and not soft_mask
    return whole_numbers(labels) if one else labels


def _accumulator(tensor: tf.Tensor) -> tf.DType:
    """Returns the dtype of the sums of `ops.soft_dice_sums`."""
    return tf.float64 if tensor.dtype == tf.float64 else tf.float32
