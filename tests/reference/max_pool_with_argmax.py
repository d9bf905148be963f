"""Max-pooling with argmax by plain loops."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def max_pool_with_argmax(
    input: np.ndarray,
    ksize: Sequence[int],
    strides: Sequence[int],
    padding: str,
    output_dtype: Any = np.int64,
    include_batch_in_index: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Visits the elements of each window in row-major order.

    A later element takes the place of the best one only if it is larger, or the first NaN.
    """
    batch, height, width, channels = input.shape
    rows = window_starts(height, ksize[0], strides[0], padding)
    columns = window_starts(width, ksize[1], strides[1], padding)
    output = np.zeros((batch, len(rows), len(columns), channels), input.dtype)
    argmax = np.zeros(output.shape, output_dtype)
    values = input.astype(np.float64)
    for b, i, j, c in np.ndindex(output.shape):
        best = None
        for y in range(max(rows[i], 0), min(rows[i] + ksize[0], height)):
            for x in range(max(columns[j], 0), min(columns[j] + ksize[1], width)):
                if best is None or _beats(values[b, y, x, c], values[b, best[0], best[1], c]):
                    best = y, x
        assert best is not None, "a window without any element of the input"
        y, x = best
        output[b, i, j, c] = input[b, y, x, c]
        position = (y * width + x) * channels + c
        if include_batch_in_index:
            position += b * height * width * channels
        argmax[b, i, j, c] = position
    return output, argmax


def _beats(candidate: float, best: float) -> bool:
    if np.isnan(best):
        return False
    return bool(np.isnan(candidate) or candidate > best)


def window_starts(size: int, ksize: int, stride: int, padding: str) -> list[int]:
    """Where each window begins along one axis.

    VALID: every stride at which a whole window fits. SAME: one window for each stride begun, the
    padding that they need shared between both ends, the odd element at the end.
    """
    if padding == "VALID":
        return list(range(0, size - ksize + 1, stride))
    count = -(-size // stride)
    needed = max((count - 1) * stride + ksize - size, 0)
    return [i * stride - needed // 2 for i in range(count)]
