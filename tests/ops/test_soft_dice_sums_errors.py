"""Bad input of soft Dice sums: the same words from TF on all paths, and from numpy."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.gpu import EMULATED
from helpers.messages import words_of
from helpers.runners import RUNNERS, TF_ERRORS

import tfseg_ops
from tfseg_ops import _core, ops

# Where the CUDA kernels run.
DROPPED = "a pixel with an illegal label contributes nothing on a GPU, and no error"

LOGITS = np.zeros((2, 3, 4, 5), np.float32)
LABELS = np.zeros((2, 3, 4), np.int32)
WEIGHTS = np.ones((2, 3, 4), np.float32)
LAST = (1, 2, 3)


def spoilt(*changes: tuple[tuple[int, ...], int], dtype: Any = np.int32) -> np.ndarray:
    """Labels with some changed."""
    labels = LABELS.astype(dtype)
    for place, value in changes:
        labels[place] = value
    return labels


# Arrays, keywords, words.
SAME: dict[str, tuple[list[np.ndarray], dict[str, Any], str]] = {
    "one dimension": (
        [LOGITS[0, 0, 0], LABELS[0, 0]],
        {},
        "'logits' must have shape [batch, ..., classes], got [5]",
    ),
    "no classes": (
        [LOGITS[..., :0], LABELS],
        {},
        "'logits' must have at least one class, got [2, 3, 4, 0]",
    ),
    "labels of another size": (
        [LOGITS, LABELS[:, :2]],
        {},
        "'labels' must have shape [2, 3, 4], got [2, 2, 4]",
    ),
    "labels of too low a rank": (
        [LOGITS, LABELS[0]],
        {},
        "'labels' must have shape [2, 3, 4], got [3, 4]",
    ),
    "size of weights": (
        [LOGITS, LABELS, WEIGHTS[..., :3]],
        {},
        "'weights' must have shape [2, 3, 4], got [2, 3, 3]",
    ),
    "weights of images": (
        [LOGITS, LABELS, WEIGHTS[:, 0, 0]],
        {},
        "'weights' must have shape [2, 3, 4], got [2]",
    ),
    "number of class weights": (
        [LOGITS, LABELS, WEIGHTS, np.ones(4, np.float32)],
        {},
        "'class_weights' must have shape [5], got [4]",
    ),
    "rank of class weights": (
        [LOGITS, LABELS, WEIGHTS, np.ones((5, 1), np.float32)],
        {},
        "'class_weights' must have shape [5], got [5, 1]",
    ),
    "integer logits": (
        [LOGITS.astype(np.int32), LABELS],
        {},
        "'logits' must be float16, bfloat16, float32 or float64, got int32",
    ),
    "activation": (
        [LOGITS, LABELS],
        {"activation": "relu"},
        "'activation' must be softmax, sigmoid or none, got relu",
    ),
    "power": ([LOGITS, LABELS], {"power": 3}, "'power' must be 1 or 2, got 3"),
    "above": (
        [LOGITS, spoilt((LAST, 5))],
        {},
        "'labels' must lie in [0, 5), got 5 at [1, 2, 3]",
    ),
    "below": (
        [LOGITS, spoilt(((0, 0, 0), -1), (LAST, 99), dtype=np.int64)],
        {},
        "'labels' must lie in [0, 5), got -1 at [0, 0, 0]",
    ),
    "byte": (
        [LOGITS, spoilt((LAST, 255), dtype=np.uint8)],
        {},
        "'labels' must lie in [0, 5), got 255 at [1, 2, 3]",
    ),
    "low bits legal": (
        [LOGITS, spoilt((LAST, 2**32 + 1), dtype=np.int64)],
        {},
        "'labels' must lie in [0, 5), got 4294967297 at [1, 2, 3]",
    ),
    "not ignored": (
        [LOGITS, spoilt(((0, 0, 0), 254), (LAST, 255), dtype=np.uint8)],
        {"ignore_label": 254},
        "'labels' must lie in [0, 5) or be 254, got 255 at [1, 2, 3]",
    ),
    "negative label ignored": (
        [LOGITS, spoilt(((0, 0, 0), -1), (LAST, -2))],
        {"ignore_label": -1, "activation": "sigmoid"},
        "'labels' must lie in [0, 5) or be -1, got -2 at [1, 2, 3]",
    ),
    "without weight": (
        [LOGITS, spoilt((LAST, 7)), 0 * WEIGHTS],
        {},
        "'labels' must lie in [0, 5), got 7 at [1, 2, 3]",
    ),
    "mask": (
        [LOGITS[..., :1], spoilt((LAST, 2))],
        {"activation": "sigmoid"},
        "'labels' must lie in [0, 2), got 2 at [1, 2, 3]",
    ),
    "one class of softmax": (
        [LOGITS[..., :1], spoilt((LAST, 1))],
        {},
        "'labels' must lie in [0, 1), got 1 at [1, 2, 3]",
    ),
}
# Words that numpy, which is told what is dense and has weights in one dtype, says in another way.
ONLY_TENSORFLOW: dict[str, tuple[list[np.ndarray], dict[str, Any], str]] = {
    "integer labels of too high a rank": (
        [LOGITS, LABELS[..., None, None]],
        {},
        "'labels' must have shape [2, 3, 4], got [2, 3, 4, 1, 1]",
    ),
    "number of targets": (
        [LOGITS, LOGITS[..., :4]],
        {},
        "'labels' must have shape [2, 3, 4, 5], got [2, 3, 4, 4]",
    ),
    "one floating target of several": (
        [LOGITS, LOGITS[..., :1]],
        {},
        "'labels' must have shape [2, 3, 4, 5], got [2, 3, 4, 1]",
    ),
    "floating labels": (
        [LOGITS, WEIGHTS],
        {},
        "'labels' must have shape [2, 3, 4, 5], got [2, 3, 4]",
    ),
    "boolean labels": (
        [LOGITS, LABELS == 0],
        {},
        "'labels' must be uint8, int32, int64, float16, bfloat16, float32 or float64, got bool",
    ),
    "integer weights": (
        [LOGITS, LABELS, LABELS],
        {},
        "'weights' must be float16, bfloat16, float32 or float64, got int32",
    ),
    "ignored label of targets": (
        [LOGITS, LOGITS],
        {"ignore_label": 255},
        "'ignore_label' must be None where labels are targets for each class, got 255",
    ),
}
EVERY = {**SAME, **ONLY_TENSORFLOW}


def dropped(path: str, words: str) -> bool:
    """Whether no error is to be expected of the CUDA kernels."""
    return EMULATED and path != "portable" and " at [" in words


@pytest.mark.parametrize("path", RUNNERS)
@pytest.mark.parametrize("case", EVERY)
def test_sums_name_what_is_wrong_in_the_same_words(case: str, path: str) -> None:
    arrays, keywords, words = EVERY[case]
    if dropped(path, words):
        pytest.skip(DROPPED)
    with pytest.raises(TF_ERRORS) as caught:
        RUNNERS[path](lambda *a: ops.soft_dice_sums(*a, **keywords), arrays)
    assert words_of(caught.value) == f"soft_dice_sums: {words}"


@pytest.mark.parametrize("case", SAME)
def test_sums_in_numpy_use_the_same_words(case: str) -> None:
    arrays, keywords, words = SAME[case]
    with pytest.raises((ValueError, TypeError)) as caught:
        _core.soft_dice_sums(*arrays, **keywords)
    assert str(caught.value) == f"soft_dice_sums: {words}"


@pytest.mark.parametrize("path", ["eager", "portable"])
@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"ignore_label": 1.5}, "'ignore_label' must be an int or None, got 1.5"),
        ({"ignore_label": True}, "'ignore_label' must be an int or None, got True"),
        ({"ignore_label": 2**63}, f"'ignore_label' must be an int or None, got {2**63}"),
        ({"power": 1.0}, "'power' must be 1 or 2, got 1.0"),
        ({"power": True}, "'power' must be 1 or 2, got True"),
        ({"activation": None}, "'activation' must be softmax, sigmoid or none, got None"),
    ],
    ids=str,
)
def test_argument_of_the_wrong_kind_is_named(
    keywords: dict[str, Any], words: str, path: str
) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        RUNNERS[path](lambda *a: ops.soft_dice_sums(*a, **keywords), [LOGITS, LABELS])
    assert str(caught.value) == f"soft_dice_sums: {words}"


@pytest.mark.parametrize("path", ["graph", "xla"])
def test_portable_graph_refuses_illegal_labels_or_leaves_them_out(path: str) -> None:
    """In stock TF an assertion sees to it, which XLA drops."""

    def sums(*arrays: tf.Tensor) -> Any:
        with tfseg_ops.portable():
            return ops.soft_dice_sums(*arrays)

    arrays = [LOGITS, spoilt((LAST, 9))]
    if path == "graph":
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"soft_dice_sums: .*labels.* must"
        ):
            RUNNERS[path](sums, arrays)
    else:
        np.testing.assert_array_equal(RUNNERS[path](sums, arrays).weight_sum, [12, 11])


@pytest.mark.skipif(EMULATED, reason=DROPPED)
@pytest.mark.parametrize("path", ["eager", "graph", "xla"])
def test_illegal_label_is_an_error_in_the_gradient_too(path: str) -> None:
    """Alone, without a forward pass to refuse it."""
    from tfseg_ops import _library

    def gradient(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return _library.load_ops().tfseg_soft_dice_sums_grad(
            logits=logits,
            labels=labels,
            weights=tf.zeros([0]),
            class_weights=tf.zeros([0]),
            grad_intersection=tf.zeros([2, 5]),
            grad_prediction=tf.zeros([2, 5]),
            grad_cross_entropy=tf.zeros([2]),
            has_ignore_label=True,
            ignore_label=255,
        )

    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        RUNNERS[path](gradient, [LOGITS, spoilt((LAST, 9), dtype=np.uint8)])
    words = "soft_dice_sums: 'labels' must lie in [0, 5) or be 255, got 9 at [1, 2, 3]"
    assert words_of(caught.value) == words


@pytest.mark.parametrize("path", ["eager", "graph", "portable"])
def test_gradient_under_an_error_leaves_the_process_sound(path: str) -> None:
    """The next call of the same function, with legal labels, is answered."""
    if dropped(path, " at ["):
        pytest.skip(DROPPED)

    def slope(logits: tf.Tensor, labels: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            sums = ops.soft_dice_sums(logits, labels)
        return tape.gradient(sums.cross_entropy, logits)

    with pytest.raises(tf.errors.InvalidArgumentError, match="labels"):
        RUNNERS[path](slope, [LOGITS, spoilt((LAST, 9))])
    assert RUNNERS[path](slope, [LOGITS, LABELS]).numpy().any()
