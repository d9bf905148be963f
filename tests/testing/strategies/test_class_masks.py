"""What `class_masks` promises, and that its edge cases do come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from tfseg_ops.testing.strategies import class_masks


@given(class_masks(classes=4, ignore_label=255))
@settings(deadline=None)
def test_labels_are_classes_or_ignored(labels: np.ndarray) -> None:
    assert labels.dtype == np.uint8
    assert labels.ndim == 3
    assert set(np.unique(labels)) <= {0, 1, 2, 3, 255}


@given(class_masks(classes=st.integers(1, 2), dtype=np.int64))
@settings(deadline=None)
def test_nothing_is_ignored_by_default(labels: np.ndarray) -> None:
    assert labels.dtype == np.int64
    assert set(np.unique(labels)) <= {0, 1}


@pytest.mark.parametrize(
    "wanted",
    [
        lambda labels: labels.size == 0,
        lambda labels: labels.size > 9 and np.all(labels == 0),
        lambda labels: labels.size > 9 and np.all(labels == -1),
        lambda labels: {-1, 0, 1, 2} <= set(np.unique(labels)),
        lambda labels: labels.size > 9 and -1 not in labels and len(np.unique(labels)) == 3,
    ],
    ids=["empty", "background only", "all ignored", "everything", "none ignored"],
)
def test_edge_cases_are_drawn(wanted: Any) -> None:
    strategy = class_masks(ignore_label=-1, dtype=np.int32)
    find(strategy, wanted, settings=settings(max_examples=3000, deadline=None))


@given(class_masks(batch=2, height=5, width=st.integers(7, 8)))
@settings(max_examples=20, deadline=None)
def test_sizes_are_those_asked_for(labels: np.ndarray) -> None:
    assert labels.shape in {(2, 5, 7), (2, 5, 8)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 0}, "class_masks: 'classes' must be an int of at least 1 .*, got 0"),
        ({"batch": -2}, "class_masks: 'batch' must be an int of at least 0 .*, got -2"),
        ({"classes": 257}, "class_masks: 'dtype' must hold the labels 0 to 256, got uint8"),
        ({"ignore_label": -1}, "class_masks: 'dtype' must hold the labels -1 to 2, got uint8"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find(class_masks(**arguments), lambda labels: True)
