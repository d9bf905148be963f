"""Every reference model, small enough to train in a test."""

from collections.abc import Callable
from typing import Any, NamedTuple


class ModelCase(NamedTuple):
    """How a model is built and what goes in and comes out."""

    build: Callable[[], Any]  # the model, for images of any size
    channels: int = 3  # of the images
    num_classes: int | None = None  # of the logits; None: the model returns images
    scale: int = 1  # output size over input size
    sizes: tuple[tuple[int, int], ...] = ((31, 37), (8, 64), (1, 1))  # that it must take
    highest: float = 1.0  # grey value of white


def model_cases() -> dict[str, ModelCase]:
    """Returns the cases by their names; TensorFlow is imported here only."""
    return {}
