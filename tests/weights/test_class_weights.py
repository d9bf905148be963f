"""Weights of classes against hand-counted pixels."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfseg_ops.losses import WeightedCrossEntropy
from tfseg_ops.weights import class_weights

# Class 0: 6 pixels, in both images. Class 1: 2, in the first. Class 3: 2, in the second.
LABELS = np.array([[[0, 0, 0], [1, 1, 255]], [[0, 0, 0], [3, 3, 255]]], np.uint8)
EXPECTED = {
    "inverse": [10 / (3 * 6), 10 / (3 * 2), 0, 10 / (3 * 2)],
    "log": [1 / np.log(1.02 + 0.6), 1 / np.log(1.02 + 0.2), 0, 1 / np.log(1.02 + 0.2)],
    # Shares of 6/10, 2/5 and 2/5, of which 2/5 is the median.
    "median": [0.4 / 0.6, 1, 0, 1],
}


@pytest.mark.parametrize("method", EXPECTED)
def test_weights_are_those_of_hand_counted_pixels(method: str) -> None:
    weights = class_weights(LABELS, 4, method, ignore_label=255)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, EXPECTED[method], 1e-6)


@pytest.mark.parametrize("method", EXPECTED)
def test_labels_may_be_tensors_lists_and_data_sets(method: str) -> None:
    padded = np.full((2, 3), 255)
    images = [LABELS[0], np.concatenate([LABELS[1], padded]).astype(np.int64)]  # of two sizes
    data = tf.data.Dataset.from_tensor_slices(LABELS)
    for labels in (tf.constant(LABELS), images, data, data.as_numpy_iterator(), LABELS.tolist()):
        weights = class_weights(labels, 4, method, ignore_label=255)
        np.testing.assert_allclose(weights, EXPECTED[method], 1e-6)


def test_inverse_weights_give_each_class_the_same_sum() -> None:
    weights = class_weights(LABELS, 4, ignore_label=255)
    counts = np.bincount(LABELS[LABELS != 255], minlength=4)
    np.testing.assert_allclose((weights * counts)[[0, 1, 3]], 10 / 3, 1e-6)


@pytest.mark.parametrize("method", EXPECTED)
def test_no_pixels_give_no_weights_and_a_loss_takes_them(method: str) -> None:
    ignored = np.full((1, 2, 2), 255, np.uint8)
    weights = class_weights(ignored, 3, method, ignore_label=255)
    np.testing.assert_array_equal(weights, [0, 0, 0])
    loss = WeightedCrossEntropy(class_weights=weights, ignore_label=255)
    assert float(loss(ignored, np.zeros((1, 2, 2, 3), np.float32))) == 0


@pytest.mark.parametrize(
    ("labels", "options", "error", "words"),
    [
        (LABELS, {}, ValueError, "'labels' must lie in [0, 4) or be ignored, got 255"),
        (-LABELS.astype(int), {}, ValueError, "'labels' must lie in [0, 4) or be ignored, got -1"),
        (LABELS * 1.0, {}, TypeError, "'labels' must be integers, got float64"),
        (LABELS[0, 0], {}, ValueError, "'labels' must have shape [images, ...], got [3]"),
        (
            LABELS,
            {"method": "square"},
            ValueError,
            "'method' must be one of inverse, log, median, got square",
        ),
        (
            [(LABELS[0], LABELS[0])],
            {},
            TypeError,
            "'labels' must be label maps alone, got a tuple for each",
        ),
        (
            LABELS,
            {"ignore_label": "x"},
            ValueError,
            "'ignore_label' must be an int or None, got x",
        ),
    ],
)
def test_wrong_argument_is_named(
    labels: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        class_weights(labels, 4, **options)
    assert str(caught.value) == f"class_weights: {words}"


@pytest.mark.parametrize("structure", [tuple, lambda pair: {"image": pair[0], "labels": pair[1]}])
def test_data_sets_of_more_than_labels_are_refused(structure: Any) -> None:
    """Images would be counted as labels."""
    data = tf.data.Dataset.from_tensor_slices(structure((LABELS % 4, LABELS % 4)))
    for elements in (data, data.as_numpy_iterator()):
        with pytest.raises(TypeError, match="'labels' must be label maps alone, got a "):
            class_weights(elements, 4)


@pytest.mark.parametrize("num_classes", [0, -1, 2.5, True, "a"])
def test_number_of_classes_is_a_positive_int(num_classes: Any) -> None:
    words = f"class_weights: 'num_classes' must be an int of at least 1, got {num_classes}"
    with pytest.raises(ValueError, match=words):
        class_weights(LABELS, num_classes)
