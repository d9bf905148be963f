"""Empty masks, ignored images, infinite logits: finite losses and gradients, with known values."""

from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from helpers.losses import LOSSES, OVERLAPS
from helpers.overlap import one_hot

from tfseg_ops import losses

SHAPE = (2, 3, 4)
IGNORED = np.full(SHAPE, 255, np.uint8)
BACKGROUND = np.zeros(SHAPE, np.uint8)
MIXED = np.random.default_rng(0).integers(0, 2, SHAPE).astype(np.uint8)
NOISE = np.random.default_rng(1).normal(size=(*SHAPE, 2)).astype(np.float32)
CERTAIN = np.stack([np.full(SHAPE, 1e4), np.full(SHAPE, -1e4)], -1).astype(np.float32)
INFINITE = np.where(NOISE > 0, np.inf, -np.inf).astype(np.float32)
ALL_INFINITE = np.full_like(NOISE, -np.inf)
CASES: dict[str, Any] = {
    "all ignored": (IGNORED, NOISE),
    "empty mask": (BACKGROUND, NOISE),
    "empty mask and prediction": (BACKGROUND, CERTAIN),
    "certain and wrong": (1 - BACKGROUND, CERTAIN),
    "infinite": (MIXED, INFINITE),
    "minus infinity everywhere": (MIXED, ALL_INFINITE),
    "no pixels": (MIXED[:, :0], NOISE[:, :0]),
}


VARIANTS: list[dict[str, Any]] = [{}, {"per_image": False}]
NO_SMOOTHING = {"smooth_numerator": 0, "smooth_denominator": 0}
OVERLAP_VARIANTS: list[dict[str, Any]] = [
    {**NO_SMOOTHING},
    {**NO_SMOOTHING, "absent": "skip", "power": 2},
]
LOSSES_AND_OPTIONS = [(name, options) for name in LOSSES for options in VARIANTS]
LOSSES_AND_OPTIONS += [(name, options) for name in OVERLAPS for options in OVERLAP_VARIANTS]


def loss_and_gradient(loss: Any, labels: Any, logits: Any, weights: Any = None) -> list[np.ndarray]:
    """The loss of each image and the gradient to the logits."""
    y_pred = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = loss(labels, y_pred, weights)
    return [value.numpy(), tape.gradient(value, y_pred).numpy()]


@pytest.mark.parametrize(("name", "options"), LOSSES_AND_OPTIONS, ids=str)
def test_loss_and_gradient_are_never_nan(name: str, options: dict[str, Any]) -> None:
    for activation, channels in (("softmax", 2), ("sigmoid", 2), ("sigmoid", 1)):
        loss = LOSSES[name](activation=activation, ignore_label=255, reduction=None, **options)
        for case, (labels, logits) in CASES.items():
            for array in loss_and_gradient(loss, labels, logits[..., :channels]):
                assert np.isfinite(array).all(), (case, activation, channels)


@pytest.mark.parametrize("name", LOSSES)
def test_probabilities_of_0_and_1_are_never_nan(name: str) -> None:
    for activation, channels in (("softmax", 2), ("sigmoid", 2), ("sigmoid", 1)):
        loss = LOSSES[name](activation=activation, from_logits=False, reduction=None)
        for labels in (BACKGROUND, MIXED):
            for p in (one_hot(labels, 2), 1 - one_hot(labels, 2)):
                for array in loss_and_gradient(loss, labels, p[..., -channels:]):
                    assert np.isfinite(array).all()


