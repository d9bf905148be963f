"""Kernels of transposed convolutions that interpolate."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np


@keras.saving.register_keras_serializable(package="tfseg_ops")
class Bilinear(keras.initializers.Initializer):
    """Bilinear interpolation of each channel by itself, for kernels of twice the strides.

    Long, Shelhamer & Darrell 2015, section 3.3: a transposed convolution that begins as this can
    learn another upsampling. The weight falls linearly from the middle of the kernel.
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Returns a kernel `[height, width, out_channels, in_channels]`."""
        down, across = (
            1 - np.abs(np.arange(size) - (size - 1) / 2) / ((size + 1) // 2) for size in shape[:2]
        )
        kernel = np.multiply.outer(np.outer(down, across), np.eye(shape[2], shape[3]))
        return keras.ops.convert_to_tensor(kernel, dtype or keras.config.floatx())
