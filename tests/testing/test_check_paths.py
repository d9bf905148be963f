"""Stock ops, and functions that notice the path they run on, stand in for ops of ours."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tfseg_ops
from tfseg_ops import _portable
from tfseg_ops.testing import check_paths

X = np.random.default_rng(0).uniform(0.5, 2.0, size=(3, 4)).astype(np.float32)
STOCK_FUNCTION = tf.function
RUNS = ["graph", "xla", "portable"]

Function = Callable[..., Any]


class Paths:
    """Makes every path available, whatever was built, and knows which one runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current = "native"

        def function(python_function: Function, jit_compile: bool | None = None) -> Any:
            def traced(*arguments: tf.Tensor) -> Any:
                with self.entered("xla" if jit_compile else "graph"):
                    return python_function(*arguments)

            return STOCK_FUNCTION(traced, jit_compile=jit_compile)

        library = SimpleNamespace(xla_available=lambda: True)
        monkeypatch.setattr(tf, "function", function)
        monkeypatch.setattr(tfseg_ops, "portable", lambda: self.entered("portable"))
        monkeypatch.setattr(tfseg_ops, "_library", library)
        monkeypatch.setattr(_portable, "is_portable", lambda: self.current == "portable")

    @contextlib.contextmanager
    def entered(self, path: str) -> Iterator[None]:
        before, self.current = self.current, path
        try:
            yield
        finally:
            self.current = before

    def differing(self, path: str, wrong: Function, right: Function = tf.identity) -> Function:
        """A function of `x` that is `wrong` on one path."""
        return lambda x: wrong(x) if self.current == path else right(x)


@pytest.fixture(autouse=True)
def paths(monkeypatch: pytest.MonkeyPatch) -> Paths:
    return Paths(monkeypatch)


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32, tf.float16, tf.bfloat16])
def test_stock_ops_pass(dtype: tf.DType) -> None:
    def function(x: tf.Tensor, k: tf.Tensor) -> Any:
        return {"a": tf.nn.softmax(x), "b": (tf.argmax(x, -1), tf.gather(x, k), None)}

    check_paths(function, [tf.cast(X, dtype), np.array([1, 1])])


def test_all_paths_run(paths: Paths) -> None:
    seen = []

    def function(x: tf.Tensor) -> tf.Tensor:
        seen.append(paths.current)
        return x

    check_paths(function, [X], gradient=False)
    assert seen == ["native", *RUNS]


@pytest.mark.parametrize("path", RUNS)
def test_output_that_differs_fails_and_is_named(paths: Paths, path: str) -> None:
    one = np.zeros([3, 4], np.float32)
    one[1, 2] = 0.25
    function = paths.differing(path, lambda x: (x, x + one), lambda x: (x, x))
    with pytest.raises(AssertionError) as failure:
        check_paths(function, [np.ones([3, 4], np.float32)])
    assert str(failure.value) == (
        f"check_paths: {path}, output 1 [1, 2]: {path} 1.25, native 1 "
        "(|difference| 0.25 > tolerance 0.000135); 1 of 12 elements differ"
    )


@pytest.mark.parametrize("path", RUNS)
def test_gradient_that_differs_fails_and_is_named(paths: Paths, path: str) -> None:
    function = paths.differing(path, lambda x: 2 * x - tf.stop_gradient(x))
    check_paths(function, [X], gradient=False)
    pattern = rf"^check_paths: {path}, gradient to input 'x' \[.*12 of 12 elements differ$"
    with pytest.raises(AssertionError, match=pattern):
        check_paths(function, [X])


def test_missing_gradient_counts_as_zeros(paths: Paths) -> None:
    check_paths(paths.differing("xla", tf.stop_gradient, lambda x: x + 0 * x), [X], gradient=False)
    with pytest.raises(AssertionError, match=r"gradient to input 'x'.*: xla 0, native"):
        check_paths(paths.differing("xla", tf.stop_gradient), [X])
    zero = paths.differing("xla", tf.zeros_like, lambda x: 0 * x)
    check_paths(zero, [X])


@pytest.mark.parametrize("path", RUNS)
def test_integers_must_be_equal(paths: Paths, path: str) -> None:
    big = tf.constant([2**60, 7], tf.int64)
    function = paths.differing(path, lambda x: big + tf.constant([1, 0], tf.int64), lambda x: big)
    with pytest.raises(AssertionError) as failure:
        check_paths(function, [X], rtol=1.0, atol=1.0)
    assert str(failure.value) == (
        f"check_paths: {path}, output 0 [0]: {path} {2**60 + 1}, native {2**60}; "
        "1 of 2 elements differ"
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: x[:1], r"output 0: shape \[1, 4\] from xla, \[3, 4\] from native"),
        (lambda x: tf.cast(x, tf.float64), "output 0: dtype float64 from xla, float32 from native"),
        (lambda x: (x, x), "xla, number of outputs: xla 2, native 1"),
    ],
)
def test_other_shape_dtype_or_number_fails(paths: Paths, wrong: Function, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_paths(paths.differing("xla", wrong), [X], gradient=False)


def test_nan_and_inf_agree_only_with_themselves(paths: Paths) -> None:
    special = np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)
    check_paths(tf.identity, [special])
    for k in range(4):
        other = special.copy()
        other[k] = np.nan if k else 0.0
        function = paths.differing("portable", lambda x, other=other: tf.constant(other))
        with pytest.raises(AssertionError, match=rf"portable, output 0 \[{k}\].*1 of 4 elements"):
            check_paths(function, [special], gradient=False)
    other = np.array([np.nan, -np.inf, -np.inf, 1.0], np.float32)
    with pytest.raises(AssertionError, match=r"output 0 \[1\]: portable -inf, native inf"):
        check_paths(paths.differing("portable", lambda x: tf.constant(other)), [special])


