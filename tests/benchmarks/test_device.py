"""Benchmarks on a GPU, as far as they can be tested without one."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import command_line, device, harness
from benchmarks.bound import bound_cases, device_fill_and_copy
from benchmarks.case import Benchmark, Case, CaseKey, Goal, Run, Traffic
from benchmarks.environment import describe_environment
from benchmarks.harness import SMOKE_POLICY, compiled, measure
from benchmarks.report import read_json

_NATIVE = CaseKey("square", "forward", "float32", "small", "native", "graph")
_TRAFFIC = Traffic(read=4000, written=4000)


def _quiet(stage: str, done: int, total: int) -> None:
    del stage, done, total


def _square() -> Run:
    return compiled(lambda x: {"output": x * x}, (tf.range(1000.0),), "graph")


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lets "gpu" run on the CPU; returns the list to which each synchronization is added."""
    synchronized: list[str] = []
    monkeypatch.setattr(harness, "tf_name", lambda device: "/CPU:0")
    monkeypatch.setattr(command_line, "absence", lambda device: "")
    monkeypatch.setattr(command_line, "_set_threads", lambda threads: None)
    monkeypatch.setattr(tf.test.experimental, "sync_devices", lambda: synchronized.append("sync"))
    return synchronized


def test_gpu_that_tensorflow_does_not_see_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(SystemExit):
        command_line.main(["--device", "gpu"])
    message = "benchmarks: error: '--device gpu' needs a GPU that TensorFlow sees, got none"
    assert message in capsys.readouterr().err


def test_other_devices_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.main(["--device", "tpu"])
    assert "'--device' must be cpu or gpu, got tpu" in capsys.readouterr().err


def test_cpu_is_the_default() -> None:
    assert command_line._parse([]).device == "cpu"


def test_names_of_devices() -> None:
    assert [device.tf_name(name) for name in device.DEVICES] == ["/CPU:0", "/GPU:0"]
    assert [device.suffix(name) for name in device.DEVICES] == ["", "_gpu"]


def test_every_call_on_a_gpu_ends_with_a_synchronization(pretended_gpu: list[str]) -> None:
    calls: list[int] = []

    class Output:
        def __array__(self, *args: Any, **keywords: Any) -> np.ndarray:
            calls.append(-1)
            return np.zeros(1)

    def setup() -> Run:
        def run() -> dict[str, Any]:
            calls.append(len(pretended_gpu))
            return {"output": Output()}

        return run

    measure([Case(_NATIVE, setup, _TRAFFIC)], SMOKE_POLICY, _quiet, "gpu")
    # No call begins before the one before is finished. Outputs are compared once, not in calls.
    assert [call for call in calls if call >= 0] == list(range(len(pretended_gpu)))
    assert calls.count(-1) == 2


def test_calls_on_the_cpu_are_not_synchronized(pretended_gpu: list[str]) -> None:
    measure([Case(_NATIVE, _square, _TRAFFIC)], SMOKE_POLICY, _quiet)
    assert pretended_gpu == []


def test_native_ops_are_tried_without_fallback_on_a_gpu(pretended_gpu: list[str]) -> None:
    del pretended_gpu
    before = tf.config.get_soft_device_placement()
    seen = []

    def setup() -> Run:
        seen.append(tf.config.get_soft_device_placement())
        return _square()

    for key, name in ((_NATIVE, "cpu"), (_NATIVE, "gpu"), (_NATIVE._replace(path="stock"), "gpu")):
        measure([Case(key, setup, _TRAFFIC)], SMOKE_POLICY, _quiet, name)
    assert seen == [before, False, before, before]
    assert tf.config.get_soft_device_placement() == before


