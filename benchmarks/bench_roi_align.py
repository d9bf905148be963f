"""Times `roi_align` beside the gather of `pure_tf` and the `crop_and_resize` that users run."""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from benchmarks.bound import bound_cases
from benchmarks.case import (
    FORWARD,
    FORWARD_BACKWARD,
    Benchmark,
    Case,
    CaseKey,
    Goal,
    Outputs,
    Run,
    Traffic,
)
from benchmarks.harness import compiled
from tfseg_ops import ops, pure_tf
from tfseg_ops.pure_tf.roi_align import roi_align_by_crop_and_resize


class _Sizes(NamedTuple):
    """The first map, of 1/4 of the image's pixels along each axis, and how large its boxes are."""

    height: int
    width: int
    channels: int
    sides: tuple[int, int]  # the least and the largest, in multiples of `_STEP` image pixels


class _Variant(NamedTuple):
    """What is cut out of what."""

    num_boxes: int
    bins: int
    ratio: int = 2
    num_levels: int = 1
    to_boxes: bool = False  # whether there is a gradient to the boxes, besides that to the features


# Sides of 42 to 392 image pixels. Multiples of 14 have bins of whole eighths of a pixel: weights
# are whole sixteenths, and with small integers for features all paths agree to the bit.
_STEP = 14
_FULL = _Sizes(200, 272, 256, (3, 28))
_SMOKE = _Sizes(20, 28, 3, (3, 5))
_SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)

_MANY, _LARGE = "1000 boxes, 7x7", "100 boxes, 14x14"
_VARIANTS = {
    _MANY: _Variant(1000, 7),
    _LARGE: _Variant(100, 14),
    "4 levels, 1000 boxes, 7x7": _Variant(1000, 7, num_levels=4),
    "1000 boxes, 7x7, adaptive": _Variant(1000, 7, ratio=0),
    "1000 boxes, 7x7, gradient to boxes too": _Variant(1000, 7, to_boxes=True),
}
# Maps, boxes, indices, levels, upstream.
Inputs = tuple[list[tf.Tensor], tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]
Align = Callable[[Sequence[tf.Tensor], tf.Tensor, tf.Tensor, tf.Tensor, _Variant], tf.Tensor]


def cases(smoke: bool, threads: int, device: str) -> list[Case]:
    """All cases: direction and variant times path."""
    result = []
    for direction in (FORWARD, FORWARD_BACKWARD):
        for name, variant in _VARIANTS.items():
            if direction == FORWARD and variant.to_boxes:
                continue
            traffic = _traffic(smoke, direction, variant)
            for path, mode in _paths(variant):
                setup = functools.partial(_setup, smoke, direction, variant, path, mode)
                result.append(Case(_key(direction, name, path, mode), setup, traffic))
            result += bound_cases(
                _key(direction, name, "native", "graph"), traffic, threads, device
            )
    return result


def _paths(variant: _Variant) -> list[tuple[str, str]]:
    paths = [("native", "graph"), ("native", "xla")]
    if variant.ratio:
        paths += [("pure_tf", "graph"), ("pure_tf", "xla")]
        if variant.num_levels == 1:
            paths.append(("crop_and_resize", "graph"))
    return paths


def _native(
    features: Sequence[tf.Tensor],
    boxes: tf.Tensor,
    indices: tf.Tensor,
    levels: tf.Tensor,
    variant: _Variant,
) -> tf.Tensor:
    if variant.num_levels == 1:
        return ops.roi_align(
            features[0], boxes, indices, variant.bins, _SCALES[0], sampling_ratio=variant.ratio
        )
    scales = _SCALES[: variant.num_levels]
    return ops.multilevel_roi_align(
        features, boxes, indices, levels, variant.bins, scales, sampling_ratio=variant.ratio
    )


