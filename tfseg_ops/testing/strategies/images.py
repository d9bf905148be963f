"""Images, floating or integer, with ties or without."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

from ._draw import BATCH, CHANNELS, SIDE, Size, draw_generator, draw_size

# A power of two, so that many multiples of it are exact in float16 and bfloat16 too.
_GAP = 2.0**-6


@st.composite
def images(
    draw: st.DrawFn,
    dtype: Any = np.float32,
    batch: Size = BATCH,
    height: Size = SIDE,
    width: Size = SIDE,
    channels: Size = CHANNELS,
    elements: tuple[float, float] | st.SearchStrategy[Any] | None = None,
    distinct: bool = False,
) -> np.ndarray:
    """Arrays `[batch, height, width, channels]`.

    Args:
        draw: given by hypothesis.
        dtype: a numpy or TensorFlow type, floating (float16 and bfloat16 too) or integer.
        batch: by default 0 to 3.
        height: by default 0 to 9.
        width: by default 0 to 9.
        channels: by default 1 to 4.
        elements: `(low, high)`, both included, or a strategy for one element. Bounds give constant
            images, images of few values, hence with many ties, and images of arbitrary values.
            None: (-1, 1) for floating types, (0, 255) for integers, or as much of it as the type
            can hold.
        distinct: whether all values of an array differ, by at least 1/64 (integers: by 1), so that
            a maximum has no ties and central differences with a smaller step stay clear of them.
            `elements` must be None.

    Raises:
        ValueError: while drawing: a negative size, `elements` given with `distinct`, or more
            elements than the type has well separated values.

    Example:
        >>> @given(images(dtype=np.float64, height=st.integers(1, 7), distinct=True))
        ... def test_gradients_hold(image): ...
    """
    kind = tf.as_dtype(dtype)
    shape = tuple(
        draw_size(draw, "images", name, size)
        for name, size in (
            ("batch", batch),
            ("height", height),
            ("width", width),
            ("channels", channels),
        )
    )
    if distinct:
        if elements is not None:
            raise ValueError(
                f"images: 'elements' must be None when 'distinct' is true, got {elements!r}"
            )
        return draw_generator(draw).permuted(_separated(math.prod(shape), kind)).reshape(shape)
    if isinstance(elements, st.SearchStrategy):
        return draw(hypothesis_numpy.arrays(kind.as_numpy_dtype, shape, elements=elements))
    low, high = elements or ((-1.0, 1.0) if kind.is_floating else (0, min(255, kind.max)))
    content = draw(st.sampled_from(["constant", "few values", "any values"]))
    generator = draw_generator(draw)
    values: np.ndarray
    levels = {"constant": 1, "few values": 3, "any values": math.prod(shape)}[content]
    if kind.is_floating:
        values = generator.uniform(low, high, size=levels)
    else:
        values = generator.integers(int(low), int(high), size=levels, endpoint=True)
    if content != "any values":
        values = generator.choice(values, size=shape)
    return values.reshape(shape).astype(kind.as_numpy_dtype)


def _separated(count: int, kind: tf.DType) -> np.ndarray:
    """`count` ascending values of a type around zero, `_GAP` or more apart (integers: 1)."""
    if not kind.is_floating:
        first = max(kind.min, -(count // 2))
        levels = np.arange(first, min(first + count, kind.max + 1))
    elif kind.size == 2:
        every = np.arange(2**16, dtype=np.uint16).view(kind.as_numpy_dtype)
        with np.errstate(invalid="ignore"):  # signalling NaNs are among them
            finite = every[np.isfinite(every)].astype(np.float64)
        levels = np.unique(finite[finite % _GAP == 0])
    else:
        levels = np.arange(-(count // 2), count - count // 2) * _GAP
    if len(levels) < count:
        raise ValueError(
            f"images: 'distinct' must be false for more than {len(levels)} elements of "
            f"{kind.name}, got {count}"
        )
    start = (len(levels) - count) // 2
    return levels[start : start + count].astype(kind.as_numpy_dtype)
