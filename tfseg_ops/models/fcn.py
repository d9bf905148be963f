"""Fully convolutional networks."""

import os
from typing import Any

import keras

from tfseg_ops import _checks
from tfseg_ops.layers import CropLike2D, DenseCRF
from tfseg_ops.models import _arguments, _vgg
from tfseg_ops.models._bilinear import Bilinear
from tfseg_ops.models._blocks import convolve, refine

_SKIPS = {"32s": (), "16s": (4,), "8s": (4, 3)}  # the poolings whose scores are added
_BORDER = 99  # with that of the first convolution's "same": the paper's 100
# First row and column of what is cropped, by the pooling that is added and by the stride of the
# last upsampling: the border moves what is pooled, and the windows of fc6, by different amounts.
_PAPER_SKIP_OFFSETS = {4: 5, 3: 9}
_PAPER_OFFSETS = {32: 19, 16: 27, 8: 31}


def fcn(
    num_classes: int,
    variant: str = "8s",
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    weights: str | os.PathLike[str] | None = None,
    width: float = 1.0,
    dropout: float = 0.5,
    padding: str = "paper",
    crf: bool | DenseCRF = False,
) -> keras.Model:
    """Segments images by VGG-16 made fully convolutional (FCN-32s, FCN-16s, FCN-8s).

    VGG-16's fully connected layers become convolutions, 7x7x4096 and 1x1x4096, each with dropout;
    1x1 convolutions score the classes, and transposed convolutions bring the scores back to the
    size of the image. "16s" and "8s" do so by steps: by 2, plus the scores of the fourth pooling,
    "8s" again by 2, plus those of the third, then by 16 or 8. All scores begin as zeros and all
    upsamplings as bilinear interpolation, so a finer net that takes over the weights of a coarser
    one begins near where that ended. All upsamplings are trained; the authors' last one is not.

    VGG's preprocessing is inside: BGR, minus the mean of ImageNet. Names are those of
    `keras.applications.VGG16`, then `fc6`, `fc7`, `score_*`, `upscore_*`.

    Args:
        num_classes: of the logits.
        variant: "32s", "16s" or "8s".
        input_shape: `(height, width, 3)` of the images; sizes may be None.
        weights: None, "imagenet" (downloaded by Keras) or the path of a file of weights for
            `keras.applications.VGG16` with its fully connected layers, which become fc6 and fc7.
        width: factor of all numbers of filters, for small machines.
        dropout: share of the features of fc6 and fc7 that training leaves out, in [0, 1).
        padding: "paper" surrounds the image with 100 pixels of zeros, so that fc6 has whole windows
            at its borders, at the cost of computing 200 rows and columns more; "same" does not, and
            fc6 pads with zeros as other layers do.
        crf: whether a `layers.DenseCRF()` refines the logits, trained with the rest; or such a
            layer, whose settings are taken. It sees the images as they come in, uncast under a
            half-precision policy. Give the model the weights of one trained without: logits near
            zero the CRF makes one class.

    Returns:
        A model from RGB images `[batch, height, width, 3]` in [0, 255] to logits `[batch, height,
        width, num_classes]`, float32.

    Raises:
        ValueError: an argument out of range, or weights for another width than 1.

    Example:
        >>> coarse, fine = fcn(21, "32s", weights="imagenet"), fcn(21, "16s")
        >>> # Train `coarse`. Then go on with its weights:
        >>> trained = {layer.name: layer for layer in coarse.layers}
        >>> for layer in fine.layers:
        ...     if layer.name in trained:
        ...         layer.set_weights(trained[layer.name].get_weights())

    References:
        Long, Shelhamer & Darrell 2015, "Fully Convolutional Networks for Semantic Segmentation",
        figure 3, section 4; Shelhamer, Long & Darrell 2017, the same, TPAMI 39(4). Zheng et al.
        2015, "Conditional Random Fields as Recurrent Neural Networks", has FCN-8s with a CRF.
    """
    _check_arguments(num_classes, variant, input_shape, weights, width, dropout, padding, crf)
    vgg = _load_vgg(weights)
    paper = padding == "paper"
    image = keras.Input(input_shape, name="image")
    x = keras.applications.vgg16.preprocess_input(image)
    if paper:
        x = keras.layers.ZeroPadding2D(_BORDER, name="border")(x)
    pools = _vgg.encode(x, width, norm=None, masks=False)
    x = pools[-1].output
    for name, kernel_size in (("fc6", 7), ("fc7", 1)):
        filters = _vgg.filters_of(_vgg.HEAD_FILTERS, width)
        options: dict[str, Any] = {"kernel_initializer": _vgg.INITIALIZER, "name": name}
        options["padding"] = "valid" if paper else "same"
        x = convolve(x, filters, kernel_size, **options)
        x = keras.layers.Dropout(dropout, name=f"{name}_dropout")(x)
    x = _score(x, num_classes, "fc7")
    stride, source = 32, "fc7"
    for level in _SKIPS[variant]:
        x = _enlarge(x, 2, f"upscore_{source}")
        source = f"pool{level}"
        skip = _score(pools[level - 1].output, num_classes, source)
        if paper:
            skip = CropLike2D(_PAPER_SKIP_OFFSETS[level], name=f"crop_{source}")([skip, x])
        else:  # upsampling by s puts s / 2 rows before the first
            x = CropLike2D(1, name=f"crop_{source}")([x, skip])
        x = keras.layers.Add(name=f"fuse_{source}")([x, skip])
        stride //= 2
    x = _enlarge(x, stride, f"upscore_{variant}", dtype="float32")
    offset = _PAPER_OFFSETS[stride] if paper else stride // 2
    logits = CropLike2D(offset, dtype="float32", name="logits")([x, image])
    if crf is not False:
        logits = refine(logits, image, crf)
    model = keras.Model(image, logits, name=f"fcn_{variant}")
    if vgg is not None:
        _copy_weights(vgg, model)
    return model


