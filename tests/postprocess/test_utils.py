"""The helpers give the numbers of pydensecrf's, and of their formulas, and refuse nonsense."""

from typing import Any

import numpy as np
import pytest
from helpers.tolerances import assert_same_bits

from tfseg_ops.postprocess import utils

RANDOM = np.random.default_rng(7)
LABELS = RANDOM.integers(0, 5, (6, 7))
PROBABILITIES = RANDOM.dirichlet(np.ones(4) / 2, (6, 7)).transpose(2, 0, 1)
IMAGE = RANDOM.integers(0, 256, (6, 7, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def peer() -> Any:
    """pydensecrf's utils."""
    return pytest.importorskip("pydensecrf.utils")


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("shape", [(42,), (6, 7), (2, 3, 7)])
@pytest.mark.parametrize(
    ("n_labels", "zero_unsure"), [(4, True), (21, True), (5, False), (21, False)]
)
def test_unary_of_labels_is_theirs(
    peer: Any, n_labels: int, zero_unsure: bool, shape: tuple[int, ...], dtype: Any
) -> None:
    labels = LABELS.reshape(shape).astype(dtype)
    for gt_prob in (0.5, 0.7, 0.99):
        arguments = (labels, n_labels, gt_prob, zero_unsure)
        expected = peer.unary_from_labels(*arguments)
        assert_same_bits(utils.unary_from_labels(*arguments), expected)


def test_unary_of_labels_counts_from_one_where_zero_is_unsure() -> None:
    energies = utils.unary_from_labels(np.uint8([0, 1, 2]), 2, gt_prob=0.75)
    np.testing.assert_allclose(np.exp(-energies), [[0.5, 0.75, 0.25], [0.5, 0.25, 0.75]], 1e-6)
    energies = utils.unary_from_labels(np.uint8([0, 1]), 2, gt_prob=0.75, zero_unsure=False)
    np.testing.assert_allclose(np.exp(-energies), [[0.75, 0.25], [0.25, 0.75]], 1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [None, 1, 0.8, 0.3])
@pytest.mark.parametrize("clip", [None, 1e-5, 0.1])
def test_unary_of_softmax_is_theirs(peer: Any, dtype: Any, scale: Any, clip: Any) -> None:
    probabilities = np.ascontiguousarray(PROBABILITIES.astype(dtype))
    expected = peer.unary_from_softmax(probabilities, scale, clip)
    assert_same_bits(utils.unary_from_softmax(probabilities, scale, clip), expected)


def test_unary_of_impossible_classes_is_clipped_unless_told_otherwise() -> None:
    energies = utils.unary_from_softmax(np.float32([[0, 1], [1, 0]]))
    np.testing.assert_allclose(np.exp(-energies), [[1e-5, 1], [1, 1e-5]], 1e-5)
    with np.errstate(divide="ignore"):
        energies = utils.unary_from_softmax(np.float32([[0], [1]]), clip=None)
    assert energies.tolist() == [[np.inf], [0]]


@pytest.mark.parametrize(
    ("sdims", "shape"), [((3, 2), (6, 7)), ((0.3,), (9,)), ([1, 2.5, 7], [3, 4, 5])]
)
def test_features_of_positions_are_theirs(peer: Any, sdims: Any, shape: Any) -> None:
    features = utils.create_pairwise_gaussian(sdims, shape)
    assert_same_bits(features, peer.create_pairwise_gaussian(sdims, shape))
    assert features.flags.c_contiguous


@pytest.mark.parametrize(
    ("sdims", "schan", "img", "chdim"),
    [
        ((80, 80), (13, 13, 13), IMAGE, 2),
        ((3, 2), (0.3,), IMAGE[..., :1], 2),
        ((3, 2), 0.7, IMAGE.transpose(2, 0, 1), 0),
        ((3, 2), [1, 2, 3], IMAGE.transpose(0, 2, 1), 1),
        ((3, 2), 20, IMAGE[..., 0], -1),
        ((3, 2), (0.01,), IMAGE[..., 0] / 255, -1),
        ((1, 2, 3), np.float64(0.7), RANDOM.normal(size=(3, 4, 5)), -1),
        ((1, 2, 3), (1, 2), RANDOM.normal(size=(3, 4, 5, 2)), 3),
    ],
)
def test_features_of_colours_are_theirs(
    peer: Any, sdims: Any, schan: Any, img: Any, chdim: int
) -> None:
    features = utils.create_pairwise_bilateral(sdims, schan, img, chdim)
    assert_same_bits(features, peer.create_pairwise_bilateral(sdims, schan, img, chdim))
    assert features.flags.c_contiguous


def test_image_is_left_as_it_was() -> None:
    image = np.ones((2, 3), np.float32)
    utils.create_pairwise_bilateral((1, 1), 4, image)
    assert (image == 1).all()


def test_names_that_pydensecrf_gave_up_still_work(peer: Any) -> None:
    with pytest.warns(DeprecationWarning, match="unary_from_labels"):
        assert_same_bits(utils.compute_unary(LABELS, 4), peer.compute_unary(LABELS, 4))
    softmax = np.ascontiguousarray(PROBABILITIES)
    for arguments in ((softmax,), (softmax, 0.6)):
        with pytest.warns(DeprecationWarning, match="unary_from_softmax"):
            ours = utils.softmax_to_unary(*arguments)
        assert_same_bits(ours, peer.softmax_to_unary(*arguments))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: utils.unary_from_labels([0.5], 2, 0.5),
            TypeError,
            "unary_from_labels: 'labels' must be integers, got float64",
        ),
        (
            lambda: utils.unary_from_labels([0, 3], 2, 0.5),
            ValueError,
            "unary_from_labels: 'labels' must lie in [0, 2], got 3",
        ),
        (
            lambda: utils.unary_from_labels([0, 2, -1], 2, 0.5, zero_unsure=False),
            ValueError,
            "unary_from_labels: 'labels' must lie in [0, 1], got 2",
        ),
        (
            lambda: utils.unary_from_labels([0], 1, 0.5),
            ValueError,
            "unary_from_labels: 'n_labels' must be at least 2, got 1",
        ),
        (
            lambda: utils.unary_from_labels([0], 2, 1.0),
            ValueError,
            "unary_from_labels: 'gt_prob' must lie in (0, 1), got 1.0",
        ),
        (
            lambda: utils.unary_from_softmax([[1.0]], scale=0),
            ValueError,
            "unary_from_softmax: 'scale' must lie in (0, 1], got 0",
        ),
        (
            lambda: utils.create_pairwise_gaussian((3, 3), (4, 5, 6)),
            ValueError,
            "create_pairwise_gaussian: 'sdims' must be 3 numbers, got [3, 3]",
        ),
        (
            lambda: utils.create_pairwise_bilateral((3, 3), (1, 2), IMAGE, chdim=2),
            ValueError,
            "create_pairwise_bilateral: 'schan' must be 3 numbers, got [1, 2]",
        ),
        (
            lambda: utils.create_pairwise_bilateral((3, 3), 1, IMAGE),
            ValueError,
            "create_pairwise_bilateral: 'sdims' must be 3 numbers, got [3, 3]",
        ),
    ],
)
def test_nonsense_is_named(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == message
