"""Models that enlarge images."""

from collections.abc import Sequence
from typing import Any

import keras

from tfseg_ops import _checks
from tfseg_ops.layers import CropLike2D, DepthToSpace2D
from tfseg_ops.models import _arguments
from tfseg_ops.models._blocks import convolve

# Variants, and their filters where none are given.
_FILTERS = {"autoencoder": (64, 128, 256), "unet": (64, 128, 256), "residual": 64}


def super_resolution(
    variant: str = "residual",
    scale: int = 4,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    filters: int | Sequence[int] | None = None,
    num_blocks: int = 16,
    name: str = "super_resolution",
) -> keras.Model:
    """A model that enlarges images by a whole number.

    All variants begin with the bilinearly enlarged image (the layer `upscaled`):

    - "autoencoder" convolves and pools it to a code and enlarges that again, without skip
      connections. What the code lost is lost: expect less than bilinear enlarging.
    - "unet" is the same with skip connections: each level is concatenated, as it was before its
      pool, and the result is added to the enlarged image.
    - "residual" works at low resolution: residual blocks without normalisation and one convolution
      to `scale**2` sub-pixels, which `DepthToSpace2D` puts in their places; the result is added to
      the enlarged image. It is the cheapest for its width, and the one to take.

    Where something is added to the enlarged image, the last kernel starts at zero, and training at
    bilinear enlarging.

    Args:
        variant: "autoencoder", "unet" or "residual".
        scale: output size over input size, at least 2.
        input_shape: `(height, width, channels)`; height and width may be None.
        filters: of the convolutions. "residual": an int, by default 64. "autoencoder" and "unet":
            one for each level, finest first, by default `(64, 128, 256)`.
        num_blocks: residual blocks, for "residual" only.
        name: of the model.

    Returns:
        A model from images `[batch, height, width, channels]`, floats in [0, 1], of any size from
        1 x 1, to float32 images `[batch, scale * height, scale * width, channels]`. These are not
        clipped: before they are shown or judged, clip them to [0, 1].

    Raises:
        ValueError: an unknown variant, or a number out of range.

    Example:
        >>> model = super_resolution("residual", scale=4, filters=32, num_blocks=8)
        >>> model.compile("adam", "mae")
        >>> model.fit(small_images, images)

    References:
        Dong et al. 2014, "Learning a deep convolutional network for image super-resolution": a
        network on the enlarged image. Ronneberger et al. 2015, "U-Net", figure 1, and Kim et al.
        2016, "Accurate image super-resolution using very deep convolutional networks", figure 1,
        which adds its result to the enlarged image: "unet". Shi et al. 2016, "Real-time single
        image and video super-resolution using an efficient sub-pixel convolutional neural network",
        figure 1, and Lim et al. 2017, "Enhanced deep residual networks for single image
        super-resolution", figures 2 and 3, without the enlarged image and with one sub-pixel layer
        for each factor of 2: "residual".
    """
    op = "super_resolution"
    _checks.choice(op, "variant", variant, list(_FILTERS))
    _checks.integer(op, "scale", scale, 2)
    _checks.integer(op, "num_blocks", num_blocks, 1)
    widths = _widths(op, variant, _FILTERS[variant] if filters is None else filters)
    image = keras.Input(_arguments.image_shape(op, input_shape), name="image")
    # Images and sums with them stay float32: half precision would round the pixels.
    enlarge = keras.layers.UpSampling2D(
        scale, interpolation="bilinear", dtype="float32", name="upscaled"
    )
    upscaled = enlarge(image)
    if variant == "residual":
        x = _sub_pixels(image, scale, widths[0], num_blocks)
    else:
        skips = variant == "unet"
        x = _hourglass(upscaled, widths, skips)
        x = convolve(
            x,
            image.shape[-1],
            activation=None,
            kernel_initializer="zeros" if skips else "glorot_uniform",
            dtype="float32",
            name="details" if skips else "enlarged",
        )
    if variant == "autoencoder":
        return keras.Model(image, x, name=name)
    outputs = keras.layers.Add(dtype="float32", name="enlarged")([upscaled, x])
    return keras.Model(image, outputs, name=name)


def _widths(op: str, variant: str, filters: Any) -> list[int]:
    """Returns the filters of each level, of one level for "residual"."""
    levels = variant != "residual"
    if levels != isinstance(filters, (list, tuple)) or (levels and not filters):
        rule = f'be {"a list of ints" if levels else "an int"} for "{variant}"'
        _checks.refuse(op, "filters", rule, filters)
    given = filters if levels else [filters]
    return [_checks.integer(op, "filters", width, 1) for width in given]


def _hourglass(x: Any, filters: list[int], skips: bool) -> Any:
    """Two convolutions a level on the way down and on the way up."""
    finer = []
    for level, width in enumerate(filters, start=1):
        for conv in (1, 2):
            x = convolve(x, width, name=f"encode{level}_conv{conv}")
        if level < len(filters):
            finer.append(x)
            x = keras.layers.MaxPooling2D(2, padding="same", name=f"encode{level}_pool")(x)
    for level in range(len(filters) - 1, 0, -1):
        like = finer.pop()
        x = keras.layers.UpSampling2D(2, name=f"decode{level}_upsample")(x)
        x = CropLike2D(name=f"decode{level}_crop")([x, like])
        if skips:
            x = keras.layers.Concatenate(name=f"decode{level}_concat")([like, x])
        for conv in (1, 2):
            x = convolve(x, filters[level - 1], name=f"decode{level}_conv{conv}")
    return x


def _sub_pixels(image: Any, scale: int, filters: int, num_blocks: int) -> Any:
    """What a residual network at low resolution adds to the enlarged image."""
    x = head = convolve(image, filters, activation=None, name="head")
    for block in range(1, num_blocks + 1):
        y = convolve(x, filters, name=f"block{block}_conv1")
        # Each block adds to the variance of its input. Small kernels keep the sum of all below e
        # times the first, which normalisation would do otherwise. An initializer for each: a
        # shared one would draw the same kernel again.
        small = keras.initializers.VarianceScaling(1 / num_blocks)
        y = convolve(
            y, filters, activation=None, kernel_initializer=small, name=f"block{block}_conv2"
        )
        x = keras.layers.Add(name=f"block{block}")([x, y])
    x = convolve(x, filters, activation=None, name="body")
    x = keras.layers.Add(name="features")([x, head])
    x = convolve(
        x,
        scale**2 * image.shape[-1],
        activation=None,
        kernel_initializer="zeros",
        dtype="float32",
        name="subpixels",
    )
    return DepthToSpace2D(scale, dtype="float32", name="details")(x)
