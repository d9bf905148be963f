"""The layer `DenseCRF`: like the op, in models that are trained, saved, in mixed precision."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.crf_cases import compatibility_of, small_image, small_logits
from helpers.processes import run_python
from helpers.tolerances import assert_close, assert_same

import tfseg_ops
from tfseg_ops import ops
from tfseg_ops.layers import DenseCRF

SDEVS = {"spatial_sdev": 2.0, "bilateral_spatial_sdev": 20.0, "bilateral_color_sdev": 30.0}
WEIGHTS = {"spatial_weight": 1.5, "bilateral_weight": 2.0}
ALL = {
    "per_class_weights": True,
    "learn_compatibility": True,
    "learn_bandwidths": True,
    **SDEVS,
    **WEIGHTS,
}


@pytest.mark.parametrize("learn", [False, True])
def test_layer_is_the_op_with_the_initial_numbers(learn: bool) -> None:
    logits, image = small_logits(), small_image()
    for keywords in ({}, {"normalization": "after"}, {"compatibility": compatibility_of(3)}):
        layer = DenseCRF(
            2,
            learn_weights=learn,
            per_class_weights=learn,
            learn_compatibility=learn,
            learn_bandwidths=learn,
            **SDEVS,
            **WEIGHTS,
            **keywords,
        )
        expected = ops.dense_crf(logits, image, 2, **SDEVS, **WEIGHTS, **keywords)
        np.testing.assert_allclose(
            tf.nn.softmax(layer([logits, image], training=True)),
            tf.nn.softmax(expected),
            1e-4,
            1e-5,
        )


def test_exact_method() -> None:
    logits, image = small_logits(), small_image()
    layer = DenseCRF(2, method="exact", **SDEVS, **WEIGHTS)
    expected = ops.dense_crf(logits, image, 2, **SDEVS, **WEIGHTS, method="exact")
    assert_close(layer([logits, image], training=True), expected)


def test_training_and_inference_have_their_own_numbers_of_iterations() -> None:
    logits, image = small_logits(), small_image()
    layer = DenseCRF(1, 3, **SDEVS, **WEIGHTS)
    for training, count in [(True, 1), (False, 3), (None, 3)]:
        expected = ops.dense_crf(logits, image, count, **SDEVS, **WEIGHTS)
        assert_close(layer([logits, image], training=training), expected)
    assert DenseCRF().num_iterations == 5
    assert DenseCRF().num_inference_iterations == 10
    assert DenseCRF(3, None).num_inference_iterations == 3


@pytest.mark.parametrize(
    ("keywords", "shapes"),
    [
        ({}, {"spatial_weight": (), "bilateral_weight": ()}),
        ({"learn_weights": False}, {}),
        ({"per_class_weights": True}, {"spatial_weight": (3,), "bilateral_weight": (3,)}),
        ({"learn_weights": False, "learn_compatibility": True}, {"compatibility": (3, 3)}),
        (
            {"learn_weights": False, "learn_bandwidths": True, "bilateral_color_sdev": [9, 8, 7]},
            {
                "log_spatial_sdev": (),
                "log_bilateral_spatial_sdev": (),
                "log_bilateral_color_sdev": (3,),
            },
        ),
    ],
    ids=["weights", "nothing", "per class", "compatibility", "bandwidths"],
)
def test_variables_are_what_is_learned(keywords: dict[str, Any], shapes: dict[str, Any]) -> None:
    layer = DenseCRF(**keywords)
    layer.build([(None, None, None, 3), (None, None, None, 3)])
    assert {v.name: tuple(v.shape) for v in layer.trainable_variables} == shapes
    assert layer.weights == layer.trainable_variables


def test_everything_that_is_learned_has_a_gradient() -> None:
    layer = DenseCRF(2, **ALL)
    logits, image = tf.constant(small_logits()), small_image()
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = tf.reduce_sum(tf.nn.softmax(layer([logits, image], training=True))[..., 0] ** 2)
    sources = [logits, *(v.value for v in layer.trainable_variables)]
    gradients = tape.gradient(loss, sources)
    assert len(gradients) == 7
    for gradient, source in zip(gradients, sources, strict=True):
        assert gradient.shape == source.shape
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 1e-6


def test_sizes_stay_unknown() -> None:
    logits, image = keras.Input((None, None, 3)), keras.Input((None, 9, 3), dtype="uint8")
    layer = DenseCRF(1)
    output = layer([logits, image])
    assert output.shape == (None, None, None, 3)
    assert output.dtype == "float32"
    assert layer.compute_output_shape([logits.shape, image.shape]) == output.shape


@pytest.mark.parametrize("portable", [False, True])
def test_model_of_unknown_sizes_takes_all_sizes(portable: bool) -> None:
    def run() -> None:
        logits, image = keras.Input((None, None, 3)), keras.Input((None, None, 3), dtype="uint8")
        model = keras.Model([logits, image], DenseCRF(1, 1, **SDEVS, **WEIGHTS)([logits, image]))
        model.compile(jit_compile=False)
        for size in [(2, 8, 9), (1, 5, 4)]:
            inputs = [small_logits(np.float32, *size), small_image(np.uint8, *size)]
            expected = ops.dense_crf(*inputs, 1, **SDEVS, **WEIGHTS)
            assert_close(model.predict(inputs, verbose=0), expected)

    if portable:
        with tfseg_ops.portable():
            run()
    else:
        run()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_only_the_output_follows_the_policy(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    layer = DenseCRF(1, **ALL)
    dtype = policy.removeprefix("mixed_")
    logits, image = small_logits(), small_image(np.float32)
    result = layer([logits, image], training=True)
    assert result.dtype == dtype
    assert {v.dtype for v in layer.variables} == {"float64" if dtype == "float64" else "float32"}
    wide = logits.astype(np.float64) if dtype == "float64" else logits
    expected = ops.dense_crf(wide, image, 1, **SDEVS, **WEIGHTS)
    tolerance = {"float16": 1e-2, "bfloat16": 5e-2, "float64": 1e-4}[dtype]
    result, expected = (tf.cast(t, tf.float64) for t in (result, expected))
    np.testing.assert_allclose(
        result - tf.reduce_mean(result, -1, keepdims=True),
        expected - tf.reduce_mean(expected, -1, keepdims=True),
        tolerance,
        tolerance,
    )
    spec = layer([keras.Input((None, None, 3)), keras.Input((None, None, 3), dtype="float32")])
    assert spec.dtype == dtype


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
@pytest.mark.parametrize("in_model", [False, True])
def test_no_policy_makes_weights_half_precision(policy: str, in_model: bool) -> None:
    # Numbers that half precision has not.
    numbers = {"bilateral_spatial_sdev": 20.3, "bilateral_color_sdev": 30.7, "spatial_weight": 10.3}
    logits, image = small_logits(), small_image(np.float32)
    layer = DenseCRF(1, learn_bandwidths=True, dtype=policy, **numbers)
    if in_model:
        # Of float32, but for the layer.
        inputs = [keras.Input(logits.shape[1:]), keras.Input(image.shape[1:])]
        result = keras.Model(inputs, layer(inputs))([logits, image], training=True)
    else:
        result = layer([logits, image], training=True)
    assert {v.dtype for v in layer.variables} == {"float32"}
    expected = ops.dense_crf(logits, image, 1, **numbers)
    half = tf.cast(expected, layer.compute_dtype)
    # What is rounded to half precision is the result alone.
    np.testing.assert_allclose(tf.cast(result, tf.float32), tf.cast(half, tf.float32), 8e-3, 1e-3)


def test_two_replicas_learn_what_one_learns() -> None:
    output = run_python(
        """
        import numpy as np
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)

        import keras
        from helpers.crf_cases import small_image, small_logits
        from tfseg_ops.layers import DenseCRF, MeanFieldStep

        logits, image = small_logits(batch=4), small_image(batch=4)
        labels = logits.argmax(-1).astype(np.uint8)
        data = tf.data.Dataset.from_tensor_slices(((logits, image), labels)).batch(4)

        def weights(strategy):
            with strategy.scope():
                inputs = keras.Input(logits.shape[1:]), keras.Input(image.shape[1:], dtype="uint8")
                refined = DenseCRF(2, learn_bandwidths=True, learn_compatibility=True)(inputs)
                places = keras.layers.Reshape([-1, 3])(keras.layers.Rescaling(1 / 50)(inputs[1]))
                q = keras.layers.Softmax()(refined)
                q = MeanFieldStep(2.0)([q, refined, places])
                model = keras.Model(inputs, q)
                loss = keras.losses.SparseCategoricalCrossentropy()
                model.compile(keras.optimizers.SGD(0.5), loss, jit_compile=False)
            model.fit(data, epochs=2, verbose=0)
            return model.get_weights()

        mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        assert mirrored.num_replicas_in_sync == 2
        replicated = weights(mirrored)
        alone = weights(tf.distribute.get_strategy())
        assert len(alone) == 7
        for one, two in zip(alone, replicated, strict=True):
            np.testing.assert_allclose(two, one, 1e-4, 1e-5)
        print("same")
        """
    )
    assert output.split()[-1] == "same"


def test_config_makes_the_same_layer() -> None:
    layer = DenseCRF(
        3,
        7,
        (2.0, 3.0),
        40.0,
        [10, 11, 12],
        1,
        2.5,
        compatibility_of(3),
        ["after", "none"],
        "exact",
        False,
        True,
        True,
        True,
        name="crf",
    )
    config = layer.get_config()
    assert (config["num_iterations"], config["num_inference_iterations"]) == (3, 7)
    assert (config["spatial_sdev"], config["bilateral_color_sdev"]) == ([2, 3], [10, 11, 12])
    assert_same(np.array(config["compatibility"]), compatibility_of(3))
    assert (config["learn_weights"], config["learn_bandwidths"]) == (False, True)
    revived = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(revived) is DenseCRF
    assert revived.get_config() == config


LOGITS, IMAGE = small_logits(), small_image()
WRONG: dict[str, tuple[Any, str]] = {
    "one input": ([LOGITS], "DenseCRF: 'inputs' must be [logits, image], got 1"),
    "no list": (LOGITS, "DenseCRF: 'inputs' must be [logits, image], got"),
    "rank": (
        [LOGITS[:, 0], IMAGE],
        "'logits' must have shape [batch, height, width, classes], got [2, 9, 3]",
    ),
    "size": (
        [LOGITS, IMAGE[:, :5]],
        "'image' must have shape [batch=2, height=8, width=9, channels], got [2, 5, 9, 3]",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_inputs_are_named(case: str) -> None:
    inputs, words = WRONG[case]
    with pytest.raises(ValueError, match="must") as caught:
        DenseCRF(1)(inputs)
    assert words in str(caught.value)


def test_number_of_classes_must_be_known() -> None:
    with pytest.raises(ValueError, match="must have a known number of classes"):
        DenseCRF()([keras.Input((4, 4, None)), keras.Input((4, 4, 3))])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_iterations": -1}, "'num_iterations' must lie in [0, 2147483647], got -1"),
        (
            {"num_inference_iterations": 1.5},
            "'num_inference_iterations' must lie in [0, 2147483647], got 1.5",
        ),
        ({"spatial_sdev": 0}, "'spatial_sdev' must be positive and finite, got 0"),
        (
            {"bilateral_color_sdev": [1, -1, 1]},
            "'bilateral_color_sdev' must be positive and finite, got -1",
        ),
        ({"spatial_weight": "3"}, "'spatial_weight' must be a finite number, got 3"),
        (
            {"compatibility": [[1, 2]]},
            "'compatibility' must have shape [classes, classes], got [1, 2]",
        ),
        (
            {"normalization": "all"},
            "'normalization' must be symmetric, before, after or none, got all",
        ),
        (
            {"normalization": ["none"] * 3},
            "'normalization' must have one name for each of 2 kernels, got 3",
        ),
        ({"method": "fast"}, "'method' must be lattice or exact, got fast"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_wrong_argument_is_named(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match="DenseCRF") as caught:
        DenseCRF(**arguments)
    assert str(caught.value) == f"DenseCRF: {words}"


def test_compatibility_of_other_classes_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"'compatibility' must have shape \[3, 3\], got \[2, 2\]"):
        DenseCRF(compatibility=np.eye(2))([LOGITS, IMAGE])


def segmenter(**keywords: Any) -> keras.Model:
    """Logits of a pixel's colour, refined by the image."""
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    logits = keras.layers.Conv2D(3, 1, name="logits")(x)
    refined = DenseCRF(1, 2, **{**SDEVS, **WEIGHTS, **keywords})([logits, image])
    return keras.Model(image, refined)


