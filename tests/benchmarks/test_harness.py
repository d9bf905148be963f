"""The benchmark harness: statistics, interleaving, comparison, goals, tables, files, smoke runs."""

import functools
import importlib.util
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import command_line
from benchmarks.bound import bound_cases, fill_and_copy
from benchmarks.case import Benchmark, Case, CaseKey, Goal, Run, Traffic
from benchmarks.environment import cpu_level, describe_environment
from benchmarks.harness import (
    SMOKE_POLICY,
    Policy,
    Row,
    Statistics,
    compiled,
    judge,
    measure,
    schedule,
)
from benchmarks.report import Report, format_table, read_json, tables, write_json

_ROOT = Path(__file__).resolve().parents[2]
_NATIVE = CaseKey("square", "forward", "float32", "small", "native", "graph")
_TRAFFIC = Traffic(read=4000, written=4000)


def _quiet(stage: str, done: int, total: int) -> None:
    del stage, done, total


def _square(mode: str) -> Run:
    return compiled(lambda x: {"output": x * x}, (tf.range(1000.0),), mode)


def _cases(*others: Case) -> list[Case]:
    native = Case(_NATIVE, lambda: _square("graph"), _TRAFFIC)
    xla = Case(_NATIVE._replace(path="pure_tf", mode="xla"), lambda: _square("xla"), _TRAFFIC)
    return [native, xla, *bound_cases(_NATIVE, _TRAFFIC, threads=2), *others]


def _row(key: CaseKey, median: float | None) -> Row:
    if median is None:
        return Row(key, _TRAFFIC, None, None, "no kernel")
    return Row(key, _TRAFFIC, Statistics(median, median, median, median, 3), median)


def test_statistics_are_median_and_quartiles() -> None:
    statistics = Statistics.of([5.0, 1.0, 2.0, 4.0, 3.0])
    assert statistics == Statistics(3.0, 2.0, 4.0, 1.0, 5)


def test_sample_counts_follow_budget_within_bounds() -> None:
    policy = Policy(budget_s=1.0, min_samples=3, max_samples=20)
    assert [policy.samples(seconds) for seconds in (10.0, 0.1, 0.0)] == [3, 10, 20]


def test_rounds_hold_every_case_once_and_alternate_direction() -> None:
    assert schedule([3, 3, 3]) == [[0, 1, 2], [2, 1, 0], [0, 1, 2]]
    assert schedule([]) == []


def test_slow_cases_are_spread_over_all_rounds() -> None:
    counts = [12, 4, 5, 1]
    plan = schedule(counts)
    assert len(plan) == 12
    for case, count in enumerate(counts):
        rounds = [index for index, members in enumerate(plan) if case in members]
        assert len(rounds) == count
        gaps = [later - earlier for earlier, later in itertools.pairwise(rounds)]
        assert all(gap in (math.floor(12 / count), math.ceil(12 / count)) for gap in gaps)


def test_timed_calls_are_interleaved() -> None:
    calls: list[str] = []

    def setup(name: str) -> Run:
        def run() -> dict[str, object]:
            calls.append(name)
            return {}

        return run

    cases = [
        Case(_NATIVE._replace(path=name), functools.partial(setup, name), _TRAFFIC)
        for name in ("native", "a", "b")
    ]
    measure(cases, SMOKE_POLICY, _quiet)
    assert calls[-6:] == ["native", "a", "b", "b", "a", "native"]


def test_rows_carry_ratios_to_native_in_the_order_of_the_cases() -> None:
    cases = _cases()
    rows = measure(cases, SMOKE_POLICY, _quiet)
    assert [row.key for row in rows] == [case.key for case in cases]
    assert rows[0].times_native == 1.0
    for row in rows:
        assert row.seconds is not None
        assert rows[0].seconds is not None
        assert row.times_native == row.seconds.median / rows[0].seconds.median
        assert row.seconds.samples == 2


