"""`predict_tiled`: equal to the whole image's prediction, blending, borders, what is read."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.tolerances import assert_close

from tfseg_ops.models import predict_tiled, unet

FILTERS = (4, 6, 8)
LOST = 20  # rows that valid convolutions take at each side, for three levels
SEEN = 23  # how far a pixel sees at most, whatever the padding
STRIDE = 4


def random_images(*shape: int) -> np.ndarray:
    """Images in [0, 1], `[batch, height, width, channels]`."""
    return np.random.default_rng(0).uniform(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """U-Nets by their padding."""
    keras.utils.set_random_seed(0)
    return {padding: unet(2, filters=FILTERS, padding=padding) for padding in ("same", "valid")}


@pytest.fixture(scope="module")
def copying() -> Any:
    """A model that returns its input."""
    image = keras.Input([None, None, 2])
    return keras.Model(image, keras.layers.Identity()(image))


@pytest.mark.parametrize("overlap", [0, 7])
@pytest.mark.parametrize("tile_size", [60, (76, 100)])
def test_valid_unet_gives_what_it_gives_for_the_whole_image(models, tile_size, overlap) -> None:
    images = random_images(2, 97, 131, 1)
    whole = models["valid"](images).numpy()
    tiled = predict_tiled(
        models["valid"], images, tile_size, overlap=overlap, multiple=STRIDE, batch_size=4
    )
    assert tiled.shape == (2, 97, 131, 2)
    assert tiled.dtype == np.float32
    inside = tiled[:, LOST : LOST + whole.shape[1], LOST : LOST + whole.shape[2]]
    np.testing.assert_allclose(inside, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(97, 131), (23, 64), (5, 1)])
def test_valid_unet_sees_the_image_mirrored_beyond_its_borders(models, size) -> None:
    images = random_images(1, *size, 1)
    more = 24  # a multiple of the stride, so that pooling windows are the same
    mirrored = np.pad(images, [(0, 0), (more, 32), (more, 32), (0, 0)], "reflect")
    whole = models["valid"](mirrored).numpy()[:, more - LOST :, more - LOST :]
    tiled = predict_tiled(models["valid"], images, 60, multiple=STRIDE, batch_size=3)
    np.testing.assert_allclose(tiled, whole[:, : size[0], : size[1]], rtol=1e-5, atol=1e-5)


def test_same_unet_equals_the_whole_image_where_the_margin_covers_what_a_pixel_sees(models) -> None:
    images = random_images(1, 150, 119, 1)
    inside = np.s_[:, SEEN:-SEEN, SEEN:-SEEN]
    whole = models["same"](images).numpy()
    for overlap in (0, 9):
        options = {"tile_size": 96, "overlap": overlap, "multiple": STRIDE}
        tiled = predict_tiled(models["same"], images, margin=SEEN, **options)
        np.testing.assert_allclose(tiled[inside], whole[inside], rtol=1e-5, atol=1e-5)
        tiled = predict_tiled(models["same"], images, margin=16, **options)
        assert np.abs(tiled - whole)[inside].max() > 1e-4


def test_tiles_begin_where_pooling_windows_do(models) -> None:
    """What the test above shows would not hold for tiles that begin elsewhere."""
    images = random_images(1, 96, 150, 1)
    whole = models["same"](images).numpy()[:, SEEN:-SEEN, SEEN:-SEEN]
    options = {"margin": SEEN, "overlap": 0}
    tiled = predict_tiled(models["same"], images, 95, multiple=1, **options)
    assert np.abs(tiled[:, SEEN:-SEEN, SEEN:-SEEN] - whole).max() > 1e-2


def test_strided_layers_need_sizes_that_are_multiples_of_the_stride() -> None:
    """Windows of 3x3 at every second pixel begin at 0 or -1, by the size's parity."""
    keras.utils.set_random_seed(0)
    image = keras.Input([None, None, 1])
    x = keras.layers.Conv2D(2, 3, strides=2, padding="same")(image)
    model = keras.Model(image, keras.layers.Conv2DTranspose(1, 2, strides=2)(x))
    images = random_images(1, 41, 40, 1)
    options = {"tile_size": 16, "margin": 4, "overlap": 0, "multiple": 2}
    inside = np.s_[:, 4:36, 4:36]
    even = predict_tiled(model, images[:, :40], **options)
    np.testing.assert_allclose(even[inside], model(images[:, :40])[inside], rtol=1e-5, atol=1e-6)
    odd = predict_tiled(model, images, **options)
    assert np.abs(odd[inside] - model(images)[inside]).mean() > 0.05


