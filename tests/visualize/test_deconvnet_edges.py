"""Edges of `deconvnet`: ties, dead maps, padding, dtypes, and what it refuses."""

from typing import Any

import keras
import numpy as np
import pytest

from tfseg_ops.visualize import deconvnet

layers = keras.layers


def spot_model(kernel: float, bias: float = 0.0, **options: Any) -> keras.Model:
    """One filter of one pixel."""
    model = keras.Sequential([keras.Input((4, 5, 1)), layers.Conv2D(1, 1, name="spot", **options)])
    model.set_weights([np.full((1, 1, 1, 1), kernel), np.full(1, bias)])
    return model


def test_of_equals_the_first_unit_of_the_first_image_is_taken() -> None:
    images = np.zeros((5, 4, 5, 1), np.float32)
    images[[1, 2, 4], 1, 3] = images[[1, 4], 2, 0] = 1
    shown = deconvnet(spot_model(1.0), images, "spot", 0, top_k=9)
    np.testing.assert_array_equal(shown.indices, [1, 2, 4, 0, 3])
    np.testing.assert_array_equal(shown.positions, [[1, 3]] * 3 + [[0, 0]] * 2)
    np.testing.assert_array_equal(shown.boxes[0], [1, 3, 2, 4])
    assert len(shown.projections) == 5


def test_dead_map_gives_zeros_and_a_negative_one_its_largest_value() -> None:
    images = np.random.default_rng(0).uniform(0.5, 1, (3, 4, 5, 1)).astype(np.float32)
    dead = deconvnet(spot_model(-1.0, activation="relu"), images, "spot", 0)
    assert not dead.projections.any()
    assert not dead.activations.any()
    np.testing.assert_array_equal(dead.indices, [0, 1, 2])
    negative = deconvnet(spot_model(-1.0), images, "spot", 0, top_k=1)
    np.testing.assert_allclose(negative.activations, -images.min())
    np.testing.assert_allclose(negative.projections.max(), images.min())


def test_unit_that_sees_only_padding_has_an_empty_box() -> None:
    model = keras.Sequential([keras.Input((4, 5, 1)), layers.ZeroPadding2D(2)])
    model.add(layers.Conv2D(1, 1, name="spot"))
    model.set_weights([np.full((1, 1, 1, 1), -1.0), np.ones(1)])
    shown = deconvnet(model, np.ones((1, 4, 5, 1)), "spot", 0)
    assert shown.image_patches[0].size == 0
    assert not shown.projections.any()


def test_uint8_images_stay_uint8_and_projections_are_floating() -> None:
    image = keras.Input((None, None, 1), dtype="uint8")
    x = layers.Rescaling(1 / 255)(image)
    x = layers.MaxPooling2D()(layers.Conv2D(2, 3, activation="relu", kernel_initializer="ones")(x))
    model = keras.Model(image, x)
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 1), np.uint8)
    shown = deconvnet(model, images, model.layers[-1], 0)
    assert shown.image_patches[0].dtype == np.uint8
    assert shown.projections.dtype == np.float32
    assert np.abs(shown.projections).max() > 0


def test_bad_arguments_are_refused() -> None:
    model, images = spot_model(1.0), np.zeros((2, 4, 5, 1), np.float32)
    for arguments, message in [
        ((model, images, "spot", 1), r"'feature_map' must lie in \[0, 0\], got 1"),
        ((model, images, "other", 0), r"'layer' must be a layer, .* got other, used 0 times"),
        ((model, images, "spot", 0, 0), "'top_k' must be an int of at least 1, got 0"),
        ((model, images[..., 0], "spot", 0), r"'images' .* \[\?, 4, 5, 1\], got \[2, 4, 5\]"),
        ((model, images[:0], "spot", 0), r"'images' must be some images .*, got \[0, 4, 5, 1\]"),
        ((layers.ReLU(), images, "spot", 0), "'model' must be a functional .*, got ReLU"),
        ((keras.Sequential(), images, "spot", 0), "'model' must be a functional .* got Sequential"),
    ]:
        with pytest.raises(ValueError, match=f"deconvnet: {message}"):
            deconvnet(*arguments)
    for option in ({"rectify": "gradient"}, {"batch_size": 0}, {"verbose": 2}):
        with pytest.raises(ValueError, match=f"deconvnet: '{next(iter(option))}' must"):
            deconvnet(model, images, "spot", 0, **option)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_that_are_not_finite_are_refused_by_number(value: float) -> None:
    images = np.zeros((5, 4, 5, 1), np.float32)
    images[3, 0, 0] = value
    too_large = np.zeros((2, 4, 5, 1))
    too_large[1] = 10
    with pytest.raises(ValueError, match=r"'images' must be finite .* at image 3"):
        deconvnet(spot_model(1.0), images, "spot", 0, batch_size=2)
    with pytest.raises(ValueError, match=r"'images' must be finite .* at image 1"):
        deconvnet(
            spot_model(1e38), 10 * np.eye(2, 20).reshape(2, 4, 5, 1) * [[[[0]]], [[[1]]]], "spot", 0
        )


