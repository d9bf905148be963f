"""Times the filter of a photograph's classes on lattices built before, beside stock TensorFlow."""

import functools
import itertools
import sys

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

_DIMENSIONS = {"spatial": 2, "bilateral": 5}
_PATHS = (("native", "graph"), ("native", "xla"), ("pure_tf", "graph"), ("pure_tf", "xla"))


def cases(smoke: bool, threads: int, device: str) -> list[Case]:
    """All cases: direction and kernel times path."""
    result = []
    for direction, kernel in itertools.product((FORWARD, FORWARD_BACKWARD), _DIMENSIONS):
        traffic = _traffic(direction, kernel, smoke)
        for path, mode in _PATHS:
            setup = functools.partial(_setup, direction, kernel, smoke, path, mode)
            result.append(Case(_key(direction, kernel, path, mode), setup, traffic, tolerance=1e-4))
        native = _key(direction, kernel, "native", "graph")
        result += bound_cases(native, traffic, threads, device)
    return result


def _setup(direction: str, kernel: str, smoke: bool, path: str, mode: str) -> Run:
    height, width, classes = size_of(smoke)
    values = tf.nn.softmax(tf.reshape(rough_logits(height, width, classes), [1, -1, classes]))
    lattice = ops.permutohedral_lattice(features_of(kernel, height, width))
    gaussian_filter = ops.gaussian_filter if path == "native" else pure_tf.gaussian_filter

    def forward(values: tf.Tensor, *members: tf.Tensor) -> Outputs:
        return {f"output of {kernel}": gaussian_filter(values, ops.Lattice(*members))}

    def forward_backward(values: tf.Tensor, *members: tf.Tensor) -> Outputs:
        with tf.GradientTape() as tape:
            tape.watch(values)
            (output,) = forward(values, *members).values()
        gradient = tape.gradient(output, values, output_gradients=values)
        return {f"output of {kernel}": output, f"gradient of {kernel}": gradient}

    return compiled(forward if direction == FORWARD else forward_backward, (values, *lattice), mode)


def _traffic(direction: str, kernel: str, smoke: bool) -> Traffic:
    height, width, classes = size_of(smoke)
    points, corners = height * width, _DIMENSIONS[kernel] + 1
    values, lattice = 4 * points * classes, 4 * points * 4 * corners
    passes = 1 if direction == FORWARD else 2
    return Traffic(read=passes * (values + lattice), written=passes * values)


def _key(direction: str, kernel: str, path: str, mode: str) -> CaseKey:
    return CaseKey("gaussian_filter", direction, "float32", kernel, path, mode)


def _sizes(smoke: bool) -> str:
    height, width, classes = size_of(smoke)
    return f"a photograph of {height}x{width}, {classes} classes, its lattices built before"


BENCHMARK = Benchmark(name="gaussian_filter", sizes=_sizes, cases=cases)

if __name__ == "__main__":
    from benchmarks.command_line import main

    raise SystemExit(main(["gaussian_filter", *sys.argv[1:]]))
