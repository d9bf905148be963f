"""The core's soft Dice sums and their gradient against the oracles, drawn and extreme."""

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.core_library import sanitized
from helpers.core_samples import DICE, dice_case, dice_results
from helpers.dice_cases import ACTIVATIONS, LABEL_DTYPES, DiceCase, dice_cases, labels_of, values_of
from helpers.drawing import examples
from helpers.processes import run_python
from helpers.tolerances import (
    FLOAT_DTYPES,
    assert_close,
    assert_same,
    assert_same_bits,
    name_of,
)
from hypothesis import given
from hypothesis import strategies as st
from reference.soft_dice_sums import dice_loss, soft_dice_sums, soft_dice_sums_grad

Core = types.ModuleType
NAMES = ("intersection", "prediction", "target", "cross_entropy", "weight_sum")


def assert_close_parts(actual: Any, expected: Any) -> None:
    """Asserts five sums of the same dtype, shape and, nearly, numbers."""
    for name, one, wanted in zip(NAMES, actual, expected, strict=True):
        assert one.dtype == wanted.dtype, name
        assert one.shape == wanted.shape, name
        assert_close(one, wanted)


def case_of(logits: Any, labels: Any, **other: Any) -> DiceCase:
    """Arguments from those that are not as usual."""
    usual = DiceCase(np.asarray(logits), np.asarray(labels), None, None, None, "softmax", 1, False)
    return usual._replace(**other)


@examples(400)
@given(dice_cases())
def test_drawn_sums_are_those_of_the_oracle(core: Core, case: DiceCase) -> None:
    actual = core.soft_dice_sums(*case)
    assert_close_parts(actual, soft_dice_sums(*case))
    assert all(np.isfinite(part).all() for part in actual)


@examples(400)
@given(dice_cases())
def test_drawn_gradients_are_those_of_the_oracle(core: Core, case: DiceCase) -> None:
    actual = core.soft_dice_sums_grad(*case, *case.upstream())
    expected = soft_dice_sums_grad(*case, *case.upstream())
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert_close(actual, expected)
    assert not actual[~case.counts].astype(np.float32).any()


@examples(40)
@given(dice_cases(classes=st.sampled_from([512, 513, 600, 4097]), largest=30))
def test_many_classes_are_summed_too(core: Core, case: DiceCase) -> None:
    """More than a tile of so many pixels has room for."""
    assert_close_parts(core.soft_dice_sums(*case), soft_dice_sums(*case))
    upstream = case.upstream()
    assert_close(core.soft_dice_sums_grad(*case, *upstream), soft_dice_sums_grad(*case, *upstream))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("pixels", [1, 7, 8, 9, 63, 64, 65, 127, 128, 129])
def test_pixels_around_those_of_a_tile_are_each_summed_once(
    core: Core, pixels: int, activation: str
) -> None:
    generator = np.random.default_rng(0)
    for classes in (1, 8, 21):
        logits = values_of(generator, (2, pixels, classes), activation, "any values")
        labels = generator.integers(0, classes, (2, pixels))
        for dtype in (np.float32, np.float64):
            case = case_of(logits.astype(dtype), labels, activation=activation)
            assert_close_parts(core.soft_dice_sums(*case), soft_dice_sums(*case))
            upstream = case.upstream()
            assert_close(
                core.soft_dice_sums_grad(*case, *upstream), soft_dice_sums_grad(*case, *upstream)
            )


@examples(100)
@given(dice_cases(poison=False), st.integers(0, 2**32 - 1))
def test_what_does_not_count_changes_no_bit(core: Core, case: DiceCase, seed: int) -> None:
    """Logits and targets of pixels that are ignored or have no weight, NaN and Inf included."""
    from helpers.dice_cases import poisoned

    spoilt = case._replace(logits=case.logits.copy(), labels=case.labels.copy())
    poisoned(np.random.default_rng(seed), spoilt)
    for one, wanted in zip(core.soft_dice_sums(*spoilt), core.soft_dice_sums(*case), strict=True):
        assert_same_bits(one, wanted)
    upstream = case.upstream()
    grad = core.soft_dice_sums_grad(*spoilt, *upstream)
    assert_same_bits(grad, core.soft_dice_sums_grad(*case, *upstream))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
