"""Max-unpooling in stock TF: against the oracle, shapes, gradients, illegal masks."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.tolerances import FLOAT_DTYPES, INDEX_DTYPES, assert_close, assert_same, name_of
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.max_pool_with_argmax import max_pool_with_argmax
from reference.max_unpool import max_unpool

from tfseg_ops import pure_tf
from tfseg_ops.testing import check_gradients
from tfseg_ops.testing.strategies import argmax_masks, windows

shapes = st.tuples(st.integers(0, 2), st.integers(0, 7), st.integers(0, 7), st.integers(1, 3))


@settings(max_examples=60)
@given(
    st.data(), shapes, st.sampled_from(FLOAT_DTYPES), st.sampled_from(INDEX_DTYPES), st.booleans()
)
def test_values_go_where_the_oracle_puts_them(
    data: st.DataObject,
    shape: tuple[int, int, int, int],
    dtype: Any,
    index: Any,
    include_batch_in_index: bool,
) -> None:
    window = data.draw(windows(height=max(1, shape[1]), width=max(1, shape[2])))
    masks = data.draw(argmax_masks(shape, window, index, include_batch_in_index))
    values = np.random.default_rng(0).normal(size=masks.shape).astype(dtype)
    result = pure_tf.max_unpool(values, masks, shape[1:3], include_batch_in_index)
    expected = max_unpool(values, masks, shape[1:3], include_batch_in_index)
    # tf.scatter_nd promises no order of its sums.
    assert result.dtype == expected.dtype
    assert_close(result, expected)


@settings(max_examples=6)
@given(st.data(), st.tuples(st.just(1), st.integers(1, 5), st.integers(1, 5), st.integers(1, 2)))
def test_gradients_are_those_of_central_differences(
    data: st.DataObject, shape: tuple[int, int, int, int]
) -> None:
    window = data.draw(windows(height=shape[1], width=shape[2]))
    masks = data.draw(argmax_masks(shape, window))
    values = np.random.default_rng(0).normal(size=masks.shape)
    check_gradients(lambda x: pure_tf.max_unpool(x, masks, shape[1:3]) ** 2, [values], order=2)


VALUES = np.arange(1.0, 13.0, dtype=np.float32).reshape(2, 2, 3, 1)
MASKS = np.broadcast_to((np.arange(2)[:, None] * 12 + np.arange(3) * 2)[..., None], VALUES.shape)


@pytest.mark.parametrize("jit_compile", [None, True])
def test_one_trace_serves_all_sizes(jit_compile: bool | None) -> None:
    unpool = tf.function(
        lambda x, m, size: pure_tf.max_unpool(x, m, size),
        input_signature=[
            tf.TensorSpec([None] * 4),
            tf.TensorSpec([None] * 4, tf.int32),
            tf.TensorSpec([2], tf.int32),
        ],
        jit_compile=jit_compile,
    )
    for shape in [(2, 7, 5, 3), (1, 3, 2, 1), (0, 4, 4, 2)]:
        image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        output, argmax = max_pool_with_argmax(image, (2, 2), (2, 2), "SAME", np.int32)
        result = unpool(output, argmax, shape[1:3])
        assert_same(result, max_unpool(output, argmax, shape[1:3]))


def test_static_shape_is_what_can_be_known() -> None:
    unpool = tf.function(lambda x, m: pure_tf.max_unpool(x, m, [4, 6]))
    spec = [None, 2, 3, 5]
    trace = unpool.get_concrete_function(tf.TensorSpec(spec), tf.TensorSpec(spec, tf.int64))
    assert trace.structured_outputs.shape.as_list() == [None, 4, 6, 5]


@pytest.mark.parametrize("dtype", FLOAT_DTYPES[:2], ids=name_of)
def test_sums_are_kept_in_float32(dtype: Any) -> None:
    """64 ones after 4096 would each be lost in a sum of the dtype itself."""
    values = np.full((1, 1, 65, 1), 1, dtype)
    values[0, 0, 0, 0] = 4096
    result = pure_tf.max_unpool(values, np.zeros(values.shape, np.int32), (1, 1))
    assert result.dtype == dtype
    np.testing.assert_array_equal(result.numpy().astype(np.float32), [[[[4160]]]])


def spoilt(value: int) -> np.ndarray:
    """The masks with one at the end changed."""
    masks = MASKS.copy()
    masks[1, 1, 2, 0] = value
    return masks


ILLEGAL: dict[str, tuple[int, dict[str, Any], str]] = {
    "below": (-1, {}, "lie in [0, 24), got -1"),
    "above": (24, {}, "lie in [0, 24), got 24"),
    "low bits legal": (2**32 + 16, {}, "lie in [0, 24), got 4294967312"),
    "foreign window": (
        15,
        {"windows": (2, 2)},
        "lie in its own window of ksize [2, 2] and strides [2, 2], got 15",
    ),
}


@pytest.mark.parametrize("case", ILLEGAL)
def test_illegal_mask_is_named(case: str) -> None:
    value, keywords, words = ILLEGAL[case]
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        pure_tf.max_unpool(VALUES, spoilt(value), (4, 6), **keywords)
    assert str(caught.value) == f"max_unpool: 'argmax' must {words} at [1, 1, 2, 0]"


@pytest.mark.parametrize("case", ILLEGAL)
def test_illegal_mask_is_an_error_in_a_graph(case: str) -> None:
    value, keywords, words = ILLEGAL[case]
    unpool = tf.function(lambda x, m: pure_tf.max_unpool(x, m, (4, 6), **keywords))
    rule = words.partition("[0")[0].partition(" of ")[0]
    with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
        unpool(VALUES, spoilt(value))


@pytest.mark.parametrize("case", ILLEGAL)
def test_illegal_mask_is_dropped_under_xla(case: str) -> None:
    """XLA cannot raise, as on a GPU; all other values still arrive."""
    value, keywords, _ = ILLEGAL[case]
    unpool = tf.function(
        lambda x, m: pure_tf.max_unpool(x, m, (4, 6), **keywords), jit_compile=True
    )
    expected = max_unpool(VALUES, MASKS, (4, 6))
    assert expected[1, 2, 4, 0] == VALUES[1, 1, 2, 0]
    expected[1, 2, 4, 0] = 0
    assert_same(unpool(VALUES, spoilt(value)), expected)


def test_dropped_mask_has_no_gradient_under_xla() -> None:
    @tf.function(jit_compile=True)
    def gradient(values: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
        return tf.gradients(pure_tf.max_unpool(values, masks, (4, 6)), values)[0]

    expected = np.ones_like(VALUES)
    expected[1, 1, 2, 0] = 0
    assert_same(gradient(VALUES, spoilt(-1)), expected)


@pytest.mark.parametrize(
    ("values", "masks", "size", "words"),
    [
        (
            VALUES,
            MASKS[..., :0],
            (4, 6),
            "'argmax' must have shape [batch=2, height=2, width=3, channels=1], got [2, 2, 3, 0]",
        ),
        (VALUES, MASKS, (4, -6), "'output_shape' must not be negative, got [4, -6]"),
        (VALUES, MASKS, (4, 6, 1), "'output_shape' must have shape [2], got [3]"),
        (VALUES, VALUES, (4, 6), "'argmax' must be int32 or int64, got float32"),
    ],
    ids=["shape", "negative size", "three sizes", "float masks"],
)
def test_wrong_argument_is_named(
    values: np.ndarray, masks: np.ndarray, size: Any, words: str
) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        pure_tf.max_unpool(values, masks, size)
    assert str(caught.value) == f"max_unpool: {words}"
