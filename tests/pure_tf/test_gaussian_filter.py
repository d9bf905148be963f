"""The filter in stock TF: against matrices, its adjoint, gradients, dtypes, edges."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.crf_cases import exact_matrices, features, filter_matrices, points_of
from helpers.drawing import generators
from helpers.tolerances import FLOAT_DTYPES, assert_close, assert_same, name_of
from hypothesis import given, settings
from reference.permutohedral_lattice import permutohedral_lattice

from tfseg_ops import pure_tf
from tfseg_ops.pure_tf.gaussian_filter import linear, norms
from tfseg_ops.pure_tf.permutohedral_lattice import Lattice
from tfseg_ops.testing import check_adjoint, check_gradients


def lattice_of(points: np.ndarray) -> Lattice:
    """The oracle's."""
    return Lattice(*map(tf.constant, permutohedral_lattice(points)))


def values_at(points: np.ndarray, channels: int = 3, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(*points.shape[:2], channels)).astype(dtype)


def cloud(count: int = 11, dimensions: int = 2, spread: float = 2.0) -> np.ndarray:
    return points_of(np.random.default_rng(0), 2, count, dimensions, spread)


@settings(max_examples=50)
@given(features())
def test_drawn_filter_is_a_product_with_the_matrix_of_the_lattice(points: np.ndarray) -> None:
    lattice, values = lattice_of(points), values_at(points)
    expected = filter_matrices(lattice) @ values
    assert_close(pure_tf.gaussian_filter(values, lattice), expected)


@settings(max_examples=30)
@given(features())
def test_reversed_axes_are_the_transpose(points: np.ndarray) -> None:
    lattice = lattice_of(points)
    check_adjoint(
        lambda x: linear(x, lattice, reverse=False),
        lambda y: linear(y, lattice, reverse=True),
        values_at(points),
        values_at(points)[:, ::-1].copy(),
    )


def test_gradient_to_the_values_is_that_of_central_differences() -> None:
    """Of both orders, though of the second there is nothing but zeros and the transpose."""
    lattice = lattice_of(cloud(3))
    check_gradients(
        lambda values: pure_tf.gaussian_filter(values, lattice), [values_at(cloud(3), 2)], order=2
    )


def test_gradient_to_the_features_is_the_filter_of_values_times_features() -> None:
    """The formula of the docstring, with matrices."""
    points = cloud(dimensions=3)
    lattice, values = lattice_of(points), values_at(points)
    upstream = values[:, ::-1]
    with tf.GradientTape() as tape:
        tape.watch(lattice.features)
        output = pure_tf.gaussian_filter(values, lattice)
    gradient = tape.gradient(output, lattice.features, output_gradients=tf.constant(upstream))
    matrix, f = filter_matrices(lattice), points.astype(np.float64)
    products = matrix * (upstream @ values.transpose(0, 2, 1))
    products += matrix.transpose(0, 2, 1) * (values @ upstream.transpose(0, 2, 1))
    expected = products @ f - f * products.sum(-1, keepdims=True)
    assert gradient.dtype == tf.float32
    np.testing.assert_allclose(gradient, expected, 1e-4, 1e-4)


