"""`python -m tfseg_ops`: exit status and what it names."""

import ctypes
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from helpers.processes import package

from tfseg_ops import _build_info, _library


def _doctor(folder: pathlib.Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tfseg_ops"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def copied_package(tmp_path: pathlib.Path) -> pathlib.Path:
    shutil.copytree(package(), tmp_path / "tfseg_ops")
    return tmp_path


def _record(copied_package: pathlib.Path, **changes: str) -> None:
    """Writes another record of the build into a copied package."""
    info = {**_build_info.BUILD_INFO, **changes}
    (copied_package / "tfseg_ops" / "_build_info.py").write_text(f"BUILD_INFO = {info!r}\n")


CUDA = {
    "cuda": "",
    "cuda_toolkit": "13.0.88",
    "cuda_architectures": "75-real 90",
    "cuda_minimum_driver": "580",
}


def test_doctor_of_a_sound_package_says_all_is_well(copied_package: pathlib.Path) -> None:
    result = _doctor(copied_package)
    assert result.returncode == 0, result.stdout
    assert "All is well." in result.stdout
    for words in ("max_unpool", "C++ kernel", "core level", "XLA", "CUDA"):
        assert words in result.stdout


def test_doctor_names_both_versions_and_the_repair(copied_package: pathlib.Path) -> None:
    info = copied_package / "tfseg_ops" / "_build_info.py"
    info.write_text('BUILD_INFO = {"tensorflow": "2.19.1"}\n')
    result = _doctor(copied_package)
    assert result.returncode == 1
    assert "WRONG: tfseg_ops was built for TensorFlow 2.19.1" in result.stdout
    assert "pip install --no-build-isolation" in result.stdout


def test_doctor_finds_a_broken_xla_library(copied_package: pathlib.Path) -> None:
    (copied_package / "tfseg_ops" / "_tfseg_xla.so").write_bytes(b"not a library")
    result = _doctor(copied_package)
    assert result.returncode == 1
    assert "WRONG: the XLA library could not be loaded" in result.stdout


def test_doctor_of_a_portable_package_needs_no_library(copied_package: pathlib.Path) -> None:
    for library in copied_package.rglob("*.so"):
        library.unlink()
    assert _doctor(copied_package).returncode == 1
    result = _doctor(copied_package, TFSEG_OPS_PORTABLE="1")
    assert result.returncode == 0, result.stdout
    assert "stock TensorFlow" in result.stdout


def test_doctor_says_what_the_cuda_kernels_were_built_with_and_need(
    copied_package: pathlib.Path,
) -> None:
    _record(copied_package, **CUDA)
    result = _doctor(copied_package)
    assert result.returncode == 0, result.stdout
    row = r"CUDA +built with 13\.0\.88 for 75-real 90, needs driver 580 or newer\n"
    assert re.search(row, result.stdout)
    assert re.search(r"NVIDIA driver  +(no driver|.*CUDA \d+\.\d)\n", result.stdout)
    assert "\nGPU: emulated only, not yet run on hardware\n" in result.stdout


def test_doctor_says_why_there_are_no_cuda_kernels(copied_package: pathlib.Path) -> None:
    _record(copied_package, cuda="no CUDA toolkit was found", cuda_toolkit="")
    result = _doctor(copied_package)
    assert result.returncode == 0, result.stdout
    assert re.search(r"CUDA +none: no CUDA toolkit was found\n", result.stdout)
    assert "emulated" not in result.stdout


def test_doctor_does_not_invent_what_the_build_did_not_record(
    copied_package: pathlib.Path,
) -> None:
    _record(copied_package, **dict.fromkeys(CUDA, ""))
    assert "built with unknown for unknown, needs driver unknown" in _doctor(copied_package).stdout


class _Cuda:
    """Stands in for the driver's library."""

    def __init__(self, version: int) -> None:
        self._version = version

    def cuDriverGetVersion(self, result: object) -> int:  # noqa: N802, the driver's name
        ctypes.cast(result, ctypes.POINTER(ctypes.c_int))[0] = self._version  # type: ignore[arg-type]
        return 0


@pytest.mark.parametrize(
    ("release", "version", "expected"),
    [
        ("580.65.06", 13000, "580.65.06 (CUDA 13.0)"),
        ("535.104.05", 12020, "535.104.05 (CUDA 12.2)"),
        ("", 12060, "CUDA 12.6"),
    ],
)
def test_driver_is_told_by_its_release_and_its_cuda(
    release: str, version: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: _Cuda(version))
    monkeypatch.setattr(_library, "_driver_release", lambda: release)
    assert _library.cuda_driver() == expected


def test_no_driver_is_an_empty_string(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert _library.cuda_driver() == ""


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19", "535.104.05"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build",
            "580.65.06",
        ),
        ("something else 1.2.3", ""),
    ],
)
def test_release_is_read_from_what_the_kernel_tells(
    text: str, release: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "version").write_text(f"{text}\nGCC version:  gcc version 12.2.0\n")
    assert _library._driver_release(tmp_path / "version") == release
    assert _library._driver_release(tmp_path / "missing") == ""


@pytest.mark.parametrize(
    ("driver", "cuda", "wrong"),
    [
        ("535.104.05 (CUDA 12.2)", "", True),
        ("580.65.06 (CUDA 13.0)", "", False),
        ("600.1 (CUDA 14.0)", "", False),
        ("535.104.05 (CUDA 12.2)", "not built", False),
        ("CUDA 12.2", "", False),
        ("", "", False),
    ],
)
def test_only_a_driver_known_to_be_too_old_is_a_problem(
    driver: str, cuda: str, wrong: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_library, "build_info", lambda: {**CUDA, "cuda": cuda})
    monkeypatch.setattr(_library, "cuda_driver", lambda: driver)
    problem = _library.cuda_driver_problem()
    assert bool(problem) == wrong
    if wrong:
        assert "need the NVIDIA driver 580 or newer, got 535.104.05 (CUDA 12.2)" in problem
        assert "TFSEG_CUDA=OFF" in problem
