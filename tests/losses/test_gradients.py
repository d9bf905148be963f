"""Gradients of the losses against central differences, in float64."""

from typing import Any

import numpy as np
import pytest
from helpers.losses import LOSSES, OVERLAPS
from helpers.overlap import one_hot, probabilities

from tfseg_ops.testing import check_gradients

GENERATOR = np.random.default_rng(0)
LABELS = np.array([[[0, 1, 2], [2, 0, 1]], [[1, 2, 2], [2, 1, 0]]])
LOGITS = GENERATOR.normal(size=(2, 2, 3, 3))
WEIGHTS = GENERATOR.uniform(0.5, 2, (2, 2, 3))
VARIANTS: list[dict[str, Any]] = [
    {},
    {"activation": "sigmoid", "per_image": False, "class_weights": [1, 2, 0.5], "ignore_label": 2},
]
OVERLAP_VARIANTS: list[dict[str, Any]] = [
    {"power": 2, "absent": "skip", "smooth_numerator": 1, "include_background": False},
    {"power": 2, "activation": "sigmoid"},
]
CASES = [(name, options) for name in LOSSES for options in VARIANTS]
CASES += [(name, options) for name in OVERLAPS for options in OVERLAP_VARIANTS]


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_gradients_are_those_of_differences(name: str, options: dict[str, Any]) -> None:
    loss = LOSSES[name](reduction=None, dtype="float64", **options)
    check_gradients(lambda logits: loss(LABELS, logits, WEIGHTS), [LOGITS], names=["logits"])


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_with_soft_targets_are_those_of_differences(name: str) -> None:
    loss = LOSSES[name](reduction=None, dtype="float64")
    targets = 0.8 * one_hot(LABELS, 3) + 0.1
    check_gradients(lambda logits: loss(targets, logits), [LOGITS], names=["logits"])


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_to_probabilities_are_those_of_differences(name: str, activation: str) -> None:
    loss = LOSSES[name](activation=activation, from_logits=False, reduction=None, dtype="float64")
    p = probabilities(LOGITS, activation)
    check_gradients(lambda p: loss(LABELS, p, WEIGHTS), [p], names=["probabilities"])


def test_second_order_gradients_are_those_of_differences() -> None:
    loss = LOSSES["SoftDiceCrossEntropy"](dtype="float64")
    check_gradients(
        lambda logits: loss(LABELS[:1], logits), [LOGITS[:1]], order=2, names=["logits"]
    )
