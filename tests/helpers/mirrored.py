"""What the tests of DeconvNet and SegNet share: the plan of their layers, and a training step."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

# Outputs of VGG-16's convolutions and of the decoder's, all but the last: table 2 of Noh et al.
ENCODER = [64, 64, 128, 128, *[256] * 3, *[512] * 6]
DECODER = [512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64]


def after_a_step(build: Callable[[], Any], portable: bool) -> tuple[float, list[np.ndarray]]:
    """The loss of one step of training from the same start, and all weights after it."""
    import keras

    import tfseg_ops

    keras.utils.set_random_seed(0)
    model = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=False)
    random = np.random.default_rng(0)
    images = random.uniform(size=[2, 37, 50, 3]).astype(np.float32)
    labels = random.integers(0, 3, [2, 37, 50])
    with tfseg_ops.portable() if portable else contextlib.nullcontext():
        return float(model.train_on_batch(images, labels)), model.get_weights()


def assert_a_step_is_the_same_in_stock_tensorflow(build: Callable[[], Any]) -> None:
    """Trains for one step with the native ops and with those of `pure_tf`."""
    loss, weights = after_a_step(build, portable=False)
    other_loss, other_weights = after_a_step(build, portable=True)
    np.testing.assert_allclose(loss, other_loss, 1e-5)
    for one, other in zip(weights, other_weights, strict=True):
        np.testing.assert_allclose(one, other, 1e-5, 1e-5 * np.abs(other).max())
