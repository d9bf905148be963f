"""`WeightedCrossEntropy`, and `SoftDiceCrossEntropy`, which is the sum of two losses."""

from typing import Any

import keras
import numpy as np
import pytest
from helpers.overlap import one_hot, probabilities

from tfseg_ops.losses import SoftDice, SoftDiceCrossEntropy, WeightedCrossEntropy

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.integers(0, 3, (2, 4, 5)).astype(np.uint8)
LOGITS = GENERATOR.normal(size=(2, 4, 5, 3))
WEIGHTS = GENERATOR.uniform(0, 2, (2, 4, 5))
CLASS_WEIGHTS = np.array([0.5, 2, 3])


def test_cross_entropy_without_weights_is_that_of_keras() -> None:
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(LABELS, LOGITS)
    np.testing.assert_allclose(WeightedCrossEntropy()(LABELS, LOGITS), expected, 1e-6)
    p = probabilities(LOGITS, "softmax")
    loss = WeightedCrossEntropy(from_logits=False)
    np.testing.assert_allclose(loss(LABELS, p), expected, 1e-6)


@pytest.mark.parametrize("classes", [1, 3])
def test_binary_cross_entropy_without_weights_is_that_of_keras(classes: int) -> None:
    """Also where an image has no positive at all."""
    targets = GENERATOR.integers(0, 2, (2, 4, 5, classes)).astype(np.float32)
    targets[0] = 0
    logits = LOGITS[..., :classes]
    expected = keras.losses.BinaryCrossentropy(from_logits=True)(targets, logits)
    loss = WeightedCrossEntropy(activation="sigmoid")
    np.testing.assert_allclose(loss(targets, logits), expected, 1e-6)
    loss = WeightedCrossEntropy(activation="sigmoid", from_logits=False)
    np.testing.assert_allclose(loss(targets, probabilities(logits, "sigmoid")), expected, 1e-6)


@pytest.mark.parametrize("per_image", [True, False])
def test_weights_of_classes_and_pixels_are_those_of_a_mean(per_image: bool) -> None:
    loss = WeightedCrossEntropy(
        class_weights=CLASS_WEIGHTS, ignore_label=0, per_image=per_image, reduction=None
    )
    p = probabilities(LOGITS, "softmax")
    weights = WEIGHTS * CLASS_WEIGHTS[LABELS] * (LABELS != 0)
    each = -np.log((p * one_hot(LABELS, 3)).sum(-1))
    axes = (1, 2) if per_image else None
    expected = np.sum(weights * each, axes) / np.sum(weights, axes)
    actual = loss(LABELS, LOGITS, WEIGHTS)
    np.testing.assert_allclose(actual, np.broadcast_to(expected, [2]), 1e-5)


def test_weights_of_classes_weigh_each_binary_cross_entropy() -> None:
    targets = one_hot(LABELS, 3)
    p = probabilities(LOGITS, "sigmoid")
    each = -np.log(np.where(targets == 1, p, 1 - p))
    expected = np.average(each, weights=np.broadcast_to(CLASS_WEIGHTS, each.shape))
    for y_true in (LABELS, targets):
        loss = WeightedCrossEntropy(activation="sigmoid", class_weights=CLASS_WEIGHTS)
        np.testing.assert_allclose(loss(y_true, LOGITS), expected, 1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"per_image": False, "class_weights": [0.5, 2, 3]},
        {"activation": "sigmoid", "ignore_label": 1},
        {"activation": "sigmoid", "from_logits": False},
        {"from_logits": False, "ignore_label": 2},
    ],
    ids=str,
)
def test_dice_with_cross_entropy_is_the_weighted_sum_of_both(options: dict[str, Any]) -> None:
    y_pred = LOGITS
    if options.get("from_logits") is False:
        y_pred = probabilities(LOGITS, options.get("activation", "softmax"))
    both = SoftDiceCrossEntropy(0.5, 2, absent="skip", power=2, **options)
    dice = SoftDice(absent="skip", power=2, **options)
    cross_entropy = WeightedCrossEntropy(**options)
    expected = sum(
        weight * loss(LABELS, y_pred, WEIGHTS) for weight, loss in ((0.5, dice), (2, cross_entropy))
    )
    np.testing.assert_allclose(both(LABELS, y_pred, WEIGHTS), expected, 1e-5)


def test_probabilities_of_0_and_1_in_float16_have_a_finite_cross_entropy() -> None:
    """1e-7 less than 1 is 1 in float16."""
    p = np.array([[[0.0], [1.0], [1.0], [0.0]]], np.float16)
    mask = np.array([[0, 1, 0, 1]], np.uint8)
    loss = SoftDiceCrossEntropy(activation="sigmoid", from_logits=False)(mask, p)
    np.testing.assert_allclose(loss, 0.5 - np.log(1e-7) / 2, 1e-2)