def examples(count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Images and the number of the brightest channel at each pixel."""
    images = small_image(batch=count, height=7, width=6)
    return images, images.argmax(-1).astype(np.uint8)


def fitted(epochs: int = 2, **how: Any) -> tuple[keras.Model, list[float]]:
    model = segmenter(**ALL)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.03), loss, **how)
    history = model.fit(*examples(), batch_size=2, epochs=epochs, shuffle=False, verbose=0)
    return model, history.history["loss"]


def test_fit_gives_the_same_weights_eagerly_in_a_graph_and_under_xla() -> None:
    expected = fitted(run_eagerly=True)[0].get_weights()
    start = segmenter(**ALL).get_weights()
    assert all(np.abs(e - s).max() > 1e-3 for e, s in zip(expected, start, strict=True))
    for jit_compile in (False, True):
        weights = fitted(jit_compile=jit_compile)[0].get_weights()
        for weight, wanted in zip(weights, expected, strict=True):
            np.testing.assert_allclose(weight, wanted, 1e-3, 1e-3)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_fit_lowers_the_loss(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    model, losses = fitted(epochs=8, jit_compile=False)
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]
    crf = model.layers[-1]
    for variable in crf.trainable_variables:
        assert variable.dtype == "float32"
        assert np.isfinite(variable).all()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained model in both formats, images and its outputs."""
    folder = tmp_path_factory.mktemp("saved")
    model, _ = fitted(epochs=1, jit_compile=False)
    images, labels = examples()
    model.save(folder / "model.keras")
    model.export(folder / "saved_model", verbose=False)
    outputs = model.predict(images, verbose=0)
    np.savez(folder / "data.npz", images=images, labels=labels, outputs=outputs)
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
        outputs = model.predict(data["images"], verbose=0)
        np.testing.assert_allclose(outputs, data["outputs"], 1e-4, 1e-4)
        crf = model.layers[-1]
        assert (crf.num_iterations, crf.num_inference_iterations) == (1, 2)
        assert crf.spatial_sdev == 2.0 and crf.learn_bandwidths
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, jit_compile=False)
        model.fit(data["images"], data["labels"], verbose=0)
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
        outputs = model.serve(data["images"])
        np.testing.assert_allclose(outputs, data["outputs"], 1e-4, 1e-4)
        print("same")
        """,
        saved,
    )
    assert output == "same\n"
