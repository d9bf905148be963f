"""What `argmax_masks` promises, and that its edge cases do come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfseg_ops.testing.strategies import argmax_masks, windows

SIDE = st.integers(1, 7)


@given(st.data(), st.tuples(st.integers(1, 3), SIDE, SIDE, st.integers(1, 3)), st.booleans())
@settings(deadline=None)
def test_each_index_lies_in_its_window(
    data: st.DataObject, shape: tuple[int, ...], with_batch: bool
) -> None:
    window = data.draw(windows(height=shape[1], width=shape[2]))
    mask = data.draw(argmax_masks(shape, window, include_batch_in_index=with_batch))
    ksize, strides, padding = window
    if not with_batch:
        mask = mask + np.arange(shape[0])[:, None, None, None] * np.prod(shape[1:])
    found = np.stack(np.unravel_index(mask, shape))
    own = np.indices(mask.shape)
    assert np.all(found[[0, 3]] == own[[0, 3]])
    for axis, k, stride, size, pooled in zip(
        (1, 2), ksize, strides, shape[1:3], mask.shape[1:3], strict=True
    ):
        before = max((pooled - 1) * stride + k - size, 0) // 2 if padding == "SAME" else 0
        offset = found[axis] - (own[axis] * stride - before)
        assert np.all((offset >= 0) & (offset < k))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((0, 5, 7, 3), (0, 3, 4, 3)),
        ((2, 0, 7, 3), (2, 0, 4, 3)),
        ((2, 5, 7, 0), (2, 3, 4, 0)),
    ],
)
def test_empty_input_gives_empty_mask(shape: Any, expected: Any) -> None:
    @given(argmax_masks(shape, ((2, 2), (2, 2), "SAME")))
    @settings(max_examples=3, deadline=None)
    def check(mask: np.ndarray) -> None:
        assert mask.shape == expected

    check()


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_dtype_is_that_asked_for(dtype: Any) -> None:
    @given(argmax_masks((1, 4, 4, 1), ((2, 2), (2, 2), "VALID"), dtype=dtype))
    @settings(max_examples=3, deadline=None)
    def check(mask: np.ndarray) -> None:
        assert mask.dtype == dtype

    check()
