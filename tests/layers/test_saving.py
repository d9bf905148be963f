"""Models with both layers, saved here and loaded in a fresh process."""

from pathlib import Path

import numpy as np
import pytest
from helpers.models import auto_encoder, uint8_images
from helpers.processes import run_python


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained model in both formats, images and its outputs."""
    folder = tmp_path_factory.mktemp("saved")
    model = auto_encoder()
    model.compile("sgd", "mse", jit_compile=False)
    images = uint8_images(4, 7, 9)
    model.fit(images, images / 255.0, verbose=0)
    model.save(folder / "model.keras")
    model.export(folder / "saved_model", verbose=False)
    np.savez(folder / "data.npz", images=images, outputs=model.predict(images, verbose=0))
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
        np.testing.assert_allclose(outputs, data["outputs"], 1e-5, 1e-6)
        pool, unpool = (
            next(layer for layer in model.layers if type(layer).__name__ == name)
            for name in ("MaxPoolingWithArgmax2D", "MaxUnpooling2D")
        )
        assert (pool.padding, pool.argmax_dtype) == ("same", "int32")
        assert (unpool.pool_size, unpool.strides) == ([2, 2], [2, 2])
        model.compile("sgd", "mse", jit_compile=True)
        model.fit(data["images"], data["outputs"], verbose=0)
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
        np.testing.assert_allclose(outputs, data["outputs"], 1e-5, 1e-6)
        print("same")
        """,
        saved,
    )
    assert output == "same\n"
