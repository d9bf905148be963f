"""Runs functions on the GPU, eagerly, in a graph and under XLA, and finds out where results are.

With `TFSEG_OPS_LIBRARY=emulated` the CUDA source is registered as kernels of the CPU, and the same
tests run there.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

EMULATED = os.environ.get("TFSEG_OPS_LIBRARY") == "emulated"
DEVICE = "/CPU:0" if EMULATED else "/GPU:0"
PATHS = ("eager", "graph", "xla")


def require_gpu() -> None:
    """Skips the test module that calls it where there is nothing to test, and says why."""
    import tensorflow as tf

    from tfseg_ops import _library, _portable

    reason = ""
    if _portable.is_portable():
        reason = "TFSEG_OPS_PORTABLE is set"
    elif not EMULATED and not tf.config.list_physical_devices("GPU"):
        reason = "TensorFlow sees no GPU (it is looked for by `pytest -m gpu` alone)"
    elif not EMULATED and _library.cuda_absence():
        reason = f"the package has no CUDA kernels: {_library.cuda_absence()}"
    if reason:
        pytest.skip(reason, allow_module_level=True)


def run(path: str, function: Callable[..., Any], *inputs: Any) -> list[np.ndarray]:
    """Returns the results of a function of tensors, after a look at where they are.

    TensorFlow keeps int32 results of graphs in host memory: they are not looked at.
    """
    import tensorflow as tf

    with tf.device(DEVICE):
        tensors = [tf.constant(array) for array in inputs]
        if path != "eager":
            function = tf.function(function, jit_compile=True if path == "xla" else None)
        results = tf.nest.flatten(function(*tensors))
    for result in results:
        if result.dtype != tf.int32:
            require_device(result.device)
            require_device(result.backing_device)
    return [result.numpy() for result in results]


def require_device(name: str) -> None:
    """Fails unless a tensor or variable with this device is where the test runs."""
    assert name.endswith(f"device:{DEVICE.strip('/')}"), f"{name} is not {DEVICE}"


def replaced(
    masks: np.ndarray, generator: np.random.Generator, wrong: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns masks of which a third, at least one, are wrong, and where the others are."""
    kept = generator.uniform(size=masks.shape) > 1 / 3
    kept.flat[generator.integers(masks.size)] = False
    return np.where(kept, masks, generator.choice(wrong, masks.shape)).astype(masks.dtype), kept
