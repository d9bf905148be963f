"""Configs, serialization and refused options."""

import json
from typing import Any

import keras
import numpy as np
import pytest
from helpers.losses import LOSSES, OVERLAPS

from tfseg_ops import losses

SHARED: dict[str, Any] = {
    "activation": "sigmoid",
    "from_logits": False,
    "per_image": False,
    "class_weights": np.array([1, 2.5], np.float32),
    "ignore_label": 255,
    "sync_replicas": True,
    "reduction": "sum",
    "name": "ours",
    "dtype": "float64",
}
OVERLAP: dict[str, Any] = {
    "power": 2,
    "smooth_numerator": 0,
    "smooth_denominator": 2,
    "absent": "skip",
    "include_background": False,
}
OWN: dict[str, dict[str, Any]] = {
    "Tversky": {"alpha": 0.3, "beta": 0.7},
    "SoftDiceCrossEntropy": {"dice_weight": 0.5, "cross_entropy_weight": 2},
}


@pytest.mark.parametrize("name", LOSSES)
def test_config_makes_the_same_loss(name: str) -> None:
    options = SHARED | (OVERLAP if name in OVERLAPS else {}) | OWN.get(name, {})
    loss = LOSSES[name](**options)
    config = loss.get_config()
    assert config == options | {"class_weights": [1, 2.5]}
    assert LOSSES[name].from_config(config).get_config() == config
    written = json.loads(json.dumps(keras.losses.serialize(loss)))
    assert written["registered_name"] == f"tfseg_ops>{name}"
    revived = keras.losses.deserialize(written)
    assert type(revived) is LOSSES[name]
    assert revived.get_config() == config


@pytest.mark.parametrize("name", LOSSES)
def test_defaults_make_the_same_loss(name: str) -> None:
    loss = LOSSES[name]()
    assert LOSSES[name].from_config(loss.get_config()).get_config() == loss.get_config()
    assert (loss.from_logits, loss.reduction, loss.dtype) == (
        True,
        "sum_over_batch_size",
        "float32",
    )


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            "SoftDice",
            {"activation": "none"},
            '\'activation\' must be "softmax" or "sigmoid", got none',
        ),
        ("SoftDice", {"power": 3}, "'power' must be 1 or 2, got 3"),
        ("SoftDice", {"absent": "zero"}, "'absent' must be one of smooth, skip, one, got zero"),
        ("GeneralizedDice", {"absent": "one"}, "'absent' must be one of smooth, skip, got one"),
        (
            "SoftDice",
            {"smooth_numerator": -1},
            "'smooth_numerator' must be a number of at least 0, got -1",
        ),
        ("Tversky", {"alpha": float("nan")}, "'alpha' must be a number of at least 0, got nan"),
        (
            "WeightedCrossEntropy",
            {"class_weights": [1, -1]},
            "'class_weights' must be a list of numbers of at least 0, got [1, -1]",
        ),
        (
            "SoftDice",
            {"class_weights": {0: 1.0, 1: 5.0}},
            "'class_weights' must be a list of numbers of at least 0, got {0: 1.0, 1: 5.0}",
        ),
        (
            "SoftDice",
            {"sync_replicas": True},
            "'sync_replicas' must be False unless 'per_image' is, got True",
        ),
        ("SoftDice", {"power": 2.0}, "'power' must be 1 or 2, got 2.0"),
        ("SoftDice", {"power": True}, "'power' must be 1 or 2, got True"),
        (
            "SoftDice",
            {"smooth_denominator": "a"},
            "'smooth_denominator' must be a number of at least 0, got a",
        ),
        (
            "SoftDiceCrossEntropy",
            {"dice_weight": None},
            "'dice_weight' must be a number of at least 0, got None",
        ),
        (
            "WeightedCrossEntropy",
            {"ignore_label": 255.0},
            "'ignore_label' must be an int or None, got 255.0",
        ),
        (
            "SoftDice",
            {"include_background": "no"},
            "'include_background' must be True or False, got no",
        ),
        ("SoftDice", {"from_logits": 1}, "'from_logits' must be True or False, got 1"),
    ],
)
def test_wrong_option_is_named(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        LOSSES[name](**options)
    assert str(caught.value) == f"{name}: {words}"


@pytest.mark.parametrize(
    "weights",
    ["balanced", "", 2.0, [], [[1, 2, 3]], [[1], [2, 3]], [1, None], [1, np.nan], [np.inf]],
)
def test_class_weights_that_are_no_list_of_numbers_are_refused(weights: Any) -> None:
    with pytest.raises(ValueError, match="'class_weights' must be a list of numbers of at least 0"):
        losses.SoftDice(class_weights=weights)


def test_options_of_numpy_are_those_of_python() -> None:
    """Their config can be written as JSON as it is."""
    loss = losses.SoftDice(
        power=np.int64(2),
        ignore_label=np.uint8(255),
        include_background=np.bool_(False),
        smooth_numerator=np.float32(1),
    )
    written = json.loads(json.dumps(loss.get_config()))
    assert losses.SoftDice.from_config(written).get_config() == loss.get_config()


def test_class_weights_of_another_number_of_classes_are_refused() -> None:
    labels, logits = np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 2, 3), np.float32)
    with pytest.raises(ValueError, match=r"'class_weights' must have shape \[3\], got \[2\]"):
        losses.SoftDice(class_weights=[1, 2])(labels, logits)
    with pytest.raises(ValueError, match="'class_weights' must have shape"):
        losses.WeightedCrossEntropy(class_weights=[1, 2])(labels, logits)


def test_background_alone_cannot_be_left_out() -> None:
    labels, logits = np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 2, 1), np.float32)
    with pytest.raises(ValueError, match="'include_background' must be True"):
        losses.SoftDice(include_background=False)(labels, logits)
