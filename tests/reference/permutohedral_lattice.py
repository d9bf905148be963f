"""The permutohedral lattice of points in feature space, by a dictionary of vertices.

Adams, Baek & Davis 2010; scale, blur and norm of Krähenbühl & Koltun 2011.
"""

import math

import numpy as np

LARGEST_FEATURE = 1e5


def permutohedral_lattice(features: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns the nine members, features first; neighbours that are not written are -1.

    Raises ValueError at the first feature that is not finite or too large, with the words of the
    op.
    """
    require_legal(features)
    batch, points, dimensions = features.shape
    corners = dimensions + 1
    bound = points * corners
    vertices = np.zeros((batch, points, corners), np.int32)
    weights = np.zeros((batch, points, corners), np.float32)
    splat_points = np.zeros((batch, bound), np.int32)
    splat_weights = np.zeros((batch, bound), np.float32)
    splat_offsets = np.full((batch, bound + 1), bound, np.int32)
    neighbours = np.full((batch, corners, bound, 2), -1, np.int32)
    norms = np.zeros((batch, points), np.float32)
    num_vertices = np.zeros(batch, np.int32)
    for b in range(batch):
        keys, weights[b] = embed(features[b])
        numbers: dict[tuple[int, ...], int] = {}
        for n in range(points):
            for r in range(corners):
                key = tuple(keys[n, r].tolist())
                vertices[b, n, r] = numbers.setdefault(key, len(numbers))
        num_vertices[b] = len(numbers)

        # The points of each vertex: a stable sort keeps them in rising order.
        order = np.argsort(vertices[b].reshape(-1), kind="stable")
        splat_points[b] = order // corners
        splat_weights[b] = weights[b].reshape(-1)[order]
        counts = np.bincount(vertices[b].reshape(-1), minlength=len(numbers))
        splat_offsets[b, : len(numbers) + 1] = np.concatenate([[0], np.cumsum(counts)])

        for axis in range(corners):
            for key, vertex in numbers.items():
                for side, sign in enumerate((1, -1)):
                    neighbour = tuple(
                        number + sign * (dimensions if i == axis else -1)
                        for i, number in enumerate(key)
                    )
                    neighbours[b, axis, vertex, side] = numbers.get(neighbour, -1)

        norms[b] = filter_of_ones(vertices[b], weights[b], neighbours[b], len(numbers))
    return (
        features,
        vertices,
        weights,
        splat_points,
        splat_weights,
        splat_offsets,
        neighbours,
        norms,
        num_vertices,
    )


def embed(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the vertices around points, as whole numbers [points, corners, corners], and weights.

    In float32 throughout, for the same simplices as the op's. Vertices are listed by the remainder
    of their coordinates modulo `corners`.
    """
    points, dimensions = features.shape
    corners = dimensions + 1
    one = np.float32(1)

    # Onto the plane of coordinates whose sum is 0 (Adams, Baek & Davis, section 3.1).
    sdev = np.float32(math.sqrt(2 / 3) * corners)
    elevated = np.zeros((points, corners), np.float32)
    sums = np.zeros(points, np.float32)
    for j in range(dimensions, 0, -1):
        scaled = features[:, j - 1] * np.float32(float(sdev) / math.sqrt(j * (j + 1)))
        elevated[:, j] = sums - np.float32(j) * scaled
        sums = sums + scaled
    elevated[:, 0] = sums

    # The nearest vertex of remainder 0: round, then bring the sum of the coordinates back to 0.
    quotients = np.round(elevated * (one / np.float32(corners))).astype(np.float32)
    excess = quotients.sum(axis=1).astype(int)
    residues = elevated - quotients * np.float32(corners)
    ranks = np.zeros((points, corners), int)
    for i in range(corners):
        for j in range(i + 1, corners):
            less = residues[:, i] < residues[:, j]
            ranks[:, i] += less
            ranks[:, j] += ~less
    ranks += excess[:, None]
    wraps = (ranks < 0).astype(int) - (ranks > dimensions)
    ranks += corners * wraps
    nearest = corners * (quotients.astype(int) + wraps)

    # Barycentric coordinates (ibid., proposition 5).
    heights = (elevated - nearest.astype(np.float32)) * (one / np.float32(corners))
    by_rank = np.zeros((points, corners), np.float32)
    np.put_along_axis(by_rank, ranks, heights, axis=1)
    weights = np.zeros((points, corners), np.float32)
    weights[:, 0] = by_rank[:, dimensions] + (one - by_rank[:, 0])
    for r in range(1, corners):
        weights[:, r] = by_rank[:, dimensions - r] - by_rank[:, corners - r]

    remainders = np.arange(corners)[None, :, None]
    wrapped = ranks[:, None, :] > dimensions - remainders
    return nearest[:, None, :] + remainders - corners * wrapped, weights


def filter_of_ones(
    vertices: np.ndarray, weights: np.ndarray, neighbours: np.ndarray, num_vertices: int
) -> np.ndarray:
    """Splat, blur, slice of one image; the absent vertex -1 has the value 0."""
    corners = vertices.shape[1]
    sums = np.zeros(num_vertices + 1, np.float64)
    np.add.at(sums, vertices, weights)
    for axis in range(corners):
        sides = sums[neighbours[axis, :num_vertices]]
        sums[:num_vertices] += 0.5 * sides.sum(axis=1)
    filtered = (weights * sums[vertices]).sum(axis=1) / (1 + 2.0 ** (1 - corners))
    return np.asarray(filtered, np.float32)


def require_legal(features: np.ndarray) -> None:
    """Raises ValueError at the first illegal feature, with the words of the op."""
    for element in np.ndindex(features.shape):
        feature = float(features[element])
        if not abs(feature) <= LARGEST_FEATURE:
            raise ValueError(
                "permutohedral_lattice: 'features' must lie in [-100000, 100000], got "
                f"{feature:g} at {list(element)}"
            )
