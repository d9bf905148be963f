"""Projections of feature maps: against the gradient, a slow oracle, and planted patterns."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.tolerances import assert_close, assert_same

import tfseg_ops
from tfseg_ops.layers import MaxPoolingWithArgmax2D, MaxUnpooling2D
from tfseg_ops.models import fcn
from tfseg_ops.visualize import deconvnet

layers = keras.layers
SIZE = (15, 18)  # of the images: odd, and no multiple of 4


# The same models with another ReLU or with another pool of the same geometry: `relu` is an
# activation, `pool` a kind of layer.
def overlapping_valid(x: Any, relu: Any, pool: Any) -> Any:
    x = layers.Conv2D(4, 3, activation=relu)(x)
    x = pool(3, 2)(x)
    x = layers.Conv2D(5, 2, activation=relu)(x)
    return pool(2, 1)(x)


def overlapping_same(x: Any, relu: Any, pool: Any) -> Any:
    x = layers.Conv2D(4, (3, 4), padding="same", activation=relu)(x)
    x = pool(3, 2, padding="same")(x)
    x = layers.Conv2D(5, 3, strides=2, padding="same")(x)
    return layers.Activation(relu)(x)


def uneven_windows(x: Any, relu: Any, pool: Any) -> Any:
    x = layers.Conv2D(4, 3, strides=(1, 2), activation=relu)(x)
    x = pool((2, 3), (1, 2), padding="same")(x)
    return layers.Conv2D(3, 2, padding="same")(x)


def dilated_in_groups(x: Any, relu: Any, pool: Any) -> Any:
    x = layers.Conv2D(4, 3, dilation_rate=2, padding="same", activation=relu)(x)
    x = pool(2, padding="same")(x)
    return layers.Conv2D(6, 3, groups=2, activation=relu)(x)


def normalised(x: Any, relu: Any, pool: Any) -> Any:
    x = layers.Rescaling(0.5, offset=-1)(x)
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.5, 2.0, 3.0])(x)
    x = layers.ZeroPadding2D(((1, 2), (0, 3)))(x)
    x = layers.Conv2D(4, 3)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation(relu)(x)
    x = layers.Dropout(0.5)(pool(3, 2)(x))
    x = layers.AveragePooling2D(2, 1)(x)
    return layers.Conv2D(3, 2, activation=relu)(x)


def branching(x: Any, relu: Any, pool: Any) -> Any:
    x = layers.Conv2D(4, 3, padding="same", activation=relu)(x)
    inner = keras.Input(x.shape[1:], dtype=x.dtype)
    block = keras.Model(inner, layers.Conv2D(4, 3, padding="same", activation=relu)(inner))
    stem = pool(3, 2, padding="same")(layers.Add()([x, block(block(x)), x]))
    thin = keras.Sequential([layers.Conv2D(2, 1, activation=relu)])(stem)
    return layers.Conv2D(5, 3, padding="same")(layers.Concatenate()([stem, thin]))


def separable_and_cropped(x: Any, relu: Any, pool: Any) -> Any:
    x = layers.RandomFlip()(layers.Cropping2D(((1, 0), (0, 2)))(x))
    x = layers.DepthwiseConv2D(3, 2, padding="same", depth_multiplier=2, activation=relu)(x)
    x = layers.Identity()(pool(2, 1)(x))
    x = layers.SeparableConv2D(5, 3, dilation_rate=2, padding="same", activation=relu)(x)
    return layers.SeparableConv2D(3, (1, 2), activation=relu)(layers.RandomRotation(0.5)(x))


def preprocessed(x: Any, relu: Any, pool: Any) -> Any:
    x = keras.ops.stack([x[..., channel] for channel in (2, 1, 0)], axis=-1)
    x = (x + np.array([0.5, -0.2, 0.1], "float32")) / np.array([0.5, 0.7, 0.9], "float32")
    x = 2 * (1.5 * x - 0.3) + x[..., ::-1]
    x = layers.Conv2D(4, 3, padding="same", activation=relu)(x)
    x = keras.ops.add(pool(3, 2)(x)[..., 1:], 0.1)
    return layers.Conv2D(3, 2, activation=relu)(x)


Builder = Callable[[Any, Any, Any], Any]
BUILDERS: dict[str, Builder] = {
    build.__name__: build
    for build in (
        overlapping_valid,
        overlapping_same,
        uneven_windows,
        dilated_in_groups,
        normalised,
        branching,
        separable_and_cropped,
        preprocessed,
    )
}
every_model = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


@contextmanager
def policy(name: str) -> Iterator[None]:
    """Sets the dtype policy of the layers that are made inside."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def built(
    build: Builder,
    relu: Any = "relu",
    pool: Any = layers.MaxPooling2D,
    lowest: float = -1.0,
    dtype: str = "float64",
) -> keras.Model:
    """A model with random weights, biases and statistics, the same every time."""
    with policy(dtype):
        image = keras.Input((None, None, 3), dtype="float64" if dtype == "float64" else "float32")
        model = keras.Model(image, build(image, relu, pool))
    random = np.random.default_rng(2)
    for weight in model.weights:
        if "/normalization" not in f"/{weight.path}":  # given by `normalised`
            positive = lowest > 0 or weight.path.endswith(("variance", "bias"))
            weight.assign(random.uniform(0.1 if positive else lowest, 1, weight.shape))
    return model


