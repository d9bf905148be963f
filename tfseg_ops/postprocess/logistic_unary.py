"""Unary energies that are linear in features."""

from typing import Any

import numpy as np

from tfseg_ops.postprocess import _arrays


class LogisticUnary:
    """Energies `L f` for `DenseCRF.setUnary`.

    Args:
        L: `[nlabels, d]`.
        f: features of the points, `[d, nvar]`.
    """

    def __init__(self, L: Any, f: Any) -> None:
        weights = _arrays.real("LogisticUnary", "L", L, ["nlabels", "d"])
        features = _arrays.real("LogisticUnary", "f", f, [weights.shape[1], "nvar"])
        self.energies = weights.astype(np.float32) @ features.astype(np.float32)
