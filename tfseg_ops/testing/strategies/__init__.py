"""Hypothesis strategies for NHWC images, class masks, boxes, pooling windows and pooling masks.

Needs hypothesis: `pip install "tfseg_ops[test]"`. Sizes, and what kind of content there is, are
drawn by hypothesis and shrink; numbers come from a numpy generator with a drawn seed, which keeps
drawing fast. A size is an int, or a strategy of ints to draw it from.
"""

from __future__ import annotations

try:
    import hypothesis  # noqa: F401
except ImportError as error:
    raise ImportError(
        "tfseg_ops.testing.strategies: needs hypothesis, which is not installed: "
        'pip install "tfseg_ops[test]"'
    ) from error

from .argmax_masks import argmax_masks
from .boxes import boxes
from .class_masks import class_masks
from .images import images
from .windows import windows

__all__ = ["argmax_masks", "boxes", "class_masks", "images", "windows"]