@pytest.mark.parametrize("crop", [0, 1])
def test_models_that_round_up_take_tiles_that_are_not_rounded(crop) -> None:
    image = keras.Input([None, None, 1])
    pooled = keras.layers.MaxPooling2D(4, padding="same")(keras.layers.Cropping2D(crop)(image))
    model = keras.Model(image, keras.layers.UpSampling2D(4)(pooled))
    images = random_images(1, 32 + 2 * crop, 48 + 2 * crop, 1)
    options = {"margin": 0, "overlap": 0, "multiple": 4}
    tiled = predict_tiled(model, images, 16 + 2 * crop, **options)
    assert_close(tiled[:, crop : crop + 32, crop : crop + 48], model(images))
    for more in (-2, -1, 1):
        with pytest.raises(ValueError, match="'tile_size' must be one that the model does not"):
            predict_tiled(model, images, 16 + 2 * crop + more, **options)


@pytest.mark.parametrize(
    ("upsampling", "dilations", "reach"),
    [
        ("transposed", (1, 1), 107),
        ("nearest", (1, 1), 122),
        ("bilinear", (1, 1), 137),
        ("transposed", (1, 2), 123),
    ],
)
def test_a_pixel_of_five_levels_sees_as_far_as_is_said(upsampling, dilations, reach) -> None:
    model = unet(1, filters=(1, 1, 1, 1, 1), dropout=0, upsampling=upsampling, dilations=dilations)
    for variable in model.trainable_variables:  # what is seen is never cancelled
        variable.assign(tf.fill(variable.shape, 0.0 if "bias" in variable.path else 0.5))
    places = np.arange(160, 176)  # in all parts of a window that is pooled
    images = np.zeros([16, 320, 320, 1], np.float32)
    images[np.arange(16), places, places] = 1
    image, row, column, _ = np.nonzero(model.predict(images, verbose=0))
    assert np.abs([row - places[image], column - places[image]]).max() == reach


@pytest.mark.parametrize("size", [(1, 1), (2, 31), (16, 40), (67, 45)])
@pytest.mark.parametrize(
    ("margin", "overlap"), [(None, None), (0, 0), (0, 5), (2, 6), ((1, 4), (3, 0))]
)
def test_weights_of_all_tiles_add_up_to_one(copying, size, margin, overlap) -> None:
    images = random_images(2, *size, 2)
    tiled = predict_tiled(copying, images, 16, margin=margin, overlap=overlap, multiple=1)
    assert_close(tiled, images)


def test_neighbours_fade_into_one_another_over_the_overlap() -> None:
    image = keras.Input([8, 8, 1])
    # Each tile's first value everywhere.
    first = keras.layers.Cropping2D(((0, 7), (0, 7)))(image)
    model = keras.Model(image, keras.layers.UpSampling2D(8)(first))
    columns = np.zeros([1, 8, 16, 1], np.float32) + np.arange(16)[:, np.newaxis]
    # Tiles begin at -4, mirrored: 4; at 0; 4 and so on. Margins leave six pixels, of which two are
    # blended with each neighbour.
    tiled = predict_tiled(model, columns, 8, margin=1, overlap=2, multiple=4)
    expected = [4, 3, 1, 0, 0, 1, 3, 4, 4, 5, 7, 8, 8, 9, 11, 12]
    np.testing.assert_allclose(tiled[0, 3, :, 0], expected, atol=1e-6)
    tiled = predict_tiled(model, columns, 8, margin=1, overlap=0, multiple=4)
    expected = [4, 4, 0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12]
    np.testing.assert_array_equal(tiled[0, 3, :, 0], expected)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_models_that_enlarge_are_tiled_too(interpolation) -> None:
    image = keras.Input([None, None, 3])
    model = keras.Model(image, keras.layers.UpSampling2D(3, interpolation=interpolation)(image))
    images = random_images(2, 21, 34, 3)
    whole = model(images).numpy()
    tiled = predict_tiled(model, images, 12, margin=2, overlap=3, multiple=1, batch_size=5)
    assert tiled.shape == (2, 63, 102, 3)
    # At its borders the whole image goes on with its last pixel, the tiles with the mirrored image.
    assert_close(tiled[:, 3:-3, 3:-3], whole[:, 3:-3, 3:-3])


