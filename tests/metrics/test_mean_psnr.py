"""`MeanPSNR` against scikit-image and numbers from the definition."""

import numpy as np
import pytest
import tensorflow as tf

from tfseg_ops.metrics import MeanPSNR

GENERATOR = np.random.default_rng(0)
TRUTH = GENERATOR.uniform(size=(3, 13, 17, 3))
# Of different quality: about 40, 26 and 12 dB.
FOUND = TRUTH + np.array([0.01, 0.05, 0.25])[:, None, None, None] * GENERATOR.normal(
    size=TRUTH.shape
)


def psnr(truth, found, max_val=1.0, sample_weight=None) -> float:
    metric = MeanPSNR(max_val, dtype="float64")
    metric.update_state(truth, found, sample_weight)
    return float(metric.result())


def test_an_error_of_a_tenth_everywhere_is_20_decibels() -> None:
    black = np.zeros((1, 4, 5, 1))
    assert psnr(black, black + 0.1) == pytest.approx(20)
    assert psnr(255 * black, 255 * (black + 0.1), 255) == pytest.approx(20)


def test_it_is_the_mean_of_what_scikit_image_gives_for_each_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    expected = [
        metrics.peak_signal_noise_ratio(*images, data_range=1)
        for images in zip(TRUTH, FOUND, strict=True)
    ]
    assert max(expected) > min(expected) + 20
    assert psnr(TRUTH, FOUND) == pytest.approx(np.mean(expected), 1e-12)
    weights = [1, 2, 0.5]
    weighted = np.average(expected, weights=weights)
    assert psnr(TRUTH, FOUND, 1, weights) == pytest.approx(weighted, 1e-12)
    small, large = TRUTH.astype(np.float32), FOUND.astype(np.float32)
    assert psnr(small, large) == pytest.approx(np.mean(expected), 1e-5)


def test_integers_are_in_units_of_the_greatest_value() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    truth, found = (np.clip(255 * images, 0, 255).astype(np.uint8) for images in (TRUTH, FOUND))
    expected = np.mean(
        [
            metrics.peak_signal_noise_ratio(*images, data_range=255)
            for images in zip(truth, found, strict=True)
        ]
    )
    for y_true in (truth, truth.astype(np.int32)):
        for y_pred in (found, found.astype(np.float32), tf.cast(found, tf.float16)):
            assert psnr(y_true, y_pred, 255) == pytest.approx(expected, 1e-12)


def test_equal_images_have_100_decibels_and_none_has_more() -> None:
    assert psnr(TRUTH, TRUTH) == 100
    assert psnr(TRUTH, TRUTH + 1e-6) == 100
    assert psnr(TRUTH, TRUTH + 2e-5) == pytest.approx(93.98, abs=0.01)
    black = np.zeros((1, 4, 5, 1))
    # One of them does not make the mean infinite.
    assert psnr(np.repeat(black, 2, 0), np.concatenate([black, black + 0.1])) == pytest.approx(60)


def test_predictions_in_half_precision_are_compared_in_a_wider_one() -> None:
    """A difference of 1 in 2048 is lost in bfloat16, and its square in float16."""
    truth = np.full((1, 8, 8, 3), 0.5 + 2.0**-11, np.float32)
    for dtype in (tf.float16, tf.bfloat16):
        found = tf.fill(truth.shape, tf.constant(0.5, dtype))
        assert psnr(truth, found) == pytest.approx(20 * np.log10(2.0**11), 1e-12)


def test_an_image_that_is_no_number_shows() -> None:
    found = FOUND.copy()
    found[1, 2, 3, 0] = np.nan
    assert np.isnan(psnr(TRUTH, found))
