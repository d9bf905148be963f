"""A small segmentation model with its data: uint8 images and labels, and weights of pixels."""

from typing import Any, NamedTuple

import numpy as np


class Scenes(NamedTuple):
    """Images whose brightness says the class of a pixel, with noise."""

    images: np.ndarray  # uint8 [count, height, width, 1]
    labels: np.ndarray  # uint8 [count, height, width]: classes 0 to 2, and 255 for ignored ones
    weights: np.ndarray  # float32 [count, height, width]


def scenes(count: int, height: int = 7, width: int = 9) -> Scenes:
    """Returns blocks of three classes; some pixels are ignored."""
    generator = np.random.default_rng(0)
    blocks = generator.integers(0, 3, (count, -(-height // 3), -(-width // 3)), np.uint8)
    labels = blocks.repeat(3, 1).repeat(3, 2)[:, :height, :width]
    images = 80 * labels + generator.integers(0, 60, labels.shape, np.uint8)
    weights = generator.uniform(0.5, 2, labels.shape).astype(np.float32)
    return Scenes(
        images[..., None], np.where(generator.random(labels.shape) < 0.1, 255, labels), weights
    )


def segmenter(seed: int = 0, dtype: str | None = None, channels: int = 3) -> Any:
    """A convolutional network from images of any size to logits, of three classes by default.

    With a policy as `dtype` the logits are in its lower precision.
    """
    import keras

    keras.utils.set_random_seed(seed)
    inputs = keras.Input((None, None, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 128, -1)(inputs)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="gelu", dtype=dtype)(x)
    return keras.Model(inputs, keras.layers.Conv2D(channels, 3, padding="same", dtype=dtype)(x))
