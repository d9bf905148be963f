"""`ops.permutohedral_lattice`: oracle, paths, shapes, gradients, edges."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.crf_cases import features, points_of
from helpers.runners import RUNNERS
from helpers.tolerances import FLOAT_DTYPES, assert_close, assert_same, assert_same_bits, name_of
from hypothesis import given, settings
from reference.permutohedral_lattice import permutohedral_lattice

from tfseg_ops import ops


def assert_same_lattice(actual: Any, expected: Any) -> None:
    """All but the norms, which are sums, to the last bit; neighbours as far as they are written."""
    num_vertices = expected[-1]
    for name, one, wanted in zip(ops.Lattice._fields, actual, expected, strict=True):
        own = one.numpy()
        if name == "norms":
            assert_close(own, wanted)
        elif name == "neighbours":
            assert (own.dtype, own.shape) == (wanted.dtype, wanted.shape)
            for b, count in enumerate(num_vertices):
                assert_same(own[b, :, :count], wanted[b, :, :count])
        else:
            assert_same(own, wanted)


def build(points: Any) -> list[tf.Tensor]:
    return list(ops.permutohedral_lattice(points))


@settings(max_examples=60)
@given(features())
def test_drawn_lattice_is_that_of_the_oracle(points: np.ndarray) -> None:
    assert_same_lattice(build(points), permutohedral_lattice(points))


# Of unknown shapes stock TF and its graphs build none: tests/pure_tf.
@pytest.mark.parametrize("path", [path for path in RUNNERS if "unknown" not in path])
@pytest.mark.parametrize("dimensions", [1, 2, 3, 5, 8])
def test_every_path_builds_the_same_lattice(dimensions: int, path: str) -> None:
    points = points_of(np.random.default_rng(0), 2, 30, dimensions, 2.0)
    assert_same_lattice(RUNNERS[path](build, [points]), permutohedral_lattice(points))


@pytest.mark.parametrize("path", [path for path in RUNNERS if "unknown" not in path])
def test_images_of_a_batch_have_lattices_of_their_own(path: str) -> None:
    points = points_of(np.random.default_rng(0), 3, 20, 3, 2.0)
    together = RUNNERS[path](build, [points])
    for b in range(3):
        alone = RUNNERS[path](build, [points[b : b + 1]])
        count = int(alone[-1][0])
        for name, one, other in zip(ops.Lattice._fields, together, alone, strict=True):
            own, wanted = one[b : b + 1].numpy(), other.numpy()
            if name == "neighbours":
                own, wanted = own[:, :, :count], wanted[:, :, :count]
            assert_same_bits(own, wanted)


@pytest.mark.parametrize("path", [path for path in RUNNERS if "unknown" not in path])
@pytest.mark.parametrize("shape", [(0, 4, 2), (2, 0, 3), (1, 1, 5)], ids=str)
def test_no_points_and_one_point(shape: tuple[int, ...], path: str) -> None:
    points = np.full(shape, 0.3, np.float32)
    assert_same_lattice(RUNNERS[path](build, [points]), permutohedral_lattice(points))


@pytest.mark.parametrize("path", [path for path in RUNNERS if "unknown" not in path])
def test_identical_points_share_their_vertices(path: str) -> None:
    points = np.full((1, 50, 5), 1.7, np.float32)
    lattice = ops.Lattice(*RUNNERS[path](build, [points]))
    assert int(lattice.num_vertices[0]) == 6
    assert_same(lattice.vertices, np.tile(np.arange(6, dtype=np.int32), (1, 50, 1)))
    assert_close(lattice.norms, np.full((1, 50), lattice.norms[0, 0]))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_features_of_any_floating_dtype_are_computed_in_float32(dtype: Any) -> None:
    points = points_of(np.random.default_rng(0), 2, 9, 3, 3.0).astype(dtype)
    assert_same_lattice(build(points), permutohedral_lattice(points.astype(np.float32)))


def test_lists_are_features_too() -> None:
    points = [[[0, 1], [2, 3]]]
    assert_same_lattice(build(points), permutohedral_lattice(np.array(points, np.float32)))


def test_only_the_features_have_a_gradient() -> None:
    points = tf.constant(points_of(np.random.default_rng(0), 1, 6, 2, 2.0), tf.float16)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(points)
        lattice = ops.permutohedral_lattice(points)
    assert_same(tape.gradient(lattice.features, points), np.ones(points.shape, np.float16))
    assert tape.gradient(lattice.weights, points) is None
    assert tape.gradient(lattice.norms, points) is None


@pytest.mark.parametrize(("batch", "count"), [(2, 5), (None, None), (2, None)])
def test_static_shapes_are_what_can_be_known(batch: int | None, count: int | None) -> None:
    bound = None if count is None else count * 4
    trace = tf.function(build).get_concrete_function(tf.TensorSpec([batch, count, 3]))
    assert [member.shape.as_list() for member in trace.structured_outputs] == [
        [batch, count, 3],
        [batch, count, 4],
        [batch, count, 4],
        [batch, bound],
        [batch, bound],
        [batch, None if bound is None else bound + 1],
        [batch, 4, bound, 2],
        [batch, count],
        [batch],
    ]
