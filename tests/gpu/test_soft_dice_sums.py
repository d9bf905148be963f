"""`ops.soft_dice_sums` on the GPU: what core and oracle compute.

Only illegal labels differ: the CPU raises an error, on the GPU they are taken as ignored.
"""

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.dice_cases import (
    ACTIVATIONS,
    LABEL_DTYPES,
    DiceCase,
    dice_cases,
    labels_of,
    smooth_case,
    tensors_of,
    values_of,
)
from helpers.drawing import generators
from helpers.gpu import EMULATED, PATHS, require_gpu, run
from helpers.tolerances import (
    FLOAT_DTYPES,
    assert_close,
    assert_same,
    assert_same_bits,
    name_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.soft_dice_sums import dice_loss, soft_dice_sums, soft_dice_sums_grad

from tfseg_ops import ops
from tfseg_ops.testing import check_gradients

require_gpu()
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device")]

Core = types.ModuleType

NAMES = ("intersection", "prediction", "target", "cross_entropy", "weight_sum", "gradient")

paths = st.sampled_from(PATHS)
dtypes = st.sampled_from(FLOAT_DTYPES)
# Those of a thread each, of a warp, and more than a block has threads.
classes = st.integers(1, 67) | st.sampled_from([127, 128, 129, 255, 256, 257, 300, 513])


def forth_and_back(case: DiceCase) -> Callable[..., list[tf.Tensor]]:
    """A function of logits, labels, the three gradients from above, and the weights that there are.

    It returns the five sums and the gradient to the logits.
    """
    given = [name for name in ("weights", "class_weights") if getattr(case, name) is not None]

    def function(logits: tf.Tensor, labels: tf.Tensor, *others: tf.Tensor) -> list[tf.Tensor]:
        upstream, weights = others[:3], dict(zip(given, others[3:], strict=True))
        with tf.GradientTape() as tape:
            tape.watch(logits)
            sums = ops.soft_dice_sums(
                logits,
                labels,
                ignore_label=case.ignore_label,
                activation=case.activation,
                power=case.power,
                **weights,
            )
        outputs = [sums.intersection, sums.prediction, sums.cross_entropy]
        return [*sums, tape.gradient(outputs, logits, output_gradients=list(upstream))]

    return function


def results_of(path: str, case: DiceCase, upstream: Any) -> list[np.ndarray]:
    """The sums and the gradient, from the GPU."""
    weights = [array for array in (case.weights, case.class_weights) if array is not None]
    return run(path, forth_and_back(case), case.logits, case.labels, *upstream, *weights)


def check(actual: Any, expected: Any) -> None:
    """Compares the sums and the gradient: dtype, shape and, nearly, numbers."""
    for name, one, wanted in zip(NAMES, actual, expected, strict=True):
        assert one.dtype == wanted.dtype, name
        assert one.shape == wanted.shape, name
        assert_close(one, wanted)


def check_with_core(core: Core, path: str, case: DiceCase) -> list[np.ndarray]:
    """Compares the sums and the gradient with the core's, and returns them."""
    upstream = case.upstream()
    results = results_of(path, case, upstream)
    check(results, core_results(core, case, upstream))
    return results


def core_results(core: Core, case: DiceCase, upstream: Any) -> list[np.ndarray]:
    """The sums and the gradient, from the core."""
    return [*core.soft_dice_sums(*case), core.soft_dice_sums_grad(*case, *upstream)]


def oracle_results(case: DiceCase, upstream: Any) -> list[np.ndarray]:
    """The sums and the gradient, from the oracle."""
    return [*soft_dice_sums(*case), soft_dice_sums_grad(*case, *upstream)]


def case_of(
    generator: np.random.Generator,
    shape: Any,
    dtype: Any,
    activation: str = "softmax",
    label_dtype: Any = np.int32,
    dense: bool = False,
    power: int = 1,
) -> DiceCase:
    """Usual logits, all labels legal, and both kinds of weights."""
    wide = np.float64 if dtype == np.float64 else np.float32
    binary = shape[-1] == 1 and activation != "softmax" and not dense
    return DiceCase(
        values_of(generator, shape, activation, "any values").astype(dtype),
        labels_of(generator, (*shape[:-1], 2) if binary else shape, label_dtype, dense),
        generator.uniform(0.1, 2, shape[:-1]).astype(wide),
        generator.uniform(0, 2, shape[-1]).astype(wide),
        None,
        activation,
        power,
        dense,
    )


@settings(max_examples=50)
@given(paths, dice_cases(for_ops=True))
def test_results_and_gradient_are_those_of_core_and_oracle(
    core: Core, path: str, case: DiceCase
) -> None:
    """Images of no pixels, and NaN and Inf where nothing counts, included."""
    results = check_with_core(core, path, case)
    check(results, oracle_results(case, case.upstream()))
    assert not results[-1][~case.counts].astype(np.float32).any()


@settings(max_examples=25)
@given(paths, generators, dtypes, classes, st.sampled_from(ACTIVATIONS), st.booleans())
def test_any_number_of_classes_gives_what_the_core_gives(
    core: Core,
    path: str,
    generator: np.random.Generator,
    dtype: Any,
    classes: int,
    activation: str,
    dense: bool,
) -> None:
    kind = np.float32 if dense else np.int64
    case = case_of(generator, (2, 5, 7, classes), dtype, activation, kind, dense, power=2)
    check_with_core(core, path, case)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_several_tiles_and_parts_give_what_the_core_gives(
    core: Core, dtype: Any, activation: str, path: str
) -> None:
    """Also many images of one pixel each, without any dimension for it."""
    generator = np.random.default_rng(0)
    for shape in ((2, 45, 53, 3), (1, 71, 67, 21), (300, 5), (3, 11, 7, 9, 1)):
        check_with_core(core, path, case_of(generator, shape, dtype, activation, np.uint8))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", LABEL_DTYPES, ids=name_of)
def test_illegal_labels_contribute_nothing_and_have_no_gradient(
    core: Core, kind: Any, activation: str, path: str
) -> None:
    """Even with NaN as their logits."""
    generator = np.random.default_rng(0)
    for classes in (1, 5):
        if classes == 1 and activation == "softmax":
            continue
        legal = case_of(generator, (2, 9, 11, classes), np.float32, activation, kind)
        largest = int(np.iinfo(kind).max)
        wrong = [2 if classes == 1 else classes, 254, largest]
        wrong += [-1, -largest - 1] if kind != np.uint8 else []
        wrong += [2**32, -(2**32) + 1] if kind == np.int64 else []
        lost = generator.uniform(size=legal.labels.shape) < 0.3
        labels = np.where(lost, generator.choice(np.array(wrong, kind), lost.shape), legal.labels)
        logits = np.where(lost[..., None], np.float32(np.nan), legal.logits)
        for ignore_label in (None, 99):
            case = legal._replace(logits=logits, labels=labels, ignore_label=ignore_label)
            results = results_of(path, case, case.upstream())
            without = legal._replace(weights=np.where(lost, np.float32(0), legal.weights))
            check(results, core_results(core, without, case.upstream()))
            assert not results[-1][lost].any()
            assert results[-1][~lost].any()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_infinite_logits_give_the_finite_results_of_the_oracle(
    dtype: Any, activation: str, dense: bool, path: str
) -> None:
    """Every combination of infinities and a number, also as probabilities."""
    values = np.array([-np.inf, np.inf, 0.25], dtype)
    logits = np.full((1, 27, 8), 0.25, dtype)
    logits[0, :, :3] = np.stack(np.meshgrid(values, values, values), -1).reshape(-1, 3)
    generator = np.random.default_rng(0)
    case = case_of(generator, logits.shape, dtype, activation, np.int32, dense)
    case = case._replace(logits=logits)
    results = results_of(path, case, case.upstream())
    assert all(np.isfinite(part.astype(np.float64)).all() for part in results)
    check(results, oracle_results(case, case.upstream()))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_spoils_its_own_image_alone(core: Core, activation: str, path: str) -> None:
    generator = np.random.default_rng(0)
    for place in (0, 1, 20):
        case = case_of(generator, (3, 70, 21), np.float32, activation)
        case.labels[1, 3] = place
        clean = check_with_core(core, path, case)
        case.logits[1, 3, place] = np.nan
        for name, one, wanted in zip(NAMES, check_with_core(core, path, case), clean, strict=True):
            assert_same_bits(one[[0, 2]], wanted[[0, 2]])
            assert np.isnan(one[1]).any() == (name not in ("target", "weight_sum")), name


@pytest.mark.parametrize("path", PATHS)
def test_images_where_nothing_counts_give_zeros(path: str) -> None:
    """Other pixels ignored, of no weight, or not there at all."""
    generator = np.random.default_rng(0)
    case = case_of(generator, (2, 40, 3), np.float16)._replace(ignore_label=255)
    case.logits[1] = np.nan
    case.labels[1, :20], case.weights[1, 20:] = 255, 0
    for one in results_of(path, case, case.upstream()):
        assert one[0].any()
        assert_same(one[1], np.zeros_like(one[1]))
    empty = case_of(generator, (2, 0, 4, 3), np.float32)
    for one in results_of(path, empty, empty.upstream()):
        assert_same(one, np.zeros_like(one))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_results_are_the_same_bits_in_every_run(dtype: Any, activation: str, path: str) -> None:
    case = case_of(np.random.default_rng(0), (2, 60, 50, 7), dtype, activation)
    expected = results_of(path, case, case.upstream())
    for _ in range(3):
        again = results_of(path, case, case.upstream())
        for actual, first in zip(again, expected, strict=True):
            assert_same_bits(actual, first)


@pytest.mark.parametrize(("activation", "classes"), [("sigmoid", 1), ("softmax", 2)])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES[:2], ids=name_of)
def test_large_image_in_half_precision_loses_nothing(
    core: Core, dtype: Any, activation: str, classes: int
) -> None:
    side = 512 if EMULATED else 4096
    generator = np.random.default_rng(0)
    # A part of the image again and again: drawing would take longer than all else.
    part = generator.normal(size=(1, side, 128, classes)) * 2
    labels = generator.integers(0, 2, (1, side, 128), np.uint8)
    sums = run(
        "eager",
        lambda logits, labels: ops.soft_dice_sums(logits, labels, activation=activation),
        np.tile(part.astype(dtype), (1, 1, side // 128, 1)),
        np.tile(labels, (1, 1, side // 128)),
    )
    exact = core.soft_dice_sums(part, labels, None, None, None, activation, 1, False)
    # Means of sums: a part has the loss of the whole, but for the eps.
    assert abs(dice_loss(sums) - dice_loss(exact)) < 1e-3
    rounded = part.astype(dtype).astype(np.float64)
    exact = core.soft_dice_sums(rounded, labels, None, None, None, activation, 1, False)
    for one, wanted in zip(sums, exact, strict=True):
        assert_close(one / (side // 128), wanted, np.float32)


@pytest.mark.parametrize(("classes", "dense"), [(3, False), (3, True), (1, True)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_first_and_second_order_gradients_are_those_of_central_differences(
    device: str, activation: str, classes: int, dense: bool
) -> None:
    """To logits, weights, class weights and dense targets at once."""
    case = smooth_case(activation, 1, dense, classes)
    arrays, function = tensors_of(ops.soft_dice_sums, case)
    with tf.device(device):
        check_gradients(function, arrays, order=2)


@pytest.mark.parametrize("path", PATHS)
def test_one_trace_serves_all_sizes(core: Core, path: str) -> None:
    def both_ways(logits: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            sums = ops.soft_dice_sums(logits, labels, ignore_label=255)
        outputs = [sums.intersection, sums.prediction, sums.cross_entropy]
        return [*sums, tape.gradient(outputs, logits)]

    if path != "eager":
        both_ways = tf.function(
            both_ways,
            input_signature=[tf.TensorSpec([None] * 4), tf.TensorSpec([None] * 3, tf.uint8)],
            jit_compile=path == "xla" or None,
        )
    generator = np.random.default_rng(0)
    for shape in [(1, 4, 4, 2), (2, 17, 19, 21), (1, 0, 4, 3), (3, 6, 3, 300)]:
        case = case_of(generator, shape, np.float32, label_dtype=np.uint8)
        case = case._replace(weights=None, class_weights=None, ignore_label=255)
        case.labels[:, ::2, ::2] = 255
        ones = [np.ones(size, np.float32) for size in ((shape[0], shape[3]),) * 2 + (shape[0],)]
        check(run("eager", both_ways, case.logits, case.labels), core_results(core, case, ones))
