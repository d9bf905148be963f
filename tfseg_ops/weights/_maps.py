"""What the weight maps share: checked labels, scipy when it is needed, and a map for each image."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np


def scipy_ndimage(function: str) -> ModuleType:
    """Returns `scipy.ndimage`, or says which extra has it."""
    try:
        import scipy.ndimage
    except ImportError as error:
        raise ImportError(f'{function} needs scipy: pip install "tfseg_ops[weights]"') from error
    return scipy.ndimage


def map_images(
    function: str, argument: str, labels: Any, weigh: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Returns the weights of one label map or of each of a batch, float32."""
    array = np.asarray(labels)
    if array.dtype.kind not in "biu":
        raise TypeError(f"{function}: '{argument}' must be integers, got {array.dtype}")
    if array.ndim not in (2, 3):
        raise ValueError(
            f"{function}: '{argument}' must have shape [height, width] or [batch, height, width], "
            f"got {list(array.shape)}"
        )
    weights = np.ones(array.shape, np.float32)
    batched = (array, weights) if array.ndim == 3 else (array[None], weights[None])
    for image, result in zip(*batched, strict=True):
        if image.size:
            result[...] = weigh(image)
    return weights
