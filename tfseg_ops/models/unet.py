"""The U-Net of Ronneberger et al. 2015 and its common variants."""

from collections.abc import Sequence
from typing import Any

import keras

from tfseg_ops import _checks
from tfseg_ops.layers import (
    CropLike2D,
    DenseCRF,
    MaxPoolingWithArgmax2D,
    MaxUnpooling2D,
    PadToMinimum2D,
)
from tfseg_ops.models import _arguments
from tfseg_ops.models._blocks import NORMS, convolve, refine

_NAME = "unet"
# Rows that a valid decoder loses at each side of a map that it has enlarged.
_LOST = {"transposed": 0, "nearest": 1, "bilinear": 2}


def unet(
    num_classes: int,
    input_shape: Sequence[int | None] = (None, None, 1),
    filters: Sequence[int] = (64, 128, 256, 512, 1024),
    *,
    padding: str = "same",
    upsampling: str = "transposed",
    norm: str | None = None,
    residual: bool = False,
    dilations: Sequence[int] | None = None,
    unpool: bool = False,
    dropout: float = 0.5,
    crf: bool | DenseCRF = False,
) -> keras.Model:
    """The U-Net: a contracting path, an expanding one, and skip connections between them.

    On each level two 3x3 convolutions with ReLU; down by 2x2 max-pooling, up by a 2x2 transposed
    convolution to the level's number of filters, joined to what the contracting path had before its
    pooling; at the end 1x1 scores. Dropout at the end of the contracting path stands after the last
    two levels, as in the network that the authors released. Kernels are drawn as He et al. 2015 do
    where a ReLU follows.

    With padding "same" any size works, 1x1 too: pooling rounds up, and what is enlarged is cropped
    to the size of its skip. The paper has padding "valid": each convolution loses its border and
    skips are cropped, so that an image of 572x572 gives scores of 388x388, those of its pixels
    [92, 480). Then pooling rounds down, skips are cropped by the same number of rows at the top
    whatever the size, and each score comes from true pixels only: it does not change when the image
    is part of a larger one that begins a multiple of 16 pixels further up or left. Hence
    `predict_tiled` equals the prediction of the whole image. Group normalisation and a CRF, which
    see the whole image, are the exceptions.

    Layers are named `down1_conv1` (level 1 is the finest), `bottleneck_conv1`, `up1_transposed`,
    `up1_conv1`, `logits`, `crf` and so on.

    Args:
        num_classes: number of scores of a pixel.
        input_shape: `(height, width, channels)`, sizes may be None. The paper's microscopy images
            have one channel.
        filters: of each level, the finest first, the bottleneck last: at least two numbers.
        padding: "same" or "valid".
        upsampling: "transposed", or "nearest" or "bilinear" with a 3x3 convolution after it. With
            padding "valid" the latter two lose 1 and 2 rows more at each side of what they enlarge.
        norm: None, "batch" or "group" normalisation after each convolution but those that enlarge
            and the scores.
        residual: each level adds its input, through a 1x1 convolution where the number of channels
            changes, before the last ReLU (He et al. 2016).
        dilations: of the bottleneck's 3x3 convolutions, for example (1, 2, 4); None: (1, 1).
        unpool: down by `MaxPoolingWithArgmax2D`, and up by a 1x1 convolution and `MaxUnpooling2D`,
            which puts each value where the maximum was. For padding "same"; `upsampling` is not
            used then.
        dropout: the rate, in [0, 1).
        crf: True: the logits are refined by a `DenseCRF()` that is trained with the network and
            sees the model's input, in [0, 255] and uncast under a half-precision policy. For images
            in [0, 1] and other settings give a layer: its settings are taken, as in
            `crf=DenseCRF(bilateral_color_sdev=13 / 255)`.

    Returns:
        A model from images `[batch, height, width, channels]` to float32 logits `[batch, height,
        width, num_classes]`, of a smaller height and width with padding "valid".

    Raises:
        ValueError: a bad argument, or with padding "valid" a known size that leaves no scores (for
            five levels 188 is the least), also when the model is called, or traced, on images of
            such a size.
        tf.errors.InvalidArgumentError: at run time, such images in a graph of unknown sizes.

    Example:
        >>> model = unet(21, (None, None, 3), filters=(32, 64, 128, 256), norm="batch")
        >>> model.compile("adam", SoftDiceCrossEntropy())

    References:
        Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation,
        MICCAI 2015, figure 1 and sections 2 and 3.
    """
    classes = _arguments.classes(_NAME, num_classes, crf)
    widths = _arguments.widths(_NAME, "filters", filters, 2)
    rates = _arguments.widths(_NAME, "dilations", (1, 1) if dilations is None else dilations)
    _checks.choice(_NAME, "padding", padding, ("same", "valid"))
    _checks.choice(_NAME, "upsampling", upsampling, tuple(_LOST))
    _checks.choice(_NAME, "norm", norm, NORMS)
    if _checks.boolean(_NAME, "unpool", unpool) and padding == "valid":
        _checks.refuse(_NAME, "padding", 'be "same" where maps are unpooled', '"valid"')
    if (rate := _checks.not_negative(_NAME, "dropout", dropout)) >= 1:
        _checks.refuse(_NAME, "dropout", "be less than 1", dropout)
    shape = _arguments.image_shape(_NAME, input_shape)
    options: dict[str, Any] = {
        "padding": padding,
        "norm": norm,
        "residual": _checks.boolean(_NAME, "residual", residual),
    }

    image = keras.Input(shape, name="image")
    x, skips = image, []
    if padding == "valid":
        x = _require_scores(image, len(widths), sum(rates), _LOST[upsampling])
    for level, width in enumerate(widths[:-1], 1):
        x = _convolve_level(x, width, name=f"down{level}", **options)
        if level == len(widths) - 1 and rate:
            x = keras.layers.Dropout(rate, name=f"down{level}_dropout")(x)
        skip, (x, mask) = x, _pool(x, padding, unpool, f"down{level}_pool")
        skips.append((level, width, skip, mask))
    x = _convolve_level(x, widths[-1], rates, name="bottleneck", **options)
    if rate:
        x = keras.layers.Dropout(rate, name="bottleneck_dropout")(x)

    # The first row of `x` is this row of what came into its level.
    first = sum(rates)
    for level, width, skip, mask in reversed(skips):
        name = f"up{level}"
        if unpool:
            x = convolve(x, width, 1, activation=None, name=f"{name}_match")
            x = MaxUnpooling2D(name=f"{name}_unpool")([x, mask, skip])
        else:
            x = _enlarge(x, width, upsampling, padding, name)
            first = 2 * first + _LOST[upsampling]
            x, skip = _fit(x, skip, padding, first, name)
        x = keras.layers.Concatenate(name=f"{name}_concat")([skip, x])
        x = _convolve_level(x, width, name=name, **options)
        first += 4
    logits = keras.layers.Conv2D(classes, 1, dtype="float32", name="logits")(x)
    if crf is not False:
        window = image  # that the logits stand for
        if padding == "valid":
            window = CropLike2D(first, dtype="float32", name="crop_image")([image, logits])
        logits = refine(logits, window, crf)
    return keras.Model(image, logits, name=_NAME)


