"""Label maps of segmentation, with ignored pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

from ._draw import BATCH, SIDE, Size, draw_generator, draw_size


@st.composite
def class_masks(
    draw: st.DrawFn,
    classes: Size = 3,
    batch: Size = BATCH,
    height: Size = SIDE,
    width: Size = SIDE,
    ignore_label: int | None = None,
    dtype: Any = np.uint8,
) -> np.ndarray:
    """Label maps `[batch, height, width]`: rectangles of classes on a background of class 0.

    Args:
        draw: given by hypothesis.
        classes: the labels are 0 to `classes - 1`; at least 1.
        batch: by default 0 to 3.
        height: by default 0 to 9.
        width: by default 0 to 9.
        ignore_label: None, or a label that some maps have in rectangles or everywhere.
        dtype: an integer type that holds the labels.

    Raises:
        ValueError: while drawing: a negative size, no class, or a label that `dtype` does not hold.

    Example:
        >>> @given(class_masks(classes=4, ignore_label=255))
        ... def test_ignored_pixels_do_not_count(labels): ...
    """
    kind = np.dtype(tf.as_dtype(dtype).as_numpy_dtype)
    count = draw_size(draw, "class_masks", "classes", classes, minimum=1)
    shape = tuple(
        draw_size(draw, "class_masks", name, size)
        for name, size in (("batch", batch), ("height", height), ("width", width))
    )
    labels = [*range(count), *([] if ignore_label is None else [ignore_label])]
    if min(labels) < np.iinfo(kind).min or max(labels) > np.iinfo(kind).max:
        raise ValueError(
            f"class_masks: 'dtype' must hold the labels {min(labels)} to {max(labels)}, got {kind}"
        )
    masks = np.zeros(shape, kind)
    if ignore_label is not None and draw(st.integers(0, 9)) == 9:
        masks[:] = ignore_label
        return masks
    rectangles = draw(st.integers(0, 4))
    generator = draw_generator(draw)
    for mask in masks:
        for _ in range(rectangles):
            rows, columns = (
                np.sort(generator.integers(0, side, size=2, endpoint=True)) for side in mask.shape
            )
            mask[slice(*rows), slice(*columns)] = generator.choice(labels)
    return masks
