"""The sums that soft Dice, Jaccard, Tversky and cross-entropy losses are made of."""

from typing import Any

import tensorflow as tf

from tfseg_ops import _checks, _gradients, _library, _portable, pure_tf
from tfseg_ops.pure_tf.soft_dice_sums import SoftDiceSums, sums

# What the op and its gradient share.
_ATTRIBUTES = (
    "activation",
    "power",
    "dense",
    "has_weights",
    "has_class_weights",
    "has_ignore_label",
    "ignore_label",
)


def soft_dice_sums(
    logits: Any,
    labels: Any,
    weights: Any = None,
    class_weights: Any = None,
    ignore_label: int | None = None,
    activation: str = "softmax",
    power: int = 1,
) -> SoftDiceSums:
    """Sums over the pixels of each image, in one pass over the logits.

    With `p` the activation of the logits, `g` the target (one-hot from integer labels, or given for
    each class) and `w` the weight of a pixel (1 unless given; 0 where it is ignored), for each
    image `b` and class `c`, summed over the pixels:

        intersection[b, c] = sum w p g
        prediction[b, c]   = sum w p^power
        target[b, c]       = sum w g^power
        cross_entropy[b]   = sum w sum_c class_weights[c] h(p, g)
        weight_sum[b]      = sum w sum_c class_weights[c] g

    `h` is `-g log p` for one class among several (softmax; probabilities of several classes) and
    `-g log p - (1 - g) log(1 - p)` for classes on their own (sigmoid; probabilities of one class),
    whose `weight_sum` is taken without the `g`. Dice is `(2 intersection + eps) / (prediction +
    target + eps)`; Jaccard, Tversky, generalised Dice and the mean cross entropy `cross_entropy /
    weight_sum` are arithmetic on the sums too.

    A pixel that is ignored or has a weight of 0 enters no sum and has a gradient of exactly zero,
    also where its logits, targets or other numbers are NaN or infinite. Where no pixel counts, all
    sums are 0. Infinite logits count as +-1e30. NaN in a pixel that counts makes NaN of sums of its
    image. With activation "none" the logarithm takes probabilities as at least 1e-7.

    There are gradients of first and second order to logits, dense floating labels, `weights` and
    `class_weights`. The sums, and the gradient to the logits, are the same, bit by bit, for any
    number of threads.

    Args:
        logits: `[batch, ..., classes]`, any number of dimensions between (images, volumes, none),
            float16, bfloat16, float32 or float64; with activation "none" probabilities in [0, 1].
        labels: numbers of classes `[batch, ...]`, or `[batch, ..., 1]`, uint8, int32 or int64; of
            one class with activation "sigmoid" or "none" its mask, 0 or 1. Or dense targets in
            [0, 1], of the shape of the logits, in any of these dtypes or those of the logits; they
            need not add up to 1.
        weights: of pixels, `[batch, ...]` or `[batch, ..., 1]`, any floating dtype.
        class_weights: `[classes]`, any floating dtype; they touch the cross entropy only.
        ignore_label: the label of pixels that do not count, whether a class or not.
        activation: "softmax", "sigmoid" or "none".
        power: 1 or 2, of prediction and target.

    Returns:
        A named tuple of intersection, prediction and target, `[batch, classes]`, cross_entropy and
        weight_sum, `[batch]`, in float32 (float64 for float64 logits).

    Raises:
        TypeError: a dtype is none of the above.
        ValueError, tf.errors.InvalidArgumentError: shapes do not fit, an argument has no such
            value, `ignore_label` is given with dense labels, or (at run time) an integer label is
            neither a class nor ignored. On GPUs such a pixel contributes nothing instead; so it
            does under XLA inside `tfseg_ops.portable()`.

    Example:
        >>> sums = soft_dice_sums(logits, labels, ignore_label=255)
        >>> both = sums.prediction + sums.target
        >>> loss = 1 - tf.reduce_mean((2 * sums.intersection + 1e-6) / (both + 1e-6))

    References:
        Milletari, Navab & Ahmadi 2016, "V-Net", section 3 (power 2).
        Sudre et al. 2017, "Generalised Dice overlap as a deep learning loss function for highly
        unbalanced segmentations", section 2.
    """
    args = _checks.soft_dice_sums(
        logits, labels, weights, class_weights, ignore_label, activation, power
    )
    if _portable.is_portable():
        return pure_tf.soft_dice_sums(
            args.logits,
            args.labels,
            args.weights,
            args.class_weights,
            args.ignore_label,
            args.activation,
            args.power,
        )
    nothing = tf.zeros([0], tf.float64 if args.logits.dtype == tf.float64 else tf.float32)
    return SoftDiceSums(
        *_library.load_ops().tfseg_soft_dice_sums(
            logits=args.logits,
            labels=args.labels,
            weights=nothing if args.weights is None else args.weights,
            class_weights=nothing if args.class_weights is None else args.class_weights,
            activation=args.activation,
            power=args.power,
            dense=args.dense,
            has_weights=args.weights is not None,
            has_class_weights=args.class_weights is not None,
            has_ignore_label=args.ignore_label is not None,
            ignore_label=args.ignore_label or 0,
        )
    )


