"""A picture of codes in the plane."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfseg_ops import _checks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEWEST_POINTS = 4  # for which a perplexity of at least 1 is left
# Up to here the exact gradient takes no longer than Barnes and Hut's. On a busy machine it takes
# far less: their threads wait for each other a thousand times.
_MOST_EXACT = 1000
_MOST_COLORS = 20  # that can be told apart: matplotlib's "tab20"


def tsne_plot(
    codes: Any,
    labels: Any = None,
    path: str | os.PathLike[str] | None = None,
    *,
    perplexity: float = 30.0,
    seed: int = 0,
    title: str | None = None,
) -> tuple[np.ndarray, Figure]:
    """Draws codes as points in the plane, by t-SNE: neighbours among the codes stay neighbours.

    Distances between groups of points, and how dense these are, mean little. The same codes and
    seed give the same picture.

    Needs scikit-learn and matplotlib: `pip install "tfseg_ops[demo]"`. The picture does not touch
    `matplotlib.pyplot`.

    Args:
        codes: `[points, ...]`, at least 4 of them, finite numbers; more than two dimensions are
            flattened, so the codes of a convolutional encoder can be given as they are.
        labels: `[points]`, numbers or strings. Up to 20 different ones have a colour each and a
            legend; more, which must be numbers, are colours on a scale. None: one colour.
        path: a PNG file to write, and its folder where that is missing; another suffix that
            matplotlib knows, such as ".pdf", gives that format.
        perplexity: about how many neighbours each point has. Taken down to a third of the other
            points where these are few.
        seed: of the first positions.
        title: written above the picture.

    Returns:
        (positions, figure): float32 `[points, 2]` in the order of the codes, and a
        `matplotlib.figure.Figure`, which a notebook shows and whose `savefig` writes it.

    Raises:
        ImportError: scikit-learn or matplotlib is missing.
        ValueError: fewer than 4 codes, codes that are not finite, or labels that do not fit.

    Example:
        >>> codes = model.get_layer("encoder").predict(images)
        >>> positions, figure = tsne_plot(codes, labels, "codes.png")

    References:
        van der Maaten & Hinton, Visualizing data using t-SNE, JMLR 2008.
    """
    try:
        from matplotlib.figure import Figure
        from sklearn.manifold import TSNE
    except ImportError as error:
        missing = 'tsne_plot needs scikit-learn and matplotlib: pip install "tfseg_ops[demo]"'
        raise ImportError(missing) from error
    points = _points(codes)
    perplexity = _checks.positive("tsne_plot", "perplexity", perplexity)
    labels = None if labels is None else _labels(labels, len(points))
    # Equal codes have no principal components, and one number has only one.
    spread = points.shape[1] > 1 and np.ptp(points, axis=0).any()
    positions = TSNE(
        perplexity=min(perplexity, (len(points) - 1) / 3),
        init="pca" if spread else "random",
        method="exact" if len(points) <= _MOST_EXACT else "barnes_hut",
        random_state=_checks.integer("tsne_plot", "seed", seed, 0, 2**32 - 1),
    ).fit_transform(points)

    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    _scatter(axes, positions, labels)
    axes.set(xticks=[], yticks=[], title=title or "")
    axes.set_aspect("equal", adjustable="datalim")
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=100)
    return positions, figure


def _points(codes: Any) -> np.ndarray:
    array = np.asarray(codes)
    if array.ndim < 2 or len(array) < _FEWEST_POINTS or array.size == 0:
        rule = f"have shape [points, ...] with at least {_FEWEST_POINTS} points"
        _checks.refuse("tsne_plot", "codes", rule, list(array.shape))
    points = array.reshape(len(array), -1).astype(np.float32)
    if not np.isfinite(points).all():
        _checks.refuse("tsne_plot", "codes", "be finite", "NaN or infinite ones")
    return points


def _labels(labels: Any, count: int) -> np.ndarray:
    array = np.asarray(labels)
    if array.shape != (count,):
        _checks.refuse("tsne_plot", "labels", f"have shape [{count}]", list(array.shape))
    distinct = len(np.unique(array))
    if distinct > _MOST_COLORS and array.dtype.kind not in "iuf":
        _checks.refuse("tsne_plot", "labels", f"be at most {_MOST_COLORS} or numbers", distinct)
    return array


def _scatter(axes: Any, positions: np.ndarray, labels: np.ndarray | None) -> None:
    """Draws the points, with a legend or a scale of colours where there are labels."""
    if labels is None:
        axes.scatter(*positions.T, s=12)
        return
    distinct = np.unique(labels)
    if len(distinct) > _MOST_COLORS:
        points = axes.scatter(*positions.T, s=12, c=labels)
        axes.figure.colorbar(points)
        return
    import matplotlib

    colors = matplotlib.colormaps["tab10" if len(distinct) <= 10 else "tab20"](range(len(distinct)))
    for label, color in zip(distinct, colors, strict=True):
        axes.scatter(*positions[labels == label].T, s=12, color=color, label=str(label))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), markerscale=2)  # beside the points
