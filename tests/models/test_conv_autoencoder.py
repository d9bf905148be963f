"""The convolutional auto-encoder: sizes of codes and images, its two halves, its errors."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest

from tfseg_ops.models import conv_autoencoder


def images_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=[2, height, width, 1]).astype(np.float32)


@pytest.mark.parametrize("size", [(28, 28), (17, 31), (1, 1), (2, 9)])
@pytest.mark.parametrize("levels", [1, 3])
def test_codes_and_images_have_the_stated_sizes(size: tuple[int, int], levels: int) -> None:
    model = conv_autoencoder(filters=(4, 6, 8)[:levels], code_channels=5)
    codes = model.get_layer("encoder")(images_of(*size))
    code_size = [math.ceil(extent / 2**levels) for extent in size]
    assert codes.shape == (2, *code_size, 5)
    decoded = model.get_layer("decoder")(codes)
    assert decoded.shape == (2, *(2**levels * extent for extent in code_size), 1)
    outputs = model(images_of(*size))
    assert outputs.shape == (2, *size, 1)
    np.testing.assert_allclose(outputs, decoded[:, : size[0], : size[1]], rtol=1e-5, atol=1e-6)


def test_thirty_two_numbers_hold_a_digit() -> None:
    """The code that examples/autoencode_digits.py compares with the dense one and with PCA."""
    model = conv_autoencoder((28, 28, 1), filters=(4, 4, 4, 4), code_channels=8)
    assert model.get_layer("encoder").output.shape == (None, 2, 2, 8)
    assert model.output.shape == (None, 28, 28, 1)


def test_decoder_has_the_filters_in_reverse_order() -> None:
    model = conv_autoencoder((None, None, 3), filters=(4, 6, 8), code_channels=2)
    kernels = [weight.shape[2:] for weight in model.weights if len(weight.shape) == 4]
    assert kernels == [(3, 4), (4, 6), (6, 8), (8, 2), (2, 8), (8, 6), (6, 4), (4, 3)]


def test_halves_are_usable_apart_also_after_loading(tmp_path: Path) -> None:
    model = conv_autoencoder(filters=(4, 8), norm="batch")
    model.save(tmp_path / "model.keras")
    images = images_of(12, 8)
    for whole in (model, keras.models.load_model(tmp_path / "model.keras")):
        codes = whole.get_layer("encoder")(images)
        decoded = whole.get_layer("decoder")(codes)
        np.testing.assert_allclose(decoded, model(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(9, 13), (8, 14)])
def test_output_stays_where_the_image_was(size: tuple[int, int]) -> None:
    """With weights that copy, each pixel of the output comes from the block that it lies in."""
    model = conv_autoencoder(
        filters=(1, 1), code_channels=1, activation="linear", output_activation=None
    )
    copy = np.zeros((3, 3, 1, 1))
    copy[1, 1] = 1
    kernels = [len(weight.shape) == 4 for weight in model.weights]
    model.set_weights([copy if kernel else np.zeros(1) for kernel in kernels])
    height, width = size
    image = np.arange(1.0 * height * width).reshape(1, height, width, 1)
    expected = image[:, ::4, ::4].repeat(4, 1).repeat(4, 2)[:, :height, :width]
    np.testing.assert_allclose(model(image), expected)


@pytest.mark.parametrize(
    ("norm", "layer"), [("batch", "BatchNormalization"), ("group", "GroupNormalization")]
)
def test_norm_stands_before_each_activation_and_nowhere_else(norm: str, layer: str) -> None:
    model = conv_autoencoder(filters=(4, 8), norm=norm)
    for half in ("encoder", "decoder"):
        layers = model.get_layer(half).layers
        names = [one.name for one in layers if type(one).__name__ == layer]
        assert sorted(names) == [f"{half}_1_norm", f"{half}_2_norm"]


@pytest.mark.parametrize(
    ("activation", "low", "high"), [("sigmoid", 0, 1), ("tanh", -1, 1), (None, -np.inf, np.inf)]
)
def test_output_has_the_range_of_its_activation(
    activation: str | None, low: float, high: float
) -> None:
    model = conv_autoencoder(filters=(4,), code_channels=2, output_activation=activation)
    outputs = np.asarray(model(1000 * (images_of(8, 8) - 0.5)))
    assert low <= outputs.min()
    assert outputs.max() <= high
    assert outputs.max() - outputs.min() > 0.5 * min(high - low, 20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"input_shape": (28, 28)},
            r"'input_shape' must be \(height, width, channels\): positive ints, None for any "
            r"height or width, got \(28, 28\)",
        ),
        ({"input_shape": (None, None, None)}, "'input_shape' must be .*, got"),
        ({"input_shape": (None, -1, 1)}, "'input_shape' must be .*, got \\(None, -1, 1\\)"),
        ({"filters": []}, r"'filters' must be a list of positive ints, at least 1, got \[\]"),
        (
            {"filters": (8, 2.5)},
            r"'filters' must be a list of positive ints.* got \(8, 2.5\)",
        ),
        ({"code_channels": 0}, "'code_channels' must be an int of at least 1, got 0"),
        ({"norm": "layer"}, '\'norm\' must be None, "batch" or "group", got layer'),
        ({"activation": "tahn"}, "tahn"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conv_autoencoder(**arguments)
