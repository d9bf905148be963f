"""`MeanIoU` and `DiceScore` against counts of pixels, in all forms of truth and prediction."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.overlap import one_hot
from hypothesis import given, settings
from hypothesis import strategies as st

from tfseg_ops.metrics import BoundaryF1, DiceScore, MeanIoU
from tfseg_ops.testing.strategies import class_masks

GENERATOR = np.random.default_rng(0)
TRUTH = GENERATOR.choice([0, 1, 2, 255], (2, 6, 5)).astype(np.uint8)
FOUND = GENERATOR.integers(0, 3, (2, 6, 5)).astype(np.uint8)
SCORES = one_hot(FOUND, 3).astype(np.float32) + GENERATOR.uniform(0, 0.9, (2, 6, 5, 3))


def counts(truth: Any, found: Any, weights: Any, classes: int) -> list[tuple[float, float, float]]:
    """Pixels of each class in both, in the truth and in the prediction, without ignored ones."""
    weights = np.where(truth == 255, 0, weights)
    return [
        tuple(
            float(np.sum(weights * where))
            for where in ((truth == c) & (found == c), truth == c, found == c)
        )
        for c in range(classes)
    ]


@settings(max_examples=60)
@given(
    data=st.data(),
    truth=class_masks(classes=4, ignore_label=255),
    weighted=st.booleans(),
    include_background=st.booleans(),
)
def test_scores_are_ratios_of_counts_over_all_batches(
    data: st.DataObject, truth: np.ndarray, weighted: bool, include_background: bool
) -> None:
    found = data.draw(class_masks(5, len(truth), truth.shape[1], truth.shape[2]))
    weights = np.random.default_rng(truth.size).uniform(size=truth.shape) if weighted else None
    expected = counts(truth, found, 1 if weights is None else weights, 4)
    arguments: dict[str, Any] = {"ignore_label": 255, "include_background": include_background}
    iou = MeanIoU(4, dtype="float64", **arguments)
    dice = DiceScore(4, dtype="float64", **arguments)
    for image in range(len(truth)):
        part = slice(image, image + 1)
        for metric in (iou, dice):
            metric.update_state(
                truth[part], found[part], None if weights is None else weights[part]
            )
    used = expected if include_background else expected[1:]
    ious = [both / (t + f - both) for both, t, f in used if t + f]
    dices = [2 * both / (t + f) for both, t, f in used if t + f]
    np.testing.assert_allclose(iou.result(), np.mean(ious) if ious else 0, 1e-12)
    np.testing.assert_allclose(dice.result(), np.mean(dices) if dices else 0, 1e-12)
    assert int(iou.num_absent()) == int(dice.num_absent()) == len(used) - len(ious)
    first = 0 if include_background else 1
    per_class = iou.per_class().numpy()[first:]
    np.testing.assert_allclose(per_class[~np.isnan(per_class)], ious, 1e-12)
    assert np.isnan(iou.per_class().numpy()[:first]).all()
    np.testing.assert_allclose(
        per_class, (dice.per_class() / (2 - dice.per_class()))[first:], 1e-12
    )


@pytest.mark.parametrize("kind", [MeanIoU, DiceScore])
def test_result_of_hand_counted_pixels(kind: type) -> None:
    truth = np.array([[[0, 0, 1, 1], [255, 0, 1, 3]]])
    found = np.array([[[0, 1, 1, 1], [2, 0, 0, 3]]])
    metric = kind(5, ignore_label=255)
    metric.update_state(truth, found)
    # Class 0: 2 of 3 and 3. Class 1: 2 of 3 and 3. Class 3: 1 of 1 and 1. Classes 2 and 4: nowhere.
    expected = {MeanIoU: (2 / 4 + 2 / 4 + 1) / 3, DiceScore: (4 / 6 + 4 / 6 + 1) / 3}[kind]
    np.testing.assert_allclose(metric.result(), expected, 1e-6)
    assert int(metric.num_absent()) == 2
    metric.reset_state()
    assert float(metric.result()) == 0
    assert int(metric.num_absent()) == 5


@pytest.mark.parametrize("kind", [MeanIoU, DiceScore, BoundaryF1])
def test_forms_of_truth_and_prediction_mean_the_same(kind: type) -> None:
    metric = kind(3, ignore_label=255)
    metric.update_state(TRUTH, FOUND)
    expected = float(metric.result())
    truths = [TRUTH, TRUTH.astype(np.int64)[..., None], TRUTH.astype(np.float32)]
    founds = [FOUND, FOUND[..., None].astype(np.int64), SCORES, 100 * SCORES - 50]
    founds += [tf.cast(10 * one_hot(FOUND, 3), dtype) for dtype in ("float16", "bfloat16")]
    for y_true in truths:
        for y_pred in founds:
            metric.reset_state()
            metric.update_state(y_true, y_pred)
            assert float(metric.result()) == expected
    metric = kind(3)
    metric.update_state(TRUTH % 3, FOUND)
    expected = float(metric.result())
    metric.reset_state()
    metric.update_state(one_hot(TRUTH % 3, 3), SCORES)
    assert float(metric.result()) == expected


@pytest.mark.parametrize("kind", [MeanIoU, DiceScore, BoundaryF1])
def test_one_channel_is_decided_by_the_threshold(kind: type) -> None:
    truth = FOUND % 2
    p = GENERATOR.uniform(size=(*truth.shape, 1)).astype(np.float32)
    expected = kind(2)
    expected.update_state(truth, (p[..., 0] > 0.3).astype(np.int32))
    for from_logits, y_pred in ((False, p), (True, np.log(p) - np.log1p(-p))):
        metric = kind(2, from_logits=from_logits, threshold=0.3)
        metric.update_state(truth, y_pred)
        assert float(metric.result()) == float(expected.result())


@pytest.mark.parametrize("kind", [MeanIoU, DiceScore, BoundaryF1])
def test_weights_of_images_are_those_of_their_pixels(kind: type) -> None:
    images = np.array([0.5, 2])
    metric = kind(3, ignore_label=255)
    metric.update_state(TRUTH, FOUND, images)
    pixels = np.broadcast_to(images[:, None, None], TRUTH.shape)
    for weights in (pixels, pixels[..., None]):
        other = kind(3, ignore_label=255)
        other.update_state(TRUTH, SCORES, weights)
        np.testing.assert_allclose(other.result(), metric.result(), 1e-6)
    metric.reset_state()
    metric.update_state(TRUTH, FOUND, [0.0, 0.0])
    assert int(metric.num_absent()) == 3
    one, two = (kind(3, ignore_label=255) for _ in range(2))
    one.update_state(TRUTH, FOUND)
    two.update_state(TRUTH, FOUND, 2.0)
    for counts_of_one, counts_of_two in zip(one.variables, two.variables, strict=True):
        np.testing.assert_allclose(counts_of_two, 2 * np.asarray(counts_of_one), 1e-6)


@pytest.mark.parametrize("kind", [MeanIoU, DiceScore, BoundaryF1])
def test_weights_of_ignored_pixels_may_be_anything(kind: type) -> None:
    expected, metric = kind(3, ignore_label=255), kind(3, ignore_label=255)
    weights = GENERATOR.uniform(size=TRUTH.shape)
    expected.update_state(TRUTH, FOUND, weights)
    metric.update_state(TRUTH, FOUND, np.where(TRUTH == 255, np.nan, weights))
    np.testing.assert_array_equal(metric.per_class(), expected.per_class())


@pytest.mark.parametrize("kind", [MeanIoU, DiceScore])
def test_class_that_is_ignored_counts_as_prediction_alone(kind: type) -> None:
    metric = kind(3, ignore_label=0)
    metric.update_state([[0, 0, 1, 2, 1, 1]], [[1, 0, 1, 2, 2, 0]])
    # Class 0: never true, once predicted. Class 1: 1 of 3 and 1. Class 2: 1 of 1 and 2.
    expected = {MeanIoU: [0, 1 / 3, 1 / 2], DiceScore: [0, 2 / 4, 2 / 3]}[kind]
    np.testing.assert_allclose(metric.per_class(), expected, 1e-6)
    assert int(metric.num_absent()) == 0


def test_threshold_is_not_rounded_to_the_dtype_of_the_scores() -> None:
    """In bfloat16 0.3 is 0.30078125, which is more than 0.3."""
    score = tf.constant([[[0.3]]], tf.bfloat16)
    assert float(score[0, 0, 0]) > 0.3
    metric = MeanIoU(2, from_logits=False, threshold=0.3)
    metric.update_state([[1]], score)
    assert float(metric.result()) == 1


@pytest.mark.parametrize("kind", [MeanIoU, DiceScore])
def test_prediction_that_is_no_class_is_wrong(kind: type) -> None:
    metric = kind(2)
    metric.update_state([[0, 0, 1, 1]], [[0, 0, 1, 7]])
    both = {MeanIoU: 1 / 2, DiceScore: 2 / 3}[kind]
    np.testing.assert_allclose(metric.per_class(), [1, both], 1e-6)


@pytest.mark.parametrize("kind", [MeanIoU, DiceScore, BoundaryF1])
def test_truth_out_of_range_is_an_error(kind: type) -> None:
    truth = np.zeros((1, 2, 2), np.int32)
    for label in (2, -1):
        truth[0, 1, 0] = label
        for ignore_label, also in ((None, ""), (255, " or be 255")):
            metric = kind(2, ignore_label=ignore_label)
            rule = f" must lie in [0, 2){also}, got "
            with pytest.raises(tf.errors.InvalidArgumentError) as caught:
                metric.update_state(truth, np.zeros_like(truth))
            words = f"{kind.__name__}: 'y_true'{rule}{label} at [0, 1, 0]"
            assert str(caught.value) == words
            with pytest.raises(tf.errors.InvalidArgumentError) as caught:
                tf.function(metric.update_state)(truth, np.zeros_like(truth))
            assert rule + "values between:" in str(caught.value)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "weights", "words"),
    [
        ([2, 3, 4], [2, 3, 5], None, "'y_true' must have shape [2, 3, 5], got [2, 3, 4]"),
        ([2, 3, 4], [2, 3, 4, 4], None, "'y_pred' must have 3 channels, got [2, 3, 4, 4]"),
        (
            [2, 3, 4],
            [2, 3, 4],
            [3],
            "'sample_weight' must be a number or have shape [2], [2, 3, 4] or [2, 3, 4, 1], "
            "got [3]",
        ),
    ],
    ids=str,
)
def test_shapes_that_do_not_fit_are_refused(
    y_true: list[int], y_pred: list[int], weights: list[int] | None, words: str
) -> None:
    prediction = np.zeros(y_pred, np.float32 if len(y_pred) == 4 else np.int32)
    with pytest.raises(ValueError, match="must") as caught:
        MeanIoU(3).update_state(
            np.zeros(y_true, int), prediction, None if weights is None else np.ones(weights)
        )
    assert str(caught.value) == f"MeanIoU: {words}"


@pytest.mark.parametrize("kind", [MeanIoU, DiceScore, BoundaryF1])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_updates_count_the_same(kind: type, jit_compile: bool) -> None:
    eager, compiled = kind(3, ignore_label=255), kind(3, ignore_label=255)
    weights = GENERATOR.uniform(size=TRUTH.shape)
    update = tf.function(compiled.update_state, jit_compile=jit_compile)
    for _ in range(2):
        eager.update_state(TRUTH, SCORES, weights)
        update(TRUTH, SCORES, weights)
    np.testing.assert_allclose(compiled.result(), eager.result(), 1e-6)
    for one, other in zip(compiled.variables, eager.variables, strict=True):
        np.testing.assert_allclose(one, other, 1e-6)


@pytest.mark.parametrize("kind", [MeanIoU, BoundaryF1])
@pytest.mark.parametrize("jit_compile", [None, True])
def test_ranks_must_be_known_but_that_of_weights(kind: type, jit_compile: bool | None) -> None:
    sizes, weights = [None] * 3, GENERATOR.uniform(size=TRUTH.shape)
    arrays = TRUTH % 3, FOUND.astype(np.int32), weights

    def update(metric: Any, truth: Any, found: Any) -> Any:
        return tf.function(
            metric.update_state,
            input_signature=[
                tf.TensorSpec(truth, tf.uint8),
                tf.TensorSpec(found, tf.int32),
                tf.TensorSpec(None, tf.float64),
            ],
            jit_compile=jit_compile,
        )

    expected, metric = kind(3), kind(3)
    expected.update_state(*arrays)
    known = update(metric, sizes, sizes)
    known(*arrays)
    np.testing.assert_allclose(metric.result(), expected.result(), 1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible"):
        known(arrays[0][:, :5], arrays[1][:, :5], np.ones(5))
    for argument, truth, found in (("y_true", None, sizes), ("y_pred", sizes, None)):
        words = f"'{argument}' must have a known rank, got an unknown shape"
        with pytest.raises(ValueError, match=words):
            update(kind(3), truth, found)(*arrays)


@pytest.mark.parametrize("kind", [MeanIoU, DiceScore, BoundaryF1])
def test_counts_above_those_that_float32_holds_are_exact(kind: type) -> None:
    metric = kind(2, dtype="float16")
    for variable in metric.variables:
        assert variable.dtype == "float64"
        variable.assign(tf.fill(variable.shape, tf.constant(2.0**25, tf.float64)))
    truth = [[[0, 1]]]
    metric.update_state(truth, truth)
    for variable in metric.variables:
        assert (np.asarray(variable) == 2**25 + 1).any()
    assert metric.result().dtype == tf.float16


@pytest.mark.parametrize("kind", [MeanIoU, DiceScore, BoundaryF1])
def test_batch_of_no_images_counts_nothing(kind: type) -> None:
    metric = kind(3)
    metric.update_state(TRUTH[:0], SCORES[:0])
    assert int(metric.num_absent()) == 3


@pytest.mark.parametrize(("kind", "name"), [(MeanIoU, "mean_iou"), (DiceScore, "dice_score")])
def test_config_makes_the_same_metric(kind: type, name: str) -> None:
    options = {
        "num_classes": 4,
        "ignore_label": 255,
        "include_background": False,
        "from_logits": False,
        "threshold": 0.25,
        "dtype": "float64",
    }
    metric = kind(**options)
    config = metric.get_config()
    assert config == options | {"name": name}
    revived = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert type(revived) is kind
    assert revived.get_config() == config


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_classes": 1}, "'num_classes' must be an int of at least 2, got 1"),
        ({"num_classes": 2.5}, "'num_classes' must be an int of at least 2, got 2.5"),
        ({"num_classes": 2, "threshold": 1}, "'threshold' must lie between 0 and 1, got 1"),
        ({"num_classes": 2, "threshold": "a"}, "'threshold' must lie between 0 and 1, got a"),
        (
            {"num_classes": 2, "ignore_label": "255"},
            "'ignore_label' must be an int or None, got 255",
        ),
        (
            {"num_classes": 2, "include_background": "no"},
            "'include_background' must be True or False, got no",
        ),
    ],
)
def test_wrong_option_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        MeanIoU(**options)
    assert str(caught.value) == f"MeanIoU: {words}"
