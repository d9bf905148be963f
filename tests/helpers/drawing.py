"""Hypothesis strategies that need no TensorFlow, for the tests of the core.

Shapes and kinds of content are drawn by hypothesis; numbers come from a numpy generator with a
drawn seed, which keeps drawing fast. Tests above the core use `tfseg_ops.testing.strategies`.
"""

import os
from collections.abc import Sequence
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


class RoiCase(NamedTuple):
    """Arguments of a RoI Align over one or several levels, in the order of the core's function."""

    features: list[np.ndarray]
    boxes: np.ndarray  # in the accumulator's dtype
    box_indices: np.ndarray
    levels: np.ndarray
    output_size: tuple[int, int]
    spatial_scales: list[float]
    sampling_ratio: int
    aligned: bool

    @property
    def sizes(self) -> list[int]:
        """Those of the features: [batch, height, width of level 0, height, ...]."""
        pixels = [int(size) for level in self.features for size in level.shape[1:3]]
        return [self.features[0].shape[0], *pixels]


BOX_KINDS = ("inside", "across", "outside", "small", "halves", "tenths", "reversed", "no area")
WILD_BOX_KINDS = ("not finite", "huge")


def box_of(
    generator: np.random.Generator, kind: str, pixels: Sequence[int], scale: float = 1.0
) -> np.ndarray:
    """Returns [y1, x1, y2, x2] in image pixels, for a map of [height, width] in its own pixels."""
    size = np.array(pixels)
    first, second = np.sort(generator.uniform(0, 1, (2, 2)), axis=0) * size
    if kind == "across":
        first, second = first - generator.uniform(0, 1.5) * size, second + generator.uniform(0, 3)
    elif kind == "outside":
        step = generator.choice([-1.5, 0, 1.5], 2)
        step[generator.integers(2)] = generator.choice([-1.5, 1.5])
        first, second = first + step * (size + 2), second + step * (size + 2)
    elif kind == "small":
        second = first + generator.uniform(0, 1, 2)
    elif kind in ("halves", "tenths"):
        # Sample points on pixels' centres and on the borders where they begin to count. Of tenths
        # it is rounding that decides on which side they stand.
        unit = 2 if kind == "halves" else 10
        first = generator.integers(-2 * unit, unit * size + 4) / unit
        second = first + generator.integers(1, unit * (size + 3)) / unit
    elif kind == "reversed":
        turned = generator.permutation([True, generator.uniform() < 0.5])
        first, second = np.where(turned, second, first), np.where(turned, first, second)
    elif kind == "no area":
        flat = generator.permutation([True, generator.uniform() < 0.5])
        second = np.where(flat, first, second)
    box = np.concatenate([first, second]) / scale
    wild = {
        "not finite": [np.nan, np.inf, -np.inf],
        "huge": [1e9, -1e9, 1e30, -1e30, 3e38, -3e38, 4e6, -4e6],
    }
    if kind in wild:
        chosen = generator.uniform(size=4) < 0.5
        chosen[generator.integers(4)] = True
        box = np.where(chosen, generator.choice(wild[kind], size=4), box)
    return box


@st.composite
def roi_cases(
    draw: st.DrawFn,
    dtypes: st.SearchStrategy[Any] = float_dtypes,
    num_levels: st.SearchStrategy[int] | None = None,
    index_dtype: st.SearchStrategy[Any] = index_dtypes,
    wild: bool = True,
) -> RoiCase:
    """Boxes of all kinds on small maps; now and then an array of no elements.

    With `wild`, some boxes are huge or not finite.
    """
    generator = draw(generators)
    dtype, index = draw(dtypes), draw(index_dtype)
    count = draw(st.sampled_from([1, 1, 2, 3, 5]) if num_levels is None else num_levels)
    channels = draw(st.sampled_from([1, 2, 3, 8, 31, 64, 65, 130]))
    batch, num_boxes = draw(st.integers(1, 3)), draw(st.integers(1, 8))
    side = st.integers(1, 20 if channels < 32 else 7)
    pixels = [[draw(side), draw(side)] for _ in range(count)]
    empty = draw(st.sampled_from(["nothing"] * 9 + ["batch", "boxes", "channels", "map"]))
    if empty == "map":
        pixels[generator.integers(count)][generator.integers(2)] = 0
    batch = 0 if empty == "batch" else batch
    channels = 0 if empty == "channels" else channels
    num_boxes = 0 if empty == "boxes" else num_boxes

    shapes = [(batch, *size, channels) for size in pixels]
    spatial_scales = [draw(st.sampled_from([1.0, 0.5, 0.25, 0.3, 2.0])) for _ in range(count)]
    levels = generator.integers(0, count, num_boxes).astype(index)
    indices = generator.integers(-1 if draw(st.booleans()) or batch == 0 else 0, batch, num_boxes)
    kinds = [draw(st.sampled_from(BOX_KINDS)) for _ in range(num_boxes)]
    if wild and draw(st.integers(0, 3)) == 0:
        kinds = [draw(st.sampled_from((kind, *WILD_BOX_KINDS))) for kind in kinds]
    boxes = [
        box_of(generator, kind, pixels[level], spatial_scales[level])
        for kind, level in zip(kinds, levels, strict=True)
    ]
    ratio = draw(st.sampled_from([0, 0, 1, 2, 3, 4, 9, 17]))
    bins = st.sampled_from([1, 2, 3, 5, 7, 14])
    if "huge" in kinds and ratio == 0:
        bins = st.sampled_from([1, 2])  # the oracle visits a million points in each
    return RoiCase(
        [generator.normal(size=shape).astype(dtype) for shape in shapes],
        np.reshape(boxes, (-1, 4)).astype(np.float64 if dtype == np.float64 else np.float32),
        indices.astype(index),
        levels,
        (draw(bins), draw(bins)),
        spatial_scales,
        ratio,
        draw(st.booleans()),
    )
