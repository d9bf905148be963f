"""Models trained with our losses: eagerly, in graphs, under XLA, in mixed precision, replicated."""

from typing import Any

import keras
import numpy as np
import pytest
from helpers.losses import LOSSES
from helpers.processes import run_python
from helpers.segmentation import scenes, segmenter
from helpers.tolerances import assert_close

from tfseg_ops.losses import SoftDiceCrossEntropy
from tfseg_ops.metrics import BoundaryF1, DiceScore, MeanIoU


def trained(
    loss: Any, dtype: str | None = None, epochs: int = 2, **compiled: Any
) -> tuple[list[np.ndarray], dict[str, list[float]]]:
    """The weights after some steps from the same start, and the history."""
    data = scenes(4)
    model = segmenter(dtype=dtype)
    metrics: list[Any] = []
    if isinstance(loss, SoftDiceCrossEntropy):  # once is enough, they take long to compile
        metrics = [kind(3, ignore_label=255) for kind in (MeanIoU, DiceScore, BoundaryF1)]
    model.compile(keras.optimizers.SGD(0.5), loss, weighted_metrics=metrics, **compiled)
    history = model.fit(
        data.images,
        data.labels,
        sample_weight=data.weights,
        batch_size=2,
        epochs=epochs,
        shuffle=False,
        verbose=0,
    ).history
    return [np.asarray(weight) for weight in model.get_weights()], history


@pytest.mark.parametrize(
    ("name", "per_image"), [*((name, True) for name in LOSSES), ("SoftDiceCrossEntropy", False)]
)
def test_fit_gives_the_same_weights_eagerly_and_under_xla(name: str, per_image: bool) -> None:
    loss = LOSSES[name](ignore_label=255, per_image=per_image, class_weights=[1, 2, 3])
    expected, history = trained(loss, run_eagerly=True)
    start = segmenter().get_weights()
    assert all(np.abs(e - s).max() > 1e-4 for e, s in zip(expected, start, strict=True))
    weights, compiled = trained(loss, jit_compile=True)
    for weight, wanted in zip(weights, expected, strict=True):
        assert_close(weight, wanted)
    assert history.keys() == compiled.keys()
    for key, values in history.items():
        np.testing.assert_allclose(compiled[key], values, 1e-4)


def test_fit_in_a_graph_gives_the_same_weights() -> None:
    loss = SoftDiceCrossEntropy(ignore_label=255)
    expected, _ = trained(loss, run_eagerly=True)
    weights, _ = trained(loss, jit_compile=False)
    for weight, wanted in zip(weights, expected, strict=True):
        assert_close(weight, wanted)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_fit_in_mixed_precision_learns_what_float32_learns(policy: str, jit_compile: bool) -> None:
    loss = SoftDiceCrossEntropy(ignore_label=255)
    _, expected = trained(loss, epochs=8, run_eagerly=True)
    _, history = trained(loss, policy, epochs=8, jit_compile=jit_compile)
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    np.testing.assert_allclose(history["loss"], expected["loss"], 3e-2)
    assert history["mean_iou"][-1] > history["mean_iou"][0] + 0.1


def test_fit_under_a_global_policy_scales_the_loss() -> None:
    """With the policy of the whole process Keras wraps the optimizer; the loss is float32."""
    _, expected = trained(SoftDiceCrossEntropy(ignore_label=255), run_eagerly=True)
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        data, model = scenes(4), segmenter()
        loss = SoftDiceCrossEntropy(ignore_label=255)
        model.compile(keras.optimizers.SGD(0.5), loss, jit_compile=True)
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert model.output.dtype == "float16"
        assert loss.dtype == "float32"
        history = model.fit(
            *data[:2], batch_size=2, epochs=2, shuffle=False, verbose=0, sample_weight=data.weights
        ).history
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    np.testing.assert_allclose(history["loss"], expected["loss"], 3e-2)


def test_compiled_model_takes_images_of_other_sizes() -> None:
    model = segmenter()
    model.compile("sgd", SoftDiceCrossEntropy(ignore_label=255), jit_compile=True)
    eager = segmenter()
    eager.compile("sgd", SoftDiceCrossEntropy(ignore_label=255), run_eagerly=True)
    for shape in [(3, 8, 8), (1, 5, 7), (2, 1, 1)]:
        images, labels, weights = scenes(*shape)
        results = [
            m.evaluate(images, labels, sample_weight=weights, verbose=0) for m in (model, eager)
        ]
        np.testing.assert_allclose(*results, 1e-5)


REPLICATED = """
    import sys
    import numpy as np
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)

    import keras
    from helpers.segmentation import scenes, segmenter
    from tfseg_ops import losses, metrics

    def trained(strategy, run_eagerly, loss, channels=3):
        images, labels, weights = scenes(8)
        if channels == 1:
            labels = np.where(labels == 2, 1, labels)
        data = tf.data.Dataset.from_tensor_slices((images, labels, weights)).batch(4)
        with strategy.scope():
            model = segmenter(channels=channels)
            model.compile(
                keras.optimizers.SGD(0.5),
                loss,
                weighted_metrics=[
                    kind(max(2, channels), ignore_label=255)
                    for kind in (metrics.MeanIoU, metrics.DiceScore, metrics.BoundaryF1)
                ],
                run_eagerly=run_eagerly,
                jit_compile=False,
            )
        history = model.fit(data, epochs=3, verbose=0).history
        return model.get_weights(), history

    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert mirrored.num_replicas_in_sync == 2
    alone = tf.distribute.get_strategy()
    for name, channels, options in [
        ("SoftDiceCrossEntropy", 3, {}),
        ("SoftDiceCrossEntropy", 3, {"per_image": False, "sync_replicas": True}),
        ("GeneralizedDice", 3, {"per_image": False, "sync_replicas": True}),
        ("SoftDice", 1, {"activation": "sigmoid"}),
    ]:
        loss = getattr(losses, name)(ignore_label=255, **options)
        weights, history = trained(mirrored, False, loss, channels)
        expected, wanted = trained(alone, True, loss, channels)
        for two, one in zip(weights, expected, strict=True):
            np.testing.assert_allclose(two, one, 1e-4, 1e-5)
        assert history.keys() == wanted.keys() and len(history) == 4
        for key in wanted:
            np.testing.assert_allclose(history[key], wanted[key], 1e-4)
        assert history["loss"][-1] < history["loss"][0]

    # Without the sums of the other replica batch Dice is another loss, and not counted double.
    loss = losses.SoftDice(per_image=False, ignore_label=255)
    _, history = trained(mirrored, False, loss)
    _, wanted = trained(alone, True, loss)
    assert 1e-5 < abs(history["loss"][0] / wanted["loss"][0] - 1) < 0.1
    print("same")
"""


def test_two_replicas_learn_what_one_learns() -> None:
    """Of uint8 labels with weights of pixels; metrics merge as well."""
    assert run_python(REPLICATED, timeout=300).split()[-1] == "same"
