"""Hypothesis strategies that need no TensorFlow, for the tests of the core.

Shapes and kinds of content are drawn by hypothesis; numbers come from a numpy generator with a
drawn seed, which keeps drawing fast. Tests above the core use `tfseg_ops.testing.strategies`.
"""

import os
from typing import Any, NamedTuple

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from reference.max_pool_with_argmax import window_starts

from helpers.tolerances import FLOAT_DTYPES, INDEX_DTYPES


def examples(count: int) -> settings:
    """Returns settings that draw `count` examples, scaled by TFSEG_TEST_SCALE."""
    return settings(
        max_examples=max(5, round(count * float(os.environ.get("TFSEG_TEST_SCALE", 1))))
    )


generators = st.builds(np.random.default_rng, st.integers(0, 2**32 - 1))
float_dtypes = st.sampled_from(FLOAT_DTYPES)
index_dtypes = st.sampled_from(INDEX_DTYPES)


@st.composite
def nhwc_shapes(draw: st.DrawFn, minimum: int = 0) -> tuple[int, int, int, int]:
    """Shapes of few elements, now and then of none.

    Many channels and few pixels, with channels around a vector's width (8) and a loop's lanes (64);
    or few channels and wide images, so that lanes run over several pixels.
    """
    if draw(st.booleans()):
        channels = draw(st.sampled_from([1, 2, 3, 5, 8, 15, 16]))
        shape = [
            draw(st.integers(1, 2)),
            draw(st.integers(1, 4)),
            draw(st.integers(1, 200 // channels)),
            channels,
        ]
    else:
        channels = draw(st.sampled_from([1, 3, 7, 9, 17, 63, 64, 65, 130]))
        largest = 9 if channels < 32 else 4
        sides = st.integers(1, largest)
        shape = [draw(st.integers(1, 3)), draw(sides), draw(sides), channels]
    if minimum == 0 and draw(st.integers(0, 7)) == 7:
        shape[draw(st.integers(0, 3))] = 0
    return shape[0], shape[1], shape[2], shape[3]


def values(generator: np.random.Generator, shape: Any, dtype: Any, content: str) -> np.ndarray:
    """Returns an array of one of the `contents`."""
    if content == "few values":
        drawn = generator.choice([-1.5, 0.0, -0.0, 2.0], size=shape)
    elif content == "special values":
        info = _finfo(dtype)
        tiny = float(info.smallest_subnormal)
        special = [0, -0.0, 1, -1, np.nan, np.inf, -np.inf, tiny, -tiny, float(info.max), -3]
        drawn = generator.choice(special, size=shape)
    else:
        drawn = generator.normal(size=shape) * 10
    array: np.ndarray = drawn.astype(dtype)
    return array


contents = st.sampled_from(["few values", "special values", "any values"])


def _finfo(dtype: Any) -> Any:
    import ml_dtypes

    return ml_dtypes.finfo(dtype)


class Pooling(NamedTuple):
    """Arguments of a max-pooling."""

    ksize: tuple[int, int]
    strides: tuple[int, int]
    padding: str


@st.composite
def poolings(draw: st.DrawFn, height: int, width: int, cells: bool | None = None) -> Pooling:
    """Windows that fit: overlapping, touching or with gaps between them.

    With `cells`, they touch and begin at 0, so that each mask has a cell of its own; they may leave
    rows over (VALID), or the last cell may be cut short (SAME).
    """
    padding = draw(st.sampled_from(["VALID", "SAME"]))
    ksize, strides = [], []
    for size in (height, width):
        sides = range(1, max(1, min(5, size)) + 1) if padding == "VALID" else range(1, 6)
        if cells and padding == "SAME":
            sides = [side for side in sides if -size % side < 2]
        ksize.append(draw(st.sampled_from(sides)))
        strides.append(ksize[-1] if cells else draw(st.integers(1, 5)))
    return Pooling((ksize[0], ksize[1]), (strides[0], strides[1]), padding)


def masks_of(
    generator: np.random.Generator,
    shape: tuple[int, int, int, int],
    pooling: Pooling | tuple[Any, Any, str],
    dtype: Any,
    include_batch_in_index: bool = False,
) -> np.ndarray:
    """Returns masks as the pooling of an input of a shape makes them, at random places."""
    batch, height, width, channels = shape
    axes = []
    for size, ksize, stride in zip((height, width), pooling[0], pooling[1], strict=True):
        starts = np.array(window_starts(size, ksize, stride, pooling[2]), int)
        axes.append((np.maximum(starts, 0), np.minimum(starts + ksize, size)))
    pooled = (batch, len(axes[0][0]), len(axes[1][0]), channels)
    (top, bottom), (left, right) = axes
    y = generator.integers(top[:, None, None], bottom[:, None, None], pooled)
    x = generator.integers(left[:, None], right[:, None], pooled)
    masks = (y * width + x) * channels + np.arange(channels)
    if include_batch_in_index:
        masks += np.arange(batch)[:, None, None, None] * height * width * channels
    return np.asarray(masks, dtype)
