"""`unet`: parameters, sizes and alignment of valid convolutions, the layers that options bring."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.tolerances import assert_close

from tfseg_ops.layers import DenseCRF, MaxPoolingWithArgmax2D, MaxUnpooling2D
from tfseg_ops.models import unet

FILTERS = (4, 8, 8)


def random_images(height: int, width: int, channels: int = 1, batch: int = 1) -> np.ndarray:
    """Images in [0, 1]."""
    shape = (batch, height, width, channels)
    return np.random.default_rng(0).uniform(size=shape).astype(np.float32)


def built(*args: Any, **options: Any) -> Any:
    """A model with the same weights every time, biases too."""
    keras.utils.set_random_seed(0)
    model = unet(*args, **options)
    random = np.random.default_rng(1)
    # By their paths: the order of layers differs between paddings.
    for variable in sorted(model.trainable_variables, key=lambda variable: variable.path):
        if len(variable.shape) == 1:
            variable.assign(random.uniform(-0.5, 1.5, variable.shape))
    return model


def parameters_of(channels: int, classes: int, width: int, levels: int = 5) -> float:
    """Counted by hand for levels that double their filters: `f` of a level has `f / 2` above it.

    Down: 9 (f / 2) f + 9 f^2 weights and 2 f biases; up: 4 (2 f) f + 9 (2 f) f + 9 f^2 and 3 f.
    """
    filters = width * 2.0 ** np.arange(levels)
    down = 9 * channels * width + 9 * width**2 + 13.5 * (filters[1:] ** 2).sum()
    up = 35 * (filters[:-1] ** 2).sum()
    biases = 2 * filters.sum() + 3 * filters[:-1].sum()
    return down + up + biases + (width + 1) * classes


def test_number_of_parameters_is_the_published_one() -> None:
    # Widely printed for the paper's network: one channel and one score; three channels add 1152.
    assert parameters_of(1, 1, 64) == 31_030_593
    assert parameters_of(3, 1, 64) == 31_031_745
    assert unet(2).count_params() == parameters_of(1, 2, 64) == 31_030_658


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_number_of_parameters_follows_filters_channels_and_classes(padding) -> None:
    model = unet(7, (None, None, 3), (6, 12, 24), padding=padding)
    assert model.count_params() == parameters_of(3, 7, 6, levels=3)


def test_valid_convolutions_make_388_of_572_and_crop_as_the_paper_does() -> None:
    model = unet(2, filters=(2, 2, 2, 2, 2), padding="valid")
    assert model(random_images(572, 572)).shape == (1, 388, 388, 2)
    # The sizes that the paper's figure 1 gives for skips, and for what joins them.
    for level, (larger, smaller) in enumerate([(568, 392), (280, 200), (136, 104), (64, 56)], 1):
        assert model.get_layer(f"up{level}_crop").offset == [(larger - smaller) // 2] * 2


VALID_VARIANTS = [
    {},
    {"upsampling": "nearest", "norm": "batch"},
    {"upsampling": "bilinear", "residual": True, "dilations": (1, 2)},
    {"filters": (3, 4, 5, 6)},
]


@pytest.mark.parametrize("options", VALID_VARIANTS, ids=str)
def test_valid_scores_are_those_of_the_same_pixels_inside_a_larger_image(options) -> None:
    """A model with padding "same" and these weights, far from its borders, has them too."""
    options = {"filters": FILTERS, **options}
    valid, same = built(2, padding="valid", **options), built(2, **options)
    # Two rows are lost before each pooling: its windows are those of the larger image if that many
    # more than a multiple of the total stride lie before the smaller one.
    top, left = 50, 58
    image = random_images(224, 232)
    wanted = same(image).numpy()
    smallest = least_size(options)
    for height, width in [(smallest, smallest + 5), (smallest + 9, smallest + 2), (119, 116)]:
        scores = valid(image[:, top : top + height, left : left + width]).numpy()
        first = rows_lost(options)
        assert scores.shape[1] > height - 2 * first - 2 ** len(options["filters"])
        rows, columns = (
            slice(start + first, start + first + size)
            for start, size in zip((top, left), scores.shape[1:3], strict=True)
        )
        assert_close(scores, wanted[:, rows, columns])


def rows_lost(options: dict[str, Any]) -> int:
    """Rows at each side, added up as an image goes down and up: those of a level weigh double."""
    levels = len(options["filters"])
    lost = sum(options.get("dilations", (1, 1))) * 2 ** (levels - 1)
    enlarging = {"nearest": 1, "bilinear": 2}.get(options.get("upsampling", ""), 0)
    return lost + sum((4 + enlarging) * 2**level for level in range(levels - 1))


def least_size(options: dict[str, Any]) -> int:
    """Of images that leave scores, by Keras' own rules for the layers."""
    model = unet(1, padding="valid", **options)
    # Without the layers that require a size.
    model = keras.Model(model.get_layer("require_least_size").output, model.output)
    for size in range(2 * rows_lost(options), 200):
        try:
            model.compute_output_shape((1, size, size, 1))
        except ValueError:
            continue
        return size
    raise AssertionError("no size leaves scores")


