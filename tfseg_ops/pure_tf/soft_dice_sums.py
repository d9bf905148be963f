"""The sums of soft Dice and cross-entropy losses in stock TensorFlow: softmax, one-hot, sums."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfseg_ops import _checks

# The float32 numbers of core.
_LARGEST_LOGIT = float(np.float32(1e30))
_SMALLEST_PROBABILITY = float(np.float32(1e-7))


class SoftDiceSums(NamedTuple):
    """What `soft_dice_sums` returns, in the accumulator's dtype."""

    intersection: tf.Tensor  # [batch, classes]
    prediction: tf.Tensor  # [batch, classes]
    target: tf.Tensor  # [batch, classes]
    cross_entropy: tf.Tensor  # [batch]
    weight_sum: tf.Tensor  # [batch]


def soft_dice_sums(
    logits: Any,
    labels: Any,
    weights: Any = None,
    class_weights: Any = None,
    ignore_label: int | None = None,
    activation: str = "softmax",
    power: int = 1,
) -> SoftDiceSums:
    """Sums over the pixels of each image, from probabilities and one-hot labels as tensors.

    See `ops.soft_dice_sums`. Under XLA, which cannot raise, a pixel with an illegal label
    contributes nothing.
    """
    args = _checks.soft_dice_sums(
        logits, labels, weights, class_weights, ignore_label, activation, power
    )
    if not args.dense:
        _require_legal(args)
    return sums(args)


def soft_dice_loss(logits: Any, labels: Any, eps: float = 1e-6) -> tf.Tensor:
    """The soft Dice loss as textbooks have it: a softmax, a one-hot tensor and their sums.

    `1 - mean((2 sum(p g) + eps) / (sum(p + g) + eps))`, sums over pixels, mean over images and
    classes. It is what `soft_dice_sums` is held against, in benchmarks and in tests.

    Args:
        logits: `[batch, ..., classes]`.
        labels: `[batch, ...]`, integers in [0, classes).
        eps: what is added to numerator and denominator.

    Returns:
        A scalar with the dtype of the logits.
    """
    logits = tf.convert_to_tensor(logits)
    p = tf.nn.softmax(logits)
    g = tf.one_hot(labels, logits.shape[-1], dtype=p.dtype)
    pixels = list(range(1, p.shape.rank - 1))
    overlap = 2 * tf.reduce_sum(p * g, pixels)
    both = tf.reduce_sum(p + g, pixels)
    return 1 - tf.reduce_mean((overlap + eps) / (both + eps))


def sums(args: _checks.DiceSums) -> SoftDiceSums:
    """Returns the sums; a pixel with an illegal label counts as ignored, and nothing is raised."""
    if args.logits.shape.rank is not None and 0 in args.logits.shape[:-1].as_list():
        # TensorFlow's graph optimizer divides by zero where it meets a constant of no elements.
        nothing = _over_pixels(tf.cast(args.logits, _wide(args)))
        return SoftDiceSums(*[nothing] * 3, *[tf.reduce_sum(nothing, -1)] * 2)
    counts, alone = _counting(args), _alone(args)
    # What does not count is replaced before it is computed with: NaN times zero is NaN, and so it
    # would be in gradients.
    x = _bounded(_where(counts, tf.cast(args.logits, _wide(args))))
    if args.dense:
        g = _where(counts, tf.cast(args.labels, x.dtype))
    else:
        # The mask of one class has its pixels at 1, so class 0 of one class is label 1.
        first = tf.cast(_num_labels(args) - _num_classes(args), tf.int64)
        labels = tf.cast(args.labels, tf.int64) - first
        g = tf.one_hot(labels, tf.cast(_num_classes(args), tf.int32), dtype=x.dtype)
    p, h = _activated(x, g, args.activation, alone)
    share = tf.where(alone, tf.ones_like(g), g)

    w = tf.ones_like(x[..., 0]) if args.weights is None else args.weights
    w = _where(counts, w[..., None])
    c = tf.ones_like(x) if args.class_weights is None else args.class_weights
    result = SoftDiceSums(
        _over_pixels(w * p * g),
        _over_pixels(w * (p if args.power == 1 else tf.square(p))),
        _over_pixels(w * (g if args.power == 1 else tf.square(g))),
        tf.reduce_sum(_over_pixels(w * c * h), -1),
        tf.reduce_sum(_over_pixels(w * c * share), -1),
    )
    known = args.logits.shape
    shape = [None, None] if known.rank is None else [known[0], known[-1]]
    for index, part in enumerate(result):
        part.set_shape(shape if index < 3 else shape[:1])
    return result


