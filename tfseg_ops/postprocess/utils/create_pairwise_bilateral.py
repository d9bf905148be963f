"""Features of a kernel of positions and colours."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfseg_ops.postprocess.utils.create_pairwise_gaussian import create_pairwise_gaussian


def create_pairwise_bilateral(
    sdims: Sequence[float], schan: float | Sequence[float], img: Any, chdim: int = -1
) -> np.ndarray:
    """Returns positions and channels of an image of any rank, in units of standard deviations.

    Args:
        sdims: standard deviations along the dimensions, in pixels.
        schan: those of the channels, or one for all, in units of `img`.
        img: real numbers, with channels or without.
        chdim: the dimension of the channels; -1 means that there is none, and one channel.

    Returns:
        `[dimensions + channels, points]`, float32, for `DenseCRF.addPairwiseEnergy`.

    Raises:
        ValueError: not as many standard deviations as dimensions or channels.
    """
    image = np.asarray(img)
    image = image[np.newaxis] if chdim == -1 else np.moveaxis(image, chdim, 0)
    channels = len(image)
    sdevs: Any = [schan] * channels if np.ndim(schan) == 0 else schan
    for argument, numbers, count in (
        ("sdims", sdims, image.ndim - 1),
        ("schan", sdevs, channels),
    ):
        if len(numbers) != count:
            raise ValueError(
                f"create_pairwise_bilateral: '{argument}' must be {count} numbers, "
                f"got {list(numbers)}"
            )
    colors = np.array(image, np.float32, order="C")
    for channel, sdev in zip(colors, sdevs, strict=True):
        channel /= sdev
    return np.concatenate(
        [create_pairwise_gaussian(sdims, image.shape[1:]), colors.reshape(channels, -1)]
    )