def test_models_of_a_fixed_size_are_tiled_by_that_size(models) -> None:
    fixed = unet(2, (60, 60, 1), FILTERS, padding="valid")
    fixed.set_weights(models["valid"].get_weights())
    images = random_images(1, 50, 71, 1)
    assert_close(
        predict_tiled(fixed, images, 60, multiple=STRIDE),
        predict_tiled(models["valid"], images, 60, multiple=STRIDE),
    )
    with pytest.raises(ValueError, match=r"'tile_size' must be the size of the model's input"):
        predict_tiled(fixed, images, 64, multiple=STRIDE)


def test_models_that_crop_and_enlarge_need_an_input_of_unknown_size() -> None:
    def cropping(size: int | None, crop: int, scale: int) -> Any:
        image = keras.Input([size, size, 1])
        x = keras.layers.Cropping2D(crop)(image)
        return keras.Model(image, keras.layers.UpSampling2D(scale)(x))

    images = random_images(1, 33, 20, 1)
    wanted = images.repeat(3, 1).repeat(3, 2)
    for tile_size, crop in [(20, 8), (60, 5)]:
        tiled = predict_tiled(cropping(None, crop, 3), images, tile_size, multiple=1)
        assert_close(tiled, wanted)
    assert_close(predict_tiled(cropping(60, 0, 3), images, 60, multiple=1), wanted)
    assert_close(predict_tiled(cropping(60, 5, 1), images, 60, multiple=1), images)
    with pytest.raises(ValueError, match=r"'model' must .* or have an input of unknown size, got"):
        predict_tiled(cropping(60, 5, 3), images, 60, multiple=1)


@pytest.mark.filterwarnings("ignore:The structure of .inputs. does")
def test_input_and_output_may_be_in_a_list_or_a_dict(copying) -> None:
    images = random_images(3, 10, 20, 2)
    image, output = copying.input, copying.output
    for inputs, outputs in [
        (image, [output]),
        (image, {"a": output}),
        ([image], output),
        ({image.name: image}, [[output]]),
    ]:
        model = keras.Model(inputs, outputs)
        assert_close(predict_tiled(model, images, 8, multiple=1, batch_size=2), images)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_a_new_result_is_float32_and_out_has_the_dtype_that_is_wanted(dtype) -> None:
    image = keras.Input([None, None, 2], dtype=dtype)
    model = keras.Model(image, keras.layers.Identity(dtype=dtype)(image))
    images = random_images(1, 10, 20, 2).astype(dtype)
    assert model(images).dtype == dtype
    tiled = predict_tiled(model, images, 8, multiple=1)
    assert tiled.dtype == np.float32
    assert_close(tiled, images.astype(np.float32))
    out = np.zeros(images.shape, dtype)
    assert predict_tiled(model, images, 8, overlap=0, multiple=1, out=out) is out
    np.testing.assert_array_equal(out, images)