@pytest.mark.parametrize(
    "layer",
    [
        layers.LayerNormalization(name="odd"),
        layers.LeakyReLU(name="odd"),
        layers.ReLU(negative_slope=0.1, name="odd"),
        layers.Activation("tanh", name="odd"),
        layers.Conv2D(2, 3, activation="gelu", name="odd"),
        layers.Conv2DTranspose(2, 3, name="odd"),
        layers.UpSampling2D(name="odd"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layer_that_does_not_run_backwards_is_named(layer: Any) -> None:
    last = layers.Conv2D(2, 1, name="last")
    model = keras.Sequential(
        [keras.Input((8, 8, 2)), layers.Conv2D(2, 1, name="first"), layer, last]
    )
    images = np.ones((1, 8, 8, 2), np.float32)
    kind = type(layer).__name__
    with pytest.raises(ValueError, match=f"deconvnet: 'model' must .* got {kind} 'odd', which"):
        deconvnet(model, images, "last", 0)
    assert deconvnet(model, images, "first", 0).projections.shape == images.shape


def test_augmentation_does_nothing() -> None:
    kinds = ["Brightness", "Contrast", "Hue", "Rotation", "Saturation", "Sharpness", "Zoom"]
    image = x = keras.Input((4, 5, 3))
    for kind in kinds:
        x = getattr(layers, f"Random{kind}")(0.5)(x)
    for kind in ("ColorJitter", "Flip", "Perspective", "Shear"):
        x = getattr(layers, f"Random{kind}")()(x)
    x = layers.RandomTranslation(0.5, 0.5)(x)
    conv = layers.Conv2D(2, 3, name="conv")
    model, plain = keras.Model(image, conv(x)), keras.Sequential([keras.Input((4, 5, 3)), conv])
    images = np.random.default_rng(0).uniform(-1, 300, (2, 4, 5, 3)).astype(np.float32)
    shown, alone = (deconvnet(one, images, model.layers[-1].name, 0) for one in (model, plain))
    np.testing.assert_array_equal(shown.projections, alone.projections)
    np.testing.assert_array_equal(shown.boxes, alone.boxes)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x * x,
        lambda x: 2 / (x + 3),
        lambda x: x[:, 1:],
        lambda x: keras.ops.stack([x[..., 0], x[..., 0]], axis=2),
        lambda x: keras.ops.stack([x[..., 1], x[..., 0][..., ::-1]], axis=-1),
        lambda x: x + np.ones((1, 8, 2, 1), "float32"),
        keras.ops.tanh,
    ],
    ids=["square", "inverse", "cut", "stack", "flip", "map", "tanh"],
)
def test_operation_that_is_not_affine_in_each_pixel_is_named(operation: Any) -> None:
    image = keras.Input((None, 2, 2))
    x = layers.Conv2D(2, 1, name="first")(image)
    x = layers.Conv2D(1, 1, name="last")(operation(x))
    model = keras.Model(image, x)
    images = np.ones((1, 8, 2, 2), np.float32)
    with pytest.raises(ValueError, match=r"'model' must .* got \w+ '\w+', which is no arithmetic"):
        deconvnet(model, images, "last", 0)
    assert deconvnet(model, images, "first", 0).projections.shape == images.shape


def test_layer_used_twice_and_layer_without_maps_are_refused() -> None:
    image = keras.Input((8, 8, 2))
    twice = layers.Conv2D(2, 1, name="twice")
    model = keras.Model(image, layers.Flatten(name="flat")(twice(twice(image))))
    images = np.ones((1, 8, 8, 2), np.float32)
    with pytest.raises(ValueError, match=r"'layer' must .* got twice, used 2 times"):
        deconvnet(model, images, "twice", 0)
    with pytest.raises(ValueError, match=r"deconvnet: 'model' must .* got Flatten 'flat'"):
        deconvnet(model, images, "flat", 0)
    two = keras.Model(
        [image, other := keras.Input((8, 8, 2))], layers.Add(name="sum")([image, other])
    )
    with pytest.raises(ValueError, match=r"'model' must be .* one input"):
        deconvnet(two, images, "sum", 0)