@pytest.mark.parametrize("how", ["ignored", "without weight", "no pixels", "no images"])
def test_sums_of_nothing_are_zeros(core: Core, how: str, dtype: Any) -> None:
    shape = (0, 5, 3) if how == "no images" else (2, 0, 3) if how == "no pixels" else (2, 5, 3)
    wide = np.float64 if dtype == np.float64 else np.float32
    case = case_of(
        np.full(shape, np.nan, dtype),
        np.full(shape[:-1], 255),
        ignore_label=None if how == "without weight" else 255,
    )
    if how == "without weight":
        case = case._replace(labels=case.labels % 3, weights=np.zeros(shape[:-1], wide))
    for part in core.soft_dice_sums(*case):
        assert_same(part, np.zeros(part.shape, wide))
    assert_same(core.soft_dice_sums_grad(*case, *case.upstream()), np.zeros(shape, dtype))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("classes", [1, 3, 8])
def test_infinite_logits_give_no_nan(
    core: Core, classes: int, dense: bool, activation: str, dtype: Any
) -> None:
    """Every combination of infinities and numbers, also as probabilities."""
    values = np.array([-np.inf, np.inf, 0.25], dtype)
    few = min(classes, 3)
    logits = np.full((1, 3**few, classes), 0.25, dtype)
    logits[0, :, :few] = np.stack(np.meshgrid(*[values] * few), -1).reshape(-1, few)
    labels = labels_of(np.random.default_rng(0), logits.shape, np.int32, dense)
    case = case_of(logits, labels, activation=activation, dense=dense)
    actual = core.soft_dice_sums(*case)
    # As probabilities they are 1e30 and -1e30: the order decides what their sums leave of others.
    if activation != "none":
        assert_close_parts(actual, soft_dice_sums(*case))
    assert all(np.isfinite(part).all() for part in actual)
    upstream = case.upstream()
    grad = core.soft_dice_sums_grad(*case, *upstream)
    assert_close(grad, soft_dice_sums_grad(*case, *upstream))
    assert np.isfinite(grad.astype(np.float64)).all()


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("place", [0, 1, 20])
def test_nan_spoils_its_own_image_alone(
    core: Core, place: int, activation: str, dtype: Any
) -> None:
    generator = np.random.default_rng(0)
    logits = values_of(generator, (3, 70, 21), activation, "any values").astype(dtype)
    labels = np.full((3, 70), place)
    expected = core.soft_dice_sums(*case_of(logits, labels, activation=activation))
    logits[1, 3, place] = np.nan
    actual = core.soft_dice_sums(*case_of(logits, labels, activation=activation))
    for one, wanted in zip(actual, expected, strict=True):
        assert_same_bits(one[[0, 2]], wanted[[0, 2]])
    for name, part in zip(NAMES, actual, strict=True):
        assert np.isnan(part[1]).any() == (name in ("intersection", "prediction", "cross_entropy"))


def test_numbers_by_hand(core: Core) -> None:
    """Two pixels of two classes, probabilities 1/4 and 3/4, weights 1 and 3."""
    logits = np.log(np.array([[[1, 3], [3, 1]]])) + 5
    case = case_of(
        logits,
        [[0, 1]],
        weights=np.array([[1.0, 3.0]]),
        class_weights=np.array([2.0, 10.0]),
        power=2,
    )
    intersection, prediction, target, cross_entropy, weight_sum = core.soft_dice_sums(*case)
    assert_close(intersection, [[1 / 4, 3 / 4]])
    assert_close(prediction, [[1 / 16 + 27 / 16, 9 / 16 + 3 / 16]])
    assert_same(target, np.array([[1.0, 3.0]]))
    assert_close(cross_entropy, [2 * np.log(4) + 3 * 10 * np.log(4)])
    assert_same(weight_sum, np.array([32.0]))


