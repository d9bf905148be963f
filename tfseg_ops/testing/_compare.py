"""How the checks compare two arrays and word what differs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

# (rtol, atol) between two correct computations of one result in different orders of summation.
_TOLERANCES = {
    tf.float64: (1e-10, 1e-10),
    tf.float32: (1e-4, 1e-5),
    tf.float16: (1e-2, 1e-2),
    tf.bfloat16: (5e-2, 5e-2),
}


def tolerances(
    op: str, dtypes: Sequence[tf.DType], rtol: float | None, atol: float | None
) -> tuple[float, float]:
    """`rtol` and `atol`, each where it is None from the coarsest of the floating `dtypes`."""
    unknown = [dtype.name for dtype in dtypes if dtype not in _TOLERANCES]
    if unknown and (rtol is None or atol is None):
        raise TypeError(f"{op}: 'rtol' must be given for {unknown[0]}, got None")
    coarsest = max((_TOLERANCES.get(dtype, (0.0, 0.0)) for dtype in dtypes), default=(0.0, 0.0))
    return coarsest[0] if rtol is None else rtol, coarsest[1] if atol is None else atol


def to_numpy(value: Any) -> np.ndarray:
    """`value` as a numpy array, the floating types as float64."""
    tensor = tf.convert_to_tensor(value)
    return np.asarray((tf.cast(tensor, tf.float64) if tensor.dtype.is_floating else tensor).numpy())


def input_labels(
    op: str, function: Callable[..., Any], count: int, names: Sequence[str] | None
) -> list[str]:
    """What messages call each input: `names`, else parameters of `function`, else its number."""
    if names is not None:
        if len(names) != count:
            raise ValueError(
                f"{op}: 'names' must have one name for each of {count} inputs, got {len(names)}"
            )
        return [f"input '{name}'" for name in names]
    try:
        parameters = list(inspect.signature(function).parameters.values())[:count]
    except (TypeError, ValueError):
        parameters = []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(parameters) == count and all(parameter.kind in positional for parameter in parameters):
        return [f"input '{parameter.name}'" for parameter in parameters]
    return [f"input {i}" for i in range(count)]


class Difference(NamedTuple):
    """That two arrays differ."""

    worst: int  # flat index of the element that differs most
    numbers: str  # what the two have there
    wrong: int  # number of elements that differ


def find_difference(
    first: tuple[str, np.ndarray],
    second: tuple[str, np.ndarray],
    rtol: float,
    atol: float,
    equal_nan: bool = False,
) -> Difference | None:
    """Where two arrays of one shape differ, or None.

    They agree where `|a - b| <= atol + rtol * max(|a|, |b|)`, so NaN and Inf differ from all; with
    `equal_nan`, NaN agrees with NaN and Inf with the same Inf. Integers and booleans must be equal.

    Args:
        first: name and values of one side.
        second: name and values of the other.
        rtol: relative tolerance.
        atol: absolute tolerance.
        equal_nan: whether NaN and Inf agree with themselves.
    """
    (name_a, a), (name_b, b) = first, second
    if not np.issubdtype(a.dtype, np.floating):
        wrong = np.flatnonzero(a != b)
        if not wrong.size:
            return None
        worst = int(wrong[0])
        numbers = f"{name_a} {a.flat[worst]}, {name_b} {b.flat[worst]}"
        return Difference(worst, numbers, wrong.size)

    a, b = a.ravel(), b.ravel()
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(a - b)
        limit = atol + rtol * np.maximum(np.abs(a), np.abs(b))
        # An infinite limit would let an infinite gap through.
        agree = (gap <= limit) & np.isfinite(gap)
        if equal_nan:
            agree |= (a == b) | (np.isnan(a) & np.isnan(b))
        excess = np.nan_to_num(gap - limit, nan=np.inf, posinf=np.inf)
    if agree.all():
        return None
    worst = int(np.argmax(np.where(agree, -np.inf, excess)))
    numbers = (
        f"{name_a} {a[worst]:.9g}, {name_b} {b[worst]:.9g} "
        f"(|difference| {gap[worst]:.3g} > tolerance {limit[worst]:.3g})"
    )
    return Difference(worst, numbers, int(np.count_nonzero(~agree)))


def index_text(position: int, shape: Sequence[int]) -> str:
    """` [2, 3]` for a flat position in an array of a shape; nothing for a scalar."""
    index = ", ".join(str(int(i)) for i in np.unravel_index(position, tuple(shape)))
    return f" [{index}]" if index else ""
