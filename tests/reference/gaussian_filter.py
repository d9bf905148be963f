"""The Gaussian filter: exactly, by all pairs of points, and on a given lattice; in float64."""

from collections.abc import Sequence

import numpy as np

Lattice = Sequence[np.ndarray]
"""The nine members: features, vertices, weights, splat_points, splat_weights, splat_offsets,
neighbours, norms, num_vertices."""


def exact(values: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Sums the values of all points j times exp(-|f_i - f_j|^2 / 2), for each point i."""
    return np.einsum("bij,bjc->bic", kernel(features), values.astype(np.float64))


def exact_features_grad(values: np.ndarray, features: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """The gradient of `<grad, exact(values, features)>` to the features.

    The derivative of k_ij by f_i is (f_j - f_i) k_ij, and by f_j its negative.
    """
    f = features.astype(np.float64)
    v, g = values.astype(np.float64), grad.astype(np.float64)
    pairs = np.einsum("bic,bjc->bij", g, v)
    between = f[:, None, :, :] - f[:, :, None, :]
    return np.einsum("bij,bij,bija->bia", kernel(f), pairs + pairs.swapaxes(1, 2), between)


def kernel(features: np.ndarray) -> np.ndarray:
    """Returns `[batch, points, points]`."""
    f = features.astype(np.float64)
    return np.exp(-0.5 * ((f[:, :, None] - f[:, None]) ** 2).sum(axis=-1))


def on_lattice(values: np.ndarray, lattice: Lattice, reverse: bool = False) -> np.ndarray:
    """Splats, blurs and slices; `reverse` blurs the axes in reverse order, which is the transpose.

    The lists by vertex say the same as those by point, which alone are read here.
    """
    _, vertices, weights, _, _, _, neighbours, _, num_vertices = lattice
    corners = vertices.shape[2]
    wide = values.astype(np.float64)
    output = np.zeros(values.shape)
    for b in range(len(values)):
        size = int(num_vertices[b])
        table = np.zeros((size + 1, values.shape[2]))  # the last row: that of absent vertices
        for corner in range(corners):
            np.add.at(table, vertices[b, :, corner], weights[b, :, corner, None] * wide[b])
        for axis in reversed(range(corners)) if reverse else range(corners):
            table[:size] += 0.5 * table[neighbours[b, axis, :size]].sum(axis=1)
        for corner in range(corners):
            output[b] += weights[b, :, corner, None] * table[vertices[b, :, corner]]
    return output / (1 + 2.0 ** (1 - corners))


def features_grad(
    values: np.ndarray, lattice: Lattice, grad: np.ndarray, reverse: bool = False
) -> np.ndarray:
    """The gradient of a Gaussian kernel to the features, with the lattice's filter in its place.

    `exact_features_grad`, multiplied out: sums over j of f_j k_ij v_j are filters of f v.
    """
    f = lattice[0].astype(np.float64)
    result = np.zeros(f.shape)
    for from_, to, backward in ((values, grad, reverse), (grad, values, not reverse)):
        from_, to = from_.astype(np.float64), to.astype(np.float64)
        plain = on_lattice(from_, lattice, backward)
        for a in range(f.shape[2]):
            moved = on_lattice(f[:, :, a, None] * from_, lattice, backward)
            result[:, :, a] += (to * (moved - f[:, :, a, None] * plain)).sum(axis=-1)
    return result
