"""Times the Dice loss made of `soft_dice_sums` beside the textbook's, Keras's and cross entropy."""

import functools
import itertools
import sys
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from benchmarks.bound import bound_cases
from benchmarks.case import (
    FORWARD,
    FORWARD_BACKWARD,
    Benchmark,
    Case,
    CaseKey,
    Goal,
    Outputs,
    Run,
    Traffic,
)
from benchmarks.harness import compiled
from tfseg_ops import ops
from tfseg_ops.pure_tf.soft_dice_sums import soft_dice_loss

Shape = tuple[int, int, int, int]  # batch, height, width, classes
Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # logits and labels to a scalar

_FULL: Shape = (4, 512, 512, 21)
_SMOKE: Shape = (2, 6, 7, 5)
_EPS = 1e-6
_DICE, _BOTH, _ENTROPY = "Dice", "Dice + cross entropy", "cross entropy"
# Of sums in float32, in the order of each path, and of gradients rounded to bfloat16.
_TOLERANCES = {"float32": 1e-3, "bfloat16": 1e-2}


def cases(smoke: bool, threads: int, device: str) -> list[Case]:
    """All cases: direction and dtype times loss, path and mode."""
    shape = _SMOKE if smoke else _FULL
    result = []
    for direction, dtype in itertools.product((FORWARD, FORWARD_BACKWARD), ("float32", "bfloat16")):
        traffic = _traffic(shape, direction, dtype)
        for (variant, path), loss in _LOSSES.items():
            for mode in ("graph", "xla"):
                result.append(
                    Case(
                        _key(direction, dtype, variant, path, mode),
                        functools.partial(_setup, loss, variant, shape, direction, dtype, mode),
                        traffic,
                        # Cross entropy alone has no native version: it is held against Dice.
                        native_variant=_DICE if variant == _ENTROPY else None,
                        tolerance=_TOLERANCES[dtype],
                    )
                )
        native = _key(direction, dtype, _DICE, "native", "graph")
        result += bound_cases(native, traffic, threads, device)
    return result


def _native(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    sums = ops.soft_dice_sums(logits, labels)
    both = sums.prediction + sums.target
    return 1 - tf.reduce_mean((2 * sums.intersection + _EPS) / (both + _EPS))


def _native_both(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    sums = ops.soft_dice_sums(logits, labels)
    both = sums.prediction + sums.target
    dice = 1 - tf.reduce_mean((2 * sums.intersection + _EPS) / (both + _EPS))
    return dice + tf.reduce_mean(sums.cross_entropy / sums.weight_sum)


# Stock TensorFlow cannot sum so many numbers in bfloat16: there they are cast, as users do it.


def _pure_tf(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return soft_dice_loss(tf.cast(logits, tf.float32), labels, _EPS)


def _pure_tf_both(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return _pure_tf(logits, labels) + _cross_entropy(logits, labels)


def _keras_dice(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    probabilities = tf.nn.softmax(tf.cast(logits, tf.float32))
    targets = tf.one_hot(labels, logits.shape[-1])
    return keras.losses.Dice(axis=(1, 2))(targets, probabilities)


def _cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32))
    return tf.reduce_mean(each)


_LOSSES: dict[tuple[str, str], Loss] = {
    (_DICE, "native"): _native,
    (_DICE, "pure_tf"): _pure_tf,
    (_DICE, "keras.losses.Dice"): _keras_dice,
    (_BOTH, "native"): _native_both,
    (_BOTH, "pure_tf"): _pure_tf_both,
    (_ENTROPY, "sparse_softmax_cross_entropy"): _cross_entropy,
}


def _setup(loss: Loss, variant: str, shape: Shape, direction: str, dtype: str, mode: str) -> Run:
    inputs = _inputs(shape, dtype)

    def forward(logits: tf.Tensor, labels: tf.Tensor) -> Outputs:
        return {variant: loss(logits, labels)}

    def forward_backward(logits: tf.Tensor, labels: tf.Tensor) -> Outputs:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(logits, labels)
        return {variant: value, f"gradient of {variant}": tape.gradient(value, logits)}

    return compiled(forward if direction == FORWARD else forward_backward, inputs, mode)


@functools.lru_cache(maxsize=1)
def _inputs(shape: Shape, dtype: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Logits as of a net that has learnt something, and labels in rectangles."""
    random = np.random.default_rng(0)
    batch, height, width, classes = shape
    labels = np.zeros(shape[:3], np.int32)
    for image, _ in itertools.product(range(batch), range(4 * classes)):
        top, left = random.integers(0, height), random.integers(0, width)
        rows, columns = random.integers(1, height // 2 + 1), random.integers(1, width // 2 + 1)
        labels[image, top : top + rows, left : left + columns] = random.integers(classes)
    logits = random.standard_normal(shape, np.float32) * 2
    logits += 3 * (labels[..., None] == np.arange(classes))
    return tf.cast(logits, dtype), tf.constant(labels)


def _traffic(shape: Shape, direction: str, dtype: str) -> Traffic:
    labels = 4 * int(np.prod(shape[:3]))
    logits = int(np.prod(shape)) * tf.as_dtype(dtype).size
    sums = 4 * shape[0] * (3 * shape[3] + 2)
    if direction == FORWARD:
        return Traffic(read=logits + labels, written=sums)
    # The gradient of the sums is known when all have been summed: a second pass.
    return Traffic(read=2 * (logits + labels), written=sums + logits)


def _sizes(smoke: bool) -> str:
    return f"logits {list(_SMOKE if smoke else _FULL)}, int32 labels, losses of softmax"


def _key(direction: str, dtype: str, variant: str, path: str, mode: str) -> CaseKey:
    return CaseKey("soft_dice_sums", direction, dtype, variant, path, mode)


def _goal(direction: str, slow_mode: str, required: float) -> Goal:
    slow = _key(direction, "float32", _DICE, "pure_tf", slow_mode)
    text = f"{direction}, float32: native over the textbook's Dice in {slow_mode} mode"
    return Goal(text, slow, slow._replace(path="native", mode="graph"), required)


def _price(direction: str) -> Goal:
    """Dice + cross entropy may take 1.15 times as long as Dice.

    One op computes the sums of both whichever are used: Dice alone pays for the cross entropy too.
    """
    dice = _key(direction, "float32", _DICE, "native", "graph")
    text = f"{direction}, float32: native {_BOTH} over {_DICE} alone (1/1.15)"
    return Goal(text, dice, dice._replace(variant=_BOTH), round(1 / 1.15, 3))


BENCHMARK = Benchmark(
    name="soft_dice_sums",
    sizes=_sizes,
    cases=cases,
    goals=(
        _goal(FORWARD, "graph", 20),
        _goal(FORWARD, "xla", 10),
        _goal(FORWARD_BACKWARD, "graph", 10),
        _goal(FORWARD_BACKWARD, "xla", 4),
        _price(FORWARD),
        _price(FORWARD_BACKWARD),
    ),
)

if __name__ == "__main__":
    from benchmarks.command_line import main

    raise SystemExit(main(["soft_dice_sums", *sys.argv[1:]]))
