"""What the losses share: weights, the sums over images or the batch, and the mean of classes."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

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
        if activation not in ("softmax", "sigmoid"):
            self._refuse("activation", 'be "softmax" or "sigmoid"', activation)
        if sync_replicas and per_image:
            self._refuse("sync_replicas", "be False unless 'per_image' is", sync_replicas)
        self.activation = activation
        self.from_logits = from_logits
        self.per_image = per_image
        self.class_weights = self._numbers("class_weights", class_weights)
        self.ignore_label = ignore_label
        self.sync_replicas = sync_replicas

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        y_pred = tf.convert_to_tensor(y_pred)
        pixel_weights, image_weights = self._split(sample_weight, y_pred)
        with tf.name_scope(self.name):
            values = self._values(y_true, y_pred, pixel_weights, image_weights)
        # Batch sums have the weights in them.
        return self._reduce(values, image_weights if self.per_image else None)

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

    def _values(
        self, y_true: Any, y_pred: tf.Tensor, pixel_weights: Any = None, image_weights: Any = None
    ) -> tf.Tensor:
        """Returns the losses `[batch]`, before `image_weights` unless they are in the sums."""
        logits, activation = self._logits(y_pred)
        sums = Sums(
            *ops.soft_dice_sums(
                logits,
                _labels(tf.convert_to_tensor(y_true), y_pred.shape),
                weights=pixel_weights,
                class_weights=self.class_weights if self._uses_cross_entropy else None,
                ignore_label=self.ignore_label,
                activation=activation,
                power=self.power,
            )
        )
        if not self.per_image:
            sums = self._over_batch(sums, image_weights)
        losses = tf.cast(self._losses(sums), self.dtype)
        return losses if self.per_image else tf.broadcast_to(losses, tf.shape(y_pred)[:1])

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

    def _over_batch(self, sums: Sums, image_weights: tf.Tensor | None) -> Sums:
        """Adds up the images, weighted, and the replicas."""
        if image_weights is not None:
            # The sums are linear in the weights.
            sums = Sums(*(tf.einsum("b...,b->b...", s, image_weights) for s in sums))
        sums = Sums(*(tf.reduce_sum(s, 0, keepdims=True) for s in sums))
        context = tf.distribute.get_replica_context()
        if self.sync_replicas and context is not None and context.num_replicas_in_sync > 1:
            sums = Sums(*context.all_reduce(tf.distribute.ReduceOp.SUM, list(sums)))
        return sums

    def _split(
        self, sample_weight: Any, y_pred: tf.Tensor
    ) -> tuple[tf.Tensor | None, tf.Tensor | None]:
        """Returns the weights of pixels `[batch, ...]` and those of images `[batch]`."""
        if sample_weight is None:
            return None, None
        weights = tf.cast(tf.convert_to_tensor(sample_weight), _accumulator(y_pred))
        batch, pixels, rank = y_pred.shape[:1], y_pred.shape[:-1], weights.shape.rank
        if rank == 0:
            return None, tf.fill(tf.shape(y_pred)[:1], weights)
        if rank == 1 and batch.is_compatible_with(weights.shape):
            return None, weights
        shapes = [pixels, pixels.concatenate(1)]
        if rank != 1 and any(shape.is_compatible_with(weights.shape) for shape in shapes):
            return weights, None
        rule = f"have shape {_checks.describe(batch)} or {_checks.describe(pixels)}"
        self._refuse("sample_weight", rule, _checks.describe(weights.shape))

    def _reduce(self, values: tf.Tensor, image_weights: tf.Tensor | None) -> tf.Tensor:
        """Returns the losses of the images, reduced as Keras reduces them."""
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
        classes = values.shape[-1]
        if classes is not None and classes != len(self.class_weights):
            wanted, got = _checks.describe([classes]), _checks.describe([len(self.class_weights)])
            self._refuse("class_weights", f"have shape {wanted}", got)
        return tf.constant(self.class_weights, values.dtype)

    def _numbers(self, argument: str, values: Any) -> list[float] | None:
        """Returns numbers of at least 0 as a config holds them."""
        if values is None:
            return None
        numbers = [float(value) for value in values]
        if not numbers or not all(0 <= number < math.inf for number in numbers):
            self._refuse(argument, "be numbers of at least 0", numbers)
        return numbers

    def _number(self, argument: str, value: Any) -> float:
        """Returns a number of at least 0."""
        number = float(value)
        if not 0 <= number < math.inf:
            self._refuse(argument, "be a number of at least 0", value)
        return number

    def _refuse(self, argument: str, rule: str, got: Any) -> NoReturn:
        raise ValueError(f"{type(self).__name__}: '{argument}' must {rule}, got {got}")


class _Reduction(keras.losses.Loss):
    """Keras's own reduction, of values that are there already."""

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return y_pred


def _labels(y_true: tf.Tensor, logits: tf.TensorShape) -> tf.Tensor:
    """Returns labels as the op takes them: floats are dense targets there."""
    if logits.rank is None or not y_true.dtype.is_floating:
        return y_true
    if y_true.shape.rank == logits.rank - 1:
        return y_true[..., None] if logits[-1] == 1 else whole_numbers(y_true)
    squeezed = y_true.shape[-1:] == [1] and logits[-1:] != [1]
    return whole_numbers(y_true) if squeezed else y_true


def _accumulator(tensor: tf.Tensor) -> tf.DType:
    """Returns the dtype of the sums of `ops.soft_dice_sums`."""
    return tf.float64 if tensor.dtype == tf.float64 else tf.float32
