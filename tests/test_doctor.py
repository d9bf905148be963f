"""`python -m tfseg_ops`: exit status and what it names."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from helpers.processes import package


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
