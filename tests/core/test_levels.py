"""The core exists once for each x86-64 level: the linker picks one, and all give the same bits."""

import os
import platform
import subprocess
import sys
import types
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from helpers.core_library import folder, load_core
from helpers.core_samples import all_sample_results, every_number_pooled
from helpers.processes import TESTS, run_python
from helpers.tolerances import assert_same_bits

Core = types.ModuleType

# What GLIBC_TUNABLES must be for the linker to pass over higher levels than each.
LOWER_LEVELS = {
    "x86-64": {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2"},
    "x86-64-v3": {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F"},
}
# Set in the run of the whole folder at the baseline, which must not start another.
LEVEL_WANTED = os.environ.get("TFSEG_TEST_LEVEL")


def _no_levels() -> str:
    name, version = platform.libc_ver()
    if platform.machine() != "x86_64":
        return "only x86-64 has levels"
    if name != "glibc" or tuple(map(int, version.split("."))) < (2, 33):
        return "the dynamic linker picks levels from glibc 2.33 on"
    if os.environ.get("TFSEG_CORE_DIR"):
        return "TFSEG_CORE_DIR holds a core of one level"
    return ""


pytestmark = pytest.mark.skipif(bool(_no_levels()), reason=_no_levels() or "levels")
in_a_run_of_its_own = pytest.mark.skipif(
    LEVEL_WANTED is not None, reason="this is the run at another level"
)


def best_level() -> str:
    """The highest level that this processor reaches and the core was built for."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    if not {"avx2", "bmi2", "fma"} <= flags:
        return "x86-64"
    fourth = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
    return "x86-64-v4" if fourth <= flags else "x86-64-v3"


@pytest.mark.skipif("GLIBC_TUNABLES" in os.environ and not LEVEL_WANTED, reason="tuned by the user")
def test_level_is_the_best_of_this_processor_or_the_one_asked_for(core: Core) -> None:
    assert core.level() == (LEVEL_WANTED or best_level())


@pytest.fixture(scope="module", params=LOWER_LEVELS)
def at_lower_level(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, np.ndarray]:
    """The sample results of a fresh process, in which the linker passes over higher levels."""
    if request.param >= best_level():
        pytest.skip(f"{request.param} is no lower level than this processor's")
    file = tmp_path_factory.mktemp("levels") / "results.npz"
    output = run_python(
        """
        import sys
        import numpy as np
        from helpers.core_library import load_core
        from helpers.core_samples import all_sample_results, every_number_pooled

        core = load_core()
        print(core.level())
        results = dict(all_sample_results(core)) | dict(every_number_pooled(core))
        # As bits: numpy's files do not know bfloat16.
        np.savez(sys.argv[1], **{k: v.view(f"u{v.itemsize}") for k, v in results.items()})
        """,
        file,
        env=LOWER_LEVELS[request.param],
    )
    assert output == f"{request.param}\n"
    return dict(np.load(file))


@in_a_run_of_its_own
def test_lower_levels_give_bitwise_the_same(
    core: Core, at_lower_level: Mapping[str, np.ndarray]
) -> None:
    for name, expected in all_sample_results(core):
        assert_same_bits(at_lower_level[name].view(expected.dtype), expected)


@in_a_run_of_its_own
def test_lower_levels_pool_every_half_precision_number_to_the_same_bits(
    core: Core, at_lower_level: Mapping[str, np.ndarray]
) -> None:
    """NaN with any payload too."""
    for name, expected in every_number_pooled(core):
        assert_same_bits(at_lower_level[name].view(expected.dtype), expected)


@in_a_run_of_its_own
def test_all_tests_of_the_core_pass_at_the_baseline() -> None:
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            str(TESTS / "core"),
            "-q",
            "--tb=line",
            "-p",
            "no:cacheprovider",
        ],
        env={
            **os.environ,
            **LOWER_LEVELS["x86-64"],
            "TFSEG_TEST_LEVEL": "x86-64",
            "TFSEG_TEST_SCALE": "0.3",
        },
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert process.returncode == 0, process.stdout[-5000:] + process.stderr[-2000:]


def test_module_is_the_one_that_is_meant() -> None:
    module = load_core()
    assert Path(module.__file__ or "").parent == folder()
    assert "tensorflow" not in module.__dict__
