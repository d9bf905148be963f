"""`ops.max_unpool`: against the oracle and stock TF, gradients, shapes, paths."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.tolerances import (
    FLOAT_DTYPES,
    INDEX_DTYPES,
    assert_same,
    assert_same_bits,
    name_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.max_pool_with_argmax import max_pool_with_argmax
from reference.max_unpool import max_unpool, max_unpool_grad

from tfseg_ops import ops
from tfseg_ops.testing import check_adjoint, check_gradients, check_paths
from tfseg_ops.testing.strategies import argmax_masks, images, windows

sides = st.integers(1, 7)
shapes = st.tuples(st.integers(0, 3), st.integers(0, 8), st.integers(0, 8), st.integers(1, 4))
small_shapes = st.tuples(st.integers(1, 2), sides, sides, st.integers(1, 2))
dtypes = st.sampled_from(FLOAT_DTYPES)
indices = st.sampled_from(INDEX_DTYPES)

Shape = tuple[int, int, int, int]


def draw_masks(
    data: st.DataObject, shape: Shape, index: Any, include_batch_in_index: bool = False
) -> np.ndarray:
    """Masks of some pooling of an input of this shape."""
    window = data.draw(windows(height=max(1, shape[1]), width=max(1, shape[2])))
    return data.draw(argmax_masks(shape, window, index, include_batch_in_index))


@settings(max_examples=120)
@given(st.data(), shapes, dtypes, indices, st.booleans(), st.booleans())
def test_values_go_where_the_oracle_puts_them(
    data: st.DataObject,
    shape: Shape,
    dtype: Any,
    index: Any,
    include_batch_in_index: bool,
    tensor_size: bool,
) -> None:
    masks = draw_masks(data, shape, index, include_batch_in_index)
    values = np.random.default_rng(0).normal(size=masks.shape).astype(dtype)
    size = tf.constant(shape[1:3], tf.int64) if tensor_size else shape[1:3]
    result = ops.max_unpool(values, masks, size, include_batch_in_index)
    assert_same(result, max_unpool(values, masks, shape[1:3], include_batch_in_index))


@settings(max_examples=40)
@given(st.data(), small_shapes, indices, st.booleans())
def test_gradient_is_the_gather_and_the_adjoint(
    data: st.DataObject, shape: Shape, index: Any, include_batch_in_index: bool
) -> None:
    masks = draw_masks(data, shape, index, include_batch_in_index)

    def unpool(values: tf.Tensor) -> Any:
        return ops.max_unpool(values, masks, shape[1:3], include_batch_in_index)

    def gradient(upstream: tf.Tensor) -> Any:
        values = tf.zeros(masks.shape, tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(values)
            output = unpool(values)
        return tape.gradient(output, values, output_gradients=upstream)

    generator = np.random.default_rng(0)
    upstream = generator.normal(size=shape)
    assert_same(
        gradient(tf.constant(upstream)), max_unpool_grad(upstream, masks, include_batch_in_index)
    )
    check_adjoint(
        unpool, gradient, tf.constant(generator.normal(size=masks.shape)), tf.constant(upstream)
    )


@settings(max_examples=12)
@given(st.data(), small_shapes, indices, st.booleans())
def test_first_and_second_order_gradients_are_those_of_central_differences(
    data: st.DataObject, shape: Shape, index: Any, include_batch_in_index: bool
) -> None:
    masks = draw_masks(data, shape, index, include_batch_in_index)
    values = np.random.default_rng(0).normal(size=masks.shape)

    def unpool(values: tf.Tensor, masks: tf.Tensor) -> Any:
        # Squared, so that the gradient depends on the values and there is a second one to them.
        return ops.max_unpool(values, masks, shape[1:3], include_batch_in_index) ** 2

    check_gradients(unpool, [values, masks], order=2)


def test_gradient_of_the_gradient_of_the_gradient_is_the_gather() -> None:
    """Gather and unpooling are each other's adjoints, to any order."""
    masks = np.array([[[[1], [1]], [[3], [0]]]])
    upstream = tf.constant(np.arange(4.0).reshape(1, 2, 2, 1))
    x = tf.constant(np.ones(masks.shape))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, upstream])
        output = ops.max_unpool(x, masks, (2, 2))
        first = tape.gradient(output, x, output_gradients=upstream)
        second = tape.gradient(first, upstream, output_gradients=x)
        third = tape.gradient(second, x, output_gradients=upstream)
    assert_same(first, max_unpool_grad(upstream.numpy(), masks))
    assert_same(second, max_unpool(x.numpy(), masks, (2, 2)))
    assert_same(third, first)


