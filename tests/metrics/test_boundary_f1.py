"""`BoundaryF1` against distances between pixels, one by one."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfseg_ops.metrics import BoundaryF1
from tfseg_ops.testing.strategies import class_masks


def boundary(labels: np.ndarray, counts: np.ndarray, label: int) -> list[tuple[int, ...]]:
    """The pixels of a class with a neighbour of another one, `(image, row, column)`."""
    pixels = []
    for image, row, column in np.argwhere(counts & (labels == label)):
        around = image, slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2)
        if (labels[around] != label)[counts[around]].any():
            pixels.append((image, row, column))
    return pixels


def near(pixel: tuple[int, ...], others: list[tuple[int, ...]], tolerance: int) -> bool:
    return any(
        pixel[0] == other[0]
        and max(abs(pixel[1] - other[1]), abs(pixel[2] - other[2])) <= tolerance
        for other in others
    )


@settings(max_examples=40)
@given(
    st.data(), class_masks(classes=3, height=st.integers(1, 9), ignore_label=255), st.integers(0, 3)
)
def test_score_is_that_of_distances_between_pixels(
    data: st.DataObject, truth: np.ndarray, tolerance: int
) -> None:
    if truth.size == 0:
        return
    found = data.draw(class_masks(3, len(truth), truth.shape[1], truth.shape[2]))
    weights = np.random.default_rng(truth.size).choice([0.5, 2], truth.shape)
    metric = BoundaryF1(3, tolerance, ignore_label=255, dtype="float64")
    for image in range(len(truth)):
        part = slice(image, image + 1)
        metric.update_state(truth[part], found[part], weights[part])

    counts, scores = truth != 255, []
    for label in range(3):
        true, predicted = (boundary(labels, counts, label) for labels in (truth, found))
        shares = []
        for pixels, others in ((predicted, true), (true, predicted)):
            total = sum(weights[pixel] for pixel in pixels)
            hits = sum(weights[pixel] for pixel in pixels if near(pixel, others, tolerance))
            shares.append(hits / total if total else 0)
        if true or predicted:
            scores.append(2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0)
    np.testing.assert_allclose(metric.result(), np.mean(scores) if scores else 0, 1e-6)
    assert int(metric.num_absent()) == 3 - len(scores)


def square(top: int, left: int) -> np.ndarray:
    """A square of class 1 in an image of class 0."""
    mask = np.zeros((1, 20, 20), np.uint8)
    mask[0, top : top + 8, left : left + 8] = 1
    return mask


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (2, 1.0), (8, 0.0)])
def test_shift_within_the_tolerance_costs_nothing(shift: int, expected: float) -> None:
    metric = BoundaryF1(2, tolerance=2, include_background=False)
    metric.update_state(square(1, 1), square(1 + shift, 1 + shift))
    if expected:
        assert float(metric.result()) == expected
    else:
        assert float(metric.result()) < 0.2
    metric = BoundaryF1(2, tolerance=1, include_background=False)
    metric.update_state(square(1, 1), square(1 + shift, 1 + shift))
    assert (float(metric.result()) == 1) == (shift == 0)


def test_edges_of_images_and_of_ignored_regions_are_no_boundaries() -> None:
    truth = np.ones((1, 6, 6), np.uint8)
    truth[0, 2:4, 2:4] = 255
    metric = BoundaryF1(2, ignore_label=255)
    metric.update_state(truth, np.ones_like(truth))
    assert int(metric.num_absent()) == 2
    # Nor is what is predicted inside of an ignored region.
    found = np.ones_like(truth)
    found[0, 2:4, 2:4] = 0
    metric.update_state(truth, found)
    assert int(metric.num_absent()) == 2


def test_config_makes_the_same_metric() -> None:
    metric = BoundaryF1(4, 3, ignore_label=255, name="rims")
    config = metric.get_config()
    assert (config["num_classes"], config["tolerance"], config["name"]) == (4, 3, "rims")
    revived = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert type(revived) is BoundaryF1
    assert revived.get_config() == config
    assert BoundaryF1(2).name == "boundary_f1"


def test_images_alone_have_boundaries() -> None:
    for truth in (np.zeros((1, 4), int), [[0, 0, 0, 0]]):
        with pytest.raises(ValueError, match=r"images \[batch, height, width\], got \[1, 4\]"):
            BoundaryF1(2).update_state(truth, np.zeros((1, 4), int))
    for tolerance in (-1, 1.5, True, "a"):
        rule = f"'tolerance' must be an int of at least 0, got {tolerance}"
        with pytest.raises(ValueError, match=rule):
            BoundaryF1(2, tolerance)


def test_images_of_width_1_are_images() -> None:
    truth = np.array([[[0], [0], [1], [1], [1]]])
    found = np.array([[[0], [1], [1], [1], [1]]])
    weights = np.ones(truth.shape)
    expected = BoundaryF1(2, tolerance=0)
    expected.update_state(truth.transpose(0, 2, 1), found.transpose(0, 2, 1))
    assert 0 <= float(expected.result()) < 1
    for y_true in (truth, truth[..., None], np.eye(2)[truth]):
        for y_pred in (found, found[..., None], np.eye(2)[found]):
            for sample_weight in (None, weights, weights[..., None], [1.0]):
                metric = BoundaryF1(2, tolerance=0)
                metric.update_state(y_true, y_pred, sample_weight)
                assert float(metric.result()) == float(expected.result())
