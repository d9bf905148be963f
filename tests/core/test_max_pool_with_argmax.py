"""The core's max-pooling with argmax against the oracle, its edges and its errors."""

import types
from typing import Any

import numpy as np
import pytest
from helpers.drawing import (
    contents,
    examples,
    float_dtypes,
    generators,
    index_dtypes,
    nhwc_shapes,
    poolings,
    values,
)
from helpers.tolerances import FLOAT_DTYPES, INDEX_DTYPES, assert_same, bits, name_of
from hypothesis import given
from hypothesis import strategies as st
from reference.max_pool_with_argmax import max_pool_with_argmax

Core = types.ModuleType


@examples(400)
@given(st.data(), nhwc_shapes(), generators, contents, float_dtypes, index_dtypes, st.booleans())
def test_maxima_and_positions_are_those_of_the_oracle(
    core: Core,
    data: st.DataObject,
    shape: tuple[int, ...],
    generator: np.random.Generator,
    content: str,
    dtype: Any,
    index: Any,
    include_batch_in_index: bool,
) -> None:
    pooling = data.draw(poolings(*shape[1:3]))
    image = values(generator, shape, dtype, content)
    before = image.copy()
    results = core.max_pool_with_argmax(image, *pooling, index, include_batch_in_index)
    expected = max_pool_with_argmax(image, *pooling, index, include_batch_in_index)
    assert_same(results[0], expected[0])
    assert_same(results[1], expected[1])
    # Of 0 and -0, which are equal, the first one stays: with its sign.
    numbers = ~np.isnan(expected[0].astype(np.float64))
    np.testing.assert_array_equal(bits(results[0])[numbers], bits(expected[0])[numbers])
    np.testing.assert_array_equal(bits(image), bits(before))


