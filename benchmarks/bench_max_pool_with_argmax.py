"""Times `max_pool_with_argmax` beside TensorFlow's own op, plain max pooling, and `pure_tf`."""

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
Pool = Callable[[tf.Tensor, tf.DType], dict[str, tf.Tensor]]  # input and mask dtype to results

_WINDOW = 2
_FULL: Shape = (8, 224, 224, 64)
_SMOKE: Shape = (2, 8, 12, 3)
_NO_MASKS = "no masks"


def cases(smoke: bool, threads: int, device: str) -> list[Case]:
    """All cases: direction, dtype and mask dtype times path."""
    shape = _SMOKE if smoke else _FULL
    result = []
    for direction, dtype in itertools.product((FORWARD, FORWARD_BACKWARD), ("float32", "bfloat16")):
        for mask_dtype in (tf.int32, tf.int64):
            variant = f"{mask_dtype.name} masks"
            traffic = _traffic(shape, direction, dtype, mask_dtype.size)
            for (path, pool), mode in itertools.product(_PATHS.items(), ("graph", "xla")):
                key = CaseKey("max_pool_with_argmax", direction, dtype, variant, path, mode)
                setup = functools.partial(_setup, pool, shape, direction, dtype, mask_dtype, mode)
                result.append(Case(key, setup, traffic, optional=pool is _stock))
            native = CaseKey("max_pool_with_argmax", direction, dtype, variant, "native", "graph")
            result += bound_cases(native, traffic, threads, device)
        for mode in ("graph", "xla"):
            key = CaseKey(
                "max_pool_with_argmax", direction, dtype, _NO_MASKS, "tf.nn.max_pool2d", mode
            )
            setup = functools.partial(_setup, _plain, shape, direction, dtype, tf.int64, mode)
            traffic = _traffic(shape, direction, dtype, None)
            result.append(Case(key, setup, traffic, native_variant="int64 masks", optional=True))
    return result


def _native(images: tf.Tensor, mask_dtype: tf.DType) -> dict[str, tf.Tensor]:
    output, argmax = ops.max_pool_with_argmax(images, _WINDOW, _WINDOW, "VALID", mask_dtype)
    return {"output": output, "argmax": argmax}


def _pure_tf(images: tf.Tensor, mask_dtype: tf.DType) -> dict[str, tf.Tensor]:
    output, argmax = pure_tf.max_pool_with_argmax(images, _WINDOW, _WINDOW, "VALID", mask_dtype)
    return {"output": output, "argmax": argmax}


def _stock(images: tf.Tensor, mask_dtype: tf.DType) -> dict[str, tf.Tensor]:
    output, argmax = tf.nn.max_pool_with_argmax(
        images, _WINDOW, _WINDOW, "VALID", output_dtype=mask_dtype
    )
    return {"output": output, "argmax": argmax}


def _plain(images: tf.Tensor, mask_dtype: tf.DType) -> dict[str, tf.Tensor]:
    del mask_dtype
    return {"output": tf.nn.max_pool2d(images, _WINDOW, _WINDOW, "VALID")}


_PATHS: dict[str, Pool] = {
    "native": _native,
    "pure_tf": _pure_tf,
    "tf.nn.max_pool_with_argmax": _stock,
}


def _setup(
    pool: Pool, shape: Shape, direction: str, dtype: str, mask_dtype: tf.DType, mode: str
) -> Run:
    images, upstream = _inputs(shape, dtype)

    def forward(images: tf.Tensor) -> Outputs:
        return pool(images, mask_dtype)

    def forward_backward(images: tf.Tensor, upstream: tf.Tensor) -> Outputs:
        with tf.GradientTape() as tape:
            tape.watch(images)
            results = pool(images, mask_dtype)
        return {**results, "gradient": tape.gradient(results["output"], images, upstream)}

    if direction == FORWARD:
        return compiled(forward, (images,), mode)
    return compiled(forward_backward, (images, upstream), mode)


@functools.lru_cache(maxsize=1)
def _inputs(shape: Shape, dtype: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Images without ties in any window, and the gradient that comes from above.

    Stock ops differ in how they break ties; without ties all paths must agree to the bit. The
    numbers are integers exact also in bfloat16: six random bits, then the place in the window.
    """
    random = np.random.default_rng(0)
    batch, height, width, channels = shape
    place = (
        _WINDOW * (np.arange(height)[:, None, None] % _WINDOW) + np.arange(width)[:, None] % _WINDOW
    )
    images = 4 * random.integers(-32, 32, shape, dtype=np.int32) + place.astype(np.int32)
    pooled = (batch, height // _WINDOW, width // _WINDOW, channels)
    upstream = random.integers(-128, 128, pooled, dtype=np.int32)
    return tf.cast(images, dtype), tf.cast(upstream, dtype)


def _traffic(shape: Shape, direction: str, dtype: str, mask_bytes: int | None) -> Traffic:
    images = int(np.prod(shape)) * tf.as_dtype(dtype).size
    output = images // _WINDOW**2
    argmax = int(np.prod(shape)) // _WINDOW**2 * (mask_bytes or 0)
    if direction == FORWARD:
        return Traffic(read=images, written=output + argmax)
    # Without masks the backward pass has to look at the images again.
    found = images if mask_bytes is None else argmax
    return Traffic(read=images + output + found, written=output + argmax + images)


def _sizes(smoke: bool) -> str:
    return f"images {list(_SMOKE if smoke else _FULL)}, windows and strides of 2x2, no ties"


def _goal(mask_dtype: str, slow_mask_dtype: str, required: float) -> Goal:
    native = CaseKey(
        "max_pool_with_argmax", FORWARD, "float32", f"{mask_dtype} masks", "native", "graph"
    )
    slow = native._replace(variant=f"{slow_mask_dtype} masks", path="tf.nn.max_pool_with_argmax")
    text = f"forward, float32: native, {native.variant}, over {slow.path}, {slow.variant}"
    return Goal(text, slow, native, required)


BENCHMARK = Benchmark(
    name="max_pool_with_argmax",
    sizes=_sizes,
    cases=cases,
    goals=(_goal("int64", "int64", 4), _goal("int64", "int32", 1.5), _goal("int32", "int32", 1.5)),
)

if __name__ == "__main__":
    from benchmarks.command_line import main

    raise SystemExit(main(["max_pool_with_argmax", *sys.argv[1:]]))
