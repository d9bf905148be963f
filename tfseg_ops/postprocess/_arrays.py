"""Checks of the arrays that pydensecrf's users pass, and the turn to points first."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def real(where: str, argument: str, value: Any, names: Sequence[str | int]) -> np.ndarray:
    """Returns an array of real numbers with these dimensions; those given as a name may be any."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{where}: '{argument}' must be real numbers, got {array.dtype}")
    fits = array.ndim == len(names) and all(
        isinstance(name, str) or size == name for name, size in zip(names, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, names))
        raise ValueError(
            f"{where}: '{argument}' must have shape [{wanted}], got {list(array.shape)}"
        )
    return array


def points_first(array: np.ndarray, factor: float = 1.0) -> np.ndarray:
    """Returns `[channels, points]`, times a factor, as `[1, points, channels]`, float32."""
    turned = np.multiply(array.T, factor, order="C", dtype=np.float32, casting="unsafe")
    return turned[np.newaxis]
