"""`numeric_gradient` on functions whose derivative is known."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfseg_ops.testing import numeric_gradient


def test_polynomial_gives_its_derivative() -> None:
    x = np.array([[1.0, -2.0], [0.5, 3.0]])
    gradient = numeric_gradient(lambda x: x**3, [x], 0)
    assert gradient.dtype == np.float64
    np.testing.assert_allclose(gradient, 3 * x**2, rtol=1e-8)


def test_each_input_is_differentiated_apart() -> None:
    a, b = np.array([2.0, 3.0]), np.array([5.0, -7.0])
    np.testing.assert_allclose(numeric_gradient(tf.multiply, [a, b], 0), b, rtol=1e-8)
    np.testing.assert_allclose(numeric_gradient(tf.multiply, [a, b], 1), a, rtol=1e-8)


def test_upstream_weighs_outputs_of_a_structure_and_skips_integers() -> None:
    def function(x: tf.Tensor) -> dict[str, object]:
        return {"a": 2 * x, "b": [tf.cast(x, tf.int32), tf.reduce_sum(x)], "c": None}

    upstream = {"a": np.array([1.0, 10.0]), "b": [None, 100.0]}
    gradient = numeric_gradient(function, [np.array([0.3, 0.4])], 0, upstream={**upstream})
    np.testing.assert_allclose(gradient, [102.0, 120.0], rtol=1e-8)


def test_float32_input_is_widened_and_integer_input_is_not() -> None:
    seen = []

    def function(x: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
        seen.append((x.dtype, k.dtype))
        return x * tf.cast(k, x.dtype)

    gradient = numeric_gradient(function, [np.float32(1.5), np.int32(4)], 0)
    assert set(seen) == {(tf.float64, tf.int32)}
    assert gradient.shape == ()
    np.testing.assert_allclose(gradient, 4.0, rtol=1e-8)


def test_large_coordinates_lose_no_accuracy() -> None:
    gradient = numeric_gradient(lambda x: 0.25 * x, [np.array([777.7, 123456789.1])], 0)
    np.testing.assert_allclose(gradient, 0.25, rtol=1e-9)


def test_empty_input_gives_empty_gradient() -> None:
    assert numeric_gradient(tf.identity, [np.zeros([0, 3])], 0).shape == (0, 3)


def test_output_that_is_not_finite_gives_nan() -> None:
    assert np.isnan(numeric_gradient(tf.sqrt, [np.array([-1.0])], 0)).all()


@pytest.mark.parametrize("index", [1, 2, -1])
def test_index_of_no_floating_input_is_refused(index: int) -> None:
    with pytest.raises(
        ValueError, match=r"numeric_gradient: 'index' must be .*, got " + str(index)
    ):
        numeric_gradient(lambda x, k: x, [np.ones(2), np.ones(2, np.int32)], index)


def test_upstream_that_does_not_fit_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"'upstream' must have the output's shape \[2\], got \[3\]"
    ):
        numeric_gradient(tf.identity, [np.ones(2)], 0, upstream=np.ones(3))
    with pytest.raises(
        ValueError, match="'upstream' must have one array for each of 1 outputs, got 2"
    ):
        numeric_gradient(tf.identity, [np.ones(2)], 0, upstream=[np.ones(2), np.ones(2)])


@pytest.mark.parametrize("step", [0.0, -1e-5, float("nan")])
def test_step_that_is_not_positive_is_refused(step: float) -> None:
    with pytest.raises(ValueError, match="numeric_gradient: 'step' must be positive"):
        numeric_gradient(tf.identity, [np.ones(2)], 0, step=step)


def test_complex_input_is_refused() -> None:
    with pytest.raises(
        TypeError, match="numeric_gradient: 'inputs' must not be complex, got complex128"
    ):
        numeric_gradient(tf.identity, [np.ones(2, np.complex128)], 0)