def test_row_of_other_variant_is_compared_with_the_named_native_variant() -> None:
    key = _NATIVE._replace(variant="none", path="stock")
    other = Case(key, lambda: _square("graph"), _TRAFFIC, native_variant="small")
    assert measure(_cases(other), SMOKE_POLICY, _quiet)[-1].times_native is not None


def test_differing_answers_stop_the_run() -> None:
    def setup() -> Run:
        return compiled(lambda x: {"output": x + 1.0}, (tf.range(1000.0),), "graph")

    wrong = Case(_NATIVE._replace(path="wrong"), setup, _TRAFFIC)
    with pytest.raises(ValueError, match=r"'output' of .*wrong.* must equal"):
        measure(_cases(wrong), SMOKE_POLICY, _quiet)


@pytest.mark.parametrize("tolerance", [0.0, 1e-6, 1e-3])
@pytest.mark.parametrize("error", [0.5, np.nan])
def test_answers_within_the_tolerance_of_a_case_are_equal(error: float, tolerance: float) -> None:
    def setup() -> Run:
        zero = tf.concat([tf.zeros([999]), [error]], 0)
        return compiled(lambda x: {"output": x * x + zero}, (tf.range(1000.0),), "graph")

    near = Case(_NATIVE._replace(path="near"), setup, _TRAFFIC, tolerance=tolerance)
    if tolerance * 999**2 >= error:
        measure(_cases(near), SMOKE_POLICY, _quiet)
        return
    with pytest.raises(ValueError, match=r"'output' of .*near.* must equal"):
        measure(_cases(near), SMOKE_POLICY, _quiet)


def _argmax_under_xla() -> Run:
    images = (tf.zeros([1, 4, 4, 1]),)
    return compiled(
        lambda x: {"argmax": tf.nn.max_pool_with_argmax(x, 2, 2, "VALID")[1]}, images, "xla"
    )


def test_missing_stock_kernel_becomes_a_row() -> None:
    key = _NATIVE._replace(path="stock", mode="xla")
    row = measure(
        _cases(Case(key, _argmax_under_xla, _TRAFFIC, optional=True)), SMOKE_POLICY, _quiet
    )[-1]
    assert row.seconds is None
    assert row.unsupported is not None
    assert "unsupported" in row.unsupported


