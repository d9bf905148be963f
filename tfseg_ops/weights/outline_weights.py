"""Weight maps that make a network learn outlines."""

from typing import Any

import numpy as np

from tfseg_ops import _checks
from tfseg_ops.weights._maps import map_images, scipy_ndimage


def outline_weights(
    labels: Any, width: int = 1, weight: float = 10.0, ignore_label: int | None = None
) -> np.ndarray:
    """Weighs pixels near an outline, where two labels meet, more than the others.

    A pixel is near an outline if some other label lies within `width` steps to a neighbour in its
    row or column: `width` pixels on both sides. Labels are classes or instances. Where ignored
    pixels begin is no outline.

    Args:
        labels: `[height, width]` or `[batch, height, width]`, integers.
        width: of the outline on each side, in pixels, at least 1.
        weight: of a pixel near an outline, at least 0; all others have 1.
        ignore_label: the label of pixels that do not count; their weight is 1.

    Returns:
        Weights with the shape of `labels`, float32.

    Raises:
        TypeError: `labels` are no integers.
        ValueError: a wrong shape or option.
        ImportError: scipy is missing.

    Example:
        >>> model.fit(images, labels, sample_weight=outline_weights(labels, width=2))
    """
    op = "outline_weights"
    width = _checks.integer(op, "width", width, 1)
    weight = _checks.not_negative(op, "weight", weight)
    ignore_label = _checks.ignore_label_of(op, ignore_label)
    ndimage = scipy_ndimage(op)
    cross = ndimage.generate_binary_structure(2, 1)

    def weigh(image: np.ndarray) -> np.ndarray:
        image = image.astype(np.int64)
        counts = np.ones(image.shape, bool) if ignore_label is None else image != ignore_label
        if not counts.any():
            return np.ones(image.shape)
        # Ignored pixels are neither the highest nor the lowest label nearby.
        low, high = image[counts].min(), image[counts].max()
        highest = ndimage.grey_dilation(np.where(counts, image, low), footprint=cross)
        lowest = ndimage.grey_erosion(np.where(counts, image, high), footprint=cross)
        outline = (highest > lowest) & counts
        if width > 1:
            outline = ndimage.binary_dilation(outline, cross, iterations=width - 1, mask=counts)
        return np.where(outline, weight, 1.0)

    return map_images(op, "labels", labels, weigh)
