"""Small models that pool with positions and unpool with them."""

from typing import Any

import numpy as np


def auto_encoder(seed: int = 0, like: bool = True, argmax_dtype: str = "int32") -> Any:
    """A convolutional auto-encoder of images of any size, uint8 in and probabilities out.

    Without `like` sizes must be divisible by 2, and the pooling windows overlap.
    """
    import keras

    from tfseg_ops.layers import MaxPoolingWithArgmax2D, MaxUnpooling2D

    keras.utils.set_random_seed(seed)
    inputs = keras.Input((None, None, 1), dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, padding="same", activation="gelu")(scaled)
    pool_size = 2 if like else 3
    pooled, argmax = MaxPoolingWithArgmax2D(
        pool_size, 2, padding="same", argmax_dtype=argmax_dtype
    )(x)
    y = keras.layers.Conv2D(4, 3, padding="same", activation="gelu")(pooled)
    unpooled = MaxUnpooling2D(pool_size, 2)([y, argmax, inputs] if like else [y, argmax])
    outputs = keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid", dtype="float32")(
        unpooled
    )
    return keras.Model(inputs, outputs)


def uint8_images(count: int, height: int, width: int) -> np.ndarray:
    """Random images, of which no two pixels side by side are likely to be equal."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, height, width, 1), np.uint8)
