"""The core's max-unpooling and its gradient against the oracles, on masks of every kind."""

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.drawing import (
    contents,
    examples,
    float_dtypes,
    generators,
    index_dtypes,
    masks_of,
    nhwc_shapes,
    poolings,
    values,
)
from helpers.tolerances import FLOAT_DTYPES, INDEX_DTYPES, assert_same, name_of
from hypothesis import given
from hypothesis import strategies as st
from reference.max_unpool import max_unpool, max_unpool_grad

Core = types.ModuleType
Shape = tuple[int, int, int, int]


def outcome(function: Callable[..., np.ndarray], *args: Any) -> np.ndarray | str:
    """What a call returns, or the words of its ValueError about a mask."""
    try:
        return function(*args)
    except ValueError as error:
        if not str(error).startswith("max_unpool: 'argmax' must lie in"):
            raise
        return str(error)


def assert_same_outcome(actual: np.ndarray | str, expected: np.ndarray | str) -> None:
    """Asserts the same array, or the same words."""
    if isinstance(actual, str) or isinstance(expected, str):
        assert isinstance(actual, str)
        assert actual == expected
    else:
        assert_same(actual, expected)


def check_both_ways(
    core: Core,
    generator: np.random.Generator,
    masks: np.ndarray,
    size: tuple[int, int],
    dtype: Any,
    content: str = "any values",
    include_batch_in_index: bool = False,
) -> None:
    """Compares unpooling by some masks, and its gradient, with the oracles."""
    given = values(generator, masks.shape, dtype, content)
    args = given, masks, size, include_batch_in_index
    assert_same_outcome(outcome(core.max_unpool, *args), outcome(max_unpool, *args))
    grad = values(generator, (masks.shape[0], *size, masks.shape[3]), dtype, content)
    back = grad, masks, include_batch_in_index
    assert_same_outcome(outcome(core.max_unpool_grad, *back), outcome(max_unpool_grad, *back))


@examples(300)
@given(
    st.data(),
    nhwc_shapes(),
    st.booleans(),
    generators,
    contents,
    float_dtypes,
    index_dtypes,
    st.booleans(),
)
def test_masks_of_a_pooling_give_what_the_oracle_gives(
    core: Core,
    data: st.DataObject,
    shape: Shape,
    cells: bool,
    generator: np.random.Generator,
    content: str,
    dtype: Any,
    index: Any,
    include_batch_in_index: bool,
) -> None:
    """Masks in cells of their own, also with rows left over, and masks of any other pooling."""
    pooling = data.draw(poolings(*shape[1:3], cells=cells))
    masks = masks_of(generator, shape, pooling, index, include_batch_in_index)
    check_both_ways(core, generator, masks, shape[1:3], dtype, content, include_batch_in_index)


@pytest.mark.parametrize("index", INDEX_DTYPES, ids=name_of)
@pytest.mark.parametrize("channels", [1, 2, 3, 5, 8, 15])
@pytest.mark.parametrize("left_over", [-1, 0, 1])
def test_last_cell_of_full_lanes_may_be_cut_short(
    core: Core, left_over: int, channels: int, index: Any
) -> None:
    """64 lanes take the cells of several pixels at once; here they end with the row."""
    width = 64 // channels
    shape = (2, 3, 2 * width + left_over, channels)
    padding = "SAME" if left_over < 0 else "VALID"
    generator = np.random.default_rng(0)
    masks = masks_of(generator, shape, ((2, 2), (2, 2), padding), index)
    assert masks.shape[2] == width
    check_both_ways(core, generator, masks, shape[1:3], np.float32)


