"""The mean-field step in stock TF: against matrices, gradients, dtypes, shapes."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.crf_cases import (
    NORMALIZATIONS,
    WEIGHT_KINDS,
    compatibility_of,
    filter_matrices,
    kernel_weights_of,
    points_of,
    softmax,
    step_of,
)
from helpers.tolerances import FLOAT_DTYPES, assert_close, name_of
from reference.permutohedral_lattice import permutohedral_lattice

from tfseg_ops import pure_tf
from tfseg_ops.pure_tf.permutohedral_lattice import Lattice
from tfseg_ops.testing import check_gradients

CLASSES = 3


def lattices_of(count: int = 7, batch: int = 2) -> list[Lattice]:
    """Of a plane and of a space of five dimensions."""
    generator = np.random.default_rng(0)
    clouds = [points_of(generator, batch, count, dimensions, 1.5) for dimensions in (2, 5)]
    return [Lattice(*map(tf.constant, permutohedral_lattice(points))) for points in clouds]


def q_and_unary(count: int = 7, batch: int = 2, dtype: Any = np.float64) -> list[np.ndarray]:
    generator = np.random.default_rng(6)
    unary = generator.normal(size=(2, batch, count, CLASSES))
    return [softmax(unary[0]).astype(dtype), unary[1].astype(dtype)]


@pytest.mark.parametrize("with_compatibility", [False, True], ids=["potts", "matrix"])
@pytest.mark.parametrize("weights", WEIGHT_KINDS)
@pytest.mark.parametrize("normalization", [*NORMALIZATIONS, ["after", "before"]], ids=str)
def test_step_is_the_formula(normalization: Any, weights: str, with_compatibility: bool) -> None:
    lattices = [*lattices_of(), lattices_of()[0]]
    if not isinstance(normalization, str):
        normalization = [*normalization, "none"]
    q, unary = q_and_unary()
    kernel_weights = kernel_weights_of(weights, 3, CLASSES)
    matrix = compatibility_of(CLASSES) if with_compatibility else None
    result = pure_tf.mean_field_step(q, unary, lattices, kernel_weights, matrix, normalization)
    matrices = [filter_matrices(lattice) for lattice in lattices]
    expected = step_of(q, unary, matrices, kernel_weights, matrix, normalization)
    # The norms are float32.
    np.testing.assert_allclose(result, expected, 1e-5, 1e-6)


@pytest.mark.parametrize(
    ("normalization", "with_compatibility"),
    [*((name, True) for name in NORMALIZATIONS), ("symmetric", False)],
)
def test_gradients_are_those_of_central_differences(
    normalization: str, with_compatibility: bool
) -> None:
    """To q, unary, weights and compatibility."""
    lattices = lattices_of(4, 1)
    arrays = q_and_unary(4, 1) + kernel_weights_of("mixed", 2, CLASSES)
    if with_compatibility:
        arrays += [compatibility_of(CLASSES)]

    @tf.function
    def step(q: Any, unary: Any, first: Any, second: Any, *matrix: Any) -> tf.Tensor:
        return pure_tf.mean_field_step(
            q, unary, lattices, [first, second], *(matrix or [None]), normalization
        )

    check_gradients(
        step, arrays, names=["q", "unary", "first", "second", "compatibility"][: len(arrays)]
    )


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_gradient_to_the_features_comes_from_filters_and_norms(normalization: str) -> None:
    """That of the same step over the matrix of the lattice, taken for a Gaussian kernel's."""
    (lattice, _), (q, unary) = lattices_of(), q_and_unary()
    upstream = np.random.default_rng(7).normal(size=q.shape)
    with tf.GradientTape() as tape:
        tape.watch(lattice.features)
        output = pure_tf.mean_field_step(q, unary, lattice, 2.0, None, normalization)
    gradient = tape.gradient(output, lattice.features, output_gradients=tf.constant(upstream))

    matrix = tf.constant(filter_matrices(lattice))
    with tf.GradientTape() as tape:
        tape.watch(matrix)
        norms = tf.reduce_sum(matrix, -1, keepdims=True)
        after = {"symmetric": norms**-0.5, "after": 1 / norms}.get(normalization, norms**0)
        before = {"symmetric": norms**-0.5, "before": 1 / norms}.get(normalization, norms**0)
        output = tf.nn.softmax(unary + 2 * after * (matrix @ (before * q)))
    to_kernel = tape.gradient(output, matrix, output_gradients=tf.constant(upstream))
    products = (to_kernel * matrix).numpy()
    products += products.transpose(0, 2, 1)
    f = lattice.features.numpy().astype(np.float64)
    expected = products @ f - f * products.sum(-1, keepdims=True)
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(gradient, expected, 1e-3, 1e-4)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_result_has_the_dtype_of_q(dtype: Any) -> None:
    q, unary = q_and_unary(dtype=dtype)
    lattices = lattices_of()
    result = pure_tf.mean_field_step(q, unary, lattices, [1.0, 2.0])
    assert result.dtype == dtype
    matrices = [filter_matrices(lattice) for lattice in lattices]
    expected = step_of(q, unary, matrices, [1.0, 2.0])
    wide = np.float32 if dtype == np.float64 else dtype
    assert_close(result, expected, wide)


@pytest.mark.parametrize("known", [True, False])
def test_any_dimensions_may_lie_between_batch_and_classes(known: bool) -> None:
    lattices = lattices_of(12)
    q, unary = q_and_unary(12, dtype=np.float32)
    expected = pure_tf.mean_field_step(q, unary, lattices, [1.0, 2.0])
    for shape in [(2, 3, 4, CLASSES), (2, 3, 2, 2, CLASSES)]:
        spec = tf.TensorSpec(shape if known else None)
        step = tf.function(
            lambda q, u: pure_tf.mean_field_step(q, u, lattices, tf.constant([1.0, 2.0])),
            input_signature=[spec, spec],
        )
        result = step(q.reshape(shape), unary.reshape(shape))
        assert result.shape == shape
        assert_close(result, tf.reshape(expected, shape))


def test_weights_may_be_one_tensor_and_one_weight_may_stand_alone() -> None:
    lattices, (q, unary) = lattices_of(), q_and_unary()
    expected = pure_tf.mean_field_step(q, unary, lattices, [1.0, 2.0])
    result = pure_tf.mean_field_step(q, unary, lattices, tf.constant([1.0, 2.0]))
    assert_close(result, expected)
    one = pure_tf.mean_field_step(q, unary, lattices[0], 2)
    assert_close(one, pure_tf.mean_field_step(q, unary, lattices[:1], np.array([2.0])))


def test_step_without_lattices_is_a_softmax() -> None:
    q, unary = q_and_unary()
    assert_close(pure_tf.mean_field_step(q, unary, [], []), softmax(unary))
