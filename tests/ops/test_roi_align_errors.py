"""Bad input of RoI Align: the same words from TF on all paths, and from numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.gpu import EMULATED
from helpers.messages import words_of
from helpers.runners import RUNNERS, TF_ERRORS

from tfseg_ops import _core, _library, ops

# Where the CUDA kernels run.
DROPPED = "a box of an illegal index gives zeros on a GPU, and no error"
FLOATS = "must be float16, bfloat16, float32 or float64, got"
NHWC = "must have shape [batch, height, width, channels], got"

FEATURES = np.zeros((2, 4, 5, 3), np.float32)
BOXES = np.array([[0, 0, 2, 2], [1, 1, 3, 4], [0, 1, 2, 3], [1, 1, 2, 2]], np.float32)
INDICES = np.array([0, 1, -1, 0])
LEVELS = np.array([0, 1, 9, 2])


def changed(array: np.ndarray, place: int, value: int, dtype: Any = np.int64) -> np.ndarray:
    """A copy with another number at one place."""
    copy = array.astype(dtype)
    copy[place] = value
    return copy


# Arrays, keywords, words.
ONE: dict[str, tuple[Any, dict[str, Any], str]] = {
    "rank of features": ([FEATURES[0], BOXES, INDICES], {}, f"'features' {NHWC} [4, 5, 3]"),
    "rank of boxes": (
        [FEATURES, BOXES[0], INDICES],
        {},
        "'boxes' must have shape [num_boxes, 4], got [4]",
    ),
    "five corners": (
        [FEATURES, np.zeros((4, 5), np.float32), INDICES],
        {},
        "'boxes' must have shape [num_boxes, 4], got [4, 5]",
    ),
    "number of indices": (
        [FEATURES, BOXES, INDICES[:3]],
        {},
        "'box_indices' must have shape [num_boxes=4], got [3]",
    ),
    "rank of indices": (
        [FEATURES, BOXES, INDICES[:, None]],
        {},
        "'box_indices' must have shape [num_boxes=4], got [4, 1]",
    ),
    "index": (
        [FEATURES, BOXES, changed(INDICES, 3, 5)],
        {},
        "'box_indices' must be -1 or lie in [0, 2), got 5 at [3]",
    ),
    "negative index": (
        [FEATURES, BOXES, changed(INDICES, 0, -2, np.int32)],
        {},
        "'box_indices' must be -1 or lie in [0, 2), got -2 at [0]",
    ),
    "low bits legal": (
        [FEATURES, BOXES, changed(INDICES, 1, 2**32 + 1)],
        {},
        "'box_indices' must be -1 or lie in [0, 2), got 4294967297 at [1]",
    ),
    "no batch": (
        [FEATURES[:0], BOXES, INDICES],
        {},
        "'box_indices' must be -1 or lie in [0, 0), got 0 at [0]",
    ),
    "index of a box that is not finite": (
        [FEATURES, BOXES * np.float32(np.nan), changed(INDICES, 3, 5)],
        {},
        "'box_indices' must be -1 or lie in [0, 2), got 5 at [3]",
    ),
    "no bins": (
        [FEATURES, BOXES, INDICES],
        {"output_size": (0, 2)},
        "'output_size' must lie in [1, 2147483647], got [0, 2]",
    ),
    "negative ratio": (
        [FEATURES, BOXES, INDICES],
        {"sampling_ratio": -1},
        "'sampling_ratio' must lie in [0, 1048576], got -1",
    ),
    "huge ratio": (
        [FEATURES, BOXES, INDICES],
        {"sampling_ratio": 2**20 + 1},
        "'sampling_ratio' must lie in [0, 1048576], got 1048577",
    ),
    "integer features": (
        [FEATURES.astype(np.int32), BOXES, INDICES],
        {},
        f"'features' {FLOATS} int32",
    ),
    "float indices": (
        [FEATURES, BOXES, INDICES.astype(np.float32)],
        {},
        "'box_indices' must be int32 or int64, got float32",
    ),
}


@pytest.mark.parametrize("path", RUNNERS)
@pytest.mark.parametrize("case", ONE)
def test_alignment_names_what_is_wrong_in_the_same_words(case: str, path: str) -> None:
    arrays, keywords, words = ONE[case]
    if EMULATED and path != "portable" and " lie in [0, " in words and " at [" in words:
        pytest.skip(DROPPED)
    keywords = {"output_size": (2, 3), **keywords}
    with pytest.raises(TF_ERRORS) as caught:
        RUNNERS[path](lambda *a: ops.roi_align(*a, **keywords), arrays)
    assert words_of(caught.value) == f"roi_align: {words}"


@pytest.mark.parametrize("case", ONE)
def test_alignment_in_numpy_uses_the_same_words(case: str) -> None:
    arrays, keywords, words = ONE[case]
    keywords = {"output_size": (2, 3), **keywords}
    with pytest.raises((ValueError, TypeError)) as caught:
        _core.roi_align(*arrays, **keywords)
    assert str(caught.value) == f"roi_align: {words}"


@pytest.mark.skipif(EMULATED, reason=DROPPED)
@pytest.mark.parametrize("path", ["eager", "graph", "portable"])
def test_illegal_index_is_an_error_though_there_are_no_channels(path: str) -> None:
    """But under XLA, which leaves out what computes nothing."""
    arrays = [FEATURES[..., :0], BOXES, changed(INDICES, 3, 5)]
    with pytest.raises(tf.errors.InvalidArgumentError, match="got 5 at"):
        RUNNERS[path](lambda *a: ops.roi_align(*a, (2, 3)), arrays)


SMALL = FEATURES[:, :2, :3]
# Maps, box indices, levels, keywords, words.
Several = tuple[list[np.ndarray], np.ndarray, np.ndarray, dict[str, Any], str]
SEVERAL: dict[str, Several] = {
    "rank of a map": (
        [FEATURES, SMALL, FEATURES[0]],
        INDICES,
        LEVELS,
        {},
        "'features[2]' must have shape [batch=2, height, width, channels=3], got [4, 5, 3]",
    ),
    "batch": (
        [FEATURES, SMALL[:1], SMALL],
        INDICES,
        LEVELS,
        {},
        "'features[1]' must have shape [batch=2, height, width, channels=3], got [1, 2, 3, 3]",
    ),
    "channels": (
        [FEATURES, SMALL, SMALL[..., :2]],
        INDICES,
        LEVELS,
        {},
        "'features[2]' must have shape [batch=2, height, width, channels=3], got [2, 2, 3, 2]",
    ),
    "dtype of a map": (
        [FEATURES, SMALL.astype(np.float16), SMALL],
        INDICES,
        LEVELS,
        {},
        "'features[1]' must be float32, got float16",
    ),
    "number of levels": (
        [FEATURES, SMALL, SMALL],
        INDICES,
        LEVELS[:2],
        {},
        "'levels' must have shape [num_boxes=4], got [2]",
    ),
    "float levels": (
        [FEATURES, SMALL, SMALL],
        INDICES,
        LEVELS.astype(np.float64),
        {},
        "'levels' must be int32 or int64, got float64",
    ),
    "level": (
        [FEATURES, SMALL, SMALL],
        INDICES,
        changed(LEVELS, 1, 7),
        {},
        "'levels' must lie in [0, 3), got 7 at [1]",
    ),
    "negative level": (
        [FEATURES, SMALL, SMALL],
        INDICES,
        changed(LEVELS, 3, -1, np.int32),
        {},
        "'levels' must lie in [0, 3), got -1 at [3]",
    ),
    "index before level": (
        [FEATURES, SMALL, SMALL],
        changed(INDICES, 0, 2),
        changed(LEVELS, 3, 3),
        {},
        "'box_indices' must be -1 or lie in [0, 2), got 2 at [0]",
    ),
    "level before index": (
        [FEATURES, SMALL, SMALL],
        changed(INDICES, 3, 2),
        changed(LEVELS, 0, 3),
        {},
        "'levels' must lie in [0, 3), got 3 at [0]",
    ),
    "index beside level": (
        [FEATURES, SMALL, SMALL],
        changed(INDICES, 1, 2),
        changed(LEVELS, 1, 3),
        {},
        "'box_indices' must be -1 or lie in [0, 2), got 2 at [1]",
    ),
    "number of scales": (
        [FEATURES, SMALL, SMALL],
        INDICES,
        LEVELS,
        {"spatial_scales": [1.0, 0.5]},
        "'spatial_scales' must have 3 numbers, got 2",
    ),
    "negative ratio": (
        [FEATURES, SMALL, SMALL],
        INDICES,
        LEVELS,
        {"sampling_ratio": -3},
        "'sampling_ratio' must lie in [0, 1048576], got -3",
    ),
}
DEFAULTS: dict[str, Any] = {"output_size": (2, 3), "spatial_scales": [1.0, 0.5, 0.5]}


@pytest.mark.parametrize("path", RUNNERS)
@pytest.mark.parametrize("case", SEVERAL)
def test_alignment_on_levels_names_what_is_wrong_in_the_same_words(case: str, path: str) -> None:
    maps, indices, levels, keywords, words = SEVERAL[case]
    if EMULATED and path != "portable" and " lie in [0, " in words and " at [" in words:
        pytest.skip(DROPPED)

    def align(a: Any, b: Any, c: Any, boxes: Any, indices: Any, levels: Any) -> Any:
        return ops.multilevel_roi_align(
            [a, b, c], boxes, indices, levels, **{**DEFAULTS, **keywords}
        )

    # Both of one dtype, as the kernels have them.
    index_dtype = levels.dtype if levels.dtype.kind == "i" else indices.dtype
    with pytest.raises(TF_ERRORS) as caught:
        RUNNERS[path](align, [*maps, BOXES, indices.astype(index_dtype), levels])
    assert words_of(caught.value) == f"multilevel_roi_align: {words}"


@pytest.mark.parametrize("case", SEVERAL)
def test_alignment_on_levels_in_numpy_uses_the_same_words(case: str) -> None:
    maps, indices, levels, keywords, words = SEVERAL[case]
    with pytest.raises((ValueError, TypeError)) as caught:
        _core.multilevel_roi_align(maps, BOXES, indices, levels, **{**DEFAULTS, **keywords})
    assert str(caught.value) == f"multilevel_roi_align: {words}"


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.int32], ids=lambda d: str(d.name))
@pytest.mark.parametrize("path", ["eager", "portable"])
def test_boxes_must_be_float32_or_float64(path: str, dtype: tf.DType) -> None:
    boxes = tf.cast(BOXES, dtype).numpy()
    with pytest.raises(TypeError) as caught:
        RUNNERS[path](lambda *a: ops.roi_align(*a, 2), [FEATURES, boxes, INDICES])
    words = f"roi_align: 'boxes' must be float32 or float64, got {dtype.name}"
    assert words_of(caught.value) == words


@pytest.mark.skipif(EMULATED, reason=DROPPED)
@pytest.mark.parametrize("path", ["eager", "graph", "xla"])
@pytest.mark.parametrize("gradient", ["features", "boxes"])
def test_illegal_index_is_an_error_in_the_gradients_too(gradient: str, path: str) -> None:
    """Alone, without a forward pass to refuse it."""
    from tfseg_ops import _library

    shared: dict[str, Any] = {"output_size": [2, 3], "spatial_scales": [1.0]}

    def to_features(grad: tf.Tensor, boxes: tf.Tensor, indices: tf.Tensor) -> Any:
        return _library.load_ops().tfseg_roi_align_features_grad(
            boxes=boxes,
            box_indices=indices,
            levels=tf.zeros_like(indices),
            grad=grad,
            output_shape=[2, 4, 5],
            num_levels=1,
            **shared,
        )

    def to_boxes(grad: tf.Tensor, boxes: tf.Tensor, indices: tf.Tensor) -> Any:
        return _library.load_ops().tfseg_roi_align_boxes_grad(
            boxes=boxes,
            box_indices=indices,
            levels=tf.zeros_like(indices),
            grad=grad,
            features=[tf.constant(FEATURES)],
            **shared,
        )

    function: Callable[..., Any] = to_features if gradient == "features" else to_boxes
    grad = np.zeros((4, 2, 3, 3), np.float32)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        RUNNERS[path](function, [grad, BOXES, changed(INDICES, 3, 5)])
    words = "roi_align: 'box_indices' must be -1 or lie in [0, 2), got 5 at [3]"
    assert words_of(caught.value) == words


@pytest.mark.parametrize("path", ["graph", "xla"])
def test_portable_graph_refuses_illegal_indices_or_gives_zeros(path: str) -> None:
    """In stock TF an assertion sees to it, which XLA drops; then the box gives zeros."""
    import tfseg_ops

    def align(*arrays: tf.Tensor) -> Any:
        with tfseg_ops.portable():
            return ops.roi_align(*arrays, 2)

    arrays = [FEATURES + 1, BOXES, changed(INDICES, 3, 5)]
    if path == "graph":
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"roi_align: .*box_indices.* must"
        ):
            RUNNERS[path](align, arrays)
    else:
        output = RUNNERS[path](align, arrays).numpy()
        assert output[:2].all()
        assert not output[2:].any()


@pytest.mark.parametrize("scale", [0, 0.0, -0.5, np.nan, np.inf, "1", None, True, [1.0]], ids=repr)
def test_scale_must_be_a_positive_number(scale: Any) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        ops.roi_align(FEATURES, BOXES, INDICES, 2, scale)
    words = f"roi_align: 'spatial_scale' must be positive and finite, got {scale}"
    assert str(caught.value) == words


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_scale_must_be_so_as_a_float32(scale: float) -> None:
    with pytest.raises(
        ValueError, match=r"^roi_align: 'spatial_scale' must be positive and finite"
    ):
        ops.roi_align(FEATURES, BOXES, INDICES, 2, scale)


@pytest.mark.parametrize("ratio", [1.5, "2", None, True, [2]], ids=repr)
def test_ratio_must_be_an_int(ratio: Any) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        ops.roi_align(FEATURES, BOXES, INDICES, 2, sampling_ratio=ratio)
    words = f"roi_align: 'sampling_ratio' must lie in [0, 1048576], got {ratio}"
    assert str(caught.value) == words


@pytest.mark.parametrize("size", [[1, 2, 3], [], [2, 2.5], 2.5, None, True, "2"], ids=repr)
def test_output_size_must_be_an_int_or_a_pair(size: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^roi_align: 'output_size' must be an int"):
        ops.roi_align(FEATURES, BOXES, INDICES, size)


@pytest.mark.parametrize(
    "features", [[], [FEATURES] * 17, FEATURES, None], ids=lambda f: str(type(f))
)
def test_features_must_be_a_list_of_one_to_sixteen_maps(features: Any) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        ops.multilevel_roi_align(features, BOXES, INDICES, LEVELS, 2, [1.0])
    words = "multilevel_roi_align: 'features' must be a list of 1 to 16 maps, got "
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"boxes": np.zeros((2, 5))}, ValueError),
        ({"boxes": np.zeros(())}, ValueError),
        ({"boxes": np.zeros((2, 4), np.int32)}, TypeError),
        ({"num_levels": 0}, ValueError),
        ({"num_levels": -2}, ValueError),
        ({"num_levels": 2.5}, ValueError),
        ({"finest_level": -1}, ValueError),
        ({"canonical_level": 10**6}, ValueError),
        ({"canonical_size": 0.0}, ValueError),
        ({"canonical_size": -224.0}, ValueError),
        ({"canonical_size": np.nan}, ValueError),
    ],
    ids=str,
)
def test_wrong_argument_of_the_pyramid_formula_is_named(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    (name,) = arguments
    with pytest.raises(error, match=rf"^fpn_levels: '{name}' must "):
        ops.fpn_levels(**{"boxes": np.zeros((2, 4)), **arguments})


@pytest.mark.skipif(EMULATED, reason=DROPPED)
@pytest.mark.parametrize("path", ["eager", "graph", "portable"])
def test_gradient_under_an_error_leaves_the_process_sound(path: str) -> None:
    """The next call of the same function, with legal indices, is answered."""

    def slope(features: tf.Tensor, boxes: tf.Tensor, indices: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(features)
            output = ops.roi_align(features, boxes, indices, 2)
        return tape.gradient(output, features)

    with pytest.raises(tf.errors.InvalidArgumentError, match="'box_indices' must"):
        RUNNERS[path](slope, [FEATURES, BOXES, changed(INDICES, 3, 5)])
    assert RUNNERS[path](slope, [FEATURES, BOXES, INDICES]).numpy().any()


def test_scales_of_a_raw_call_must_be_as_many_as_the_levels() -> None:
    """Such a call can come from a SavedModel of someone else's."""
    op = _library.load_ops().tfseg_roi_align_features_grad
    arguments = {
        "boxes": np.zeros((1, 4), np.float32),
        "box_indices": np.zeros(1, np.int32),
        "levels": np.zeros(1, np.int32),
        "grad": np.zeros((1, 2, 2, 3), np.float32),
        "output_shape": [1, 4, 4, 2, 2],
        "num_levels": 1,
        "output_size": [2, 2],
        "spatial_scales": [1.0, 0.5],
    }
    words = "'spatial_scales' must have 1 numbers, got 2"
    with pytest.raises(TF_ERRORS, match=words):
        op(**arguments)
    with pytest.raises(TF_ERRORS, match=words):
        tf.function(lambda: op(**arguments))()