def random_images(count: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, *SIZE, 3))


def last_layer(model: keras.Model) -> Any:
    return model.output._keras_history.operation


def activation_times_gradient(model: keras.Model, shown: Any, images: np.ndarray) -> np.ndarray:
    """What automatic differentiation makes of the chosen units."""
    chosen = tf.constant(images[shown.indices])
    units = np.concatenate(
        [np.arange(len(chosen))[:, np.newaxis], shown.positions, np.ones((len(chosen), 1), int)], 1
    )
    with tf.GradientTape() as tape:
        tape.watch(chosen)
        values = tf.gather_nd(model(chosen, training=False), units)
    gradient = tape.gradient(values, chosen)
    assert_close(shown.activations, values)
    return shown.activations[:, np.newaxis, np.newaxis, np.newaxis] * gradient.numpy()


def flat(shown: Any) -> np.ndarray:
    """All numbers of a result."""
    return np.concatenate([np.ravel(array) for member in shown for array in member])


@tf.custom_gradient
def relu_let_through(x: tf.Tensor) -> Any:
    return tf.nn.relu(x), lambda upstream: upstream


@tf.custom_gradient
def relu_of_the_signal(x: tf.Tensor) -> Any:
    return tf.nn.relu(x), tf.nn.relu


@pytest.mark.parametrize("rectify", ["relu", "none"])
@every_model
def test_without_relus_it_is_the_activation_times_the_gradient(build: Any, rectify: str) -> None:
    model, images = built(build, "linear"), random_images()
    shown = deconvnet(model, images, last_layer(model), 1, rectify=rectify)
    assert np.abs(shown.projections).max() > 0.1
    assert_close(shown.projections, activation_times_gradient(model, shown, images))


@pytest.mark.parametrize(
    ("rectify", "relu"), [("relu", relu_of_the_signal), ("none", relu_let_through)]
)
@every_model
def test_with_relus_it_is_the_gradient_of_relus_with_another_backward_pass(
    build: Any, rectify: str, relu: Any
) -> None:
    model, images = built(build), random_images()
    shown = deconvnet(model, images, last_layer(model), 1, rectify=rectify)
    twin = built(build, relu)
    assert_close(shown.projections, activation_times_gradient(twin, shown, images))
    # Otherwise the test would hold for any backward pass. (Letting all through may be no other: a
    # switch stands where the forward value was positive, unless its whole window was zero.)
    if rectify == "relu":
        plain = activation_times_gradient(model, shown, images)
        assert np.abs(shown.projections - plain).max() > 1e-2


def test_pools_with_argmax_and_relu_layers_are_the_same_as_plain_ones() -> None:
    def pool(*args: Any, **options: Any) -> Any:
        return lambda x: MaxPoolingWithArgmax2D(*args, argmax_dtype="int32", **options)(x)[0]

    def with_relu_layers(x: Any, relu: Any, pool: Any) -> Any:
        x = layers.ReLU()(layers.Conv2D(4, (3, 4), padding="same")(x))
        x = pool(3, 2, padding="same")(x)
        return layers.ReLU()(layers.Conv2D(5, 3, strides=2, padding="same")(x))

    model, twin = built(overlapping_same), built(with_relu_layers, pool=pool)
    images = random_images()
    shown = deconvnet(model, images, last_layer(model), 2)
    for one, other in zip(shown, deconvnet(twin, images, last_layer(twin), 2), strict=True):
        assert_same(
            np.concatenate(list(map(np.ravel, one))), np.concatenate([*map(np.ravel, other)])
        )


