"""SegNet."""

import keras

from tfseg_ops.models import _vgg


def segnet(
    num_classes: int,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    width: float = 1.0,
) -> keras.Model:
    """Segments images by VGG-16's convolutions and their mirror image (SegNet).

    The 13 convolutions of VGG-16, each with batch normalisation and ReLU, and five max-poolings
    that keep where each maximum stood. The decoder puts values back to these places, zeros
    elsewhere, and mirrors the convolutions; the last of them returns the logits. There are no
    fully connected layers, so 29.5 million parameters.

    Poolings round up and unpoolings restore the size of what was pooled, so all sizes are taken.
    Positions are int32, which allows images of `2^31 / (64 width)` pixels, 5792x5792 at width 1;
    beyond that the first pooling raises. Convolutions have no bias, which batch normalisation would
    take away again.

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
        >>> model = segnet(num_classes=12)
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> model.compile("adam", loss)

    References:
        Badrinarayanan, Kendall & Cipolla 2017, "SegNet: A Deep Convolutional Encoder-Decoder
        Architecture for Image Segmentation", figure 2, section 3. The encoder opens to 64 filters,
        the decoder mirrors it: their variant "SegNet", not "SegNet-Basic".
    """
    _vgg.check_arguments("segnet", num_classes, input_shape, width)
    image = keras.Input(input_shape, name="image")
    pools = _vgg.encode(image, width, norm="batch", masks=True)
    x = _vgg.decode(pools[-1].output, pools, width, keras.layers.Conv2D)
    logits = keras.layers.Conv2D(num_classes, 3, padding="same", dtype="float32", name="logits")(x)
    return keras.Model(image, logits, name="segnet")
