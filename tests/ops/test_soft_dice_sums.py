"""`ops.soft_dice_sums`: against the oracle and stock TF, gradients, paths, shapes, edges."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.core_samples import DICE, dice_case
from helpers.dice_cases import (
    ACTIVATIONS,
    LABEL_DTYPES,
    DiceCase,
    call,
    dice_cases,
    smooth_case,
    tensors_of,
    values_of,
)
from helpers.gpu import EMULATED
from helpers.processes import run_python
from helpers.tolerances import (
    FLOAT_DTYPES,
    assert_close,
    assert_same,
    assert_same_bits,
    name_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.soft_dice_sums import soft_dice_sums, soft_dice_sums_grad

import tfseg_ops
from tfseg_ops import ops
from tfseg_ops.pure_tf.soft_dice_sums import soft_dice_loss
from tfseg_ops.testing import check_gradients, check_paths

NAMES = ("intersection", "prediction", "target", "cross_entropy", "weight_sum")


def gradient_of(case: DiceCase, upstream: Any) -> tf.Tensor:
    """The gradient to the logits."""
    logits = tf.constant(case.logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        sums = call(ops.soft_dice_sums, case._replace(logits=logits))
    outputs = [sums.intersection, sums.prediction, sums.cross_entropy]
    return tape.gradient(outputs, logits, output_gradients=list(upstream))


def dice_of(sums: Any, eps: float = 1e-6) -> tf.Tensor:
    """The Dice loss of textbooks, of the sums."""
    both = sums.prediction + sums.target
    return 1 - tf.reduce_mean((2 * sums.intersection + eps) / (both + eps))


@settings(max_examples=150)
@given(dice_cases(for_ops=True))
def test_drawn_sums_are_those_of_the_oracle(case: DiceCase) -> None:
    actual = call(ops.soft_dice_sums, case)
    assert actual._fields == NAMES
    for one, wanted in zip(actual, soft_dice_sums(*case), strict=True):
        assert one.dtype == wanted.dtype
        assert one.shape == wanted.shape
        assert_close(one, wanted)


@settings(max_examples=100)
@given(dice_cases(for_ops=True))
def test_drawn_gradients_are_those_of_the_oracle(case: DiceCase) -> None:
    upstream = case.upstream()
    gradient = gradient_of(case, upstream)
    expected = soft_dice_sums_grad(*case, *upstream)
    assert gradient.dtype == expected.dtype
    assert_close(gradient, expected)
    assert not tf.cast(gradient, tf.float32).numpy()[~case.counts].any()


@pytest.mark.parametrize(("classes", "dense"), [(3, False), (3, True), (1, False), (1, True)])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_first_and_second_order_gradients_are_those_of_central_differences(
    activation: str, power: int, classes: int, dense: bool
) -> None:
    """To logits, weights, class weights and dense targets at once."""
    if classes == 1 and activation == "softmax" and not dense:
        pytest.skip("one class of softmax is always certain")
    case = smooth_case(activation, power, dense, classes)
    arrays, function = tensors_of(ops.soft_dice_sums, case)
    # Second order takes long; several classes of power 2 are like one, but for the softmax.
    order = 2 if classes == 1 or power == 1 or activation == "softmax" else 1
    # Curved in the sums, as a loss is.
    check_gradients(function, arrays, order=order)


def test_second_order_gradient_of_a_loss_is_that_of_central_differences() -> None:
    """Through a quotient of the sums: the gradients from above depend on the logits too."""
    case = smooth_case("softmax", 1, False, 2)

    def loss(logits: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        sums = ops.soft_dice_sums(logits, case.labels, weights, ignore_label=255)
        return dice_of(sums, 1e-3) + tf.reduce_sum(sums.cross_entropy / sums.weight_sum)

    check_gradients(loss, [case.logits, case.weights], order=2)


# Keywords beside logits and labels, whether the labels are dense.
PATHS: dict[str, tuple[dict[str, Any], bool]] = {
    "softmax": ({}, False),
    "softmax, ignored": ({"ignore_label": 255, "power": 2}, False),
    "softmax, weights": ({"weights": True, "class_weights": True}, False),
    "softmax, dense": ({"weights": True, "class_weights": True, "power": 2}, True),
    "sigmoid": ({"activation": "sigmoid", "ignore_label": 255, "class_weights": True}, False),
    "sigmoid, dense": ({"activation": "sigmoid", "weights": True}, True),
    "probabilities": ({"activation": "none", "weights": True, "ignore_label": 255}, False),
    "probabilities, dense": ({"activation": "none", "class_weights": True, "power": 2}, True),
}


def path_case(kind: str, dtype: Any, label_dtype: Any, shape: Any) -> tuple[Any, list[Any]]:
    """A function of logits, labels, weights and class weights, and these."""
    keywords, dense = PATHS[kind]
    generator = np.random.default_rng(0)
    activation = keywords.get("activation", "softmax")
    logits = values_of(generator, shape, activation, "any values").astype(dtype)
    single = shape[-1] == 1 and activation != "softmax"
    labels = generator.integers(0, 2 if single else shape[-1], shape[:-1]).astype(label_dtype)
    if dense:
        labels = generator.uniform(size=shape).astype(label_dtype)
    elif "ignore_label" in keywords and labels.size:
        labels.flat[::3] = 255
    wide = np.float64 if dtype == np.float64 else np.float32
    weights = generator.uniform(0.5, 2, shape[:-1]).astype(wide)
    class_weights = generator.uniform(0.5, 2, shape[-1]).astype(wide)

    def sums(logits: Any, labels: Any, weights: Any, class_weights: Any) -> Any:
        given = {"weights": weights, "class_weights": class_weights}
        own = {name: given.get(name, value) for name, value in keywords.items()}
        return ops.soft_dice_sums(logits, labels, **own)

    return sums, [logits, labels, weights, class_weights]


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_all_paths_agree(dtype: Any, kind: str) -> None:
    dense = PATHS[kind][1]
    for label_dtype in (dtype, np.float32) if dense else LABEL_DTYPES:
        check_paths(*path_case(kind, dtype, label_dtype, (2, 6, 11, 5)))


@pytest.mark.parametrize(
    "shape", [(3, 4), (2, 70, 1), (2, 3, 4, 5, 8), (0, 4, 3), (2, 0, 3)], ids=str
)
@pytest.mark.parametrize("kind", PATHS)
def test_all_paths_agree_on_any_rank(kind: str, shape: tuple[int, ...]) -> None:
    label_dtype = np.float32 if PATHS[kind][1] else np.int32
    check_paths(*path_case(kind, np.float32, label_dtype, shape))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=name_of)
def test_all_paths_agree_on_second_order(dtype: Any) -> None:
    case = smooth_case("softmax", 1, False, 3)

    def slope(logits: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = dice_of(ops.soft_dice_sums(logits, case.labels, ignore_label=255))
        return tape.gradient(loss, logits)

    check_paths(slope, [case.logits.astype(dtype)], rtol=1e-4 if dtype == np.float32 else None)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_all_paths_take_infinite_numbers_and_leave_out_what_does_not_count(
    dtype: Any, activation: str
) -> None:
    generator = np.random.default_rng(0)
    logits = values_of(generator, (2, 40, 3), activation, "infinite values").astype(dtype)
    if activation == "none":
        logits.flat[::5] = generator.choice([np.inf, -np.inf], logits.flat[::5].shape)
    labels = generator.integers(0, 3, (2, 40))
    labels[:, ::4] = 255
    weights = np.ones((2, 40), np.float32)
    weights[:, 1::4] = 0
    for lost in (logits[:, ::4], logits[:, 1::4]):
        lost[:] = generator.choice([np.nan, np.inf, -np.inf], lost.shape).astype(dtype)

    def sums(logits: tf.Tensor, weights: tf.Tensor) -> Any:
        return ops.soft_dice_sums(logits, labels, weights, None, 255, activation)

    assert all(np.isfinite(part).all() for part in sums(logits, weights))
    # As probabilities they are 1e30 and -1e30: the order decides what their sums leave of others.
    if activation != "none":
        check_paths(sums, [logits, weights])


@pytest.mark.parametrize("path", ["eager", "graph", "xla", "portable"])
def test_what_does_not_count_has_a_gradient_of_zero_everywhere(path: str) -> None:
    """To logits, weights, dense targets: whatever stands there."""
    generator = np.random.default_rng(0)
    arrays = [
        generator.normal(size=(2, 9, 4)),
        generator.uniform(size=(2, 9, 4)),
        generator.uniform(0.5, 1, (2, 9)),
    ]
    arrays[2][:, 3:6] = 0
    for array in arrays[:2]:
        array[:, 3:6] = np.array([np.nan, np.inf, -np.inf])[:, None]

    def run(*inputs: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = dice_of(ops.soft_dice_sums(*inputs))
        return list(tape.gradient(loss, inputs))

    function = tf.function(run, jit_compile=path == "xla") if path in ("graph", "xla") else run
    inputs = [tf.constant(array) for array in arrays]
    if path == "portable":
        with tfseg_ops.portable():
            gradients = function(*inputs)
    else:
        gradients = function(*inputs)
    for gradient in gradients:
        assert_same(gradient[:, 3:6], np.zeros_like(gradient[:, 3:6]))
        rest = np.delete(gradient.numpy(), range(3, 6), 1)
        assert np.isfinite(rest).all()
        assert rest.all()


LABELS = np.random.default_rng(0).integers(0, 3, (2, 5, 6))
LOGITS = np.random.default_rng(1).normal(size=(2, 5, 6, 3))


def assert_same_sums(actual: Any, expected: Any) -> None:
    """Asserts the same bits."""
    for one, wanted in zip(actual, expected, strict=True):
        assert_same_bits(one.numpy(), wanted.numpy())


@pytest.mark.parametrize("kind", LABEL_DTYPES, ids=name_of)
def test_labels_and_weights_may_have_a_last_dimension_of_one(kind: Any) -> None:
    weights = np.random.default_rng(2).uniform(size=LABELS.shape)
    expected = ops.soft_dice_sums(LOGITS, LABELS, weights)
    labels = LABELS[..., None].astype(kind)
    assert_same_sums(ops.soft_dice_sums(LOGITS, labels, weights[..., None]), expected)


@pytest.mark.parametrize("activation", ["sigmoid", "none"])
@pytest.mark.parametrize("kind", LABEL_DTYPES, ids=name_of)
def test_labels_of_one_class_are_its_mask(kind: Any, activation: str) -> None:
    logits = np.random.default_rng(0).uniform(size=(2, 5, 6, 1))
    mask = np.random.default_rng(1).integers(0, 2, (2, 5, 6))
    expected = ops.soft_dice_sums(logits, mask[..., None] * 1.0, activation=activation)
    for labels in (mask.astype(kind), mask[..., None].astype(kind)):
        assert_same_sums(ops.soft_dice_sums(logits, labels, activation=activation), expected)


@pytest.mark.parametrize("kind", [*LABEL_DTYPES, *FLOAT_DTYPES], ids=name_of)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_targets_of_the_shape_of_the_logits_are_dense(activation: str, kind: Any) -> None:
    hot = np.eye(3)[LABELS].astype(kind)
    actual = ops.soft_dice_sums(LOGITS, hot, activation=activation)
    for one, wanted in zip(
        actual, ops.soft_dice_sums(LOGITS, LABELS, activation=activation), strict=True
    ):
        assert_close(one, wanted)


def test_weights_of_any_floating_dtype_and_lists_are_taken() -> None:
    weights, class_weights = np.array(LABELS % 2 + 0.5), [1, 2, 4]
    expected = ops.soft_dice_sums(LOGITS, LABELS, weights, class_weights)
    for dtype in FLOAT_DTYPES:
        given = np.array(class_weights).astype(dtype)
        actual = ops.soft_dice_sums(LOGITS, LABELS, weights.astype(dtype), given)
        assert_same_sums(actual, expected)


def test_gradients_have_the_dtypes_of_what_they_are_of() -> None:
    dtypes = [tf.bfloat16, tf.float16, tf.float64, tf.float16]
    shapes = [LOGITS.shape, LOGITS.shape, LABELS.shape, [3]]
    inputs = [tf.ones(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        sums = ops.soft_dice_sums(*inputs)
    assert {part.dtype for part in sums} == {tf.float32}
    gradients = tape.gradient(list(sums), inputs)
    assert [gradient.dtype for gradient in gradients] == dtypes


def test_integers_have_no_gradient_and_one_sum_may_be_asked_for_alone() -> None:
    logits, labels = tf.constant(LOGITS), tf.constant(LABELS)
    hot = tf.one_hot(labels, 3, dtype=tf.int32)
    for targets in (labels, hot):
        for k, name in enumerate(NAMES):
            with tf.GradientTape() as tape:
                tape.watch([logits, targets])
                part = ops.soft_dice_sums(logits, targets)[k]
            to_logits, to_targets = tape.gradient(part, [logits, targets])
            assert to_targets is None
            if name in ("target", "weight_sum"):
                assert to_logits is None or not to_logits.numpy().any()
            else:
                assert to_logits.numpy().any()


@settings(max_examples=40)
@given(dice_cases(dtypes=st.just(np.float32), for_ops=True, poison=False))
def test_loss_of_the_sums_is_that_of_textbooks(case: DiceCase) -> None:
    if case.dense or 0 in case.logits.shape or not case.counts.all():
        return
    logits = np.clip(case.logits, -1e4, 1e4)
    loss = dice_of(ops.soft_dice_sums(logits, case.labels))
    np.testing.assert_allclose(loss, soft_dice_loss(logits, case.labels), atol=1e-6)


def test_cross_entropy_is_that_of_keras() -> None:
    generator = np.random.default_rng(0)
    sums = ops.soft_dice_sums(LOGITS, LABELS)
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
    wanted = np.asarray(expected(LABELS, LOGITS)).mean((1, 2))
    np.testing.assert_allclose(sums.cross_entropy / sums.weight_sum, wanted, 1e-6)
    targets = generator.integers(0, 2, LOGITS.shape)
    sums = ops.soft_dice_sums(LOGITS, targets, activation="sigmoid")
    binary = keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)
    wanted = np.asarray(binary(targets, LOGITS)).mean((1, 2))
    np.testing.assert_allclose(sums.cross_entropy / sums.weight_sum, wanted, 1e-6)


def test_cross_entropy_of_probabilities_is_that_of_keras() -> None:
    p = tf.nn.softmax(LOGITS)
    sums = ops.soft_dice_sums(p, LABELS, activation="none")
    expected = keras.losses.SparseCategoricalCrossentropy(reduction=None)
    wanted = np.asarray(expected(LABELS, p)).mean((1, 2))
    np.testing.assert_allclose(sums.cross_entropy / sums.weight_sum, wanted, 1e-6)


@pytest.mark.skipif(EMULATED, reason="a GPU's kernels round sums in another order")
@pytest.mark.parametrize("kind", DICE)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_results_are_the_same_bits_eagerly_in_graphs_and_under_xla(dtype: Any, kind: str) -> None:
    case = dice_case(kind, dtype)
    upstream = case.upstream()

    def run(logits: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            sums = call(ops.soft_dice_sums, case._replace(logits=logits))
        outputs = [sums.intersection, sums.prediction, sums.cross_entropy]
        return [*sums, tape.gradient(outputs, logits, output_gradients=list(upstream))]

    logits = tf.constant(case.logits)
    expected = run(logits)
    for jit_compile in (None, True):
        for one, wanted in zip(
            tf.function(run, jit_compile=jit_compile)(logits), expected, strict=True
        ):
            assert_same_bits(one.numpy(), wanted.numpy())


NOTHING = [None, None, None, None]


@pytest.mark.parametrize("jit_compile", [None, True])
@pytest.mark.parametrize(
    ("logits", "labels", "static"),
    [
        (None, None, [[None, None]] * 3 + [[None]] * 2),
        (NOTHING, NOTHING[1:], [[None, None]] * 3 + [[None]] * 2),
        ([None, 5, 6, 3], [2, 5, 6], None),
        ([2, None, None, 3], [None, 5, 6], [[2, 3]] * 3 + [[2]] * 2),
        ([2, 5, 6, 3], None, [[2, 3]] * 3 + [[2]] * 2),
    ],
    ids=["unknown ranks", "unknown sizes", "batch of labels", "batch of logits", "known"],
)
def test_static_shape_is_what_can_be_known(
    logits: Any, labels: Any, static: Any, jit_compile: bool | None
) -> None:
    @tf.function(
        input_signature=[tf.TensorSpec(logits), tf.TensorSpec(labels, tf.int64)],
        jit_compile=jit_compile,
    )
    def run(x: tf.Tensor, g: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            sums = ops.soft_dice_sums(x, g)
        return *sums, tape.gradient(sums.cross_entropy, x)

    *sums, gradient = run.get_concrete_function().structured_outputs
    if static is not None:
        assert [part.shape.as_list() for part in sums] == static
    assert gradient.shape.is_compatible_with(logits)
    x = LOGITS.astype(np.float32)
    for one, wanted in zip(run(x, LABELS), soft_dice_sums(x, LABELS), strict=False):
        assert_close(one, wanted)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES[:2], ids=name_of)
def test_large_image_in_half_precision_has_the_loss_of_float64(dtype: Any) -> None:
    """`keras.losses.Dice` in float16 is NaN here."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(1, 512, 512, 4)) * 2
    labels = generator.integers(0, 4, (1, 512, 512))
    loss = dice_of(ops.soft_dice_sums(logits.astype(dtype), labels))
    assert abs(float(loss) - float(soft_dice_loss(logits, labels))) < 1e-3


