"""Encoder-decoders as Keras models, made of public Keras layers and `tfseg_ops.layers`.

Functions that return a `keras.Model`. Images are `[batch, height, width, channels]` of any size,
unless said. `docs/models.md` has each model's paper and where ours differs.
"""

from tfseg_ops.models.conv_autoencoder import conv_autoencoder
from tfseg_ops.models.dense_autoencoder import dense_autoencoder
from tfseg_ops.models.predict_tiled import predict_tiled
from tfseg_ops.models.unet import unet

__all__ = ["conv_autoencoder", "dense_autoencoder", "predict_tiled", "unet"]
