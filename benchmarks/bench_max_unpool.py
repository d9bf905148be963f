"""Times `max_unpool` beside `pure_tf` and the `tf.scatter_nd` that users write."""

import functools
import itertools
import sys
from collections.abc import Callable

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
from tfseg_ops import ops, pure_tf

Shape = tuple[int, int, int, int]  # batch, height, width, channels
Unpool = Callable[[tf.Tensor, tf.Tensor, list[int]], tf.Tensor]

_FACTOR = 2
_FULL: Shape = (8, 112, 112, 64)
_SMOKE: Shape = (2, 4, 6, 3)


def cases(smoke: bool, threads: int, device: str) -> list[Case]:
    """All cases: direction, dtype and mask dtype times path."""
    shape = _SMOKE if smoke else _FULL
    result = []
    for direction, dtype, mask_dtype in itertools.product(
        (FORWARD, FORWARD_BACKWARD), ("float32", "bfloat16"), ("int32", "int64")
    ):
        traffic = _traffic(shape, direction, dtype, mask_dtype)
        for (path, unpool), mode in itertools.product(_PATHS.items(), ("graph", "xla")):
            key = _key(direction, dtype, mask_dtype, path, mode)
            setup = functools.partial(_setup, unpool, shape, direction, dtype, mask_dtype, mode)
            result.append(Case(key, setup, traffic))
        native = _key(direction, dtype, mask_dtype, "native", "graph")
        result += bound_cases(native, traffic, threads, device)
    return result


def _native(values: tf.Tensor, argmax: tf.Tensor, output_shape: list[int]) -> tf.Tensor:
    return ops.max_unpool(values, argmax, output_shape)


def _pure_tf(values: tf.Tensor, argmax: tf.Tensor, output_shape: list[int]) -> tf.Tensor:
    return pure_tf.max_unpool(values, argmax, output_shape)


def _scatter_nd(values: tf.Tensor, argmax: tf.Tensor, output_shape: list[int]) -> tf.Tensor:
    """The recipe of forums and repositories: one scatter over the flattened batch."""
    batch, channels = values.shape[0], values.shape[3]
    plane = output_shape[0] * output_shape[1] * channels
    offsets = tf.reshape(tf.range(batch, dtype=argmax.dtype) * plane, [-1, 1, 1, 1])
    indices = tf.reshape(argmax + offsets, [-1, 1])
    size = tf.constant([batch * plane], argmax.dtype)
    flat = tf.scatter_nd(indices, tf.reshape(values, [-1]), size)
    return tf.reshape(flat, [batch, *output_shape, channels])


_PATHS: dict[str, Unpool] = {"native": _native, "pure_tf": _pure_tf, "scatter_nd": _scatter_nd}


def _setup(
    unpool: Unpool, shape: Shape, direction: str, dtype: str, mask_dtype: str, mode: str
) -> Run:
    values, argmax, upstream = _inputs(shape, dtype, mask_dtype)
    output_shape = [_FACTOR * shape[1], _FACTOR * shape[2]]

    def forward(values: tf.Tensor, argmax: tf.Tensor) -> Outputs:
        return {"output": unpool(values, argmax, output_shape)}

    def forward_backward(values: tf.Tensor, argmax: tf.Tensor, upstream: tf.Tensor) -> Outputs:
        with tf.GradientTape() as tape:
            tape.watch(values)
            output = unpool(values, argmax, output_shape)
        return {"output": output, "gradient": tape.gradient(output, values, upstream)}

    if direction == FORWARD:
        return compiled(forward, (values, argmax), mode)
    return compiled(forward_backward, (values, argmax, upstream), mode)


@functools.lru_cache(maxsize=2)
def _inputs(shape: Shape, dtype: str, mask_dtype: str) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Values, a random position in each window, and the gradient that comes from above.

    All numbers are small integers, exact also in bfloat16, so that all paths agree to the bit.
    """
    random = np.random.default_rng(0)
    batch, height, width, channels = shape
    tall, wide = _FACTOR * height, _FACTOR * width
    rows = _FACTOR * np.arange(height)[:, None, None] + random.integers(0, _FACTOR, shape)
    columns = _FACTOR * np.arange(width)[:, None] + random.integers(0, _FACTOR, shape)
    argmax = (rows * wide + columns) * channels + np.arange(channels)
    values = random.integers(-128, 128, shape)
    upstream = random.integers(-128, 128, (batch, tall, wide, channels))
    return tf.cast(values, dtype), tf.cast(argmax, mask_dtype), tf.cast(upstream, dtype)


def _traffic(shape: Shape, direction: str, dtype: str, mask_dtype: str) -> Traffic:
    small = int(np.prod(shape))
    values = small * tf.as_dtype(dtype).size
    output = values * _FACTOR**2
    argmax = small * tf.as_dtype(mask_dtype).size
    if direction == FORWARD:
        return Traffic(read=values + argmax, written=output)
    return Traffic(read=values + argmax + output + argmax, written=output + values)


def _sizes(smoke: bool) -> str:
    shape = _SMOKE if smoke else _FULL
    output = [shape[0], _FACTOR * shape[1], _FACTOR * shape[2], shape[3]]
    return f"values and masks {list(shape)} to {output}, a random position in each 2x2 window"


def _key(direction: str, dtype: str, mask_dtype: str, path: str, mode: str) -> CaseKey:
    return CaseKey("max_unpool", direction, dtype, f"{mask_dtype} masks", path, mode)


def _goal(direction: str, mask_dtype: str, slow_mode: str, required: float) -> Goal:
    slow = _key(direction, "float32", mask_dtype, "scatter_nd", slow_mode)
    text = (
        f"{direction}, float32, {mask_dtype} masks: native over tf.scatter_nd in {slow_mode} mode"
    )
    return Goal(text, slow, slow._replace(path="native", mode="graph"), required)


BENCHMARK = Benchmark(
    name="max_unpool",
    sizes=_sizes,
    cases=cases,
    goals=(
        _goal(FORWARD, "int32", "graph", 20),
        _goal(FORWARD, "int32", "xla", 3),
        _goal(FORWARD_BACKWARD, "int32", "xla", 3),
        _goal(FORWARD, "int64", "xla", 2),
        _goal(FORWARD_BACKWARD, "int64", "xla", 2),
    ),
)

if __name__ == "__main__":
    from benchmarks.command_line import main

    raise SystemExit(main(["max_unpool", *sys.argv[1:]]))
