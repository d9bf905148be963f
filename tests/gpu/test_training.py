"""Both layers in a model that is trained on the GPU."""

import keras
import numpy as np
import pytest
from helpers.gpu import require_device, require_gpu
from helpers.models import auto_encoder, uint8_images

require_gpu()
pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("like", [True, False], ids=["odd size", "overlapping"])
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_model_with_both_layers_learns(jit_compile: bool, like: bool) -> None:
    """XLA has no way back to the CPU: what is compiled for the GPU runs there."""
    model = auto_encoder(like=like)
    model.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=jit_compile)
    images = uint8_images(8, 7, 9) if like else uint8_images(8, 8, 6)
    history = model.fit(images, images / 255.0, batch_size=4, epochs=6, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < history[0]
    for weight in model.weights:
        require_device(weight.value.device)
    assert model.predict(images, verbose=0).shape == images.shape
