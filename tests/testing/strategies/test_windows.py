"""What `windows` promises, and that its edge cases do come."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from tfseg_ops.testing.strategies import windows

Window = tuple[tuple[int, int], tuple[int, int], str]


@given(windows(largest=3))
@settings(deadline=None)
def test_sides_and_strides_are_bounded(window: Window) -> None:
    ksize, strides, padding = window
    assert len(ksize) == len(strides) == 2
    assert all(1 <= side <= 3 for side in (*ksize, *strides))
    assert padding in {"VALID", "SAME"}


@given(st.data(), st.integers(1, 6), st.integers(1, 6))
@settings(deadline=None)
def test_valid_window_fits_in_the_image(data: st.DataObject, height: int, width: int) -> None:
    ksize, _, padding = data.draw(windows(height=height, width=width))
    assert padding == "SAME" or (ksize[0] <= height and ksize[1] <= width)


@given(windows(overlapping=False))
@settings(deadline=None)
def test_windows_do_not_overlap_on_request(window: Window) -> None:
    ksize, strides, _ = window
    assert all(stride >= side for side, stride in zip(ksize, strides, strict=True))


@pytest.mark.parametrize(
    "wanted",
    [
        lambda ksize, strides, padding: ksize[0] > strides[0] and padding == "SAME",
        lambda ksize, strides, padding: ksize[0] < strides[0] and padding == "VALID",
        lambda ksize, strides, padding: ksize[0] != ksize[1] and strides[0] != strides[1],
        lambda ksize, strides, padding: ksize[0] > 1 and padding == "SAME",
    ],
    ids=["overlap", "gap", "not square", "larger than the image"],
)
def test_edge_cases_are_drawn(wanted: Any) -> None:
    limits = settings(max_examples=1000, deadline=None)
    find(windows(height=1, width=4), lambda window: wanted(*window), settings=limits)


def test_wrong_largest_is_refused() -> None:
    with pytest.raises(ValueError, match="windows: 'largest' must be at least 1, got 0"):
        find(windows(largest=0), lambda window: True)
