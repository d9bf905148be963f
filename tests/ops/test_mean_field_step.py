"""`ops.mean_field_step`: against matrices, gradients, paths, dtypes, shapes."""

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
from helpers.runners import RUNNERS
from helpers.tolerances import FLOAT_DTYPES, assert_close, assert_same_bits, name_of
from reference.permutohedral_lattice import permutohedral_lattice

from tfseg_ops import ops
from tfseg_ops.testing import check_gradients, check_paths

CLASSES = 3
PATHS = [path for path in RUNNERS if "unknown" not in path]


def clouds(count: int = 7, batch: int = 2) -> list[np.ndarray]:
    """On a plane and in a space of five dimensions."""
    generator = np.random.default_rng(0)
    return [points_of(generator, batch, count, dimensions, 1.5) for dimensions in (2, 5)]


def matrices() -> list[np.ndarray]:
    return [filter_matrices(permutohedral_lattice(points)) for points in clouds()]


def q_and_unary(count: int = 7, batch: int = 2, dtype: Any = np.float64) -> list[np.ndarray]:
    generator = np.random.default_rng(6)
    unary = generator.normal(size=(2, batch, count, CLASSES))
    return [softmax(unary[0]).astype(dtype), unary[1].astype(dtype)]


def step(weights: str, compatibility: Any = None, normalization: Any = "symmetric") -> Any:
    """A function of q, unary and the points of both kernels."""

    def run(q: tf.Tensor, unary: tf.Tensor, *points: tf.Tensor) -> tf.Tensor:
        lattices = [ops.permutohedral_lattice(cloud) for cloud in points]
        kernel_weights = kernel_weights_of(weights, len(points), CLASSES)
        return ops.mean_field_step(q, unary, lattices, kernel_weights, compatibility, normalization)

    return run


@pytest.mark.parametrize("path", ["eager", "xla", "portable"])
@pytest.mark.parametrize("with_compatibility", [False, True], ids=["potts", "matrix"])
@pytest.mark.parametrize("weights", WEIGHT_KINDS)
@pytest.mark.parametrize("normalization", [*NORMALIZATIONS, ["after", "none"]], ids=str)
def test_step_is_the_formula(
    normalization: Any, weights: str, with_compatibility: bool, path: str
) -> None:
    matrix = compatibility_of(CLASSES) if with_compatibility else None
    arrays = q_and_unary()
    result = RUNNERS[path](step(weights, matrix, normalization), [*arrays, *clouds()])
    kernel_weights = kernel_weights_of(weights, 2, CLASSES)
    expected = step_of(*arrays, matrices(), kernel_weights, matrix, normalization)
    # The norms are float32.
    np.testing.assert_allclose(result, expected, 1e-5, 1e-6)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
