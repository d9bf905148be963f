"""Prediction of images that are larger than memory, tile by tile."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from tfseg_ops import _checks

_NAME = "predict_tiled"


def predict_tiled(
    model: keras.Model,
    images: Any,
    tile_size: int | tuple[int, int],
    *,
    margin: int | tuple[int, int] | None = None,
    overlap: int | tuple[int, int] | None = None,
    multiple: int = 32,
    batch_size: int = 1,
    out: Any = None,
    verbose: int = 0,
) -> Any:
    """Predicts images by overlapping tiles, with the images mirrored at their borders.

    The overlap-tile strategy of the U-Net's paper, for models whose output is smaller than the tile
    (valid convolutions: the window in its centre), of its size, or a whole number of times larger
    (super-resolution). The result covers the whole image. Memory holds one batch of tiles and the
    result; with memory-mapped `images` and `out` only the batch.

    Each tile's prediction counts `margin` pixels away from its border, and fades linearly into its
    neighbour's over `overlap` pixels; elsewhere it is copied. Tiles begin at multiples of
    `multiple` pixels from the image's first, before which it is mirrored. So wherever a pixel sees
    no further than `margin` (where all layers are valid: any margin will do), the result is that of
    the whole image, unless it sees the border: there a model with padding "same" sees zeros in the
    whole image, the mirrored image here. A pixel of the default `unet` sees up to 107 pixels far;
    122 with upsampling "nearest", 137 with "bilinear", and 16 more for each pixel by which the sum
    of `dilations` is above 2.

    There are two exceptions. Where the windows of strided layers with padding "same" begin depends
    on the size, unless these are pools of 2x2 pixels: then the sizes of the tile and of the images
    must be multiples of the model's total stride, or all pixels differ. And models that see the
    whole image, such as those with a `DenseCRF` or with group normalisation, valid or not, can only
    be approached.

    Args:
        model: of one input and one output, `[batch, height, width, channels]` each. If its input
            has a fixed size, then neither what the layers do can be known, nor whether that size
            and `multiple` suit them: an output smaller than the tile is taken for the window in its
            centre, not enlarged, and any other for the whole tile. Hence a model that crops and
            enlarges must have an input of unknown size.
        images: `[batch, height, width, channels]`, of any size; numpy or anything of such a `shape`
            that is sliced as numpy arrays are (np.memmap, h5py, zarr). Only tiles are read.
        tile_size: the size of the model's input in pixels, an int or `(height, width)`. For a model
            with valid convolutions and poolings a size of which it uses every pixel (572 of the
            U-Net).
        margin: pixels at each side of the model's output that are not used, an int or `(y, x)`;
            None: an eighth of the tile, or 0 where the output is smaller than the tile.
        overlap: pixels over which neighbours are blended, an int or `(y, x)`; 0: none; None: as
            `margin`.
        multiple: of the model's total stride (16 for a U-Net of five levels, 32 for VGG-16), for
            tiles that are pooled in the same windows as the whole image.
        batch_size: tiles predicted at once. The model is called on batches of one shape only.
        out: array for the result, floating, `[batch, scale * height, scale * width, channels]`,
            whose content is overwritten; None: a new one. np.memmap and the like will do.
        verbose: 1 shows a progress bar, 0 nothing.

    Returns:
        `out`: what the model returns (logits are blended as logits), for each pixel of the images.
        A new one is a float32 array, whatever the model's dtype.

    Raises:
        ValueError: a bad argument, an image without pixels, or a model whose output is of another
            kind.

    Example:
        >>> model = unet(2, padding="valid")
        >>> logits = predict_tiled(model, images, tile_size=572, batch_size=4, verbose=1)

    References:
        Ronneberger, Fischer, Brox: U-Net, MICCAI 2015, figure 2 and section 2.
    """
    if not hasattr(images, "shape"):
        images = np.asarray(images)
    if len(images.shape) != 4 or 0 in images.shape:
        rule = "have shape [batch, height, width, channels] without zeros"
        _checks.refuse(_NAME, "images", rule, list(images.shape))
    tile = _checks.pair(_NAME, "tile_size", tile_size)
    multiple = _checks.integer(_NAME, "multiple", multiple, 1)
    batch_size = _checks.integer(_NAME, "batch_size", batch_size, 1)
    verbose = _checks.integer(_NAME, "verbose", verbose, 0, 1)
    scale, crop, classes = _geometry(model, tile, images.shape[3], multiple)
    default = [0, 0] if any(crop) else [size // 8 for size in tile]
    margins = _pair("margin", margin, default)
    overlaps = _pair("overlap", overlap, default)
    rows, columns = (
        _parts(images.shape[1 + i], tile[i], crop[i], margins[i], overlaps[i], multiple, scale)
        for i in (0, 1)
    )
    shape = (images.shape[0], scale * images.shape[1], scale * images.shape[2], classes)
    if out is None:
        out = np.zeros(shape, np.float32)
    else:
        _require_out(out, shape)
        for index in range(shape[0]):
            out[index] = 0

    size = len(rows) * len(columns) * images.shape[0]
    places = ((b, y, x) for b in range(images.shape[0]) for y in rows for x in columns)
    progress = keras.utils.Progbar(size, unit_name="tile") if verbose else None
    dtype = np.asarray(images[0, :1, :1]).dtype
    batch = np.zeros((min(batch_size, size), *tile, images.shape[3]), dtype)
    for begin in range(0, size, len(batch)):
        chosen = list(itertools.islice(places, len(batch)))
        for index, (image, y, x) in enumerate(chosen):
            batch[index] = _mirrored(images, image, (y.start, x.start), tile)
        # The last batch keeps tiles of the one before it, so that it has the same shape.
        (predicted,) = keras.tree.flatten(model.predict_on_batch(batch))
        for (image, y, x), tile_output in zip(chosen, predicted, strict=False):
            weights = y.weights[:, None, None] * x.weights[:, None]
            out[image, y.target, x.target] += weights * tile_output[y.source, x.source]
        if progress is not None:
            progress.update(begin + len(chosen))
    return out


class _Part(NamedTuple):
    """What a tile gives to the result along one axis."""

    start: int  # of the tile in the image; outside it, it is mirrored
    target: slice  # of the result
    source: slice  # of the model's output
    weights: np.ndarray  # of the pixels of the source


def _geometry(
    model: keras.Model, tile: list[int], channels: int, multiple: int
) -> tuple[int, list[int], int]:
    """Returns output pixels per input pixel, input pixels cropped at each side, and channels."""
    if len(getattr(model, "inputs", None) or []) != 1 or len(model.outputs) != 1:
        rule = "be a built functional or sequential model of one input and one output"
        _checks.refuse(_NAME, "model", rule, model)
    wanted = model.input_shape
    if len(wanted) != 4 or wanted[3] not in (None, channels):
        rule = f"have shape {_checks.describe(wanted)}, as the model has it"
        _checks.refuse(_NAME, "images", rule, f"{channels} channels")
    for fixed, size in zip(wanted[1:3], tile, strict=True):
        if fixed not in (None, size):
            rule = f"be the size of the model's input, {_checks.describe(wanted[1:3])}"
            _checks.refuse(_NAME, "tile_size", rule, tile)

    @functools.cache
    def outputs(more: int) -> tuple[int, ...]:
        # An axis of a fixed size keeps it.
        sizes = [size if wanted[1 + i] else size + more for i, size in enumerate(tile)]
        tensor = keras.KerasTensor((1, *sizes, channels), model.inputs[0].dtype)
        # The output may be in a list or a dict.
        (output,) = keras.tree.flatten(model.compute_output_spec(tensor))
        return output.shape

    try:
        shape = outputs(0)
    except ValueError as error:
        _checks.refuse(_NAME, "tile_size", "suit the model", f"{tile}: {error}")
    if len(shape) != 4 or shape[3] is None:
        rule = "return [batch, height, width, channels]"
        _checks.refuse(_NAME, "model", rule, _checks.describe(shape))
    scales, crop = [], []
    for axis in (1, 2):
        scale = max(1, shape[axis] // tile[axis - 1])
        if not wanted[axis]:
            scale = _scale(outputs, axis, tile, multiple)
        lost = tile[axis - 1] - shape[axis] / scale
        if lost < 0 or lost % 2:
            rule = "return the tile or a window in its centre, a whole number of times larger"
            if wanted[axis]:
                rule = (
                    "return the tile, a whole number of times larger, or a window in its centre, "
                    "or have an input of unknown size"
                )
            got = f"{_checks.describe(shape[1:3])} of {tile}"
            _checks.refuse(_NAME, "model", rule, got)
        scales.append(scale)
        crop.append(int(lost) // 2)
    if scales[0] != scales[1]:
        _checks.refuse(_NAME, "model", "enlarge height and width alike", scales)
    return scales[0], crop, shape[3]


def _scale(
    outputs: Callable[[int], tuple[int, ...]], axis: int, tile: list[int], multiple: int
) -> int:
    """Returns output pixels per input pixel, from output shapes of tiles larger by some pixels."""

    def output(more: int) -> int:
        return outputs(more)[axis]

    growth = output(multiple) - output(0)
    if output(2 * multiple) - output(multiple) != growth or growth == 0:
        _checks.refuse(_NAME, "multiple", "be a multiple of the model's total stride", multiple)
    if growth % multiple:
        rule = "return at least one pixel for each of the tile's"
        _checks.refuse(_NAME, "model", rule, f"{growth} for {multiple}")
    scale = growth // multiple
    # Where pooling rounds down, some sizes leave their last pixels unused: the window that the
    # model returns is in the centre of the used ones.
    unused = next(
        less for less in range(multiple) if output(multiple - less - 1) < output(multiple)
    )
    # Where it rounds up, some sizes bring pixels that are not the tile's.
    if (tile[axis - 1] - unused) * scale < output(0):
        lacking = next(more for more in range(multiple) if output(more + 1) > output(0))
        if lacking:
            rule = f"be one that the model does not round up, such as {lacking} pixels more"
            _checks.refuse(_NAME, "tile_size", rule, tile)
    elif unused:
        rule = f"be one of which the model uses every pixel, such as {unused} pixels fewer"
        _checks.refuse(_NAME, "tile_size", rule, tile)
    return scale


def _parts(
    size: int, tile: int, crop: int, margin: int, overlap: int, multiple: int, scale: int
) -> list[_Part]:
    """Lays tiles over an axis of so many pixels."""
    inset = crop + margin
    least = 2 * inset + overlap + multiple * math.ceil(max(1, overlap) / multiple)
    if tile < least:
        rule = (
            f"be at least {least} for {crop} pixels lost by the model and a margin of {margin} at "
            f"each side, an overlap of {overlap} and steps of a multiple of {multiple}"
        )
        _checks.refuse(_NAME, "tile_size", rule, tile)
    used = tile - 2 * inset
    step = (used - overlap) // multiple * multiple
    first = -multiple * math.ceil(inset / multiple)
    count = 1 + max(0, math.ceil((size - (first + inset + used)) / step))
    parts = []
    for index in range(count):
        start = first + index * step
        # Neighbours blend in the middle of what both of them know.
        rise = start + inset + (used - step - overlap) // 2
        fall = rise + step
        low = rise if index else 0
        high = fall + overlap if index + 1 < count else size
        place = np.arange(scale * low, scale * high) + 0.5
        weights = np.ones(len(place), np.float32)
        if overlap and index:
            weights = np.minimum(weights, (place - scale * rise) / (scale * overlap))
        if overlap and index + 1 < count:
            weights = np.minimum(weights, 1 - (place - scale * fall) / (scale * overlap))
        source = slice(scale * (low - start - crop), scale * (high - start - crop))
        target = slice(scale * low, scale * high)
        parts.append(_Part(start, target, source, weights.astype(np.float32)))
    return parts


def _mirrored(images: Any, index: int, start: tuple[int, int], tile: list[int]) -> np.ndarray:
    """A tile of an image, which is mirrored at its borders as often as needed."""
    rows, columns = (
        _reflected(begin, length, size)
        for begin, length, size in zip(start, tile, images.shape[1:3], strict=True)
    )
    top, left = rows.min(), columns.min()
    block = np.asarray(images[index, top : rows.max() + 1, left : columns.max() + 1])
    return block[(rows - top)[:, None], columns - left]


def _reflected(start: int, length: int, size: int) -> np.ndarray:
    """Positions in [0, size) of a range that goes beyond it; the outermost are not repeated."""
    period = max(1, 2 * (size - 1))
    place = np.arange(start, start + length) % period
    return np.minimum(place, period - place)


def _pair(argument: str, value: Any, default: list[int]) -> list[int]:
    """Returns two ints of at least 0, for height and width."""
    if value is None:
        return default
    pair = value if isinstance(value, list | tuple) else [value, value]
    if len(pair) != 2:
        _checks.refuse(_NAME, argument, "be an int or (y, x)", value)
    return [_checks.integer(_NAME, argument, one, 0) for one in pair]


def _require_out(out: Any, shape: tuple[int, ...]) -> None:
    if not all(hasattr(out, name) for name in ("shape", "dtype", "__setitem__")):
        _checks.refuse(_NAME, "out", "be an array that can be written to", type(out).__name__)
    if tuple(out.shape) != shape:
        _checks.refuse(_NAME, "out", f"have shape {list(shape)}", list(out.shape))
    if not np.issubdtype(out.dtype, np.floating):
        _checks.refuse(_NAME, "out", "be of a floating dtype", out.dtype)
