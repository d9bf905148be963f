"""FCN: sizes and places of the paper's crops, nested nets, bilinear upsampling, VGG's weights."""

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfseg_ops.layers import DenseCRF
from tfseg_ops.models import fcn
from tfseg_ops.models._bilinear import Bilinear

VARIANTS = ("32s", "16s", "8s")
WIDTH = 1 / 64
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_padding = pytest.mark.parametrize("padding", ["paper", "same"])


def slim(variant: str, classes: int = 2, **options: Any) -> Any:
    """A net of one filter in its first convolutions."""
    return fcn(classes, variant, **{"width": WIDTH, **options})


def published_convolutions(variant: str, classes: int, width: float = 1) -> list[tuple[int, ...]]:
    """Kernel size, inputs, outputs and whether there is a bias, as in the authors' prototxt."""
    plan = [64, 64, 128, 128, *[256] * 3, *[512] * 6]
    filters = [round(number * width) for number in plan]
    layers = [(3, *pair, 1) for pair in zip([3, *filters], filters, strict=False)]
    head = round(4096 * width)
    layers += [(7, filters[-1], head, 1), (1, head, head, 1), (1, head, classes, 1)]
    skips = {"32s": [], "16s": [512], "8s": [512, 256]}[variant]
    layers += [(1, round(skip * width), classes, 1) for skip in skips]
    strides = {"32s": [32], "16s": [2, 16], "8s": [2, 2, 8]}[variant]
    return layers + [(2 * stride, classes, classes, 0) for stride in strides]


def count(layers: list[tuple[int, ...]]) -> int:
    return sum(
        size**2 * inputs * outputs + bias * outputs for size, inputs, outputs, bias in layers
    )


@every_padding
@every_variant
def test_has_the_published_parameters(variant: str, padding: str) -> None:
    model = slim(variant, 21, padding=padding, width=1 / 16)
    assert model.count_params() == count(published_convolutions(variant, 21, 1 / 16))
    if variant == "32s":  # table 1: 134 million; the upsampling is not among them
        assert count(published_convolutions(variant, 21)[:-1]) // 10**6 == 134


@every_padding
@every_variant
def test_every_size_has_logits_of_its_own(variant: str, padding: str) -> None:
    """The crops' offsets are constants, but what they crop rounds up."""
    model = slim(variant, padding=padding)
    run = tf.function(model, input_signature=[tf.TensorSpec([None, None, None, 3])])
    for height in range(1, 71):
        size = (height, 71 - height)
        assert run(tf.zeros([1, *size, 3])).shape == (1, *size, 2)


def test_preprocessing_is_that_of_vgg() -> None:
    image = np.random.default_rng(0).uniform(0, 255, [2, 5, 4, 3]).astype(np.float32)
    model = slim("32s", padding="same")
    seen = keras.Model(model.input, model.get_layer("block1_conv1").input)(image)
    wanted = image[..., ::-1] - np.float32([103.939, 116.779, 123.68])
    np.testing.assert_allclose(seen, wanted, rtol=0, atol=2e-5)


