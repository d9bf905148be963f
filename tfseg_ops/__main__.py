"""The doctor: `python -m tfseg_ops` says what was built, what was found, and each op's path.

Exit status 0 when all is well; 1, with the command that repairs it, when something is wrong.
"""

import importlib
import platform
import sys
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

import tfseg_ops
from tfseg_ops import _library, _portable


def main() -> int:
    """Prints the report; returns the exit status."""
    info = _library.build_info()
    problems: list[str] = []
    rows = [
        ("tfseg_ops", tfseg_ops.__version__),
        ("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
        ("TensorFlow", f"built for {info.get('tensorflow', 'nothing')}, found {tf.__version__}"),
        ("Keras, numpy", f"{keras.__version__}, {np.__version__}"),
        ("compiler", info.get("compiler", "none: not built")),
        ("ops library", _try(_ops_library, problems)),
        ("core level", _try(_core_level, problems)),
        ("XLA", _try(_xla, problems)),
        ("CUDA", _library.cuda_absence() or "present"),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    if not problems:
        print()
        _print_table(list(_paths(problems)))
    for problem in problems:
        print(f"\nWRONG: {problem}")
    print("\n" + ("Something is wrong: see above." if problems else "All is well."))
    return 1 if problems else 0


def _try(probe: Callable[[], str], problems: list[str]) -> str:
    """Returns what the probe says; a failure is noted among the problems."""
    if _portable.is_portable():
        return "not used: TFSEG_OPS_PORTABLE is set"
    try:
        return probe()
    except ImportError as error:
        if str(error) not in problems:
            problems.append(str(error))
        return "missing or broken"


def _ops_library() -> str:
    _library.load_ops()
    return "loaded"


def _core_level() -> str:
    _library.load_ops()
    try:
        core = importlib.import_module("tfseg_ops._core")
    except ImportError as error:
        raise ImportError(_library.mismatch_message(tf.__version__, f" ({error})")) from None
    return f"{core.level()}, {core.num_threads()} threads for numpy"


def _xla() -> str:
    _library.load_ops()
    absence = _library.xla_absence()
    if absence:
        raise ImportError(f"{absence}: rebuild it with `{_library.rebuild_command()}`")
    return "present (jit_compile=True works on the CPU)"


def _paths(problems: list[str]) -> Iterator[tuple[str, str, str, str]]:
    """Yields a row for each op: its name and the path taken eagerly, under XLA and on a GPU.

    Each path is run once on a small image and compared with stock TensorFlow.
    """
    yield "op", "CPU", "CPU, jit_compile", "GPU"
    image = tf.reshape(tf.range(48.0) % 7, [1, 4, 6, 2])
    with tfseg_ops.portable():
        output, argmax = tfseg_ops.ops.max_pool_with_argmax(image, 2, 2, "VALID")
        unpooled = tfseg_ops.ops.max_unpool(output, argmax, [4, 6])
    probes = {
        "max_pool_with_argmax": (
            "Tfseg>MaxPoolWithArgmax",
            lambda: tfseg_ops.ops.max_pool_with_argmax(image, 2, 2, "VALID")[1],
            argmax,
        ),
        "max_unpool": (
            "Tfseg>MaxUnpool",
            lambda: tfseg_ops.ops.max_unpool(output, argmax, [4, 6]),
            unpooled,
        ),
    }
    for name, (op, run, expected) in probes.items():
        if _portable.is_portable():
            yield name, "stock TensorFlow", "stock TensorFlow", "stock TensorFlow"
            continue
        devices = _devices_of(op)
        for kind, function in (("", run), (" under XLA", tf.function(run, jit_compile=True))):
            if not np.array_equal(function(), expected):
                problems.append(f"{name} gives a wrong result{kind}: {_library.rebuild_command()}")
        yield (
            name,
            "C++ kernel" if "CPU" in devices else "none",
            "C++ kernel" if "XLA_CPU_JIT" in devices else "none",
            "CUDA kernel" if "GPU" in devices else "none: runs on the CPU, without jit_compile",
        )


def _devices_of(op: str) -> set[str]:
    from tensorflow.python.framework import kernels

    return {kernel.device_type for kernel in kernels.get_registered_kernels_for_op(op).kernel}


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        )


if __name__ == "__main__":
    sys.exit(main())