def _convolve_level(
    x: Any,
    width: int,
    dilations: Sequence[int] = (1, 1),
    *,
    padding: str,
    norm: str | None,
    residual: bool,
    name: str,
) -> Any:
    """A level's 3x3 convolutions, around which its input goes if residual."""
    shortcut = x
    for index, dilation in enumerate(dilations, 1):
        x = convolve(
            x,
            width,
            norm=norm,
            activation=None if residual and index == len(dilations) else "relu",
            padding=padding,
            dilation_rate=dilation,
            name=f"{name}_conv{index}",
        )
    if not residual:
        return x
    if padding == "valid":
        shortcut = keras.layers.Cropping2D(sum(dilations), name=f"{name}_crop_input")(shortcut)
    if shortcut.shape[-1] != width:
        shortcut = convolve(shortcut, width, 1, norm=norm, activation=None, name=f"{name}_shortcut")
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return keras.layers.Activation("relu", name=f"{name}_activation")(x)


def _pool(x: Any, padding: str, unpool: bool, name: str) -> Any:
    """The maxima, and where they were if that is needed."""
    if unpool:
        return MaxPoolingWithArgmax2D(padding=padding, name=name)(x)
    return keras.layers.MaxPooling2D(padding=padding, name=name)(x), None


def _enlarge(x: Any, width: int, upsampling: str, padding: str, name: str) -> Any:
    """Twice the size and `width` channels; no activation follows, as in the paper's figure."""
    if upsampling == "transposed":
        return keras.layers.Conv2DTranspose(width, 2, strides=2, name=f"{name}_transposed")(x)
    x = keras.layers.UpSampling2D(interpolation=upsampling, name=f"{name}_upsampling")(x)
    if padding == "valid" and upsampling == "bilinear":
        # Its outermost rows would be others if the map went on.
        x = keras.layers.Cropping2D(1, name=f"{name}_crop_upsampled")(x)
    return convolve(x, width, activation=None, padding=padding, name=f"{name}_match")


def _fit(x: Any, skip: Any, padding: str, first: int, name: str) -> tuple[Any, Any]:
    """Crops the larger of the two to the other's size."""
    crop = CropLike2D(first if padding == "valid" else 0, name=f"{name}_crop")
    if padding == "valid":
        return x, crop([skip, x])
    return crop([x, skip]), skip


def _require_scores(image: Any, levels: int, reach: int, lost: int) -> Any:
    """The image, which is refused if the valid convolutions leave nothing of it.

    TensorFlow's convolutions do not do so: an empty result becomes memory that nobody wrote to.
    """

    def remaining(size: int, level: int) -> int:
        if level == levels:
            return max(0, size - 2 * reach)
        below = remaining((size - 4) // 2, level + 1)
        return max(0, 2 * below - 2 * lost - 4) if below else 0

    least = 1
    while not remaining(least, 1):
        least += 1
    shape = image.shape[1:]
    if any(size is not None and size < least for size in shape[:2]):
        rule = f'have sizes of at least {least} with padding "valid"'
        _checks.refuse(_NAME, "input_shape", rule, shape)
    # A window of the size that a smaller image would be padded to is not in it, which fails in
    # graphs of unknown sizes and under XLA as well.
    padded = PadToMinimum2D(least, name="pad_to_least_size")(image)
    return CropLike2D(name="require_least_size")([image, padded])
