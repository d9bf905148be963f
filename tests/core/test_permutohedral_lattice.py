"""The core's permutohedral lattice against the oracle: drawn, extreme, at its tables' limits."""

import math
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers.drawing import examples, generators
from helpers.tolerances import assert_close, assert_same, assert_same_bits
from hypothesis import given
from hypothesis import strategies as st
from reference.permutohedral_lattice import embed, filter_of_ones, permutohedral_lattice

Core = types.ModuleType
NAMES = (
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
# Points in a band, which numbers its vertices by itself: kBand of cc/core.
BAND = 16384


def members(lattice: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The members with their names, of the neighbours those of vertices that are there."""
    for name, member in zip(NAMES, lattice, strict=True):
        if name != "neighbours":
            yield name, member
            continue
        for image, count in zip(member, lattice[-1], strict=True):
            yield name, image[:, :count]


def assert_same_lattice(actual: Any, expected: Any) -> None:
    """Asserts equal members; norms, which are sums in another order, nearly."""
    assert [member.shape for member in actual] == [member.shape for member in expected]
    for (name, one), (_, wanted) in zip(members(actual), members(expected), strict=True):
        assert one.dtype == wanted.dtype, name
        (assert_close if name == "norms" else assert_same)(one, wanted)


def check(core: Core, features: np.ndarray) -> tuple[np.ndarray, ...]:
    """Compares the lattice of some features with the oracle's, and returns it."""
    lattice: tuple[np.ndarray, ...] = core.permutohedral_lattice(features)
    assert_same_lattice(lattice, permutohedral_lattice(features))
    return lattice


def spread(generator: np.random.Generator, shape: Any, sdevs: float) -> np.ndarray:
    """Features anywhere in a cube."""
    return generator.uniform(-sdevs, sdevs, shape).astype(np.float32)


@st.composite
def drawn_features(draw: st.DrawFn) -> np.ndarray:
    """A few points, close together or far apart, also on a raster, where ranks are tied."""
    generator = draw(generators)
    points = draw(st.sampled_from([0, 1, 2, 7, 8, 9, 40]))
    shape = draw(st.integers(0, 3)), points, draw(st.integers(1, 8))
    features = spread(generator, shape, draw(st.sampled_from([0.1, 1.0, 5.0, 300.0])))
    if draw(st.booleans()):
        features = np.round(features)
    return features


@examples(300)
@given(drawn_features())
def test_drawn_lattices_are_those_of_the_oracle(core: Core, features: np.ndarray) -> None:
    check(core, features)


@pytest.mark.parametrize("dimensions", range(1, 9))
def test_weights_of_a_point_sum_to_1_and_give_its_position(core: Core, dimensions: int) -> None:
    features = spread(np.random.default_rng(0), (1, 500, dimensions), 20)
    keys, _ = embed(features[0])
    weights = core.permutohedral_lattice(features)[2][0].astype(np.float64)
    assert weights.min() >= -1e-5
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    # The plane, by its defining matrix: coordinate j is the sum of the later features less j times
    # the j-th.
    corners = dimensions + 1
    matrix = np.triu(np.ones((corners, corners)), 1)[:, 1:]
    for j in range(1, corners):
        matrix[j, j - 1] = -j
        matrix[:, j - 1] *= math.sqrt(2 / 3) * corners / math.sqrt(j * (j + 1))
    positions = features[0].astype(np.float64) @ matrix.T
    np.testing.assert_allclose((weights[:, :, None] * keys).sum(axis=1), positions, atol=1e-3)


def test_norms_are_the_filter_of_ones(core: Core) -> None:
    features = spread(np.random.default_rng(0), (2, 400, 3), 3)
    lattice = dict(zip(NAMES, core.permutohedral_lattice(features), strict=True))
    for b, count in enumerate(lattice["num_vertices"]):
        of_ones = filter_of_ones(
            lattice["vertices"][b], lattice["weights"][b], lattice["neighbours"][b], count
        )
        assert_close(lattice["norms"][b], of_ones)
    exact = np.exp(-0.5 * ((features[0][:, None] - features[0]) ** 2).sum(axis=-1)).sum(axis=1)
    assert np.corrcoef(lattice["norms"][0], exact)[0, 1] > 0.99


@pytest.mark.parametrize("dimensions", range(1, 9))
def test_identical_points_share_their_vertices(core: Core, dimensions: int) -> None:
    point = spread(np.random.default_rng(dimensions), dimensions, 10)
    lattice = check(core, np.broadcast_to(point, (1, 50, dimensions)))
    assert lattice[-1] == dimensions + 1
    assert (lattice[1] == np.arange(dimensions + 1)).all()


@pytest.mark.parametrize("dimensions", range(1, 9))
@pytest.mark.parametrize("largest", [0.0, 1e5])
def test_all_corners_of_the_cube_of_legal_features(
    core: Core, dimensions: int, largest: float
) -> None:
    """One image for each, whose keys therefore fit."""
    corners = np.array(list(np.ndindex((2,) * dimensions)), np.float32) * 2 - 1
    check(core, (corners * np.float32(largest))[:, None])


def test_lattices_of_a_batch_are_those_of_single_images(core: Core) -> None:
    generator = np.random.default_rng(0)
    features = spread(generator, (4, 700, 3), 10) * generator.uniform(0, 3, (4, 1, 1))
    features = features.astype(np.float32)
    together = list(members(core.permutohedral_lattice(features)))
    for b in range(4):
        alone = core.permutohedral_lattice(features[b : b + 1])
        for name, single in members(alone):
            of_batch = [member for other, member in together if other == name]
            image = of_batch[b] if name == "neighbours" else of_batch[0][b : b + 1]
            assert_same_bits(image, single)


def photograph(generator: np.random.Generator, points: int, batch: int = 1) -> np.ndarray:
    """Positions and smooth, noisy colours of pixels, row after row."""
    width = 500
    y, x = np.divmod(np.arange(points), width)
    waves = [np.sin(x / 30 + y / 50), np.cos(x / 90), np.sin(y / 20)]
    colours = 128 + 100 * np.stack(waves, -1) + generator.normal(size=(batch, points, 3)) * 5
    positions = np.broadcast_to(np.stack([x, y], -1) / 80, (batch, points, 2))
    return np.concatenate([positions, colours / 13], axis=-1).astype(np.float32)


@pytest.mark.usefixtures("same_threads_afterwards")
@pytest.mark.parametrize("points", [BAND - 1, BAND, BAND + 1, 3 * BAND + 100])
@pytest.mark.parametrize("batch", [1, 2])
def test_bits_are_the_same_for_any_number_of_threads(core: Core, batch: int, points: int) -> None:
    features = photograph(np.random.default_rng(0), points, batch)
    core.set_num_threads(1)
    expected = list(members(core.permutohedral_lattice(features)))
    for count in (2, 3, 4):
        core.set_num_threads(count)
        for (_, one), (_, wanted) in zip(
            members(core.permutohedral_lattice(features)), expected, strict=True
        ):
            assert_same_bits(one, wanted)


def test_bands_are_merged_in_their_order(core: Core) -> None:
    """Vertices that several bands share, and others that are new in later ones."""
    features = photograph(np.random.default_rng(0), 2 * BAND + 500)[..., :3]
    lattice = check(core, features)
    assert 100 < lattice[-1] < BAND


@pytest.mark.parametrize("dimensions", [1, 3])
def test_table_is_full_where_no_points_share_a_vertex(core: Core, dimensions: int) -> None:
    """Half of the slots, a power of two, are then taken."""
    points = BAND + 300 if dimensions == 1 else BAND // 8
    features = np.zeros((1, points, dimensions), np.float32)
    features[0, :, 0] = np.random.default_rng(0).permutation(points) * 5
    lattice = check(core, features)
    assert lattice[-1] == points * (dimensions + 1)


@pytest.mark.parametrize(("dimensions", "sdevs"), [(4, 9e4), (5, 9e4), (8, 1000), (8, 10000)])
def test_keys_may_need_more_than_64_bits(core: Core, dimensions: int, sdevs: float) -> None:
    generator = np.random.default_rng(0)
    far = spread(generator, (1, 300, dimensions), sdevs)
    close = far[:, :1] + spread(generator, (1, 300, dimensions), 2)
    lattice = check(core, np.concatenate([far, close], axis=1))
    assert (lattice[6][0, :, : lattice[-1][0]] >= 0).any()


@pytest.mark.parametrize("margin", range(16))
def test_keys_that_differ_above_64_bits_only_are_told_apart(core: Core, margin: int) -> None:
    """Vertices are counted through a box; four of its five sides are here about 2^16 long.

    Where they are exactly so, a step along the fifth changes only the upper 64 bits.
    """
    side = 2**16 - margin
    # The sides of the box are sums of these sides of the points' box, rounded up.
    elevated = np.array([30000 - 0.03] * 3 + [60000, side - 25000 - 0.5])
    scales = math.sqrt(2 / 3) * 6 / np.sqrt([1 * 2, 2 * 3, 3 * 4, 4 * 5, 5 * 6])
    generator = np.random.default_rng(0)
    unit = np.concatenate([np.zeros((1, 5)), np.ones((1, 5)), generator.uniform(0, 1, (6, 5))])
    lattice = check(core, (unit * elevated / scales).astype(np.float32)[None])
    assert lattice[-1] == 8 * 6


def test_keys_of_more_than_128_bits_are_an_error(core: Core) -> None:
    features = np.zeros((3, 2, 8), np.float32)
    features[1, 0], features[1, 1] = -1e5, 1e5
    features[1, :, ::2] *= -1
    with pytest.raises(ValueError, match="permutohedral_lattice") as caught:
        core.permutohedral_lattice(features)
    assert str(caught.value) == (
        "permutohedral_lattice: 'features' must not spread so wide in 8 dimensions that vertices "
        "need more than 128 bits, got image 1"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.nan, "nan"),
        (-np.nan, "nan"),
        (np.inf, "inf"),
        (-np.inf, "-inf"),
        (1.5e5, "150000"),
        (-3e38, "-3e+38"),
        (np.nextafter(np.float32(1e5), np.float32(2e5)), "100000"),
    ],
)
@pytest.mark.parametrize("dimensions", [1, 2, 5, 8])
def test_illegal_feature_is_named(core: Core, dimensions: int, value: float, text: str) -> None:
    """Wherever it stands, also behind the last whole vector; the first of several."""
    features = np.zeros((2, 45, dimensions), np.float32)
    for point in (44, 43, 17, 0):
        features[1, point, -1] = value
        with pytest.raises(ValueError, match="features") as caught:
            core.permutohedral_lattice(features)
        assert str(caught.value) == (
            "permutohedral_lattice: 'features' must lie in [-100000, 100000], got "
            f"{text} at [1, {point}, {dimensions - 1}]"
        )