def slow_convolution_backwards(signal: np.ndarray, kernel: np.ndarray, size: Any) -> np.ndarray:
    """Every value of the signal paints its filter: stride 1, padding "same", odd kernels."""
    image = np.zeros((size[0] + 2, size[1] + 2, kernel.shape[2]))
    for y, x, f in np.argwhere(signal):
        image[y : y + 3, x : x + 3] += signal[y, x, f] * kernel[..., f]
    return image[1:-1, 1:-1]


def slow_unpooling(signal: np.ndarray, pooled: np.ndarray) -> np.ndarray:
    """Every value goes to the maximum of its window: 3x3, stride 2, no padding."""
    image = np.zeros(pooled.shape)
    for y, x, c in np.argwhere(signal):
        window = pooled[2 * y : 2 * y + 3, 2 * x : 2 * x + 3, c]
        dy, dx = np.unravel_index(np.argmax(window), window.shape)
        image[2 * y + dy, 2 * x + dx, c] += signal[y, x, c]
    return image


@pytest.mark.parametrize("rectify", ["relu", "none"])
def test_it_is_what_the_paper_says_step_by_step(rectify: str) -> None:
    def paper(x: Any, relu: Any, pool: Any) -> Any:
        x = pool(3, 2)(layers.Conv2D(4, 3, padding="same", activation=relu, name="conv1")(x))
        x = pool(3, 2)(layers.Conv2D(5, 3, padding="same", activation=relu, name="conv2")(x))
        return x

    model, images = built(paper), random_images()
    shown = deconvnet(model, images, last_layer(model), 3, top_k=2, rectify=rectify)
    conv1, conv2 = model.get_layer("conv1"), model.get_layer("conv2")
    for image, position, activation, projection in zip(
        images[shown.indices], shown.positions, shown.activations, shown.projections, strict=True
    ):
        maps1 = conv1(image[np.newaxis])
        maps2 = conv2(tf.nn.max_pool2d(maps1, 3, 2, "VALID"))
        signal = np.zeros(tf.nn.max_pool2d(maps2, 3, 2, "VALID").shape[1:])
        signal[(*position, 3)] = activation
        assert activation > 0
        for conv, maps in [(conv2, maps2.numpy()[0]), (conv1, maps1.numpy()[0])]:
            signal = slow_unpooling(signal, maps)
            signal = np.maximum(signal, 0) if rectify == "relu" else signal
            signal = slow_convolution_backwards(signal, conv.kernel.numpy(), maps.shape)
        assert_close(projection, signal)


def planted(places: list[tuple[int, int]], contrasts: list[float], pattern: np.ndarray) -> Any:
    """Images of weak noise with the pattern, its first row and column at the places."""
    images = np.random.default_rng(3).normal(0, 0.01, (len(places), 31, 29, 1))
    for image, (y, x), contrast in zip(images, places, contrasts, strict=True):
        image[y : y + 5, x : x + 5, 0] += contrast * pattern
    return images.astype(np.float32)


@pytest.mark.parametrize("pool_size", [2, 3])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_planted_filter_is_found_at_its_place(padding: str, pool_size: int) -> None:
    # Not symmetric: a filter painted upside down would show.
    pattern = np.array(
        [[4, 1, 0, 0, 0], [0, 2, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, -2, -1, 0], [-1, 0, 0, -2, -2]]
    )
    places, contrasts = [(3, 20), (17, 4), (11, 11), (25, 23)], [0.7, 1.0, 0.5, 0.8]
    images = planted(places, contrasts, pattern)
    image = keras.Input((31, 29, 1))
    x = layers.Conv2D(3, 5, padding=padding, activation="relu", name="find")(image)
    x = layers.MaxPooling2D(pool_size, 2, padding=padding)(x)
    model = keras.Model(image, layers.Conv2D(2, 1, activation="relu", name="pass")(x))
    kernel = np.random.default_rng(4).normal(0, 0.01, (5, 5, 1, 3))
    kernel[..., 0, 2] = pattern
    model.get_layer("find").set_weights([kernel, np.zeros(3)])
    identity = np.zeros((1, 1, 3, 2))
    identity[0, 0, 2, 1] = 1
    model.get_layer("pass").set_weights([identity, np.zeros(2)])

    shown = deconvnet(model, images, "pass", 1, top_k=3)
    np.testing.assert_array_equal(shown.indices, [1, 3, 0])
    power = (pattern**2).sum()
    np.testing.assert_allclose(shown.activations, [power, 0.8 * power, 0.7 * power], rtol=0.02)
    for k, (y, x) in enumerate([places[index] for index in shown.indices]):
        y1, x1, y2, x2 = shown.boxes[k]
        assert y1 <= y < y + 5 <= y2
        assert x1 <= x < x + 5 <= x2
        assert max(y2 - y1, x2 - x1) <= 5 + pool_size - 1
        offset = 2 if padding == "same" else 0  # the centre, or the first row and column
        first = 2 * shown.positions[k] - (pool_size == 3 and padding == "same")
        assert (first <= np.array([y, x]) + offset).all()
        assert (np.array([y, x]) + offset < first + pool_size).all()

        projection = shown.projections[k, ..., 0]
        assert np.unravel_index(np.argmax(projection), projection.shape) == (y, x)
        drawn = np.zeros((31, 29))
        drawn[y : y + 5, x : x + 5] = shown.activations[k] * pattern
        np.testing.assert_allclose(projection, drawn, 1e-5, 1e-5)
        assert_same(shown.projection_patches[k][..., 0], projection[y1:y2, x1:x2])
        assert_same(shown.image_patches[k], images[shown.indices[k], y1:y2, x1:x2])


