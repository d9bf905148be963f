"""The CUDA source, run on the CPU: the tests for a GPU, in a process of their own."""

import os
import subprocess
import sys

import pytest
from helpers.gpu import EMULATED
from helpers.processes import ROOT, TESTS, package


@pytest.mark.skipif(EMULATED, reason="this process runs the emulated kernels already")
@pytest.mark.skipif(
    not (package() / "_tfseg_ops_emulated.so").exists(),
    reason="the emulated CUDA kernels were not built, which needs Boost.Context",
)
def test_tests_for_a_gpu_pass_on_emulated_kernels() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(TESTS / "gpu")],
        cwd=ROOT,
        env={**os.environ, "TFSEG_OPS_LIBRARY": "emulated"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout[-5000:]
    assert " passed" in result.stdout
