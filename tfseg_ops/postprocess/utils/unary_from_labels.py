"""Unary energies from labels."""

from typing import Any

import numpy as np


def unary_from_labels(
    labels: Any, n_labels: int, gt_prob: float, zero_unsure: bool = True
) -> np.ndarray:
    """Returns energies that trust labels with a probability.

        -log gt_prob for the label that is given, -log((1 - gt_prob) / (n_labels - 1)) for others

    Args:
        labels: integers of any shape.
        n_labels: their number, at least 2, not counting 0 if that means unsure.
        gt_prob: the probability that a label is right, in (0, 1).
        zero_unsure: whether 0 is no label but means that all are equally probable; labels then
            count from 1.

    Returns:
        `[n_labels, points]`, float32, for `DenseCRF.setUnaryEnergy`.

    Raises:
        TypeError: `labels` are no integers.
        ValueError: a label or number outside its range.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iub":
        raise TypeError(f"unary_from_labels: 'labels' must be integers, got {labels.dtype}")
    if n_labels < 2:
        raise ValueError(f"unary_from_labels: 'n_labels' must be at least 2, got {n_labels}")
    if not 0 < gt_prob < 1:
        raise ValueError(f"unary_from_labels: 'gt_prob' must lie in (0, 1), got {gt_prob}")
    values = n_labels + bool(zero_unsure)
    labels = labels.ravel().astype(np.intp)
    wrong = labels[(labels < 0) | (labels >= values)]
    if wrong.size:
        raise ValueError(
            f"unary_from_labels: 'labels' must lie in [0, {values - 1}], got {wrong[0]}"
        )
    # A column for each value that a label may have.
    energies = np.full((n_labels, values), -np.log((1.0 - gt_prob) / (n_labels - 1)), np.float32)
    if zero_unsure:
        energies[:, 0] = -np.log(1.0 / n_labels)
    rows = np.arange(n_labels)
    energies[rows, rows + bool(zero_unsure)] = -np.log(gt_prob)
    return np.take(energies, labels, axis=1)