@every_model
def test_box_is_just_what_the_unit_sees(build: Any) -> None:
    """Where no weight is negative and no pool chooses, all that is seen has a gradient."""
    model = built(build, "linear", layers.AveragePooling2D, lowest=0.1)
    spots = np.zeros((12, *SIZE, 3))
    corners = [(0, 0), (0, SIZE[1] - 1), (SIZE[0] - 1, 0), (SIZE[0] - 1, SIZE[1] - 1)]
    inner = zip(range(2, 14, 2), range(1, 18, 2), strict=False)
    for image, place in zip(spots, [*corners, *inner], strict=False):
        image[place] = 100
    shown = deconvnet(model, spots, last_layer(model), 0, top_k=12)
    assert len(np.unique(shown.boxes, axis=0)) >= 6
    for projection, box in zip(shown.projections, shown.boxes, strict=True):
        y, x = np.nonzero(np.abs(projection).sum(-1))
        np.testing.assert_array_equal(box, [y.min(), x.min(), y.max() + 1, x.max() + 1])

    # The same geometry, whatever the pool.
    pooled = built(build)
    shown = deconvnet(pooled, spots, last_layer(pooled), 0)
    for projection, (y1, x1, y2, x2) in zip(shown.projections, shown.boxes, strict=True):
        projection[y1:y2, x1:x2] = 0
        assert not projection.any()


def test_batches_files_and_paths_give_the_same(tmp_path: Any, capsys: Any) -> None:
    model, images = built(branching), random_images(7)
    name = model.layers[-1].name
    wanted = deconvnet(model, images, name, 1, top_k=5)
    assert "7/7" not in capsys.readouterr().out
    assert (np.diff(wanted.activations) < 0).all()
    for batch_size in (1, 2, 3):
        shown = deconvnet(model, images, name, 1, top_k=5, batch_size=batch_size, verbose=1)
        assert "7/7" in capsys.readouterr().out
        assert_close(flat(shown), flat(wanted))
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    with tfseg_ops.portable():
        assert_close(flat(deconvnet(model, mapped, name, 1, 5)), flat(wanted))


@pytest.mark.parametrize("rectify", ["relu", "none"])
def test_convolutions_of_fcn_are_shown_in_the_pixels_before_preprocessing(rectify: str) -> None:
    keras.utils.set_random_seed(0)
    model = fcn(3, "32s", width=1 / 32)
    images = 127 + 127 * random_images(3)
    shown = deconvnet(model, images, "block3_conv3_activation", 5, rectify=rectify)
    assert shown.activations.min() > 0
    assert np.abs(shown.projections).max() > 1e-3
    # The same convolutions on images that are blue, green, red, less their means.
    image = x = keras.Input((None, None, 3))
    for layer in model.layers[model.layers.index(model.get_layer("border")) :]:
        x = layer(x)
        if layer.name == "block3_conv3_activation":
            break
    prepared = keras.applications.vgg16.preprocess_input(images.copy())
    alone = deconvnet(keras.Model(image, x), prepared, layer, 5, rectify=rectify)
    np.testing.assert_array_equal(shown.boxes, alone.boxes)
    np.testing.assert_allclose(shown.activations, alone.activations, 1e-5)
    scale = np.abs(alone.projections).max()
    np.testing.assert_allclose(shown.projections, alone.projections[..., ::-1], 0, 1e-5 * scale)