@pytest.mark.parametrize("kind", LABEL_DTYPES, ids=name_of)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_targets_of_one_hot_labels_give_what_the_labels_give(
    core: Core, activation: str, kind: Any
) -> None:
    generator = np.random.default_rng(0)
    logits = values_of(generator, (2, 9, 9, 5), activation, "any values")
    labels = generator.integers(0, 5, (2, 9, 9)).astype(kind)
    sparse = case_of(logits, labels, activation=activation)
    dense = sparse._replace(labels=np.eye(5)[labels].astype(kind), dense=True)
    assert_close_parts(core.soft_dice_sums(*dense), core.soft_dice_sums(*sparse))
    upstream = sparse.upstream()
    assert_close(
        core.soft_dice_sums_grad(*dense, *upstream), core.soft_dice_sums_grad(*sparse, *upstream)
    )


@pytest.mark.parametrize("kind", LABEL_DTYPES, ids=name_of)
@pytest.mark.parametrize("activation", ["sigmoid", "none"])
def test_labels_of_one_class_are_its_mask(core: Core, activation: str, kind: Any) -> None:
    generator = np.random.default_rng(0)
    logits = values_of(generator, (2, 90, 1), activation, "any values")
    mask = generator.integers(0, 2, (2, 90)).astype(kind)
    sparse = case_of(logits, mask, activation=activation)
    dense = sparse._replace(labels=mask[..., None], dense=True)
    for one, wanted in zip(core.soft_dice_sums(*sparse), core.soft_dice_sums(*dense), strict=True):
        assert_same_bits(one, wanted)
    assert core.soft_dice_sums(*sparse)[2].sum() == mask.sum()


ILLEGAL: dict[str, tuple[Any, int, int]] = {
    "below": (np.int32, 21, -1),
    "above": (np.int32, 21, 21),
    "a byte": (np.uint8, 21, 255),
    "low 32 bits legal": (np.int64, 21, 2**32 + 3),
    "smallest": (np.int64, 21, -(2**63)),
    "largest": (np.int64, 21, 2**63 - 1),
    "one class": (np.uint8, 1, 2),
}


def calls_of(core: Core, case: DiceCase) -> list[Callable[[], Any]]:
    """Both directions."""
    return [
        lambda: core.soft_dice_sums(*case),
        lambda: core.soft_dice_sums_grad(*case, *case.upstream()),
    ]


@pytest.mark.parametrize("ignore_label", [None, 254])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", ILLEGAL)
def test_illegal_label_is_an_error_that_names_the_first_one(
    core: Core, kind: str, activation: str, ignore_label: int | None
) -> None:
    dtype, classes, value = ILLEGAL[kind]
    labels = np.zeros((3, 40, 50), dtype)
    labels[2, 5:, 7] = labels[1, 39, 49] = value
    if ignore_label is not None:
        labels[0, 3] = ignore_label
    weights = np.zeros(labels.shape, np.float32)  # it is an error all the same
    case = case_of(
        np.zeros((*labels.shape, classes), np.float32),
        labels,
        weights=weights,
        activation=activation,
        ignore_label=ignore_label,
    )
    limit = 2 if classes == 1 and activation != "softmax" else classes
    other = "" if ignore_label is None else f" or be {ignore_label}"
    words = f"soft_dice_sums: 'labels' must lie in [0, {limit}){other}, got {value} at [1, 39, 49]"
    for call in calls_of(core, case):
        with pytest.raises(ValueError, match="labels") as caught:
            call()
        assert str(caught.value) == words