@pytest.mark.parametrize("options", VALID_VARIANTS, ids=str)
def test_known_sizes_that_leave_no_scores_are_refused(options) -> None:
    options = {"filters": FILTERS, **options}
    least = least_size(options)
    model = unet(1, (least, None, 1), padding="valid", **options)
    assert model.output_shape[1] > 0
    with pytest.raises(
        ValueError, match=f"unet: 'input_shape' must have sizes of at least {least}"
    ):
        unet(1, (None, least - 1, 1), padding="valid", **options)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("mode", ["eager", "graph", "jit_compile"])
def test_images_that_leave_no_scores_are_refused_at_run_time(mode, policy, tmp_path) -> None:
    """Instead of memory that nobody wrote to, which TensorFlow's convolutions return."""
    keras.config.set_dtype_policy(policy)
    model = built(2, filters=(2, 2, 3), padding="valid", norm="batch")
    model.save(tmp_path / "model.keras")
    call = keras.models.load_model(tmp_path / "model.keras")
    if mode != "eager":  # of unknown sizes, which are not noticed while the graph is made
        call = tf.function(
            call,
            input_signature=[tf.TensorSpec([None, None, None, 1])],
            jit_compile=mode == "jit_compile",
        )
    image = random_images(45, 44)
    assert_close(call(image), model(image))
    error = ValueError if mode == "eager" else tf.errors.InvalidArgumentError
    for height, width in [(43, 44), (45, 43), (42, 42), (36, 36), (30, 31), (1, 1)]:
        with pytest.raises(error, match="44"):
            call(image[:, :height, :width])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_predict_refuses_images_that_leave_no_scores(jit_compile) -> None:
    model = built(2, filters=(2, 2, 3), padding="valid")
    model.compile(jit_compile=jit_compile)
    for size in (44, 50, 46):  # after the second of them the graph has unknown sizes
        assert model.predict(random_images(size, size), verbose=0).shape[1] == (size - 40) // 4 * 4
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="44"):
        model.predict(random_images(42, 42), verbose=0)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_crf_sees_the_uncast_image_of_the_pixels_that_have_scores(padding, policy) -> None:
    keras.config.set_dtype_policy(policy)
    settings = {"num_inference_iterations": 2, "bilateral_color_sdev": 0.5}
    model = built(3, filters=FILTERS, padding=padding, crf=DenseCRF(**settings))
    image = 200 + 3 * random_images(53, 50)  # bfloat16 would know no fractions
    unrefined = keras.Model(model.input, model.get_layer("logits").output)(image)
    assert unrefined.dtype == "float32"
    first = 20 if padding == "valid" else 0
    rows, columns = (slice(first, first + size) for size in unrefined.shape[1:3])
    wanted = DenseCRF(**settings, dtype="float32")([unrefined, image[:, rows, columns]])
    assert_close(model(image), wanted)
    assert model(image).dtype == "float32"


def test_crf_and_masks_are_trained_with_the_network() -> None:
    crf = DenseCRF(num_iterations=2, num_inference_iterations=2, bilateral_color_sdev=0.1)
    model = built(3, (None, None, 3), FILTERS, unpool=True, crf=crf)
    kinds = [type(layer) for layer in model.layers]
    assert kinds.count(MaxPoolingWithArgmax2D) == kinds.count(MaxUnpooling2D) == 2
    assert kinds.count(DenseCRF) == 1
    assert isinstance(model.get_layer("crf"), DenseCRF)
    assert model.get_layer("crf").num_iterations == 2

    images = random_images(17, 22, 3, batch=2)
    labels = (3 * images.mean(-1)).astype(np.uint8)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        value = loss(labels, model(images, training=True))
    # All of them, those behind the masks and those of the CRF too.
    for variable, gradient in zip(variables, tape.gradient(value, variables), strict=True):
        assert np.abs(gradient).max() > 0, variable.path
    weights = model.get_layer("crf").trainable_variables
    assert sorted(weight.name for weight in weights) == ["bilateral_weight", "spatial_weight"]
    before = [float(weight.numpy()) for weight in weights]
    model.compile(keras.optimizers.Adam(1e-2), loss, jit_compile=False)
    model.fit(images, labels, epochs=2, verbose=0)
    assert all(abs(float(w.numpy()) - b) > 1e-3 for w, b in zip(weights, before, strict=True))


