"""Encoder-decoders as Keras models, made of public Keras layers and `tfseg_ops.layers`.

Functions that return a `keras.Model`. Images are `[batch, height, width, channels]` of any size,
unless said. `docs/models.md` has each model's paper and where ours differs.
"""

from tfseg_ops.models.conv_autoencoder import conv_autoencoder
from tfseg_ops.models.deconvnet import deconvnet
from tfseg_ops.models.dense_autoencoder import dense_autoencoder
from tfseg_ops.models.fcn import fcn
from tfseg_ops.models.predict_tiled import predict_tiled
from tfseg_ops.models.segnet import segnet
from tfseg_ops.models.super_resolution import super_resolution
from tfseg_ops.models.unet import unet

__all__ = [
    "conv_autoencoder",
    "deconvnet",
    "dense_autoencoder",
    "fcn",
    "predict_tiled",
    "segnet",
    "super_resolution",
    "unet",
]
