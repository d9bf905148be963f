"""Gradients by central differences, to compare others with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ._compare import to_numpy
from ._gradients import (
    central_difference,
    check_step,
    flat_outputs,
    to_tensors,
    unit_direction,
)


def numeric_gradient(
    function: Callable[..., Any],
    inputs: Sequence[Any],
    index: int,
    upstream: Any = None,
    step: float = 1e-5,
) -> np.ndarray:
    """Gradient of `<upstream, function(*inputs)>` to one input, by central differences in float64.

    Element `i` is `<upstream, f(x + step e_i) - f(x - step e_i)> / (2 step)`: two calls of
    `function` for each element. It is meaningless within `step` of a kink or a jump (ties of a
    maximum).

    Args:
        function: takes as many tensors as there are inputs and returns a tensor or a nested
            structure of tensors. Integer and boolean outputs and None are ignored.
        inputs: arrays or tensors. Floating ones are cast to float64, others passed as they are.
        index: which input to differentiate by; it must be floating.
        upstream: weights of the outputs, in the structure and shapes of the outputs; those of
            outputs that are ignored are ignored. None: all ones.
        step: half the distance of the two points, in the units of the input.

    Returns:
        float64 array in the shape of `inputs[index]`. NaN where an output is not finite.

    Raises:
        ValueError: `index` names no floating input, `step` is not positive, or `upstream` does not
            fit the outputs.
        TypeError: an input is complex.

    Example:
        >>> numeric_gradient(tf.square, [np.array([1.0, 3.0])], index=0).round(6)
        array([2., 6.])
    """
    check_step("numeric_gradient", step)
    tensors = to_tensors("numeric_gradient", inputs)
    if not (0 <= index < len(tensors) and tensors[index].dtype.is_floating):
        floating = [i for i, tensor in enumerate(tensors) if tensor.dtype.is_floating]
        raise ValueError(
            f"numeric_gradient: 'index' must be a floating input's, one of {floating}, got {index}"
        )
    weights = _upstream_weights(flat_outputs(function(*tensors)), upstream)
    gradient = np.zeros(tuple(tensors[index].shape))
    for k in range(gradient.size):
        direction = unit_direction(gradient.shape, k)
        gradient.flat[k] = central_difference(function, tensors, index, weights, direction, step)
    return gradient


def _upstream_weights(outputs: list[tf.Tensor], upstream: Any) -> list[np.ndarray]:
    if upstream is None:
        return [np.ones(output.shape) for output in outputs if output.dtype.is_floating]
    given = tf.nest.flatten(upstream)
    if len(given) != len(outputs):
        raise ValueError(
            f"numeric_gradient: 'upstream' must have one array for each of {len(outputs)} outputs, "
            f"got {len(given)}"
        )
    weights = []
    for weight, output in zip(given, outputs, strict=True):
        if not output.dtype.is_floating:
            continue
        array = to_numpy(weight)
        if array.shape != tuple(output.shape):
            raise ValueError(
                f"numeric_gradient: 'upstream' must have the output's shape {list(output.shape)}, "
                f"got {list(array.shape)}"
            )
        weights.append(array)
    return weights
