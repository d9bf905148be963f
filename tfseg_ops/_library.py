"""Finds and loads the compiled libraries. The one place that knows what can go wrong there.

The ops library is bound to the TensorFlow minor version that it was compiled against. The XLA
library may fail to load without taking the ops down. `TFSEG_OPS_PORTABLE=1` does without any of
them.
"""

import ctypes
import functools
import importlib
import os
import pathlib
import re
import sys
import types
import warnings

from tfseg_ops import _portable

try:
    import tensorflow as tf
except ModuleNotFoundError as error:
    if error.name != "tensorflow":
        raise
    raise ImportError(
        "tfseg_ops needs TensorFlow, which is not installed: "
        "install it with `pip install tensorflow`"
    ) from None

_PACKAGE = pathlib.Path(__file__).resolve().parent
# For tests: "emulated" takes the CUDA kernels, run on the CPU, in the place of the CPU's.
_VARIANT = "_emulated" if os.environ.get("TFSEG_OPS_LIBRARY") == "emulated" else ""
OPS_LIBRARY = _PACKAGE / f"_tfseg_ops{_VARIANT}.so"
XLA_LIBRARY = _PACKAGE / f"_tfseg_xla{_VARIANT}.so"


def build_info() -> dict[str, str]:
    """Returns what setup.py wrote of the build, the versions it saw; empty if nothing was built."""
    # Asked of the folder: the finder of another, editable installation would offer its own.
    if not (_PACKAGE / "_build_info.py").exists():
        return {}
    from tfseg_ops import _build_info

    return dict(_build_info.BUILD_INFO)


def minor(version: str) -> str:
    """Returns "2.21" for "2.21.0"."""
    return ".".join(version.split(".")[:2])


def rebuild_command() -> str:
    """Returns the one command that builds this package for the TensorFlow that is installed."""
    here, built_from = _PACKAGE.parent, pathlib.Path(build_info().get("source", ""))
    if (here / "setup.py").exists():
        what = f'-e "{here}"'
    else:
        what = f'"{built_from}"' if (built_from / "setup.py").exists() else "tfseg_ops"
    return (
        'pip install "setuptools>=77" cmake ninja pybind11 && '
        f"pip install --no-build-isolation --no-deps --force-reinstall {what}"
    )


def mismatch_message(found: str, reason: str = "") -> str:
    """Returns the one sentence for a library that does not fit the TensorFlow that is installed."""
    built_for = build_info().get("tensorflow", "")
    if not built_for:
        problem = "has not been built here"
    elif minor(built_for) != minor(found):
        problem = f"was built for TensorFlow {built_for}"
    else:
        problem = f"was built for TensorFlow {built_for} but could not be loaded{reason}"
    return (
        f"tfseg_ops {problem}, and TensorFlow {found} is installed: "
        f"rebuild it with `{rebuild_command()}`"
    )


def _without_symbols(error: Exception) -> str:
    """Returns a loader's complaint without the mangled name that nobody can read."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "undefined symbol" in text:
        return " (it uses functions that this TensorFlow does not have)"
    return f" ({re.sub(r'^.*?: ', '', text)})"


@functools.cache
def load_ops() -> types.ModuleType:
    """Loads the ops library, then the XLA library if it can be loaded; returns the ops' functions.

    Raises:
        ImportError: the library does not exist or was built for another TensorFlow. The message
            names both versions and the command that rebuilds.
    """
    found = tf.__version__
    if _VARIANT and not OPS_LIBRARY.exists():
        raise ImportError(
            "tfseg_ops: TFSEG_OPS_LIBRARY=emulated needs a library that was not built: "
            f"{build_info().get('emulator', 'nothing was built')}"
        )
    if not OPS_LIBRARY.exists() or minor(build_info().get("tensorflow", "")) != minor(found):
        raise ImportError(mismatch_message(found, " (the library is missing)"))
    try:
        module: types.ModuleType = tf.load_op_library(str(OPS_LIBRARY))
    except (tf.errors.OpError, OSError) as error:
        raise ImportError(mismatch_message(found, _without_symbols(error))) from None
    absence = xla_absence()
    if absence:
        warnings.warn(
            f"tfseg_ops: {absence}; the ops work, but not under jit_compile=True. "
            f"Rebuild with `{rebuild_command()}`",
            RuntimeWarning,
            stacklevel=3,
        )
    return module


@functools.cache
def load_core() -> types.ModuleType:
    """Loads the numpy module `_core`, which needs no TensorFlow.

    Raises:
        ImportError: as in `load_ops`.
    """
    try:
        return importlib.import_module("tfseg_ops._core")
    except ImportError as error:
        raise ImportError(mismatch_message(tf.__version__, f" ({error})")) from None


@functools.cache
def xla_absence() -> str:
    """Returns why XLA cannot compile the ops on the CPU, or an empty string when it can."""
    if not XLA_LIBRARY.exists():
        return "the XLA library was not built"
    try:
        tf.load_library(str(XLA_LIBRARY))
    except (tf.errors.OpError, OSError) as error:
        return f"the XLA library could not be loaded{_without_symbols(error)}"
    return ""


def xla_available() -> bool:
    """Returns whether the ops can be compiled by XLA (`jit_compile=True`) on the CPU."""
    return _portable.is_portable() or xla_absence() == ""


def cuda_absence() -> str:
    """Returns why the ops have no CUDA kernels, or an empty string when they have."""
    return build_info().get("cuda", "not built")


def cuda_driver() -> str:
    """Returns the NVIDIA driver's release and CUDA version, "580.65 (CUDA 13.0)", or "" for none.

    Asking starts nothing on the GPU.
    """
    version = ctypes.c_int(0)
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return ""
    supports = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    release = _driver_release()
    return f"{release} ({supports})" if release else supports


def _driver_release(file: pathlib.Path = pathlib.Path("/proc/driver/nvidia/version")) -> str:
    """Returns "580.65.06", or an empty string where the kernel tells nothing of a driver."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(r"Kernel Module\b.*?\s(\d+\.[\d.]+)", text)
    return found.group(1) if found else ""


def cuda_driver_problem() -> str:
    """Returns why the driver cannot run the CUDA kernels, or "" if it can or there is none."""
    needed, found = build_info().get("cuda_minimum_driver", ""), cuda_driver()
    release = found.partition(".")[0]
    if cuda_absence() or not (needed.isdigit() and release.isdigit()):
        return ""
    if int(release) >= int(needed):
        return ""
    return (
        f"the CUDA kernels need the NVIDIA driver {needed} or newer, got {found}: "
        "update the driver, or rebuild without them, "
        f"`export TFSEG_CUDA=OFF && {rebuild_command()}`"
    )


def running_doctor() -> bool:
    """Returns whether this is `python -m tfseg_ops`, which starts even if the import would fail."""
    return sys.argv[:1] == ["-m"] and "tfseg_ops" in sys.orig_argv
