"""First- and second-order gradients against central differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ._compare import Difference, find_difference, index_text, input_labels, to_numpy
from ._gradients import (
    central_difference,
    check_step,
    floating_outputs,
    random_weights,
    tape_gradients,
    to_tensors,
)

_OP = "check_gradients"
_MAX_CHECKS = 200


def check_gradients(
    function: Callable[..., Any],
    inputs: Sequence[Any],
    order: int = 1,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    step: float = 1e-5,
    seed: int = 0,
    names: Sequence[str] | None = None,
    differentiable: Sequence[bool] | None = None,
) -> None:
    """Compares the gradients that TensorFlow computes with central differences in float64.

    Order 1, with fixed random weights `u`: `d<u, f(x)>/dx`. Order 2, after order 1, with fixed
    random `v`: `g(u, x) = d<u, f(x)>/dx`, then `d<v, g(u, x)>/dx` and `d<v, g(u, x)>/du`; the
    latter because a gradient op that is itself not differentiable to its upstream gradient is wrong
    in silence. The two agree where `|analytic - numeric| <= atol + rtol * max(|analytic|,
    |numeric|)`, so `atol` must lie well below the gradients in question.

    A gradient of None counts as zeros and is compared like any other. NaN and Inf on either side
    fail. An input of no elements passes. An input of up to 200 elements is checked element by
    element. Of a larger one, 100 random elements are checked one by one, and all elements in 100
    random groups, along a random direction in each. The
    inputs must be further than `1.5 * step` from kinks (ties of a maximum, borders of an image).

    Args:
        function: takes as many tensors as there are inputs and returns a tensor or a nested
            structure of tensors, the same ones each time. Integer outputs are ignored. It must
            compute in float64 where its inputs are float64 (a Keras layer: `dtype="float64"`).
        inputs: arrays or tensors. Floating ones are cast to float64 and all are checked; others are
            passed as they are.
        order: 1 or 2.
        rtol: relative tolerance.
        atol: absolute tolerance.
        step: half the distance of the two points of a difference, in the units of the input.
        seed: of the weights `u` and `v` and of what is drawn for large inputs.
        names: of the inputs, for messages; by default the parameter names of `function`.
        differentiable: one bool for each input; False leaves it out of the check. None: all
            floating ones.

    Raises:
        AssertionError: a gradient is wrong. There is one line for each input that fails, for
            instance `check_gradients: order 1, input 'boxes' [2, 3]: analytic 0.5, numeric 1.25
            (|difference| 0.75 > tolerance 1.26e-05); 3 of 40 elements differ`: the element that
            differs most.
        ValueError: a wrong argument, no differentiable input or no floating output.
        TypeError: an input is complex.
        LookupError: an op has no gradient of that order (raised by TensorFlow).

    Example:
        >>> check_gradients(tf.matmul, [np.ones([2, 3]), np.ones([3, 4])], order=2)
    """
    if order not in (1, 2):
        raise ValueError(f"{_OP}: 'order' must be 1 or 2, got {order}")
    check_step(_OP, step)
    tensors = to_tensors(_OP, inputs)
    indices = _checked_indices(tensors, differentiable)
    labels = input_labels(_OP, function, len(tensors), names)
    generator = np.random.default_rng(seed)

    outputs = floating_outputs(function(*tensors))
    if not outputs:
        raise ValueError(f"{_OP}: 'function' must return a floating tensor, got none")
    upstream = [tf.constant(random_weights(generator, output.shape)) for output in outputs]
    settings = _Settings(rtol, atol, step, generator)
    _check_first_order(f"{_OP}: order 1", function, tensors, indices, upstream, labels, settings)
    if order == 1:
        return

    count = len(upstream)

    def gradient(*arguments: tf.Tensor) -> list[tf.Tensor]:
        return tape_gradients(function, arguments[count:], indices, arguments[:count])

    weight_labels = ["upstream"] if count == 1 else [f"upstream {k}" for k in range(count)]
    _check_first_order(
        f"{_OP}: order 2",
        gradient,
        [*upstream, *tensors],
        [*range(count), *(count + i for i in indices)],
        [tf.constant(random_weights(generator, tensors[i].shape)) for i in indices],
        [*weight_labels, *labels],
        settings,
    )


class _Settings(NamedTuple):
    rtol: float
    atol: float
    step: float
    generator: np.random.Generator


def _checked_indices(
    tensors: Sequence[tf.Tensor], differentiable: Sequence[bool] | None
) -> list[int]:
    floating = [i for i, tensor in enumerate(tensors) if tensor.dtype.is_floating]
    if differentiable is None:
        if not floating:
            raise ValueError(
                f"{_OP}: 'inputs' must have a floating one, got none of {len(tensors)}"
            )
        return floating
    if len(differentiable) != len(tensors):
        raise ValueError(
            f"{_OP}: 'differentiable' must have one bool for each of {len(tensors)} inputs, "
            f"got {len(differentiable)}"
        )
    chosen = [i for i, wanted in enumerate(differentiable) if wanted]
    if not chosen or not set(chosen) <= set(floating):
        raise ValueError(
            f"{_OP}: 'differentiable' must choose among the floating inputs {floating}, "
            f"got {chosen}"
        )
    return chosen


def _check_first_order(
    where: str,
    function: Callable[..., Any],
    tensors: Sequence[tf.Tensor],
    indices: Sequence[int],
    upstream: Sequence[tf.Tensor],
    labels: Sequence[str],
    settings: _Settings,
) -> None:
    """Raises AssertionError unless the gradients of <upstream, function> are right."""
    gradients = tape_gradients(function, tensors, indices, upstream)
    weights = [weight.numpy() for weight in upstream]
    failures: list[str] = []
    for i, gradient in zip(indices, gradients, strict=True):
        analytic, shape = to_numpy(gradient), tuple(tensors[i].shape)
        if analytic.shape != shape:
            shapes = f"gradient of shape {list(analytic.shape)}, input of {list(shape)}"
            failures.append(f"{where}, {labels[i]}: {shapes}")
            continue

        def numeric(direction: np.ndarray, i: int = i) -> float:
            return central_difference(function, tensors, i, weights, direction, settings.step)

        if failure := _describe_difference(analytic, numeric, settings):
            failures.append(f"{where}, {labels[i]}{failure}")
    if failures:
        raise AssertionError("\n".join(failures))


def _describe_difference(
    analytic: np.ndarray, numeric: Callable[[np.ndarray], float], settings: _Settings
) -> str | None:
    """Compares a gradient with derivatives along directions; the end of a sentence, or None."""
    shape, size = analytic.shape, analytic.size
    weights = random_weights(settings.generator, shape)

    def compare(groups: Sequence[np.ndarray]) -> Difference | None:
        pairs = np.zeros([2, len(groups)])
        for k, group in enumerate(groups):
            direction = np.zeros(shape)
            direction.flat[group] = weights.flat[group] if len(group) > 1 else 1.0
            with np.errstate(invalid="ignore"):
                along = np.sum(analytic.flat[group] * direction.flat[group])
            pairs[:, k] = along, numeric(direction)
        sides = ("analytic", pairs[0]), ("numeric", pairs[1])
        return find_difference(*sides, settings.rtol, settings.atol)

    groups = _groups(size, settings.generator)
    found = compare(groups)
    if found is None:
        return None
    group, numbers = groups[found.worst], found.numbers
    while len(group) > 1:
        halves = np.array_split(group, 2)
        differences = [(half, compare([half])) for half in halves]
        narrower = [(half, difference.numbers) for half, difference in differences if difference]
        if not narrower:
            break
        group, numbers = narrower[0]
    more = f" and {len(group) - 1} more along a random direction" if len(group) > 1 else ""
    checks = "elements" if size <= _MAX_CHECKS else f"derivatives over {size} elements"
    counts = f"{found.wrong} of {len(groups)} {checks} differ"
    return f"{index_text(group[0], shape)}{more}: {numbers}; {counts}"


def _groups(size: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Flat positions that are checked together: each element alone, or see `check_gradients`."""
    if size <= _MAX_CHECKS:
        return list(np.arange(size)[:, None])
    half = _MAX_CHECKS // 2
    alone = generator.choice(size, half, replace=False)[:, None]
    return [*alone, *np.array_split(generator.permutation(size), half)]
