"""Pooling masks that fit an input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

from ._draw import draw_generator


@st.composite
def argmax_masks(
    draw: st.DrawFn,
    shape: Sequence[int],
    window: tuple[tuple[int, int], tuple[int, int], str],
    dtype: Any = np.int64,
    include_batch_in_index: bool = False,
) -> np.ndarray:
    """Masks as max-pooling makes them: the flat index of one element of each window.

    Args:
        draw: given by hypothesis.
        shape: of the pooled input, `[batch, height, width, channels]`; may have zeros.
        window: `(ksize, strides, padding)` as drawn from `windows`.
        dtype: int32 or int64.
        include_batch_in_index: as for `tf.nn.max_pool_with_argmax`.

    Returns:
        `[batch, pooled height, pooled width, channels]`.

    Example:
        >>> mask = argmax_masks((2, 5, 7, 3), ((2, 2), (2, 2), "SAME")).example()
    """
    ksize, strides, padding = window
    # The stock op refuses empty inputs. No output is larger than its input: only zeros are cut.
    positive = [max(1, size) for size in shape]
    with tf.device("CPU:0"):
        image = tf.constant(
            draw_generator(draw).permutation(math.prod(positive)).reshape(positive), tf.float64
        )
        _, mask = tf.nn.max_pool_with_argmax(
            image, ksize, strides, padding, include_batch_in_index=include_batch_in_index
        )
    cut = tuple(slice(size) for size in shape)
    return np.asarray(mask.numpy()[cut], dtype)
