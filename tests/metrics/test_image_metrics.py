"""What the metrics of image quality share: streaming, weights, dtypes, graphs, replicas, config."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.processes import run_python

from tfseg_ops.metrics import MeanPSNR, MeanSSIM, PSNROfMSE

KINDS = {"mean_psnr": MeanPSNR, "psnr_of_mse": PSNROfMSE, "mean_ssim": MeanSSIM}
every_metric = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
GENERATOR = np.random.default_rng(0)
TRUTH = GENERATOR.uniform(size=(5, 14, 12, 2)).astype(np.float32)
FOUND = np.clip(TRUTH + 0.1 * GENERATOR.normal(size=TRUTH.shape), 0, 1).astype(np.float32)
WEIGHTS = np.array([1, 0.5, 0, 2, 3])


def result_of(kind: type, *batches: tuple[Any, ...]) -> float:
    metric = kind(dtype="float64")
    for batch in batches:
        metric.update_state(*batch)
    return float(metric.result())


@every_metric
def test_batches_and_sizes_do_not_matter_but_images(kind: type) -> None:
    expected = result_of(kind, (TRUTH, FOUND, WEIGHTS))
    first, second = slice(0, 2), slice(2, 5)
    parts = [(TRUTH[part], FOUND[part], WEIGHTS[part]) for part in (first, second)]
    assert result_of(kind, *parts) == pytest.approx(expected, 1e-12)
    # Of another size, without weight.
    other = np.zeros((1, 30, 20, 2)), np.ones((1, 30, 20, 2)), [0]
    assert result_of(kind, parts[0], other, parts[1]) == pytest.approx(expected, 1e-12)
    empty = TRUTH[:0], FOUND[:0]
    assert result_of(kind, empty) == 0
    assert result_of(kind, empty, (TRUTH, FOUND, WEIGHTS)) == pytest.approx(expected, 1e-12)


@every_metric
def test_a_number_weighs_all_images_alike(kind: type) -> None:
    expected = result_of(kind, (TRUTH, FOUND))
    assert result_of(kind, (TRUTH, FOUND, 2.5)) == pytest.approx(expected, 1e-12)
    assert abs(result_of(kind, (TRUTH, FOUND, WEIGHTS)) - expected) > 1e-4


@every_metric
def test_an_image_without_weight_may_be_anything(kind: type) -> None:
    found = FOUND.copy()
    found[2] = np.nan
    expected = result_of(kind, (TRUTH, FOUND, WEIGHTS))
    assert result_of(kind, (TRUTH, found, WEIGHTS)) == expected
    assert np.isnan(result_of(kind, (TRUTH, found)))


@every_metric
def test_sums_are_float64_whatever_the_dtype_of_the_result(kind: type) -> None:
    metric = kind(dtype="float16")
    for variable in metric.variables:
        assert variable.dtype == "float64"
        variable.assign(2.0**25)
    metric.update_state(TRUTH[:1], FOUND[:1])
    assert float(metric.count) == 2**25 + 1
    assert metric.result().dtype == tf.float16
    metric.reset_state()
    metric.update_state(TRUTH, FOUND)
    assert float(metric.result()) == pytest.approx(result_of(kind, (TRUTH, FOUND)), 1e-3)


@pytest.mark.parametrize("jit_compile", [False, True])
@every_metric
def test_compiled_updates_count_the_same(kind: type, jit_compile: bool) -> None:
    metric = kind(dtype="float64")
    update = tf.function(metric.update_state, jit_compile=jit_compile)
    for _ in range(2):
        update(TRUTH, FOUND, WEIGHTS)
    assert float(metric.result()) == pytest.approx(
        result_of(kind, (TRUTH, FOUND, WEIGHTS)), abs=1e-5
    )


@every_metric
def test_sizes_may_be_unknown_but_not_the_rank(kind: type) -> None:
    metric, spec = kind(dtype="float64"), tf.TensorSpec([None] * 4, tf.float32)
    weights = tf.TensorSpec(None, tf.float64)
    update = tf.function(metric.update_state, input_signature=[spec, spec, weights])
    update(TRUTH, FOUND, WEIGHTS)
    assert float(metric.result()) == pytest.approx(
        result_of(kind, (TRUTH, FOUND, WEIGHTS)), abs=1e-5
    )
    # One channel would broadcast.
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have one shape, got"):
        update(TRUTH, FOUND[..., :1], WEIGHTS)
    unknown = tf.TensorSpec(None, tf.float32)
    for argument, specs in (("y_true", [unknown, spec]), ("y_pred", [spec, unknown])):
        words = f"'{argument}' must have a known rank, got an unknown shape"
        with pytest.raises(ValueError, match=words):
            tf.function(kind().update_state, input_signature=specs)(TRUTH, FOUND)


@every_metric
def test_shapes_that_do_not_fit_are_refused(kind: type) -> None:
    shape = "batch=5, height=14, width=12, channels=2"
    for y_true, y_pred, weights, words in (
        (TRUTH, FOUND[..., :1], None, f"'y_pred' must have shape [{shape}], got [5, 14, 12, 1]"),
        (TRUTH, FOUND[:1], None, f"'y_pred' must have shape [{shape}], got [1, 14, 12, 2]"),
        (
            TRUTH[0],
            FOUND[0],
            None,
            "'y_true' must have shape [batch, height, width, channels], got [14, 12, 2]",
        ),
        (TRUTH, FOUND, [1.0], "'sample_weight' must be a number or have shape [5], got [1]"),
        (
            TRUTH,
            FOUND,
            np.ones((5, 14, 12)),
            "'sample_weight' must be a number or have shape [5], got [5, 14, 12]",
        ),
    ):
        with pytest.raises(ValueError, match="must") as caught:
            kind().update_state(y_true, y_pred, weights)
        assert str(caught.value) == f"{kind.__name__}: {words}"


@every_metric
def test_greatest_value_must_be_positive(kind: type) -> None:
    for max_val in (0, -1, np.nan, np.inf, "255", True):
        with pytest.raises(ValueError, match="'max_val' must be positive and finite, got"):
            kind(max_val)


@pytest.mark.parametrize("name", KINDS)
def test_config_makes_the_same_metric(name: str) -> None:
    metric = KINDS[name](255, dtype="float64")
    config = metric.get_config()
    assert config == {"name": name, "dtype": "float64", "max_val": 255.0}
    serialized = keras.metrics.serialize(metric)
    assert serialized["registered_name"] == f"tfseg_ops>{KINDS[name].__name__}"
    revived = keras.metrics.deserialize(serialized)
    assert type(revived) is KINDS[name]
    assert revived.get_config() == config
    assert KINDS[name](name="quality").name == "quality"


def test_two_replicas_in_mixed_precision_measure_what_one_does() -> None:
    output = run_python(
        """
        import numpy as np
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)

        import keras
        from tfseg_ops.metrics import MeanPSNR, MeanSSIM, PSNROfMSE

        keras.config.set_dtype_policy("mixed_bfloat16")
        random = np.random.default_rng(0)
        images = random.uniform(size=(8, 16, 16, 1)).astype("float32")
        weights = random.uniform(size=8)
        data = tf.data.Dataset.from_tensor_slices((images, images, weights)).batch(4)

        def evaluated(strategy, run_eagerly):
            keras.utils.set_random_seed(0)
            kinds = (MeanPSNR, PSNROfMSE, MeanSSIM)
            with strategy.scope():
                conv = keras.layers.Conv2D(1, 3, padding="same")  # bfloat16 images
                model = keras.Sequential([keras.Input((16, 16, 1)), conv])
                model.compile(
                    "sgd",
                    lambda truth, found: keras.ops.mean((truth - found) ** 2, [1, 2, 3]),
                    metrics=[kind() for kind in kinds],
                    weighted_metrics=[kind(name="w_" + kind.__name__) for kind in kinds],
                    run_eagerly=run_eagerly,
                    jit_compile=False,
                )
            return model.evaluate(data, verbose=0, return_dict=True)

        mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        assert mirrored.num_replicas_in_sync == 2
        two, one = evaluated(mirrored, False), evaluated(tf.distribute.get_strategy(), True)
        assert two.keys() == one.keys() and len(one) == 7
        for key in one:
            np.testing.assert_allclose(two[key], one[key], 1e-5)
        assert one["mean_psnr"] != one["w_MeanPSNR"]
        print("same")
        """,
        timeout=300,
    )
    assert output.split()[-1] == "same"


@every_metric
def test_compiled_shapes_that_do_not_fit_give_nan(kind: type) -> None:
    metric = kind()
    unknown = tf.TensorSpec([None] * 4, tf.float32)

    @tf.function(jit_compile=True, input_signature=[unknown, unknown])
    def update(truth: tf.Tensor, prediction: tf.Tensor) -> None:
        metric.update_state(truth, prediction)

    update(tf.constant(TRUTH), tf.constant(FOUND))
    assert np.isfinite(metric.result())
    update(tf.constant(TRUTH), tf.constant(FOUND[:1]))  # would broadcast
    assert np.isnan(metric.result())