def _pure_tf(
    features: Sequence[tf.Tensor],
    boxes: tf.Tensor,
    indices: tf.Tensor,
    levels: tf.Tensor,
    variant: _Variant,
) -> tf.Tensor:
    scales = _SCALES[: variant.num_levels]
    return pure_tf.multilevel_roi_align(
        features, boxes, indices, levels, variant.bins, scales, sampling_ratio=variant.ratio
    )


def _crop_and_resize(
    features: Sequence[tf.Tensor],
    boxes: tf.Tensor,
    indices: tf.Tensor,
    levels: tf.Tensor,
    variant: _Variant,
) -> tf.Tensor:
    del levels
    return roi_align_by_crop_and_resize(
        features[0], boxes, indices, variant.bins, _SCALES[0], variant.ratio
    )


_ALIGN: dict[str, Align] = {
    "native": _native,
    "pure_tf": _pure_tf,
    "crop_and_resize": _crop_and_resize,
}


def _setup(smoke: bool, direction: str, variant: _Variant, path: str, mode: str) -> Run:
    maps, boxes, indices, levels, upstream = _inputs(smoke, variant)
    align = _ALIGN[path]
    # What rounds differently on each path has a name of its own, and is not compared.
    own = f" of {path}" if path == "crop_and_resize" else ""

    def forward(
        boxes: tf.Tensor, indices: tf.Tensor, levels: tf.Tensor, *maps: tf.Tensor
    ) -> Outputs:
        return {f"output{own}": align(maps, boxes, indices, levels, variant)}

    def forward_backward(
        upstream: tf.Tensor,
        boxes: tf.Tensor,
        indices: tf.Tensor,
        levels: tf.Tensor,
        *maps: tf.Tensor,
    ) -> Outputs:
        sources = {f"gradient to features {n}{own}": level for n, level in enumerate(maps)}
        if variant.to_boxes:
            sources[f"gradient to boxes of {path} {mode}"] = boxes
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(sources.values()))
            output = align(maps, boxes, indices, levels, variant)
        gradients = tape.gradient(output, sources, upstream)
        dense = {name: tf.convert_to_tensor(gradient) for name, gradient in gradients.items()}
        return {f"output{own}": output, **dense}

    if direction == FORWARD:
        return compiled(forward, (boxes, indices, levels, *maps), mode)
    return compiled(forward_backward, (upstream, boxes, indices, levels, *maps), mode)


def _boxes(smoke: bool, variant: _Variant) -> np.ndarray:
    """Boxes inside the image, a quarter pixel beside whole ones: each point reads four pixels."""
    random = np.random.default_rng(0)
    sizes = _SMOKE if smoke else _FULL
    count = min(variant.num_boxes, 12) if smoke else variant.num_boxes
    sides = _STEP * random.integers(*sizes.sides, (count, 2), endpoint=True)
    image = np.array([sizes.height, sizes.width]) * 4
    first = np.floor(random.uniform(size=(count, 2)) * (image - sides)) + 0.25
    return np.concatenate([first, first + sides], axis=1).astype(np.float32)


