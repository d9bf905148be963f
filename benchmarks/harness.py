"""Times competing versions of one op against each other, in one run and on the same inputs.

How a number is taken:

- Cases with the same op, direction and dtype form a group. Only the cases of a group are timed
  together, so only numbers inside a group are compared (`times_native`, goals).
- `setup` makes the inputs and traces or compiles the function. Then three calls warm it up, so that
  compilation and the first touch of code and workspaces stay outside the numbers.
- The outputs of all cases of a group must be equal; a benchmark of different answers says nothing.
- The timed calls of a group are interleaved in rounds, so that drift of the machine hits all cases
  alike. Every second round goes backwards. A slow case gets fewer samples, spread over all rounds.
- A sample is the wall time of one call until an element of each output has been read. Outputs are
  allocated inside the sample and freed after it.
"""

import gc
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import tensorflow as tf

from benchmarks.case import Case, CaseKey, Goal, Outputs, Run, Traffic

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
    traced = tf.function(function, jit_compile=mode == "xla").get_concrete_function(*inputs)
    return lambda: traced(*inputs)


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


def measure(cases: Iterable[Case], policy: Policy, tick: Tick) -> list[Row]:
    """Times the cases, group after group.

    Args:
        cases: all cases of a benchmark.
        policy: how many samples each gets.
        tick: told the stage, the steps done and the steps in all, between the timed calls.

    Returns:
        A row for each case, group after group.

    Raises:
        ValueError: if the outputs of two cases of a group differ.
    """
    groups: dict[tuple[str, str, str], list[Case]] = {}
    for case in cases:
        groups.setdefault(case.key.group, []).append(case)
    return [row for group in groups.values() for row in _measure_group(group, policy, tick)]


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


def _measure_group(cases: Sequence[Case], policy: Policy, tick: Tick) -> list[Row]:
    title = " ".join(cases[0].key.group)
    runs: dict[CaseKey, Run] = {}
    counts = []
    unsupported: dict[CaseKey, str] = {}
    references: dict[CaseKey, Outputs] = {}
    for done, case in enumerate(cases):
        tick(f"{title}: warm-up", done, len(cases))
        try:
            runs[case.key], estimate = _warm_up(case, references)
            counts.append(policy.samples(estimate))
        except _UnsupportedError as reason:
            unsupported[case.key] = str(reason)
    references.clear()

    samples = _sample_in_rounds(list(runs.values()), counts, f"{title}: rounds", tick)
    seconds = {key: Statistics.of(taken) for key, taken in zip(runs, samples, strict=True)}
    rows = []
    for case in cases:
        own, native = seconds.get(case.key), seconds.get(case.native_key)
        ratio = own.median / native.median if own and native else None
        rows.append(Row(case.key, case.traffic, own, ratio, unsupported.get(case.key)))
    return rows


def _warm_up(case: Case, references: dict[CaseKey, Outputs]) -> tuple[Run, float]:
    """Sets a case up, checks its outputs and estimates the seconds of a call."""
    try:
        run = case.setup()
        _, outputs = _sample(run)
    except tf.errors.OpError as error:
        if not case.optional:
            raise
        raise _UnsupportedError(_NOISE.sub("", error.message).split("\n")[0]) from error
    _check_equal(case.key, outputs, references.setdefault(case.native_key, outputs))
    del outputs
    return run, min(_sample(run)[0], _sample(run)[0])


def _sample_in_rounds(
    runs: Sequence[Run], counts: Sequence[int], stage: str, tick: Tick
) -> list[list[float]]:
    samples: list[list[float]] = [[] for _ in runs]
    plan = schedule(counts)
    gc.collect()
    gc.disable()
    try:
        for done, members in enumerate(plan):
            tick(stage, done, len(plan))
            for index in members:
                samples[index].append(_sample(runs[index])[0])
    finally:
        gc.enable()
    tick(stage, len(plan), len(plan))
    return samples


def _sample(run: Run) -> tuple[float, Outputs]:
    start = perf_counter()
    outputs = run()
    for output in outputs.values():
        array = np.asarray(output)  # waits for the tensor and copies nothing
        array[(0,) * array.ndim]
    return perf_counter() - start, outputs


def _check_equal(key: CaseKey, outputs: Outputs, reference: Outputs) -> None:
    for name in outputs.keys() & reference.keys():
        if not np.array_equal(np.asarray(outputs[name]), np.asarray(reference[name])):
            raise ValueError(f"benchmarks: '{name}' of {key} must equal that of the other paths")