@pytest.mark.parametrize("name", LOSSES)
def test_one_class_alone_is_always_right(name: str) -> None:
    for labels in (BACKGROUND, BACKGROUND.astype(np.float32), BACKGROUND[..., None] * 1.0):
        np.testing.assert_allclose(LOSSES[name]()(labels, NOISE[..., :1]), 0, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_is_0_where_all_is_ignored_or_has_no_weight(name: str) -> None:
    for per_image in (True, False):
        loss = LOSSES[name](ignore_label=255, per_image=per_image)
        for labels, weights in ((IGNORED, None), (MIXED, np.zeros(SHAPE)), (MIXED, np.zeros(2))):
            value, gradient = loss_and_gradient(loss, labels, NOISE, weights)
            np.testing.assert_allclose(value, 0, atol=1e-6)
            assert (gradient == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_certain_and_right_is_0(name: str) -> None:
    np.testing.assert_allclose(LOSSES[name]()(MIXED, 1e4 * one_hot(MIXED, 2)), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("absent", "predicted", "expected"),
    [
        ("smooth", False, 0.0),  # eps / eps for the class in neither, 1 for the other
        ("skip", False, 0.0),
        ("one", False, 0.0),
        # Class 1 is predicted on half the pixels and absent, so class 0 has 2 * 6 / (6 + 12).
        ("smooth", True, 1 - (2 / 3 + 0) / 2),
        ("skip", True, 1 - 2 / 3),
        ("one", True, 1 - (2 / 3 + 1) / 2),
    ],
)
def test_absent_class_counts_as_asked(absent: str, predicted: bool, expected: float) -> None:
    found = np.zeros(SHAPE, np.uint8)
    found[..., 2:] = predicted
    loss = losses.SoftDice(absent=absent)(BACKGROUND, 1e4 * one_hot(found, 2))
    np.testing.assert_allclose(loss, expected, atol=1e-6)


def test_skip_of_all_classes_is_0() -> None:
    """No foreground in the truth, and the background left out."""
    loss = losses.SoftDice(absent="skip", include_background=False)
    assert float(loss(BACKGROUND, NOISE)) == 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("per_image", [True, False])
def test_ignored_pixels_change_nothing_and_have_no_gradient(name: str, per_image: bool) -> None:
    labels = MIXED.copy()
    labels[0, 1] = labels[1, :, 2] = 255
    other = NOISE.copy()
    other[labels == 255] = [1e4, np.nan]
    loss = LOSSES[name](ignore_label=255, per_image=per_image, reduction=None)
    value, gradient = loss_and_gradient(loss, labels, NOISE)
    assert (gradient[labels == 255] == 0).all()
    assert (gradient[labels != 255] != 0).all()
    for array, same in zip(loss_and_gradient(loss, labels, other), (value, gradient), strict=True):
        np.testing.assert_array_equal(array, same)


@pytest.mark.parametrize("name", LOSSES)
def test_label_out_of_range_is_an_error(name: str) -> None:
    labels = MIXED.copy()
    labels[1, 2, 3] = 7
    with pytest.raises(tf.errors.InvalidArgumentError, match="'labels' must lie in"):
        LOSSES[name](ignore_label=255)(labels, NOISE)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_logits_lose_less_than_a_thousandth(name: str, dtype: str) -> None:
    """`keras.losses.Dice` in float16 is NaN here."""
    generator = np.random.default_rng(2)
    labels = (generator.uniform(size=(1, 512, 512)) < 0.3).astype(np.uint8)
    logits = tf.cast(generator.normal(size=(1, 512, 512, 2)) * 3, dtype)
    expected = LOSSES[name](dtype="float64")(labels, tf.cast(logits, tf.float64))
    actual = LOSSES[name]()(labels, logits)
    assert abs(float(actual) - float(expected)) < 1e-3
    half = LOSSES[name](dtype=dtype)(labels, logits)
    assert half.dtype == dtype
    np.testing.assert_allclose(float(half), float(expected), 5e-3)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_large_image_in_half_precision_has_the_losses_of_float64(dtype: Any) -> None:
    """Of a part of it, again and again: means of sums are the same, but for the eps."""
    generator = np.random.default_rng(3)
    labels = (generator.uniform(size=(1, 4096, 64)) < 0.3).astype(np.uint8)
    logits = generator.normal(size=(*labels.shape, 2)) * 3
    large = np.tile(labels, (1, 1, 64)), np.tile(logits.astype(dtype), (1, 1, 64, 1))
    assert large[1].shape == (1, 4096, 4096, 2)
    for name, kind in LOSSES.items():
        expected = float(kind(dtype="float64")(labels, logits))
        assert abs(float(kind()(*large)) - expected) < 1e-3, name


@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_batch_of_no_images_has_loss_0(name: str, per_image: bool) -> None:
    labels, logits = MIXED[:0], NOISE[:0]
    each = LOSSES[name](per_image=per_image, reduction=None)(labels, logits)
    assert each.shape == [0]
    for reduction in ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight"):
        loss = LOSSES[name](per_image=per_image, reduction=reduction)
        for weights in (None, np.ones(0), np.ones(labels.shape)):
            value, gradient = loss_and_gradient(loss, labels, logits, weights)
            assert value.shape == ()
            assert value == 0
            assert gradient.shape == logits.shape


def test_keras_dice_overflows_where_ours_does_not() -> None:
    """What the test above holds against."""
    labels = np.ones((1, 512, 512, 1), np.float16)
    dice = keras.losses.Dice(dtype="float16")(labels, labels)
    assert np.isnan(float(dice))
    ours = losses.SoftDice(from_logits=False, activation="sigmoid", dtype="float16")
    assert float(ours(labels, labels)) == 0