def _shapes(smoke: bool, variant: _Variant) -> list[tuple[int, int, int, int]]:
    sizes = _SMOKE if smoke else _FULL
    return [
        (1, -(-sizes.height // 2**n), -(-sizes.width // 2**n), sizes.channels)
        for n in range(variant.num_levels)
    ]


def _levels(boxes: np.ndarray, variant: _Variant) -> np.ndarray:
    return np.asarray(ops.fpn_levels(boxes, variant.num_levels))


@functools.lru_cache(maxsize=1)
def _inputs(smoke: bool, variant: _Variant) -> Inputs:
    """Small integers for features and upstream gradient."""
    random = np.random.default_rng(1)
    shapes, boxes = _shapes(smoke, variant), _boxes(smoke, variant)
    output = (len(boxes), variant.bins, variant.bins, shapes[0][3])
    return (
        [tf.constant(random.integers(-8, 9, shape), tf.float32) for shape in shapes],
        tf.constant(boxes),
        tf.zeros([len(boxes)], tf.int32),
        tf.constant(_levels(boxes, variant), tf.int32),
        tf.constant(random.integers(-2, 3, output), tf.float32),
    )


@functools.lru_cache
def _pixels_read(smoke: bool, variant: _Variant) -> int:
    """How many pixels of all maps the sample points read, each counted once."""
    boxes, shapes = _boxes(smoke, variant), _shapes(smoke, variant)
    read = [np.zeros(shape[1:3], bool) for shape in shapes]
    for box, level in zip(boxes, _levels(boxes, variant), strict=True):
        lines = [
            _lines_read(box[axis], box[axis + 2], _SCALES[level], extent, variant)
            for axis, extent in enumerate(shapes[level][1:3])
        ]
        read[level][np.ix_(*lines)] = True
    return sum(int(level.sum()) for level in read)


def _lines_read(
    first: float, second: float, scale: float, extent: int, variant: _Variant
) -> np.ndarray:
    """The rows or columns that the points of a box along an axis read."""
    size = (second - first) * scale
    points = variant.bins * (variant.ratio or int(np.ceil(size / variant.bins)))
    positions = first * scale - 0.5 + (np.arange(points) + 0.5) * size / points
    positions = positions.clip(0, extent - 1)
    return np.union1d(np.floor(positions), np.ceil(positions)).astype(int)


def _traffic(smoke: bool, direction: str, variant: _Variant) -> Traffic:
    shapes, num_boxes = _shapes(smoke, variant), len(_boxes(smoke, variant))
    channels = shapes[0][3]
    output = num_boxes * variant.bins**2 * channels * 4
    pixels = _pixels_read(smoke, variant) * channels * 4
    boxes, indices = num_boxes * 16, num_boxes * 4 * (1 if variant.num_levels == 1 else 2)
    forward = Traffic(read=pixels + boxes + indices, written=output)
    if direction == FORWARD:
        return forward
    features = sum(int(np.prod(shape)) * 4 for shape in shapes)
    again = pixels if variant.to_boxes else 0
    return Traffic(
        read=forward.read + output + boxes + indices + again,
        written=forward.written + features + (boxes if variant.to_boxes else 0),
    )


def _sizes(smoke: bool) -> str:
    sizes = _SMOKE if smoke else _FULL
    low, high = (_STEP * side for side in sizes.sides)
    return (
        f"features {[1, sizes.height, sizes.width, sizes.channels]} at 1/4 of the image, boxes "
        f"with sides of {low} to {high} image pixels, 2x2 points in a bin; backward is the "
        f"gradient to the features"
    )


def _key(direction: str, variant: str, path: str, mode: str) -> CaseKey:
    return CaseKey("roi_align", direction, "float32", variant, path, mode)


_RIVALS = {
    ("crop_and_resize", "graph"): "tf.image.crop_and_resize + tf.nn.avg_pool2d",
    ("pure_tf", "xla"): "the gather under XLA",
    ("pure_tf", "graph"): "the gather in a graph",
}


def _goal(direction: str, variant: str, path: str, mode: str, required: float) -> Goal:
    slow = _key(direction, variant, path, mode)
    text = f"{direction}, {variant}: native over {_RIVALS[path, mode]}"
    return Goal(text, slow, slow._replace(path="native", mode="graph"), required)


BENCHMARK = Benchmark(
    name="roi_align",
    sizes=_sizes,
    cases=cases,
    goals=tuple(
        _goal(direction, variant, path, mode, required)
        for variant in (_MANY, _LARGE)
        for direction, ratios in ((FORWARD, (3, 2.5, 10)), (FORWARD_BACKWARD, (2.5, 5, 10)))
        for (path, mode), required in zip(_RIVALS, ratios, strict=True)
    ),
)

if __name__ == "__main__":
    from benchmarks.command_line import main

    raise SystemExit(main(["roi_align", *sys.argv[1:]]))