@examples(60)
@given(dice_cases(), st.integers(0, 2**32 - 1))
def test_illegal_labels_are_found_as_the_oracle_finds_them(
    core: Core, case: DiceCase, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    if case.dense or case.labels.size == 0:
        return
    wrong = [99] if case.labels.dtype == np.uint8 else [99, -7, case.logits.shape[-1] + 1]
    flat = case.labels.reshape(-1)
    flat[generator.integers(flat.size, size=generator.integers(1, 4))] = generator.choice(wrong)
    with pytest.raises(ValueError, match="labels") as expected:
        soft_dice_sums(*case)
    for call in calls_of(core, case):
        with pytest.raises(ValueError, match="labels") as caught:
            call()
        assert str(caught.value) == str(expected.value)


@pytest.mark.usefixtures("same_threads_afterwards")
@pytest.mark.parametrize("kind", DICE)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_results_are_bitwise_the_same_for_any_number_of_threads(
    core: Core, dtype: Any, kind: str
) -> None:
    core.set_num_threads(1)
    expected = dice_results(core, kind, dtype)
    for count in (2, 3, 8):
        core.set_num_threads(count)
        for actual, wanted in zip(dice_results(core, kind, dtype), expected, strict=True):
            assert_same_bits(actual, wanted)


@pytest.mark.usefixtures("same_threads_afterwards")
def test_first_illegal_label_is_named_by_any_number_of_threads(core: Core) -> None:
    case = dice_case("softmax", np.float32)
    labels = case.labels.copy()
    labels[1:, 5::7] = 77
    messages = set()
    for count in (1, 2, 3, 8, 8, 8):
        core.set_num_threads(count)
        for call in calls_of(core, case._replace(labels=labels)):
            with pytest.raises(ValueError, match="labels") as caught:
                call()
            messages.add(str(caught.value).partition("got ")[2])
    assert messages == {"77 at [1, 5, 0]"}


def exact_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """The loss in float64, row by row, of two classes or of one mask."""
    sums = np.zeros((3, 1, logits.shape[-1]))
    for x, g in zip(logits[0], labels[0], strict=True):
        wide = x.astype(np.float64)
        if x.shape[-1] == 1:
            p, target = 1 / (1 + np.exp(-wide)), g[:, None].astype(np.float64)
        else:
            powers = np.exp(wide - wide.max(-1, keepdims=True))
            p, target = powers / powers.sum(-1, keepdims=True), np.eye(x.shape[-1])[g]
        sums += np.stack([p * target, p, target])[:, :].sum(1)[:, None]
    return dice_loss(tuple(sums))


@pytest.mark.skipif(sanitized(), reason="seconds become minutes")
@pytest.mark.parametrize("side", [512, 4096])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES[:2], ids=name_of)
@pytest.mark.parametrize(("activation", "classes"), [("sigmoid", 1), ("softmax", 2)])
def test_large_image_in_half_precision_loses_nothing(
    core: Core, activation: str, classes: int, dtype: Any, side: int
) -> None:
    """float32 sums of so many numbers one by one would; float16 sums would be infinite."""
    generator = np.random.default_rng(0)
    # A part of the image again and again, so that drawing takes no longer than summing.
    part = (generator.normal(size=(1, side, 128, classes)) * 2).astype(np.float32)
    labels = generator.integers(0, 2, (1, side, 128), np.uint8)
    tiled, tiled_labels = (np.tile(a, (1, 1, side // 128, 1)[: a.ndim]) for a in (part, labels))
    sums = core.soft_dice_sums(*case_of(tiled.astype(dtype), tiled_labels, activation=activation))
    loss = dice_loss(sums)
    # Means of sums: a part has the loss of the whole, but for the eps.
    assert abs(loss - exact_loss(part.astype(dtype), labels)) < 1e-6
    assert abs(loss - exact_loss(part, labels)) < 1e-3
    # Whole numbers below 2^24 are exact.
    assert float(sums[2].sum()) == (tiled_labels.size if classes == 2 else tiled_labels.sum())


def test_long_sums_of_one_class_are_exact(core: Core) -> None:
    """3 * 2^23 pixels of one class: a float32 sum of ones, one by one, ends at 2^24."""
    pixels = 3 << 23
    case = case_of(np.zeros((1, pixels, 1), np.float16), np.zeros((1, pixels), np.uint8))
    for part in core.soft_dice_sums(*case)[:3]:
        assert float(part[0, 0]) == pixels


PEAK = """
import ctypes, sys
import numpy as np
from helpers.core_library import load_core
from helpers.memory import peak

core = load_core()
threads, direction, activation = int(sys.argv[1]), sys.argv[2], sys.argv[3]
core.set_num_threads(threads)
grads = [np.ones((1, 21), np.float32)] * 2 + [np.ones(1, np.float32)]

def run(side):
    args = [np.ones((1, side, side, 21), np.float32), np.ones((1, side, side), np.uint8)]
    args += [None, None, 255, activation, 1, False]
    before = peak()
    if direction == "forward":
        core.soft_dice_sums(*args)
        return peak() - before
    return peak() - before - core.soft_dice_sums_grad(*args, *grads).nbytes

run(64)
print(run(1024))
"""


@pytest.mark.skipif(sanitized(), reason="a sanitizer has memory of its own")
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("threads", [1, 2])
def test_memory_beyond_logits_and_gradient_is_under_a_megabyte_a_thread(
    threads: int, direction: str, activation: str
) -> None:
    more = int(run_python(PEAK, threads, direction, activation))
    assert more < threads << 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"logits": np.zeros(5)},
            "'logits' must have shape [batch, ..., classes], got [5]",
        ),
        (
            {"logits": np.zeros((2, 5, 0))},
            "'logits' must have at least one class, got [2, 5, 0]",
        ),
        (
            {"logits": np.zeros((2, 5, 3), np.int32)},
            "'logits' must be float16, bfloat16, float32 or float64, got int32",
        ),
        ({"labels": np.zeros((2, 4), int)}, "'labels' must have shape [2, 5], got [2, 4]"),
        ({"labels": np.zeros((2, 5, 1), int)}, "'labels' must have shape [2, 5], got [2, 5, 1]"),
        (
            {"labels": np.zeros((2, 5, 4), int), "dense": True},
            "'labels' must have shape [2, 5, 3], got [2, 5, 4]",
        ),
        (
            {"labels": np.zeros((2, 5), bool)},
            "'labels' must be uint8, int32 or int64, got bool",
        ),
        ({"weights": np.zeros((2, 5, 1))}, "'weights' must have shape [2, 5], got [2, 5, 1]"),
        ({"weights": np.zeros((2, 5), np.float32)}, "'weights' must be float64, got float32"),
        ({"class_weights": np.zeros(4)}, "'class_weights' must have shape [3], got [4]"),
        (
            {"class_weights": np.zeros(3, np.float32)},
            "'class_weights' must be float64, got float32",
        ),
        (
            {"labels": np.zeros((2, 5, 3)), "dense": True, "ignore_label": 255},
            "'ignore_label' must be None where labels are targets for each class, got 255",
        ),
        (
            {"activation": "relu"},
            "'activation' must be softmax, sigmoid or none, got relu",
        ),
        ({"power": 3}, "'power' must be 1 or 2, got 3"),
    ],
    ids=str,
)
def test_wrong_argument_is_named(core: Core, change: dict[str, Any], words: str) -> None:
    case = case_of(np.zeros((2, 5, 3)), np.zeros((2, 5), int))._replace(**change)
    grads = np.zeros((2, 3)), np.zeros((2, 3)), np.zeros(2)
    for call in (
        lambda: core.soft_dice_sums(*case),
        lambda: core.soft_dice_sums_grad(*case, *grads),
    ):
        with pytest.raises((ValueError, TypeError)) as caught:
            call()
        assert str(caught.value) == f"soft_dice_sums: {words}"


@pytest.mark.parametrize("which", [0, 1, 2])
def test_gradients_of_wrong_shape_or_dtype_are_errors(core: Core, which: int) -> None:
    words = f"^soft_dice_sums: 'grad_{('intersection', 'prediction', 'cross_entropy')[which]}' must"
    case = case_of(np.zeros((2, 5, 3)), np.zeros((2, 5), int))
    for wrong in (np.zeros((3, 3)), np.zeros(()), np.zeros((2, 3) if which < 2 else 2, np.float32)):
        grads = [np.zeros((2, 3)), np.zeros((2, 3)), np.zeros(2)]
        grads[which] = wrong
        with pytest.raises((ValueError, TypeError), match=words):
            core.soft_dice_sums_grad(*case, *grads)