@settings(max_examples=40)
@given(st.data(), st.integers(1, 2), sides, sides, st.integers(1, 3), indices)
def test_unpooling_what_was_pooled_restores_the_maxima(
    data: st.DataObject, batch: int, height: int, width: int, channels: int, index: Any
) -> None:
    """Where windows do not overlap: each maximum stands in its place again, zeros elsewhere."""
    image = data.draw(images(np.float32, batch, height, width, channels, distinct=True))
    window = data.draw(windows(height=height, width=width, overlapping=False))
    output, argmax = ops.max_pool_with_argmax(image, *window, index)
    restored = ops.max_unpool(output, argmax, tf.shape(image)[1:3], windows=None).numpy()
    assert restored.shape == image.shape
    assert set(restored[restored != 0]) == set(output.numpy()[output.numpy() != 0])
    np.testing.assert_array_equal(restored[restored != 0], image[restored != 0])


def test_positions_named_twice_are_summed() -> None:
    values = tf.constant([1.0, 2.0, 4.0], tf.bfloat16)[None, None, :, None]
    result = ops.max_unpool(values, [[[[2], [0], [2]]]], [1, 4])
    np.testing.assert_array_equal(tf.cast(result, tf.float32)[0, 0, :, 0], [2, 0, 5, 0])


# Shape of the output, pooling, keywords.
PATHS: dict[str, tuple[Shape, Any, dict[str, Any]]] = {
    "cells": ((2, 8, 6, 65), ((2, 2), (2, 2), "VALID"), {}),
    "cells, rows over": ((2, 7, 9, 3), ((2, 3), (2, 3), "VALID"), {}),
    "overlapping": ((2, 7, 5, 3), ((3, 2), (2, 1), "SAME"), {}),
    "batch counts": ((3, 4, 5, 2), ((3, 3), (1, 2), "SAME"), {"include_batch_in_index": True}),
    "windows": ((2, 8, 6, 3), ((3, 2), (2, 2), "SAME"), {"windows": ((3, 2), (2, 2))}),
    "empty batch": ((0, 4, 4, 3), ((2, 2), (2, 2), "SAME"), {}),
    "no masks": ((2, 0, 4, 3), ((2, 2), (2, 2), "SAME"), {}),
}