def _wide(args: _checks.DiceSums) -> tf.DType:
    """Returns the accumulator's dtype."""
    return tf.float64 if args.logits.dtype == tf.float64 else tf.float32


def _num_classes(args: _checks.DiceSums) -> Any:
    """Returns an int where the number is known, else a tensor."""
    static = None if args.logits.shape.rank is None else args.logits.shape[-1]
    return tf.shape(args.logits, out_type=tf.int64)[-1] if static is None else static


def _alone(args: _checks.DiceSums) -> Any:
    """Returns whether each class has a yes and a no of its own; see `IsBinary` in core."""
    if args.activation != "none":
        return args.activation == "sigmoid"
    return _num_classes(args) == 1


def _num_labels(args: _checks.DiceSums) -> Any:
    """Returns how many integers are labels; one class on its own has a mask of 0 and 1."""
    classes = _num_classes(args)
    if args.activation == "softmax":
        return classes
    return classes + tf.cast(classes == 1, tf.int64) if tf.is_tensor(classes) else max(classes, 2)


def _legal_and_ignored(args: _checks.DiceSums) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns where integer labels are numbers of classes, and where they are to be ignored."""
    labels = tf.cast(args.labels, tf.int64)
    legal = (labels >= 0) & (labels < _num_labels(args))
    if args.ignore_label is None:
        return legal, tf.zeros_like(legal)
    return legal, labels == args.ignore_label


def _counting(args: _checks.DiceSums) -> tf.Tensor | None:
    """Returns which pixels enter the sums, `[batch, ..., 1]`; None for all of them."""
    conditions = []
    if not args.dense:
        legal, ignored = _legal_and_ignored(args)
        conditions.append(legal & ~ignored)
    if args.weights is not None:
        conditions.append(args.weights != 0)
    return tf.reduce_all(conditions, 0)[..., None] if conditions else None


def _where(counts: tf.Tensor | None, values: tf.Tensor) -> tf.Tensor:
    """Returns the values of pixels that count, zeros for the others."""
    return values if counts is None else tf.where(counts, values, tf.zeros_like(values))


@tf.custom_gradient
def _bounded(x: tf.Tensor) -> Any:
    """Returns finite numbers for infinite ones, with the gradient of these, as in core."""
    return tf.clip_by_value(x, -_LARGEST_LOGIT, _LARGEST_LOGIT), lambda upstream: upstream


def _activated(
    x: tf.Tensor, g: tf.Tensor, activation: str, alone: Any
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns probabilities and the cross entropy of each class with its target."""
    if activation == "softmax":
        return tf.nn.softmax(x), -g * tf.nn.log_softmax(x)
    if activation == "sigmoid":
        return tf.sigmoid(x), tf.nn.sigmoid_cross_entropy_with_logits(labels=g, logits=x)
    yes = -g * tf.math.log(tf.maximum(x, _SMALLEST_PROBABILITY))
    no = -(1 - g) * tf.math.log(tf.maximum(1 - x, _SMALLEST_PROBABILITY))
    return x, tf.where(alone, yes + no, yes)


def _over_pixels(values: tf.Tensor) -> tf.Tensor:
    """Returns the sums over all dimensions but the first and the last."""
    rank = values.shape.rank
    return tf.reduce_sum(
        values, tf.range(1, tf.rank(values) - 1) if rank is None else list(range(1, rank - 1))
    )


def _require_legal(args: _checks.DiceSums) -> None:
    """Raises InvalidArgumentError at the first illegal label; compiled to nothing by XLA.

    Eagerly the words are those of the kernels; in a graph, which cannot format text under XLA, the
    numbers follow the words.
    """
    legal, ignored = _legal_and_ignored(args)
    legal |= ignored
    other = "" if args.ignore_label is None else f" or be {args.ignore_label}"
    limit = _num_labels(args)
    if not tf.executing_eagerly():
        worst = tf.stack([tf.reduce_min(args.labels), tf.reduce_max(args.labels)])
        text = f"soft_dice_sums: 'labels' must lie in [0, limit){other}"
        tf.debugging.Assert(
            tf.reduce_all(legal), [f"{text}, got values between, and limit:", worst, limit]
        )
        return
    if bool(tf.reduce_all(legal)):
        return
    where = tf.where(~legal)[0].numpy().tolist()
    value = int(args.labels[tuple(where)])
    raise tf.errors.InvalidArgumentError(
        None,
        None,
        f"soft_dice_sums: 'labels' must lie in [0, {int(limit)}){other}, got {value} at {where}",
    )