def test_missing_native_kernel_stops_the_run() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        measure([Case(_NATIVE, _argmax_under_xla, _TRAFFIC)], SMOKE_POLICY, _quiet)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(("read", "written"), [(6400, 12800), (12800, 6400), (100, 130), (64, 64)])
def test_bound_moves_every_byte(read: int, written: int, fresh: bool) -> None:
    moved = fill_and_copy(Traffic(read, written), threads=3, fresh=fresh)()
    words_read, words_written = (8 * -(-size // 64) for size in (read, written))
    words = np.asarray(moved["moved"]).view(np.int64)  # copied words are 1, filled words 0
    assert words.size == words_written
    assert int(words.sum()) == min(words_read, words_written)
    assert int(moved["sum"]) == max(words_read - words_written, 0)


def test_goals_are_ratios_of_medians() -> None:
    slow, lost, absent = (_NATIVE._replace(path=path) for path in ("slow", "lost", "absent"))
    rows = [_row(_NATIVE, 2.0), _row(slow, 8.0), _row(lost, 1.0), _row(absent, None)]
    goals = [Goal(key.path, key, _NATIVE, 3.0) for key in (slow, lost, absent)]
    outcomes = judge(goals, rows, smoke=False)
    assert [(o.measured, o.met) for o in outcomes] == [(4.0, True), (0.5, False), (None, None)]
    assert [o.met for o in judge(goals, rows, smoke=True)] == [None, None, None]


def test_goal_without_its_row_is_an_error() -> None:
    with pytest.raises(KeyError):
        judge([Goal("?", _NATIVE._replace(path="typo"), _NATIVE, 1.0)], [_row(_NATIVE, 1.0)], False)


def test_table_is_aligned_markdown() -> None:
    table = format_table(("path", "ms"), [("native", "1.50"), ("a", "-"), ("b", "12.25")])
    assert table == (
        "| path   |    ms |\n"
        "| ------ | ----: |\n"
        "| native |  1.50 |\n"
        "| a      |     - |\n"
        "| b      | 12.25 |\n"
    )


def _report(smoke: bool = False) -> Report:
    slow = _NATIVE._replace(path="slow")
    rows = [_row(_NATIVE, 2.0), _row(slow, 1.0), _row(_NATIVE._replace(path="absent"), None)]
    goals = judge([Goal("native over slow", slow, _NATIVE, 3.0)], rows, smoke)
    return Report("square", smoke, "tiny", {"cpu": "a | b"}, Policy(), rows, goals)


def test_losses_and_missing_kernels_are_printed() -> None:
    text = tables(_report())
    assert "| native over slow |        3 |     0.50 | NOT MET |" in text
    assert "- absent (graph), small: no kernel" in text
    assert "mean nothing" in tables(_report(smoke=True))


def test_report_survives_json(tmp_path: Path) -> None:
    write_json(_report(), tmp_path / "square.json")
    assert read_json(tmp_path / "square.json") == _report()


def test_environment_names_what_numbers_depend_on() -> None:
    environment = describe_environment()
    assert environment["tensorflow"] == tf.__version__
    assert {"cpu", "cpu_level", "cpus", "threads_intra_op", "date", "commit"} <= environment.keys()


def test_cpu_level_needs_all_lower_levels() -> None:
    second = {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}
    third = {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}
    assert cpu_level(second) == "x86-64-v2"
    assert cpu_level(second | third) == "x86-64-v3"
    assert cpu_level(third) == cpu_level(set())


def test_run_writes_json_table_and_chart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = Benchmark("square", lambda smoke: "tiny", lambda smoke, threads, device: _cases())
    module = type(sys)("benchmarks.bench_square")
    module.BENCHMARK = benchmark  # type: ignore[attr-defined]  # a module made for this test
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(command_line, "benchmark_names", lambda: ["square"])
    monkeypatch.setattr(command_line, "_set_threads", lambda threads: None)
    assert command_line.main(["--smoke", "--output", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"square.json", "square.png", "results.md"}
    assert "### square, forward, float32" in (tmp_path / "results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [["nonsense"], ["--threads", "0"]])
def test_bad_arguments_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command_line.main(arguments)
    assert "must be" in capsys.readouterr().err


def test_portable_mode_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TFSEG_OPS_PORTABLE", "1")
    with pytest.raises(SystemExit):
        command_line.main(["--smoke"])
    assert "TFSEG_OPS_PORTABLE must be unset" in capsys.readouterr().err


_HAS_OPS = importlib.util.find_spec("tfseg_ops") is not None and all(
    (_ROOT / "tfseg_ops" / folder / "__init__.py").exists() for folder in ("ops", "pure_tf")
)


@pytest.mark.skipif(not _HAS_OPS, reason="tfseg_ops.ops and tfseg_ops.pure_tf do not exist")
@pytest.mark.parametrize("name", ["max_unpool", "max_pool_with_argmax", "soft_dice_sums", "models"])
def test_smoke_run_of_each_benchmark(name: str, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", f"benchmarks.bench_{name}", "--smoke", "--output", str(tmp_path)],
        cwd=_ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        check=True,
    )
    content = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    keys = [CaseKey(**row["key"]) for row in content["rows"]]
    assert len(set(keys)) == len(keys)
    paths = {(key.path, key.mode) for key in keys}
    assert {(p, m) for p in ("native", "pure_tf") for m in ("graph", "xla")} <= paths
    assert {key.dtype for key in keys} == {"float32", *["bfloat16"] * (name != "models")}
    assert all(goal["measured"] is not None for goal in content["goals"])
    assert content["environment"]["threads_intra_op"] == "2"
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
