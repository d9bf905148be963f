"""`ops.max_pool_with_argmax`: against the oracle and stock TF, gradients, shapes, paths."""

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
from tfseg_ops.testing.strategies import images, windows

# Sides of 1 to 7 keep gradients element by element fast.
small = st.integers(1, 7)
channels = st.integers(1, 3)
dtypes = st.sampled_from(FLOAT_DTYPES)
special = st.sampled_from([0.0, -0.0, 1.0, -2.0, np.nan, np.inf, -np.inf])


@settings(max_examples=150)
@given(st.data(), dtypes, st.sampled_from(INDEX_DTYPES), st.booleans(), st.booleans())
def test_maxima_and_positions_are_those_of_the_oracle(
    data: st.DataObject, dtype: Any, index: Any, include_batch_in_index: bool, has_nan: bool
) -> None:
    image = data.draw(images(dtype, elements=special.map(dtype) if has_nan else None))
    window = data.draw(windows(height=max(1, image.shape[1]), width=max(1, image.shape[2])))
    results = ops.max_pool_with_argmax(image, *window, index, include_batch_in_index)
    expected = max_pool_with_argmax(image, *window, index, include_batch_in_index)
    assert_same(results[0], expected[0])
    assert_same(results[1], expected[1])


@settings(max_examples=80)
@given(st.data(), dtypes, st.sampled_from(INDEX_DTYPES), st.booleans())
def test_results_are_those_of_stock_tensorflow(
    data: st.DataObject, dtype: Any, index: Any, include_batch_in_index: bool
) -> None:
    """Ties included; stock TF does not pool empty batches and hides NaN."""
    image = data.draw(images(dtype, st.integers(1, 2), small, small, channels))
    window = data.draw(windows(height=image.shape[1], width=image.shape[2]))
    results = ops.max_pool_with_argmax(image, *window, index, include_batch_in_index)
    expected = tf.nn.max_pool_with_argmax(
        image, *window, output_dtype=index, include_batch_in_index=include_batch_in_index
    )
    assert_same(results[0], expected[0])
    assert_same(results[1], expected[1])


@settings(max_examples=30)
@given(st.data(), st.sampled_from(INDEX_DTYPES), st.booleans())
def test_gradient_goes_to_the_maxima_and_is_summed_where_windows_overlap(
    data: st.DataObject, index: Any, include_batch_in_index: bool
) -> None:
    """Whole numbers, so that the oracle's sums are exact; ties go to the first maximum."""
    image = data.draw(images(np.float32, 2, small, small, channels, elements=(-3.0, 3.0)))
    image = np.round(image)
    window = data.draw(windows(height=image.shape[1], width=image.shape[2]))
    _, argmax = max_pool_with_argmax(image, *window, index, include_batch_in_index)
    upstream = np.random.default_rng(0).integers(-9, 9, argmax.shape).astype(np.float32)
    x = tf.constant(image)
    with tf.GradientTape() as tape:
        tape.watch(x)
        output, _ = ops.max_pool_with_argmax(x, *window, index, include_batch_in_index)
    gradient = tape.gradient(output, x, output_gradients=tf.constant(upstream))
    expected = max_unpool(upstream, argmax, image.shape[1:3], include_batch_in_index)
    assert_same(gradient, expected)


@settings(max_examples=15)
@given(st.data(), st.sampled_from(INDEX_DTYPES), st.booleans())
def test_first_and_second_order_gradients_are_those_of_central_differences(
    data: st.DataObject, index: Any, include_batch_in_index: bool
) -> None:
    image = data.draw(
        images(np.float64, st.integers(1, 2), small, small, st.integers(1, 2), distinct=True)
    )
    window = data.draw(windows(height=image.shape[1], width=image.shape[2]))
    check_gradients(
        lambda x: ops.max_pool_with_argmax(x, *window, index, include_batch_in_index),
        [image],
        order=2,
    )


@settings(max_examples=30)
@given(st.data())
def test_gradient_is_the_adjoint_of_picking_the_maxima(data: st.DataObject) -> None:
    image = data.draw(images(np.float64, 2, small, small, channels, distinct=True))
    window = data.draw(windows(height=image.shape[1], width=image.shape[2]))
    _, argmax = max_pool_with_argmax(image, *window)

    def gradient(upstream: tf.Tensor) -> Any:
        x = tf.constant(image)
        with tf.GradientTape() as tape:
            tape.watch(x)
            output, _ = ops.max_pool_with_argmax(x, *window)
        return tape.gradient(output, x, output_gradients=upstream)

    generator = np.random.default_rng(0)
    check_adjoint(
        lambda x: max_unpool_grad(np.asarray(x), argmax),
        gradient,
        x=tf.constant(generator.normal(size=image.shape)),
        y=tf.constant(generator.normal(size=argmax.shape)),
    )


PATHS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "overlapping, same": (
        (2, 7, 5, 3),
        {"ksize": (3, 2), "strides": (2, 1), "padding": "SAME"},
    ),
    "gaps, rows over": (
        (2, 8, 9, 2),
        {"ksize": 2, "strides": 3, "padding": "VALID", "output_dtype": tf.int32},
    ),
    "batch counts": (
        (3, 4, 4, 65),
        {"ksize": 2, "strides": 2, "padding": "VALID", "include_batch_in_index": True},
    ),
    "empty batch": ((0, 4, 4, 3), {"ksize": 2, "strides": 2, "padding": "SAME"}),
    "no channels": ((2, 4, 4, 0), {"ksize": 2, "strides": 2, "padding": "SAME"}),
    "nothing fits": ((2, 5, 6, 3), {"ksize": (6, 2), "strides": 2, "padding": "VALID"}),
}


