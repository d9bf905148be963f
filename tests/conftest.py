"""What every test needs: the folders `reference` and `helpers` importable, quiet TF, steady draws.

Nothing here imports TensorFlow: tests/core runs without it.
"""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_TESTS = str(Path(__file__).parent)
if _TESTS not in sys.path:
    sys.path.insert(0, _TESTS)

from helpers.processes import package  # noqa: E402, the path to it is known only now

# Compiling and a busy machine make single draws slow, which is no failure. The same draws on every
# run: a red test then has its cause in the change at hand. HYPOTHESIS_PROFILE=explore draws anew.
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=_SLOW)
settings.register_profile("explore", deadline=None, suppress_health_check=_SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))


def pytest_configure(config: pytest.Config) -> None:
    """Hides the GPU from all but `pytest -m gpu`: what is tested elsewhere is the CPU.

    Where both are, TensorFlow would take the GPU, which drops the masks that the CPU refuses, and
    emulated kernels are kernels of the CPU. Where these were not built, nothing is run.
    """
    emulated = os.environ.get("TFSEG_OPS_LIBRARY") == "emulated"
    if emulated or config.getoption("markexpr", "") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    if emulated and not (package() / "_tfseg_ops_emulated.so").exists():
        pytest.exit(
            "skipped: the emulated CUDA kernels were not built, which needs Boost.Context "
            '(Debian: libboost-context-dev) and `pip install -e ".[test]"` after it',
            returncode=0,
        )