def pass_on(model: Any, source: str) -> None:
    """Lets the first channel through all convolutions, and of the scores only those of a source."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2DTranspose) or not layer.weights:
            continue
        kernel = np.zeros(layer.kernel.shape)
        if not layer.name.startswith("score_") or layer.name == f"score_{source}":
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2, 0, 0] = 1
        layer.kernel.assign(kernel)


@every_padding
@pytest.mark.parametrize(
    ("variant", "source", "stride"),
    [
        ("32s", "fc7", 32),
        ("16s", "fc7", 32),
        ("16s", "pool4", 16),
        ("8s", "fc7", 32),
        ("8s", "pool4", 16),
        ("8s", "pool3", 8),
    ],
)
def test_logits_lie_where_their_features_were(
    variant: str, source: str, stride: int, padding: str
) -> None:
    """A slope stays in its place: bilinear upsampling gives back slopes.

    Each pooling takes the last row and column of its window, the highest there. Half a window back
    is the middle of what it stands for.
    """
    model = slim(variant, 1, padding=padding)
    pass_on(model, source)
    rows, columns = np.mgrid[:173, :161].astype(np.float32)
    slope = 200 + rows + 2 * columns
    blue_mean, half = 103.939, (stride - 1) / 2
    logits = model(np.repeat(slope[None, ..., None], 3, -1))[0, ..., 0]
    inner = (slice(64, 96), slice(64, 96))
    wanted = slope - blue_mean + half + 2 * half
    np.testing.assert_allclose(logits[inner], wanted[inner], rtol=0, atol=1e-2)


def upsampled(scores: np.ndarray, stride: int, offset: int, size: tuple[int, int]) -> np.ndarray:
    """Each score at the middle of its square, falling linearly to zero within a stride; cropped."""
    for axis, length in zip((1, 2), size, strict=True):
        middles = stride * np.arange(scores.shape[axis]) + stride - 0.5
        distances = np.abs(offset + np.arange(length)[:, None] - middles)
        scores = np.moveaxis(
            np.tensordot(np.maximum(0, 1 - distances / stride), scores, (1, axis)), 0, axis
        )
    return scores


@every_padding
@pytest.mark.parametrize(("variant", "last_offset"), [("32s", 19), ("16s", 27), ("8s", 31)])
def test_nets_are_nested(variant: str, last_offset: int, padding: str) -> None:
    """With zero skips a finer net upsamples the scores of the coarsest: by 2, 2 and 8."""
    size = (75, 50)
    image = np.random.default_rng(0).uniform(0, 255, [1, *size, 3]).astype(np.float32)
    keras.utils.set_random_seed(0)
    coarse = slim("32s", padding=padding, width=1 / 32)
    coarse.get_layer("score_fc7").kernel.assign(keras.random.normal([1, 1, 128, 2]))
    trained = {layer.name: layer for layer in coarse.layers}
    net = slim(variant, padding=padding, width=1 / 32)
    for layer in net.layers:
        if layer.name in trained:
            layer.set_weights(trained[layer.name].get_weights())
    wanted = keras.Model(coarse.input, trained["score_fc7"].output)(image).numpy()
    assert np.ptp(wanted) > 1e-2

    stride = int(variant[:-1])
    for pool in (16, 8):
        if pool < stride:
            continue
        if padding == "paper":
            wanted = upsampled(wanted, 2, 0, tuple(2 * n + 2 for n in wanted.shape[1:3]))
        else:
            wanted = upsampled(wanted, 2, 1, tuple(-(-n // pool) for n in size))
    offset = last_offset if padding == "paper" else stride // 2
    wanted = upsampled(wanted, stride, offset, size)
    np.testing.assert_allclose(net(image), wanted, 1e-4, 1e-5)


@pytest.mark.parametrize("stride", [2, 8, 16, 32])
def test_upsampling_begins_as_bilinear_interpolation_away_from_borders(stride: int) -> None:
    x = np.random.default_rng(0).normal(size=[2, 4, 5, 3]).astype(np.float32)
    layer = keras.layers.Conv2DTranspose(
        3, 2 * stride, stride, use_bias=False, kernel_initializer=Bilinear()
    )
    half = stride // 2
    outputs = layer(x)[:, half:-half, half:-half]
    wanted = tf.image.resize(x, [4 * stride, 5 * stride])
    inner = slice(half, -half)
    np.testing.assert_allclose(outputs[:, inner, inner], wanted[:, inner, inner], 1e-4, 1e-5)
    # There the paper's fades out, and resizing repeats the last pixels.
    assert np.abs(outputs - wanted)[:, 0].max() > 0.1


def test_bilinear_kernel_keeps_channels_apart() -> None:
    kernel = np.asarray(
        keras.initializers.deserialize(keras.initializers.serialize(Bilinear()))((4, 4, 3, 3))
    )
    np.testing.assert_array_equal(kernel[0, :, 1, 1], 0.25 * np.array([0.25, 0.75, 0.75, 0.25]))
    np.testing.assert_array_equal(kernel[:, :, ~np.eye(3, dtype=bool)], 0)
    odd = np.asarray(Bilinear()((3, 3, 1, 1)))[:, 1, 0, 0]
    np.testing.assert_array_equal(odd, [0.5, 1, 0.5])


def test_crf_is_trained_with_the_net() -> None:
    keras.utils.set_random_seed(0)
    model = slim("8s", 3, padding="same", crf=True, width=1 / 32)
    image = np.random.default_rng(0).integers(0, 256, [2, 20, 24, 3], np.uint8)
    labels = (image.mean(-1) > 128).astype(np.int32)
    before = [weight.numpy() for weight in model.get_layer("crf").trainable_weights]
    assert len(before) == 2
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(image, labels, epochs=2, verbose=0)
    after = [weight.numpy() for weight in model.get_layer("crf").trainable_weights]
    assert np.isfinite(after).all()
    assert all((one != other).all() for one, other in zip(before, after, strict=True))


def test_crf_sees_the_image_as_it_came_in() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = slim("32s", padding="same", crf=DenseCRF(1, 1))
    crf = DenseCRF(1, 1, dtype="float32")
    image = np.random.default_rng(0).uniform(0, 255, [1, 9, 8, 3]).astype(np.float32)
    logits = keras.Model(model.input, model.get_layer("logits").output)
    model.get_layer("upscore_32s").kernel.assign(keras.random.normal([64, 64, 2, 2]))
    model.get_layer("score_fc7").bias.assign([1, 0])
    np.testing.assert_allclose(model(image), crf([logits(image), image]), 1e-5, 1e-5)
    assert np.abs(model(image) - logits(image)).max() > 0.1


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A file of weights for Keras's VGG-16, what it makes of an image, and the image."""
    keras.utils.set_random_seed(0)
    vgg = keras.applications.VGG16(weights=None)
    for layer in vgg.layers:
        if layer.weights:
            layer.bias.assign(keras.random.normal(layer.bias.shape))
    path = tmp_path_factory.mktemp("vgg") / "vgg16.weights.h5"
    vgg.save_weights(path)
    image = np.random.default_rng(0).uniform(0, 255, [1, 224, 224, 3]).astype(np.float32)
    names = ("block3_pool", "block5_pool", "fc1", "fc2")
    features = keras.Model(vgg.input, [vgg.get_layer(name).output for name in names])
    outputs = features(keras.applications.vgg16.preprocess_input(image.copy()))
    del vgg, features  # half a gigabyte
    yield path, image, outputs
    path.unlink()