@pytest.mark.parametrize("index", INDEX_DTYPES, ids=name_of)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
@pytest.mark.parametrize("shape", [(3, 83, 65, 67), (2, 301, 299, 3)])
@pytest.mark.parametrize(
    ("ksize", "strides", "padding"),
    [((2, 2), (2, 2), "VALID"), ((3, 2), (2, 1), "SAME"), ((2, 3), (3, 4), "SAME")],
)
def test_large_images_are_pooled_alike(
    core: Core, ksize: Any, strides: Any, padding: str, shape: Any, dtype: Any, index: Any
) -> None:
    image = values(np.random.default_rng(1), shape, dtype, "any values")
    output, argmax = core.max_pool_with_argmax(image, ksize, strides, padding, index)

    wide = np.pad(
        image.astype(np.float64), [(0, 0), (4, 4), (4, 4), (0, 0)], constant_values=-np.inf
    )
    view = np.lib.stride_tricks.sliding_window_view(wide, ksize, (1, 2))
    starts = []
    for size, k, stride, count in zip(shape[1:3], ksize, strides, output.shape[1:3], strict=True):
        needed = max((count - 1) * stride + k - size, 0) if padding == "SAME" else 0
        starts.append(np.arange(count) * stride - needed // 2)
    windows = view[:, starts[0] + 4][:, :, starts[1] + 4]
    windows = windows.reshape(*windows.shape[:4], -1)
    first = windows.argmax(-1)
    y = starts[0][:, None, None] + first // ksize[1]
    x = starts[1][:, None] + first % ksize[1]
    assert_same(output, windows.max(-1).astype(dtype))
    assert_same(argmax, ((y * shape[2] + x) * shape[3] + np.arange(shape[3])).astype(index))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_first_of_equal_values_wins(core: Core, dtype: Any) -> None:
    image = np.zeros((1, 4, 6, 70), dtype)
    _, argmax = core.max_pool_with_argmax(image, (2, 3), (2, 3), "VALID")
    np.testing.assert_array_equal(argmax[0, :, :, 0], np.array([[0, 3], [12, 15]]) * 70)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_first_nan_of_a_window_wins(core: Core, dtype: Any) -> None:
    window = np.array([[1, np.nan, 3], [np.nan, np.inf, 2]], dtype)
    image = np.repeat(window[None, :, :, None], 70, -1)
    output, argmax = core.max_pool_with_argmax(image, (2, 3), (1, 1), "VALID")
    assert np.isnan(output.astype(np.float32)).all()
    np.testing.assert_array_equal(argmax.ravel(), 70 + np.arange(70))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_padding_never_wins(core: Core, dtype: Any) -> None:
    image = np.full((1, 3, 3, 2), -np.inf, dtype)
    output, argmax = core.max_pool_with_argmax(image, (5, 5), (2, 2), "SAME")
    assert np.isneginf(output.astype(np.float32)).all()
    np.testing.assert_array_equal(argmax, np.broadcast_to([0, 1], (1, 2, 2, 2)))


def test_window_may_be_far_larger_than_the_image_with_same_padding(core: Core) -> None:
    image = np.arange(12.0).reshape(1, 3, 4, 1)
    output, argmax = core.max_pool_with_argmax(image, (2**31 - 1,) * 2, (2**31 - 1,) * 2, "SAME")
    assert (output.item(), argmax.item()) == (11.0, 11)


def test_window_less_than_a_stride_over_the_image_gives_nothing(core: Core) -> None:
    output, argmax = core.max_pool_with_argmax(np.zeros((2, 5, 9, 3)), (7, 3), (3, 3), "VALID")
    assert output.shape == argmax.shape == (2, 0, 3, 3)


@pytest.mark.parametrize("shape", [(0, 4, 4, 2), (2, 0, 4, 2), (2, 4, 0, 2), (2, 4, 4, 0)])
def test_empty_input_gives_empty_output(core: Core, shape: tuple[int, ...]) -> None:
    output, argmax = core.max_pool_with_argmax(np.zeros(shape), (2, 2), (2, 2), "SAME", "int32")
    expected = (shape[0], shape[1] // 2, shape[2] // 2, shape[3])
    assert output.shape == argmax.shape == expected
    assert argmax.dtype == np.int32


_IMAGE = np.random.default_rng(2).normal(size=(2, 6, 8, 5)).astype(np.float32)


@pytest.mark.parametrize(
    "same_values",
    [
        np.asfortranarray(_IMAGE),
        np.flip(np.flip(_IMAGE, 1).copy(), 1),
        np.repeat(_IMAGE, 2, axis=3)[..., ::2],
        np.ascontiguousarray(_IMAGE.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0),
        _IMAGE.astype(">f4"),
        _IMAGE.tolist(),
    ],
    ids=["fortran", "flipped", "strided", "transposed", "big-endian", "list"],
)
def test_layout_of_the_input_does_not_matter(core: Core, same_values: Any) -> None:
    output, argmax = core.max_pool_with_argmax(same_values, (3, 2), (2, 2), "SAME")
    expected = core.max_pool_with_argmax(_IMAGE, (3, 2), (2, 2), "SAME")
    np.testing.assert_array_equal(output, expected[0])
    np.testing.assert_array_equal(argmax, expected[1])
    assert output.dtype.isnative


def test_read_only_and_broadcast_inputs_are_read(core: Core) -> None:
    image = np.broadcast_to(np.float32(3), (1, 4, 4, 2))
    output, _ = core.max_pool_with_argmax(image, (2, 2), (2, 2), "VALID")
    np.testing.assert_array_equal(output, np.full((1, 2, 2, 2), 3, np.float32))


_OK: dict[str, Any] = {
    "input": np.zeros((1, 3, 4, 2), np.float32),
    "ksize": (2, 2),
    "strides": (2, 2),
    "padding": "VALID",
}
_RANK = "'input' must have shape [batch, height, width, channels], got "


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"input": np.zeros((3, 4, 2))}, ValueError, _RANK + "[3, 4, 2]"),
        ({"input": np.float32(1)}, ValueError, _RANK + "[]"),
        ({"input": np.zeros((1,) * 9)}, ValueError, _RANK + "rank 9"),
        ({"ksize": (0, 2)}, ValueError, "'ksize' must lie in [1, 2147483647], got [0, 2]"),
        (
            {"ksize": (2, 2**31)},
            ValueError,
            "'ksize' must lie in [1, 2147483647], got [2, 2147483648]",
        ),
        ({"strides": (2, -1)}, ValueError, "'strides' must lie in [1, 2147483647], got [2, -1]"),
        ({"padding": "FULL"}, ValueError, "'padding' must be VALID or SAME, got FULL"),
        (
            {"ksize": (2, 7)},
            ValueError,
            "'ksize' must fit into the input of shape [1, 3, 4, 2] with padding VALID, got [2, 7]",
        ),
        (
            {"input": np.zeros((1, 3, 4, 2), np.int32)},
            TypeError,
            "'input' must be float16, bfloat16, float32 or float64, got int32",
        ),
        (
            {"input": np.zeros((1, 3, 4, 2), np.complex64)},
            TypeError,
            "'input' must be float16, bfloat16, float32 or float64, got complex64",
        ),
        (
            {"output_dtype": "float32"},
            TypeError,
            "'output_dtype' must be int32 or int64, got float32",
        ),
        ({"output_dtype": "uint8"}, TypeError, "'output_dtype' must be int32 or int64, got uint8"),
        # Nothing to compute is no reason to accept what is wrong otherwise.
        (
            {"input": np.zeros((0, 3, 4, 2), np.int32)},
            TypeError,
            "'input' must be float16, bfloat16, float32 or float64, got int32",
        ),
        (
            {"input": np.zeros((0, 3, 4, 2), np.float32), "output_dtype": "float32"},
            TypeError,
            "'output_dtype' must be int32 or int64, got float32",
        ),
    ],
    ids=[
        "rank 3",
        "rank 0",
        "rank 9",
        "empty window",
        "huge window",
        "negative stride",
        "padding",
        "window over the input",
        "integers",
        "dtype of no use",
        "float positions",
        "unsigned positions",
        "dtype of nothing",
        "positions of nothing",
    ],
)
def test_wrong_argument_is_named(
    core: Core, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        core.max_pool_with_argmax(**{**_OK, **change})
    assert str(caught.value) == f"max_pool_with_argmax: {words}"


def test_positions_asked_for_in_foreign_byte_order_come_in_native_order(core: Core) -> None:
    image = np.arange(16.0).reshape(1, 4, 4, 1)
    native = core.max_pool_with_argmax(image, (2, 2), (2, 2), "VALID", "int32")[1]
    foreign = core.max_pool_with_argmax(image, (2, 2), (2, 2), "VALID", ">i4")[1]
    np.testing.assert_array_equal(foreign, native)


def test_largest_window_pools_the_whole_image(core: Core) -> None:
    image = np.arange(2.0 * 3 * 4 * 8).reshape(2, 3, 4, 8)
    output, argmax = core.max_pool_with_argmax(image, (2**31 - 1,) * 2, (2**31 - 1,) * 2, "SAME")
    np.testing.assert_array_equal(output, image.max(axis=(1, 2), keepdims=True))
    np.testing.assert_array_equal(argmax[0, 0, 0], np.arange(88, 96))
