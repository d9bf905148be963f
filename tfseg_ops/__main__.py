"""The doctor: `python -m tfseg_ops` says what was built, what was found, and each op's path.

Exit status 0 when all is well; 1, with the command that repairs it, when something is wrong.
"""

import platform
import sys
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

import tfseg_ops
from tfseg_ops import _library, _portable

_OPS = {
    "gaussian_filter": "Tfseg>GaussianFilter",
    "max_pool_with_argmax": "Tfseg>MaxPoolWithArgmax",
    "max_unpool": "Tfseg>MaxUnpool",
    "mean_field_step": "Tfseg>MeanFieldStep",
    "permutohedral_lattice": "Tfseg>PermutohedralLattice",
    "roi_align": "Tfseg>RoiAlign",
    "soft_dice_sums": "Tfseg>SoftDiceSums",
}


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
        ("CUDA", _cuda(info)),
        ("NVIDIA driver", _library.cuda_driver() or "no driver"),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    if not _library.cuda_absence():
        print("\nGPU: emulated only, not yet run on hardware")
    if problem := _library.cuda_driver_problem():
        problems.append(problem)
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
    core = _library.load_core()
    return f"{core.level()}, {core.num_threads()} threads for numpy"


def _xla() -> str:
    _library.load_ops()
    absence = _library.xla_absence()
    if absence:
        raise ImportError(f"{absence}: rebuild it with `{_library.rebuild_command()}`")
    return "present (jit_compile=True works on the CPU)"


def _cuda(info: dict[str, str]) -> str:
    """Returns what the CUDA kernels were built with and need, or why there are none."""
    if absence := _library.cuda_absence():
        return f"none: {absence}"
    toolkit, architectures, driver = (
        info.get(f"cuda_{key}") or "unknown"
        for key in ("toolkit", "architectures", "minimum_driver")
    )
    return f"built with {toolkit} for {architectures}, needs driver {driver} or newer"


def _paths(problems: list[str]) -> Iterator[tuple[str, ...]]:
    """Yields a row for each op: its name and the path taken on CPU and GPU, eagerly and under XLA.

    Each path that there is a device for is run once on a small image and compared with stock
    TensorFlow.
    """
    _register_xla_kernels()
    xla_on_gpu = any("XLA_GPU_JIT" in _devices_of(op) for op in _OPS.values())
    yield "op", "CPU", "CPU, jit_compile", "GPU", *(["GPU, jit_compile"] if xla_on_gpu else [])
    image = tf.reshape(tf.range(48.0) % 7, [1, 4, 6, 2])
    with tfseg_ops.portable():
        output, argmax = tfseg_ops.ops.max_pool_with_argmax(image, 2, 2, "VALID")
        unpooled = tfseg_ops.ops.max_unpool(output, argmax, [4, 6])
        # Means of four whole numbers: exact, whatever the order of the sum.
        box = [[0.5, 0.5, 4.5, 6.5]]
        aligned = tfseg_ops.ops.roi_align(image, box, [0], [4, 6])
        # Halves of whole numbers.
        mask = tf.cast(image > 3, tf.uint8)
        target = tfseg_ops.ops.soft_dice_sums(image / 2, mask, activation="none").intersection
        # Points on a vertex of their own: weights of 0 and 1, halves of whole numbers.
        points = tf.zeros([1, 24, 2])
        values = tf.reshape(image, [1, 24, 2])
        lattice = tfseg_ops.ops.permutohedral_lattice(points)
        filtered = tfseg_ops.ops.gaussian_filter(values, lattice)
        step = tfseg_ops.ops.mean_field_step(values / 8, values, lattice, [1.0])
        labels = tf.argmax(step, -1)
    probes = {
        "gaussian_filter": (
            lambda: tfseg_ops.ops.gaussian_filter(values, lattice),
            filtered,
        ),
        "max_pool_with_argmax": (
            lambda: tfseg_ops.ops.max_pool_with_argmax(image, 2, 2, "VALID")[1],
            argmax,
        ),
        "max_unpool": (
            lambda: tfseg_ops.ops.max_unpool(output, argmax, [4, 6]),
            unpooled,
        ),
        "mean_field_step": (
            lambda: tf.argmax(
                tfseg_ops.ops.mean_field_step(values / 8, values, lattice, [1.0]), -1
            ),
            labels,
        ),
        "permutohedral_lattice": (
            lambda: tfseg_ops.ops.permutohedral_lattice(points).vertices,
            lattice.vertices,
        ),
        "roi_align": (
            lambda: tfseg_ops.ops.roi_align(image, box, [0], [4, 6]),
            aligned,
        ),
        "soft_dice_sums": (
            lambda: tfseg_ops.ops.soft_dice_sums(image / 2, mask, activation="none").intersection,
            target,
        ),
    }
    for name, (run, expected) in probes.items():
        if _portable.is_portable():
            yield name, *["stock TensorFlow"] * 3
            continue
        devices = _devices_of(_OPS[name])
        for place, kind, jit_compile in _places(devices):
            try:
                with tf.device(place):
                    result = tf.function(run, jit_compile=True)() if jit_compile else run()
            except tf.errors.OpError as error:
                problems.append(f"{name} fails{kind}: {error.message}")
                continue
            if not np.array_equal(result, expected):
                problems.append(f"{name} gives a wrong result{kind}: {_library.rebuild_command()}")
        yield (
            name,
            "C++ kernel" if "CPU" in devices else "none",
            "C++ kernel" if "XLA_CPU_JIT" in devices else "none",
            "CUDA kernel" if "GPU" in devices else "none: runs on the CPU, without jit_compile",
            *(["CUDA kernel" if "XLA_GPU_JIT" in devices else "none"] if xla_on_gpu else []),
        )


def _places(kernels: set[str]) -> Iterator[tuple[str, str, bool]]:
    """Yields where an op can be tried: the device, words for it, and whether XLA compiles it."""
    yield "/CPU:0", "", False
    yield "/CPU:0", " under XLA", True
    if tf.config.list_physical_devices("GPU"):
        if "GPU" in kernels:
            yield "/GPU:0", " on the GPU", False
        if "XLA_GPU_JIT" in kernels:
            yield "/GPU:0", " on the GPU under XLA", True


def _register_xla_kernels() -> None:
    """TensorFlow registers them when something is compiled for the first time."""
    with tf.device("/CPU:0"):
        tf.function(lambda x: x + 1, jit_compile=True)(tf.constant(1.0))


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
