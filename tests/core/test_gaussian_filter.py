"""The core's Gaussian filter on lattices, its transpose and its gradient to the features."""

import types
from typing import Any

import numpy as np
import pytest
from helpers.lattice_cases import WRONG_INDICES, corrupted_lattice, features_of
from helpers.tolerances import FLOAT_DTYPES, assert_close, assert_same_bits, name_of
from reference.gaussian_filter import exact, exact_features_grad, features_grad, on_lattice

Core = types.ModuleType
CHANNELS = [1, 3, 8, 21, 37, 150]


def case(
    core: Core,
    dimensions: int,
    channels: int,
    dtype: Any = np.float32,
    points: int = 60,
    batch: int = 2,
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Values in [-1, 1], and a lattice."""
    generator = np.random.default_rng(dimensions * 1000 + channels)
    lattice = tuple(core.permutohedral_lattice(features_of(generator, batch, points, dimensions)))
    return generator.uniform(-1, 1, (batch, points, channels)).astype(dtype), lattice


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dimensions", range(1, 9))
def test_filter_is_that_of_the_oracle(
    core: Core, dimensions: int, channels: int, dtype: Any
) -> None:
    values, lattice = case(core, dimensions, channels, dtype)
    for reverse in (False, True):
        output = core.gaussian_filter(values, lattice, reverse=reverse)
        assert output.dtype == values.dtype
        assert_close(output, on_lattice(values, lattice, reverse))


@pytest.mark.parametrize("points", [1, 2, 3, 7, 8, 9, 31])
@pytest.mark.parametrize("channels", [*range(1, 18), 63, 64, 65, 128, 129])
def test_every_number_of_channels_is_filtered(core: Core, channels: int, points: int) -> None:
    """Rows at the end of the values are read no further than they go."""
    for dtype in (np.float32, np.float64, np.float16):
        values, lattice = case(core, 2, channels, dtype, points)
        assert_close(core.gaussian_filter(values, lattice), on_lattice(values, lattice))


@pytest.mark.parametrize(("dimensions", "limit"), [(1, 0.1), (2, 0.1), (3, 0.15), (5, 0.25)])
def test_filter_approximates_the_exact_one(core: Core, dimensions: int, limit: float) -> None:
    """Up to a common factor, which normalization takes away."""
    generator = np.random.default_rng(0)
    features = generator.uniform(0, 3, (1, 400, dimensions)).astype(np.float32)
    values = generator.uniform(0, 1, (1, 400, 4))
    values[..., 0] = features[..., 0]
    lattice = core.permutohedral_lattice(features)
    ones = np.ones((1, 400, 1))
    actual = core.gaussian_filter(values, lattice) / core.gaussian_filter(ones, lattice)
    expected = exact(values, features) / exact(ones, features)
    error = np.abs(actual - expected).max() / np.ptp(expected[..., 0])
    assert error < limit


def test_filter_is_linear(core: Core) -> None:
    values, lattice = case(core, 5, 21, np.float64)
    other = values[:, ::-1]
    both = core.gaussian_filter(3 * values - 0.5 * other, lattice)
    apart = 3 * core.gaussian_filter(values, lattice) - 0.5 * core.gaussian_filter(other, lattice)
    assert_close(both, apart)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=name_of)
@pytest.mark.parametrize("dimensions", range(1, 9))
def test_reverse_is_the_adjoint(core: Core, dimensions: int, dtype: Any) -> None:
    values, lattice = case(core, dimensions, 21, dtype, 200)
    other = values[:, ::-1, ::-1] ** 2
    one = (core.gaussian_filter(values, lattice).astype(np.float64) * other).sum()
    two = (core.gaussian_filter(other, lattice, reverse=True).astype(np.float64) * values).sum()
    terms = (core.gaussian_filter(np.abs(values), lattice).astype(np.float64) * other).sum()
    assert abs(one - two) <= (1e-5 if dtype == np.float32 else 1e-12) * terms


@pytest.mark.parametrize("dimensions", range(1, 9))
def test_ones_give_the_norms(core: Core, dimensions: int) -> None:
    _, lattice = case(core, dimensions, 1)
    ones = core.gaussian_filter(np.full((2, 60, 9), 4, np.float32), lattice)
    assert_close(ones / lattice[7][..., None], np.full((2, 60, 9), 4, np.float32))


def test_order_of_points_does_not_matter(core: Core) -> None:
    values, lattice = case(core, 5, 21, np.float64, 150)
    order = np.random.default_rng(1).permutation(150)
    permuted = core.permutohedral_lattice(lattice[0][:, order])
    assert_close(
        core.gaussian_filter(values[:, order], permuted),
        core.gaussian_filter(values, lattice)[:, order],
    )


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3), (2, 5, 0)])
def test_nothing_is_filtered_to_nothing(
    core: Core, shape: tuple[int, int, int], dtype: Any
) -> None:
    values = np.zeros(shape, dtype)
    lattice = core.permutohedral_lattice(np.zeros((*shape[:2], 3), np.float32))
    assert core.gaussian_filter(values, lattice).shape == shape
    grad = core.gaussian_filter_features_grad(values, lattice, values)
    assert_same_bits(grad, np.zeros((*shape[:2], 3), np.float32))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
@pytest.mark.parametrize("channels", [3, 21, 70])
def test_nan_reaches_its_channel_and_neighbours_alone(
    core: Core, channels: int, dtype: Any
) -> None:
    values, lattice = case(core, 2, channels, dtype)
    before = core.gaussian_filter(values, lattice)
    values[1, 7, 2] = np.nan
    after = core.gaussian_filter(values, lattice)
    poisoned = np.isnan(after.astype(np.float64))
    expected = np.zeros_like(poisoned)
    one = np.zeros(values.shape)
    one[1, 7, 2] = 1
    # Vertices of weight 0 pass it on as well.
    expected[..., 2] = on_lattice(one, lattice)[..., 2] > 0
    assert (poisoned >= expected).all()
    assert not poisoned[0].any()
    assert not np.delete(poisoned, 2, axis=2).any()
    assert_same_bits(after[~poisoned], before[~poisoned])


def test_infinities_stay_in_their_channel(core: Core) -> None:
    values, lattice = case(core, 2, 21)
    before = core.gaussian_filter(values, lattice)
    values[0, 3, 4] = np.inf
    after = core.gaussian_filter(values, lattice)
    assert np.isinf(after[0, 3, 4])
    assert_same_bits(np.delete(after, 4, axis=2), np.delete(before, 4, axis=2))


@pytest.mark.usefixtures("same_threads_afterwards")
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=name_of)
def test_number_of_threads_changes_no_bit(core: Core, dtype: Any) -> None:
    values, lattice = case(core, 5, 37, dtype, 3000)
    results = []
    for threads in (1, 2, 5):
        core.set_num_threads(threads)
        results.append(
            (
                core.gaussian_filter(values, lattice),
                core.gaussian_filter_features_grad(values, lattice, values[:, ::-1]),
            )
        )
    for result in results[1:]:
        for one, wanted in zip(result, results[0], strict=True):
            assert_same_bits(one, wanted)


@pytest.mark.parametrize("channels", [3, 21, 150])
def test_batch_is_its_images_one_by_one(core: Core, channels: int) -> None:
    values, lattice = case(core, 3, channels, batch=4)
    grad = values[:, ::-1]
    output = core.gaussian_filter(values, lattice)
    of_features = core.gaussian_filter_features_grad(values, lattice, grad)
    for b in range(4):
        one = core.permutohedral_lattice(lattice[0][b : b + 1])
        image = slice(b, b + 1)
        assert_same_bits(core.gaussian_filter(values[image], one), output[image])
        assert_same_bits(
            core.gaussian_filter_features_grad(values[image], one, grad[image]), of_features[image]
        )


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
@pytest.mark.parametrize("channels", [1, 3, 21, 70])
@pytest.mark.parametrize("dimensions", [1, 2, 5, 8])
def test_gradient_to_the_features_is_that_of_the_oracle(
    core: Core, dimensions: int, channels: int, dtype: Any
) -> None:
    values, lattice = case(core, dimensions, channels, dtype)
    grad = values[:, ::-1] / channels
    for reverse in (False, True):
        actual = core.gaussian_filter_features_grad(values, lattice, grad, reverse=reverse)
        assert actual.dtype == np.float32
        expected = features_grad(values, lattice, grad, reverse)
        # The two terms of the formula cancel where all neighbours are at one place.
        terms = np.abs(grad) * on_lattice(np.abs(values), lattice, reverse)
        scale = terms.sum(axis=-1).max() * np.ptp(lattice[0])
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6 * scale)


def test_gradient_to_the_features_does_not_depend_on_where_they_are(core: Core) -> None:
    """A common part of all features costs no digits."""
    generator = np.random.default_rng(0)
    # Steps of 1/16 are exact there too; the shift is a vector of the lattice.
    features = np.round(generator.normal(0, 2, (1, 80, 2)) * 16) / 16
    values = generator.uniform(-1, 1, (1, 80, 3)).astype(np.float32)
    grad = values[:, ::-1]
    grads = []
    for shift in (0, 1024):
        lattice = core.permutohedral_lattice((features + shift).astype(np.float32))
        expected = features_grad(values.astype(np.float64), lattice, grad)
        actual = core.gaussian_filter_features_grad(values, lattice, grad)
        grads.append(np.abs(actual - expected).max() / np.abs(expected).max())
    assert max(grads) < 1e-5


@pytest.mark.parametrize(("dimensions", "limit"), [(1, 0.2), (2, 0.25), (3, 0.3)])
def test_gradient_to_the_features_approximates_the_exact_one(
    core: Core, dimensions: int, limit: float
) -> None:
    """In the mean over points, and up to the filter's own factor."""
    generator = np.random.default_rng(0)
    features = generator.uniform(0, 3, (1, 500, dimensions)).astype(np.float32)
    values = np.concatenate([features, np.ones((1, 500, 1), np.float32)], axis=2)
    grad = np.roll(values, 1, axis=2)
    lattice = core.permutohedral_lattice(features)
    factor = (core.gaussian_filter(values, lattice) * grad).sum() / (
        exact(values, features) * grad
    ).sum()
    actual = core.gaussian_filter_features_grad(values, lattice, grad) / factor
    expected = exact_features_grad(values, features, grad)
    assert np.linalg.norm(actual - expected) < limit * np.linalg.norm(expected)


@pytest.mark.parametrize("wrong", WRONG_INDICES)
def test_wrong_index_is_an_error_that_names_it(core: Core, wrong: str) -> None:
    lattice, words = corrupted_lattice(core, wrong)
    values = np.ones((2, 40, 5), np.float32)
    for call in (
        lambda: core.gaussian_filter(values, lattice),
        lambda: core.gaussian_filter(values, lattice, reverse=True),
        lambda: core.gaussian_filter_features_grad(values, lattice, values),
    ):
        with pytest.raises(ValueError, match=r"^gaussian_filter: 'lattice' ") as caught:
            call()
        assert words in str(caught.value)
        assert str(caught.value).endswith("image 1")


@pytest.mark.usefixtures("same_threads_afterwards")
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_lists_by_vertex_only_share_out_the_work(core: Core, threads: int) -> None:
    """Whatever they hold, nothing is read or written beyond the arrays, nor summed twice."""
    values, lattice = case(core, 3, 5)
    expected = core.gaussian_filter(values, lattice)
    generator = np.random.default_rng(threads)
    core.set_num_threads(threads)
    for _ in range(20):
        parts = list(lattice)
        for k in (3, 5):
            parts[k] = generator.integers(-(2**31), 2**31, lattice[k].shape, np.int32)
        assert_same_bits(core.gaussian_filter(values, parts), expected)


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        (
            np.zeros((2, 4), np.float32),
            ValueError,
            "'values' must have shape [batch, points, channels], got [2, 4]",
        ),
        (
            np.zeros((2, 5, 3), np.float32),
            ValueError,
            "'features' must have shape [batch=2, points=5, dimensions], got [2, 4, 3]",
        ),
        (
            np.zeros((2, 4, 3), np.int32),
            TypeError,
            "'values' must be float16, bfloat16, float32 or float64, got int32",
        ),
    ],
    ids=["rank", "points", "dtype"],
)
def test_wrong_values_are_named(
    core: Core, values: np.ndarray, error: type[Exception], words: str
) -> None:
    lattice = core.permutohedral_lattice(np.zeros((2, 4, 3), np.float32))
    with pytest.raises(error) as caught:
        core.gaussian_filter(values, lattice)
    assert str(caught.value) == f"gaussian_filter: {words}"


def test_gradient_of_another_shape_or_dtype_is_an_error(core: Core) -> None:
    values, lattice = case(core, 2, 3)
    with pytest.raises(ValueError, match="'grad' must have shape"):
        core.gaussian_filter_features_grad(values, lattice, values[:, 1:])
    with pytest.raises(TypeError, match="'grad' must be float32, got float64"):
        core.gaussian_filter_features_grad(values, lattice, values.astype(np.float64))


def test_half_of_a_lattice_is_an_error(core: Core) -> None:
    values, lattice = case(core, 2, 3)
    with pytest.raises(ValueError, match="what permutohedral_lattice returned"):
        core.gaussian_filter(values, lattice[:5])