PEAK = """
import sys
import tensorflow as tf

tf.config.threading.set_intra_op_parallelism_threads(2)
from helpers.memory import peak
from tfseg_ops import ops

def loss(logits, labels):
    sums = ops.soft_dice_sums(logits, labels, ignore_label=255)
    return 1 - tf.reduce_mean(2 * sums.intersection / (sums.prediction + sums.target + 1e-6))

def slope(logits, labels):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(logits, labels)
    return tape.gradient(value, logits)

function = slope if sys.argv[1] == "backward" else loss
if sys.argv[2] == "graph":
    function = tf.function(function)

def run(side):
    logits, labels = tf.ones([1, side, side, 21]), tf.ones([1, side, side], tf.uint8)
    if sys.argv[2] == "graph":
        function.get_concrete_function(logits, labels)
    before = peak()
    result = function(logits, labels)
    # Waits for it without a copy of it.
    tf.reshape(result, [-1])[0].numpy()
    return peak() - before

run(64)
print(run(1024), 1024 * 1024 * 21 * 4)
"""


@pytest.mark.skipif(EMULATED, reason="a GPU has a memory of its own")
@pytest.mark.parametrize("path", ["eager", "graph"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_memory_beyond_logits_and_gradient_is_under_a_megabyte_a_thread(
    direction: str, path: str
) -> None:
    more, logits = map(int, run_python(PEAK, direction, path).split())
    gradient = logits if direction == "backward" else 0
    # For the region that it takes for the gradient, 128 MB, TensorFlow's allocator keeps a table of
    # a thirty-second of its size.
    table = 4 << 20 if direction == "backward" else 0
    assert more - gradient - table < 2 << 20


def test_model_with_the_ops_is_saved_and_loaded(tmp_path: Any) -> None:
    module = tf.Module()
    module.sums = tf.function(
        lambda x, g: ops.soft_dice_sums(x, g, ignore_label=255),
        input_signature=[tf.TensorSpec(NOTHING), tf.TensorSpec(NOTHING[1:], tf.uint8)],
    )
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    x, g = tf.constant(LOGITS, tf.float32), tf.constant(LABELS, tf.uint8)
    expected = module.sums(x, g)
    with tf.GradientTape() as tape:
        tape.watch(x)
        sums = loaded.sums(x, g)
    flat = tf.nest.flatten(sums)
    assert len(flat) == len(NAMES)
    gradient = tape.gradient(flat, x)
    assert gradient.numpy().any()
    for one in expected:
        assert any(np.array_equal(one, other) for other in flat)
