"""Points, images and lattices for the tests of the dense CRF, and its filters as matrices."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from helpers.drawing import generators

NORMALIZATIONS = ["symmetric", "before", "after", "none"]


def points_of(
    generator: np.random.Generator, batch: int, count: int, dimensions: int, spread: float
) -> np.ndarray:
    """Features of points, some of which are the same, and some on faces of simplices."""
    points = generator.uniform(-spread, spread, (batch, count, dimensions)).astype(np.float32)
    kinds = generator.integers(0, 4, (batch, count))
    points[kinds == 0] = np.round(points[kinds == 0])
    points[kinds == 1] = 0.5 * min(spread, 1)
    return points


@st.composite
def features(draw: Any) -> np.ndarray:
    """Features of 0 to 2 images with 0 to 12 points of 1 to 8 dimensions.

    In more than five they do not spread so wide that a vertex needs more than 128 bits.
    """
    shape = [draw(st.integers(*ends)) for ends in ((0, 2), (0, 12), (1, 8))]
    spread = draw(st.sampled_from([0.1, 1.0, 5.0, 300.0, 1e5 if shape[2] < 6 else 1e3]))
    return points_of(draw(generators), *shape, spread)


def filter_matrices(lattice: Sequence[Any]) -> np.ndarray:
    """The filter of each image as a matrix, [batch, points, points], from a lattice's members."""
    _, vertices, weights, _, _, _, neighbours, _, num_vertices = (np.asarray(m) for m in lattice)
    batch, points, corners = vertices.shape
    matrices = np.zeros((batch, points, points))
    for b in range(batch):
        count = int(num_vertices[b])
        splat = np.zeros((count, points))
        for r in range(corners):
            splat[vertices[b, :, r], np.arange(points)] += weights[b, :, r]
        blurred = splat
        for axis in range(corners):
            blur = np.eye(count + 1)
            for side in range(2):
                blur[np.arange(count), neighbours[b, axis, :count, side]] += 0.5
            blurred = blur[:count, :count] @ blurred
        matrices[b] = splat.T @ blurred / (1 + 2.0 ** (1 - corners))
    return matrices


def exact_matrices(features: np.ndarray) -> np.ndarray:
    """The Gaussian kernel, [batch, points, points]."""
    wide = np.asarray(features, np.float64)
    distances = np.square(wide[:, :, None] - wide[:, None]).sum(-1)
    return np.exp(-0.5 * distances)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last dimension."""
    powers = np.exp(logits - logits.max(-1, keepdims=True, initial=-np.inf))
    return powers / powers.sum(-1, keepdims=True)


def step_of(
    q: np.ndarray,
    unary: np.ndarray,
    matrices: Sequence[np.ndarray],
    kernel_weights: Sequence[Any],
    compatibility: Any = None,
    normalization: Any = "symmetric",
) -> np.ndarray:
    """A step of `[batch, points, classes]`, as the docstring of `ops.mean_field_step` has it."""
    classes = q.shape[-1]
    names = [normalization] * len(matrices) if isinstance(normalization, str) else normalization
    mu = 1 - np.eye(classes) if compatibility is None else np.asarray(compatibility, np.float64)
    costs = np.zeros(q.shape)
    for kernel, weight, name in zip(matrices, kernel_weights, names, strict=True):
        norms = kernel.sum(-1, keepdims=True)
        after = {"symmetric": norms**-0.5, "after": 1 / norms}.get(name, np.ones_like(norms))
        before = {"symmetric": norms**-0.5, "before": 1 / norms}.get(name, np.ones_like(norms))
        message = after * (kernel @ (before * q.astype(np.float64)))
        matrix = np.asarray(weight, np.float64)
        matrix = matrix if matrix.ndim == 2 else matrix * np.eye(classes)
        costs += np.einsum("lm,mn,bin->bil", mu, matrix, message)
    return softmax(unary.astype(np.float64) - costs)


def image_features(
    image: np.ndarray, spatial: float, bilateral_spatial: float, color: float
) -> list[np.ndarray]:
    """The features of the spatial and the bilateral kernel, `[batch, pixels, 2 and more]`."""
    batch, height, width, channels = image.shape
    y, x = np.mgrid[:height, :width]
    places = np.broadcast_to(np.stack([x, y], -1).reshape(1, -1, 2), (batch, height * width, 2))
    colors = image.reshape(batch, -1, channels)
    return [places / spatial, np.concatenate([places / bilateral_spatial, colors / color], -1)]


def small_image(dtype: Any = np.uint8, batch: int = 2, height: int = 8, width: int = 9) -> Any:
    """Random blots of colour."""
    generator = np.random.default_rng(1)
    coarse = generator.uniform(0, 255, (batch, (height + 2) // 3, (width + 2) // 3, 3))
    image = coarse.repeat(3, 1).repeat(3, 2)[:, :height, :width]
    return np.clip(image + generator.normal(0, 12, image.shape), 0, 255).astype(dtype)


def small_logits(
    dtype: Any = np.float32, batch: int = 2, height: int = 8, width: int = 9, classes: int = 3
) -> Any:
    """Random logits."""
    generator = np.random.default_rng(2)
    return generator.normal(size=(batch, height, width, classes)).astype(dtype)


def kernel_weights_of(kind: str, kernels: int, classes: int) -> list[Any]:
    """Weights of one kind, or of all three in turn."""
    generator = np.random.default_rng(3)
    shapes = {"scalars": [()], "classes": [(classes,)], "matrices": [(classes, classes)]}
    shapes["mixed"] = [*shapes["scalars"], *shapes["classes"], *shapes["matrices"]]
    return [
        np.asarray(generator.uniform(0.5, 2, shapes[kind][k % len(shapes[kind])]))
        for k in range(kernels)
    ]


WEIGHT_KINDS = ["scalars", "classes", "matrices", "mixed"]


def compatibility_of(classes: int) -> np.ndarray:
    """A matrix that is not symmetric."""
    return np.random.default_rng(4).uniform(-0.5, 1.5, (classes, classes))
