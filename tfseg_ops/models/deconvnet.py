"""DeconvNet."""

import keras

from tfseg_ops.layers import CropLike2D, PadToMinimum2D
from tfseg_ops.models import _vgg
from tfseg_ops.models._blocks import convolve

_WINDOW = 7  # of fc6, the size of VGG-16's last features of its images, 224x224


def deconvnet(
    num_classes: int,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    width: float = 1.0,
) -> keras.Model:
    """Segments images by VGG-16 and its mirror image of unpoolings and transposed convolutions.

    The 13 convolutions of VGG-16 and its two fully connected layers as convolutions, 7x7 and 1x1;
    then a 7x7 transposed convolution back, and five times an unpooling to where the maxima stood
    and transposed 3x3 convolutions; 1x1 convolutions return the logits. Batch normalisation and
    ReLU follow all others. 252 million parameters, of which fc6 and its mirror image hold 206.

    The paper's images are 224x224, of which fc6 makes one point. Others are taken too: larger ones
    give several points; of images of up to 192 pixels a side the last features are padded with
    zeros to 7x7 before fc6, and cropped after its mirror image. Positions are int32, which
    allows images of `2^31 / (64 width)` pixels, 5792x5792 at width 1; beyond that the first pooling
    raises. Convolutions have no bias, which batch normalisation would take away again.
    Where fc6 makes one point, train with batches of at least two images: batch normalisation makes
    zero of a single one.

    Args:
        num_classes: of the logits.
        input_shape: `(height, width, channels)` of the images; sizes may be None.
        width: factor of all numbers of filters, for small machines.

    Returns:
        A model from images `[batch, height, width, channels]`, floating, best scaled to a range
        like [0, 1], to logits `[batch, height, width, num_classes]`, float32.

    Raises:
        ValueError: a number of classes, a shape or a width out of range.

    Example:
        >>> model = deconvnet(num_classes=21, width=0.25)  # 16 million parameters
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> model.compile("adam", loss)

    References:
        Noh, Hong & Han 2015, "Learning Deconvolution Network for Semantic Segmentation", figure 2,
        table 2. Their proposals of objects and two stages of training are not part of the model.
    """
    _vgg.check_arguments("deconvnet", num_classes, input_shape, width)
    image = keras.Input(input_shape, name="image")
    pools = _vgg.encode(image, width, norm="batch", masks=True)
    features = pools[-1].output
    head = _vgg.filters_of(_vgg.HEAD_FILTERS, width)
    transposed = keras.layers.Conv2DTranspose
    x = PadToMinimum2D(_WINDOW, name="pad6")(features)
    x = convolve(x, head, _WINDOW, padding="valid", norm="batch", name="fc6")
    x = convolve(x, head, 1, norm="batch", name="fc7")
    x = convolve(
        x,
        features.shape[-1],
        _WINDOW,
        padding="valid",
        norm="batch",
        layer=transposed,
        name="deconv_fc6",
    )
    x = CropLike2D(name="crop6")([x, features])
    x = _vgg.decode(x, pools, width, transposed)
    x = convolve(x, x.shape[-1], norm="batch", layer=transposed, name="deconv1_1")
    logits = keras.layers.Conv2D(num_classes, 1, dtype="float32", name="logits")(x)
    return keras.Model(image, logits, name="deconvnet")
