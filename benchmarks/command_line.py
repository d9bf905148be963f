"""The command line: `python -m benchmarks [name ...]`, or `python -m benchmarks.bench_<name>`."""

import argparse
import importlib
import os
import pkgutil
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from rich.console import Console
from rich.progress import Progress

import benchmarks
from benchmarks.case import Benchmark
from benchmarks.chart import draw_chart, require_matplotlib
from benchmarks.device import CPU, DEVICES, absence, suffix
from benchmarks.environment import describe_environment
from benchmarks.harness import SMOKE_POLICY, Policy, judge, measure
from benchmarks.report import Report, read_json, render, tables, write_json

_PREFIX = "bench_"
_RESULTS = Path(__file__).resolve().parent / "results"


def benchmark_names() -> list[str]:
    """The op stems for which there is a module `benchmarks.bench_<stem>`."""
    modules = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name.removeprefix(_PREFIX) for name in modules if name.startswith(_PREFIX))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmarks and writes `<name>.json`, `<name>.png` and `results.md`.

    `results.md` shows every `<name>.json` of the folder, also those of earlier runs. The names of
    the files of a GPU end with `_gpu`, and `results_gpu.md` shows those alone.
    Returns 0 whether or not the goals are met: losses are results.
    """
    options = _parse(arguments)
    require_matplotlib()  # before minutes of timing, not after
    _set_threads(options.threads)
    output: Path = options.output or (_RESULTS / "smoke" if options.smoke else _RESULTS)
    output.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        benchmark = importlib.import_module(f"benchmarks.{_PREFIX}{name}").BENCHMARK
        report = _run(benchmark, options.smoke, options.threads, options.device)
        print(f"## {name}\n\nInputs: {report.sizes}.\n\n{tables(report)}", flush=True)
        write_json(report, output / f"{report.stem}.json")
        draw_chart(report, output / f"{report.stem}.png")
        reports = (read_json(path) for path in sorted(output.glob("*.json")))
        own = (other for other in reports if other.device == options.device)
        text = output / f"results{suffix(options.device)}.md"
        text.write_text(render(own), encoding="utf-8")
    print(f"Written to {output}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    known = benchmark_names()
    parser = argparse.ArgumentParser("benchmarks", description="Times tfseg_ops beside stock TF.")
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"of {', '.join(known)}; default all"
    )
    parser.add_argument("--device", default=CPU, help=f"{' or '.join(DEVICES)} (default {CPU})")
    parser.add_argument("--threads", type=int, default=2, help="of TensorFlow's pools (default 2)")
    parser.add_argument(
        "--smoke", action="store_true", help="tiny inputs, two samples: does it run?"
    )
    parser.add_argument("--output", type=Path, help="folder (default benchmarks/results[/smoke])")
    options = parser.parse_args(arguments)
    options.names = options.names or known
    if unknown := sorted(set(options.names) - set(known)):
        parser.error(f"'name' must be one of {', '.join(known)}, got {', '.join(unknown)}")
    if options.device not in DEVICES:
        parser.error(f"'--device' must be {' or '.join(DEVICES)}, got {options.device}")
    if options.threads < 1:
        parser.error(f"'--threads' must be at least 1, got {options.threads}")
    if os.environ.get("TFSEG_OPS_PORTABLE", "0") not in ("", "0"):
        parser.error(
            "TFSEG_OPS_PORTABLE must be unset: the rows 'native' would be stock TensorFlow"
        )
    if reason := absence(options.device):
        parser.error(reason)
    return options


def _set_threads(threads: int) -> None:
    """Must come before the first TensorFlow op of the process: the pools are made then."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _run(benchmark: Benchmark, smoke: bool, threads: int, device: str) -> Report:
    policy = SMOKE_POLICY if smoke else Policy()
    environment = describe_environment(device)
    # No refresh thread: it would run beside the code being timed.
    with Progress(console=Console(stderr=True), auto_refresh=False) as progress:
        bar = progress.add_task(benchmark.name)

        def tick(stage: str, done: int, total: int) -> None:
            if done == 0 and not progress.console.is_terminal:
                progress.console.print(stage)
            progress.update(bar, description=stage, completed=done, total=total, refresh=True)

        rows = measure(benchmark.cases(smoke, threads, device), policy, tick, device)
    goals = judge(benchmark.goals, rows, smoke) if device == CPU else []
    sizes = benchmark.sizes(smoke)
    return Report(benchmark.name, smoke, sizes, environment, policy, rows, goals, device)
