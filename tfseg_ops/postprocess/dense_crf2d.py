"""A dense CRF over the pixels of an image."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfseg_ops.postprocess import _arrays
from tfseg_ops.postprocess._types import KernelType, NormalizationType
from tfseg_ops.postprocess.dense_crf import DenseCRF


class DenseCRF2D(DenseCRF):
    """A dense CRF over the pixels of an image, row after row. See `DenseCRF`.

    Args:
        w: the image's width, in pixels. It comes first.
        h: its height.
        nlabels: the number of labels.

    Example:
        >>> crf = DenseCRF2D(width, height, nlabels)
        >>> crf.setUnaryEnergy(unary_from_labels(labels, nlabels, gt_prob=0.7, zero_unsure=False))
        >>> crf.addPairwiseGaussian(sxy=3, compat=3)
        >>> crf.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image, compat=10)
        >>> refined = np.argmax(crf.inference(5), axis=0).reshape(height, width)
    """

    def __init__(self, w: int, h: int, nlabels: int) -> None:
        self._w, self._h = self._positive("w", w), self._positive("h", h)
        super().__init__(self._w * self._h, nlabels)

    def addPairwiseGaussian(
        self,
        sxy: float | Sequence[float],
        compat: Any,
        kernel: int = KernelType.DIAG_KERNEL,
        normalization: int = NormalizationType.NORMALIZE_SYMMETRIC,
    ) -> None:
        """Adds the kernel of positions alone, which smooths.

        Args:
            sxy: its standard deviation in pixels, or that along x and y.
            compat: see `addPairwiseEnergy`.
            kernel: likewise.
            normalization: likewise.
        """
        where = self._where("addPairwiseGaussian")
        features = self._positions(where, sxy, 2)
        self._add_kernel(where, features.reshape(1, -1, 2), compat, kernel, normalization)

    def addPairwiseBilateral(
        self,
        sxy: float | Sequence[float],
        srgb: float | Sequence[float],
        rgbim: Any,
        compat: Any,
        kernel: int = KernelType.DIAG_KERNEL,
        normalization: int = NormalizationType.NORMALIZE_SYMMETRIC,
    ) -> None:
        """Adds the kernel of positions and colours, which follows edges.

        Args:
            sxy: its standard deviation in pixels, or that along x and y.
            srgb: that of colours in [0, 255], or one for each channel.
            rgbim: the image `[h, w, 3]`, integers in [0, 255]. For other images there is
                `utils.create_pairwise_bilateral`.
            compat: see `addPairwiseEnergy`.
            kernel: likewise.
            normalization: likewise.
        """
        where = self._where("addPairwiseBilateral")
        image = _arrays.real(where, "rgbim", rgbim, [self._h, self._w, 3])
        if image.dtype.kind not in "iu":  # colours in [0, 1] would make a kernel that sees none
            raise TypeError(f"{where}: 'rgbim' must be integers in [0, 255], got {image.dtype}")
        features = self._positions(where, sxy, 5)
        for channel, sdev in enumerate(_sdevs(where, "srgb", srgb, 3)):
            np.divide(image[..., channel], sdev, out=features[..., 2 + channel], dtype=np.float32)
        self._add_kernel(where, features.reshape(1, -1, 5), compat, kernel, normalization)

    def _positions(self, where: str, sxy: float | Sequence[float], dimensions: int) -> np.ndarray:
        """Returns features `[h, w, dimensions]` with the first two, x and y, filled in."""
        sx, sy = _sdevs(where, "sxy", sxy, 2)
        features = np.empty((self._h, self._w, dimensions), np.float32)
        features[..., 0] = np.arange(self._w, dtype=np.float32) / sx
        features[..., 1] = np.arange(self._h, dtype=np.float32)[:, np.newaxis] / sy
        return features


def _sdevs(where: str, argument: str, value: float | Sequence[float], count: int) -> np.ndarray:
    """Returns standard deviations, one for each of `count`, in float32 as pydensecrf has them."""
    sdevs = np.asarray(value, np.float32)
    if sdevs.shape not in ((), (count,)):
        raise ValueError(f"{where}: '{argument}' must be a number or {count}, got {value}")
    if not np.all((sdevs > 0) & (sdevs < np.inf)):
        raise ValueError(f"{where}: '{argument}' must be positive and finite, got {value}")
    return np.broadcast_to(sdevs, count)
