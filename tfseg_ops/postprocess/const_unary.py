"""Unary energies that are given."""

from typing import Any

from tfseg_ops.postprocess import _arrays


class ConstUnary:
    """Energies for `DenseCRF.setUnary`, which does with them what `setUnaryEnergy` does.

    Args:
        u: `[nlabels, nvar]`, negative logarithms of probabilities.
    """

    def __init__(self, u: Any) -> None:
        self.energies = _arrays.real("ConstUnary", "u", u, ["nlabels", "nvar"])