@pytest.mark.parametrize("weights", WEIGHT_KINDS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_all_paths_agree(normalization: str, weights: str, dtype: Any) -> None:
    """Also in the gradients to q, unary and features."""
    tolerance = 1e-4 if np.dtype(dtype).itemsize > 2 else None
    check_paths(
        step(weights, None, normalization),
        [*q_and_unary(dtype=dtype), *clouds()],
        rtol=tolerance,
        atol=tolerance,
        names=["q", "unary", "plane", "space"],
    )


@pytest.mark.parametrize("path", ["native", "portable"])
@pytest.mark.parametrize(
    ("normalization", "with_compatibility"),
    [*((name, True) for name in NORMALIZATIONS), ("symmetric", False)],
)
def test_gradients_are_those_of_central_differences(
    normalization: str, with_compatibility: bool, path: str
) -> None:
    """To q, unary, weights and compatibility."""
    arrays = q_and_unary(4, 1) + kernel_weights_of("mixed", 2, CLASSES)
    if with_compatibility:
        arrays += [compatibility_of(CLASSES)]
    names = ["q", "unary", "first", "second", "compatibility"][: len(arrays)]

    def run(_: Any, *inputs: Any) -> Any:
        lattices = [ops.permutohedral_lattice(cloud) for cloud in clouds(4, 1)]

        @tf.function
        def of(q: Any, unary: Any, first: Any, second: Any, *matrix: Any) -> tf.Tensor:
            return ops.mean_field_step(
                q, unary, lattices, [first, second], *(matrix or [None]), normalization
            )

        check_gradients(of, arrays, names=names)

    RUNNERS["portable" if path == "portable" else "eager"](run, [arrays[0]])


@pytest.mark.parametrize("path", ["eager", "portable"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_gradient_to_the_features_comes_from_filters_and_norms(
    normalization: str, path: str
) -> None:
    """That of the same step over the matrix of the lattice, taken for a Gaussian kernel's."""
    points, (q, unary) = clouds()[0], q_and_unary()
    upstream = np.random.default_rng(7).normal(size=q.shape)

    def gradient(points: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(points)
            lattice = ops.permutohedral_lattice(points)
            output = ops.mean_field_step(q, unary, lattice, 2.0, None, normalization)
        return tape.gradient(output, points, output_gradients=tf.constant(upstream))

    result = RUNNERS[path](gradient, [points])
    matrix = tf.constant(matrices()[0])
    with tf.GradientTape() as tape:
        tape.watch(matrix)
        norms = tf.reduce_sum(matrix, -1, keepdims=True)
        after = {"symmetric": norms**-0.5, "after": 1 / norms}.get(normalization, norms**0)
        before = {"symmetric": norms**-0.5, "before": 1 / norms}.get(normalization, norms**0)
        output = tf.nn.softmax(unary + 2 * after * (matrix @ (before * q)))
    to_kernel = tape.gradient(output, matrix, output_gradients=tf.constant(upstream))
    products = (to_kernel * matrix).numpy()
    products += products.transpose(0, 2, 1)
    f = points.astype(np.float64)
    expected = products @ f - f * products.sum(-1, keepdims=True)
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(result, expected, 1e-3, 1e-4)


@pytest.mark.parametrize("path", ["eager", "graph", "portable"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 2, 2), (2, 12)], ids=str)
def test_any_dimensions_may_lie_between_batch_and_classes(
    shape: tuple[int, ...], path: str
) -> None:
    flat = [*q_and_unary(12, dtype=np.float32), *clouds(12)]
    expected = RUNNERS[path](step("scalars"), flat)
    arrays = [array.reshape(*shape, CLASSES) for array in flat[:2]]
    result = RUNNERS[path](step("scalars"), [*arrays, *flat[2:]])
    assert_close(result.numpy().reshape(2, 12, CLASSES), expected)


@pytest.mark.parametrize("path", ["eager", "portable"])
@pytest.mark.parametrize("kernels", [0, 1, 3])
def test_any_number_of_kernels(kernels: int, path: str) -> None:
    arrays = q_and_unary()
    some = (clouds() * 2)[:kernels]
    result = RUNNERS[path](step("classes"), [*arrays, *some])
    weights = kernel_weights_of("classes", kernels, CLASSES)
    expected = step_of(*arrays, (matrices() * 2)[:kernels], weights)
    np.testing.assert_allclose(result, expected, 1e-5, 1e-6)


@pytest.mark.parametrize("path", PATHS)
def test_batch_is_its_single_images(path: str) -> None:
    arrays = [*q_and_unary(dtype=np.float32), *clouds()]
    together = RUNNERS[path](step("scalars"), arrays).numpy()
    for b in range(2):
        alone = RUNNERS[path](step("scalars"), [array[b : b + 1] for array in arrays]).numpy()
        assert_same_bits(together[b : b + 1], alone)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", [(0, 4), (2, 0)], ids=str)
def test_no_images_and_no_points_give_nothing(shape: tuple[int, int], path: str) -> None:
    arrays = [np.zeros((*shape, size), np.float32) for size in (CLASSES, CLASSES, 2)]
    assert RUNNERS[path](step("scalars"), arrays).shape == (*shape, CLASSES)


def test_weights_may_be_one_tensor_and_one_weight_may_stand_alone() -> None:
    lattices = [ops.permutohedral_lattice(points) for points in clouds()]
    q, unary = q_and_unary()
    expected = ops.mean_field_step(q, unary, lattices, [1.0, 2.0])
    assert_close(ops.mean_field_step(q, unary, lattices, tf.constant([1.0, 2.0])), expected)
    one = ops.mean_field_step(q, unary, lattices[0], 2)
    assert_close(one, ops.mean_field_step(q, unary, lattices[:1], np.array([2.0])))


def test_probabilities_stay_probabilities_for_extreme_logits() -> None:
    q, unary = q_and_unary(dtype=np.float32)
    unary[0, :3, 1] = 3e38
    unary[1, :3, 0] = -np.inf
    lattices = [ops.permutohedral_lattice(points) for points in clouds()]
    result = ops.mean_field_step(q, unary, lattices, [3.0, 10.0]).numpy()
    assert_close(result.sum(-1), np.ones(result.shape[:2], np.float32))
    assert_close(result[1, :3, 0], np.zeros(3, np.float32))


@pytest.mark.parametrize("value", [None, 3, [None]], ids=str)
def test_normalization_that_is_no_name_is_named(value: Any) -> None:
    q, unary = q_and_unary()
    lattice = ops.permutohedral_lattice(clouds()[0])
    words = "mean_field_step: 'normalization' must be symmetric, before, after or none, got "
    with pytest.raises(ValueError, match=words):
        ops.mean_field_step(q, unary, lattice, 1.0, None, value)


@pytest.mark.parametrize("value", [None, "many"])
def test_weights_that_are_no_list_are_named(value: Any) -> None:
    q, unary = q_and_unary()
    lattice = ops.permutohedral_lattice(clouds()[0])
    words = f"'kernel_weights' must be a list of weights, got {type(value).__name__}"
    with pytest.raises(TypeError, match=words):
        ops.mean_field_step(q, unary, lattice, value)