@pytest.mark.parametrize(
    "relu", [tf.nn.relu, tf.nn.relu6, keras.ops.relu, keras.ops.relu6], ids=lambda f: f.__name__
)
def test_relus_of_tensorflow_and_keras_ops_are_those_of_keras(relu: Any) -> None:
    model, twin = built(overlapping_same, relu), built(overlapping_same, relu.__name__)
    images = random_images()
    shown = deconvnet(model, images, last_layer(model), 1)
    assert_same(flat(shown), flat(deconvnet(twin, images, last_layer(twin), 1)))


def test_layers_inside_nested_models_are_found_by_name() -> None:
    image = keras.Input((9, 9, 1))
    first = layers.Conv2D(3, 3, activation="relu", kernel_initializer="ones", name="first")
    encoder = keras.Sequential([first, layers.MaxPooling2D(2)], name="encoder")
    x = encoder(layers.Rescaling(2.0)(image))
    x = layers.Dense(4, activation="softmax", name="head")(layers.Flatten()(x))
    model = keras.Model(image, x)
    images = np.random.default_rng(0).uniform(size=(3, 9, 9, 1)).astype(np.float32)
    shown = deconvnet(model, images, "first", 2, top_k=1)
    plain = keras.Sequential([keras.Input((9, 9, 1)), *encoder.layers])
    assert shown.projections.max() > 0
    np.testing.assert_allclose(
        shown.projections, 2 * deconvnet(plain, 2 * images, "first", 2, top_k=1).projections, 1e-5
    )


def test_encoder_of_a_model_that_unpools_is_the_same_as_alone() -> None:
    image = keras.Input((9, 9, 1))
    x = layers.Conv2D(3, 3, activation="relu", kernel_initializer="ones", name="conv")(image)
    pooled, mask = MaxPoolingWithArgmax2D(name="pool")(x)
    encoder = keras.Model(image, [pooled, mask, x])
    pooled, mask, like = encoder(whole := keras.Input((9, 9, 1)))
    both = keras.Model(whole, [MaxUnpooling2D(name="unpool")([pooled, mask, like]), pooled])
    images = np.random.default_rng(0).uniform(size=(3, 9, 9, 1)).astype(np.float32)
    for name in ("conv", "pool"):
        shown = deconvnet(both, images, name, 1)
        assert shown.projections.max() > 0
        assert_same(flat(shown), flat(deconvnet(encoder, images, name, 1)))
    with pytest.raises(ValueError, match=r"'model' must .* got MaxUnpooling2D 'unpool'"):
        deconvnet(both, images, "unpool", 1)


def test_deep_models_are_followed() -> None:
    image = x = keras.Input((5, 5, 1))
    for _ in range(500):
        x = layers.Activation("relu")(x)
    model = keras.Model(image, layers.Conv2D(1, 3, kernel_initializer="ones", name="conv")(x))
    shown = deconvnet(model, np.ones((1, 5, 5, 1)), "conv", 0)
    np.testing.assert_allclose(shown.projections[0, :3, :3], 9)


def branches_of_several_dtypes(x: Any, relu: Any, pool: Any) -> Any:
    """Where they meet, a pool and an activation pass on what they get, a convolution does not."""
    x = layers.Concatenate()(
        [layers.Conv2D(4, 3, padding="same")(x), pool(3, 1, padding="same")(x)]
    )
    x = layers.Add()([x, layers.Activation(relu)(x), layers.Conv2D(7, 1, dtype="float32")(x)])
    return layers.Conv2D(3, 3, activation=relu)(x)


@pytest.mark.parametrize("build", [normalised, branching, branches_of_several_dtypes])
def test_half_precision_is_near_full_precision(build: Builder) -> None:
    images = random_images()
    wanted = deconvnet(model := built(build), images, last_layer(model), 1, top_k=4)
    half = built(build, dtype="mixed_bfloat16")
    assert half.layers[-1].compute_dtype == "bfloat16"
    shown = deconvnet(half, images, last_layer(half), 1, top_k=4)
    assert shown.projections.dtype == shown.activations.dtype == np.float32
    np.testing.assert_allclose(np.sort(shown.activations), np.sort(wanted.activations), 0.03)
    np.testing.assert_array_equal(shown.indices[0], wanted.indices[0])
    correlation = np.corrcoef(shown.projections[0].ravel(), wanted.projections[0].ravel())[0, 1]
    assert correlation > 0.98
