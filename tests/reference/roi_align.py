"""RoI Align over one or several levels, both gradients and the rules for indices, by plain loops.

Positions are computed in the accumulator's dtype and in the order of `cc/core/roi_align.h`, so that
rounding decides alike where samples leave the map and how many there are. All else is float64.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

MOST_POINTS = 2**20


def roi_align(
    features: np.ndarray,
    boxes: np.ndarray,
    box_indices: np.ndarray,
    output_size: Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> np.ndarray:
    """Averages the bilinear samples of each bin, and rounds once at the end."""
    levels = np.zeros_like(box_indices)
    return multilevel_roi_align(
        [features],
        boxes,
        box_indices,
        levels,
        output_size,
        [spatial_scale],
        sampling_ratio,
        aligned,
    )


def multilevel_roi_align(
    features: Sequence[np.ndarray],
    boxes: np.ndarray,
    box_indices: np.ndarray,
    levels: np.ndarray,
    output_size: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> np.ndarray:
    """Averages the bilinear samples of each bin, and rounds once at the end.

    Raises ValueError at the first illegal index or level, with the words of the ops.
    """
    require_legal(box_indices, levels, features[0].shape[0], len(features))
    means = np.zeros((len(boxes), *output_size, features[0].shape[3]))
    sizes = [level.shape[1:3] for level in features]
    for k, y, x in _cuts(
        boxes, box_indices, levels, output_size, sizes, spatial_scales, sampling_ratio, aligned
    ):
        image = features[levels[k]][box_indices[k]]
        for p, rows in enumerate(y.weights()):
            for q, columns in enumerate(x.weights()):
                means[k, p, q] = _product(image, rows, columns)
    return _rounded(means, features[0].dtype)


def features_grad(
    grad: np.ndarray,
    boxes: np.ndarray,
    box_indices: np.ndarray,
    levels: np.ndarray,
    sizes: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> list[np.ndarray]:
    """Adds to each pixel the gradients of the bins that read it, times what they read of it.

    `sizes` are those of the features: [batch, height, width of level 0, height, ...].
    """
    require_legal(box_indices, levels, sizes[0], len(spatial_scales))
    pixels = [(sizes[1 + 2 * n], sizes[2 + 2 * n]) for n in range(len(spatial_scales))]
    sums = [np.zeros((sizes[0], *size, grad.shape[3])) for size in pixels]
    bins = grad.shape[1:3]
    for k, y, x in _cuts(
        boxes, box_indices, levels, bins, pixels, spatial_scales, sampling_ratio, aligned
    ):
        image = sums[levels[k]][box_indices[k]]
        upstream = grad[k].astype(np.float64)
        rows_of, columns_of = y.weights(), x.weights()
        for p, q in np.ndindex(*bins):
            for i, weight_y in rows_of[p].items():
                for j, weight_x in columns_of[q].items():
                    image[i, j] += weight_y * weight_x * upstream[p, q]
    return [_rounded(level, grad.dtype) for level in sums]


def boxes_grad(
    grad: np.ndarray,
    features: Sequence[np.ndarray],
    boxes: np.ndarray,
    box_indices: np.ndarray,
    levels: np.ndarray,
    spatial_scales: Sequence[float],
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> np.ndarray:
    """Moves each corner: the derivative of `sum(grad * output)`, in the dtype of the boxes."""
    require_legal(box_indices, levels, features[0].shape[0], len(features))
    sums = np.zeros((len(boxes), 4))
    sizes = [level.shape[1:3] for level in features]
    bins = grad.shape[1:3]
    for k, y, x in _cuts(
        boxes, box_indices, levels, bins, sizes, spatial_scales, sampling_ratio, aligned
    ):
        image = features[levels[k]][box_indices[k]]
        upstream = grad[k].astype(np.float64)
        factors = [
            (y.derivatives(0), x.weights()),
            (y.weights(), x.derivatives(0)),
            (y.derivatives(1), x.weights()),
            (y.weights(), x.derivatives(1)),
        ]
        for corner, (rows, columns) in enumerate(factors):
            for p, q in np.ndindex(*bins):
                sums[k, corner] += np.dot(_product(image, rows[p], columns[q]), upstream[p, q])
    return _rounded(sums, boxes.dtype)


def fpn_levels(
    boxes: np.ndarray,
    num_levels: int = 4,
    finest_level: int = 2,
    canonical_size: float = 224.0,
    canonical_level: int = 4,
) -> np.ndarray:
    """Equation 1 of Lin et al. 2017, "Feature Pyramid Networks", box by box; 0 without an area."""
    indices = np.zeros(boxes.shape[:-1], np.int32)
    for place in np.ndindex(*indices.shape):
        y1, x1, y2, x2 = (float(number) for number in boxes[place])
        if y2 > y1 and x2 > x1:
            size = math.sqrt((y2 - y1) * (x2 - x1))
            level = canonical_level + math.log2(size / canonical_size)
            if level >= finest_level:
                coarsest = finest_level + num_levels - 1
                indices[place] = math.floor(min(level, coarsest)) - finest_level
    return indices


def require_legal(box_indices: np.ndarray, levels: np.ndarray, batch: int, num_levels: int) -> None:
    """Raises ValueError at the first illegal index or level, with the words of the ops."""
    op = "roi_align" if num_levels == 1 else "multilevel_roi_align"
    for k, (index, level) in enumerate(zip(box_indices, levels, strict=True)):
        if not -1 <= index < batch:
            raise ValueError(
                f"{op}: 'box_indices' must be -1 or lie in [0, {batch}), got {index} at [{k}]"
            )
        if index != -1 and not 0 <= level < num_levels:
            raise ValueError(f"{op}: 'levels' must lie in [0, {num_levels}), got {level} at [{k}]")


class Axis(NamedTuple):
    """The sample points of a box along one axis, in pixels of its map."""

    start: Any  # scalars of the accumulator's dtype
    bin: Any
    points: int  # of a bin
    bins: int
    extent: int  # of the map
    widened: bool  # to one pixel: the second coordinate moves nothing
    scale: float

    def weights(self) -> list[dict[int, float]]:
        """What each bin reads: the pixels of a weight above zero, and that weight."""
        result = []
        for p in range(self.bins):
            position, _ = self._points_inside(p)
            low, fraction, _ = self._neighbours(position)
            result.append(self._by_pixel([(low, 1 - fraction), (low + 1, fraction)]))
        return result

    def derivatives(self, which: int) -> list[dict[int, float]]:
        """The derivatives of `weights` by the first (0) or second (1) coordinate of the box."""
        result = []
        for p in range(self.bins):
            position, share = self._points_inside(p)
            low, _, moves = self._neighbours(position)
            speed = self.scale * (share if which else 1 - share) * moves
            result.append(self._by_pixel([(low, -speed), (low + 1, speed)]))
        return result

    def _points_inside(self, p: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions within [-1, extent], and how far along the box they lie, from 0 to 1."""
        wide = type(self.start)
        i = np.arange(self.points).astype(wide)
        with np.errstate(over="ignore"):
            within_bin = (i + wide(0.5)) * self.bin / wide(self.points)
            position = self.start + wide(p) * self.bin + within_bin
        inside = (position >= -1) & (position <= self.extent)
        share = (p + (i[inside].astype(np.float64) + 0.5) / self.points) / self.bins
        return position[inside], np.zeros_like(share) if self.widened else share

    def _neighbours(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pixel at or before each position, the weight of the next, and whether it may move."""
        low = np.clip(np.floor(position), 0, self.extent - 1).astype(int)
        moves = (position >= 0) & (low < self.extent - 1)
        return low, np.where(moves, position.astype(np.float64) - low, 0), moves

    def _by_pixel(self, shares: list[tuple[np.ndarray, np.ndarray]]) -> dict[int, float]:
        sums = np.zeros(self.extent + 1)
        for pixels, amounts in shares:
            np.add.at(sums, pixels, amounts / self.points)
        return {int(pixel): float(sums[pixel]) for pixel in np.flatnonzero(sums)}


def axis_of(
    first: Any,
    second: Any,
    scale: float,
    bins: int,
    extent: int,
    sampling_ratio: int,
    aligned: bool,
) -> Axis:
    """The axis of two coordinates in image pixels, which are scalars of the accumulator's dtype."""
    wide = type(first)
    offset = wide(0.5 if aligned else 0)
    with np.errstate(over="ignore", invalid="ignore"):
        factor = wide(np.float32(scale))
        start = first * factor - offset
        size = second * factor - offset - start
    widened = not aligned and not size >= 1
    if widened:
        size = wide(1)
    finite = bool(np.isfinite([first, second, start, size]).all())
    bin_size = size / wide(bins) if finite else wide(0)
    points = sampling_ratio or math.ceil(min(max(bin_size, 0), MOST_POINTS))
    if not finite or extent == 0:
        points = 0
    return Axis(start, bin_size, points, bins, extent, widened, float(factor))


def _cuts(
    boxes: np.ndarray,
    box_indices: np.ndarray,
    levels: np.ndarray,
    bins: Sequence[int],
    sizes: Sequence[Sequence[int]],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> Iterator[tuple[int, Axis, Axis]]:
    """The boxes that have sample points: number, points along y, points along x."""
    for k, (y1, x1, y2, x2) in enumerate(boxes):
        if box_indices[k] == -1:
            continue
        (height, width), scale = sizes[levels[k]], spatial_scales[levels[k]]
        y = axis_of(y1, y2, scale, bins[0], height, sampling_ratio, aligned)
        x = axis_of(x1, x2, scale, bins[1], width, sampling_ratio, aligned)
        if y.points > 0 and x.points > 0:
            yield k, y, x


def _product(image: np.ndarray, rows: dict[int, float], columns: dict[int, float]) -> np.ndarray:
    """The sum of the pixels named, each times its two numbers, for each channel."""
    window = image[np.ix_(list(rows), list(columns))].astype(np.float64)
    by_row = np.array(list(rows.values()))[:, None, None]
    by_column = np.array(list(columns.values()))[:, None]
    with np.errstate(invalid="ignore"):
        total: np.ndarray = (window * by_row * by_column).sum((0, 1))
    return total


def _rounded(sums: np.ndarray, dtype: Any) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return sums.astype(dtype)
