"""Checks of the arguments that several models have."""

import numbers
from typing import Any

from tfseg_ops import _checks
from tfseg_ops.layers import DenseCRF


def image_shape(model: str, value: Any, *, fixed: bool = False) -> tuple[Any, ...]:
    """Returns (height, width, channels); height and width may be None unless they are `fixed`."""
    shape = tuple(value) if isinstance(value, (list, tuple)) else ()
    known = [fixed, fixed, True]
    if len(shape) != 3 or not all(
        _is_positive_int(size) or (size is None and not must)
        for size, must in zip(shape, known, strict=True)
    ):
        kind = "positive ints" if fixed else "positive ints, None for any height or width"
        _checks.refuse(model, "input_shape", f"be (height, width, channels): {kind}", value)
    return shape


def widths(model: str, argument: str, value: Any, least: int = 1) -> list[int]:
    """Returns the numbers of some layers, such as widths: at least so many positive ints."""
    if (
        not isinstance(value, (list, tuple))
        or len(value) < least
        or not all(map(_is_positive_int, value))
    ):
        _checks.refuse(model, argument, f"be a list of positive ints, at least {least}", value)
    return list(value)


def classes(model: str, num_classes: Any, crf: Any) -> int:
    """Returns the number of classes, of which a CRF needs two."""
    if not isinstance(crf, (bool, DenseCRF)):
        _checks.refuse(model, "crf", "be True, False or a DenseCRF", crf)
    return _checks.integer(model, "num_classes", num_classes, 1 if crf is False else 2)


def _is_positive_int(value: Any) -> bool:
    integral = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return integral and value >= 1
