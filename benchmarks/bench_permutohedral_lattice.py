"""Times the building of lattices for a photograph, beside stock TensorFlow's."""

import functools
import sys

import tensorflow as tf

from benchmarks.bound import bound_cases
from benchmarks.case import FORWARD, Benchmark, Case, CaseKey, Outputs, Run, Traffic
from benchmarks.crf_inputs import features_of, size_of
from benchmarks.harness import compiled
from tfseg_ops import ops, pure_tf

_DIMENSIONS = {"spatial": 2, "bilateral": 5}
_PATHS = (("native", "graph"), ("native", "xla"), ("pure_tf", "graph"))


def cases(smoke: bool, threads: int, device: str) -> list[Case]:
    """All cases: kernel times path."""
    result = []
    for kernel in _DIMENSIONS:
        traffic = _traffic(kernel, smoke)
        for path, mode in _PATHS:
            setup = functools.partial(_setup, kernel, smoke, path, mode)
            result.append(Case(_key(kernel, path, mode), setup, traffic, tolerance=1e-4))
        result += bound_cases(_key(kernel, "native", "graph"), traffic, threads, device)
    return result


def _setup(kernel: str, smoke: bool, path: str, mode: str) -> Run:
    height, width, _ = size_of(smoke)
    build = ops.permutohedral_lattice if path == "native" else pure_tf.permutohedral_lattice

    def run(features: tf.Tensor) -> Outputs:
        members = build(features)._asdict()
        # All are made, but vertices may be numbered in another order: these are compared.
        compared = {f"{name} of {kernel}": members[name] for name in ("norms", "num_vertices")}
        return compared | {f"{name} by {path} {mode}": value for name, value in members.items()}

    return compiled(run, (features_of(kernel, height, width),), mode)


def _traffic(kernel: str, smoke: bool) -> Traffic:
    height, width, _ = size_of(smoke)
    points, dimensions = height * width, _DIMENSIONS[kernel]
    # Vertices and weights of each point, by point and by vertex, and its norm.
    return Traffic(read=4 * points * dimensions, written=4 * points * (4 * dimensions + 5))


def _key(kernel: str, path: str, mode: str) -> CaseKey:
    return CaseKey("permutohedral_lattice", FORWARD, "float32", kernel, path, mode)


def _sizes(smoke: bool) -> str:
    height, width, _ = size_of(smoke)
    return f"a photograph of {height}x{width}; positions / 3, positions / 80 and colours / 13"


BENCHMARK = Benchmark(name="permutohedral_lattice", sizes=_sizes, cases=cases)

if __name__ == "__main__":
    from benchmarks.command_line import main

    raise SystemExit(main(["permutohedral_lattice", *sys.argv[1:]]))
