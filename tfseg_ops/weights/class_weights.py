"""Weights of classes that make up for how often each occurs."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from tfseg_ops import _checks

METHODS = ("inverse", "log", "median")
_OP = "class_weights"


def class_weights(
    labels: Any, num_classes: int, method: str = "inverse", ignore_label: int | None = None
) -> np.ndarray:
    """Weighs classes by how rare they are in label maps.

    With the share `f_c` of class `c` among the pixels that count, and `k` classes that occur:

        "inverse": 1 / (k f_c), so that all classes that occur weigh the same in sum
        "log":     1 / ln(1.02 + f_c), between 1.4 and 50.5, as in ENet
        "median":  median(f) / f_c, with `f_c` among the pixels of those images only in which `c`
                   occurs, and the median over the classes that occur

    A class that does not occur has weight 0: nothing can be learnt of it, and an infinite weight,
    or the largest, would spoil the loss where it does occur.

    Args:
        labels: `[images, ...]`, integers, or an iterable of label maps of any size (a list, a
            `tf.data.Dataset`), of which each is an image.
        num_classes: at least 1; labels are 0 to `num_classes - 1`.
        method: "inverse", "log" or "median".
        ignore_label: the label of pixels that do not count.

    Returns:
        Weights `[num_classes]`, float32.

    Raises:
        TypeError: labels are no integers, or come with images.
        ValueError: a label is neither a class nor ignored, or there is no such method or
            `num_classes`.

    Example:
        >>> weights = class_weights(labels, num_classes=21, ignore_label=255)
        >>> loss = WeightedCrossEntropy(class_weights=weights, ignore_label=255)

    References:
        Paszke et al. 2016, "ENet: a deep neural network architecture for real-time semantic
        segmentation" ("log").
        Eigen & Fergus 2015, "Predicting depth, surface normals and semantic labels with a common
        multi-scale convolutional architecture" ("median").
    """
    if method not in METHODS:
        _checks.refuse(_OP, "method", f"be one of {', '.join(METHODS)}", method)
    num_classes = _checks.integer(_OP, "num_classes", num_classes, 1)
    ignore_label = _checks.ignore_label_of(_OP, ignore_label)
    pixels = np.zeros(num_classes, np.int64)  # of each class
    in_images = np.zeros(num_classes, np.int64)  # of the images in which the class occurs
    for image in _images(labels):
        counts = _counts(image, num_classes, ignore_label)
        pixels += counts
        in_images += np.where(counts > 0, counts.sum(), 0)
    occurs = pixels > 0
    total = in_images if method == "median" else pixels.sum()
    share = np.divide(pixels, total, out=np.ones(num_classes), where=occurs)
    if method == "inverse":
        weights = 1 / (max(1, occurs.sum()) * share)
    elif method == "log":
        weights = 1 / np.log(1.02 + share)
    else:
        weights = np.median(share[occurs]) / share if occurs.any() else share
    return np.where(occurs, weights, 0).astype(np.float32)


def _images(labels: Any) -> Iterable[np.ndarray]:
    """Yields label maps as arrays."""
    if hasattr(labels, "shape"):
        labels = np.asarray(labels)
        if labels.ndim < 2:
            _checks.refuse(_OP, "labels", "have shape [images, ...]", list(labels.shape))
    for image in labels:
        if isinstance(image, tuple | dict):
            got = f"a {type(image).__name__} for each"
            raise TypeError(f"{_OP}: 'labels' must be label maps alone, got {got}")
        yield np.asarray(image)


def _counts(image: np.ndarray, num_classes: int, ignore_label: int | None) -> np.ndarray:
    """Returns the number of pixels of each class."""
    if image.dtype.kind not in "biu":
        raise TypeError(f"{_OP}: 'labels' must be integers, got {image.dtype}")
    image = image.ravel()
    if ignore_label is not None:
        image = image[image != ignore_label]
    illegal = (image < 0) | (image >= num_classes)
    if illegal.any():
        rule = f"lie in [0, {num_classes}) or be ignored"
        _checks.refuse(_OP, "labels", rule, image[illegal][0])
    return np.bincount(image, minlength=num_classes)
