"""Boxes in and around an image, also degenerate ones."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ._draw import Size, draw_generator, draw_size

_NUM = st.integers(0, 6)
_REGULAR = "regular"
_DEGENERATE = ("zero area", "inverted", "nan", "infinite", "huge")


@st.composite
def boxes(
    draw: st.DrawFn,
    num: Size = _NUM,
    height: Size = 32,
    width: Size = 32,
    degenerate: bool = False,
) -> np.ndarray:
    """float32 boxes `[num_boxes, 4]`, each `[y1, x1, y2, x2]` in pixels.

    Boxes have `y1 < y2` and `x1 < x2`, sides from 1/16 to the image's side and a pixel more, and
    corners up to a quarter of the image's side beyond its borders.

    Args:
        draw: given by hypothesis.
        num: number of boxes; by default 0 to 6.
        height: of the image, in pixels.
        width: of the image, in pixels.
        degenerate: whether some boxes have no area, corners in the wrong order, NaN, Inf or
            coordinates up to 1e30.

    Raises:
        ValueError: while drawing: a negative size.

    Example:
        >>> @given(boxes(num=st.integers(1, 4), height=20, width=30, degenerate=True))
        ... def test_any_box_gives_finite_values(boxes): ...
    """
    count = draw_size(draw, "boxes", "num", num)
    sides = np.array(
        [draw_size(draw, "boxes", n, s) for n, s in (("height", height), ("width", width))]
    )
    generator = draw_generator(draw)
    extents = generator.uniform(1 / 16, sides + 1, size=(count, 2))
    low, high = -0.25 * sides, np.maximum(1.25 * sides - extents, 0)
    corners = low + generator.uniform(size=(count, 2)) * (high - low)
    result = np.concatenate([corners, corners + extents], axis=1).astype(np.float32)
    if degenerate:
        kinds = st.lists(st.sampled_from([_REGULAR, *_DEGENERATE]), min_size=count, max_size=count)
        for box, kind in zip(result, draw(kinds), strict=True):
            box[:] = _degenerate(box, kind, generator)
    return result


def _degenerate(box: np.ndarray, kind: str, generator: np.random.Generator) -> np.ndarray:
    """The box, spoilt in one of the ways of `_DEGENERATE`."""
    y1, x1, y2, x2 = box
    if kind == "zero area":
        return np.array(
            [(y1, x1, y1, x2), (y1, x1, y2, x1), (y1, x1, y1, x1)][generator.integers(3)]
        )
    if kind == "inverted":
        return np.array(
            [(y2, x1, y1, x2), (y1, x2, y2, x1), (y2, x2, y1, x1)][generator.integers(3)]
        )
    if kind == _REGULAR:
        return box
    special = {"nan": [np.nan], "infinite": [np.inf, -np.inf], "huge": [-1e30, -1e10, 1e10, 1e30]}[
        kind
    ]
    chosen = generator.uniform(size=4) < 0.5
    chosen[generator.integers(4)] = True
    return np.where(chosen, generator.choice(special, size=4), box)
