"""Images whose outputs are larger than the caches, with results that numpy finds quickly."""

from typing import Any

import numpy as np

# Each output is larger than this.
LARGE = 17 << 20


def large_windows(dtype: Any, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of 1 by 2, whose maxima alone are a large output: values, and which one is larger."""
    width = 33
    rows = -(-LARGE // (np.dtype(dtype).itemsize * 2 * width * channels))
    generator = np.random.default_rng(0)
    larger = generator.integers(0, 2, (2, rows, width, channels), np.int8)
    # Whole numbers that bfloat16 holds, and none of them 0.
    values = (np.arange(larger.size).reshape(larger.shape) % 120 + 1).astype(dtype)
    assert values.nbytes >= LARGE
    return values, larger


def masks_of(larger: np.ndarray, index: Any) -> np.ndarray:
    """The positions of the larger ones."""
    _, rows, width, channels = larger.shape
    first = (np.arange(rows)[:, None] * width + np.arange(width)) * 2
    return ((first[..., None] + larger) * channels + np.arange(channels)).astype(index)


def unpooled(values: np.ndarray, larger: np.ndarray) -> np.ndarray:
    """The values in their places, zeros beside them."""
    zero = np.zeros((), values.dtype)
    pairs = [np.where(larger == 0, values, zero), np.where(larger == 1, values, zero)]
    batch, rows, width, channels = values.shape
    return np.stack(pairs, axis=3).reshape(batch, rows, 2 * width, channels)