def _differentiable(op: Any) -> list[int]:
    """Returns which of logits, labels, weights and class weights may have a gradient."""
    given = [True, op.get_attr("dense") and op.inputs[1].dtype.is_floating]
    given += [op.get_attr("has_weights"), op.get_attr("has_class_weights")]
    return [index for index in range(4) if given[index]]


def _sums(op: Any) -> SoftDiceSums:
    """Returns the sums by the portable formula; labels have been checked."""
    logits, labels, weights, class_weights = op.inputs[:4]
    return sums(
        _checks.DiceSums(
            logits,
            labels,
            weights if op.get_attr("has_weights") else None,
            class_weights if op.get_attr("has_class_weights") else None,
            op.get_attr("ignore_label") if op.get_attr("has_ignore_label") else None,
            # A tape gives bytes, a graph text.
            tf.compat.as_str(op.get_attr("activation")),
            op.get_attr("power"),
            op.get_attr("dense"),
        )
    )


@tf.RegisterGradient("Tfseg>SoftDiceSums")
def _gradient(op: Any, *grads: tf.Tensor) -> list[tf.Tensor | None]:
    gradients: list[tf.Tensor | None] = [None] * 4
    if _gradients.wanted(op, [0]):
        logits, labels, weights, class_weights = op.inputs
        intersection, prediction, _, cross_entropy, _ = grads
        gradients[0] = _library.load_ops().tfseg_soft_dice_sums_grad(
            logits=logits,
            labels=labels,
            weights=weights,
            class_weights=class_weights,
            grad_intersection=intersection,
            grad_prediction=prediction,
            grad_cross_entropy=cross_entropy,
            **{name: op.get_attr(name) for name in _ATTRIBUTES},
        )
    # Seldom asked for, so stock TensorFlow computes them.
    others = _gradients.wanted(op, _differentiable(op)[1:])
    if others:
        sources = [op.inputs[index] for index in others]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            outputs = _sums(op)
        found = tape.gradient(
            outputs, sources, output_gradients=grads, unconnected_gradients="zero"
        )
        for index, gradient in zip(others, found, strict=True):
            gradients[index] = gradient
    return gradients


@tf.RegisterGradient("Tfseg>SoftDiceSumsGrad")
def _gradient_of_gradient(op: Any, grad: tf.Tensor) -> list[tf.Tensor | None]:
    # Seldom asked for, so stock TensorFlow computes it, twice over.
    gradients: list[tf.Tensor | None] = [None] * 7
    indices = [*_differentiable(op), 4, 5, 6]
    sources = [op.inputs[index] for index in indices]
    with tf.GradientTape() as outer:
        outer.watch(sources)
        with tf.GradientTape() as inner:
            inner.watch(op.inputs[0])
            outputs = _sums(op)
        first = inner.gradient(
            [outputs.intersection, outputs.prediction, outputs.cross_entropy],
            op.inputs[0],
            output_gradients=list(op.inputs[4:]),
        )
    second = outer.gradient(first, sources, output_gradients=grad, unconnected_gradients="zero")
    for index, gradient in zip(indices, second, strict=True):
        gradients[index] = gradient
    return gradients
