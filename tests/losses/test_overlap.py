"""All losses of overlap against plain loops, on drawn inputs and options."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.overlap import one_hot, overlap_losses, probabilities
from hypothesis import given, settings
from hypothesis import strategies as st

from tfseg_ops import losses
from tfseg_ops.testing.strategies import class_masks

KINDS = ["SoftDice", "SoftJaccard", "Tversky", "GeneralizedDice"]
OPTIONS = {
    "power": [1, 2],
    "per_image": [True, False],
    "smooth_numerator": [1e-6, 0, 1],
    "smooth_denominator": [1e-6, 0, 2],
    "absent": ["smooth", "skip", "one"],
    "class_weights": [None, [0.5, 2, 0]],
    "include_background": [True, False],
}


@st.composite
def options(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """Options as a loss takes them, most of them as they are by default."""
    drawn = {name: draw(st.sampled_from(choice)) for name, choice in OPTIONS.items()}
    if kind == "Tversky":
        drawn |= {"alpha": draw(st.sampled_from([0.5, 0.2])), "beta": draw(st.sampled_from([0, 1]))}
    if kind == "GeneralizedDice" and drawn["absent"] == "one":
        drawn["absent"] = "skip"
    return drawn


def logits_like(labels: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Logits that favour the labels a little."""
    noise = np.random.default_rng(seed).normal(size=(*labels.shape, classes))
    return (2 * noise + one_hot(labels, classes)).astype(np.float64)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(
    data=st.data(),
    labels=class_masks(classes=3, batch=2, ignore_label=255),
    activation=st.sampled_from(["softmax", "sigmoid"]),
    from_logits=st.booleans(),
    form=st.sampled_from(["labels", "last one", "dense", "weights"]),
    seed=st.integers(0, 100),
)
def test_loss_is_that_of_plain_loops(
    kind: str,
    data: st.DataObject,
    labels: np.ndarray,
    activation: str,
    from_logits: bool,
    form: str,
    seed: int,
) -> None:
    given_options = data.draw(options(kind))
    logits = logits_like(labels, 3, seed)
    p, g, w = probabilities(logits, activation), one_hot(labels, 3), (labels != 255) * 1.0
    ignore_label, y_true, weights = 255, labels, None
    if form == "last one":
        y_true = labels[..., None].astype(np.int64)
    elif form == "dense":
        ignore_label, y_true, w = None, g, np.ones_like(w)
    elif form == "weights":
        weights = np.random.default_rng(seed).choice([0, 0.5, 3], w.shape)
        w = w * weights
    loss = getattr(losses, kind)(
        activation=activation,
        from_logits=from_logits,
        ignore_label=ignore_label,
        reduction=None,
        dtype="float64",
        **given_options,
    )
    actual = loss(y_true, logits if from_logits else p, weights)
    expected = overlap_losses(kind, p, g, w, **given_options)
    np.testing.assert_allclose(actual, expected, 1e-9, 1e-9)


@settings(max_examples=100)
@given(class_masks(classes=4, batch=3), st.integers(0, 100))
def test_soft_dice_is_the_formula_of_the_chapter(labels: np.ndarray, seed: int) -> None:
    """`1 - mean((2 sum(p g) + eps) / (sum(p + g) + eps))`, in float32 to 1e-6."""
    logits = logits_like(labels, 4, seed).astype(np.float32)
    p, g = probabilities(logits, "softmax"), one_hot(labels, 4)
    overlap, both = (p * g).sum((1, 2)), (p + g).sum((1, 2))
    expected = 1 - np.mean((2 * overlap + 1e-6) / (both + 1e-6))
    assert abs(float(losses.SoftDice()(labels, logits)) - expected) < 1e-6


@pytest.mark.parametrize("kind", [*KINDS, "SoftDiceCrossEntropy", "WeightedCrossEntropy"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_any_number_of_dimensions_is_a_list_of_pixels(kind: str, activation: str) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (2, 24))
    logits = logits_like(labels, 3, seed=0)
    loss = getattr(losses, kind)(activation=activation, dtype="float64")
    expected = loss(labels, logits)
    for shape in [(4, 6), (2, 3, 4)]:
        volume = loss(labels.reshape(2, *shape), logits.reshape(2, *shape, 3))
        np.testing.assert_allclose(volume, expected, 1e-12)


def test_one_sigmoid_channel_takes_a_mask_of_0_and_1() -> None:
    mask = np.array([[[1, 0], [1, 1]]], np.uint8)
    logits = np.array([[[[2.0], [-1]], [[0], [-3]]]], np.float32)
    p = probabilities(logits, "sigmoid")
    expected = overlap_losses("SoftDice", p, mask[..., None], np.ones(mask.shape))
    for y_true in (mask, mask[..., None], mask[..., None].astype(np.float32)):
        for from_logits, y_pred in ((True, logits), (False, p)):
            loss = losses.SoftDice(activation="sigmoid", from_logits=from_logits)
            np.testing.assert_allclose(loss(y_true, y_pred), expected[0], 1e-6)


def test_soft_jaccard_is_dice_over_two_minus_dice() -> None:
    labels = np.random.default_rng(0).integers(0, 2, (3, 5, 4))
    logits = logits_like(labels, 1, seed=1)
    arguments = {"activation": "sigmoid", "smooth_numerator": 0, "smooth_denominator": 0}
    dice = 1 - losses.SoftDice(**arguments, reduction=None, dtype="float64")(labels, logits)
    jaccard = 1 - losses.SoftJaccard(**arguments, reduction=None, dtype="float64")(labels, logits)
    np.testing.assert_allclose(jaccard, dice / (2 - dice), 1e-12)


@pytest.mark.parametrize(
    ("alpha", "beta", "kind"), [(0.5, 0.5, "SoftDice"), (1.0, 1.0, "SoftJaccard")]
)
def test_tversky_has_dice_and_jaccard_as_special_cases(
    alpha: float, beta: float, kind: str
) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (2, 5, 4))
    logits = logits_like(labels, 3, seed=1)
    expected = getattr(losses, kind)(dtype="float64")(labels, logits)
    actual = losses.Tversky(alpha, beta, dtype="float64")(labels, logits)
    np.testing.assert_allclose(actual, expected, 1e-6)


