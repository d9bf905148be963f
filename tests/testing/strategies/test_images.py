"""What `images` promises, and that its edge cases do come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import find, given, settings
from hypothesis import strategies as st

from tfseg_ops.testing.strategies import images

BFLOAT16 = tf.bfloat16.as_numpy_dtype


@given(images())
@settings(deadline=None)
def test_default_is_a_small_float32_image_in_unit_range(image: np.ndarray) -> None:
    assert image.dtype == np.float32
    assert image.ndim == 4
    assert all(size <= limit for size, limit in zip(image.shape, (3, 9, 9, 4), strict=True))
    assert np.all(np.abs(image) <= 1)


@pytest.mark.parametrize(
    "wanted",
    [
        lambda image: image.shape[0] == 0,
        lambda image: image.shape[1] == 0 and image.shape[0] > 0,
        lambda image: image.shape[1:3] == (1, 1),
        lambda image: image.size > 1 and image.shape[1] % 2 == image.shape[2] % 2 == 1,
        lambda image: image.size > 9 and len(np.unique(image)) == 1,
        lambda image: image.size > 9 and len(np.unique(image)) == 3,
        lambda image: image.size > 9 and len(np.unique(image)) == image.size,
    ],
    ids=[
        "no batch",
        "no height",
        "one pixel",
        "odd",
        "constant",
        "few values",
        "all values differ",
    ],
)
def test_edge_cases_are_drawn(wanted: Any) -> None:
    find(images(), wanted, settings=settings(max_examples=2000, deadline=None))


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float64, tf.bfloat16, BFLOAT16, np.uint8, "int32"]
)
def test_dtype_and_sizes_are_those_asked_for(dtype: Any) -> None:
    @given(images(dtype, batch=2, height=st.integers(3, 4), width=5, channels=1))
    @settings(max_examples=20, deadline=None)
    def check(image: np.ndarray) -> None:
        assert image.dtype == tf.as_dtype(dtype).as_numpy_dtype
        assert image.shape in {(2, 3, 5, 1), (2, 4, 5, 1)}

    check()


@given(images(elements=(10, 255)), images(np.uint8, elements=(3, 5)))
@settings(deadline=None)
def test_elements_stay_in_bounds(floats: np.ndarray, integers: np.ndarray) -> None:
    assert np.all((floats >= 10) & (floats <= 255))
    assert np.all((integers >= 3) & (integers <= 5))


@given(images(elements=st.sampled_from([2.0, 7.0])))
@settings(deadline=None)
def test_elements_come_from_a_strategy(image: np.ndarray) -> None:
    assert set(np.unique(image)) <= {2.0, 7.0}


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, tf.bfloat16])
def test_distinct_elements_are_well_separated(dtype: Any) -> None:
    @given(images(dtype, distinct=True))
    @settings(max_examples=50, deadline=None)
    def check(image: np.ndarray) -> None:
        values = np.sort(image.astype(np.float64).ravel())
        assert np.all(np.diff(values) >= 1e-2)
        assert np.all(np.isfinite(values))

    check()


@given(images(tf.bfloat16, batch=1, height=40, width=50, channels=3, distinct=True))
@settings(max_examples=5, deadline=None)
def test_large_distinct_bfloat16_image_is_drawn(image: np.ndarray) -> None:
    values = np.sort(image.astype(np.float64).ravel())
    assert np.all(np.diff(values) >= 1e-2)


@given(images(np.uint8, batch=1, height=16, width=16, channels=1, distinct=True))
@settings(max_examples=10, deadline=None)
def test_distinct_integers_fill_their_type(image: np.ndarray) -> None:
    assert len(np.unique(image)) == 256


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": -1}, "images: 'height' must be an int of at least 0 .*, got -1"),
        ({"width": 2.0}, "images: 'width' must be an int"),
        ({"distinct": True, "elements": (0, 1)}, "'elements' must be None when 'distinct' is true"),
        (
            {
                "distinct": True,
                "dtype": np.uint8,
                "batch": 1,
                "height": 257,
                "width": 1,
                "channels": 1,
            },
            "images: 'distinct' must be false for more than 256 elements of uint8, got 257",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find(images(**arguments), lambda image: True)
