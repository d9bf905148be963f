"""One answer from the native, the XLA and the portable path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ._compare import find_difference, index_text, input_labels, to_numpy, tolerances
from ._gradients import flat_outputs, floating_outputs, random_weights, tape_gradients, to_tensors

_OP = "check_paths"
_PATHS = ("native", "xla", "portable")


def check_paths(
    function: Callable[..., Any],
    inputs: Sequence[Any],
    gradient: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    paths: Sequence[str] = _PATHS,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> None:
    """Checks that outputs and gradients of a function are the same on every path.

    The paths: `native`, eagerly and again in a `tf.function` (`graph` in messages); `xla`, in a
    `tf.function` with `jit_compile=True`; `portable`, eagerly inside `tfseg_ops.portable()`. All
    are compared with the first one of `paths`. Integers, dtypes and shapes must be equal; floating
    values agree where `|a - b| <= atol + rtol * max(|a|, |b|)`, and NaN with NaN, Inf with the same
    Inf. A gradient of None counts as zeros.

    Args:
        function: takes as many tensors as there are inputs and returns a tensor or a nested
            structure of tensors. A `tf.function` is unwrapped, since its trace of one path would be
            run again for another; one that `function` calls is not, so do not let it call any.
        inputs: arrays or tensors, used in their own dtypes.
        gradient: whether to compare gradients, of the floating outputs with fixed random weights.
        rtol: relative tolerance; None: by the dtype of an output, 1e-10 for float64, 1e-4 for
            float32, 1e-2 for float16, 5e-2 for bfloat16; for gradients by the coarsest dtype among
            inputs and outputs.
        atol: absolute tolerance; None: likewise, 1e-10, 1e-5, 1e-2, 5e-2.
        paths: which paths, of `native`, `xla` and `portable`.
        names: of the inputs, for messages; by default the parameter names of `function`.
        seed: of the random weights.

    Raises:
        AssertionError: two paths differ, or a path after the first raises an error. There is one
            line for each output and gradient that differs, for instance `check_paths: xla, gradient
            to input 'boxes' [2, 3]: xla 0.5, native 0.25 (|difference| 0.25 > tolerance 6e-05); 3
            of 40 elements differ`.
        ValueError: a wrong argument.
        TypeError: an input is complex.
        RuntimeError: a path is not available here (leave it out of `paths`).

    Example:
        >>> check_paths(tf.nn.relu, [np.array([[-1.0, 2.0]], np.float32)])
    """
    runs = _runs(paths)
    _check_available(paths)
    function = getattr(function, "python_function", function)
    tensors = to_tensors(_OP, inputs, widen=False)
    labels = input_labels(_OP, function, len(tensors), names)

    reference, *others = runs
    upstream: list[tf.Tensor] = []
    if gradient:
        generator = np.random.default_rng(seed)
        floating = floating_outputs(_run(reference, function, tensors))
        upstream = [
            tf.cast(random_weights(generator, output.shape), output.dtype) for output in floating
        ]
    floating_inputs = [i for i, tensor in enumerate(tensors) if tensor.dtype.is_floating]
    sources = floating_inputs if upstream else []
    arguments = [*tensors, *upstream]

    def outputs_and_gradients(*arguments: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        values, weights = arguments[: len(tensors)], arguments[len(tensors) :]
        outputs = flat_outputs(function(*values))
        return outputs, tape_gradients(function, values, sources, weights) if sources else []

    expected = _run(reference, outputs_and_gradients, arguments)
    dtypes = [tensor.dtype for tensor in (*arguments, *expected[0]) if tensor.dtype.is_floating]
    limits = tolerances(_OP, dtypes, rtol, atol)
    failures: list[str | None] = []
    for run in others:
        try:
            outputs, gradients = _run(run, outputs_and_gradients, arguments)
        except Exception as error:
            raise AssertionError(f"{_OP}: {run} raised {type(error).__name__}: {error}") from error
        if len(outputs) != len(expected[0]):
            counts = f"{run} {len(outputs)}, {reference} {len(expected[0])}"
            failures.append(f"{_OP}: {run}, number of outputs: {counts}")
            continue
        for k, (one, other) in enumerate(zip(outputs, expected[0], strict=True)):
            own = tolerances(_OP, [other.dtype] if other.dtype.is_floating else [], rtol, atol)
            where = f"{_OP}: {run}, output {k}"
            failures.append(_differ(where, (run, one), (reference, other), own))
        for i, one, other in zip(sources, gradients, expected[1], strict=True):
            where = f"{_OP}: {run}, gradient to {labels[i]}"
            failures.append(_differ(where, (run, one), (reference, other), limits))
    if messages := [failure for failure in failures if failure]:
        raise AssertionError("\n".join(messages))


def _runs(paths: Sequence[str]) -> list[str]:
    wrong = [path for path in paths if path not in _PATHS]
    if wrong or isinstance(paths, str):
        raise ValueError(
            f"{_OP}: 'paths' must be some of {list(_PATHS)}, got {wrong[0] if wrong else paths!r}"
        )
    runs = [run for path in paths for run in ((path, "graph") if path == "native" else (path,))]
    if len(runs) < 2:
        raise ValueError(f"{_OP}: 'paths' must have something to compare, got {list(paths)}")
    return runs


def _check_available(paths: Sequence[str]) -> None:
    if tf.config.functions_run_eagerly():
        raise RuntimeError(
            f"{_OP}: nothing is compiled under tf.config.run_functions_eagerly(True)"
        )
    # Only now: the package imports this module before it is complete.
    from .. import _library, _portable

    if "native" in paths and _portable.is_portable():
        raise RuntimeError(
            f"{_OP}: the path 'native' is not available inside tfseg_ops.portable() or with "
            "TFSEG_OPS_PORTABLE=1: leave it out of 'paths'"
        )
    if "xla" in paths and not _library.xla_available():
        raise RuntimeError(
            f"{_OP}: the path 'xla' is not available (python -m tfseg_ops says why): "
            "leave it out of 'paths'"
        )


def _run(run: str, function: Callable[..., Any], arguments: Sequence[tf.Tensor]) -> Any:
    """function(*arguments) on one path."""
    if run == "portable":
        from .. import portable

        with portable():
            return function(*arguments)
    if run == "native":
        return function(*arguments)
    # A concrete function: TF warns of retracing when many tf.functions are called once each.
    compiled = tf.function(function, jit_compile=True if run == "xla" else None)
    return compiled.get_concrete_function(*arguments)(*arguments)


def _differ(
    where: str,
    one: tuple[str, tf.Tensor],
    other: tuple[str, tf.Tensor],
    limits: tuple[float, float],
) -> str | None:
    (name, tensor), (other_name, other_tensor) = one, other
    if tensor.dtype != other_tensor.dtype:
        dtypes = tensor.dtype.name, other_tensor.dtype.name
        return f"{where}: dtype {dtypes[0]} from {name}, {dtypes[1]} from {other_name}"
    values, other_values = to_numpy(tensor), to_numpy(other_tensor)
    if values.shape != other_values.shape:
        shapes = list(values.shape), list(other_values.shape)
        return f"{where}: shape {shapes[0]} from {name}, {shapes[1]} from {other_name}"
    found = find_difference((name, values), (other_name, other_values), *limits, equal_nan=True)
    if found is None:
        return None
    place = f"{where}{index_text(found.worst, values.shape)}"
    return f"{place}: {found.numbers}; {found.wrong} of {values.size} elements differ"
