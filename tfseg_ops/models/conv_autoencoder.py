"""A convolutional auto-encoder."""

from collections.abc import Sequence
from typing import Any

import keras

from tfseg_ops import _checks
from tfseg_ops.layers import CropLike2D
from tfseg_ops.models import _arguments
from tfseg_ops.models._blocks import NORMS, convolve


def conv_autoencoder(
    input_shape: tuple[int | None, int | None, int] = (None, None, 1),
    filters: Sequence[int] = (32, 64, 128),
    code_channels: int = 16,
    norm: str | None = None,
    activation: str = "relu",
    output_activation: str | None = "sigmoid",
) -> keras.Model:
    """A convolutional auto-encoder: images of any size through a small map of codes and back.

    Each level of the encoder is a 3x3 convolution of stride 2; a 3x3 convolution without activation
    makes the code. Each level of the decoder repeats every value 2x2 times and convolves, 3x3. So a
    code has 1 / 2^levels of the image's height and width, rounded up, and the model crops what the
    decoder returns to the size of the image.

    Encoder and decoder are models of their own, `model.get_layer("encoder")` and
    `model.get_layer("decoder")`, also after saving and loading: the encoder takes images and
    returns codes `[batch, ceil(height / 2^levels), ceil(width / 2^levels), code_channels]`, the
    decoder takes codes and returns images 2^levels times as high and wide.

    Args:
        input_shape: (height, width, channels) of the images; None for height or width: any.
        filters: of the encoder's levels, finest first; as many levels as numbers. The decoder has
            them in reverse order.
        code_channels: of the code.
        norm: None, "batch" or "group" normalisation before each activation; not on the code and
            not on the output.
        activation: of all convolutions but those of the code and the output.
        output_activation: of the last convolution. "sigmoid" gives images in [0, 1]; None leaves
            out the activation, for a loss that takes logits or images of any range.

    Returns:
        A model of images `[batch, height, width, channels]`, floating, usually in [0, 1], that
        returns images of the same shape, float32 under mixed precision too.

    Raises:
        ValueError: an argument out of its range.

    Example:
        >>> model = conv_autoencoder(filters=(16, 32, 64, 128), code_channels=8)
        >>> model.compile("adam", "mse")
        >>> codes = model.get_layer("encoder")(images)  # [batch, 2, 2, 8] of 28x28 pixels
        >>> decoded = model.get_layer("decoder")(codes)  # [batch, 32, 32, 1]

    References:
        Masci et al., Stacked convolutional auto-encoders for hierarchical feature extraction, ICANN
        2011; strides in place of their max-pools, as Springenberg et al., Striving for simplicity,
        2015. Repetition and convolution as Odena et al., Deconvolution and checkerboard artifacts,
        Distill 2016.
    """
    name = "conv_autoencoder"
    shape = _arguments.image_shape(name, input_shape)
    widths = _arguments.widths(name, "filters", filters)
    code_channels = _checks.integer(name, "code_channels", code_channels, 1)
    _checks.choice(name, "norm", norm, NORMS)

    x = images = keras.Input(shape, name="images")
    for level, width in enumerate(widths, start=1):
        # "same" would begin even sizes a row later than odd ones.
        x = keras.layers.ZeroPadding2D(1, name=f"padding_{level}")(x)
        options: dict[str, Any] = {"strides": 2, "padding": "valid", "name": f"encoder_{level}"}
        x = convolve(x, width, norm=norm, activation=activation, **options)
    codes = convolve(x, code_channels, activation=None, name="code")
    encoder = keras.Model(images, codes, name="encoder")

    x = codes = keras.Input((None, None, code_channels), name="codes")
    for level in range(len(widths), 0, -1):
        x = keras.layers.UpSampling2D(name=f"upsampling_{level}")(x)
        x = convolve(
            x, widths[level - 1], norm=norm, activation=activation, name=f"decoder_{level}"
        )
    output = keras.layers.Conv2D(
        shape[2],
        3,
        padding="same",
        activation=output_activation,
        dtype="float32",
        name="output",
    )
    decoder = keras.Model(codes, output(x), name="decoder")

    images = keras.Input(shape, name="images")
    cropped = CropLike2D(dtype="float32", name="crop")([decoder(encoder(images)), images])
    return keras.Model(images, cropped, name=name)
