"""Shows `check_gradients` passing on right gradients and failing on each kind of wrong one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfseg_ops.testing import check_gradients

X = np.random.default_rng(0).uniform(0.5, 2.0, size=(3, 4))


def cube_with(gradient: Callable[[tf.Tensor, tf.Tensor], Any]) -> Callable[[tf.Tensor], tf.Tensor]:
    """x**3, whose gradient is said to be gradient(upstream, x)."""

    @tf.custom_gradient
    def cube(x: tf.Tensor) -> Any:
        return x * x * x, lambda upstream: gradient(upstream, x)

    def function(x: tf.Tensor) -> tf.Tensor:
        return cube(x)

    return function


def one_element_wrong(upstream: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    right = upstream * 3 * x * x
    corner = tf.scatter_nd([[1] * x.shape.rank], [tf.constant(1e-3, x.dtype)], x.shape)
    return right + corner


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (tf.matmul, [X, X.T]),
        (lambda x: tf.nn.softmax(x), [X]),
        (lambda x: [tf.sin(x), {"sum": tf.reduce_sum(x * x)}], [X]),
        (lambda x, k: (tf.gather(x * x, k), k), [X, np.array([2, 0, 2])]),
        (lambda x: tf.gather(x, [1, 1, 0]), [X]),
        (cube_with(lambda upstream, x: upstream * 3 * x * x), [X]),
        (tf.function(lambda x: tf.exp(x)), [X]),
        (lambda x: 2.0 * x, [X.astype(np.float16)]),
        (lambda x: x**3, [np.float32(1.5)]),
        (lambda x: x**3, [np.zeros([0, 4])]),
        (lambda x: tf.zeros([2], x.dtype), [X]),
    ],
    ids=[
        "two inputs",
        "softmax",
        "structure",
        "integer input and output",
        "indexed slices",
        "custom gradient",
        "tf.function",
        "linear, half",
        "scalar",
        "empty",
        "constant",
    ],
)
def test_right_gradients_pass(function: Callable[..., Any], inputs: list[Any], order: int) -> None:
    check_gradients(function, inputs, order=order)


@pytest.mark.parametrize("order", [1, 2])
def test_gradient_off_by_a_factor_fails(order: int) -> None:
    function = cube_with(lambda upstream, x: upstream * 3.01 * x * x)
    with pytest.raises(
        AssertionError, match=r"order 1, input 'x' \[\d, \d\]: .*; 12 of 12 elements"
    ):
        check_gradients(function, [X], order=order)


def test_gradient_wrong_in_one_element_fails_and_names_it() -> None:
    with pytest.raises(AssertionError) as failure:
        check_gradients(cube_with(one_element_wrong), [X], names=["boxes"])
    pattern = (
        r"check_gradients: order 1, input 'boxes' \[1, 1\]: analytic (\S+), numeric (\S+) "
        r"\(\|difference\| (\S+) > tolerance (\S+)\); 1 of 12 elements differ"
    )
    match = re.fullmatch(pattern, str(failure.value))
    assert match, str(failure.value)
    analytic, numeric, difference, tolerance = map(float, match.groups())
    assert analytic - numeric == pytest.approx(1e-3, rel=1e-3)
    assert difference == pytest.approx(1e-3, rel=1e-3)
    assert tolerance == pytest.approx(1e-7 + 1e-5 * abs(analytic), rel=1e-2)


def test_missing_gradient_of_one_input_fails() -> None:
    with pytest.raises(AssertionError, match=r"^[^\n]*input 'weights' \[.*analytic 0, numeric"):
        check_gradients(lambda x, weights: x * tf.stop_gradient(weights), [X, X])


def test_every_wrong_input_gets_a_line() -> None:
    with pytest.raises(AssertionError) as failure:
        check_gradients(lambda a, b, c: a * b + tf.stop_gradient(a * c), [X, X, X])
    assert [line.split(" [")[0] for line in str(failure.value).splitlines()] == [
        "check_gradients: order 1, input 'a'",
        "check_gradients: order 1, input 'c'",
    ]


def test_gradient_to_a_kinked_point_fails() -> None:
    with pytest.raises(AssertionError, match="order 1"):
        check_gradients(tf.nn.relu, [np.array([1.0, 0.0])])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_gradient_that_is_not_finite_fails(value: float) -> None:
    with pytest.raises(AssertionError, match=f"analytic {value}, numeric .*; 12 of 12 elements"):
        check_gradients(cube_with(lambda upstream, x: upstream * value), [X])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_value_that_is_not_finite_fails(value: float) -> None:
    with pytest.raises(AssertionError, match="numeric nan"):
        check_gradients(lambda x: x * value, [X])


def test_gradient_of_a_broadcast_shape_fails() -> None:
    function = cube_with(lambda upstream, x: tf.reduce_sum(upstream * 3 * x * x, keepdims=True))
    with pytest.raises(AssertionError, match=r"'x': gradient of shape \[1, 1\], input of \[1, 2\]"):
        check_gradients(function, [np.ones([1, 2])])


def test_second_order_that_is_wrong_fails_at_order_2_only() -> None:
    function = cube_with(lambda upstream, x: upstream * tf.stop_gradient(3 * x * x))
    check_gradients(function, [X], order=1)
    with pytest.raises(
        AssertionError, match=r"^check_gradients: order 2, input 'x' \[.*analytic 0,"
    ):
        check_gradients(function, [X], order=2)


def test_second_order_off_by_a_factor_fails() -> None:
    @tf.custom_gradient
    def slope(x: tf.Tensor) -> Any:
        return 3 * x * x, lambda upstream: upstream * 6.001 * x

    with pytest.raises(AssertionError, match="order 2, input 'x'"):
        check_gradients(cube_with(lambda upstream, x: upstream * slope(x)), [X], order=2)


def test_wrong_derivative_to_upstream_fails_at_order_2_only() -> None:
    function = cube_with(lambda upstream, x: tf.stop_gradient(upstream) * 3 * x * x)
    check_gradients(function, [X], order=1)
    with pytest.raises(AssertionError, match=r"^check_gradients: order 2, upstream \[[^\n]*$"):
        check_gradients(function, [X], order=2)


def test_wrong_derivative_to_the_upstream_of_a_second_output_is_named() -> None:
    wrong = cube_with(lambda upstream, x: tf.stop_gradient(upstream) * 3 * x * x)
    with pytest.raises(AssertionError, match=r"order 2, upstream 1 \["):
        check_gradients(lambda x: (x * x, wrong(x)), [X], order=2)


def test_op_without_second_gradient_raises() -> None:
    @tf.custom_gradient
    def function(x: tf.Tensor) -> Any:
        return x * x, lambda upstream: upstream * tf.raw_ops.PreventGradient(input=2 * x)

    with pytest.raises(LookupError):
        check_gradients(lambda x: function(x), [X], order=2)


@pytest.mark.parametrize("size", [300, 2000, 20000])
def test_one_wrong_element_of_a_large_input_fails_and_is_named(size: int) -> None:
    function = cube_with(one_element_wrong)
    pattern = rf"'x' \[1\]: analytic .*; [12] of 200 derivatives over {size} elements differ$"
    with pytest.raises(AssertionError, match=pattern):
        check_gradients(function, [np.ones(size)])


def test_large_input_that_is_wrong_everywhere_fails() -> None:
    function = cube_with(lambda upstream, x: upstream * 3.01 * x * x)
    with pytest.raises(AssertionError, match=r"'x' \[\d+, \d+\]: analytic .*; 200 of 200 deriv"):
        check_gradients(function, [np.ones([40, 50])])


def test_large_input_wrong_in_the_large_only_fails() -> None:
    # Each element alone is within the tolerance, the 20 of a group together are not.
    function = cube_with(lambda upstream, x: upstream * 3 * x * x + 0.9e-3)
    pattern = r"'x' \[\d+\] and \d+ more along a random direction: analytic"
    with pytest.raises(AssertionError, match=pattern):
        check_gradients(function, [np.ones(2000)], rtol=0.0, atol=1e-3)


def test_large_input_with_right_gradients_passes() -> None:
    check_gradients(lambda x: x * x * x, [np.linspace(-1, 1, 300)], order=2)


def test_input_left_out_is_not_checked() -> None:
    def function(x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return x * tf.stop_gradient(weights)

    check_gradients(function, [X, X], order=2, differentiable=[True, False])
    with pytest.raises(AssertionError, match="input 'weights'"):
        check_gradients(function, [X, X], differentiable=[False, True])


def test_inputs_without_parameter_names_are_numbered() -> None:
    with pytest.raises(AssertionError, match=r"input 1 \["):
        check_gradients(lambda *inputs: inputs[0] * tf.stop_gradient(inputs[1]), [X, X])


def test_tolerances_and_step_are_used() -> None:
    function = cube_with(lambda upstream, x: upstream * 3.01 * x * x)
    check_gradients(function, [X], rtol=1e-2)
    check_gradients(function, [X], atol=1.0)
    with pytest.raises(AssertionError):
        check_gradients(lambda x: x**3, [X], step=0.5)


@pytest.mark.parametrize("order", [0, 3, None])
def test_other_orders_are_refused(order: Any) -> None:
    with pytest.raises(ValueError, match=f"check_gradients: 'order' must be 1 or 2, got {order}"):
        check_gradients(tf.identity, [X], order=order)


def test_inputs_without_a_floating_one_are_refused() -> None:
    with pytest.raises(ValueError, match="check_gradients: 'inputs' must have a floating one, got"):
        check_gradients(tf.identity, [np.arange(3)])


def test_function_without_a_floating_output_is_refused() -> None:
    with pytest.raises(ValueError, match="'function' must return a floating tensor, got none"):
        check_gradients(lambda x: tf.cast(x, tf.int32), [X])


@pytest.mark.parametrize("differentiable", [[True], [False, False], [True, True]])
def test_wrong_choice_of_inputs_is_refused(differentiable: list[bool]) -> None:
    with pytest.raises(ValueError, match="check_gradients: 'differentiable' must"):
        check_gradients(lambda x, k: x, [X, np.arange(3)], differentiable=differentiable)


def test_wrong_number_of_names_is_refused() -> None:
    with pytest.raises(ValueError, match="'names' must have one name for each of 1 inputs, got 2"):
        check_gradients(tf.identity, [X], names=["a", "b"])
