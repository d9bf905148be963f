"""`ops.gaussian_filter`: against matrices, adjoint, gradients, paths, edges."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.crf_cases import exact_matrices, features, filter_matrices, points_of
from helpers.runners import RUNNERS
from helpers.tolerances import FLOAT_DTYPES, assert_close, assert_same_bits, name_of
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.permutohedral_lattice import permutohedral_lattice

from tfseg_ops import ops
from tfseg_ops.testing import check_adjoint, check_gradients, check_paths

PATHS = [path for path in RUNNERS if "unknown" not in path]


def values_at(points: np.ndarray, channels: int = 3, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(*points.shape[:2], channels)).astype(dtype)


def cloud(count: int = 11, dimensions: int = 2, spread: float = 2.0) -> np.ndarray:
    return points_of(np.random.default_rng(0), 2, count, dimensions, spread)


def filtered(points: Any, values: Any) -> tf.Tensor:
    return ops.gaussian_filter(values, ops.permutohedral_lattice(points))


@settings(max_examples=80)
@given(features(), st.sampled_from([1, 2, 3, 5, 8, 21]), st.sampled_from(FLOAT_DTYPES))
def test_drawn_filter_is_a_product_with_the_matrix_of_the_lattice(
    points: np.ndarray, channels: int, dtype: Any
) -> None:
    values = values_at(points, channels, dtype)
    result = filtered(points, values)
    assert result.dtype == dtype
    matrices = filter_matrices(permutohedral_lattice(points))
    assert_close(result, matrices @ values.astype(np.float64))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
@pytest.mark.parametrize("dimensions", [2, 3, 5, 6])
def test_all_paths_agree(dimensions: int, dtype: Any) -> None:
    """Also in both gradients."""
    points = cloud(9, dimensions)
    tolerance = 1e-4 if np.dtype(dtype).itemsize > 2 else None
    check_paths(filtered, [points, values_at(points, 4, dtype)], rtol=tolerance, atol=tolerance)


@settings(max_examples=30)
@given(features())
def test_gradient_to_the_values_is_the_transpose(points: np.ndarray) -> None:
    lattice = ops.permutohedral_lattice(points)

    def transpose(upstream: tf.Tensor) -> tf.Tensor:
        values = tf.zeros_like(upstream)
        with tf.GradientTape() as tape:
            tape.watch(values)
            output = ops.gaussian_filter(values, lattice)
        return tape.gradient(output, values, output_gradients=upstream)

    check_adjoint(
        lambda values: ops.gaussian_filter(values, lattice),
        transpose,
        values_at(points),
        values_at(points)[:, ::-1].copy(),
    )


def test_gradients_to_the_values_are_those_of_central_differences() -> None:
    lattice = ops.permutohedral_lattice(cloud(3))
    check_gradients(
        lambda values: ops.gaussian_filter(values, lattice), [values_at(cloud(3), 2)], order=2
    )


@pytest.mark.parametrize("path", PATHS)
def test_gradient_to_the_features_is_the_filter_of_values_times_features(path: str) -> None:
    """The formula of the docstring, with matrices."""
    points = cloud(dimensions=3)
    values = values_at(points)
    upstream = values[:, ::-1].copy()

    def gradient(points: tf.Tensor, values: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(points)
            output = filtered(points, values)
        return tape.gradient(output, points, output_gradients=upstream)

    result = RUNNERS[path](gradient, [points, values, upstream])
    matrix, f = filter_matrices(permutohedral_lattice(points)), points.astype(np.float64)
    products = matrix * (upstream @ values.transpose(0, 2, 1))
    products += matrix.transpose(0, 2, 1) * (values @ upstream.transpose(0, 2, 1))
    expected = products @ f - f * products.sum(-1, keepdims=True)
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, expected, 1e-4, 1e-4)


def test_gradient_to_the_features_is_near_that_of_the_gaussian() -> None:
    """Of weighted means: 7.4 % in the norm were measured."""
    generator = np.random.default_rng(0)
    points = tf.constant(generator.normal(size=(1, 300, 2)), tf.float32)
    values = tf.constant(np.sin(2 * points) + 0.1 * generator.normal(size=points.shape), tf.float32)
    upstream = tf.constant(generator.normal(size=points.shape), tf.float32)
    gradients = []
    for exact in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(points)
            if exact:
                distances = tf.reduce_sum(tf.square(points[:, :, None] - points[:, None]), -1)
                kernel = tf.exp(-0.5 * distances)
                means = kernel @ values / tf.reduce_sum(kernel, -1, keepdims=True)
            else:
                lattice = ops.permutohedral_lattice(points)
                ones = ops.gaussian_filter(tf.ones([1, 300, 1]), lattice)
                means = ops.gaussian_filter(values, lattice) / ones
        gradients.append(tape.gradient(means, points, output_gradients=upstream).numpy())
    error = np.linalg.norm(gradients[0] - gradients[1]) / np.linalg.norm(gradients[1])
    assert error < 0.12


@settings(max_examples=20)
@given(st.randoms(use_true_random=False))
def test_order_of_points_changes_nothing(random: Any) -> None:
    points = cloud(20, 3)
    order = list(range(20))
    random.shuffle(order)
    values = values_at(points)
    assert_close(
        filtered(points[:, order], values[:, order]), filtered(points, values).numpy()[:, order]
    )


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("path", PATHS)
def test_constant_signal_divided_by_norms_is_constant(path: str, dimensions: int) -> None:
    def mean(points: tf.Tensor) -> tf.Tensor:
        lattice = ops.permutohedral_lattice(points)
        ones = tf.ones([2, 11, 2])
        return ops.gaussian_filter(7 * ones, lattice) / lattice.norms[..., None]

    result = RUNNERS[path](mean, [cloud(dimensions=dimensions)])
    assert_close(result, np.full((2, 11, 2), 7, np.float32))


@pytest.mark.parametrize(
    ("dimensions", "spread", "bound"),
    [(2, 1.0, 0.012), (2, 3.0, 0.035), (3, 1.0, 0.022), (3, 3.0, 0.1), (5, 1.0, 0.085)],
)
def test_error_against_the_gaussian_is_bounded(
    dimensions: int, spread: float, bound: float
) -> None:
    """Root mean square of means of noise; measured values are two thirds of the bounds."""
    generator = np.random.default_rng(0)
    points = generator.normal(0, spread, (1, 400, dimensions)).astype(np.float32)
    values = generator.normal(size=(1, 400, 1)).astype(np.float32)
    lattice = ops.permutohedral_lattice(points)
    means = ops.gaussian_filter(values, lattice) / lattice.norms[..., None]
    kernel = exact_matrices(points)
    exact = kernel @ values / kernel.sum(-1, keepdims=True)
    assert np.sqrt(np.mean(np.square(means - exact))) < bound


@pytest.mark.parametrize("path", PATHS)
def test_batch_is_its_single_images(path: str) -> None:
    points, values = cloud(30, 3), values_at(cloud(30, 3), 5, np.float32)
    together = RUNNERS[path](filtered, [points, values]).numpy()
    for b in range(2):
        alone = RUNNERS[path](filtered, [points[b : b + 1], values[b : b + 1]]).numpy()
        assert_same_bits(together[b : b + 1], alone)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("shape", "channels"), [((0, 4, 2), 3), ((2, 0, 2), 3), ((1, 4, 2), 0)], ids=str
)
def test_no_points_and_no_channels_give_nothing(
    shape: tuple[int, ...], channels: int, path: str
) -> None:
    points = np.zeros(shape, np.float32)

    def both(points: tf.Tensor, values: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([points, values])
            output = filtered(points, values)
        return [output, *tape.gradient(output, [points, values])]

    output, to_points, to_values = RUNNERS[path](both, [points, values_at(points, channels)])
    assert output.shape == to_values.shape == (*shape[:2], channels)
    assert to_points.shape == shape
    assert not to_points.numpy().any()


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_not_finite_stays_near(number: float) -> None:
    """Two heaps of points that have no vertices in common, nor neighbours of these."""
    points = np.zeros((1, 6, 2), np.float32)
    points[0, 3:] = 100
    values = np.ones((1, 6, 1))
    values[0, 0] = number
    result = filtered(points, values).numpy()
    assert not np.isfinite(result[0, :3]).any()
    assert np.isfinite(result[0, 3:]).all()


def test_lattice_crosses_functions() -> None:
    build = tf.function(lambda points: ops.permutohedral_lattice(points))
    run = tf.function(lambda values, lattice: ops.gaussian_filter(values, lattice))
    points = cloud()
    lattice = build(points)
    assert isinstance(lattice, ops.Lattice)
    assert_close(run(values_at(points), lattice), filtered(points, values_at(points)))