@pytest.mark.parametrize(
    ("features", "error", "words"),
    [
        (
            np.zeros((5, 2), np.float32),
            ValueError,
            "must have shape [batch, points, dimensions], got [5, 2]",
        ),
        (
            np.zeros((1,) * 9, np.float32),
            ValueError,
            "must have shape [batch, points, dimensions], got rank 9",
        ),
        (np.zeros((1, 5, 0), np.float32), ValueError, "must have 1 to 8 dimensions, got 0"),
        (np.zeros((1, 5, 9), np.float32), ValueError, "must have 1 to 8 dimensions, got 9"),
        (np.zeros((1, 5, 2)), TypeError, "must be float32, got float64"),
        (np.zeros((1, 5, 2), np.int32), TypeError, "must be float32, got int32"),
        (np.zeros((1, 5, 2), bool), TypeError, "must be float32, got bool"),
        (
            np.broadcast_to(np.float32(0), (0, 2**30, 1)),
            ValueError,
            "must have points * (dimensions + 1) < 2^31, got 1073741824 points in 1 dimensions",
        ),
    ],
)
def test_wrong_features_are_named(core: Core, features: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match="features") as caught:
        core.permutohedral_lattice(features)
    assert str(caught.value) == f"permutohedral_lattice: 'features' {words}"


