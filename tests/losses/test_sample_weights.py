"""Weights of pixels and images, reductions, and that nothing is cast before the op."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from helpers.losses import LOSSES

from tfseg_ops import losses, ops

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.integers(0, 3, (3, 4, 6)).astype(np.uint8)
LOGITS = GENERATOR.normal(size=(3, 4, 6, 3))
PIXELS = GENERATOR.uniform(0, 2, (3, 4, 6))
IMAGES = np.array([0.5, 2, 0])


@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_pixels_of_weight_0_are_as_if_they_were_not_there(name: str, per_image: bool) -> None:
    loss = LOSSES[name](per_image=per_image, dtype="float64")
    weights = np.zeros(LABELS.shape)
    weights[:, 1:3, 2:5] = 1
    expected = loss(LABELS[:, 1:3, 2:5], LOGITS[:, 1:3, 2:5])
    for given in (weights, weights[..., None], weights.astype(np.uint8)):
        np.testing.assert_allclose(loss(LABELS, LOGITS, given), expected, 1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_pixels_of_weight_2_are_as_if_they_were_there_twice(name: str) -> None:
    loss = LOSSES[name](dtype="float64")
    weights = np.ones(LABELS.shape)
    weights[:, 0] = 2
    twice = (np.concatenate([array, array[:, :1]], 1) for array in (LABELS, LOGITS))
    np.testing.assert_allclose(loss(LABELS, LOGITS, weights), loss(*twice), 1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_weights_of_images_multiply_their_losses(name: str) -> None:
    each = LOSSES[name](reduction=None)(LABELS, LOGITS)
    assert each.shape == [3]
    loss = LOSSES[name](reduction=None)
    np.testing.assert_allclose(loss(LABELS, LOGITS, IMAGES), each * IMAGES, 1e-6)
    np.testing.assert_allclose(loss(LABELS, LOGITS, 2.0), each * 2, 1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_weights_of_images_enter_the_sums_over_the_batch(name: str) -> None:
    loss = LOSSES[name](per_image=False, reduction=None, dtype="float64")
    pixels = np.broadcast_to(IMAGES[:, None, None], LABELS.shape)
    expected = loss(LABELS, LOGITS, pixels)
    assert expected.shape == [3]
    np.testing.assert_allclose(loss(LABELS, LOGITS, IMAGES), expected, 1e-12)
    # A batch of images is one image of all their pixels.
    one = [array.reshape(1, 12, *array.shape[2:]) for array in (LABELS, LOGITS, pixels)]
    np.testing.assert_allclose(loss(*one), expected[:1], 1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_image_of_weight_0_is_left_out_of_the_sums_over_the_batch(name: str) -> None:
    """Whatever it holds, as with weights of pixels."""
    loss = LOSSES[name](per_image=False, dtype="float64")
    logits = tf.constant(np.where(IMAGES[:, None, None, None] == 0, np.nan, LOGITS))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(LABELS, logits, IMAGES)
    gradient = tape.gradient(value, logits).numpy()
    np.testing.assert_allclose(value, loss(LABELS[:2], LOGITS[:2], IMAGES[:2]), 1e-12)
    assert np.isfinite(gradient).all()
    assert not gradient[2].any()


@pytest.mark.parametrize("per_image", [True, False])
def test_reductions_are_those_of_keras(per_image: bool) -> None:
    each = losses.SoftDice(per_image=per_image, reduction=None)(LABELS, LOGITS).numpy()
    weighted = each * IMAGES if per_image else each
    if not per_image:
        weighted = losses.SoftDice(per_image=False, reduction=None)(LABELS, LOGITS, IMAGES).numpy()
    expected = {
        "sum_over_batch_size": weighted.mean(),
        "mean": weighted.mean(),
        "sum": weighted.sum(),
        "mean_with_sample_weight": weighted.sum() / (IMAGES.sum() if per_image else 3),
        "none": weighted,
    }
    for reduction, value in expected.items():
        loss = losses.SoftDice(per_image=per_image, reduction=reduction)
        np.testing.assert_allclose(loss(LABELS, LOGITS, IMAGES), value, 1e-6)
        np.testing.assert_allclose(loss.call(LABELS, LOGITS), each, 1e-6)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_labels_and_logits_reach_the_op_uncast(
    name: str, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def spy(logits: Any, labels: Any, **options: Any) -> Any:
        seen.append((logits.dtype, tf.convert_to_tensor(labels).dtype))
        return original(logits, labels, **options)

    original = ops.soft_dice_sums
    monkeypatch.setattr(ops, "soft_dice_sums", spy)
    for loss_dtype in ("float16", "float32", "float64"):
        loss = LOSSES[name](dtype=loss_dtype)(LABELS, LOGITS.astype(dtype), PIXELS)
        assert loss.dtype.name == loss_dtype
    assert seen == [(tf.as_dtype(dtype), tf.uint8)] * 3


@pytest.mark.parametrize(
    ("shape", "got"),
    [
        ((2,), "[2]"),
        ((3, 4), "[3, 4]"),
        ((3, 6, 4), "[3, 6, 4]"),
        ((3, 4, 6, 3), "[3, 4, 6, 3]"),
        ((1, 4, 6), "[1, 4, 6]"),
    ],
)
def test_weights_of_another_shape_are_refused(shape: tuple[int, ...], got: str) -> None:
    with pytest.raises(ValueError, match="sample_weight") as caught:
        losses.SoftDice()(LABELS, LOGITS, np.ones(shape))
    rule = "must be a number or have shape [3], [3, 4, 6] or [3, 4, 6, 1]"
    assert str(caught.value) == f"SoftDice: 'sample_weight' {rule}, got {got}"
