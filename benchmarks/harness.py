"""Times competing versions of one op against each other, in one run and on the same inputs.

How a number is taken:

- Cases with the same op, direction and dtype form a group. Only the cases of a group are timed
  together, so only numbers inside a group are compared (`times_native`, goals).
- `setup` makes the inputs and traces or compiles the function. Then three calls warm it up, so that
  compilation and the first touch of code and workspaces stay outside the numbers.
- The outputs of all cases of a group must be equal, or within the `tolerance` of a case that sums
  in another order; a benchmark of different answers says nothing.
- The timed calls of a group are interleaved in rounds, so that drift of the machine hits all cases
  alike. Every second round goes backwards. A slow case gets fewer samples, spread over all rounds.
- A sample is the wall time of one call until its work is finished, see `benchmarks.device.wait`.
  Outputs are allocated inside the sample and freed after it; on a GPU they stay there, and so do
  the inputs, which `setup` puts there.
- On a GPU the native ops and the bound may not fall back to the CPU: a kernel that is missing there
  is an error. Stock TensorFlow falls back as it does for its users.
"""

import gc
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from benchmarks.case import Case, CaseKey, Goal, Outputs, Run, Traffic
from benchmarks.device import CPU, GPU, tf_name, wait

# What differs between two errors of the same cause: names of nodes and functions, attributes.
_NOISE = re.compile(
    r" used by \{\{node.*|( compatible with node )?\{\{node [^}]*\}\}"
    r"| __inference_\w+|\[_Xla[^\]]*\]"
)

Tick = Callable[[str, int, int], None]  # stage, steps done, steps in all


@dataclass(frozen=True)
class Policy:
    """How many samples a case gets: as many as fit into the budget, within the two bounds."""

    budget_s: float = 3.0
    min_samples: int = 7
    max_samples: int = 41

    def samples(self, estimate_s: float) -> int:
        """The number of samples for a case whose call takes about `estimate_s` seconds."""
        affordable = int(self.budget_s / max(estimate_s, 1e-9))
        return max(self.min_samples, min(self.max_samples, affordable))


SMOKE_POLICY = Policy(budget_s=0.0, min_samples=2, max_samples=2)


@dataclass(frozen=True)
class Statistics:
    """Median and spread of the samples, in seconds."""

    median: float
    lower_quartile: float
    upper_quartile: float
    minimum: float
    samples: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Statistics":
        """Summarizes at least one sample."""
        lower, median, upper = np.percentile(samples, [25, 50, 75]).tolist()
        return cls(median, lower, upper, min(samples), len(samples))


@dataclass(frozen=True)
class Row:
    """The result of one case: `seconds`, or else the reason why it is `unsupported`."""

    key: CaseKey
    traffic: Traffic
    seconds: Statistics | None
    times_native: float | None  # its median over the native median: over 1, native is faster
    unsupported: str | None = None


@dataclass(frozen=True)
class GoalOutcome:
    """A goal and the ratio of this run; `met` is None where nothing can be said."""

    text: str
    required: float
    measured: float | None
    met: bool | None


class _UnsupportedError(Exception):
    """TensorFlow has no kernel for an optional case."""


def compiled(function: Callable[..., Outputs], inputs: Sequence[tf.Tensor], mode: str) -> Run:
    """Traces `function` for `inputs` as a graph, or as one XLA program if `mode` is "xla"."""
    if mode != "xla" and any("GPU" in tensor.device for tensor in inputs):
        function, inputs = _without_int32_boundary(function, inputs)
    traced = tf.function(function, jit_compile=mode == "xla").get_concrete_function(*inputs)
    return lambda: traced(*inputs)


def _without_int32_boundary(
    function: Callable[..., Outputs], inputs: Sequence[tf.Tensor]
) -> tuple[Callable[..., Outputs], Sequence[tf.Tensor]]:
    """Lets int32 tensors enter and leave a function as uint32, bit by bit.

    TensorFlow keeps the int32 arguments and results of a graph in host memory: masks would travel
    over the bus and back in each call, which they do not do inside a model.
    """
    dtypes = [tensor.dtype for tensor in inputs]

    def wrapped(*arguments: tf.Tensor) -> Outputs:
        own = [_reread(a, dtype) for a, dtype in zip(arguments, dtypes, strict=True)]
        return {name: _outside(output) for name, output in function(*own).items()}

    return wrapped, [_outside(tensor) for tensor in inputs]


def _outside(tensor: tf.Tensor) -> tf.Tensor:
    return _reread(tensor, tf.uint32 if tensor.dtype == tf.int32 else tensor.dtype)


