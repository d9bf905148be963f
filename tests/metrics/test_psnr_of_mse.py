"""`PSNROfMSE` against its definition and against `MeanPSNR`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfseg_ops.metrics import MeanPSNR, PSNROfMSE

BLACK = np.zeros((2, 6, 7, 3), np.float32)


def of_errors(kind: type, errors: list[float], weights: list[float] | None = None) -> float:
    """The metric of a black image for each error, all of whose pixels are wrong by so much."""
    metric = kind(dtype="float64")
    for index, error in enumerate(errors):
        black = np.zeros((1, 3, 4, 1))
        metric.update_state(black, black + error, None if weights is None else [weights[index]])
    return float(metric.result())


def test_it_is_the_ratio_for_the_mean_squared_error_of_all_batches() -> None:
    generator = np.random.default_rng(0)
    truth, found = generator.uniform(size=(2, 5, 9, 8, 3))
    metric = PSNROfMSE(dtype="float64")
    for part in (slice(0, 2), slice(2, 5)):
        metric.update_state(truth[part], found[part])
    expected = -10 * np.log10(((truth - found) ** 2).mean())
    assert float(metric.result()) == pytest.approx(expected, 1e-12)
    metric.reset_state()
    assert float(metric.result()) == 0


def test_weights_are_those_of_images() -> None:
    expected = -10 * np.log10((3 * 0.1**2 + 0.5**2) / 4)
    assert of_errors(PSNROfMSE, [0.1, 0.5], [3, 1]) == pytest.approx(expected)


@given(st.lists(st.floats(1e-4, 1), min_size=1, max_size=6))
def test_the_mean_of_the_images_is_never_below(errors: list[float]) -> None:
    """Jensen's inequality: the logarithm is concave."""
    mean, of_mean = (of_errors(kind, errors) for kind in (MeanPSNR, PSNROfMSE))
    assert mean >= of_mean - 1e-9
    if max(errors) > 2 * min(errors):
        assert mean > of_mean
    if len(errors) == 1:
        assert mean == pytest.approx(of_mean)


def test_one_bad_image_weighs_more_than_in_the_mean() -> None:
    assert of_errors(MeanPSNR, [0.01, 0.1]) == pytest.approx(30)
    assert of_errors(PSNROfMSE, [0.01, 0.1]) == pytest.approx(22.967, abs=0.001)


def test_equal_images_have_100_decibels() -> None:
    assert of_errors(PSNROfMSE, [0, 0]) == 100
    assert of_errors(PSNROfMSE, [0, 0.1]) == pytest.approx(23.01, abs=0.001)
