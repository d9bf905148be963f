"""Pooling windows, strides and padding."""

from __future__ import annotations

from hypothesis import strategies as st


@st.composite
def windows(
    draw: st.DrawFn,
    largest: int = 4,
    height: int | None = None,
    width: int | None = None,
    overlapping: bool = True,
) -> tuple[tuple[int, int], tuple[int, int], str]:
    """Pooling windows: `ksize` and `strides`, pairs `(height, width)`, and "VALID" or "SAME".

    Args:
        draw: given by hypothesis.
        largest: largest side and stride.
        height: of the image, or None. A "VALID" window is no higher, so that there is an output
            row.
        width: of the image, or None; likewise.
        overlapping: whether strides may be smaller than the window.

    Raises:
        ValueError: while drawing: `largest` is not positive.

    Example:
        >>> @given(st.data())
        ... def test_pooling(data):
        ...     image = data.draw(images(height=st.integers(1, 9), width=st.integers(1, 9)))
        ...     height, width = image.shape[1:3]
        ...     ksize, strides, padding = data.draw(windows(height=height, width=width))
    """
    if largest < 1:
        raise ValueError(f"windows: 'largest' must be at least 1, got {largest}")
    padding = draw(st.sampled_from(["VALID", "SAME"]))
    ksize, strides = [], []
    for side in (height, width):
        limit = largest if side is None or padding == "SAME" else max(1, min(largest, side))
        ksize.append(draw(st.integers(1, limit)))
        strides.append(draw(st.integers(1 if overlapping else ksize[-1], largest)))
    return (ksize[0], ksize[1]), (strides[0], strides[1]), padding
