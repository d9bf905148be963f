"""DeconvNet: sizes and parameters of the paper's table; the same step in stock TensorFlow."""

import re

import numpy as np
import pytest
from helpers.mirrored import (
    DECODER,
    ENCODER,
    assert_a_step_is_the_same_in_stock_tensorflow,
)

from tfseg_ops.models import deconvnet

# Noh et al. 2015, table 2: name here, height and width, channels.
TABLE = [
    ("block1_conv2", 224, 64),
    ("block1_pool", 112, 64),
    ("block2_pool", 56, 128),
    ("block3_pool", 28, 256),
    ("block4_pool", 14, 512),
    ("block5_pool", 7, 512),
    ("fc6", 1, 4096),
    ("fc7", 1, 4096),
    ("deconv_fc6", 7, 512),
    ("unpool5", 14, 512),
    ("deconv5_3", 14, 512),
    ("deconv5_1", 14, 512),
    ("unpool4", 28, 512),
    ("deconv4_2", 28, 512),
    ("deconv4_1", 28, 256),
    ("unpool3", 56, 256),
    ("deconv3_2", 56, 256),
    ("deconv3_1", 56, 128),
    ("unpool2", 112, 128),
    ("deconv2_2", 112, 128),
    ("deconv2_1", 112, 64),
    ("unpool1", 224, 64),
    ("deconv1_2", 224, 64),
    ("deconv1_1", 224, 64),
]


def parameters(classes: int, width: float) -> int:
    """By the paper's table: kernels, two trained numbers of each normalisation, the last bias."""
    plan = [round(filters * width) for filters in [*ENCODER, *DECODER, 64]]
    head, last, first = round(4096 * width), round(512 * width), round(64 * width)
    kernels = sum(9 * inputs * outputs for inputs, outputs in zip([3, *plan], plan, strict=False))
    kernels += 49 * last * head + head * head + 49 * head * last + first * classes
    return kernels + 2 * (sum(plan) + 2 * head + last) + classes


@pytest.mark.parametrize("width", [1 / 16, 1 / 32])
def test_has_the_published_parameters(width: float) -> None:
    """The paper's 252 million, kernels and the two trained numbers; too many to build here."""
    model = deconvnet(21, width=width)
    trained = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    assert trained == parameters(21, width)
    assert round(parameters(21, 1) / 1e6) == 252


def test_layers_have_the_sizes_of_the_table() -> None:
    model = deconvnet(21, (224, 224, 3), width=1 / 64)
    for name, size, channels in TABLE:
        output = model.get_layer(name).output
        output = output[0] if isinstance(output, list) else output
        assert output.shape == (None, size, size, channels // 64), name
    assert model.output_shape == (None, 224, 224, 21)


def test_larger_images_have_several_points_in_the_middle() -> None:
    for size, points in [(1, 1), (224, 1), (225, 2), (320, 4)]:
        model = deconvnet(2, (size, 64, 3), width=1 / 64)
        assert model.get_layer("fc7").output.shape == (None, points, 1, 64)
        assert model.get_layer("crop6").output.shape == (None, -(-size // 32), 2, 8)


def test_a_training_step_is_the_same_in_stock_tensorflow() -> None:
    assert_a_step_is_the_same_in_stock_tensorflow(lambda: deconvnet(3, width=1 / 32))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_classes": 1.5}, "'num_classes' must be an int of at least 1, got 1.5"),
        ({"input_shape": 224}, "'input_shape' must be (height, width, channels)"),
        (
            {"input_shape": (8, 8, None)},
            "'input_shape' must be (height, width, channels)",
        ),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=f"^deconvnet: {re.escape(words)}"):
        deconvnet(**{"num_classes": 2, **options})
