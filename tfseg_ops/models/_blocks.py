"""What several models are made of."""

import math
from typing import Any

import keras

from tfseg_ops.layers import DenseCRF

NORMS = (None, "batch", "group")


def normalize(x: Any, norm: str | None, name: str | None = None) -> Any:
    """Batch or group normalisation (Wu & He 2018: 32 groups, fewer where channels are few)."""
    if norm == "batch":
        return keras.layers.BatchNormalization(name=name)(x)
    if norm == "group":
        groups = math.gcd(32, x.shape[-1])
        return keras.layers.GroupNormalization(groups, name=name)(x)
    return x


def convolve(
    x: Any,
    filters: int,
    kernel_size: int = 3,
    *,
    norm: str | None = None,
    activation: str | None = "relu",
    name: str | None = None,
    layer: type[keras.layers.Layer] = keras.layers.Conv2D,
    **options: Any,
) -> Any:
    """A convolution, normalisation and activation; `options` are those of the convolution.

    `layer` is `keras.layers.Conv2D` or `Conv2DTranspose`. The convolution bears the name; `_norm`
    and `_activation` are appended for the others. Kernels are drawn as He et al. 2015 do where a
    ReLU follows.
    """
    options = {
        "padding": "same",
        "kernel_initializer": "he_normal" if activation == "relu" else "glorot_uniform",
        **options,
    }
    x = layer(filters, kernel_size, use_bias=norm is None, name=name, **options)(x)
    x = normalize(x, norm, name and f"{name}_norm")
    if activation is None:
        return x
    return keras.layers.Activation(activation, name=name and f"{name}_activation")(x)


def refine(logits: Any, image: Any, crf: bool | DenseCRF) -> Any:
    """Logits refined by a `DenseCRF()`, or by one of the same settings as that given.

    In float32 whatever the policy: the image must not be rounded, nor what the model returns.
    """
    layer = crf if isinstance(crf, DenseCRF) else DenseCRF()
    layer = type(layer).from_config({**layer.get_config(), "name": "crf", "dtype": "float32"})
    return layer([logits, image])
