"""The lattice in stock TF: against the oracle, in graphs of unknown sizes, errors."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.crf_cases import features, points_of
from helpers.tolerances import FLOAT_DTYPES, assert_close, assert_same, name_of
from hypothesis import given, settings
from reference.permutohedral_lattice import permutohedral_lattice

from tfseg_ops import pure_tf


def assert_same_lattice(actual: Any, expected: Any) -> None:
    """All members but the norms, which are sums, are the same to the last bit."""
    for name, one, wanted in zip(actual._fields, actual, expected, strict=True):
        if name == "norms":
            assert_close(one, wanted)
        else:
            assert_same(one, wanted)


@settings(max_examples=60)
@given(features())
def test_drawn_lattice_is_that_of_the_oracle(points: np.ndarray) -> None:
    assert_same_lattice(pure_tf.permutohedral_lattice(points), permutohedral_lattice(points))


def test_one_trace_serves_all_sizes() -> None:
    build = tf.function(
        pure_tf.permutohedral_lattice, input_signature=[tf.TensorSpec([None, None, 3])]
    )
    generator = np.random.default_rng(0)
    for batch, count in [(2, 7), (1, 1), (0, 3), (3, 0)]:
        points = points_of(generator, batch, count, 3, 2.0)
        assert_same_lattice(build(points), permutohedral_lattice(points))


@pytest.mark.parametrize(("batch", "count"), [(2, 5), (None, None), (2, None)])
def test_static_shapes_are_what_can_be_known(batch: int | None, count: int | None) -> None:
    bound = None if count is None else count * 4
    trace = tf.function(pure_tf.permutohedral_lattice).get_concrete_function(
        tf.TensorSpec([batch, count, 3])
    )
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


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_features_of_any_floating_dtype_are_computed_in_float32(dtype: Any) -> None:
    points = points_of(np.random.default_rng(0), 2, 9, 3, 3.0).astype(dtype)
    lattice = pure_tf.permutohedral_lattice(points)
    assert_same_lattice(lattice, permutohedral_lattice(points.astype(np.float32)))


def test_only_the_features_have_a_gradient() -> None:
    points = tf.constant(points_of(np.random.default_rng(0), 1, 6, 2, 2.0), tf.float16)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(points)
        lattice = pure_tf.permutohedral_lattice(points)
    assert_same(tape.gradient(lattice.features, points), np.ones(points.shape, np.float16))
    for member in lattice[1:]:
        if member.dtype.is_floating:
            assert tape.gradient(member, points) is None


ILLEGAL = [(np.nan, "nan"), (-np.inf, "-inf"), (100001.0, "100001"), (-3e38, "-3e+38")]


@pytest.mark.parametrize(("value", "text"), ILLEGAL)
def test_illegal_feature_is_named(value: float, text: str) -> None:
    points = np.zeros((2, 4, 3), np.float32)
    points[1, 2, 0] = points[1, 3, 1] = value
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        pure_tf.permutohedral_lattice(points)
    assert str(caught.value) == (
        f"permutohedral_lattice: 'features' must lie in [-100000, 100000], got {text} at [1, 2, 0]"
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"lie in \[-100000, 100000\]"):
        tf.function(pure_tf.permutohedral_lattice)(points)


def test_largest_features_are_legal() -> None:
    points = np.array([[[1e5, -1e5], [-1e5, 1e5], [1e5, 1e5]]], np.float32)
    assert_same_lattice(pure_tf.permutohedral_lattice(points), permutohedral_lattice(points))


def test_number_of_dimensions_must_be_known() -> None:
    build = tf.function(
        pure_tf.permutohedral_lattice, input_signature=[tf.TensorSpec([None, None, None])]
    )
    with pytest.raises(ValueError, match="must have a static number of dimensions"):
        build.get_concrete_function()
