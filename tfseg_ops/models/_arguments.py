"""Checks of the arguments that several models have."""

from typing import Any

from tfseg_ops import _checks
from tfseg_ops.layers import DenseCRF


def image_shape(model: str, value: Any, *, fixed: bool = False) -> tuple[Any, ...]:
    """Returns (height, width, channels); height and width may be None unless they are `fixed`."""
    shape = tuple(value) if isinstance(value, (list, tuple)) else ()
    if len(shape) != 3 or shape[2] is None or (fixed and None in shape):
        known = "all known" if fixed else "where None stands for any height or width"
        _checks.refuse(model, "input_shape", f"be (height, width, channels), {known}", value)
    return tuple(
        None if size is None else _checks.integer(model, "input_shape", size, 1) for size in shape
    )


def widths(model: str, argument: str, value: Any, least: int = 1) -> list[int]:
    """Returns the numbers of some layers, such as widths: at least so many positive ints."""
    if not isinstance(value, (list, tuple)) or len(value) < least:
        _checks.refuse(model, argument, f"be a list of ints, at least {least} of them", value)
    return [_checks.integer(model, argument, width, 1) for width in value]


def classes(model: str, num_classes: Any, crf: Any) -> int:
    """Returns the number of classes, of which a CRF needs two."""
    if not isinstance(crf, (bool, DenseCRF)):
        _checks.refuse(model, "crf", "be True, False or a DenseCRF", crf)
    return _checks.integer(model, "num_classes", num_classes, 1 if crf is False else 2)