@pytest.mark.parametrize("case", PATHS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_all_paths_agree(case: str, dtype: Any) -> None:
    shape, arguments = PATHS[case]
    image = np.random.default_rng(0).normal(size=shape).astype(dtype)
    check_paths(lambda x: ops.max_pool_with_argmax(x, **arguments), [image])


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_all_paths_agree_on_nan_infinity_and_ties(dtype: Any) -> None:
    choices = [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf]
    image = np.random.default_rng(0).choice(choices, size=(3, 7, 8, 5)).astype(dtype)
    check_paths(lambda x: ops.max_pool_with_argmax(x, 3, 2, "SAME"), [image], gradient=False)


@pytest.mark.parametrize("jit_compile", [None, True])
@pytest.mark.parametrize(
    ("spec", "static"),
    [
        (None, [None, None, None, None]),
        ([None, None, None, None], [None, None, None, None]),
        ([None, 7, 9, 3], [None, 4, 5, 3]),
        ([2, None, 9, None], [2, None, 5, None]),
    ],
    ids=str,
)
def test_static_shape_is_what_can_be_known(
    spec: Any, static: Any, jit_compile: bool | None
) -> None:
    pool = tf.function(
        lambda x: ops.max_pool_with_argmax(x, 3, 2, "SAME"),
        input_signature=[tf.TensorSpec(spec, tf.float32)],
        jit_compile=jit_compile,
    )
    for output in pool.get_concrete_function().structured_outputs:
        assert output.shape.as_list() == static
    image = np.random.default_rng(0).normal(size=(2, 7, 9, 3)).astype(np.float32)
    output, argmax = pool(image)
    expected = max_pool_with_argmax(image, (3, 3), (2, 2), "SAME")
    assert_same(output, expected[0])
    assert_same(argmax, expected[1])


def test_static_shape_with_valid_padding_rounds_down() -> None:
    pool = tf.function(lambda x: ops.max_pool_with_argmax(x, [3, 2], [2, 3], "VALID"))
    trace = pool.get_concrete_function(tf.TensorSpec([None, 8, None, 4], tf.float16))
    output, argmax = trace.structured_outputs
    assert (output.shape.as_list(), output.dtype) == ([None, 3, None, 4], tf.float16)
    assert (argmax.shape.as_list(), argmax.dtype) == ([None, 3, None, 4], tf.int64)


@pytest.mark.parametrize("jit_compile", [None, True])
def test_one_trace_serves_all_sizes_with_gradients(jit_compile: bool | None) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None] * 4)], jit_compile=jit_compile)
    def gradient(x: tf.Tensor) -> tf.Tensor:
        return tf.gradients(ops.max_pool_with_argmax(x, 2, 2, "SAME", tf.int32)[0], x)[0]

    for shape in [(1, 4, 4, 1), (2, 5, 7, 3), (0, 4, 4, 2)]:
        image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        output, argmax = max_pool_with_argmax(image, (2, 2), (2, 2), "SAME")
        assert_same(gradient(image), max_unpool(np.ones_like(output), argmax, shape[1:3]))


@pytest.mark.parametrize("path", ["eager", "graph", "xla"])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_subnormal_numbers_are_compared_and_kept(path: str, dtype: Any) -> None:
    """TF's threads flush them to zero by default; large enough that these threads take part."""
    tiny = np.arange(1, 50).astype(f"u{np.dtype(dtype).itemsize}")
    image = np.random.default_rng(0).choice(tiny.view(dtype), size=(4, 120, 120, 32))
    pool = tf.function(
        lambda x: ops.max_pool_with_argmax(x, 2, 2, "VALID"), jit_compile=path == "xla" or None
    )
    if path == "eager":
        pool = pool.python_function
    output, _ = pool(image)
    blocks = image.reshape(4, 60, 2, 60, 2, 32)
    # Positive numbers are ordered as their bits are.
    expected = blocks.view(tiny.dtype).max(axis=(2, 4)).view(dtype)
    assert_same_bits(output.numpy(), expected)


def test_compiled_neighbours_that_turn_the_axes_do_not_change_results() -> None:
    """XLA may turn axes by relabelling them alone, which must not reach the kernels."""

    def run(image: tf.Tensor, filters: tf.Tensor) -> list[tf.Tensor]:
        turned = tf.transpose(image, [0, 2, 3, 1])
        output, argmax = ops.max_pool_with_argmax(turned, 2, 2, "SAME")
        restored = ops.max_unpool(tf.transpose(output, [0, 2, 1, 3]), argmax, tf.shape(turned)[1:3])
        sums = tf.nn.conv2d(restored, filters, 1, "SAME")
        return [output, argmax, tf.transpose(restored, [0, 3, 1, 2]), sums]

    generator = np.random.default_rng(0)
    image = tf.constant(generator.integers(-9, 9, (2, 3, 8, 8)), tf.float32)
    filters = tf.constant(generator.integers(-9, 9, (3, 3, 3, 5)), tf.float32)
    results = tf.function(run, jit_compile=True)(image, filters)
    for result, expected in zip(results, run(image, filters), strict=True):
        assert_same(result, expected)


@pytest.mark.parametrize("same", [[[1, 2], [3, 4]], ((1.0, 2), (3, 4))])
def test_lists_are_taken_as_tensors(same: Any) -> None:
    image = np.asarray(same, np.float32)[None, :, :, None]
    output, argmax = ops.max_pool_with_argmax(image.tolist(), 2, 2, "VALID")
    assert (output.numpy().item(), argmax.numpy().item()) == (4.0, 3)


def test_padding_is_read_in_either_case() -> None:
    image = np.random.default_rng(0).normal(size=(1, 5, 5, 1))
    output, _ = ops.max_pool_with_argmax(image, 2, 2, "same")
    assert_same(output, max_pool_with_argmax(image, (2, 2), (2, 2), "SAME")[0])
