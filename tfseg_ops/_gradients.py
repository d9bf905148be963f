"""What the gradients of several ops share."""

from collections.abc import Sequence
from typing import Any


def wanted(op: Any, indices: Sequence[int]) -> list[int]:
    """Returns those of the inputs whose gradient someone asked for.

    A graph prunes what nobody asks for; a tape computes what it is given.
    """
    skipped = getattr(op, "skip_input_indices", None) or ()
    return [index for index in indices if index not in skipped]
