"""What a benchmark is made of: cases (one version of an op each) and goals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Outputs = Mapping[str, Any]  # arrays or tensors by name; names that two cases share must be equal
Run = Callable[[], Outputs]

FORWARD = "forward"
FORWARD_BACKWARD = "forward+backward"


class CaseKey(NamedTuple):
    """What a case is; the key under which its row is found."""

    op: str
    direction: str  # FORWARD or FORWARD_BACKWARD
    dtype: str
    variant: str  # what else differs inside a group, such as "int32 masks"
    path: str  # "native", "pure_tf", or the name of another competitor
    mode: str  # "graph", "xla" or "numpy"

    @property
    def is_bound(self) -> bool:
        """Whether this moves the bytes of an op and computes nothing."""
        return self.path.startswith("fill_and_copy")

    @property
    def group(self) -> tuple[str, str, str]:
        """Op, direction and dtype: cases that share them are timed together."""
        return self.op, self.direction, self.dtype


@dataclass(frozen=True)
class Traffic:
    """The bytes that any version must read and write at least, each pass touching them once."""

    read: int
    written: int


@dataclass(frozen=True)
class Case:
    """One version of an op to be timed.

    Attributes:
        key: what it is.
        setup: makes the inputs and returns the function to be timed.
        traffic: the least bytes to be moved, for the column GB/s.
        native_variant: the variant whose native row this case is compared with, if not its own.
        optional: True for stock ops that may lack a kernel: an error of TensorFlow then becomes a
            row "not supported" instead of ending the run.
        tolerance: how far its outputs may be from those of the other cases, in parts of the largest
            one; 0 for ops that only move values or sum in a promised order.
    """

    key: CaseKey
    setup: Callable[[], Run]
    traffic: Traffic
    native_variant: str | None = None
    optional: bool = False
    tolerance: float = 0.0

    @property
    def native_key(self) -> CaseKey:
        """The native graph-mode case that this one is compared with."""
        variant = self.native_variant or self.key.variant
        return self.key._replace(variant=variant, path="native", mode="graph")


@dataclass(frozen=True)
class Goal:
    """`fast` must be at least `required` times as fast as `slow`, a case of the same group."""

    text: str
    slow: CaseKey
    fast: CaseKey
    required: float


@dataclass(frozen=True)
class Benchmark:
    """The cases and goals of one op; `benchmarks.bench_<name>.BENCHMARK`.

    Attributes:
        name: the stem of the op.
        sizes: the text that says how large the inputs are, given `smoke`.
        cases: makes the cases, given `smoke` (tiny inputs), the number of threads and the device.
        goals: what the ratios measured on a CPU are held against.
    """

    name: str
    sizes: Callable[[bool], str]
    cases: Callable[[bool, int, str], list[Case]]
    goals: Sequence[Goal] = ()
