"""`super_resolution`: what each variant is made of, and what it does before it is trained."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfseg_ops.models import super_resolution

IMAGES = np.random.default_rng(0).uniform(size=(2, 7, 5, 3)).astype(np.float32)


def upscaled(images: np.ndarray, scale: int) -> np.ndarray:
    size = [scale * side for side in images.shape[1:3]]
    return tf.image.resize(images, size, "bilinear").numpy()


def randomized(model: Any) -> Any:
    """Gives every weight another value, zeros too."""
    generator = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(0.1 * generator.normal(size=weight.shape))
    return model


@pytest.mark.parametrize("scale", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("variant", "filters", "last"), [("residual", 4, "subpixels"), ("unet", (4, 6), "details")]
)
def test_with_a_last_kernel_of_zeros_images_are_enlarged_bilinearly(
    variant: str, filters: Any, last: str, scale: int
) -> None:
    """So they are before training."""
    model = super_resolution(variant, scale, filters=filters, num_blocks=2)
    np.testing.assert_allclose(model(IMAGES), upscaled(IMAGES, scale), atol=1e-6)
    randomized(model)
    assert np.abs(model(IMAGES) - upscaled(IMAGES, scale)).max() > 0.01
    for weight in model.get_layer(last).weights:
        weight.assign(tf.zeros_like(weight))
    np.testing.assert_allclose(model(IMAGES), upscaled(IMAGES, scale), atol=1e-6)


@pytest.mark.parametrize("variant", ["autoencoder", "unet", "residual"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_outputs_are_exactly_scale_times_as_large(variant: str, scale: int) -> None:
    filters = 2 if variant == "residual" else (2, 3, 4, 5)
    for channels in (1, 3):
        model = super_resolution(variant, scale, (None, None, channels), filters, num_blocks=1)
        for height, width in ((1, 1), (1, 6), (13, 7)):
            outputs = model(np.ones((1, height, width, channels)))
            assert outputs.shape == (1, scale * height, scale * width, channels)
            assert outputs.dtype == tf.float32


def test_sub_pixels_see_their_surroundings_alone() -> None:
    """The result moves with the image, but for the borders."""
    model = randomized(super_resolution("residual", 3, filters=3, num_blocks=1))
    images = np.random.default_rng(0).uniform(size=(1, 24, 20, 3)).astype(np.float32)
    # Head, two in the block, body and sub-pixels: 5 convolutions of 3 x 3 reach 5 pixels.
    whole = model(images)[:, 3 * 5 : 3 * 15, 3 * 5 : 3 * 15]
    shifted = model(images[:, 2:, 1:])[:, 3 * 5 : 3 * 13, 3 * 5 : 3 * 14]
    np.testing.assert_allclose(whole[:, 6:, 3:], shifted, atol=1e-5)


def test_skips_are_all_that_the_unet_has_more() -> None:
    autoencoder, unet = (
        super_resolution(variant, 2, filters=(4, 6, 8)) for variant in ("autoencoder", "unet")
    )
    names = [{layer.name for layer in model.layers} for model in (autoencoder, unet)]
    assert names[1] - names[0] == {"decode1_concat", "decode2_concat", "details"}
    assert names[0] < names[1]
    # The first convolutions of the decoder read the skips, of 4 and 6 channels, too.
    assert unet.count_params() - autoencoder.count_params() == 9 * (4 * 4 + 6 * 6)


def test_autoencoder_sees_nothing_but_its_code() -> None:
    images = np.random.default_rng(0).uniform(size=(1, 8, 8, 3))
    for variant, passes_by in (("autoencoder", False), ("unet", True)):
        model = randomized(super_resolution(variant, 2, filters=(4, 6, 8)))
        # A code of zeros is the same for all images: the rest comes from skips.
        for weight in model.get_layer("encode3_conv2").weights:
            weight.assign(tf.zeros_like(weight))
        assert np.array_equal(model(images), model(1 - images)) != passes_by


def test_parameter_counts_follow_from_the_papers_sizes() -> None:
    """EDSR's baseline for x4, but for its tail: 64 to 256, shuffled, twice, and 64 to 3."""
    model = super_resolution()
    conv = 9 * 64 * 64 + 64
    head, tail = 9 * 3 * 64 + 64, 9 * 64 * 48 + 48
    assert model.count_params() == head + (2 * 16 + 1) * conv + tail
    blocks = [layer for layer in model.layers if layer.name.startswith("block")]
    assert len([layer for layer in blocks if isinstance(layer, keras.layers.Add)]) == 16


def test_no_two_kernels_begin_alike() -> None:
    model = super_resolution("residual", filters=4, num_blocks=3)
    kernels = [model.get_layer(f"block{b}_conv{c}").kernel for b in (1, 2, 3) for c in (1, 2)]
    assert len({kernel.numpy().tobytes() for kernel in kernels}) == 6


def test_half_precision_does_not_round_the_image() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = super_resolution("residual", 2, filters=4, num_blocks=1)
    np.testing.assert_allclose(model(IMAGES), upscaled(IMAGES, 2), atol=1e-6)


def test_many_blocks_keep_the_features_in_range() -> None:
    """Without normalisation each block adds to them."""
    keras.utils.set_random_seed(0)
    model = super_resolution("residual", 2, filters=16, num_blocks=32)
    names = ("head", "block32")
    probe = keras.Model(model.input, [model.get_layer(name).output for name in names])
    head, last = probe(np.random.default_rng(0).normal(size=(1, 16, 16, 3)))
    assert np.std(head) < np.std(last) < 3 * np.std(head)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"variant": "gan"}, '\'variant\' must be "autoencoder", "unet" or "residual", got gan'),
        ({"scale": 1}, "'scale' must be an int of at least 2, got 1"),
        ({"num_blocks": 0}, "'num_blocks' must be an int of at least 1, got 0"),
        ({"filters": (8, 8)}, "'filters' must be an int for \"residual\", got (8, 8)"),
        ({"filters": 0}, "'filters' must be an int of at least 1, got 0"),
        (
            {"variant": "unet", "filters": 8},
            "'filters' must be a list of ints for \"unet\", got 8",
        ),
        (
            {"variant": "autoencoder", "filters": ()},
            "'filters' must be a list of ints for \"autoencoder\", got ()",
        ),
        (
            {"variant": "unet", "filters": (8, 2.5)},
            "'filters' must be an int of at least 1, got 2.5",
        ),
    ],
)
def test_wrong_option_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        super_resolution(**options)
    assert str(caught.value) == f"super_resolution: {words}"
