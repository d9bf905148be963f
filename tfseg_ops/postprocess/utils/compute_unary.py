"""A name that pydensecrf has given up."""

import warnings
from typing import Any

import numpy as np

from tfseg_ops.postprocess.utils.unary_from_labels import unary_from_labels


def compute_unary(labels: Any, M: int, GT_PROB: float = 0.5) -> np.ndarray:
    """Returns `unary_from_labels(labels, M, GT_PROB)`; deprecated."""
    warnings.warn("compute_unary is now unary_from_labels", DeprecationWarning, stacklevel=2)
    return unary_from_labels(labels, M, GT_PROB)
