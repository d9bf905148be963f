"""Features of a kernel of positions."""

from collections.abc import Sequence

import numpy as np


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> np.ndarray:
    """Returns positions on a grid of any rank, in units of standard deviations.

    For a 2-D grid, `[height, width]`, the kernel is that of `DenseCRF2D.addPairwiseGaussian`, but
    y comes first.

    Args:
        sdims: standard deviations, in pixels, one for each dimension.
        shape: the size of each dimension.

    Returns:
        `[dimensions, points]`, float32, for `DenseCRF.addPairwiseEnergy`.

    Raises:
        ValueError: not as many standard deviations as dimensions.
    """
    if len(sdims) != len(shape):
        raise ValueError(
            f"create_pairwise_gaussian: 'sdims' must be {len(shape)} numbers, got {list(sdims)}"
        )
    features = np.empty((len(shape), *shape), np.float32)
    for axis, (sdev, size) in enumerate(zip(sdims, shape, strict=True)):
        positions = np.arange(size, dtype=np.float32)
        positions /= sdev
        features[axis] = positions.reshape(
            [-1 if other == axis else 1 for other in range(len(shape))]
        )
    return features.reshape(len(shape), -1)