def _reread(tensor: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tensor if tensor.dtype == dtype else tf.bitcast(tensor, dtype)


def schedule(counts: Sequence[int]) -> list[list[int]]:
    """Spreads `counts[i]` samples of case i evenly over as many rounds as the largest count.

    Every second round is in reverse order, so that no case always follows the same neighbour.
    """
    rounds = max(counts, default=0)
    plan = []
    for index in range(rounds):
        members = [
            case
            for case, count in enumerate(counts)
            if (index + 1) * count // rounds > index * count // rounds
        ]
        plan.append(members if index % 2 == 0 else members[::-1])
    return plan


def measure(cases: Iterable[Case], policy: Policy, tick: Tick, device: str = CPU) -> list[Row]:
    """Times the cases, group after group.

    Args:
        cases: all cases of a benchmark.
        policy: how many samples each gets.
        tick: told the stage, the steps done and the steps in all, between the timed calls.
        device: "cpu" or "gpu"; where inputs are made and functions run.

    Returns:
        A row for each case, group after group.

    Raises:
        ValueError: if the outputs of two cases of a group differ.
    """
    groups: dict[tuple[str, str, str], list[Case]] = {}
    for case in cases:
        groups.setdefault(case.key.group, []).append(case)
    with tf.device(tf_name(device)):
        return [
            row for group in groups.values() for row in _measure_group(group, policy, tick, device)
        ]


def judge(goals: Iterable[Goal], rows: Iterable[Row], smoke: bool) -> list[GoalOutcome]:
    """Holds the goals against the medians; at smoke sizes no goal counts as met or missed."""
    seconds = {row.key: row.seconds for row in rows}
    outcomes = []
    for goal in goals:
        slow, fast = seconds[goal.slow], seconds[goal.fast]
        ratio = slow.median / fast.median if slow and fast else None
        met = None if ratio is None or smoke else ratio >= goal.required
        outcomes.append(GoalOutcome(goal.text, goal.required, ratio, met))
    return outcomes


def _measure_group(cases: Sequence[Case], policy: Policy, tick: Tick, device: str) -> list[Row]:
    title = " ".join(cases[0].key.group)
    runs: dict[CaseKey, Run] = {}
    counts = []
    unsupported: dict[CaseKey, str] = {}
    references: dict[CaseKey, Outputs] = {}
    for done, case in enumerate(cases):
        tick(f"{title}: warm-up", done, len(cases))
        try:
            runs[case.key], estimate = _warm_up(case, references, device)
            counts.append(policy.samples(estimate))
        except _UnsupportedError as reason:
            unsupported[case.key] = str(reason)
    references.clear()

    samples = _sample_in_rounds(list(runs.values()), counts, f"{title}: rounds", tick, device)
    seconds = {key: Statistics.of(taken) for key, taken in zip(runs, samples, strict=True)}
    rows = []
    for case in cases:
        own, native = seconds.get(case.key), seconds.get(case.native_key)
        ratio = own.median / native.median if own and native else None
        rows.append(Row(case.key, case.traffic, own, ratio, unsupported.get(case.key)))
    return rows


def _warm_up(case: Case, references: dict[CaseKey, Outputs], device: str) -> tuple[Run, float]:
    """Sets a case up, checks its outputs and estimates the seconds of a call."""
    try:
        if device == GPU and (case.key.path == "native" or case.key.is_bound):
            _require_no_fallback(case, device)
        run = case.setup()
        _, outputs = _sample(run, device)
    except tf.errors.OpError as error:
        if not case.optional:
            raise
        raise _UnsupportedError(_NOISE.sub("", error.message).split("\n")[0]) from error
    _check_equal(case, outputs, references.setdefault(case.native_key, outputs))
    del outputs
    return run, min(_sample(run, device)[0], _sample(run, device)[0])


def _require_no_fallback(case: Case, device: str) -> None:
    """Runs a case once in such a way that TensorFlow raises where a kernel is missing."""
    before = tf.config.get_soft_device_placement()
    tf.config.set_soft_device_placement(False)
    try:
        _sample(case.setup(), device)
    finally:
        tf.config.set_soft_device_placement(before)


def _sample_in_rounds(
    runs: Sequence[Run], counts: Sequence[int], stage: str, tick: Tick, device: str
) -> list[list[float]]:
    samples: list[list[float]] = [[] for _ in runs]
    plan = schedule(counts)
    gc.collect()
    gc.disable()
    try:
        for done, members in enumerate(plan):
            tick(stage, done, len(plan))
            for index in members:
                samples[index].append(_sample(runs[index], device)[0])
    finally:
        gc.enable()
    tick(stage, len(plan), len(plan))
    return samples


def _sample(run: Run, device: str) -> tuple[float, Outputs]:
    start = perf_counter()
    outputs = run()
    wait(device, outputs)
    return perf_counter() - start, outputs


def _check_equal(case: Case, outputs: Outputs, reference: Outputs) -> None:
    for name in outputs.keys() & reference.keys():
        if not _agree(np.asarray(outputs[name]), np.asarray(reference[name]), case.tolerance):
            raise ValueError(
                f"benchmarks: '{name}' of {case.key} must equal that of the other paths"
            )


def _agree(values: NDArray[Any], reference: NDArray[Any], tolerance: float) -> bool:
    if tolerance == 0 or values.size == 0:
        return np.array_equal(values, reference)
    one, other = values.astype(np.float32), reference.astype(np.float32)
    limit = tolerance * np.abs(other).max()
    return one.shape == other.shape and bool((np.abs(one - other) <= limit).all())
