"""`ROIAlign` and `MultilevelROIAlign`: crops, padding, shapes, config, precision, fit, saving."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.processes import run_python
from helpers.tolerances import assert_close, assert_same
from reference.roi_align import fpn_levels, multilevel_roi_align, roi_align

import tfseg_ops
from tfseg_ops.layers import MultilevelROIAlign, ROIAlign

SCALES = [1 / 4, 1 / 8, 1 / 16]
# How a pyramid is cut in most tests: boxes of 16 pixels belong to the middle one of three levels.
PYRAMID: dict[str, Any] = {"spatial_scales": SCALES, "canonical_size": 16.0, "canonical_level": 3}


def features_of(*shape: int) -> np.ndarray:
    """Random float32 values."""
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def pyramid_of(batch: int, height: int, width: int, channels: int) -> list[np.ndarray]:
    """A map for each of `SCALES`, of an image of a size."""
    return [
        features_of(batch, round(height * scale), round(width * scale), channels)
        for scale in SCALES
    ]


def boxes_of(batch: int, count: int, height: int, width: int) -> np.ndarray:
    """Boxes of all sizes, in image pixels, in and around an image."""
    generator = np.random.default_rng(1)
    sizes = np.exp(generator.uniform(np.log(3), np.log((height, width)), (batch, count, 2)))
    centres = generator.uniform(0, 1, (batch, count, 2)) * (height, width)
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=-1)
    return boxes.astype(np.float32)


def indices_of(valid: np.ndarray) -> np.ndarray:
    """The image of each box, -1 where it is not valid."""
    return np.where(valid, np.arange(len(valid))[:, None], -1).ravel()


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"spatial_scale": 0.5, "sampling_ratio": 2},
        {"output_size": [3, 2], "aligned": False, "sampling_ratio": 1},
    ],
    ids=str,
)
def test_crops_are_those_of_the_op_image_by_image(arguments: dict[str, Any]) -> None:
    arguments = {"output_size": 2, **arguments}
    features, boxes = features_of(2, 7, 9, 3), boxes_of(2, 4, 12, 14)
    crops = ROIAlign(**arguments)([features, boxes])
    size = np.broadcast_to(arguments.pop("output_size"), 2)
    flat = np.ones((2, 4), bool)
    expected = roi_align(features, boxes.reshape(-1, 4), indices_of(flat), size, **arguments)
    assert crops.shape == (2, 4, *size, 3)
    assert_close(crops, expected.reshape(crops.shape))


def test_boxes_are_cut_out_of_the_level_of_their_size() -> None:
    maps, boxes = pyramid_of(2, 64, 48, 3), boxes_of(2, 9, 64, 48)
    crops = MultilevelROIAlign((3, 2), **PYRAMID, sampling_ratio=2)([maps, boxes])
    levels = fpn_levels(boxes.reshape(-1, 4), 3, 2, 16.0, 3)
    assert set(levels) == {0, 1, 2}
    valid = indices_of(np.ones((2, 9), bool))
    expected = multilevel_roi_align(maps, boxes.reshape(-1, 4), valid, levels, (3, 2), SCALES, 2)
    assert_close(crops, expected.reshape(2, 9, 3, 2, 3))


@pytest.mark.parametrize("pyramid", [False, True])
def test_invalid_boxes_give_zeros_and_no_gradient(pyramid: bool) -> None:
    layer = MultilevelROIAlign(2, **PYRAMID) if pyramid else ROIAlign(2, 1 / 4)
    maps = [tf.constant(level) for level in pyramid_of(2, 64, 48, 3)]
    features = maps if pyramid else maps[0]
    boxes, valid = tf.constant(boxes_of(2, 4, 64, 48)), np.array([[True, False] * 2, [False] * 4])
    with tf.GradientTape() as tape:
        tape.watch([*maps, boxes])
        crops = layer([features, boxes, tf.constant(valid)])
    to_boxes = tape.gradient(crops, boxes).numpy()
    everything = layer([features, boxes])
    assert np.all(np.any(everything, (2, 3, 4)))
    assert_same(crops, np.where(valid[..., None, None, None], everything, np.float32(0)))
    assert np.any(to_boxes[valid])
    assert not np.any(to_boxes[~valid])


def cases(channels: int | None = 5) -> list[Any]:
    """Each layer with symbolic features of unknown sizes."""
    maps = [keras.Input((None, None, channels)) for _ in SCALES]
    return [(ROIAlign((3, 2), 1 / 4), maps[0]), (MultilevelROIAlign((3, 2), **PYRAMID), maps)]


@pytest.mark.parametrize("count", [None, 7])
def test_unknown_sizes_stay_unknown(count: int | None) -> None:
    for layer, features in cases():
        boxes, valid = keras.Input((count, 4)), keras.Input((count,), dtype="bool")
        for inputs in ([features, boxes], [features, boxes, valid]):
            output = layer(inputs)
            assert output.shape == (None, count, 3, 2, 5)
            assert output.dtype == "float32"
            shapes = keras.tree.map_structure(lambda tensor: tensor.shape, inputs)
            assert layer.compute_output_shape(shapes) == output.shape
    shape = (2, None, 9, None)
    assert ROIAlign(7).compute_output_shape([shape, (2, 3, 4)]) == (2, 3, 7, 7, None)


def test_model_of_unknown_sizes_takes_all_sizes() -> None:
    for layer, features in cases():
        boxes, valid = keras.Input((None, 4)), keras.Input((None,), dtype="bool")
        model = keras.Model([features, boxes, valid], layer([features, boxes, valid]))
        for batch, count, height, width in [(2, 3, 64, 48), (1, 5, 48, 80), (2, 0, 32, 32)]:
            maps = pyramid_of(batch, height, width, 5)
            values = boxes_of(batch, count, height, width)
            inputs = [maps if isinstance(features, list) else maps[0], values]
            inputs.append(np.arange(batch * count).reshape(batch, count) % 2 == 0)
            assert_close(model(inputs), layer(inputs))


def test_config_makes_the_same_layer() -> None:
    alone = ROIAlign((3, 2), 0.25, 2, False, name="align")
    several = MultilevelROIAlign((3, 2), (0.25, 0.125), 2, False, 3, 200, 5, name="align")
    config = alone.get_config()
    assert (config["output_size"], config["spatial_scale"]) == ([3, 2], 0.25)
    assert (config["sampling_ratio"], config["aligned"]) == (2, False)
    config = several.get_config()
    assert config["spatial_scales"] == [0.25, 0.125]
    assert (config["finest_level"], config["canonical_level"]) == (3, 5)
    assert config["canonical_size"] == 200
    for layer in (alone, several):
        config = layer.get_config()
        assert type(layer).from_config(config).get_config() == config
        revived = keras.layers.deserialize(keras.layers.serialize(layer))
        assert type(revived) is type(layer)
        assert revived.get_config() == config


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_features_follow_the_policy_and_boxes_are_left_alone(policy: str) -> None:
    """bfloat16 would turn 777.7 into 776, and float16 into 777.5."""
    keras.config.set_dtype_policy(policy)
    dtype = policy.removeprefix("mixed_")
    ramp = np.broadcast_to(np.arange(1024, dtype=np.float32)[:, None, None] - 777, (1, 1024, 1, 1))
    boxes = np.array([[[777.7, 0, 777.9, 1]]], np.float32)
    for layer, features in [
        (ROIAlign(1, sampling_ratio=1), ramp),
        (MultilevelROIAlign(1, [1.0], sampling_ratio=1), [ramp]),
    ]:
        crops = layer([features, boxes])
        assert crops.dtype == dtype
        np.testing.assert_allclose(float(crops[0, 0, 0, 0, 0]), 0.3, atol=4e-3)
        inputs = [keras.Input((None, None, 1)), keras.Input((None, 4))]
        spec = layer([[inputs[0]] if isinstance(features, list) else inputs[0], inputs[1]])
        assert spec.dtype == dtype


def test_portable_layers_give_the_same() -> None:
    maps, boxes = pyramid_of(2, 64, 48, 3), boxes_of(2, 4, 64, 48)
    layers = [(ROIAlign(2, 1 / 4), maps[0]), (MultilevelROIAlign(2, **PYRAMID), maps)]
    for layer, features in layers:
        native = layer([features, boxes])
        with tfseg_ops.portable():
            assert_close(layer([features, boxes]), native)


MAP, BOXES = np.zeros((2, 4, 4, 3), np.float32), np.zeros((2, 5, 4), np.float32)
WRONG: dict[str, tuple[Any, str]] = {
    "one input": ([MAP], "'inputs' must be [features, boxes] or [features, boxes, valid], got 1"),
    "rank": ([MAP[0], BOXES], "'features' must have shape [batch, height, width, channels], got"),
    "batch": ([MAP, BOXES[:1]], "'boxes' must have shape [batch=2, num_boxes, 4], got [1, 5, 4]"),
    "boxes of no image": ([MAP, BOXES[0]], "'boxes' must have shape [batch=2, num_boxes, 4], got"),
    "valid": (
        [MAP, BOXES, np.ones((2, 4), bool)],
        "'valid' must have shape [batch=2, num_boxes=5], got [2, 4]",
    ),
    "valid of numbers": ([MAP, BOXES, np.ones((2, 5))], "'valid' must be bool, got float"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_inputs_are_named(case: str) -> None:
    inputs, words = WRONG[case]
    with pytest.raises((ValueError, TypeError)) as caught:
        ROIAlign(2)(inputs)
    assert f"ROIAlign: {words}" in str(caught.value)


def test_half_precision_boxes_are_refused() -> None:
    with pytest.raises(TypeError, match="'boxes' must be float32 or float64, got float16"):
        ROIAlign(2)([MAP, BOXES.astype(np.float16)])


@pytest.mark.parametrize("features", [[MAP], [MAP, MAP], MAP], ids=["one", "two", "a tensor"])
def test_another_number_of_levels_is_an_error(features: Any) -> None:
    with pytest.raises(ValueError, match="MultilevelROIAlign: 'features' must be a list of 3 maps"):
        MultilevelROIAlign(2, SCALES)([features, BOXES])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"output_size": 0}, "'output_size' must lie in [1, 2147483647], got [0, 0]"),
        ({"spatial_scales": [1.0, -1.0]}, "'spatial_scales' must be positive and finite, got -1.0"),
        ({"sampling_ratio": -1}, "'sampling_ratio' must lie in [0, 1048576], got -1"),
        ({"canonical_size": 0}, "'canonical_size' must be positive and finite, got 0"),
        ({"finest_level": -1}, "'finest_level' must lie in [0, 30], got -1"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_wrong_argument_is_named(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match="MultilevelROIAlign") as caught:
        MultilevelROIAlign(**{"output_size": 2, "spatial_scales": [1.0], **arguments})
    assert str(caught.value) == f"MultilevelROIAlign: {words}"


def detector(sampling_ratio: int = 2) -> keras.Model:
    """Scores boxes of an image by what is in them, on one level and on a pyramid."""
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 1), dtype="uint8", name="image")
    boxes = keras.Input((None, 4), name="boxes")
    valid = keras.Input((None,), dtype="bool", name="valid")
    x = keras.layers.Rescaling(1 / 255)(image)
    fine = keras.layers.Conv2D(4, 3, strides=4, padding="same", activation="gelu")(x)
    coarse = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="gelu")(fine)
    several = MultilevelROIAlign(3, SCALES[:2], sampling_ratio, canonical_size=40.0)
    crops = [
        ROIAlign(3, 1 / 4, sampling_ratio)([fine, boxes, valid]),
        several([[fine, coarse], boxes, valid]),
    ]
    crops = [keras.layers.Reshape((-1, 3 * 3 * 4))(crop) for crop in crops]
    scores = keras.layers.Dense(1, activation="sigmoid", dtype="float32")(
        keras.layers.Concatenate()(crops)
    )
    return keras.Model([image, boxes, valid], scores)


def examples(count: int = 4) -> tuple[list[np.ndarray], np.ndarray]:
    """Images of an odd size with bright boxes; which ones is to be learnt."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 100, (count, 61, 47, 1), np.uint8)
    boxes = boxes_of(count, 3, 61, 47)
    labels = generator.uniform(size=(count, 3, 1)) < 0.5
    for image, own, bright in zip(images, boxes, labels, strict=True):
        for (y1, x1, y2, x2), chosen in zip(own.clip(0).astype(int), bright, strict=True):
            image[y1:y2, x1:x2] += np.uint8(50) * chosen.astype(np.uint8)
    return [images, boxes, np.arange(count * 3).reshape(count, 3) % 3 > 0], labels.astype("float32")