def test_gradient_of_the_norms_is_that_of_the_filter_of_ones() -> None:
    points = cloud()
    lattice = lattice_of(points)
    ones = tf.ones([*points.shape[:2], 1], tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(lattice.features)
        first = norms(lattice, tf.float64)
        second = pure_tf.gaussian_filter(ones, lattice)[..., 0]
        squares = tf.square(first), tf.square(second)
    assert_close(tf.cast(first, tf.float32), tf.cast(second, tf.float32))
    gradients = [tape.gradient(square, lattice.features) for square in squares]
    assert np.abs(gradients[0]).max() > 1e-2
    np.testing.assert_allclose(*gradients, 1e-4, 1e-5)


def test_gradient_to_features_is_not_computed_for_a_tape_that_does_not_watch_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    module = __import__("sys").modules["tfseg_ops.pure_tf.gaussian_filter"]
    original = module.features_grad
    monkeypatch.setattr(module, "features_grad", lambda *a: calls.append(1) or original(*a))
    lattice, values = lattice_of(cloud()), tf.constant(values_at(cloud()))
    for watched, count in [(values, 0), (lattice.features, 1)]:
        with tf.GradientTape() as tape:
            tape.watch(watched)
            output = pure_tf.gaussian_filter(values, lattice)
        assert tape.gradient(output, watched) is not None
        assert len(calls) == count


@settings(max_examples=20)
@given(generators)
def test_order_of_points_changes_nothing(generator: np.random.Generator) -> None:
    points = cloud(20, 3)
    order = generator.permutation(20)
    values = values_at(points)
    one = pure_tf.gaussian_filter(values, lattice_of(points)).numpy()
    other = pure_tf.gaussian_filter(values[:, order], lattice_of(points[:, order]))
    assert_close(other, one[:, order])


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5, 8])
def test_constant_signal_divided_by_norms_is_one(dimensions: int) -> None:
    lattice = lattice_of(cloud(dimensions=dimensions))
    filtered = pure_tf.gaussian_filter(7 * tf.ones([2, 11, 2]), lattice) / lattice.norms[..., None]
    assert_close(filtered, np.full((2, 11, 2), 7, np.float32))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_sums_are_kept_in_the_accumulator(dtype: Any) -> None:
    """4096 and ones at one place: half precision alone would lose the ones."""
    points = np.zeros((1, 65, 1), np.float32)
    values = np.ones((1, 65, 1), dtype)
    values[0, 0] = 4096
    lattice = lattice_of(points)
    result = pure_tf.gaussian_filter(values, lattice)
    assert result.dtype == dtype
    expected = filter_matrices(lattice) @ values.astype(np.float64)
    assert_close(result, expected.astype(dtype))


# Root mean square, as measured (0.0081, 0.0231, ...) and half as much again; in brackets the spread
# of the weighted means themselves.
@pytest.mark.parametrize(
    ("dimensions", "spread", "bound"),
    [
        (2, 1.0, 0.012),  # (0.07)
        (2, 3.0, 0.035),  # (0.23)
        (3, 1.0, 0.022),  # (0.07)
        (3, 3.0, 0.1),  # (0.43)
        (5, 1.0, 0.085),  # (0.13)
        (5, 3.0, 0.24),  # (0.86)
    ],
)
def test_error_against_the_gaussian_is_bounded(
    dimensions: int, spread: float, bound: float
) -> None:
    """Weighted means of noise of variance 1 at 400 points."""
    generator = np.random.default_rng(0)
    points = generator.normal(0, spread, (1, 400, dimensions)).astype(np.float32)
    values = generator.normal(size=(1, 400, 1))
    lattice = lattice_of(points)
    means = pure_tf.gaussian_filter(values, lattice) / tf.cast(lattice.norms, tf.float64)[..., None]
    kernel = exact_matrices(points)
    exact = kernel @ values / kernel.sum(-1, keepdims=True)
    assert np.sqrt(np.mean(np.square(means - exact))) < bound


def test_no_points_and_no_channels_give_nothing() -> None:
    for shape, channels in [((0, 4, 2), 3), ((2, 0, 2), 3), ((1, 4, 2), 0)]:
        points = np.zeros(shape, np.float32)
        result = pure_tf.gaussian_filter(values_at(points, channels), lattice_of(points))
        assert result.shape == (*shape[:2], channels)


def test_graph_of_unknown_sizes_gives_the_same() -> None:
    points = cloud()
    values = values_at(points, dtype=np.float32)
    run = tf.function(
        lambda f, v: pure_tf.gaussian_filter(v, pure_tf.permutohedral_lattice(f)),
        input_signature=[tf.TensorSpec([None, None, 2]), tf.TensorSpec([None, None, None])],
    )
    assert_same(run(points, values), pure_tf.gaussian_filter(values, lattice_of(points)).numpy())