def test_a_crf_of_default_settings_is_trained_with_the_network() -> None:
    model = built(2, (None, None, 3), (2, 4), unpool=True, crf=True)
    crf = model.get_layer("crf")
    assert crf.get_config() == DenseCRF(name="crf", dtype="float32").get_config()
    before = [float(weight.numpy()) for weight in crf.trainable_variables]
    assert len(before) == 2
    images = 255 * random_images(9, 10, 3, batch=2)
    labels = (images.mean(-1) > 128).astype(np.uint8)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, jit_compile=False)
    model.fit(images, labels, epochs=2, verbose=0)
    after = [float(weight.numpy()) for weight in crf.trainable_variables]
    assert all(abs(new - old) > 1e-3 for new, old in zip(after, before, strict=True))


def test_a_layer_given_as_crf_lends_its_settings_only() -> None:
    crf = DenseCRF(spatial_weight=1.5, learn_weights=False, name="mine")
    models = [unet(2, filters=FILTERS, crf=crf) for _ in range(2)]
    assert not crf.built
    layers = [model.get_layer("crf") for model in models]
    assert layers[0] is not layers[1]
    assert all(layer.spatial_weight == 1.5 and not layer.learn_weights for layer in layers)


def test_unpooled_values_stand_where_the_maxima_were() -> None:
    model = built(2, filters=FILTERS, unpool=True, dropout=0)
    outputs = [model.get_layer(name).output for name in ("down1_conv2_activation", "up1_unpool")]
    skip, unpooled = map(np.asarray, keras.Model(model.input, outputs)(random_images(10, 12)))
    windows = skip.reshape(5, 2, 6, 2, 4).max((1, 3), keepdims=True)
    is_maximum = (skip.reshape(5, 2, 6, 2, 4) == windows).reshape(skip.shape)
    assert (unpooled != 0).sum() == 5 * 6 * 4
    assert is_maximum[unpooled != 0].all()


def test_skip_is_taken_before_the_pool() -> None:
    """Cut off from what lies below, a score sees the four pixels that four convolutions reach."""
    model = built(1, filters=FILTERS)
    for variable in model.get_layer("up1_transposed").trainable_variables:
        variable.assign(tf.zeros_like(variable))
    image = tf.constant(random_images(31, 31))
    for place in (14, 15):
        with tf.GradientTape() as tape:
            tape.watch(image)
            score = model(image)[0, place, place, 0]
        seen = np.argwhere(tape.gradient(score, image)[0, :, :, 0] != 0)
        np.testing.assert_array_equal(seen.min(0), [place - 4, place - 4])
        np.testing.assert_array_equal(seen.max(0), [place + 4, place + 4])


def test_dropout_ends_the_contracting_path() -> None:
    def dropouts(model):
        return [layer.name for layer in model.layers if isinstance(layer, keras.layers.Dropout)]

    model = built(2, filters=FILTERS, dropout=0.25)
    assert dropouts(model) == ["down2_dropout", "bottleneck_dropout"]
    assert model.get_layer("bottleneck_dropout").rate == 0.25
    image = random_images(16, 16)
    assert not np.allclose(model(image, training=True), model(image))
    assert not dropouts(unet(2, filters=FILTERS, dropout=0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_classes": 0}, "'num_classes' must be an int of at least 1, got 0"),
        ({"num_classes": 1, "crf": True}, "'num_classes' must be an int of at least 2, got 1"),
        ({"input_shape": (None, None)}, r"'input_shape' must be \(height, width, channels\)"),
        ({"input_shape": (None, 0, 1)}, r"'input_shape' must be .*, got \(None, 0, 1\)"),
        ({"filters": (8,)}, "'filters' must be a list of positive ints, at least 2"),
        ({"filters": (8, 0)}, "'filters' must be a list of positive ints, at least 2"),
        ({"padding": "full"}, '\'padding\' must be "same" or "valid", got full'),
        ({"upsampling": "cubic"}, "'upsampling' must be \"transposed\", "),
        ({"norm": "layer"}, '\'norm\' must be None, "batch" or "group", got layer'),
        ({"residual": 1}, "'residual' must be True or False, got 1"),
        ({"dilations": ()}, "'dilations' must be a list of positive ints, at least 1"),
        ({"unpool": "yes"}, "'unpool' must be True or False, got yes"),
        (
            {"unpool": True, "padding": "valid"},
            "'padding' must be \"same\" where maps are unpooled",
        ),
        ({"dropout": 1.0}, "'dropout' must be less than 1, got 1.0"),
        ({"dropout": -0.1}, "'dropout' must be a number of at least 0, got -0.1"),
        ({"dropout": False}, "'dropout' must be a number of at least 0, got False"),
        ({"dropout": ""}, "'dropout' must be a number of at least 0, got "),
        ({"dropout": []}, r"'dropout' must be a number of at least 0, got \[\]"),
        ({"crf": "yes"}, "'crf' must be True, False or a DenseCRF, got yes"),
    ],
)
def test_bad_arguments_are_named(options, words) -> None:
    with pytest.raises(ValueError, match=f"^unet: {words}"):
        unet(**{"num_classes": 2, "filters": FILTERS, **options})
