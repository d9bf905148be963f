"""What a number depends on besides the code: versions, CPU, threads, date, commit."""

import os
import platform
import subprocess
import sys
from collections.abc import Set as AbstractSet
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import tensorflow as tf

from benchmarks.device import CPU, GPU
from tfseg_ops import _library

_LEVELS = {
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"},
    "x86-64-v2": {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"},
}
_SETTINGS = (
    "GLIBC_TUNABLES",
    "MALLOC_ARENA_MAX",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
)


def describe_environment(device: str = CPU) -> dict[str, str]:
    """Returns what is to be recorded beside the numbers of a device, by name."""
    facts = _cpu_facts()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "tfseg_ops": getattr(sys.modules.get("tfseg_ops"), "__version__", "not loaded"),
        "tensorflow": tf.__version__,
        "keras": _version("keras"),
        "numpy": _version("numpy"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        "cpu": facts.get("model name", platform.processor() or "unknown"),
        "cpu_cache": facts.get("cache size", "unknown"),
        "cpu_level": cpu_level(set(facts.get("flags", "").split())),
        "cpus": f"{os.cpu_count()}, usable {_usable_cpus()}",
        "threads_intra_op": str(tf.config.threading.get_intra_op_parallelism_threads()),
        "threads_inter_op": str(tf.config.threading.get_inter_op_parallelism_threads()),
        "load_before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "huge_pages": _text(Path("/sys/kernel/mm/transparent_hugepage/enabled")) or "unknown",
        **(_gpu_facts() if device == GPU else {}),
        **{name: os.environ[name] for name in _SETTINGS if name in os.environ},
    }


def cpu_level(flags: AbstractSet[str]) -> str:
    """The x86-64 level that the CPU flags of /proc/cpuinfo reach."""
    reached = platform.machine()
    for level in reversed(_LEVELS):
        if not flags >= _LEVELS[level]:
            break
        reached = level
    return reached


def _gpu_facts() -> dict[str, str]:
    details: dict[str, object] = {}
    for gpu in tf.config.list_physical_devices("GPU")[:1]:
        details = tf.config.experimental.get_device_details(gpu)
    capability = details.get("compute_capability")
    return {
        "gpu": str(details.get("device_name", "unknown")),
        "gpu_compute_capability": (
            ".".join(map(str, capability)) if isinstance(capability, tuple) else "unknown"
        ),
        "gpu_driver": _library.cuda_driver() or "unknown",
        "cuda_of_tensorflow": str(tf.sysconfig.get_build_info().get("cuda_version", "none")),
        "cuda_of_tfseg_ops": _library.build_info().get("cuda_toolkit", "") or "none",
    }


def _usable_cpus() -> int | None:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _cpu_facts() -> dict[str, str]:
    first_cpu = _text(Path("/proc/cpuinfo")).split("\n\n")[0]
    pairs = (line.partition(":") for line in first_cpu.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    folder = Path(__file__).resolve().parent
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
