"""What `boxes` promises, and that its edge cases do come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from tfseg_ops.testing.strategies import boxes


@given(boxes(height=20, width=st.sampled_from([0, 1, 30])))
@settings(deadline=None)
def test_boxes_are_finite_ordered_and_near_the_image(drawn: np.ndarray) -> None:
    assert drawn.dtype == np.float32
    assert drawn.ndim == 2
    assert drawn.shape[1] == 4
    assert np.all(np.isfinite(drawn))
    y1, x1, y2, x2 = drawn.T
    assert np.all((y2 - y1 > 0.05) & (x2 - x1 > 0.05))
    assert np.all((drawn[:, ::2] >= -5) & (drawn[:, ::2] <= 25))
    assert np.all((drawn[:, 1::2] >= -7.5) & (drawn[:, 1::2] <= 37.5))


@given(boxes(num=3))
@settings(max_examples=20, deadline=None)
def test_number_is_that_asked_for(drawn: np.ndarray) -> None:
    assert drawn.shape == (3, 4)


@pytest.mark.parametrize(
    "wanted",
    [
        lambda drawn: len(drawn) == 0,
        lambda drawn: np.any(drawn < 0) and np.any(drawn > 32),
        lambda drawn: np.any(np.all((drawn > 0) & (drawn < 32), axis=1)),
    ],
    ids=["none", "beyond the borders", "inside"],
)
def test_edge_cases_are_drawn(wanted: Any) -> None:
    find(boxes(), wanted, settings=settings(max_examples=1000, deadline=None))


@pytest.mark.parametrize(
    "wanted",
    [
        lambda box: box[2] == box[0] and box[1] <= box[3],
        lambda box: box[2] < box[0],
        lambda box: np.isnan(box).any(),
        lambda box: np.isinf(box).any(),
        lambda box: np.any(np.isfinite(box) & (np.abs(box) > 1e9)),
        lambda box: np.all(np.isfinite(box)) and box[0] < box[2] and box[1] < box[3],
    ],
    ids=["zero area", "inverted", "nan", "infinite", "huge", "regular"],
)
def test_degenerate_boxes_are_drawn_on_request(wanted: Any) -> None:
    strategy = boxes(num=4, degenerate=True)
    limits = settings(max_examples=1000, deadline=None)
    assert (
        find(strategy, lambda drawn: any(map(wanted, drawn)), settings=limits).dtype == np.float32
    )


def test_wrong_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"boxes: 'num' must be an int of at least 0 .*, got -1"):
        find(boxes(num=-1), lambda drawn: True)
