"""What only a fresh process shows: loading late, and loading what another process saved."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from helpers.processes import run_python

from tfseg_ops import ops


def test_jit_compile_works_when_tensorflow_ran_before_the_import() -> None:
    """TF then has its XLA kernels already: ours must register themselves."""
    output = run_python(
        """
        import keras
        import numpy as np
        import tensorflow as tf

        tf.function(lambda x: x + 1, jit_compile=True)(tf.constant(1.0))
        model = keras.Sequential([keras.layers.Dense(2)])
        model.compile(loss="mse", jit_compile=True)
        model.fit(np.zeros((4, 3)), np.zeros((4, 2)), verbose=0)

        from tfseg_ops import ops

        def run(image):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(image)
                output, argmax = ops.max_pool_with_argmax(image, 2, 2, "SAME")
                restored = ops.max_unpool(output**2, argmax, tf.shape(image)[1:3])
                gradient = tape.gradient(restored, image)
            return output, argmax, restored, gradient, tape.gradient(gradient, image)

        image = tf.constant(np.random.default_rng(0).normal(size=(2, 5, 6, 3)))
        expected = run(image)
        results = tf.function(run, jit_compile=True)(image)
        for result, wanted in zip(results, expected, strict=True):
            np.testing.assert_allclose(result, wanted, 1e-12, 1e-12)
        print("same")
        """
    )
    assert output == "same\n"


def test_saved_model_gives_the_same_outputs_and_gradients_in_a_fresh_process(
    tmp_path: Path,
) -> None:
    class Restore(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None] * 4)])
        def __call__(self, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            output, argmax = ops.max_pool_with_argmax(image, 3, 2, "SAME", tf.int32)
            return ops.max_unpool(output**2, argmax, tf.shape(image)[1:3]), argmax

    module = Restore()
    image = tf.constant(np.random.default_rng(0).normal(size=(2, 5, 7, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(image)
        restored, argmax = module(image)
    gradient = tape.gradient(restored, image)
    tf.saved_model.save(module, str(tmp_path / "model"))
    np.savez(tmp_path / "wanted.npz", image, restored, argmax, gradient)

    output = run_python(
        """
        import sys
        import numpy as np
        import tensorflow as tf
        import tfseg_ops

        module = tf.saved_model.load(sys.argv[1])
        image, *wanted = np.load(sys.argv[2]).values()
        x = tf.constant(image)
        with tf.GradientTape() as tape:
            tape.watch(x)
            restored, argmax = module(x)
        results = restored, argmax, tape.gradient(restored, x)
        compiled = tf.function(lambda x: module(x), jit_compile=True)(x)
        for result, expected in zip((*results, *compiled), (*wanted, *wanted[:2]), strict=True):
            np.testing.assert_array_equal(result, expected)
        print("same")
        """,
        tmp_path / "model",
        tmp_path / "wanted.npz",
    )
    assert output == "same\n"