def test_features_may_be_strided_and_of_either_byte_order(core: Core) -> None:
    features = spread(np.random.default_rng(0), (2, 30, 3), 5)
    expected = core.permutohedral_lattice(features)
    for other in (features.astype(">f4"), np.repeat(features, 2, axis=1)[:, ::2]):
        assert_same_lattice(core.permutohedral_lattice(other), expected)


def with_other_size(member: np.ndarray, axis: int) -> np.ndarray:
    """One more along an axis."""
    return np.concatenate([member, member[(slice(None),) * axis + (slice(1),)]], axis=axis)


@pytest.mark.parametrize("name", NAMES)
def test_all_members_of_a_lattice_are_checked(core: Core, name: str) -> None:
    """Rank, each size and dtype of each member, by an op that reads lattices."""
    lattice = list(core.permutohedral_lattice(np.zeros((2, 5, 3), np.float32)))
    values = np.zeros((2, 5, 4), np.float32)
    assert core.gaussian_filter(values, tuple(lattice)).shape == values.shape
    index = NAMES.index(name)
    member = lattice[index]
    wrong = [
        (with_other_size(member, axis), ValueError, "must have ") for axis in range(member.ndim)
    ]
    wrong.append((member[..., None], ValueError, "must have shape "))
    wrong.append((member.astype(np.float64), TypeError, f"must be {member.dtype}, got float64"))
    for other, error, words in wrong:
        lattice[index] = other
        with pytest.raises(error, match="gaussian_filter: '") as caught:
            core.gaussian_filter(values, tuple(lattice))
        if name not in {"features", "neighbours"}:  # which bind the sizes that others are held to
            assert f"'lattice.{name}' {words}" in str(caught.value)
