"""One mean-field update of a dense CRF on given lattices, and its gradients, in float64."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from reference import gaussian_filter
from reference.gaussian_filter import Lattice

SMALLEST = 1e-20


class Gradients(NamedTuple):
    """Of everything that the step reads."""

    q: np.ndarray
    unary: np.ndarray
    mixing: np.ndarray
    features: list[np.ndarray]


def mean_field_step(
    q: np.ndarray,
    unary: np.ndarray,
    lattices: Sequence[Lattice],
    mixing: np.ndarray,
    normalizations: Sequence[str],
    logits: bool = False,
) -> np.ndarray:
    """Adds the mixed messages to the unary; the softmax of that, or with `logits` itself."""
    result = unary.astype(np.float64)
    for lattice, mix, normalization in zip(lattices, matrices(mixing), normalizations, strict=True):
        result = result + message(q, lattice, normalization) @ mix.T
    return result if logits else softmax(result)


def message(q: np.ndarray, lattice: Lattice, normalization: str) -> np.ndarray:
    """The normalized filter of the probabilities."""
    a, b = factors(lattice, normalization)
    return a * gaussian_filter.on_lattice(b * q.astype(np.float64), lattice)


def factors(lattice: Lattice, normalization: str) -> tuple[np.ndarray, np.ndarray]:
    """What values are multiplied by after and before the filter, `[batch, points, 1]`."""
    inverse = 1 / (lattice[7].astype(np.float64)[..., None] + SMALLEST)
    ones = np.ones_like(inverse)
    return {
        "none": (ones, ones),
        "before": (ones, inverse),
        "after": (inverse, ones),
        "symmetric": (np.sqrt(inverse), np.sqrt(inverse)),
    }[normalization]


def matrices(mixing: np.ndarray) -> np.ndarray:
    """The matrix of each lattice, also of diagonals."""
    wide = mixing.astype(np.float64)
    return wide if mixing.ndim == 3 else np.stack([*map(np.diag, wide)]) if len(wide) else wide


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def gradients(
    q: np.ndarray,
    unary: np.ndarray,
    lattices: Sequence[Lattice],
    mixing: np.ndarray,
    normalizations: Sequence[str],
    output: np.ndarray,
    grad: np.ndarray,
    logits: bool = False,
) -> Gradients:
    """By the chain rule: through the softmax, the mixing, the normalization, the filter, the norms.

    The derivative by the features is the formula of `gaussian_filter.features_grad`.
    """
    g = grad.astype(np.float64)
    wide = q.astype(np.float64)
    if not logits:
        p = output.astype(np.float64)
        g = p * (g - (p * g).sum(axis=-1, keepdims=True))
    of_q = np.zeros(q.shape)
    of_mixing = np.zeros((len(lattices), q.shape[2], q.shape[2]))
    of_features = []
    for k, (mix, lattice) in enumerate(zip(matrices(mixing), lattices, strict=True)):
        a, b = factors(lattice, normalizations[k])
        h = g @ mix
        of_mixing[k] = np.einsum("bil,bim->lm", g, message(q, lattice, normalizations[k]))
        of_q += b * gaussian_filter.on_lattice(a * h, lattice, reverse=True)

        of_features.append(gaussian_filter.features_grad(b * wide, lattice, a * h))
        # The norms are the filter of ones.
        norm = lattice[7].astype(np.float64)[..., None] + SMALLEST
        by_a = (h * gaussian_filter.on_lattice(b * wide, lattice)).sum(axis=-1, keepdims=True)
        by_b = (wide * gaussian_filter.on_lattice(a * h, lattice, True)).sum(axis=-1, keepdims=True)
        by_norm = {
            "none": 0 * norm,
            "before": -by_b / norm**2,
            "after": -by_a / norm**2,
            "symmetric": -0.5 * (by_a + by_b) / norm**1.5,
        }[normalizations[k]]
        of_features[k] += gaussian_filter.features_grad(np.ones(norm.shape), lattice, by_norm)
    if mixing.ndim == 2:
        of_mixing = np.einsum("kll->kl", of_mixing)
    return Gradients(of_q, g, of_mixing, of_features)