def test_weights_of_vgg_make_its_features(vgg_file: tuple[Path, np.ndarray, list[Any]]) -> None:
    """In the middle of 7x7 features the window of fc6 is that of VGG's fully connected layer."""
    path, image, wanted = vgg_file
    model = fcn(21, "8s", weights=path, padding="same")
    assert model.count_params() == count(published_convolutions("8s", 21))
    names = ("block3_pool", "block5_pool", "fc6_activation", "fc7_activation")
    features = keras.Model(model.input, [model.get_layer(name).output for name in names])(image)
    for own, theirs in zip(features[:2], wanted[:2], strict=True):
        np.testing.assert_allclose(own, theirs, 1e-3, 1e-3 * np.abs(theirs).max())
    for own, theirs in zip(features[2:], wanted[2:], strict=True):
        np.testing.assert_allclose(own[:, 3, 3], theirs, 1e-3, 1e-3 * np.abs(theirs).max())
    np.testing.assert_array_equal(model.get_layer("score_fc7").kernel, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_classes": 0}, "'num_classes' must be an int of at least 1, got 0"),
        ({"variant": "4s"}, """'variant' must be "32s", "16s" or "8s", got 4s"""),
        (
            {"input_shape": (None, None)},
            "'input_shape' must be (height, width, channels)",
        ),
        (
            {"input_shape": (0, 8, 3)},
            "'input_shape' must be (height, width, channels)",
        ),
        ({"input_shape": (8, 8, 1)}, "'input_shape' must end with the 3 channels of RGB, got"),
        ({"width": 0}, "'width' must be positive and finite, got 0"),
        ({"weights": "no_such.h5"}, "'weights' must be None, \"imagenet\" or a file of weights of"),
        ({"width": 0.5, "weights": "imagenet"}, "'weights' must be None where 'width' is not 1"),
        ({"dropout": 1}, "'dropout' must be less than 1, got 1"),
        ({"padding": "valid"}, """'padding' must be "paper" or "same", got valid"""),
        ({"crf": "yes"}, "'crf' must be True, False or a DenseCRF, got yes"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^fcn: {re.escape(words)}"):
        fcn(**{"num_classes": 2, **options})