def test_error_on_one_path_fails_and_names_it(paths: Paths) -> None:
    def unsupported_by_xla(x: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(lambda v: v, [x], tf.float32), x.shape)

    with pytest.raises(AssertionError, match="check_paths: xla raised InvalidArgumentError: "):
        check_paths(unsupported_by_xla, [X], gradient=False)
    check_paths(unsupported_by_xla, [X], gradient=False, paths=["native", "portable"])


def test_error_on_the_first_path_is_passed_on() -> None:
    def function(x: tf.Tensor) -> tf.Tensor:
        raise KeyError("boxes")

    with pytest.raises(KeyError, match="boxes"):
        check_paths(function, [X])


def test_tf_function_is_traced_anew_for_each_path(paths: Paths) -> None:
    function = STOCK_FUNCTION(paths.differing("portable", lambda x: x + 1))
    with pytest.raises(AssertionError, match="portable, output 0"):
        check_paths(function, [X])


@pytest.mark.parametrize(
    ("dtype", "passes", "fails"),
    [
        (tf.float64, 1e-11, 1e-9),
        (tf.float32, 1e-5, 1e-3),
        (tf.float16, 4e-3, 5e-2),
        (tf.bfloat16, 3e-2, 0.2),
    ],
)
def test_default_tolerance_follows_the_dtype(
    paths: Paths, dtype: tf.DType, passes: float, fails: float
) -> None:
    ones = tf.ones([3], dtype)
    check_paths(paths.differing("xla", lambda x: x + tf.cast(passes, dtype)), [ones])
    function = paths.differing("xla", lambda x: x + tf.cast(fails, dtype))
    with pytest.raises(AssertionError, match="xla, output 0"):
        check_paths(function, [ones])
    check_paths(function, [ones], rtol=1.0)
    check_paths(function, [ones], atol=1.0)


def test_gradient_tolerance_is_that_of_the_coarsest_dtype(paths: Paths) -> None:
    def scaled(scale: float) -> Function:
        return lambda x, weights: tf.cast(x, tf.float32) * (1 + (weights - 1) * scale)

    def function(x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return scaled(1.001 if paths.current == "xla" else 1.0)(x, weights)

    ones = np.ones(3, np.float32)
    with pytest.raises(AssertionError, match="gradient to input 'weights'"):
        check_paths(function, [ones, ones])
    check_paths(function, [tf.cast(ones, tf.bfloat16), ones])


def test_output_tolerance_is_that_of_its_own_dtype(paths: Paths) -> None:
    function = paths.differing("xla", lambda x: 1.001 + 0 * tf.cast(x, tf.float32), tf.ones_like)
    with pytest.raises(AssertionError, match="xla, output 0"):
        check_paths(lambda x: (function(tf.cast(x, tf.float32)), x), [tf.ones([3], tf.bfloat16)])


def test_paths_are_those_asked_for(paths: Paths) -> None:
    wrong = paths.differing("xla", lambda x: x + 1)
    check_paths(wrong, [X], paths=("native",))
    check_paths(wrong, [X], paths=("portable", "native"))
    with pytest.raises(
        AssertionError, match=r"check_paths: portable, output 0 .* portable .*, xla"
    ):
        check_paths(wrong, [X], paths=("xla", "portable"))


@pytest.mark.parametrize("wrong", [("tpu", "xla"), "xla", ("xla",), ()])
def test_wrong_paths_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="check_paths: 'paths' must"):
        check_paths(tf.identity, [X], paths=wrong)


def test_missing_xla_is_an_error_unless_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(xla_available=lambda: False)
    monkeypatch.setattr(tfseg_ops, "_library", library)
    with pytest.raises(
        RuntimeError, match=re.escape("check_paths: the path 'xla' is not available")
    ):
        check_paths(tf.identity, [X])
    check_paths(tf.identity, [X], paths=("native", "portable"))


def test_native_inside_portable_is_an_error_unless_left_out(paths: Paths) -> None:
    with paths.entered("portable"):
        with pytest.raises(RuntimeError, match="check_paths: the path 'native' is not available"):
            check_paths(tf.identity, [X])
        check_paths(tf.identity, [X], paths=("xla", "portable"))


def test_functions_that_run_eagerly_are_refused() -> None:
    tf.config.run_functions_eagerly(True)
    try:
        with pytest.raises(RuntimeError, match="check_paths: nothing is compiled"):
            check_paths(tf.identity, [X])
    finally:
        tf.config.run_functions_eagerly(False)
