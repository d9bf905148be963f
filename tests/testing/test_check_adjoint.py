"""Shows `check_adjoint` passing on a transpose and failing on anything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfseg_ops.testing import check_adjoint

GENERATOR = np.random.default_rng(0)
MATRIX = GENERATOR.normal(size=(3, 5))
X = GENERATOR.normal(size=5)
Y = GENERATOR.normal(size=3)


def forward(x: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matvec(tf.cast(MATRIX, x.dtype), x)


def adjoint(y: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matvec(tf.cast(MATRIX, y.dtype), y, transpose_a=True)


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32, tf.float16, tf.bfloat16])
def test_transpose_passes(dtype: tf.DType) -> None:
    check_adjoint(forward, adjoint, tf.cast(X, dtype), tf.cast(Y, dtype))


def test_structures_pass() -> None:
    check_adjoint(
        lambda x: {"a": forward(x[0]), "b": 2 * x[1]},
        lambda y: (adjoint(y["a"]), 2 * y["b"]),
        (X, np.ones([2, 2])),
        {"a": Y, "b": np.full([2, 2], 3.0)},
    )


def test_orthogonal_vectors_pass() -> None:
    check_adjoint(
        lambda x: x[1:] - x[:-1],
        lambda y: tf.concat([[0.0], y], 0) - tf.concat([y, [0.0]], 0),
        np.full(100, 0.1, np.float32),
        GENERATOR.normal(size=99).astype(np.float32),
    )


def test_empty_vectors_pass() -> None:
    check_adjoint(tf.identity, tf.identity, np.zeros([0, 2]), np.zeros([0, 2]))


def test_wrong_adjoint_fails_with_both_numbers() -> None:
    with pytest.raises(AssertionError) as failure:
        check_adjoint(forward, lambda y: 1.5 * adjoint(y), X, Y)
    left = float((MATRIX @ X) @ Y)
    assert f"check_adjoint: <A x, y> = {left:.8g}"[:-2] in str(failure.value)
    assert f"<x, A^T y> = {1.5 * left:.8g}"[:-2] in str(failure.value)


def test_adjoint_wrong_in_one_element_fails() -> None:
    with pytest.raises(AssertionError, match="tolerance"):
        check_adjoint(forward, lambda y: adjoint(y) + np.eye(5)[2] * 1e-6, X, Y)


def test_zero_forward_fails() -> None:
    with pytest.raises(AssertionError, match="<A x, y> = 0"):
        check_adjoint(lambda x: 0 * forward(x), adjoint, X, Y)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_value_that_is_not_finite_fails(value: float) -> None:
    with pytest.raises(AssertionError):
        check_adjoint(lambda x: forward(x) * value, adjoint, X, Y)
    with pytest.raises(AssertionError):
        check_adjoint(forward, lambda y: adjoint(y) * value, X, Y)
    with pytest.raises(AssertionError):
        check_adjoint(lambda x: forward(x) * value, lambda y: adjoint(y) * value, X, Y)


def test_adjoint_of_another_shape_fails() -> None:
    with pytest.raises(AssertionError, match=r"shapes of x, \[\[5\]\], got \[\[1\]\]"):
        check_adjoint(forward, lambda y: tf.reduce_sum(adjoint(y), keepdims=True), X, Y)


def test_y_of_another_shape_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"'y' must have the shapes of forward\(x\), \[\[3\]\], got"
    ):
        check_adjoint(forward, lambda y: y, X, np.ones(1))


def test_tolerance_is_used() -> None:
    def wrong(y: tf.Tensor) -> Any:
        return adjoint(y) * 1.001

    with pytest.raises(AssertionError):
        check_adjoint(forward, wrong, X, Y)
    check_adjoint(forward, wrong, X, Y, rtol=1e-2)
