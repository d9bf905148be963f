"""Features, and lattices that are not what they should be, for the tests of the ops that filter."""

import types
from typing import Any

import numpy as np

MEMBERS = (
    "features",
    "vertices",
    "weights",
    "splat_points",
    "splat_weights",
    "splat_offsets",
    "neighbours",
    "norms",
    "num_vertices",
)


def features_of(
    generator: np.random.Generator, batch: int, points: int, dimensions: int, spread: float = 2
) -> np.ndarray:
    """Points around a common centre, some of them at one place."""
    features = generator.normal(0, spread, (batch, points, dimensions))
    if points > 3:
        features[:, points // 2] = features[:, 0]
    return features.astype(np.float32)


def image_lattice(
    core: types.ModuleType, image: np.ndarray, sxy: float, srgb: float | None = None
) -> tuple[np.ndarray, ...]:
    """That of a spatial or bilateral kernel, of `[height, width, 3]`."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    columns = [x.ravel() / np.float32(sxy), y.ravel() / np.float32(sxy)]
    if srgb is not None:
        columns += [image[..., k].ravel() / np.float32(srgb) for k in range(3)]
    features = np.stack(columns, -1).astype(np.float32)[None]
    return tuple(core.permutohedral_lattice(features))


def picture(height: int, width: int) -> np.ndarray:
    """Smooth colours with edges and a little noise, in uint8."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    colours = [
        128 + 90 * np.sin(x / 31 + k) * np.cos(y / (23 + 5 * k)) + 60 * ((x + k * y) % 97 < 40)
        for k in range(3)
    ]
    image = np.stack(colours, -1) + generator.normal(0, 4, (height, width, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


# Member, the place in image 1 of a lattice of two, what stands there, what the error says of it.
# The lattice is that of `corrupted_lattice`; v is the number of its vertices.
WRONG_INDICES: dict[str, tuple[str, tuple[int, ...], int | str, str]] = {
    "a vertex": ("vertices", (1, 7, 2), 10**9, "names vertex 1000000000 of {v} at point 7"),
    "the vertex after the last": ("vertices", (1, 0, 0), "v", "names vertex {v} of {v} at point 0"),
    "a negative vertex": ("vertices", (1, 39, 0), -1, "names vertex -1 of {v} at point 39"),
    "a neighbour": (
        "neighbours",
        (1, 1, 3, 0),
        2**31 - 1,
        "names vertex 2147483647 of {v} at axis 1 of vertex 3",
    ),
    "a negative neighbour": (
        "neighbours",
        (1, 0, 0, 1),
        -3,
        "names vertex -3 of {v} at axis 0 of vertex 0",
    ),
    "the neighbour after the last": (
        "neighbours",
        (1, 2, 0, 1),
        "v",
        "names vertex {v} of {v} at axis 2 of vertex 0",
    ),
    "too many vertices": ("num_vertices", (1,), 121, "has 121 vertices, not 0 to 120"),
    "a negative number": ("num_vertices", (1,), -1, "has -1 vertices, not 0 to 120"),
}


def corrupted_lattice(core: types.ModuleType, wrong: str) -> tuple[tuple[Any, ...], str]:
    """The lattice of two images of 40 points with one wrong index, and the words of its error."""
    member, place, value, words = WRONG_INDICES[wrong]
    features = features_of(np.random.default_rng(0), 2, 40, 2)
    lattice = [np.array(part) for part in core.permutohedral_lattice(features)]
    vertices = int(lattice[-1][1])
    lattice[MEMBERS.index(member)][place] = vertices if value == "v" else value
    return tuple(lattice), words.format(v=vertices)
