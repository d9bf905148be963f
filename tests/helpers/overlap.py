"""The losses of `tfseg_ops.losses` by plain loops in float64."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def probabilities(logits: np.ndarray, activation: str) -> np.ndarray:
    """Softmax over the last axis, or sigmoid, in float64."""
    x = np.asarray(logits).astype(np.float64)
    if activation == "sigmoid":
        return 0.5 * (1 + np.tanh(x / 2))
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Targets `[..., classes]` of integer labels: zeros where they are no class."""
    numbers = np.arange(classes) if classes > 1 else np.array([1])
    return (np.asarray(labels)[..., None] == numbers).astype(np.float64)


def overlap_losses(
    kind: str,
    p: np.ndarray,
    g: np.ndarray,
    w: np.ndarray,
    *,
    power: int = 1,
    per_image: bool = True,
    smooth_numerator: float = 1e-6,
    smooth_denominator: float = 1e-6,
    absent: str = "smooth",
    class_weights: Sequence[float] | None = None,
    include_background: bool = True,
    alpha: float = 0.5,
    beta: float = 0.5,
) -> list[float]:
    """The loss of each image: "SoftDice", "SoftJaccard", "Tversky" or "GeneralizedDice".

    `p` and `g` are probabilities and targets `[batch, ..., classes]`, `w` weights `[batch, ...]`.
    """
    batch, classes = p.shape[0], p.shape[-1]
    used = range(0 if include_background else 1, classes)
    c = np.ones(classes) if class_weights is None else np.asarray(class_weights)

    def ratio(numerator: float, denominator: float) -> float:
        denominator += smooth_denominator
        return (numerator + smooth_numerator) / denominator if denominator else 0.0

    losses: list[Any] = []
    for image in range(batch):
        part = slice(image, image + 1) if per_image else slice(None)
        sums = {}
        for k in used:
            pk, gk, wk = p[part, ..., k], g[part, ..., k], w[part]
            sums[k] = (wk * pk * gk).sum(), (wk * pk**power).sum(), (wk * gk**power).sum()
        if absent == "skip":
            sums = {k: s for k, s in sums.items() if s[2] > 0}
        if sum(c[k] for k in sums) == 0:
            losses.append(0.0)
            continue
        if kind == "GeneralizedDice":
            rarest = min([sums[k][2] for k in sums if sums[k][2] > 0 and c[k] > 0], default=1)
            v = {k: c[k] * (rarest / t if t > 0 else 1) ** 2 for k, (_, _, t) in sums.items()}
            both = sum(v[k] * (s[1] + s[2]) for k, s in sums.items())
            losses.append(1 - ratio(2 * sum(v[k] * s[0] for k, s in sums.items()), both))
            continue
        total = 0.0
        for k, (i, s, t) in sums.items():
            overlap = {
                "SoftDice": ratio(2 * i, s + t),
                "SoftJaccard": ratio(i, s + t - i),
                "Tversky": ratio(i, i + alpha * (s - i) + beta * (t - i)),
            }[kind]
            total += c[k] * (0 if absent == "one" and t == 0 else 1 - overlap)
        losses.append(total / sum(c[k] for k in sums))
    return losses