def test_tversky_weighs_false_positives_by_alpha_and_false_negatives_by_beta() -> None:
    truth = np.array([[1, 1, 0, 0, 0]])
    found = np.array([[1, 0, 1, 1, 0]])  # one of both, one missed, two too many
    logits = 1e4 * (2.0 * found[..., None] - 1)
    loss = losses.Tversky(0.25, 3.0, activation="sigmoid")(truth, logits)
    np.testing.assert_allclose(loss, 1 - 1 / (1 + 0.25 * 2 + 3 * 1), 1e-5)


def test_generalized_dice_weighs_classes_by_the_inverse_square_of_their_size() -> None:
    truth = np.array([[0, 0, 0, 1]])
    found = np.array([[0, 0, 1, 1]])
    loss = losses.GeneralizedDice()(truth, 1e4 * one_hot(found, 2))
    # Class 0: 2 of 3 true, 2 predicted. Class 1: 1 of 1 true, 2 predicted.
    expected = 1 - 2 * (2 / 9 + 1) / ((3 + 2) / 9 + (1 + 2))
    np.testing.assert_allclose(loss, expected, 1e-5)


@pytest.mark.parametrize("kind", [*KINDS, "SoftDiceCrossEntropy", "WeightedCrossEntropy"])
def test_class_numbers_may_be_whole_floats(kind: str) -> None:
    labels = np.random.default_rng(0).choice([0, 1, 2, 255], (2, 3, 4))
    logits = logits_like(labels, 3, seed=0)
    loss = getattr(losses, kind)(ignore_label=255)
    expected = loss(labels, logits)
    for y_true in (labels.astype(np.float32), labels[..., None].astype(np.float16)):
        np.testing.assert_array_equal(loss(y_true, logits), expected)
    with pytest.raises(tf.errors.InvalidArgumentError, match="'labels' must lie in"):
        loss(labels + 0.5, logits)


@pytest.mark.parametrize("kind", [*KINDS, "SoftDiceCrossEntropy", "WeightedCrossEntropy"])
def test_labels_may_be_integers_of_any_dtype(kind: str) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (2, 3, 4))
    for channels, activation in ((2, "softmax"), (1, "sigmoid")):
        logits = logits_like(labels, channels, seed=0)
        loss = getattr(losses, kind)(activation=activation)
        expected = loss(labels, logits)
        for dtype in (bool, np.int8, np.int16, np.uint16, np.uint32, np.uint64):
            np.testing.assert_array_equal(loss(labels.astype(dtype), logits), expected)
    hot = np.eye(2)[labels]
    expected = getattr(losses, kind)()(hot, logits_like(labels, 2, seed=0))
    actual = getattr(losses, kind)()(hot.astype(bool), logits_like(labels, 2, seed=0))
    np.testing.assert_allclose(actual, expected, 1e-6)


@pytest.mark.parametrize("kind", [*KINDS, "SoftDiceCrossEntropy", "WeightedCrossEntropy"])
@pytest.mark.parametrize("from_logits", [True, False])
def test_mask_with_ignored_pixels_may_be_of_whole_floats(kind: str, from_logits: bool) -> None:
    """Keras shows float labels to a loss when it builds a replicated model."""
    labels = np.random.default_rng(0).choice([0, 1, 255], (2, 3, 4))
    y_pred = logits_like(labels, 1, seed=0)
    if not from_logits:
        y_pred = probabilities(y_pred, "sigmoid")
    loss = getattr(losses, kind)(activation="sigmoid", from_logits=from_logits, ignore_label=255)
    expected = loss(labels, y_pred)
    for y_true in (labels.astype(np.float32), labels[..., None].astype(np.float16)):
        np.testing.assert_array_equal(loss(y_true, y_pred), expected)


def test_floats_of_one_channel_are_a_soft_mask() -> None:
    mask = np.random.default_rng(0).uniform(size=(2, 3, 4))
    logits = logits_like(mask, 1, seed=0)
    loss = losses.SoftDiceCrossEntropy(activation="sigmoid")
    np.testing.assert_array_equal(loss(mask, logits), loss(mask[..., None], logits))