@pytest.mark.parametrize("index", INDEX_DTYPES, ids=name_of)
@pytest.mark.parametrize("case", PATHS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_all_paths_agree(case: str, dtype: Any, index: Any) -> None:
    shape, pooling, keywords = PATHS[case]
    generator = np.random.default_rng(0)
    image = generator.normal(size=shape)
    batch_index = keywords.get("include_batch_in_index", False)
    values, masks = max_pool_with_argmax(image, *pooling, index, batch_index)
    check_paths(
        lambda x, m: ops.max_unpool(x, m, shape[1:3], **keywords), [values.astype(dtype), masks]
    )


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_all_paths_move_nan_and_infinity(dtype: Any) -> None:
    generator = np.random.default_rng(0)
    values = generator.choice([np.nan, np.inf, -np.inf, 1.0], size=(2, 3, 4, 5)).astype(dtype)
    in_cells = np.arange(60).reshape(1, 3, 4, 5).repeat(2, 0)
    for masks in (in_cells, generator.integers(60, size=in_cells.shape)):
        check_paths(lambda x, m: ops.max_unpool(x, m, (4, 4)), [values, masks], gradient=False)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_gradient_picks_nan_only_where_a_mask_names_it(dtype: Any) -> None:
    upstream = np.array([np.nan, 1.0, np.inf, 2.0]).reshape(1, 2, 2, 1).astype(dtype)
    values = tf.zeros((1, 1, 2, 1), dtype)
    with tf.GradientTape() as tape:
        tape.watch(values)
        output = ops.max_unpool(values, [[[[1], [3]]]], (2, 2))
    gradient = tape.gradient(output, values, output_gradients=tf.constant(upstream))
    assert_same(gradient, np.array([1.0, 2.0]).reshape(1, 1, 2, 1).astype(dtype))


def test_masks_and_size_have_no_gradient() -> None:
    values = tf.ones((1, 1, 2, 1))
    masks, size = tf.constant([[[[1], [3]]]]), tf.constant([2, 2])
    with tf.GradientTape() as tape:
        tape.watch([values, masks, size])
        output = ops.max_unpool(values, masks, size)
    gradients = tape.gradient(output, [values, masks, size])
    assert gradients[1:] == [None, None]
    assert_same(gradients[0], np.ones((1, 1, 2, 1), np.float32))


NOTHING = [None, None, None, None]


@pytest.mark.parametrize("jit_compile", [None, True])
@pytest.mark.parametrize(
    ("values", "masks", "static"),
    [
        (None, None, [None, 4, 6, None]),
        (NOTHING, NOTHING, [None, 4, 6, None]),
        (None, [2, None, None, 3], [2, 4, 6, 3]),
        ([None, 2, 3, 3], [2, None, 3, None], [2, 4, 6, 3]),
    ],
    ids=["unknown rank", "unknown sizes", "from masks", "from both"],
)
def test_static_shape_is_what_can_be_known(
    values: Any, masks: Any, static: Any, jit_compile: bool | None
) -> None:
    unpool = tf.function(
        lambda x, m: ops.max_unpool(x, m, [4, 6]),
        input_signature=[tf.TensorSpec(values), tf.TensorSpec(masks, tf.int64)],
        jit_compile=jit_compile,
    )
    assert unpool.get_concrete_function().structured_outputs.shape.as_list() == static
    image = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    output, argmax = max_pool_with_argmax(image, (2, 2), (2, 2), "SAME")
    assert_same(unpool(output, argmax), max_unpool(output, argmax, (4, 6)))


@pytest.mark.parametrize(
    ("size_of", "static"),
    [
        (lambda like: tf.shape(like)[1:3], [None, 5, None, None]),
        (lambda like: [like.shape[1], tf.shape(like)[2]], [None, 5, None, None]),
        (lambda like: tf.shape(like, tf.int64)[1:3], [None, 5, None, None]),
        (lambda like: tf.shape(like)[1:3] * 2, [None, None, None, None]),
        (lambda like: tf.constant([5, 7]), [None, 5, 7, None]),
    ],
    ids=["shape", "list", "int64", "computed", "constant"],
)
def test_size_of_another_tensor_is_known_statically_as_far_as_its_shape(
    size_of: Any, static: Any
) -> None:
    @tf.function(
        input_signature=[
            tf.TensorSpec(NOTHING),
            tf.TensorSpec(NOTHING, tf.int32),
            tf.TensorSpec([None, 5, None, None]),
        ]
    )
    def unpool(values: tf.Tensor, masks: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
        return ops.max_unpool(values, masks, size_of(like))

    assert unpool.get_concrete_function().structured_outputs.shape.as_list() == static
    like = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
    output, argmax = max_pool_with_argmax(like, (2, 2), (2, 2), "SAME", np.int32)
    size = [int(n) for n in size_of(tf.constant(like))]
    assert_same(unpool(output, argmax, like), max_unpool(output, argmax, size))


@pytest.mark.parametrize("path", ["eager", "graph", "xla"])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_subnormal_numbers_are_summed_and_kept(path: str, dtype: Any) -> None:
    """TF's threads flush them to zero by default; large enough that these threads take part."""
    values = np.arange(1, 9).astype(f"u{np.dtype(dtype).itemsize}").view(dtype)
    values = np.random.default_rng(0).choice(values, size=(4, 60, 60, 64))
    # Pairs of neighbours name one position; subnormal sums are sums of bits.
    masks = np.arange(60 * 60 * 64).reshape(60, 60, 64) // 2
    masks = np.broadcast_to(masks, values.shape)
    unpool = tf.function(
        lambda x, m: ops.max_unpool(x, m, (60, 60)), jit_compile=path == "xla" or None
    )
    if path == "eager":
        unpool = unpool.python_function
    bits = values.view(f"u{np.dtype(dtype).itemsize}").reshape(4, -1, 2)
    expected = np.concatenate([bits.sum(-1, dtype=bits.dtype), np.zeros_like(bits[..., 0])], axis=1)
    result = unpool(values, masks).numpy()
    assert_same_bits(result, expected.view(dtype).reshape(values.shape))
