"""The one table of tolerances by dtype, and the comparisons that use it."""

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np


class Tolerance(NamedTuple):
    """Two numbers agree where `|a - b| <= absolute + relative * |b|`."""

    relative: float
    absolute: float


# For two correct computations in different orders of summation. Where an op only moves values, or
# sums in a promised order, the tests ask for equality instead: `assert_same`.
TOLERANCES = {
    "float64": Tolerance(1e-12, 1e-12),
    "float32": Tolerance(1e-5, 1e-5),
    "float16": Tolerance(2e-3, 1e-3),
    "bfloat16": Tolerance(1.6e-2, 1e-2),
}

FLOAT_DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
INDEX_DTYPES = [np.int32, np.int64]


def name_of(dtype: Any) -> str:
    """Returns "bfloat16" for bfloat16, for parametrized tests."""
    return np.dtype(dtype).name


def assert_close(actual: Any, expected: Any, dtype: Any = None) -> None:
    """Asserts agreement within the tolerance of a dtype, by default that of `actual`."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    relative, absolute = TOLERANCES[name_of(actual.dtype if dtype is None else dtype)]
    np.testing.assert_allclose(
        actual.astype(np.float64), expected.astype(np.float64), relative, absolute
    )


def assert_close_sums(actual: Any, expected: Any, terms: Any) -> None:
    """Asserts agreement of sums that may cancel; `terms` are the sums of the terms' magnitudes."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    relative, absolute = TOLERANCES[name_of(actual.dtype)]
    wide = TOLERANCES["float64" if actual.dtype == np.float64 else "float32"].relative
    numbers, wanted = actual.astype(np.float64), expected.astype(np.float64)
    limit = relative * np.abs(wanted) + 0.1 * wide * np.asarray(terms, np.float64)
    if actual.itemsize == 2:
        limit += absolute
    assert actual.shape == expected.shape
    wrong = ~(np.abs(numbers - wanted) <= limit)
    assert not wrong.any(), (np.argwhere(wrong)[:5], numbers[wrong][:5], wanted[wrong][:5])


def assert_same(actual: Any, expected: Any) -> None:
    """Asserts the same dtype, shape and numbers; NaN is the same as NaN, -0 as 0."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if actual.dtype.kind == "i":
        np.testing.assert_array_equal(actual, expected)
    else:
        # float64 holds every number of the narrower types.
        np.testing.assert_array_equal(actual.astype(np.float64), expected.astype(np.float64))


def bits(array: np.ndarray) -> np.ndarray:
    """Returns the bits of an array as unsigned integers of its width."""
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def assert_same_bits(actual: np.ndarray, expected: np.ndarray) -> None:
    """Asserts the same dtype, shape and bits, signs of zeros and NaN included."""
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(bits(actual), bits(expected))
