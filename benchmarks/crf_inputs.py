"""What the benchmarks of the dense CRF run on: a photograph, and rough logits over it."""

import functools

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

SPATIAL_SDEV = 3.0
BILATERAL_SDEVS = (80.0, 13.0)  # pixels, levels of colour
PHOTOGRAPH, CLASSES = (375, 500), 21
SMOKE, SMOKE_CLASSES = (9, 12), 5


def size_of(smoke: bool) -> tuple[int, int, int]:
    """Height, width and classes."""
    return (*SMOKE, SMOKE_CLASSES) if smoke else (*PHOTOGRAPH, CLASSES)


@functools.lru_cache(maxsize=2)
def photograph(height: int, width: int) -> NDArray[np.uint8]:
    """`[height, width, 3]`: a part of scikit-image's astronaut, mirrored where it is too small."""
    from skimage.data import astronaut

    image = astronaut()
    rows, columns = (max(0, size - 512) for size in (height, width))
    image = np.pad(image, [(0, rows), (0, columns), (0, 0)], mode="symmetric")
    return np.ascontiguousarray(image[:height, :width])


@functools.lru_cache(maxsize=2)
def rough_logits(height: int, width: int, classes: int) -> NDArray[np.float32]:
    """`[1, height, width, classes]`: rectangles of classes under noise."""
    random = np.random.default_rng(0)
    labels = np.zeros((1, height, width), np.int32)
    for _ in range(4 * classes):
        top, left = random.integers(0, height), random.integers(0, width)
        rows, columns = random.integers(1, height // 2 + 1), random.integers(1, width // 2 + 1)
        labels[0, top : top + rows, left : left + columns] = random.integers(classes)
    logits = random.standard_normal((1, height, width, classes), np.float32)
    logits += 2 * (labels[..., None] == np.arange(classes))
    return logits


def features_of(kernel: str, height: int, width: int) -> tf.Tensor:
    """`[1, height * width, 2 or 5]`: the features of the kernel "spatial" or "bilateral"."""
    y, x = np.mgrid[:height, :width].reshape(2, 1, -1, 1).astype(np.float32)
    positions = np.concatenate([x, y], -1)
    if kernel == "spatial":
        return tf.constant(positions / SPATIAL_SDEV)
    sdev, color_sdev = BILATERAL_SDEVS
    colors = photograph(height, width).reshape(1, -1, 3).astype(np.float32)
    return tf.constant(np.concatenate([positions / sdev, colors / color_sdev], -1))
