"""The exact filter: against a matrix, by blocks, gradients, XLA, errors."""

import sys
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.crf_cases import exact_matrices
from helpers.tolerances import FLOAT_DTYPES, assert_close, name_of

from tfseg_ops.pure_tf import exact_gaussian_filter
from tfseg_ops.testing import check_gradients


def case(dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(2, 7, 3)).astype(dtype)
    return values, generator.normal(size=(2, 7, 4)).astype(dtype)


@pytest.fixture(params=["one block", "blocks", "rows"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """7 rows at once, by 3, and one by one."""
    size = {"one block": 2**22, "blocks": 2 * 7 * 3, "rows": 1}[request.param]
    module = sys.modules["tfseg_ops.pure_tf.exact_gaussian_filter"]
    monkeypatch.setattr(module, "_BLOCK", size)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_filter_is_a_product_with_the_matrix_of_the_kernel(dtype: Any) -> None:
    values, features = case(dtype)
    result = exact_gaussian_filter(values, features)
    assert result.dtype == dtype
    expected = exact_matrices(features) @ values.astype(np.float64)
    assert_close(result, expected)


@pytest.mark.usefixtures("blocks")
def test_gradients_are_those_of_central_differences() -> None:
    check_gradients(tf.function(exact_gaussian_filter), case())


def test_second_order_gradients_are_those_of_central_differences() -> None:
    values, features = case()
    check_gradients(exact_gaussian_filter, [values[:1, :3, :2], features[:1, :3, :2]], order=2)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("jit_compile", [None, True])
@pytest.mark.parametrize("known", [True, False])
def test_graph_gives_the_same_and_its_gradients(known: bool, jit_compile: bool | None) -> None:
    values, features = case(np.float32)
    shape = [None, None, None]

    @tf.function(
        input_signature=[tf.TensorSpec(a.shape if known else shape) for a in (values, features)],
        jit_compile=jit_compile,
    )
    def run(values: tf.Tensor, features: tf.Tensor) -> list[tf.Tensor]:
        output = exact_gaussian_filter(values, features)
        return [output, *tf.gradients(tf.square(output), [values, features])]

    sources = [tf.constant(values), tf.constant(features)]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        output = exact_gaussian_filter(*sources)
        squares = tf.square(output)
    expected = [output, *tape.gradient(squares, sources)]
    for one, wanted in zip(run(values, features), expected, strict=True):
        np.testing.assert_allclose(one, wanted, 1e-4, 1e-4)


def test_no_points_and_no_channels_give_nothing() -> None:
    for shape, channels in [((0, 4), 3), ((2, 0), 3), ((1, 4), 0)]:
        result = exact_gaussian_filter(np.zeros((*shape, channels)), np.zeros((*shape, 2)))
        assert result.shape == (*shape, channels)


@pytest.mark.parametrize(
    ("values", "features", "words"),
    [
        (
            np.zeros((2, 7)),
            np.zeros((2, 7, 4)),
            "'values' must have shape [batch, points, channels], got [2, 7]",
        ),
        (
            np.zeros((2, 7, 3)),
            np.zeros((2, 6, 4)),
            "'features' must have shape [batch=2, points=7, dimensions], got [2, 6, 4]",
        ),
        (
            np.zeros((2, 7, 3), int),
            np.zeros((2, 7, 4)),
            "'values' must be float16, bfloat16, float32 or float64, got int64",
        ),
    ],
    ids=["rank", "points", "integers"],
)
def test_wrong_argument_is_named(values: Any, features: Any, words: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        exact_gaussian_filter(values, features)
    assert str(caught.value) == f"exact_gaussian_filter: {words}"
