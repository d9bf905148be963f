"""Writes results: JSON for programs, aligned Markdown tables for people."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.case import CaseKey, Traffic
from benchmarks.device import CPU, suffix
from benchmarks.harness import GoalOutcome, Policy, Row, Statistics

_LEGEND = """\
Each number is the median of the calls of one run; the cases of a table were timed in turns.
`x native` is the row's median over that of the native op in a graph with the same masks: over 1,
native is faster; under 1, native is slower (`no masks` is held against int64 masks). `GB/s` counts
the bytes that any version must read and write at least, once per pass, over the median.
"""
_CPU_LEGEND = """\
`fill_and_copy` moves just these bytes and computes nothing (numpy, same threads): `warm` into
memory touched before, `fresh` into memory allocated by the call, as TensorFlow does.
"""
_GPU_LEGEND = """\
All ran on the GPU, with inputs and outputs in its memory; a call counts until the GPU is idle
again, launching and waiting included. The native ops cannot have fallen back to the CPU; stock
TensorFlow does, as for its users, where one of its ops has no GPU kernel. int32 masks enter and
leave a graph as uint32, because TensorFlow holds int32 arguments and results in host memory.
`fill_and_copy gpu` moves just these bytes by stock TensorFlow: a copy, and a fill or a sum of what
is written or read beyond that, each one kernel. There are no goals for the GPU.
"""


@dataclass(frozen=True)
class Report:
    """All that is known about one run of one benchmark."""

    benchmark: str
    smoke: bool
    sizes: str
    environment: dict[str, str]
    policy: Policy
    rows: list[Row]
    goals: list[GoalOutcome]
    device: str = CPU

    @property
    def stem(self) -> str:
        """What the files of this report are named."""
        return f"{self.benchmark}{suffix(self.device)}"


def write_json(report: Report, path: Path) -> None:
    """Writes a report so that `read_json` gives it back; keys become objects with named fields."""
    content = asdict(report)
    for entry, row in zip(content["rows"], report.rows, strict=True):
        entry["key"] = row.key._asdict()
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> Report:
    """Reads a report that `write_json` wrote."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    content["policy"] = Policy(**content["policy"])
    content["rows"] = [_row(entry) for entry in content["rows"]]
    content["goals"] = [GoalOutcome(**entry) for entry in content["goals"]]
    return Report(**content)


def format_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Returns a padded Markdown table; columns of numbers are aligned to the right."""
    body = [list(line) for line in lines]
    columns = list(zip(header, *body, strict=True))
    widths = [max(3, *(len(cell) for cell in column)) for column in columns]
    right = [bool(body) and all(_is_number(cell) for cell in column[1:]) for column in columns]

    def padded(cells: Sequence[str]) -> str:
        aligned = zip(cells, widths, right, strict=True)
        texts = (cell.rjust(width) if end else cell.ljust(width) for cell, width, end in aligned)
        return "| " + " | ".join(texts) + " |"

    rule = [
        "-" * (width - 1) + (":" if end else "-") for width, end in zip(widths, right, strict=True)
    ]
    return "\n".join([padded(header), padded(rule), *map(padded, body)]) + "\n"


def render(reports: Iterable[Report]) -> str:
    """Returns `results.md`: of each benchmark the chart, goals, tables and environment.

    The reports must be of one device.
    """
    found = list(reports)
    on_cpu = all(report.device == CPU for report in found)
    title = "# Benchmarks\n" if on_cpu else "# Benchmarks on a GPU\n"
    legend = _LEGEND + (_CPU_LEGEND if on_cpu else _GPU_LEGEND)
    return "\n".join([title, legend, *(_section(report) for report in found)])


def tables(report: Report) -> str:
    """Returns the goals and the tables of one benchmark as Markdown, as they are printed."""
    parts = []
    if report.smoke:
        parts.append("**Smoke run: tiny inputs, the numbers mean nothing.**\n")
    if report.goals:
        goals = (
            (
                goal.text,
                f"{goal.required:g}",
                _number(goal.measured, ".2f"),
                _verdict(goal, report.smoke),
            )
            for goal in report.goals
        )
        parts += ["### Goals\n", format_table(("goal", "required", "measured", "result"), goals)]
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in report.rows:
        groups.setdefault(row.key.group, []).append(row)
    for (op, direction, dtype), rows in groups.items():
        parts += [f"### {op}, {direction}, {dtype}\n", _group_table(rows)]
        reasons = dict.fromkeys(_reason(row) for row in rows if row.unsupported)
        parts += ["\n".join(reasons) + "\n"] if reasons else []
    return "\n".join(parts)


def _section(report: Report) -> str:
    facts = format_table(("what", "value"), report.environment.items())
    policy = (
        f"Samples per case: as many as fit into {report.policy.budget_s:g} s, at least "
        f"{report.policy.min_samples}, at most {report.policy.max_samples}.\n"
    )
    chart = f"![{report.stem}]({report.stem}.png)\n"
    heading = [f"## {report.benchmark}\n", f"Inputs: {report.sizes}.\n", chart]
    return "\n".join([*heading, tables(report), "### Environment\n", facts, policy])


def _group_table(rows: Iterable[Row]) -> str:
    header = ("variant", "path", "mode", "median ms", "quartiles ms", "n", "GB/s", "x native")
    return format_table(header, (_cells(row) for row in rows))


def _cells(row: Row) -> tuple[str, ...]:
    names = (row.key.variant, row.key.path, row.key.mode)
    if row.seconds is None:
        return (*names, "-", "not supported", "-", "-", "-")
    seconds = row.seconds
    speed = (row.traffic.read + row.traffic.written) / seconds.median / 1e9
    return (
        *names,
        f"{seconds.median * 1e3:.2f}",
        f"{seconds.lower_quartile * 1e3:.2f} to {seconds.upper_quartile * 1e3:.2f}",
        str(seconds.samples),
        f"{speed:.2f}",
        _number(row.times_native, ".2f"),
    )


def _reason(row: Row) -> str:
    return f"- {row.key.path} ({row.key.mode}), {row.key.variant}: {row.unsupported}"


def _verdict(goal: GoalOutcome, smoke: bool) -> str:
    if goal.measured is None:
        return "not measured"
    return "not judged (smoke)" if smoke else "met" if goal.met else "NOT MET"


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell == "-"
    return True


def _row(entry: dict[str, Any]) -> Row:
    seconds = entry["seconds"]
    return Row(
        CaseKey(**entry["key"]),
        Traffic(**entry["traffic"]),
        Statistics(**seconds) if seconds else None,
        entry["times_native"],
        entry["unsupported"],
    )
