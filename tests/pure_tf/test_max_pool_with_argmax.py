"""Max-pooling with argmax in stock TF: against the oracle, shapes, gradients, errors."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.tolerances import FLOAT_DTYPES, INDEX_DTYPES, assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.max_pool_with_argmax import max_pool_with_argmax

from tfseg_ops import pure_tf
from tfseg_ops.testing import check_gradients
from tfseg_ops.testing.strategies import images, windows

special = st.sampled_from([0.0, -0.0, 1.0, -2.0, np.nan, np.inf, -np.inf])


@settings(max_examples=60)
@given(
    st.data(),
    st.sampled_from(FLOAT_DTYPES),
    st.sampled_from(INDEX_DTYPES),
    st.booleans(),
    st.booleans(),
)
def test_maxima_and_positions_are_those_of_the_oracle(
    data: st.DataObject, dtype: Any, index: Any, include_batch_in_index: bool, has_nan: bool
) -> None:
    image = data.draw(images(dtype, elements=special.map(dtype) if has_nan else None))
    window = data.draw(windows(height=max(1, image.shape[1]), width=max(1, image.shape[2])))
    results = pure_tf.max_pool_with_argmax(image, *window, index, include_batch_in_index)
    expected = max_pool_with_argmax(image, *window, index, include_batch_in_index)
    assert_same(results[0], expected[0])
    assert_same(results[1], expected[1])


@pytest.mark.parametrize("jit_compile", [None, True])
@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_one_trace_serves_all_sizes(padding: str, jit_compile: bool | None) -> None:
    pool = tf.function(
        lambda x: pure_tf.max_pool_with_argmax(x, (3, 2), (2, 3), padding),
        input_signature=[tf.TensorSpec([None] * 4)],
        jit_compile=jit_compile,
    )
    for shape in [(2, 7, 5, 3), (1, 3, 2, 1), (0, 4, 4, 2)]:
        image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        output, argmax = pool(image)
        expected = max_pool_with_argmax(image, (3, 2), (2, 3), padding)
        assert_same(output, expected[0])
        assert_same(argmax, expected[1])


def test_static_shape_is_what_can_be_known() -> None:
    pool = tf.function(lambda x: pure_tf.max_pool_with_argmax(x, 3, 2, "SAME"))
    for spec, static in [([None, 7, 9, 3], [None, 4, 5, 3]), ([2, None, 9, 3], [2, None, 5, 3])]:
        trace = pool.get_concrete_function(tf.TensorSpec(spec))
        for output in trace.structured_outputs:
            assert output.shape.as_list() == static


@settings(max_examples=6)
@given(st.data())
def test_gradients_are_those_of_central_differences(data: st.DataObject) -> None:
    sides = st.integers(1, 5)
    image = data.draw(images(np.float64, 1, sides, sides, st.integers(1, 2), distinct=True))
    window = data.draw(windows(height=image.shape[1], width=image.shape[2]))
    check_gradients(lambda x: pure_tf.max_pool_with_argmax(x, *window), [image], order=2)


IMAGE = np.zeros((1, 3, 4, 2), np.float32)


@pytest.mark.parametrize(
    ("image", "arguments", "words"),
    [
        (
            IMAGE[0],
            (2, 2, "VALID"),
            "'input' must have shape [batch, height, width, channels], got [3, 4, 2]",
        ),
        (
            IMAGE,
            ([2, 7], 2, "VALID"),
            "'ksize' must fit into the input of shape [1, 3, 4, 2] with padding VALID, got [2, 7]",
        ),
        (IMAGE, (2, 2, "FULL"), "'padding' must be VALID or SAME, got FULL"),
        (
            IMAGE.astype(np.int32),
            (2, 2, "SAME"),
            "'input' must be float16, bfloat16, float32 or float64, got int32",
        ),
    ],
    ids=["rank", "window", "padding", "dtype"],
)
def test_wrong_argument_is_named(image: np.ndarray, arguments: Any, words: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        pure_tf.max_pool_with_argmax(image, *arguments)
    assert str(caught.value) == f"max_pool_with_argmax: {words}"


def test_window_over_an_input_of_unknown_size_is_an_error_when_it_runs() -> None:
    """As in the compiled op: a result of no elements would hide it."""
    pool = tf.function(
        lambda x: pure_tf.max_pool_with_argmax(x, [2, 7], 2, "VALID"),
        input_signature=[tf.TensorSpec([None] * 4)],
    )
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        pool(IMAGE)
    # TensorFlow's Assert escapes the quotes.
    words = str(caught.value).replace("\\'", "'")
    assert "max_pool_with_argmax: 'ksize' must fit into the input" in words