@examples(150)
@given(nhwc_shapes(), nhwc_shapes(), generators, float_dtypes, index_dtypes, st.booleans())
def test_masks_anywhere_give_what_the_oracle_gives(
    core: Core,
    shape: Shape,
    output: Shape,
    generator: np.random.Generator,
    dtype: Any,
    index: Any,
    include_batch_in_index: bool,
) -> None:
    """Any legal position: duplicates, other channels and, where they count, other images."""
    size = output[1:3]
    limit = size[0] * size[1] * shape[3] * (shape[0] if include_batch_in_index else 1)
    if limit == 0:
        shape = (shape[0], 0, shape[2], shape[3])
    masks = generator.integers(max(limit, 1), size=shape).astype(index)
    check_both_ways(
        core, generator, masks, size, dtype, include_batch_in_index=include_batch_in_index
    )


@examples(150)
@given(st.data(), generators, float_dtypes, index_dtypes, st.booleans(), st.booleans())
def test_one_foreign_mask_among_cells_is_not_dropped(
    core: Core,
    data: st.DataObject,
    generator: np.random.Generator,
    dtype: Any,
    index: Any,
    include_batch_in_index: bool,
    shuffled: bool,
) -> None:
    shape = data.draw(nhwc_shapes(minimum=1))
    pooling = data.draw(poolings(*shape[1:3], cells=True))
    masks = masks_of(generator, shape, pooling, index, include_batch_in_index)
    flat = masks.reshape(-1)
    if shuffled:
        generator.shuffle(flat)
        if not include_batch_in_index:
            masks %= np.asarray(np.prod(shape[1:]), index)
    else:
        flat[generator.integers(flat.size)] = generator.choice(flat)
    check_both_ways(
        core, generator, masks, shape[1:3], dtype, include_batch_in_index=include_batch_in_index
    )


ILLEGAL: dict[str, Callable[[int, int], int]] = {
    "one below": lambda legal, limit: -1,
    "one above": lambda legal, limit: limit,
    "a batch of images above": lambda legal, limit: legal + limit,
    "minus itself": lambda legal, limit: -legal - 1,
    "smallest int32": lambda legal, limit: -(2**31),
    "largest int32": lambda legal, limit: 2**31 - 1,
    "low 32 bits legal": lambda legal, limit: legal + 2**32,
    "low 32 bits legal, negative": lambda legal, limit: legal - 2**32,
    "low 31 bits legal": lambda legal, limit: legal + 2**31,
    "low 63 bits legal": lambda legal, limit: legal - 2**63,
    "smallest int64": lambda legal, limit: -(2**63),
    "largest int64": lambda legal, limit: 2**63 - 1,
}


