"""Weight maps of borders and outlines against distances between pixels, one by one."""

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfseg_ops.testing.strategies import class_masks
from tfseg_ops.weights import border_weights, outline_weights

pytest.importorskip("scipy")


def brute_force_border(image: np.ndarray, w0: float, sigma: float, of_classes: Any) -> np.ndarray:
    """Equation 2 of the U-Net paper by all distances of all pixels."""
    weights = np.zeros(image.shape)
    numbers = [number for number in np.unique(image) if number > 0]
    for place in np.ndindex(image.shape):
        weights[place] = of_classes[int(image[place] > 0)]
        distances = sorted(
            np.sqrt(((np.argwhere(image == number) - place) ** 2).sum(1)).min()
            for number in numbers
        )
        if len(distances) > 1:
            weights[place] += w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return weights


@settings(max_examples=60)
@given(
    class_masks(classes=5, batch=st.integers(0, 2)),
    st.sampled_from([(10.0, 5.0, None), (3.0, 0.7, (0.5, 2.0))]),
    st.integers(0, 1),
)
def test_border_weights_are_those_of_brute_force(
    instances: np.ndarray, options: Any, first: int
) -> None:
    """With `first`, no pixel is background; with a small sigma, distances end before the image."""
    instances = instances + first * 40
    weights = border_weights(instances, *options)
    assert weights.dtype == np.float32
    assert weights.shape == instances.shape
    of_classes = options[2] or (1, 1)
    for image, result in zip(instances, weights, strict=True):
        expected = brute_force_border(image, *options[:2], of_classes)
        np.testing.assert_allclose(result, expected, 1e-6, 1e-6)


def test_border_weights_of_one_instance_or_none_are_those_of_the_classes() -> None:
    image = np.zeros((5, 6), np.int32)
    np.testing.assert_array_equal(border_weights(image), np.ones((5, 6)))
    image[1:3, 2:4] = 7
    np.testing.assert_array_equal(border_weights(image), np.ones((5, 6)))
    weights = border_weights(image, class_weights=(0.5, 3))
    np.testing.assert_array_equal(weights, np.where(image == 7, 3, 0.5))
    full = np.ones((5, 6), bool)
    np.testing.assert_array_equal(border_weights(full), np.ones((5, 6)))


def test_border_weights_are_largest_in_the_narrow_gap() -> None:
    image = np.zeros((9, 40), np.uint8)
    image[2:7, 2:10] = 1
    image[2:7, 12:20] = 2  # a gap of two pixels
    image[2:7, 30:38] = 3  # a gap of ten
    weights = border_weights(image)
    assert weights[4, 10] == pytest.approx(1 + 10 * np.exp(-(3**2) / 50))
    assert weights[4, 10] > weights[4, 25] + 5
    assert weights[0, 39] < 1.1


@pytest.mark.parametrize(("sigma", "term"), [(1e308, 10), (1e-300, 0), (5e-324, 0)])
def test_border_weights_of_extreme_sigma_are_the_limits(sigma: float, term: float) -> None:
    image = np.array([[1, 0, 0, 2]])
    np.testing.assert_array_equal(border_weights(image, sigma=sigma), np.full((1, 4), 1 + term))


@settings(max_examples=60)
@given(class_masks(classes=3, batch=2, ignore_label=255), st.integers(1, 3))
def test_outline_weights_are_those_of_brute_force(labels: np.ndarray, width: int) -> None:
    """Without ignored pixels: some other label within so many steps along rows and columns."""
    labels = np.where(labels == 255, 0, labels)
    weights = outline_weights(labels, width, 4.0)
    assert weights.dtype == np.float32
    for image, result in zip(labels, weights, strict=True):
        for place in np.ndindex(image.shape):
            steps = np.abs(np.argwhere(image != image[place]) - place).sum(1)
            assert result[place] == (4 if (steps <= width).any() else 1)


def test_ignored_pixels_are_no_outline_and_hide_what_lies_behind() -> None:
    labels = np.array([[0, 0, 255, 1, 1, 1, 0]])
    expected = [[1, 1, 1, 1, 1, 5, 5]]
    np.testing.assert_array_equal(outline_weights(labels, 1, 5.0, ignore_label=255), expected)
    expected = [[1, 1, 1, 1, 5, 5, 5]]
    np.testing.assert_array_equal(outline_weights(labels, 2, 5.0, ignore_label=255), expected)
    labels[:] = [[1, 0, 255, 0, 0, 0, 0]]
    expected = [[5, 5, 1, 1, 1, 1, 1]]
    np.testing.assert_array_equal(outline_weights(labels, 3, 5.0, ignore_label=255), expected)
    np.testing.assert_array_equal(outline_weights(labels * 0 + 255, ignore_label=255), [[1] * 7])


@pytest.mark.parametrize("function", [border_weights, outline_weights])
def test_one_image_and_a_batch_give_the_same(function: Any) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (2, 6, 7))
    batch = function(labels)
    for image, expected in zip(labels, batch, strict=True):
        np.testing.assert_array_equal(function(image), expected)
    for shape in [(0, 4, 4), (2, 0, 4), (0, 0)]:
        assert function(np.zeros(shape, int)).shape == shape


@pytest.mark.parametrize("function", [border_weights, outline_weights])
def test_missing_scipy_names_the_extra(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    with pytest.raises(ImportError, match=r'pip install "tfseg_ops\[weights\]"'):
        function(np.zeros((2, 2), int))


@pytest.mark.parametrize(
    ("function", "options", "error", "words"),
    [
        (border_weights, {"sigma": 0}, ValueError, "'sigma' must be positive and finite, got 0"),
        (
            border_weights,
            {"sigma": None},
            ValueError,
            "'sigma' must be positive and finite, got None",
        ),
        (border_weights, {"w0": "a"}, ValueError, "'w0' must be a number of at least 0, got a"),
        (
            border_weights,
            {"w0": np.nan},
            ValueError,
            "'w0' must be a number of at least 0, got nan",
        ),
        (
            border_weights,
            {"class_weights": [1, np.nan]},
            ValueError,
            "'class_weights' must be a list of numbers of at least 0, got [1, nan]",
        ),
        (
            border_weights,
            {"class_weights": [1, 2, 3]},
            ValueError,
            "'class_weights' must have shape [2], got [3]",
        ),
        *(
            (
                outline_weights,
                {"width": width},
                ValueError,
                f"'width' must be an int of at least 1, got {width}",
            )
            for width in (0, 1.5, True, "a")
        ),
        (
            outline_weights,
            {"weight": np.nan},
            ValueError,
            "'weight' must be a number of at least 0, got nan",
        ),
        (
            outline_weights,
            {"ignore_label": "x"},
            ValueError,
            "'ignore_label' must be an int or None, got x",
        ),
    ],
)
def test_wrong_option_is_named(
    function: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        function(np.zeros((2, 2), int), **options)
    assert str(caught.value) == f"{function.__name__}: {words}"


def test_wrong_labels_are_named() -> None:
    with pytest.raises(
        TypeError, match="border_weights: 'instances' must be integers, got float64"
    ):
        border_weights(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"outline_weights: 'labels' must have shape .* got \[4\]"):
        outline_weights(np.zeros(4, int))
    with pytest.raises(
        ValueError, match="border_weights: 'instances' must not be negative, got -1"
    ):
        border_weights(np.full((2, 2), -1))
