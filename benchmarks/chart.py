"""Draws the bar chart of a report."""

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.device import CPU
from benchmarks.harness import Row
from benchmarks.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = ("#4477aa", "#ee8866", "#228833", "#aa3377")  # Paul Tol's bright and light schemes
_BOUND_COLOR = "#999999"


def require_matplotlib() -> None:
    """Raises an ImportError that names the remedy if matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'benchmarks: charts need matplotlib: pip install "tfseg_ops[bench]"'
        ) from error


def draw_chart(report: Report, path: Path) -> None:
    """Writes a PNG: one panel for each direction and dtype, one bar for each case, log scale.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in report.rows:
        groups.setdefault(row.key.group, []).append(row)
    variants = dict.fromkeys(row.key.variant for row in report.rows)
    colors = dict(zip(variants, _COLORS * len(variants), strict=False))

    bars = max(len(rows) for rows in groups.values())
    down = -(-len(groups) // 2)
    figure = Figure(figsize=(17, down * (1.6 + 0.27 * bars)), layout="constrained")
    panels = figure.subplots(down, 2, squeeze=False, sharex=True).flatten()
    for panel in panels[len(groups) :]:
        panel.remove()
    for panel, (group, rows) in zip(panels, groups.items(), strict=False):
        _draw_panel(panel, group, rows, colors)
    # Bars on a log scale start nowhere: leave room on the left, and for the numbers on the right.
    medians = [row.seconds.median * 1e3 for row in report.rows if row.seconds]
    panels[0].set_xlim(min(medians) / 2, max(medians) * 8)
    note = f" on the {report.device.upper()}" if report.device != CPU else ""
    note += " (smoke run: the numbers mean nothing)" if report.smoke else ""
    figure.suptitle(f"{report.benchmark}{note}\n{report.sizes}", fontsize=12)
    figure.savefig(path, dpi=90)


def _draw_panel(
    panel: "Axes", group: tuple[str, str, str], rows: list[Row], colors: dict[str, str]
) -> None:
    for position, row in enumerate(rows):
        if row.seconds is None:
            panel.text(
                0.01,
                position,
                "not supported",
                transform=panel.get_yaxis_transform(),
                va="center",
                fontsize=8,
                color="gray",
            )
            continue
        seconds = row.seconds
        median = seconds.median * 1e3
        spread = [[median - seconds.lower_quartile * 1e3], [seconds.upper_quartile * 1e3 - median]]
        color = _BOUND_COLOR if row.key.is_bound else colors[row.key.variant]
        panel.barh(position, median, color=color, xerr=spread, ecolor="black", capsize=2)
        ratio = "" if row.times_native is None else f"  ({row.times_native:.2f}x)"
        panel.annotate(
            f"{median:.3g} ms{ratio}",
            (seconds.upper_quartile * 1e3, position),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    labels = [f"{row.key.path}, {row.key.mode}, {row.key.variant}" for row in rows]
    panel.set_yticks(range(len(rows)), labels, fontsize=8)
    panel.invert_yaxis()
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter("{x:g}")
    panel.tick_params(labelbottom=True)
    panel.set_xlabel("median ms, quartiles (times the native median)")
    panel.set_title(", ".join(group[1:]), fontsize=11)
