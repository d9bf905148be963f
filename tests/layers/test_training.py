"""Both layers in models that are trained: eagerly, under XLA, in mixed precision, replicated."""

import keras
import numpy as np
import pytest
from helpers.models import auto_encoder, uint8_images
from helpers.processes import run_python
from helpers.tolerances import assert_close


def trained_weights(
    images: np.ndarray, like: bool, run_eagerly: bool, jit_compile: bool
) -> list[np.ndarray]:
    """The weights after some steps from the same start."""
    model = auto_encoder(like=like)
    model.compile(
        keras.optimizers.SGD(0.5), "mse", run_eagerly=run_eagerly, jit_compile=jit_compile
    )
    model.fit(images, images / 255.0, batch_size=2, epochs=2, shuffle=False, verbose=0)
    return [np.asarray(weight) for weight in model.get_weights()]


@pytest.mark.parametrize(
    ("like", "height", "width"), [(True, 7, 9), (False, 8, 6)], ids=["odd size", "overlapping"]
)
def test_fit_gives_the_same_weights_eagerly_in_a_graph_and_under_xla(
    like: bool, height: int, width: int
) -> None:
    images = uint8_images(4, height, width)
    expected = trained_weights(images, like, run_eagerly=True, jit_compile=False)
    start = auto_encoder(like=like).get_weights()
    assert any(np.abs(e - s).max() > 1e-4 for e, s in zip(expected, start, strict=True))
    for jit_compile in (False, True):
        weights = trained_weights(images, like, run_eagerly=False, jit_compile=jit_compile)
        for weight, wanted in zip(weights, expected, strict=True):
            assert_close(weight, wanted)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_fit_runs_in_mixed_precision(policy: str, jit_compile: bool) -> None:
    keras.config.set_dtype_policy(policy)
    model = auto_encoder()
    model.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=jit_compile)
    images = uint8_images(8, 7, 9)
    history = model.fit(images, images / 255.0, batch_size=4, epochs=6, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < history[0]
    restored = model.predict(images, verbose=0)
    assert restored.shape == images.shape


def test_compiled_model_serves_batches_and_images_of_other_sizes() -> None:
    model = auto_encoder()
    model.compile("sgd", "mse", jit_compile=True)
    eager = auto_encoder()
    eager.compile("sgd", "mse", run_eagerly=True)
    for shape in [(3, 8, 8), (1, 5, 7), (2, 1, 1)]:
        images = uint8_images(*shape)
        assert_close(model.predict(images, verbose=0), eager.predict(images, verbose=0))
        loss = model.evaluate(images, images / 255.0, verbose=0)
        assert_close(
            np.float32(loss), np.float32(eager.evaluate(images, images / 255.0, verbose=0))
        )


def test_two_replicas_learn_what_one_learns() -> None:
    output = run_python(
        """
        import numpy as np
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)

        import keras
        from helpers.models import auto_encoder, uint8_images

        images = uint8_images(8, 7, 9)
        data = tf.data.Dataset.from_tensor_slices((images, images / 255.0)).batch(4)

        def weights(strategy):
            with strategy.scope():
                model = auto_encoder()
                model.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=False)
            model.fit(data, epochs=2, verbose=0)
            return model.get_weights()

        mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        assert mirrored.num_replicas_in_sync == 2
        replicated = weights(mirrored)
        alone = weights(tf.distribute.get_strategy())
        for one, two in zip(alone, replicated, strict=True):
            np.testing.assert_allclose(two, one, 1e-4, 1e-5)
        print("same")
        """
    )
    assert output.split()[-1] == "same"
