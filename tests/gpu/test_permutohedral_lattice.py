"""`ops.permutohedral_lattice` on the GPU: what the core builds on the CPU, to the last bit."""

import types
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.gpu import PATHS, require_gpu, run
from helpers.tolerances import assert_same

from tfseg_ops import ops

require_gpu()
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device")]

Core = types.ModuleType


def features_of(shape: Any) -> np.ndarray:
    """Some points in the same place."""
    features = np.random.default_rng(0).normal(0, 2, shape).astype(np.float32)
    features[:, ::3] = np.round(features[:, ::3])
    return features


def check(core: Core, lattice: Any, features: np.ndarray) -> None:
    """Compares all members; the neighbours of vertices that there are."""
    expected = core.permutohedral_lattice(features)
    for name, one, wanted in zip(ops.Lattice._fields, lattice, expected, strict=True):
        if name == "neighbours":
            for b, count in enumerate(expected[-1]):
                assert_same(one[b, :, :count], wanted[b, :, :count])
        else:
            assert_same(one, wanted)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dimensions", [1, 2, 3, 5, 8])
def test_members_are_those_of_the_core(core: Core, dimensions: int, path: str) -> None:
    for shape in ((1, 1), (3, 70), (2, 20000), (0, 5), (2, 0)):
        features = features_of((*shape, dimensions))
        lattice = run(path, lambda points: list(ops.permutohedral_lattice(points)), features)
        check(core, lattice, features)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("number", [np.nan, np.inf, -2e5])
def test_illegal_features_are_errors_here_too(number: float, path: str) -> None:
    features = features_of((2, 9, 3))
    features[1, 4, 2] = number
    with pytest.raises(tf.errors.InvalidArgumentError, match="'features' must lie in"):
        run(path, lambda points: list(ops.permutohedral_lattice(points)), features)


def test_one_trace_serves_all_sizes(core: Core) -> None:
    build = tf.function(
        lambda points: list(ops.permutohedral_lattice(points)),
        input_signature=[tf.TensorSpec([None, None, None])],
    )
    for shape in ((1, 9, 2), (2, 30, 5), (1, 0, 3)):
        features = features_of(shape)
        check(core, run("eager", build, features), features)