def _check_arguments(
    num_classes: int,
    variant: str,
    input_shape: tuple[int | None, int | None, int],
    weights: Any,
    width: float,
    dropout: float,
    padding: str,
    crf: Any,
) -> None:
    _arguments.classes("fcn", num_classes, crf)
    _vgg.check_arguments("fcn", num_classes, input_shape, width)
    _checks.choice("fcn", "variant", variant, tuple(_SKIPS))
    if input_shape[2] != 3:
        _checks.refuse("fcn", "input_shape", "end with the 3 channels of RGB", input_shape)
    if weights is not None and width != 1:
        _checks.refuse("fcn", "weights", "be None where 'width' is not 1", weights)
    if _checks.not_negative("fcn", "dropout", dropout) >= 1:
        _checks.refuse("fcn", "dropout", "be less than 1", dropout)
    _checks.choice("fcn", "padding", padding, ("paper", "same"))


def _score(x: Any, num_classes: int, source: str) -> Any:
    return keras.layers.Conv2D(num_classes, 1, kernel_initializer="zeros", name=f"score_{source}")(
        x
    )


def _enlarge(x: Any, stride: int, name: str, **options: Any) -> Any:
    """Upsamples by a transposed convolution of the smallest kernel that can interpolate."""
    return keras.layers.Conv2DTranspose(
        x.shape[-1],
        2 * stride,
        stride,
        use_bias=False,
        kernel_initializer=Bilinear(),
        name=name,
        **options,
    )(x)


def _load_vgg(weights: Any) -> keras.Model | None:
    if weights is None:
        return None
    rule = 'be None, "imagenet" or a file of weights of keras.applications.VGG16 with its top'
    if weights != "imagenet" and not os.path.isfile(weights):
        _checks.refuse("fcn", "weights", rule, weights)
    try:
        return keras.applications.VGG16(weights=weights)
    except ValueError as error:
        _checks.refuse("fcn", "weights", rule, f"{weights}: {error}")


def _copy_weights(vgg: keras.Model, model: keras.Model) -> None:
    """Copies the layers of a VGG-16, of which fully connected ones become convolutions."""
    names = {"fc1": "fc6", "fc2": "fc7"}
    for layer in vgg.layers:
        if layer.weights and layer.name != "predictions":
            kernel, bias = layer.get_weights()
            own = model.get_layer(names.get(layer.name, layer.name))
            own.set_weights([kernel.reshape(own.kernel.shape), bias])
