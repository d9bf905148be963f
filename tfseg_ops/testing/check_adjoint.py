"""The adjoint identity of a pair of linear functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ._compare import to_numpy, tolerances
from ._gradients import flat_outputs


def check_adjoint(
    forward: Callable[[Any], Any],
    adjoint: Callable[[Any], Any],
    x: Any,
    y: Any,
    rtol: float | None = None,
) -> None:
    """Checks that one linear function is the adjoint of another: `<A x, y> = <x, A^T y>`.

    The functions run in the dtypes of `x` and `y`; the inner products are summed in float64. They
    agree where `|<A x, y> - <x, A^T y>| <= rtol * max(|A x| |y|, |x| |A^T y|)`. A NaN anywhere
    fails. Draw `x` and `y` at random: where one is zero there is nothing to see.

    Args:
        forward: `A`, takes `x`.
        adjoint: `A^T`, takes `y`; its result has the shapes of `x`.
        x: an array, a tensor or a nested structure of them (so a list of numbers is a structure of
            scalars).
        y: likewise, in the shapes of `forward(x)`.
        rtol: tolerance relative to the norms; by default that of the coarsest dtype in `x`, `y` and
            the results: 1e-10 for float64, 1e-4 for float32, 1e-2 for float16, 5e-2 for bfloat16.

    Raises:
        AssertionError: the two numbers differ, or `adjoint(y)` has other shapes than `x`.
        ValueError: `y` has other shapes than `forward(x)`.

    Example:
        >>> matrix = tf.constant([[1.0, 2.0], [0.0, 3.0]])
        >>> check_adjoint(
        ...     lambda x: tf.linalg.matvec(matrix, x),
        ...     lambda y: tf.linalg.matvec(matrix, y, transpose_a=True),
        ...     x=np.array([1.0, -2.0], np.float32),
        ...     y=np.array([0.5, 4.0], np.float32),
        ... )
    """
    x, y = (tf.nest.map_structure(tf.convert_to_tensor, value) for value in (x, y))
    image, preimage = flat_outputs(forward(x)), flat_outputs(adjoint(y))
    domain, codomain = flat_outputs(x), flat_outputs(y)
    if _shapes(image) != _shapes(codomain):
        raise ValueError(
            f"check_adjoint: 'y' must have the shapes of forward(x), {_shapes(image)}, "
            f"got {_shapes(codomain)}"
        )
    if _shapes(preimage) != _shapes(domain):
        raise AssertionError(
            f"check_adjoint: adjoint(y) must have the shapes of x, {_shapes(domain)}, "
            f"got {_shapes(preimage)}"
        )
    dtypes = [t.dtype for t in (*domain, *codomain, *image, *preimage) if t.dtype.is_floating]
    rtol, _ = tolerances("check_adjoint", dtypes, rtol, 0.0)

    a, b, u, v = (_vector(tensors) for tensors in (image, codomain, domain, preimage))
    with np.errstate(invalid="ignore", over="ignore"):
        left, right = float(a @ b), float(u @ v)
        norms = [float(np.linalg.norm(vector)) for vector in (a, b, u, v)]
        tolerance = rtol * max(norms[0] * norms[1], norms[2] * norms[3])
        difference = abs(left - right)
    if not (difference <= tolerance and np.isfinite(difference)):
        raise AssertionError(
            f"check_adjoint: <A x, y> = {left:.12g}, <x, A^T y> = {right:.12g} "
            f"(|difference| {difference:.3g} > tolerance {tolerance:.3g})"
        )


def _shapes(tensors: list[tf.Tensor]) -> list[list[int]]:
    return [tensor.shape.as_list() for tensor in tensors]


def _vector(tensors: list[tf.Tensor]) -> np.ndarray:
    """All elements in one row, in float64."""
    return np.concatenate(
        [np.zeros(0), *(to_numpy(tensor).astype(np.float64).ravel() for tensor in tensors)]
    )
