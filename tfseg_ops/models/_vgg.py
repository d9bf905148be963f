"""VGG-16's convolutions (Simonyan & Zisserman 2015, configuration D), and their mirror image."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from tfseg_ops import _checks
from tfseg_ops.layers import MaxPoolingWithArgmax2D, MaxUnpooling2D
from tfseg_ops.models import _arguments
from tfseg_ops.models._blocks import convolve

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # filters and convolutions
HEAD_FILTERS = 4096
# That of Keras's VGG-16: grey values up to 255 become features near 1, which He's would not do.
INITIALIZER = "glorot_uniform"


class Pool(NamedTuple):
    """A pooling at the end of a block."""

    input: Any
    output: Any
    argmax: Any  # None where the positions are not kept


def filters_of(filters: int, width: float) -> int:
    """The number of filters of a network `width` times as wide."""
    return max(1, round(filters * width))


def check_arguments(
    model: str, num_classes: int, input_shape: Sequence[int | None], width: float
) -> None:
    """Checks the arguments that these models share."""
    _checks.integer(model, "num_classes", num_classes, 1)
    _checks.positive(model, "width", width)
    _arguments.image_shape(model, input_shape)


def encode(x: Any, width: float, *, norm: str | None, masks: bool) -> list[Pool]:
    """Returns the five poolings, which halve the size and round up; layers are named as Keras does.

    Args:
        x: `[batch, height, width, channels]`.
        width: factor of the numbers of filters.
        norm: what follows each convolution, None or "batch".
        masks: whether the positions of the maxima are kept.
    """
    pools = []
    for block, (filters, convolutions) in enumerate(BLOCKS, 1):
        for index in range(1, convolutions + 1):
            name = f"block{block}_conv{index}"
            options: dict[str, Any] = {"kernel_initializer": INITIALIZER, "name": name}
            x = convolve(x, filters_of(filters, width), norm=norm, **options)
        name = f"block{block}_pool"
        if masks:
            pool = MaxPoolingWithArgmax2D(padding="same", argmax_dtype="int32", name=name)
            output, argmax = pool(x)
        else:
            output, argmax = keras.layers.MaxPooling2D(padding="same", name=name)(x), None
        pools.append(Pool(x, output, argmax))
        x = output
    return pools


def decode(x: Any, pools: Sequence[Pool], width: float, layer: type[keras.layers.Layer]) -> Any:
    """The mirror image of `encode`, but for the last convolution, which is each network's own.

    Blocks begin with the unpooling of their pool. Where filters became more in the encoder, in the
    first convolution of a block, they become fewer in the last.

    Args:
        x: values for the last of the pools, `[batch, height, width, channels]` of its output.
        pools: what `encode` returned, with masks.
        width: factor of the numbers of filters.
        layer: `keras.layers.Conv2D` or `Conv2DTranspose`.
    """
    for block in range(len(BLOCKS), 0, -1):
        filters, convolutions = BLOCKS[block - 1]
        pool = pools[block - 1]
        x = MaxUnpooling2D(name=f"unpool{block}")([x, pool.argmax, pool.input])
        for index in range(convolutions, 0, -1):
            if index == 1:
                if block == 1:
                    break
                filters = BLOCKS[block - 2][0]
            name = f"deconv{block}_{index}"
            x = convolve(x, filters_of(filters, width), norm="batch", layer=layer, name=name)
    return x
