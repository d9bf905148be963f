"""The sums of soft Dice and cross-entropy losses, and their gradient, pixel by pixel in float64."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

# float32 numbers, as the formula in core has them.
LARGEST_LOGIT = float(np.float32(1e30))
SMALLEST_PROBABILITY = float(np.float32(1e-7))


class Pixel(NamedTuple):
    """A pixel that counts."""

    image: int
    place: tuple[int, ...]  # of the pixel, image first
    logits: np.ndarray  # [classes], float64 and finite, or NaN
    target: np.ndarray  # [classes], float64
    weight: float


def soft_dice_sums(
    logits: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None = None,
    class_weights: np.ndarray | None = None,
    ignore_label: int | None = None,
    activation: str = "softmax",
    power: int = 1,
    dense: bool = False,
) -> tuple[np.ndarray, ...]:
    """Adds up intersection, prediction, target `[batch, classes]`, cross entropy and its divisor.

    Raises ValueError at the first illegal label, with the words of the ops.
    """
    batch, classes = logits.shape[0], logits.shape[-1]
    intersection, prediction, target = np.zeros((3, batch, classes))
    cross_entropy, weight_sum = np.zeros((2, batch))
    c = np.ones(classes) if class_weights is None else class_weights.astype(np.float64)
    for b, _, x, g, w in pixels_of(logits, labels, weights, ignore_label, activation, dense):
        p = activated(x, activation)
        intersection[b] += w * p * g
        prediction[b] += w * p**power
        target[b] += w * g**power
        cross_entropy[b] += w * (c * entropies(x, g, activation)).sum()
        share = np.ones(classes) if is_binary(activation, classes) else g
        weight_sum[b] += w * (c * share).sum()
    wide = np.float64 if logits.dtype == np.float64 else np.float32
    results = intersection, prediction, target, cross_entropy, weight_sum
    return tuple(result.astype(wide) for result in results)


def soft_dice_sums_grad(
    logits: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None,
    class_weights: np.ndarray | None,
    ignore_label: int | None,
    activation: str,
    power: int,
    dense: bool,
    grad_intersection: np.ndarray,
    grad_prediction: np.ndarray,
    grad_cross_entropy: np.ndarray,
) -> np.ndarray:
    """The gradient of the logits: by the chain rule, through the derivative of each activation."""
    classes = logits.shape[-1]
    grad = np.zeros(logits.shape)
    c = np.ones(classes) if class_weights is None else class_weights.astype(np.float64)
    for b, place, x, g, w in pixels_of(logits, labels, weights, ignore_label, activation, dense):
        p = activated(x, activation)
        by_p = grad_intersection[b] * g + grad_prediction[b] * power * p ** (power - 1)
        if activation == "softmax":
            by_logit = (np.diag(p) - np.outer(p, p)) @ by_p
            by_entropy = (c * g).sum() * p - c * g
        elif activation == "sigmoid":
            by_logit = by_p * p * (1 - p)
            by_entropy = c * (p - g)
        else:
            by_logit = by_p
            by_entropy = -c * g * slope_of_log(p)
            if classes == 1:
                by_entropy += c * (1 - g) * slope_of_log(1 - p)
        grad[place] = w * (by_logit + grad_cross_entropy[b] * by_entropy)
    with np.errstate(over="ignore"):
        return grad.astype(logits.dtype)


def is_binary(activation: str, classes: int) -> bool:
    """Whether each class has a yes and a no of its own."""
    return activation == "sigmoid" or (activation == "none" and classes == 1)


def pixels_of(
    logits: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None,
    ignore_label: int | None,
    activation: str,
    dense: bool,
) -> Iterator[Pixel]:
    """The pixels that count, after all labels were found to be legal."""
    classes = logits.shape[-1]
    if not dense:
        require_legal(labels, classes, ignore_label, activation)
    for place in np.ndindex(logits.shape[:-1]):
        weight = 1.0 if weights is None else float(weights[place])
        if weight == 0 or (
            not dense and ignore_label is not None and labels[place] == ignore_label
        ):
            continue
        if dense:
            target = labels[place].astype(np.float64)
        elif is_binary(activation, classes) and classes == 1:
            target = np.array([float(labels[place])])
        else:
            target = np.zeros(classes)
            target[int(labels[place])] = 1
        x = np.clip(logits[place].astype(np.float64), -LARGEST_LOGIT, LARGEST_LOGIT)
        yield Pixel(place[0], place, x, target, weight)


def require_legal(
    labels: np.ndarray, classes: int, ignore_label: int | None, activation: str
) -> None:
    """Raises ValueError at the first illegal label, with the words of the ops."""
    limit = 2 if classes == 1 and is_binary(activation, classes) else classes
    for place in np.ndindex(labels.shape):
        label = int(labels[place])
        if not 0 <= label < limit and label != ignore_label:
            rule = f"lie in [0, {limit})"
            if ignore_label is not None:
                rule += f" or be {ignore_label}"
            raise ValueError(f"soft_dice_sums: 'labels' must {rule}, got {label} at {list(place)}")


def activated(x: np.ndarray, activation: str) -> np.ndarray:
    """Probabilities of the logits of one pixel."""
    if activation == "softmax":
        powers = np.exp(x - x.max())
        return np.asarray(powers / powers.sum())
    if activation == "sigmoid":
        return np.exp(-softplus(-x))
    return x


def entropies(x: np.ndarray, g: np.ndarray, activation: str) -> np.ndarray:
    """The cross entropy of each class of one pixel with its target."""
    if activation == "softmax":
        return -g * (x - x.max() - np.log(np.exp(x - x.max()).sum()))
    if activation == "sigmoid":
        return g * softplus(-x) + (1 - g) * softplus(x)
    h = -g * np.log(np.maximum(x, SMALLEST_PROBABILITY))
    if len(x) == 1:
        h -= (1 - g) * np.log(np.maximum(1 - x, SMALLEST_PROBABILITY))
    return np.asarray(h)


def softplus(x: np.ndarray) -> np.ndarray:
    """log(1 + exp(x)), the negative logarithm of the sigmoid of -x."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def slope_of_log(p: np.ndarray) -> np.ndarray:
    """The derivative of the logarithm of what is at least the smallest probability."""
    return np.where(p >= SMALLEST_PROBABILITY, 1 / np.maximum(p, SMALLEST_PROBABILITY), 0)


def dice_loss(sums: Sequence[np.ndarray], eps: float = 1e-6) -> float:
    """The soft Dice loss of textbooks, of the sums in float64."""
    intersection, prediction, target = (part.astype(np.float64) for part in sums[:3])
    return float(1 - np.mean((2 * intersection + eps) / (prediction + target + eps)))
