"""Weight maps that make a network learn the gaps between touching objects."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfseg_ops import _checks
from tfseg_ops.weights._maps import map_images, scipy_ndimage

# At this many sigma the term is exp(-32) of its size, nothing beside the weight of a class.
_REACH = 8.0


def border_weights(
    instances: Any,
    w0: float = 10.0,
    sigma: float = 5.0,
    class_weights: Sequence[float] | None = None,
) -> np.ndarray:
    """Weighs pixels by how narrow the gap between the two nearest objects is.

        weight(x) = w_c(x) + w0 exp(-(d1(x) + d2(x))^2 / (2 sigma^2))

    `d1` and `d2` are the Euclidean distances to the nearest and the second nearest instance, from
    pixel to pixel, 0 inside an instance: so the term is largest in narrow gaps, and on the rims of
    instances that touch. With one instance or none there is no gap and no term. Distances
    above 8 sigma are taken as infinite.

    Args:
        instances: `[height, width]` or `[batch, height, width]`, integers: 0 is background, and
            each other number an instance, whether connected or not.
        w0: the term at distances of 0, at least 0.
        sigma: in pixels, more than 0.
        class_weights: `w_c` of background and objects, `[2]`, at least 0; None: 1 of both.

    Returns:
        Weights with the shape of `instances`, float32.

    Raises:
        TypeError: `instances` are no integers.
        ValueError: a wrong shape, a negative number of an instance, or a wrong option.
        ImportError: scipy is missing.

    Example:
        >>> weights = border_weights(instances)
        >>> model.fit(images, (instances > 0).astype("uint8"), sample_weight=weights)

    References:
        Ronneberger, Fischer & Brox 2015, "U-Net: convolutional networks for biomedical image
        segmentation", equation 2.
    """
    op = "border_weights"
    w0, sigma = _checks.not_negative(op, "w0", w0), _checks.positive(op, "sigma", sigma)
    given = [1, 1] if class_weights is None else class_weights
    of_classes = np.array(_checks.weights_of_classes(op, given))
    if len(of_classes) != 2:
        _checks.refuse(op, "class_weights", "have shape [2]", list(of_classes.shape))
    scipy_ndimage(op)

    def weigh(image: np.ndarray) -> np.ndarray:
        if image.min() < 0:
            _checks.refuse(op, "instances", "not be negative", image.min())
        # No distance is longer than both sides.
        reach = math.ceil(min(_REACH * sigma, sum(image.shape)))
        with np.errstate(over="ignore"):  # far away, in a tiny sigma
            gap = np.square(np.sum(_two_nearest(image, reach), axis=0) / sigma)
        weights: np.ndarray = of_classes[(image > 0).astype(int)]
        return weights + w0 * np.exp(-gap / 2)

    return map_images(op, "instances", instances, weigh)


def _two_nearest(image: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distances to the nearest and second nearest instance, infinite beyond `reach`."""
    ndimage = scipy_ndimage("border_weights")
    nearest, second = np.full(image.shape, np.inf), np.full(image.shape, np.inf)
    numbers, labels = np.unique(image, return_inverse=True)
    # Background or not, the first number becomes 0, which `find_objects` leaves out.
    labels = labels.reshape(image.shape) + (numbers[0] > 0)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        around = tuple(slice(max(0, side.start - reach), side.stop + reach) for side in box)
        distance = ndimage.distance_transform_edt(labels[around] != number)
        distance[distance > reach] = np.inf
        second[around] = np.minimum(second[around], np.maximum(nearest[around], distance))
        nearest[around] = np.minimum(nearest[around], distance)
    return nearest, second
