"""Calls a function of tensors on every path: eagerly, in graphs, under XLA, in stock TF."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

import tfseg_ops

TF_ERRORS = (ValueError, TypeError, tf.errors.InvalidArgumentError)


def graph(function: Callable[..., Any], arrays: list[np.ndarray], known: bool, xla: bool) -> Any:
    """Runs in a `tf.function` whose inputs have static shapes, or none."""
    specs = [tf.TensorSpec(a.shape if known else None, a.dtype) for a in arrays]
    compiled = tf.function(function, input_signature=specs, jit_compile=xla or None)
    return compiled(*arrays)


def portable(function: Callable[..., Any], arrays: list[np.ndarray]) -> Any:
    """Runs eagerly in stock TF."""
    with tfseg_ops.portable():
        return function(*map(tf.constant, arrays))


RUNNERS: dict[str, Callable[[Callable[..., Any], list[np.ndarray]], Any]] = {
    "eager": lambda function, arrays: function(*map(tf.constant, arrays)),
    "graph": lambda function, arrays: graph(function, arrays, known=True, xla=False),
    "graph, unknown shapes": lambda f, arrays: graph(f, arrays, known=False, xla=False),
    "xla": lambda function, arrays: graph(function, arrays, known=True, xla=True),
    "xla, unknown shapes": lambda function, arrays: graph(function, arrays, known=False, xla=True),
    "portable": portable,
}
