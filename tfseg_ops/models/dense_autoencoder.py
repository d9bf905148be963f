"""An auto-encoder of fully connected layers."""

import math
from collections.abc import Sequence

import keras

from tfseg_ops.models import _arguments


def dense_autoencoder(
    input_shape: tuple[int, int, int] = (28, 28, 1),
    units: Sequence[int] = (128, 64, 32),
    activation: str = "relu",
    output_activation: str | None = "sigmoid",
) -> keras.Model:
    """An auto-encoder of fully connected layers: images through a short code and back.

    By default 784-128-64-32-64-128-784 with 222,384 parameters, for MNIST's digits. Encoder and
    decoder are models of their own, `model.get_layer("encoder")` and `model.get_layer("decoder")`,
    also after saving and loading: the encoder takes images and returns codes `[batch, units[-1]]`,
    the decoder takes codes and returns images.

    Args:
        input_shape: (height, width, channels) of the images, all known: the number of weights
            depends on them.
        units: widths of the encoder's layers; the last is the size of the code. The decoder has
            them in reverse order.
        activation: of all layers but the last, the code's too.
        output_activation: of the last layer. "sigmoid" gives images in [0, 1]; None leaves out the
            activation, for a loss that takes logits or images of any range.

    Returns:
        A model of images `[batch, height, width, channels]`, floating, usually in [0, 1], that
        returns images of the same shape, float32 under mixed precision too.

    Raises:
        ValueError: an argument out of its range.

    Example:
        >>> model = dense_autoencoder()
        >>> model.compile("adam", "mse")
        >>> codes = model.get_layer("encoder")(images)  # [batch, 32]
        >>> decoded = model.get_layer("decoder")(codes)  # [batch, 28, 28, 1]

    References:
        Hinton & Salakhutdinov, Reducing the dimensionality of data with neural networks, Science
        2006, figure 1. Theirs is wider (784-1000-500-250-30), has a linear code, and is pretrained
        as a stack of Boltzmann machines; here ReLUs and Glorot's initialisation make that
        unnecessary.
    """
    name = "dense_autoencoder"
    shape = _arguments.image_shape(name, input_shape, fixed=True)
    encoder_units = _arguments.widths(name, "units", units)

    images = keras.Input(shape, name="images")
    x = keras.layers.Flatten(name="pixels")(images)
    for level, width in enumerate(encoder_units[:-1], start=1):
        x = keras.layers.Dense(width, activation, name=f"encoder_{level}")(x)
    x = keras.layers.Dense(encoder_units[-1], activation, name="code")(x)
    encoder = keras.Model(images, x, name="encoder")

    x = codes = keras.Input(encoder_units[-1:], name="codes")
    for level in range(len(encoder_units) - 1, 0, -1):
        x = keras.layers.Dense(encoder_units[level - 1], activation, name=f"decoder_{level}")(x)
    x = keras.layers.Dense(math.prod(shape), output_activation, dtype="float32", name="output")(x)
    x = keras.layers.Reshape(shape, dtype="float32", name="image")(x)
    decoder = keras.Model(codes, x, name="decoder")

    images = keras.Input(shape, name="images")
    return keras.Model(images, decoder(encoder(images)), name=name)
