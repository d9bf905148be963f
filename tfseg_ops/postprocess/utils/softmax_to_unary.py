"""A name that pydensecrf has given up."""

import warnings
from typing import Any

import numpy as np

from tfseg_ops.postprocess.utils.unary_from_softmax import unary_from_softmax


def softmax_to_unary(sm: Any, GT_PROB: float = 1) -> np.ndarray:
    """Returns `unary_from_softmax(sm, GT_PROB, clip=None)`; deprecated."""
    warnings.warn("softmax_to_unary is now unary_from_softmax", DeprecationWarning, stacklevel=2)
    return unary_from_softmax(sm, None if GT_PROB == 1 else GT_PROB, clip=None)