def test_masks_cross_the_boundary_of_a_graph_as_other_integers() -> None:
    masks = tf.constant([[3, -1], [2**31 - 1, -(2**31)]], tf.int32)
    values = tf.constant([1.5, 2.5])

    def function(values: tf.Tensor, masks: tf.Tensor) -> dict[str, tf.Tensor]:
        assert (values.dtype, masks.dtype) == (tf.float32, tf.int32)
        return {"values": values, "masks": masks, "wide": tf.cast(masks, tf.int64)}

    wrapped, inputs = harness._without_int32_boundary(function, (values, masks))
    assert [tensor.dtype for tensor in inputs] == [tf.float32, tf.uint32]
    outputs = tf.function(wrapped)(*inputs)
    assert outputs["masks"].dtype == tf.uint32
    np.testing.assert_array_equal(outputs["masks"].numpy().view(np.int32), masks)
    np.testing.assert_array_equal(outputs["wide"], masks)
    np.testing.assert_array_equal(outputs["values"], values)


@pytest.mark.parametrize(("read", "written"), [(6400, 12800), (12800, 6400), (100, 130), (64, 64)])
def test_bound_on_a_device_moves_every_byte(read: int, written: int) -> None:
    moved = device_fill_and_copy(Traffic(read, written))()
    words_read, words_written = (16 * -(-size // 64) for size in (read, written))
    assert int(tf.reduce_sum(moved["copied"])) == min(words_read, words_written)
    filled = moved.get("filled", tf.zeros([0]))
    assert moved["copied"].shape[0] + filled.shape[0] == words_written
    assert not np.any(filled)
    assert float(moved.get("sum", 0.0)) == max(words_read - words_written, 0)


def test_bound_of_a_gpu_is_not_that_of_numpy() -> None:
    (case,) = bound_cases(_NATIVE, _TRAFFIC, threads=2, device="gpu")
    assert case.key == _NATIVE._replace(path="fill_and_copy gpu", mode="graph")
    assert case.key.is_bound
    for own in bound_cases(_NATIVE, _TRAFFIC, threads=2):
        assert own.key.is_bound
        assert own.key.mode == "numpy"
    assert not _NATIVE.is_bound


def test_results_of_a_gpu_stand_beside_those_of_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretended_gpu: list[str]
) -> None:
    def cases(smoke: bool, threads: int, device: str) -> list[Case]:
        del smoke
        native = Case(_NATIVE, _square, _TRAFFIC)
        return [native, *bound_cases(_NATIVE, _TRAFFIC, threads, device)]

    goal = Goal("native over itself", _NATIVE, _NATIVE, 1.0)
    benchmark = Benchmark("square", lambda smoke: "tiny", cases, (goal,))
    module = type(sys)("benchmarks.bench_square")
    module.BENCHMARK = benchmark  # type: ignore[attr-defined]  # a module made for this test
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(command_line, "benchmark_names", lambda: ["square"])
    for name in ("cpu", "gpu"):
        arguments = ["--smoke", "--device", name, "--output", str(tmp_path)]
        assert command_line.main(arguments) == 0
    assert pretended_gpu
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{stem}{end}" for stem in ("square", "square_gpu") for end in (".json", ".png")
    } | {"results.md", "results_gpu.md"}

    on_cpu, on_gpu = (read_json(tmp_path / f"square{end}.json") for end in ("", "_gpu"))
    assert (on_cpu.device, on_gpu.device) == ("cpu", "gpu")
    assert len(on_cpu.goals) == 1
    assert on_gpu.goals == []
    text, gpu_text = ((tmp_path / f"results{end}.md").read_text() for end in ("", "_gpu"))
    assert "fill_and_copy warm" in text
    assert "fill_and_copy gpu" not in text
    assert "fill_and_copy gpu" in gpu_text
    assert "fill_and_copy warm" not in gpu_text
    assert "![square_gpu](square_gpu.png)" in gpu_text


def test_environment_of_a_gpu_names_card_driver_and_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    details = {"device_name": "NVIDIA Something", "compute_capability": (9, 0)}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    environment = describe_environment("gpu")
    assert environment["gpu"] == "NVIDIA Something"
    assert environment["gpu_compute_capability"] == "9.0"
    assert {"gpu_driver", "cuda_of_tensorflow", "cuda_of_tfseg_ops"} <= environment.keys()
    assert not any(name.startswith(("gpu", "cuda")) for name in describe_environment("cpu"))