class Watched:
    """An array that remembers how many pixels were read at once."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.most = array, array.shape, 0

    def __getitem__(self, place: Any) -> np.ndarray:
        part = self.array[place]
        self.most = max(self.most, part.size)
        return part


def test_only_tiles_are_read_and_the_result_lands_in_out(models, tmp_path) -> None:
    array = random_images(1, 150, 170, 1)
    wanted = predict_tiled(models["valid"], array, 60, multiple=STRIDE)
    images = Watched(array)
    shape = (1, 150, 170, 2)
    out = np.memmap(tmp_path / "out", np.float32, "w+", shape=shape)
    out[:] = np.nan
    assert predict_tiled(models["valid"], images, 60, multiple=STRIDE, out=out) is out
    assert images.most == 60 * 60
    np.testing.assert_array_equal(out, wanted)


def test_integers_and_lists_are_images_too(models) -> None:
    images = (255 * random_images(1, 40, 40, 1)).astype(np.uint8)
    wanted = predict_tiled(models["valid"], images.astype(np.float32), 60, multiple=STRIDE)
    for same in (images, images.tolist(), images.astype(np.float64), keras.ops.array(images)):
        assert_close(predict_tiled(models["valid"], same, 60, multiple=STRIDE), wanted)


def test_the_model_is_called_on_batches_of_one_shape(copying, monkeypatch) -> None:
    shapes = []
    original = copying.predict_on_batch
    monkeypatch.setattr(
        copying, "predict_on_batch", lambda batch: (shapes.append(batch.shape), original(batch))[1]
    )
    options = {"margin": 0, "overlap": 0, "multiple": 1}
    predict_tiled(copying, random_images(3, 10, 20, 2), 8, batch_size=4, **options)
    assert shapes == [(4, 8, 8, 2)] * 5  # of 18 tiles
    shapes.clear()
    predict_tiled(copying, random_images(1, 8, 8, 2), 8, batch_size=4, **options)
    assert shapes == [(1, 8, 8, 2)]


def test_progress_is_shown_if_wanted(copying, capsys) -> None:
    options = {"margin": 0, "overlap": 0, "multiple": 1, "batch_size": 4}
    predict_tiled(copying, random_images(1, 16, 24, 2), 8, verbose=1, **options)
    assert "6/6" in capsys.readouterr().out
    predict_tiled(copying, random_images(1, 16, 24, 2), 8, **options)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": np.zeros([8, 8, 1])}, r"'images' must have shape \[batch, height, width, "),
        ({"images": np.zeros([1, 0, 8, 1])}, r"'images' must have shape .*, got \[1, 0, 8, 1\]"),
        ({"images": np.zeros([1, 8, 8, 3])}, r"'images' must have shape \[\?, \?, \?, 1\], as "),
        ({"tile_size": 0}, "'tile_size' must lie in "),
        ({"tile_size": 20}, r"'tile_size' must suit the model, got \[20, 20\]: "),
        ({"tile_size": 62}, "'tile_size' must be one of which the model uses every .* 2 pixels"),
        ({"tile_size": (62, 60)}, "'tile_size' must be one of which the model uses every .* 2 "),
        ({"margin": 9}, "'tile_size' must be at least 62 for 20 pixels lost by the model and a "),
        ({"overlap": 11}, "'tile_size' must be at least 63 for "),
        ({"margin": -1}, "'margin' must be an int of at least 0, got -1"),
        ({"overlap": (1, 2, 3)}, r"'overlap' must be an int or \(y, x\), got \(1, 2, 3\)"),
        ({"multiple": 2}, "'multiple' must be a multiple of the model's total stride, got 2"),
        ({"multiple": 0}, "'multiple' must be an int of at least 1, got 0"),
        ({"batch_size": 0}, "'batch_size' must be an int of at least 1, got 0"),
        ({"verbose": 2}, r"'verbose' must lie in \[0, 1\], got 2"),
        ({"out": [1]}, "'out' must be an array that can be written to, got list"),
        ({"out": tf.zeros([1, 8, 8, 2])}, "'out' must be an array that can be written to, got "),
        ({"out": np.zeros([1, 8, 8, 1])}, r"'out' must have shape \[1, 8, 8, 2\], got "),
        ({"out": np.zeros([1, 8, 8, 2], int)}, "'out' must be of a floating dtype, got int64"),
    ],
)
def test_bad_arguments_are_named(models, options, words) -> None:
    defaults = {"images": np.zeros([1, 8, 8, 1]), "tile_size": 60, "multiple": STRIDE}
    with pytest.raises(ValueError, match=f"^predict_tiled: {words}"):
        predict_tiled(models["valid"], **{**defaults, **options})


def test_models_whose_output_is_no_image_of_the_tile_are_refused() -> None:
    image = keras.Input([None, None, 1])
    images = np.zeros([1, 8, 8, 1])
    for output, words in [
        (keras.layers.AveragePooling2D(4)(image), "return at least one pixel for each"),
        (keras.layers.Conv2D(1, 2)(image), "return the tile or a window in its centre"),
        (keras.layers.UpSampling2D((1, 2))(image), "enlarge height and width alike"),
        (keras.layers.GlobalAveragePooling2D()(image), "return .batch, height, width, channels"),
        ([image, image], "be a built functional or sequential model of one input"),
        ({"a": image, "b": image}, "be a built functional or sequential model of one input"),
    ]:
        with pytest.raises(ValueError, match=f"^predict_tiled: 'model' must {words}"):
            predict_tiled(keras.Model(image, output), images, 8, multiple=4)
    with pytest.raises(ValueError, match="'model' must be a built functional"):
        predict_tiled(keras.Sequential([keras.layers.Conv2D(1, 1)]), images, 8)
