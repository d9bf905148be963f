"""`MeanSSIM` against scikit-image in the setting of the paper."""

import numpy as np
import pytest
import tensorflow as tf

from tfseg_ops.metrics import MeanSSIM

GENERATOR = np.random.default_rng(0)
# Smooth, so that noise changes the structure.
TRUTH = np.asarray(tf.image.resize(GENERATOR.uniform(size=(3, 5, 6, 3)), [31, 37], "bicubic"))
TRUTH = np.clip(TRUTH, 0, 1)
FOUND = TRUTH + np.array([0.01, 0.05, 0.25])[:, None, None, None] * GENERATOR.normal(
    size=TRUTH.shape
)
FOUND = np.clip(FOUND, 0, 1)


def ssim(truth, found, max_val=1.0, sample_weight=None) -> float:
    metric = MeanSSIM(max_val, dtype="float64")
    metric.update_state(truth, found, sample_weight)
    return float(metric.result())


@pytest.mark.parametrize("max_val", [1, 255])
def test_it_is_the_mean_of_what_scikit_image_gives_for_each_image(max_val: int) -> None:
    """scikit-image pads the images, and leaves the windows at the border out of its mean too."""
    metrics = pytest.importorskip("skimage.metrics")
    truth, found = TRUTH, FOUND
    if max_val == 255:
        truth, found = ((255 * images).astype(np.uint8) for images in (truth, found))
    expected = [
        metrics.structural_similarity(
            *images,
            data_range=max_val,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for images in zip(truth, found, strict=True)
    ]
    assert max(expected) > min(expected) + 0.5
    assert ssim(truth, found, max_val) == pytest.approx(np.mean(expected), abs=2e-5)
    weighted = np.average(expected, weights=[1, 2, 0])
    assert ssim(truth, found, max_val, [1, 2, 0]) == pytest.approx(weighted, abs=2e-5)


def test_units_do_not_matter() -> None:
    expected = ssim(TRUTH, FOUND)
    for unit in (255.0, 65535.0, 1e-3, 1e12):
        assert ssim(unit * TRUTH, unit * FOUND, unit) == pytest.approx(expected, abs=1e-5)


def test_equal_images_have_1() -> None:
    assert ssim(TRUTH, TRUTH) == pytest.approx(1, abs=1e-6)


def test_images_smaller_than_the_window_are_refused() -> None:
    rule = "MeanSSIM: 'y_true' must be images of at least 11 x 11 pixels, got "
    for size in ((10, 11), (11, 10), (1, 1)):
        images = np.zeros((2, *size, 3), np.float32)
        with pytest.raises(ValueError, match="at least 11") as caught:
            ssim(images, images)
        assert str(caught.value) == f"{rule}[2, {size[0]}, {size[1]}, 3]"
        metric, spec = MeanSSIM(), tf.TensorSpec([None] * 4, tf.float32)
        update = tf.function(metric.update_state, input_signature=[spec, spec])
        with pytest.raises(tf.errors.InvalidArgumentError, match="images of at least 11 x 11"):
            update(images, images)
    smallest = np.zeros((1, 11, 11, 1))
    assert ssim(smallest, smallest) == pytest.approx(1, abs=1e-6)