@pytest.mark.parametrize("kind", ILLEGAL)
@examples(20)
@given(st.data(), generators, index_dtypes, st.booleans(), st.booleans())
def test_illegal_mask_is_an_error_that_names_the_first_one(
    core: Core,
    kind: str,
    data: st.DataObject,
    generator: np.random.Generator,
    index: Any,
    include_batch_in_index: bool,
    cells: bool,
) -> None:
    shape = data.draw(nhwc_shapes(minimum=1))
    pooling = data.draw(poolings(*shape[1:3], cells=cells))
    masks = masks_of(generator, shape, pooling, index, include_batch_in_index)
    limit = int(np.prod(shape if include_batch_in_index else shape[1:]))
    flat = masks.reshape(-1)
    places = [data.draw(st.sampled_from([0, flat.size - 1, generator.integers(flat.size)]))]
    places += generator.integers(flat.size, size=generator.integers(3)).tolist()
    for place in places:
        illegal = ILLEGAL[kind](int(flat[place]), limit)
        # int32 cannot hold the wide ones: take their low bits, then -1 where these are legal.
        bits = np.iinfo(index).bits
        illegal = (illegal + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
        flat[place] = -1 if 0 <= illegal < limit else illegal
    check_both_ways(
        core, generator, masks, shape[1:3], np.float32, "any values", include_batch_in_index
    )
    with pytest.raises(ValueError, match="'argmax' must lie in"):
        core.max_unpool(np.zeros(masks.shape), masks, shape[1:3], include_batch_in_index)


@examples(150)
@given(st.data(), nhwc_shapes(minimum=1), generators, index_dtypes, st.booleans(), st.booleans())
def test_windows_are_checked_as_the_oracle_checks_them(
    core: Core,
    data: st.DataObject,
    pooled: Shape,
    generator: np.random.Generator,
    index: Any,
    include_batch_in_index: bool,
    spoilt: bool,
) -> None:
    """For outputs of masks' size times the strides, as the layer has them without `like`."""
    ksize = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    strides = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    size = pooled[1] * strides[0], pooled[2] * strides[1]
    shape = (pooled[0], *size, pooled[3])
    masks = masks_of(generator, shape, (ksize, strides, "SAME"), index, include_batch_in_index)
    assert masks.shape == pooled
    if spoilt:
        # Near its place or anywhere: the next pixel, row, channel or image, often another window.
        image = int(np.prod(shape[1:]))
        row = shape[2] * shape[3]
        near = [1, shape[3], row, image, image - row, image - shape[3], row - shape[3]]
        flat = masks.reshape(-1)
        place = data.draw(st.sampled_from([0, flat.size - 1, flat.size // pooled[0] - 1]))
        place = data.draw(st.sampled_from([place, int(generator.integers(flat.size))]))
        limit = image * pooled[0] if include_batch_in_index else image
        steps = st.sampled_from([*near, *(-n for n in near), int(generator.integers(limit))])
        flat[place] = (int(flat[place]) + data.draw(steps)) % limit
    given_values = values(generator, pooled, np.float32, "any values")
    args = given_values, masks, size, include_batch_in_index
    actual = outcome(core.max_unpool, *args, [*ksize, *strides])
    expected = outcome(max_unpool, *args, (ksize, strides))
    assert_same_outcome(actual, expected)
    assert spoilt or not isinstance(actual, str)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@examples(150)
@given(st.data(), nhwc_shapes(minimum=1), generators)
def test_windows_hold_the_masks_of_every_pooling_of_the_output(
    core: Core, padding: str, data: st.DataObject, shape: Shape, generator: np.random.Generator
) -> None:
    """Of any output size, divisible by the strides or not: as VALID or SAME pooling places them."""
    pooling = data.draw(poolings(*shape[1:3]))._replace(padding=padding)
    masks = masks_of(generator, shape, pooling, np.int64)
    given_values = values(generator, masks.shape, np.float32, "any values")
    windows = [*pooling.ksize, *pooling.strides]
    actual = core.max_unpool(given_values, masks, shape[1:3], False, windows)
    assert_same(actual, max_unpool(given_values, masks, shape[1:3]))


def test_mask_above_its_image_is_foreign_though_its_window_is_padded(core: Core) -> None:
    """The last row of the image before: a row of -1, which is where a SAME window begins."""
    masks = np.array([0, 2, 8, 10, 16 + 0, 16 + 2, 16 + 8, 16 + 10]).reshape(2, 2, 2, 1)
    values_of_masks = np.ones(masks.shape)
    windows = [4, 4, 2, 2]
    assert core.max_unpool(values_of_masks, masks, (4, 4), True, windows).sum() == 8
    masks[1, 0, 0, 0] = 12
    with pytest.raises(ValueError, match=r"own window .* got 12 at \[1, 0, 0, 0\]"):
        core.max_unpool(values_of_masks, masks, (4, 4), True, windows)


def test_mask_in_its_cell_but_outside_a_smaller_window_is_foreign(core: Core) -> None:
    masks = np.array([0, 2, 8, 10]).reshape(1, 2, 2, 1)
    windows = [1, 1, 2, 2]
    assert core.max_unpool(np.ones(masks.shape), masks, (4, 4), False, windows).sum() == 4
    masks[0, 1, 0, 0] = 9
    with pytest.raises(ValueError, match=r"own window .* got 9 at \[0, 1, 0, 0\]"):
        core.max_unpool(np.ones(masks.shape), masks, (4, 4), False, windows)


def test_mask_of_an_odd_sized_input_lies_outside_its_window(core: Core) -> None:
    image = np.arange(2 * 5 * 7 * 3, dtype=np.float32).reshape(2, 5, 7, 3)
    output, argmax = core.max_pool_with_argmax(image, (2, 2), (2, 2), "VALID")
    with pytest.raises(ValueError, match="own window") as caught:
        core.max_unpool(output, argmax, (4, 6), windows=[2, 2, 2, 2])
    assert str(caught.value) == (
        "max_unpool: 'argmax' must lie in its own window of ksize [2, 2] and strides [2, 2], "
        "got 24 at [0, 0, 0, 0]"
    )


# Shape of the output, window, strides, padding, include_batch_in_index.
LARGE = {
    "cells, rows left over": ((3, 83, 65, 67), (2, 2), (2, 2), "VALID", False),
    "cells of 3 by 2": ((2, 66, 129, 64), (3, 2), (3, 2), "VALID", True),
    "cells of few channels": ((2, 302, 303, 3), (2, 3), (2, 3), "VALID", False),
    "overlapping": ((3, 83, 65, 67), (3, 3), (2, 2), "SAME", True),
    "gaps": ((1, 300, 301, 9), (2, 1), (4, 1), "SAME", False),
}


@pytest.mark.parametrize("index", INDEX_DTYPES, ids=name_of)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
@pytest.mark.parametrize("case", LARGE)
def test_large_outputs_are_unpooled_alike(core: Core, case: str, dtype: Any, index: Any) -> None:
    """Over 8192 * 64 elements: many blocks, many threads, rows and columns left over."""
    shape, *pooling, include_batch_in_index = LARGE[case]
    generator = np.random.default_rng(0)
    masks = masks_of(generator, shape, tuple(pooling), index, include_batch_in_index)
    # Few bits each, so that sums are exact in any order.
    given_values = generator.integers(-8, 8, masks.shape).astype(dtype)
    result = core.max_unpool(given_values, masks, shape[1:3], include_batch_in_index)
    assert result.size > 8192 * 64

    place = masks.astype(np.int64)
    if not include_batch_in_index:
        place += np.arange(shape[0])[:, None, None, None] * int(np.prod(shape[1:]))
    sums = np.bincount(place.ravel(), given_values.astype(np.float64).ravel(), result.size)
    assert_same(result, sums.reshape(shape).astype(dtype))
    gathered = core.max_unpool_grad(result, masks, include_batch_in_index)
    assert_same(gathered, result.reshape(-1)[place])


@pytest.mark.parametrize("index", INDEX_DTYPES, ids=name_of)
@pytest.mark.parametrize("row", [0, 20, 40])
def test_one_illegal_mask_in_a_large_array_is_named(core: Core, row: int, index: Any) -> None:
    shape, *pooling, _ = LARGE["cells, rows left over"]
    masks = masks_of(np.random.default_rng(0), shape, tuple(pooling), index)
    limit = int(np.prod(shape[1:]))
    masks[2, 40, 31, 66] = -5
    masks[1, row, 3, 66] = limit
    for call in (
        lambda: core.max_unpool(np.zeros(masks.shape), masks, shape[1:3]),
        lambda: core.max_unpool_grad(np.zeros(shape), masks),
    ):
        with pytest.raises(ValueError, match="argmax") as caught:
            call()
        assert str(caught.value) == (
            f"max_unpool: 'argmax' must lie in [0, {limit}), got {limit} at [1, {row}, 3, 66]"
        )


@examples(60)
@given(st.data(), nhwc_shapes(), generators, st.booleans())
def test_gradient_is_the_exact_adjoint(
    core: Core, data: st.DataObject, shape: Shape, generator: np.random.Generator, batch_index: bool
) -> None:
    pooling = data.draw(poolings(*shape[1:3]))
    masks = masks_of(generator, shape, pooling, np.int64, batch_index)
    x = generator.integers(-9, 9, masks.shape).astype(np.float64)
    y = generator.integers(-9, 9, shape).astype(np.float64)
    unpooled = core.max_unpool(x, masks, shape[1:3], batch_index)
    assert np.vdot(unpooled, y) == np.vdot(x, core.max_unpool_grad(y, masks, batch_index))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_nan_and_infinite_values_are_moved(core: Core, dtype: Any) -> None:
    given_values = np.array([np.nan, np.inf, -np.inf], dtype).reshape(1, 1, 3, 1)
    for masks in ([1, 3, 5], [5, 0, 1]):
        positions = np.array(masks).reshape(1, 1, 3, 1)
        result = core.max_unpool(given_values, positions, (1, 6))
        assert_same(result, max_unpool(given_values, positions, (1, 6)))


@pytest.mark.parametrize("size", [(0, 0), (3, 2), (0, 5)])
@pytest.mark.parametrize("shape", [(0, 4, 4, 2), (2, 0, 4, 2), (2, 4, 0, 2), (2, 4, 4, 0)])
def test_no_masks_give_zeros(core: Core, shape: Shape, size: tuple[int, int]) -> None:
    masks = np.zeros(shape, np.int32)
    result = core.max_unpool(np.zeros(shape, np.float16), masks, size)
    assert_same(result, np.zeros((shape[0], *size, shape[3]), np.float16))
    grad = np.ones((shape[0], *size, shape[3]), np.float16)
    assert_same(core.max_unpool_grad(grad, masks), np.zeros(shape, np.float16))


def test_masks_into_an_empty_output_are_errors(core: Core) -> None:
    masks = np.zeros((1, 2, 2, 1), np.int64)
    words = "max_unpool: 'argmax' must lie in [0, 0), got 0 at [0, 0, 0, 0]"
    assert outcome(core.max_unpool, np.zeros((1, 2, 2, 1)), masks, (0, 4)) == words
    assert outcome(core.max_unpool_grad, np.zeros((1, 0, 4, 1)), masks) == words


_MASKS = np.arange(0, 2 * 2 * 6 * 5, 2).reshape(1, 2, 6, 5)
_VALUES = np.random.default_rng(2).normal(size=_MASKS.shape)
_LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "fortran": np.asfortranarray,
    "flipped": lambda a: np.flip(np.flip(a, 1).copy(), 1),
    "strided": lambda a: np.repeat(a, 2, axis=3)[..., ::2],
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "list": lambda a: a.tolist(),
}


@pytest.mark.parametrize("layout", _LAYOUTS)
def test_layout_of_the_arrays_does_not_matter(core: Core, layout: str) -> None:
    laid_values, laid_masks = _LAYOUTS[layout](_VALUES), _LAYOUTS[layout](_MASKS)
    result = core.max_unpool(laid_values, laid_masks, (4, 6))
    assert_same(result, max_unpool(_VALUES, _MASKS, (4, 6)))
    assert_same(core.max_unpool_grad(_LAYOUTS[layout](result), laid_masks), _VALUES)


_OK: dict[str, Any] = {
    "input": np.zeros((2, 3, 4, 5), np.float32),
    "argmax": np.zeros((2, 3, 4, 5), np.int64),
    "output_shape": (6, 8),
}
_RANK = "must have shape [batch, height, width, channels], got"
_FLOATS = "must be float16, bfloat16, float32 or float64, got"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"input": np.zeros((3, 4, 5))}, ValueError, f"'input' {_RANK} [3, 4, 5]"),
        ({"input": np.zeros((1,) * 9)}, ValueError, f"'input' {_RANK} rank 9"),
        (
            {"argmax": np.zeros((2, 3, 4, 6), np.int64)},
            ValueError,
            "'argmax' must have shape [batch=2, height=3, width=4, channels=5], got [2, 3, 4, 6]",
        ),
        (
            {"argmax": np.zeros((), np.int64)},
            ValueError,
            "'argmax' must have shape [batch=2, height=3, width=4, channels=5], got []",
        ),
        ({"output_shape": (-1, 8)}, ValueError, "'output_shape' must not be negative, got [-1, 8]"),
        (
            {"output_shape": (2**62, 2**62)},
            ValueError,
            f"'output_shape' must fit into memory, got [{2**62}, {2**62}]",
        ),
        (
            {"windows": [2, 0, 2, 2]},
            ValueError,
            "'windows' must lie in [1, 2147483647], got [2, 0]",
        ),
        (
            {"windows": [2, 2, 2**62, 2]},
            ValueError,
            f"'windows' must lie in [1, 2147483647], got [{2**62}, 2]",
        ),
        ({"input": np.zeros((2, 3, 4, 5), np.int64)}, TypeError, f"'input' {_FLOATS} int64"),
        ({"input": np.zeros((2, 3, 4, 5), np.uint8)}, TypeError, f"'input' {_FLOATS} uint8"),
        (
            {"argmax": np.zeros((2, 3, 4, 5), np.float32)},
            TypeError,
            "'argmax' must be int32 or int64, got float32",
        ),
        (
            {"argmax": np.zeros((2, 3, 4, 5), np.uint32)},
            TypeError,
            "'argmax' must be int32 or int64, got uint32",
        ),
        # Nothing to compute is no reason to accept what is wrong otherwise.
        (
            {"input": np.zeros((2, 0, 4, 5), np.uint8), "argmax": np.zeros((2, 0, 4, 5), np.int64)},
            TypeError,
            f"'input' {_FLOATS} uint8",
        ),
        (
            {"input": np.zeros((2, 0, 4, 5)), "argmax": np.zeros((2, 0, 4, 5), np.float32)},
            TypeError,
            "'argmax' must be int32 or int64, got float32",
        ),
    ],
    ids=[
        "rank 3",
        "rank 9",
        "channels",
        "rank 0",
        "negative size",
        "huge size",
        "empty window",
        "huge stride",
        "integer values",
        "dtype of no use",
        "float masks",
        "unsigned masks",
        "dtype of nothing",
        "masks of nothing",
    ],
)
def test_wrong_argument_is_named(
    core: Core, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        core.max_unpool(**{**_OK, **change})
    assert str(caught.value) == f"max_unpool: {words}"


@pytest.mark.parametrize(
    ("grad", "argmax", "error", "words"),
    [
        (np.zeros((2, 6, 8)), _OK["argmax"], ValueError, f"'grad' {_RANK} [2, 6, 8]"),
        (
            np.zeros((1, 6, 8, 5)),
            _OK["argmax"],
            ValueError,
            "'argmax' must have shape [batch=1, height, width, channels=5], got [2, 3, 4, 5]",
        ),
        (
            np.zeros((2, 6, 8, 5)),
            np.zeros((1,) * 12, np.int64),
            ValueError,
            "'argmax' must have shape [batch=2, height, width, channels=5], got rank 12",
        ),
        (np.zeros((2, 6, 8, 5), np.uint8), _OK["argmax"], TypeError, f"'grad' {_FLOATS} uint8"),
        (
            np.zeros((2, 6, 8, 5)),
            np.zeros((2, 3, 4, 5), np.float32),
            TypeError,
            "'argmax' must be int32 or int64, got float32",
        ),
    ],
    ids=["rank 3", "batch", "rank 12", "dtype of no use", "float masks"],
)
def test_wrong_argument_of_the_gradient_is_named(
    core: Core, grad: np.ndarray, argmax: np.ndarray, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        core.max_unpool_grad(grad, argmax)
    assert str(caught.value) == f"max_unpool: {words}"


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((-(2**63), 4), "must not be negative, got [-9223372036854775807, 4]"),
        ((2**31 - 1, 2**31 - 1), "must fit into memory, got [2147483647, 2147483647]"),
    ],
)
def test_extreme_output_size_is_named_even_without_channels(
    core: Core, size: tuple[int, int], words: str
) -> None:
    empty = np.zeros((8, 1, 1, 0))
    with pytest.raises(ValueError, match="max_unpool") as caught:
        core.max_unpool(empty, empty.astype(np.int64), size)
    assert str(caught.value) == f"max_unpool: 'output_shape' {words}"
