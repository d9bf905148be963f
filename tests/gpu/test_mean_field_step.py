"""`ops.mean_field_step` on the GPU: what the core computes on the CPU.

Only indices that do not exist differ: the CPU raises an error, on the GPU they contribute nothing.
"""

import types
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.gpu import PATHS, require_gpu, run
from helpers.tolerances import FLOAT_DTYPES, assert_close, assert_same_bits, name_of

from tfseg_ops import ops

require_gpu()
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device")]

Core = types.ModuleType

NORMALIZATIONS = ["symmetric", "before", "after", "none"]
DIMENSIONS = [2, 3]  # of the two lattices


def case_of(batch: int, points: int, classes: int, dtype: Any, diagonal: bool) -> list[np.ndarray]:
    """Features of two lattices, probabilities, unary, weights, and the gradient from above."""
    generator = np.random.default_rng(0)
    shape = (batch, points, classes)
    logits, unary, upstream = generator.normal(0, 1, (3, *shape))
    q = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    weights = generator.normal(0, 1, (2, *[classes] * (1 if diagonal else 2))) / classes
    features = [generator.normal(0, 1, (*shape[:2], size)) for size in DIMENSIONS]
    wide = np.float64 if dtype == np.float64 else np.float32
    return [
        *[one.astype(np.float32) for one in features],
        *[one.astype(dtype) for one in (q, unary, upstream)],
        weights.astype(wide),
    ]


def both_ways(normalization: str) -> Any:
    """A function of a case: the step, and all gradients."""

    def function(first: Any, second: Any, q: Any, unary: Any, upstream: Any, weights: Any) -> Any:
        inputs = [q, unary, weights, first, second]
        # What makes the matrices the weights themselves.
        compatibility = None if weights.shape.rank == 2 else -tf.eye(q.shape[-1], dtype=q.dtype)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            lattices = [ops.permutohedral_lattice(features) for features in (first, second)]
            output = ops.mean_field_step(q, unary, lattices, weights, compatibility, normalization)
        return [output, *tape.gradient(output, inputs, output_gradients=upstream)]

    return function


def check(core: Core, results: list[np.ndarray], case: list[np.ndarray], name: str) -> None:
    """Compares what `both_ways` gives with the core's."""
    first, second, q, unary, upstream, weights = case
    lattices = [core.permutohedral_lattice(features) for features in (first, second)]
    step = (q, unary, lattices, weights, [name] * 2)
    output = core.mean_field_step(*step)
    # The gradients begin with the output, whose rounding they would show.
    given = results[0].astype(q.dtype)
    expected = [
        output,
        *core.mean_field_step_grad(*step, given, upstream),
        *core.mean_field_step_features_grad(*step, given, upstream),
    ]
    for one, wanted in zip(results, expected, strict=True):
        assert one.dtype == wanted.dtype
        size = max(1, np.abs(wanted.astype(np.float64)).max(initial=0))
        wide = np.float32 if q.dtype != np.float64 else one.dtype
        assert_close(one / size, wanted / size, one.dtype if one.itemsize == 2 else wide)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_results_and_gradients_are_those_of_the_core(
    core: Core, dtype: Any, diagonal: bool, path: str
) -> None:
    for (batch, points, classes), name in zip(
        ((2, 60, 21), (1, 70, 1), (2, 1, 3), (1, 33, 40)), NORMALIZATIONS, strict=True
    ):
        case = case_of(batch, points, classes, dtype, diagonal)
        check(core, run(path, both_ways(name), *case), case, name)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("diagonal", [True, False])
def test_images_of_no_points_and_no_images_work(core: Core, diagonal: bool, path: str) -> None:
    for batch, points in ((2, 0), (0, 4)):
        case = case_of(batch, points, 3, np.float32, diagonal)
        check(core, run(path, both_ways("symmetric"), *case), case, "symmetric")


@pytest.mark.parametrize("path", PATHS)
def test_without_lattices_the_step_is_the_softmax(path: str) -> None:
    q, unary = case_of(2, 30, 7, np.float32, True)[2:4]
    (output,) = run(path, lambda q, unary: ops.mean_field_step(q, unary, [], []), q, unary)
    assert_close(output, tf.nn.softmax(unary).numpy())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_results_are_the_same_bits_in_every_run(dtype: Any, path: str) -> None:
    case = case_of(2, 120, 7, dtype, False)
    expected = run(path, both_ways("symmetric"), *case)
    for _ in range(3):
        for one, first in zip(run(path, both_ways("symmetric"), *case), expected, strict=True):
            assert_same_bits(one, first)
