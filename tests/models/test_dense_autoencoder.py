"""The dense auto-encoder: its published size, its two halves, its errors."""

from pathlib import Path

import keras
import numpy as np
import pytest

from tfseg_ops.models import dense_autoencoder

IMAGES = np.random.default_rng(0).uniform(size=[3, 28, 28, 1]).astype(np.float32)


def test_default_has_the_published_layers_and_number_of_parameters() -> None:
    model = dense_autoencoder()
    kernels = [weight.shape for weight in model.weights if len(weight.shape) == 2]
    assert kernels == [(784, 128), (128, 64), (64, 32), (32, 64), (64, 128), (128, 784)]
    assert model.count_params() == 222_384


def test_output_is_that_of_the_plain_matrices() -> None:
    model = dense_autoencoder((4, 5, 2), (7, 3), activation="tanh")
    images = IMAGES[:, :4, :10].reshape(3, 4, 5, 2)
    x = images.reshape(3, 40)
    kernels_and_biases = [np.asarray(weight) for weight in model.weights]
    for layer in range(4):
        x = x @ kernels_and_biases[2 * layer] + kernels_and_biases[2 * layer + 1]
        x = np.tanh(x) if layer < 3 else 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(model(images), x.reshape(3, 4, 5, 2), rtol=1e-5, atol=1e-6)


def test_halves_are_usable_apart_also_after_loading(tmp_path: Path) -> None:
    model = dense_autoencoder()
    model.save(tmp_path / "model.keras")
    for whole in (model, keras.models.load_model(tmp_path / "model.keras")):
        codes = whole.get_layer("encoder")(IMAGES)
        assert codes.shape == (3, 32)
        decoded = whole.get_layer("decoder")(codes)
        np.testing.assert_allclose(decoded, model(IMAGES), rtol=1e-5, atol=1e-6)


def test_one_layer_is_enough_and_logits_have_no_activation() -> None:
    model = dense_autoencoder((2, 2, 1), (1,), activation="linear", output_activation=None)
    model.set_weights([np.ones((4, 1)), np.zeros(1), np.full((1, 4), 3.0), np.full(4, -50.0)])
    outputs = model(np.arange(4.0).reshape(1, 2, 2, 1))
    np.testing.assert_allclose(outputs, np.full((1, 2, 2, 1), 6 * 3 - 50.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"input_shape": (None, None, 1)},
            r"'input_shape' must be \(height, width, channels\): positive ints, got \(None, ",
        ),
        ({"input_shape": (28, 28)}, r"'input_shape' must be \(height, width, channels\)"),
        ({"input_shape": 784}, r"'input_shape' must be .*, got 784"),
        ({"input_shape": (28, 0, 1)}, r"'input_shape' must be .*, got \(28, 0, 1\)"),
        ({"units": ()}, r"'units' must be a list of positive ints, at least 1, got \(\)"),
        ({"units": 32}, "'units' must be a list of positive ints, at least 1, got 32"),
        (
            {"units": (128, 0)},
            r"'units' must be a list of positive ints.* got \(128, 0\)",
        ),
        (
            {"units": (128, 1.5)},
            r"'units' must be a list of positive ints.* got \(128, 1.5\)",
        ),
        ({"activation": "tahn"}, "tahn"),
        ({"output_activation": "tahn"}, "tahn"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dense_autoencoder(**arguments)
