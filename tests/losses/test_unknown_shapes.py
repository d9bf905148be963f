"""Losses in graphs that know little of the shapes that they are traced for."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.losses import LOSSES, OVERLAPS

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.integers(0, 3, (2, 4, 5)).astype(np.uint8)
LABELS[0, 1] = 255
LOGITS = GENERATOR.normal(size=(2, 4, 5, 3)).astype(np.float32)
PIXELS = GENERATOR.uniform(size=(2, 4, 5)).astype(np.float32)
SIZES = [None] * 4


def traced(
    loss: Any, labels: Any, logits: Any, weights: Any = None, jit_compile: bool | None = None
) -> Any:
    """The loss for shapes of which so much is known."""
    return tf.function(
        loss,
        input_signature=[
            tf.TensorSpec(labels, tf.uint8),
            tf.TensorSpec(logits),
            tf.TensorSpec(weights),
        ],
        jit_compile=jit_compile,
    )


@pytest.mark.parametrize("jit_compile", [None, True])
@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("labels", "logits", "weights"),
    [(None, None, None), (SIZES[1:], SIZES, SIZES[1:]), (SIZES[1:], SIZES, [])],
    ids=["unknown ranks", "unknown sizes", "a number"],
)
def test_one_trace_serves_all_shapes(
    labels: Any, logits: Any, weights: Any, name: str, per_image: bool, jit_compile: bool | None
) -> None:
    loss = LOSSES[name](per_image=per_image, ignore_label=255)
    function = traced(loss, labels, logits, weights, jit_compile)
    for part in (slice(0, 2), slice(1, 2)):
        given = np.float32(2) if weights == [] else PIXELS[part]
        arguments = LABELS[part], LOGITS[part], given
        np.testing.assert_allclose(function(*arguments), loss(*arguments), 1e-5)


@pytest.mark.parametrize("jit_compile", [None, True])
def test_last_dimension_of_labels_beside_an_ignored_one_is_1(jit_compile: bool | None) -> None:
    """Targets for each class could not have one."""
    loss = LOSSES["SoftDice"](ignore_label=255)
    function = traced(loss, SIZES, [None, None, None, 3], SIZES[1:], jit_compile)
    actual = function(LABELS[..., None], LOGITS, PIXELS)
    np.testing.assert_allclose(actual, loss(LABELS, LOGITS, PIXELS), 1e-6)


@pytest.mark.parametrize("jit_compile", [None, True])
@pytest.mark.parametrize("class_weights", [[2], [1, 2]])
@pytest.mark.parametrize("name", LOSSES)
def test_class_weights_of_another_number_of_classes_are_refused(
    name: str, class_weights: list[float], jit_compile: bool | None
) -> None:
    loss = LOSSES[name](class_weights=class_weights, ignore_label=255)
    words = rf"'class_weights' must have shape \[3\], got \[{len(class_weights)}\]"
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        traced(loss, SIZES[1:], SIZES, SIZES[1:], jit_compile)(LABELS, LOGITS, PIXELS)


@pytest.mark.parametrize("name", OVERLAPS)
def test_background_alone_cannot_be_left_out(name: str) -> None:
    loss = LOSSES[name](activation="sigmoid", include_background=False)
    function = traced(loss, SIZES[1:], SIZES, SIZES[1:])
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be True where there is one"):
        function(LABELS % 2, LOGITS[..., :1], PIXELS)
    arguments = LABELS % 3, LOGITS, PIXELS
    np.testing.assert_allclose(function(*arguments), loss(*arguments), 1e-5)
