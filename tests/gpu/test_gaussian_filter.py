"""`ops.gaussian_filter` on the GPU: what the core computes on the CPU.

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


def case_of(shape: Any, channels: int, dtype: Any) -> list[np.ndarray]:
    """Features, values, and the gradient from above."""
    generator = np.random.default_rng(0)
    features = generator.normal(0, 1, shape).astype(np.float32)
    return [features, *(generator.normal(0, 1, (2, *shape[:2], channels)).astype(dtype))]


def both_ways(features: tf.Tensor, values: tf.Tensor, upstream: tf.Tensor) -> list[tf.Tensor]:
    """The filter, and the gradients to values and features."""
    with tf.GradientTape() as tape:
        tape.watch([values, features])
        output = ops.gaussian_filter(values, ops.permutohedral_lattice(features))
    return [output, *tape.gradient(output, [values, features], output_gradients=upstream)]


def check(core: Core, results: list[np.ndarray], case: list[np.ndarray]) -> None:
    """Compares what `both_ways` gives with the core's."""
    features, values, upstream = case
    lattice = core.permutohedral_lattice(features)
    expected = [
        core.gaussian_filter(values, lattice),
        core.gaussian_filter(upstream, lattice, True),
        core.gaussian_filter_features_grad(values, lattice, upstream),
    ]
    for one, wanted in zip(results, expected, strict=True):
        assert one.dtype == wanted.dtype
        size = max(1, np.abs(wanted.astype(np.float64)).max(initial=0))
        # A gradient in float32 of sums in the accumulator's dtype.
        wide = np.float32 if values.dtype != np.float64 else one.dtype
        assert_close(one / size, wanted / size, one.dtype if one.itemsize == 2 else wide)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_results_and_gradients_are_those_of_the_core(core: Core, dtype: Any, path: str) -> None:
    for shape, channels in (
        ((2, 100, 2), 21),
        ((1, 70, 5), 4),
        ((3, 1, 1), 1),
        ((1, 40, 8), 3),
        ((2, 0, 3), 2),
        ((0, 5, 3), 2),
        ((1, 5, 3), 0),
    ):
        case = case_of(shape, channels, dtype)
        check(core, run(path, both_ways, *case), case)


@pytest.mark.parametrize("path", PATHS)
def test_indices_that_do_not_exist_contribute_nothing(core: Core, path: str) -> None:
    """As if the points that have such vertices, or are not there, held zeros and were not read."""
    generator = np.random.default_rng(1)
    features, values, _ = case_of((2, 60, 2), 5, np.float32)
    members = dict(zip(ops.Lattice._fields, core.permutohedral_lattice(features), strict=True))
    expected_members = tuple(members.values())
    lost = generator.uniform(size=(2, 60)) < 0.3
    wrong = np.array([-1, -(2**31), 2**31 - 1, 180], np.int32)
    of_lists = np.take_along_axis(lost, members["splat_points"], 1)
    for name, where in (("vertices", lost[..., None]), ("splat_points", of_lists)):
        drawn = generator.choice(wrong, members[name].shape)
        members[name] = np.where(where, drawn, members[name])
    absent = members["neighbours"] < 0
    members["neighbours"] = np.where(absent, np.int32(2**31 - 1), members["neighbours"])
    (output,) = run(
        path,
        lambda values, *members: ops.gaussian_filter(values, ops.Lattice(*members)),
        values,
        *members.values(),
    )
    kept = np.where(lost[..., None], np.float32(0), values)
    expected = core.gaussian_filter(kept, expected_members)
    assert_close(output, np.where(lost[..., None], np.float32(0), expected))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_results_are_the_same_bits_in_every_run(dtype: Any, path: str) -> None:
    case = case_of((2, 150, 3), 7, dtype)
    expected = run(path, both_ways, *case)
    for _ in range(3):
        for one, first in zip(run(path, both_ways, *case), expected, strict=True):
            assert_same_bits(one, first)
