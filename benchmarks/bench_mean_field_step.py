"""Times one mean-field step on lattices that are built, beside stock TensorFlow."""

import functools
import itertools
import sys
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.bound import bound_cases
from benchmarks.case import (
    FORWARD,
    FORWARD_BACKWARD,
    Benchmark,
    Case,
    CaseKey,
    Outputs,
    Run,
    Traffic,
)
from benchmarks.crf_inputs import features_of, rough_logits, size_of
from benchmarks.harness import compiled
from tfseg_ops import ops, pure_tf

_POTTS, _MATRIX = "Potts", "a matrix"
_PATHS = (("native", "graph"), ("native", "xla"), ("pure_tf", "graph"), ("pure_tf", "xla"))
_CORNERS = 3 + 6


def cases(smoke: bool, threads: int, device: str) -> list[Case]:
    """All cases: direction and compatibility times path."""
    result = []
    for direction, variant in itertools.product((FORWARD, FORWARD_BACKWARD), (_POTTS, _MATRIX)):
        traffic = _traffic(direction, smoke)
        for path, mode in _PATHS:
            setup = functools.partial(_setup, direction, variant, smoke, path, mode)
            key = _key(direction, variant, path, mode)
            result.append(Case(key, setup, traffic, tolerance=1e-3))
        native = _key(direction, variant, "native", "graph")
        result += bound_cases(native, traffic, threads, device)
    return result


def _setup(direction: str, variant: str, smoke: bool, path: str, mode: str) -> Run:
    height, width, classes = size_of(smoke)
    unary = tf.reshape(rough_logits(height, width, classes), [1, -1, classes])
    lattices = [
        ops.permutohedral_lattice(features_of(kernel, height, width))
        for kernel in ("spatial", "bilateral")
    ]
    step = ops.mean_field_step if path == "native" else pure_tf.mean_field_step
    weights = tf.constant([3.0, 10.0])
    noise = np.random.default_rng(0).uniform(0, 0.1, [classes, classes])
    matrix = tf.constant(1 - np.eye(classes) + noise, tf.float32) if variant == _MATRIX else None

    def run(q: tf.Tensor, unary: tf.Tensor, weights: tf.Tensor, *members: tf.Tensor) -> Any:
        both = [ops.Lattice(*members[:9]), ops.Lattice(*members[9:])]
        return step(q, unary, both, weights, matrix)

    def forward(*inputs: tf.Tensor) -> Outputs:
        return {f"output of {variant}": run(*inputs)}

    def forward_backward(*inputs: tf.Tensor) -> Outputs:
        with tf.GradientTape() as tape:
            tape.watch(inputs[:3])
            output = run(*inputs)
        gradients = tape.gradient(output, inputs[:3], output_gradients=inputs[0])
        names = ("output", "gradient to q", "gradient to the unary", "gradient to the weights")
        named = zip(names, [output, *gradients], strict=True)
        return {f"{name} of {variant}": value for name, value in named}

    inputs = (tf.nn.softmax(unary), unary, weights, *lattices[0], *lattices[1])
    return compiled(forward if direction == FORWARD else forward_backward, inputs, mode)


def _traffic(direction: str, smoke: bool) -> Traffic:
    height, width, classes = size_of(smoke)
    values, lattices = (4 * height * width * n for n in (classes, 4 * _CORNERS))
    if direction == FORWARD:
        return Traffic(read=2 * values + lattices, written=values)
    # The gradient reads q again, the output and what comes from above.
    return Traffic(read=5 * values + 3 * lattices, written=3 * values)


def _key(direction: str, variant: str, path: str, mode: str) -> CaseKey:
    return CaseKey("mean_field_step", direction, "float32", variant, path, mode)


def _sizes(smoke: bool) -> str:
    height, width, classes = size_of(smoke)
    return f"a photograph of {height}x{width}, {classes} classes, two lattices built before"


BENCHMARK = Benchmark(name="mean_field_step", sizes=_sizes, cases=cases)

if __name__ == "__main__":
    from benchmarks.command_line import main

    raise SystemExit(main(["mean_field_step", *sys.argv[1:]]))