def trained_weights(run_eagerly: bool, jit_compile: bool, ratio: int) -> list[np.ndarray]:
    """The weights after some steps from the same start."""
    model = detector(ratio)
    model.compile(
        keras.optimizers.SGD(0.5),
        "binary_crossentropy",
        run_eagerly=run_eagerly,
        jit_compile=jit_compile,
    )
    model.fit(*examples(), batch_size=2, epochs=2, shuffle=False, verbose=0)
    return [np.asarray(weight) for weight in model.get_weights()]


@pytest.mark.parametrize("ratio", [0, 2])
def test_fit_gives_the_same_weights_eagerly_in_a_graph_and_under_xla(ratio: int) -> None:
    expected = trained_weights(True, False, ratio)
    start = detector(ratio).get_weights()
    assert all(np.abs(e - s).max() > 1e-5 for e, s in zip(expected, start, strict=True))
    for jit_compile in (False, True):
        for weight, wanted in zip(
            trained_weights(False, jit_compile, ratio), expected, strict=True
        ):
            assert_close(weight, wanted)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_fit_runs_in_mixed_precision(policy: str, jit_compile: bool) -> None:
    keras.config.set_dtype_policy(policy)
    model = detector()
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", jit_compile=jit_compile)
    history = model.fit(*examples(8), batch_size=4, epochs=6, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < history[0]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model in both formats, inputs and its outputs."""
    folder = tmp_path_factory.mktemp("saved")
    model = detector()
    inputs, labels = examples()
    model.compile("sgd", "binary_crossentropy", jit_compile=False)
    model.fit(inputs, labels, verbose=0)
    model.save(folder / "model.keras")
    model.export(folder / "saved_model", verbose=False)
    images, boxes, valid = inputs
    outputs = model.predict(inputs, verbose=0)
    np.savez(
        folder / "data.npz", images=images, boxes=boxes, valid=valid, labels=labels, outputs=outputs
    )
    return folder


def test_keras_file_is_loaded_and_trained_on_in_a_fresh_process(saved: Path) -> None:
    output = run_python(
        """
        import sys
        import keras
        import numpy as np
        import tfseg_ops

        model = keras.models.load_model(sys.argv[1] + "/model.keras")
        data = np.load(sys.argv[1] + "/data.npz")
        inputs = [data["images"], data["boxes"], data["valid"]]
        outputs = model.predict(inputs, verbose=0)
        np.testing.assert_allclose(outputs, data["outputs"], 1e-5, 1e-6)
        alone, several = (
            next(layer for layer in model.layers if type(layer).__name__ == name)
            for name in ("ROIAlign", "MultilevelROIAlign")
        )
        assert (alone.output_size, alone.spatial_scale, alone.sampling_ratio) == ([3, 3], 0.25, 2)
        assert (several.spatial_scales, several.canonical_size) == ([0.25, 0.125], 40.0)
        model.compile("sgd", "binary_crossentropy", jit_compile=True)
        model.fit(inputs, data["labels"], verbose=0)
        print("same")
        """,
        saved,
    )
    assert output.split()[-1] == "same"


def test_saved_model_serves_in_a_fresh_process(saved: Path) -> None:
    output = run_python(
        """
        import sys
        import numpy as np
        import tensorflow as tf
        import tfseg_ops

        model = tf.saved_model.load(sys.argv[1] + "/saved_model")
        data = np.load(sys.argv[1] + "/data.npz")
        outputs = model.serve([data["images"], data["boxes"], data["valid"]])
        np.testing.assert_allclose(outputs, data["outputs"], 1e-5, 1e-6)
        print("same")
        """,
        saved,
    )
    assert output == "same\n"


def test_batch_of_boxes_must_be_that_of_the_features_also_where_it_is_unknown() -> None:
    layer = ROIAlign(2)
    align = tf.function(
        lambda x, b: layer([x, b]),
        input_signature=[tf.TensorSpec([None, 4, 4, 1]), tf.TensorSpec([None, 5, 4])],
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have the batch of"):
        align(np.zeros((3, 4, 4, 1), np.float32), np.zeros((2, 5, 4), np.float32))


@pytest.mark.parametrize("scales", [[], [1.0] * 17, [1e-60], [0.0]])
def test_scales_of_the_layer_are_checked_when_it_is_made(scales: list[float]) -> None:
    with pytest.raises(ValueError, match="'spatial_scales' must"):
        MultilevelROIAlign(2, scales)
