"""Unary energies from probabilities."""

from typing import Any

import numpy as np


def unary_from_softmax(
    sm: Any, scale: float | None = None, clip: float | None = 1e-5
) -> np.ndarray:
    """Returns the negative logarithms of probabilities.

    Args:
        sm: probabilities `[n_labels, ...]`.
        scale: how far they are trusted, in (0, 1]: `scale sm + (1 - scale) / n_labels`.
        clip: the lowest probability; lower ones are raised to it. Without it, 0 gives infinity.

    Returns:
        `[n_labels, points]`, float32, for `DenseCRF.setUnaryEnergy`.

    Raises:
        ValueError: a `scale` outside its range.
    """
    sm = np.asarray(sm)
    n_labels = len(sm)
    if scale is not None:
        if not 0 < scale <= 1:
            raise ValueError(f"unary_from_softmax: 'scale' must lie in (0, 1], got {scale}")
        # The sum in float64, also of float32 probabilities: so pydensecrf rounds.
        sm = np.add(scale * sm, (1 - scale) * (1 / n_labels), dtype=np.float64)
    if clip is not None:
        sm = np.clip(sm, clip, 1.0)
    return -np.log(sm).reshape(n_labels, -1).astype(np.float32)
