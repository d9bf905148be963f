"""Bad input: the same words from TF eagerly, in graphs, under XLA, in numpy and portably."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.gpu import EMULATED
from helpers.messages import words_of
from helpers.runners import RUNNERS, TF_ERRORS

import tfseg_ops
from tfseg_ops import _core, ops

# Where the CUDA kernels run; tests/gpu shows what then happens.
DROPPED = "an illegal mask is dropped on a GPU, and no error"

ZEROS = np.zeros((2, 2, 3, 1), np.float32)


def masks(*changes: tuple[tuple[int, ...], int], dtype: Any = np.int64) -> np.ndarray:
    """Legal masks into 4 by 6, one in each 2x2 window, but for the changes."""
    y, x = np.arange(2)[:, None, None] * 2, np.arange(3)[:, None] * 2
    array = np.broadcast_to(y * 6 + x, ZEROS.shape).astype(dtype)
    for place, value in changes:
        array[place] = value
    return array


FIRST, LAST = (0, 0, 0, 0), (1, 1, 2, 0)
# Arrays, keywords, words.
UNPOOL: dict[str, tuple[list[np.ndarray], dict[str, Any], str]] = {
    "rank": (
        [ZEROS[0], masks()],
        {},
        "'input' must have shape [batch, height, width, channels], got [2, 3, 1]",
    ),
    "shapes": (
        [ZEROS[:, :1], masks()],
        {},
        "'argmax' must have shape [batch=2, height=1, width=3, channels=1], got [2, 2, 3, 1]",
    ),
    "negative size": (
        [ZEROS, masks()],
        {"output_shape": (4, -6)},
        "'output_shape' must not be negative, got [4, -6]",
    ),
    "output too small": (
        [ZEROS, masks()],
        {"output_shape": (3, 4)},
        "'argmax' must lie in [0, 12), got 12 at [0, 1, 0, 0]",
    ),
    "first": (
        [ZEROS, masks((FIRST, -1), (LAST, -7))],
        {},
        "'argmax' must lie in [0, 24), got -1 at [0, 0, 0, 0]",
    ),
    "last": (
        [ZEROS, masks((LAST, 24), dtype=np.int32)],
        {},
        "'argmax' must lie in [0, 24), got 24 at [1, 1, 2, 0]",
    ),
    "low bits legal": (
        [ZEROS, masks((LAST, 2**32 + 16))],
        {},
        "'argmax' must lie in [0, 24), got 4294967312 at [1, 1, 2, 0]",
    ),
    "beyond the batch": (
        [ZEROS, masks((LAST, 48))],
        {"include_batch_in_index": True},
        "'argmax' must lie in [0, 48), got 48 at [1, 1, 2, 0]",
    ),
    "foreign window": (
        [ZEROS, masks((LAST, 15))],
        {"windows": (2, 2)},
        "'argmax' must lie in its own window of ksize [2, 2] and strides [2, 2], "
        "got 15 at [1, 1, 2, 0]",
    ),
    "foreign window first": (
        [ZEROS, masks((FIRST, 15), (LAST, 99))],
        {"windows": (2, 2)},
        "'argmax' must lie in its own window of ksize [2, 2] and strides [2, 2], "
        "got 15 at [0, 0, 0, 0]",
    ),
    "foreign image": (
        [ZEROS, masks()],
        {"windows": (2, 2), "include_batch_in_index": True},
        "'argmax' must lie in its own window of ksize [2, 2] and strides [2, 2], "
        "got 0 at [1, 0, 0, 0]",
    ),
    "integer values": (
        [ZEROS.astype(np.int32), masks()],
        {},
        "'input' must be float16, bfloat16, float32 or float64, got int32",
    ),
    "float masks": (
        [ZEROS, masks(dtype=np.float32)],
        {},
        "'argmax' must be int32 or int64, got float32",
    ),
}


@pytest.mark.parametrize("path", RUNNERS)
@pytest.mark.parametrize("case", UNPOOL)
def test_unpooling_names_what_is_wrong_in_the_same_words(case: str, path: str) -> None:
    arrays, keywords, words = UNPOOL[case]
    if EMULATED and path != "portable" and words.startswith("'argmax' must lie in"):
        pytest.skip(DROPPED)
    keywords = {"output_shape": (4, 6), **keywords}
    with pytest.raises(TF_ERRORS) as caught:
        RUNNERS[path](lambda *a: ops.max_unpool(*a, **keywords), arrays)
    assert words_of(caught.value) == f"max_unpool: {words}"


@pytest.mark.parametrize("case", UNPOOL)
def test_unpooling_in_numpy_uses_the_same_words(case: str) -> None:
    arrays, keywords, words = UNPOOL[case]
    keywords = {"output_shape": (4, 6), **keywords}
    if "windows" in keywords:
        keywords["windows"] = [2, 2, 2, 2]
    with pytest.raises((ValueError, TypeError)) as caught:
        _core.max_unpool(*arrays, **keywords)
    assert str(caught.value) == f"max_unpool: {words}"


IMAGE = np.zeros((1, 3, 4, 2), np.float32)
POOL: dict[str, tuple[np.ndarray, dict[str, Any], str]] = {
    "rank": (
        IMAGE[0],
        {},
        "'input' must have shape [batch, height, width, channels], got [3, 4, 2]",
    ),
    "window over the input": (
        IMAGE,
        {"ksize": [2, 7]},
        "'ksize' must fit into the input of shape [1, 3, 4, 2] with padding VALID, got [2, 7]",
    ),
    "empty window": (IMAGE, {"ksize": [0, 2]}, "'ksize' must lie in [1, 2147483647], got [0, 2]"),
    "huge stride": (
        IMAGE,
        {"strides": [2, 2**31]},
        "'strides' must lie in [1, 2147483647], got [2, 2147483648]",
    ),
    "padding": (IMAGE, {"padding": "FULL"}, "'padding' must be VALID or SAME, got FULL"),
    "integers": (
        IMAGE.astype(np.int32),
        {},
        "'input' must be float16, bfloat16, float32 or float64, got int32",
    ),
    "float positions": (
        IMAGE,
        {"output_dtype": "float32"},
        "'output_dtype' must be int32 or int64, got float32",
    ),
}


@pytest.mark.parametrize("path", RUNNERS)
@pytest.mark.parametrize("case", POOL)
def test_pooling_names_what_is_wrong_in_the_same_words(case: str, path: str) -> None:
    image, keywords, words = POOL[case]
    keywords = {"ksize": [2, 2], "strides": [2, 2], "padding": "VALID", **keywords}
    with pytest.raises(TF_ERRORS) as caught:
        RUNNERS[path](lambda a: ops.max_pool_with_argmax(a, **keywords), [image])
    assert words_of(caught.value) == f"max_pool_with_argmax: {words}"


@pytest.mark.parametrize("case", POOL)
def test_pooling_in_numpy_uses_the_same_words(case: str) -> None:
    image, keywords, words = POOL[case]
    keywords = {"ksize": [2, 2], "strides": [2, 2], "padding": "VALID", **keywords}
    with pytest.raises((ValueError, TypeError)) as caught:
        _core.max_pool_with_argmax(image, **keywords)
    assert str(caught.value) == f"max_pool_with_argmax: {words}"


@pytest.mark.skipif(EMULATED, reason=DROPPED)
@pytest.mark.parametrize("path", ["eager", "graph", "xla"])
def test_illegal_mask_is_an_error_in_the_gradient_too(path: str) -> None:
    """Of a gather alone: its forward pass has no masks to refuse."""

    def gather(grad: tf.Tensor, argmax: tf.Tensor) -> Any:
        from tfseg_ops import _library

        return _library.load_ops().tfseg_max_unpool_grad(grad=grad, argmax=argmax)

    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        RUNNERS[path](gather, [np.zeros((2, 4, 6, 1), np.float32), masks((LAST, 24))])
    words = "max_unpool: 'argmax' must lie in [0, 24), got 24 at [1, 1, 2, 0]"
    assert words_of(caught.value) == words


@pytest.mark.parametrize("portable_path", [False, True])
def test_int32_must_count_the_positions(portable_path: bool) -> None:
    """Known while the graph is built: no such image is needed."""
    words = "max_pool_with_argmax: 'output_dtype' must be int64 for {} positions, got int32"
    for shape, include_batch, positions in [
        ((3, 2**20, 2**11, 1), False, 0),
        ((3, 2**20, 2**11 + 1, 1), False, 2**20 * (2**11 + 1)),
        ((2, 2**20, 2**11, 1), True, 2**32),
    ]:

        def pool(image: tf.Tensor, include_batch: bool = include_batch) -> Any:
            with tfseg_ops.portable() if portable_path else tf.name_scope("native"):
                return ops.max_pool_with_argmax(image, 1, 512, "VALID", tf.int32, include_batch)

        trace = tf.function(pool).get_concrete_function
        if positions == 0:
            trace(tf.TensorSpec(shape, tf.bfloat16))
            continue
        with pytest.raises(ValueError, match="positions") as caught:
            trace(tf.TensorSpec(shape, tf.bfloat16))
        assert words_of(caught.value) == words.format(positions)


PAIR = "must be an int, [height, width] or [1, height, width, 1], got"


@pytest.mark.parametrize("argument", ["ksize", "strides"])
@pytest.mark.parametrize(
    "value", [[1, 2, 2], [2, 2, 2, 2], [], [2, 2.5], 2.5, None, True, "2", [[2, 2]]], ids=str
)
def test_size_of_another_kind_is_named(argument: str, value: Any) -> None:
    arguments = {"ksize": 2, "strides": 2, argument: value}
    with pytest.raises((ValueError, TypeError)) as caught:
        ops.max_pool_with_argmax(IMAGE, **arguments, padding="VALID")
    assert str(caught.value) == f"max_pool_with_argmax: '{argument}' {PAIR} {value}"


@pytest.mark.parametrize(
    "value",
    [3, np.int64(3), [3], (3, 3), [3, np.int32(3)], np.array([3, 3]), [1, 3, 3, 1]],
    ids=repr,
)
def test_sizes_are_ints_pairs_or_four_numbers(value: Any) -> None:
    image = np.random.default_rng(0).normal(size=(1, 7, 8, 2))
    result = ops.max_pool_with_argmax(image, value, value, "SAME")
    expected = ops.max_pool_with_argmax(image, 3, 3, "SAME")
    np.testing.assert_array_equal(result[0], expected[0])
    np.testing.assert_array_equal(result[1], expected[1])


@pytest.mark.parametrize("path", ["eager", "portable"])
@pytest.mark.parametrize("size", [[2**33 + 4, 6], np.array([4, 2**32 + 6])], ids=["list", "array"])
def test_output_size_over_32_bits_does_not_wrap_to_a_small_one(path: str, size: Any) -> None:
    with pytest.raises((ValueError, *TF_ERRORS[2:]), match=r"^max_unpool: 'output_shape' must "):
        RUNNERS[path](lambda *a: ops.max_unpool(*a, size), [ZEROS, masks()])


@pytest.mark.parametrize("size", [[4.7, 6.0], np.array([4.0, 6.0]), ["4", "6"]], ids=str)
def test_output_size_must_be_integers(size: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^max_unpool: 'output_shape' must "):
        ops.max_unpool(ZEROS, masks(), size)


@pytest.mark.parametrize("windows", [2, (2, 2, 2), (2,)], ids=str)
def test_windows_must_be_a_size_and_strides(windows: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^max_unpool: 'windows' must be "):
        ops.max_unpool(ZEROS, masks(), (4, 6), windows=windows)


def test_extreme_output_size_is_an_error_and_no_crash() -> None:
    unpool = tf.function(
        ops.max_unpool,
        input_signature=[
            tf.TensorSpec([None] * 4),
            tf.TensorSpec([None] * 4, tf.int64),
            tf.TensorSpec([2], tf.int64),
        ],
    )
    empty = np.zeros((8, 1, 1, 0), np.float32)
    for size in ([-(2**63), 4], [2**31 - 1, 2**31 - 1]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="max_unpool: 'output_shape' must"):
            unpool(empty, empty.astype(np.int64), size)
