"""Derivatives of a function of tensors: by `tf.GradientTape` and by central differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ._compare import to_numpy


def to_tensors(op: str, inputs: Sequence[Any], widen: bool = True) -> list[tf.Tensor]:
    """The inputs as tensors, the floating ones in float64 where `widen` is true."""
    tensors = [tf.convert_to_tensor(value) for value in inputs]
    for i, tensor in enumerate(tensors):
        if tensor.dtype.is_complex:
            raise TypeError(f"{op}: 'inputs' must not be complex, got {tensor.dtype.name} at {i}")
    return [tf.cast(t, tf.float64) if widen and t.dtype.is_floating else t for t in tensors]


def flat_outputs(result: Any) -> list[tf.Tensor]:
    """The tensors in a function's result, in the order of `tf.nest.flatten`, without None."""
    return [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(result) if leaf is not None]


def floating_outputs(result: Any) -> list[tf.Tensor]:
    """The differentiable ones of `flat_outputs`."""
    return [output for output in flat_outputs(result) if output.dtype.is_floating]


def random_weights(generator: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Random signs and magnitudes in [0.5, 1.5]: no weight is so small that it hides an error."""
    size = tuple(shape)
    return np.asarray(
        generator.choice([-1.0, 1.0], size=size) * generator.uniform(0.5, 1.5, size=size)
    )


def tape_gradients(
    function: Callable[..., Any],
    inputs: Sequence[tf.Tensor],
    indices: Sequence[int],
    upstream: Sequence[tf.Tensor],
) -> list[tf.Tensor]:
    """d<upstream, floating outputs>/d inputs[i] for i in `indices`; zeros where it is None."""
    sources = [inputs[i] for i in indices]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(sources)
        outputs = floating_outputs(function(*inputs))
    weights = [
        tf.cast(weight, output.dtype) for weight, output in zip(upstream, outputs, strict=True)
    ]
    gradients = tape.gradient(outputs, sources, output_gradients=weights)
    # convert_to_tensor densifies tf.IndexedSlices.
    return [
        tf.zeros_like(source) if gradient is None else tf.convert_to_tensor(gradient)
        for source, gradient in zip(sources, gradients, strict=True)
    ]


def central_difference(
    function: Callable[..., Any],
    inputs: Sequence[tf.Tensor],
    index: int,
    upstream: Sequence[np.ndarray],
    direction: np.ndarray,
    step: float,
) -> float:
    """d<upstream, floating outputs>/d inputs[index] along `direction`, in float64.

    Outputs are subtracted before they are summed, so those that do not depend on the element cancel
    exactly. The width is that of the two points after rounding, which matters for large
    coordinates.
    """
    value = inputs[index].numpy()
    above, below = value + step * direction, value - step * direction

    def outputs(point: np.ndarray) -> list[np.ndarray]:
        moved = [*inputs[:index], tf.constant(point), *inputs[index + 1 :]]
        return [to_numpy(output) for output in floating_outputs(function(*moved))]

    with np.errstate(invalid="ignore", over="ignore"):
        change = sum(
            float(np.sum(weight * (high - low)))
            for weight, high, low in zip(upstream, outputs(above), outputs(below), strict=True)
        )
        width = np.sum((above - below) * direction) / np.sum(direction * direction)
        return float(change / width)


def unit_direction(shape: Sequence[int], position: int) -> np.ndarray:
    """1 at a flat position, 0 elsewhere."""
    direction = np.zeros(tuple(shape))
    direction.flat[position] = 1.0
    return direction


def check_step(op: str, step: float) -> None:
    """Raises ValueError unless `step` is positive and finite."""
    if not (step > 0 and np.isfinite(step)):
        raise ValueError(f"{op}: 'step' must be positive, got {step}")
