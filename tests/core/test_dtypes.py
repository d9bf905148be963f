"""Half and bfloat16 as storage: every bit pattern is read, and sums are rounded as numpy rounds."""

import types
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from helpers.tolerances import assert_same_bits, bits

Core = types.ModuleType

HALVES = pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
# So many elements a run: whole vectors, and single lanes after them.
WIDTHS = pytest.mark.parametrize("channels", [1, 5, 8, 61, 64])


def every(dtype: Any) -> np.ndarray:
    """Every bit pattern of a 16-bit type."""
    return np.arange(2**16, dtype=np.uint16).view(dtype)


def as_rows(array: np.ndarray, channels: int) -> np.ndarray:
    """The elements as an image of so many channels; the last pixel is filled up from the first."""
    return np.resize(array, (1, 1, -(-array.size // channels), channels))


def sums_of_two(core: Core, a: np.ndarray, b: np.ndarray, channels: int) -> np.ndarray:
    """a + b, from masks that name each position twice."""
    pairs = np.concatenate([as_rows(a, channels), as_rows(b, channels)], axis=1)
    size = pairs.shape[2]
    masks = np.broadcast_to(np.arange(size * channels).reshape(size, channels), pairs.shape)
    result: np.ndarray = core.max_unpool(pairs, masks, (1, size))
    return result.ravel()[: a.size]


def assert_rounded(actual: np.ndarray, exact: np.ndarray) -> None:
    """Asserts the bits of `exact` rounded to the dtype; any NaN for NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        expected = exact.astype(actual.dtype)
    nan = np.isnan(exact)
    np.testing.assert_array_equal(np.isnan(actual.astype(np.float32)), nan)
    # Sums start at 0, and 0 + -0 is 0.
    expected = np.where(exact == 0, np.zeros((), actual.dtype), expected)
    assert_same_bits(actual[~nan], expected[~nan])


@HALVES
@WIDTHS
def test_every_number_survives_the_accumulator(core: Core, dtype: Any, channels: int) -> None:
    image = as_rows(every(dtype), channels)
    output, _ = core.max_pool_with_argmax(image, (1, 1), (1, 1), "VALID")
    nan = np.isnan(image.astype(np.float32))
    np.testing.assert_array_equal(np.isnan(output.astype(np.float32)), nan)
    assert_same_bits(output[~nan], image[~nan])


@HALVES
@WIDTHS
def test_moved_values_keep_every_bit(core: Core, dtype: Any, channels: int) -> None:
    image = as_rows(every(dtype), channels)
    masks = np.arange(image.size).reshape(image.shape)
    assert_same_bits(core.max_unpool(image, masks, image.shape[1:3]), image)
    assert_same_bits(core.max_unpool_grad(image, masks), image)


@HALVES
@WIDTHS
@pytest.mark.parametrize("units", [0.5, -0.5, 0.75, -0.75, 0.25, 1.5, -1.5])
def test_sums_are_rounded_to_nearest_ties_to_even(
    core: Core, dtype: Any, channels: int, units: float
) -> None:
    """Each number plus a part of its distance to the next: half of it is a tie."""
    a = every(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        magnitude = np.abs(a.astype(np.float64))
        exponent = np.floor(np.log2(np.where(magnitude > 0, magnitude, 1)))
        info = ml_dtypes.finfo(dtype)
        gap = np.maximum(2.0 ** (exponent - info.nmant), float(info.smallest_subnormal))
        b = (units * gap).astype(dtype)
        exact = a.astype(np.float32) + b.astype(np.float32)
    assert_rounded(sums_of_two(core, a, b, channels), exact)


@HALVES
@pytest.mark.parametrize("seed", range(4))
def test_sums_of_any_two_numbers_are_rounded(core: Core, dtype: Any, seed: int) -> None:
    """Overflow to infinity, Inf - Inf, subnormal and far smaller numbers among them."""
    a = every(dtype)
    b = np.random.default_rng(seed).permutation(a)
    if seed == 0:
        b = np.roll(a, 2**15 + 1)
    with np.errstate(over="ignore", invalid="ignore"):
        exact = a.astype(np.float32) + b.astype(np.float32)
    assert_rounded(sums_of_two(core, a, b, 64), exact)


@HALVES
def test_sums_of_special_numbers_are_rounded_in_single_lanes(core: Core, dtype: Any) -> None:
    """Fewer than a vector at a time: overflow, infinities and NaN convert one by one."""
    info = ml_dtypes.finfo(dtype)
    tiny, small = float(info.smallest_subnormal), float(info.smallest_normal)
    large = float(info.max)
    some = [0.0, tiny, 3 * tiny, small, small - tiny, 1, 1 + float(info.eps), large / 2, large]
    special = np.array([*some, np.inf, np.nan, *(-np.array([*some, np.inf]))], dtype)
    a, b = (pairs.ravel() for pairs in np.meshgrid(special, special))
    with np.errstate(over="ignore", invalid="ignore"):
        exact = a.astype(np.float32) + b.astype(np.float32)
    pieces = [sums_of_two(core, a[k : k + 3], b[k : k + 3], 3) for k in range(0, a.size, 3)]
    assert_rounded(np.concatenate(pieces), exact)


def test_largest_half_and_half_a_unit_more_is_infinite(core: Core) -> None:
    a = np.array([65504, 65504, -65504], np.float16)
    b = np.array([16, 15.99, -16], np.float16)
    result = sums_of_two(core, a, b, 1)
    np.testing.assert_array_equal(result, np.array([np.inf, 65504, -np.inf], np.float16))


@HALVES
def test_sums_are_kept_in_float32(core: Core, dtype: Any) -> None:
    """4096 ones after 4096 would each be lost in a sum of the dtype itself."""
    values = np.full((1, 1, 4097, 1), 1, dtype)
    values[0, 0, 0, 0] = 4096
    result = core.max_unpool(values, np.zeros(values.shape, np.int32), (1, 1))
    np.testing.assert_array_equal(result.astype(np.float32), [[[[8192]]]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_subnormal_sums_are_kept(core: Core, dtype: Any) -> None:
    tiny = np.finfo(dtype).smallest_subnormal
    values = np.full((1, 1, 3, 1), tiny, dtype)
    result = core.max_unpool(values, np.array([1, 1, 0]).reshape(1, 1, 3, 1), (1, 2))
    assert_same_bits(result.ravel(), np.array([tiny, 2 * tiny], dtype))
    assert bits(result).all()


def test_double_sums_are_kept_in_double(core: Core) -> None:
    values = np.array([1.0, 2.0**-50, 0.0]).reshape(1, 1, 3, 1)
    result = core.max_unpool(values, np.zeros((1, 1, 3, 1), np.int64), (1, 1))
    assert result.item() == 1.0 + 2.0**-50
