"""Soft Dice sums in stock TF: against the oracle and the textbook, shapes, gradients, errors."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.dice_cases import ACTIVATIONS, DiceCase, call, dice_cases, smooth_case, tensors_of
from helpers.tolerances import FLOAT_DTYPES, assert_close, assert_same, name_of
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.soft_dice_sums import soft_dice_sums, soft_dice_sums_grad

from tfseg_ops import pure_tf
from tfseg_ops.pure_tf.soft_dice_sums import soft_dice_loss
from tfseg_ops.testing import check_gradients


@settings(max_examples=80)
@given(dice_cases(for_ops=True))
def test_drawn_sums_are_those_of_the_oracle(case: DiceCase) -> None:
    actual = call(pure_tf.soft_dice_sums, case)
    for one, wanted in zip(actual, soft_dice_sums(*case), strict=True):
        assert one.dtype == wanted.dtype
        assert one.shape == wanted.shape
        assert_close(one, wanted)


@settings(max_examples=60)
@given(dice_cases(for_ops=True))
def test_drawn_gradients_are_those_of_the_oracle(case: DiceCase) -> None:
    upstream = case.upstream()
    logits = tf.constant(case.logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        sums = call(pure_tf.soft_dice_sums, case._replace(logits=logits))
    outputs = [sums.intersection, sums.prediction, sums.cross_entropy]
    gradient = tape.gradient(outputs, logits, output_gradients=list(upstream))
    assert_close(gradient, soft_dice_sums_grad(*case, *upstream))
    assert not tf.cast(gradient, tf.float32).numpy()[~case.counts].any()


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_those_of_central_differences(
    activation: str, power: int, dense: bool
) -> None:
    """Of both orders: to logits, weights, class weights and dense targets."""
    case = smooth_case(activation, power, dense, classes=2)
    arrays, function = tensors_of(pure_tf.soft_dice_sums, case)
    check_gradients(function, arrays, order=2)


@settings(max_examples=40)
@given(dice_cases(dtypes=st.just(np.float32), for_ops=True))
def test_loss_of_the_sums_is_that_of_textbooks(case: DiceCase) -> None:
    if case.dense or 0 in case.logits.shape or not case.counts.all():
        return
    logits = np.clip(case.logits, -1e4, 1e4)
    sums = pure_tf.soft_dice_sums(logits, case.labels)
    both = sums.prediction + sums.target
    loss = 1 - tf.reduce_mean((2 * sums.intersection + 1e-6) / (both + 1e-6))
    expected = soft_dice_loss(logits, case.labels)
    assert expected.dtype == tf.float32
    np.testing.assert_allclose(loss, expected, atol=1e-6)


def test_textbook_loss_by_hand() -> None:
    """Two pixels, probabilities 1/4 and 3/4: overlap 1/4 and 3/4 of classes met once each."""
    logits = np.log(np.array([[[1, 3], [3, 1]]], np.float32))
    loss = soft_dice_loss(logits, np.array([[0, 1]]))
    np.testing.assert_allclose(loss, 1 - ((2 / 4) / 2 + (2 / 4) / 2) / 2, 1e-6)


@pytest.mark.parametrize("jit_compile", [None, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rank", [None, 4])
def test_one_trace_serves_all_sizes(
    rank: int | None, activation: str, jit_compile: bool | None
) -> None:
    """Also those of one class, whose labels mean something else."""
    sums = tf.function(
        lambda x, g: pure_tf.soft_dice_sums(x, g, activation=activation),
        input_signature=[
            tf.TensorSpec(None if rank is None else [None] * rank),
            tf.TensorSpec(None if rank is None else [None] * (rank - 1), tf.int32),
        ],
        jit_compile=jit_compile,
    )
    generator = np.random.default_rng(0)
    for shape in [(2, 7, 5, 3), (1, 3, 2, 1), (0, 4, 4, 2), (2, 0, 4, 1)]:
        logits = generator.uniform(0.1, 0.9, shape).astype(np.float32)
        single = shape[-1] == 1 and activation != "softmax"
        labels = generator.integers(0, 2 if single else shape[-1], shape[:-1]).astype(np.int32)
        expected = soft_dice_sums(logits, labels, activation=activation)
        for one, wanted in zip(sums(logits, labels), expected, strict=True):
            assert_close(one, wanted)


def test_static_shape_is_what_can_be_known() -> None:
    sums = tf.function(pure_tf.soft_dice_sums)
    trace = sums.get_concrete_function(
        tf.TensorSpec([None, 7, None, 3]), tf.TensorSpec([2, 7, None], tf.int32)
    )
    shapes = [part.shape.as_list() for part in trace.structured_outputs]
    assert shapes == [[2, 3]] * 3 + [[2]] * 2


@pytest.mark.parametrize("dtype", FLOAT_DTYPES[:2], ids=name_of)
def test_sums_are_kept_in_float32(dtype: Any) -> None:
    logits = np.zeros((1, 512, 512, 2), dtype)
    for part in pure_tf.soft_dice_sums(logits, np.zeros((1, 512, 512), np.uint8))[:3]:
        assert part.dtype == tf.float32
        assert float(tf.reduce_sum(part)) in (512 * 512, 512 * 512 / 2)


LOGITS = np.zeros((2, 3, 4, 3), np.float32)
ILLEGAL: dict[str, tuple[Any, int, dict[str, Any], str]] = {
    "below": (np.int32, -1, {}, "lie in [0, 3), got -1"),
    "above": (np.uint8, 255, {}, "lie in [0, 3), got 255"),
    "low bits legal": (np.int64, 2**32 + 1, {}, "lie in [0, 3), got 4294967297"),
    "not ignored": (np.uint8, 255, {"ignore_label": 254}, "lie in [0, 3) or be 254, got 255"),
}


def spoilt(kind: str) -> tuple[np.ndarray, dict[str, Any], str]:
    """Labels with an illegal one, keywords and words."""
    dtype, value, keywords, words = ILLEGAL[kind]
    labels = np.zeros(LOGITS.shape[:-1], dtype)
    labels[1, 2, 0] = value
    return labels, keywords, words


@pytest.mark.parametrize("kind", ILLEGAL)
def test_illegal_label_is_named(kind: str) -> None:
    labels, keywords, words = spoilt(kind)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        pure_tf.soft_dice_sums(LOGITS, labels, **keywords)
    assert str(caught.value) == f"soft_dice_sums: 'labels' must {words} at [1, 2, 0]"


@pytest.mark.parametrize("kind", ILLEGAL)
def test_illegal_label_is_an_error_in_a_graph(kind: str) -> None:
    labels, keywords, _ = spoilt(kind)
    sums = tf.function(lambda x, g: pure_tf.soft_dice_sums(x, g, **keywords))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"must lie in \[0, limit\)"):
        sums(LOGITS, labels)


@pytest.mark.parametrize("kind", ILLEGAL)
def test_illegal_label_contributes_nothing_under_xla(kind: str) -> None:
    """XLA cannot raise, as on a GPU; nor has its pixel a gradient."""
    labels, keywords, _ = spoilt(kind)

    @tf.function(jit_compile=True)
    def run(x: tf.Tensor, g: tf.Tensor) -> tuple[Any, tf.Tensor]:
        sums = pure_tf.soft_dice_sums(x, g, **keywords)
        return sums, tf.gradients(list(sums), x)[0]

    weights = np.ones(labels.shape, np.float32)
    weights[1, 2, 0] = 0
    legal = np.zeros_like(labels)
    expected = soft_dice_sums(LOGITS, legal, weights)
    sums, gradient = run(LOGITS, labels)
    for one, wanted in zip(sums, expected, strict=True):
        assert_close(one, wanted)
    assert_same(gradient[1, 2, 0], np.zeros(3, np.float32))
    assert gradient.numpy().any()
