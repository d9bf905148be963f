"""What prose cannot enforce: each op's files, dtypes, gradient and kernels, and public names."""

import importlib
import inspect
import re
import shutil
import subprocess
from typing import Any

import pytest
import tensorflow as tf
from helpers.api_surface import MODULES, agreed, public_objects, surface
from helpers.processes import ROOT, package
from tensorflow.python.framework import kernels, op_def_registry
from tensorflow.python.framework import ops as tf_ops

from tfseg_ops import _checks, _core, _library

CMAKE = (ROOT / "CMakeLists.txt").read_text()
STEMS = CMAKE.partition("set(TFSEG_STEMS")[2].partition(")")[0].split()

FILES = [
    "cc/core/{}.h",
    "cc/core/{}.cc",
    "cc/cuda/{}.h",
    "cc/cuda/{}.cu",
    "cc/tf/{}.cc",
    "cc/xla/{}.cc",
    "cc/numpy/{}.cc",
    "tfseg_ops/ops/{}.py",
    "tfseg_ops/pure_tf/{}.py",
    "tests/reference/{}.py",
    "tests/core/test_{}.py",
    "tests/cuda/test_{}.cc",
    "tests/gpu/test_{}.py",
    "tests/ops/test_{}.py",
    "tests/pure_tf/test_{}.py",
    "benchmarks/bench_{}.py",
]
# Ops made of other ops in Python, which have no files in cc/.
COMPOSITIONS = {"dense_crf", "exact_gaussian_filter", "fpn_levels", "multilevel_roi_align"}
# Ops without a gradient, each with the reason.
_GAUSSIAN = "the gradient to the features is that of the Gaussian, not of the lattice"
NO_GRADIENT = {
    "Tfseg>GaussianFilterFeaturesGrad": _GAUSSIAN,
    "Tfseg>MeanFieldStepFeaturesGrad": _GAUSSIAN,
    "Tfseg>MeanFieldStepGrad": "training needs none; the filter alone has all orders to its values",
    "Tfseg>PermutohedralLattice": "the features' gradient comes from what reads the lattice",
}
# The GPU's kernels are registered without a GPU too, where the package was built with CUDA.
DEVICES = ["CPU", "XLA_CPU_JIT"]
if not _library.cuda_absence():
    DEVICES.append("GPU")


def test_list_of_stems_is_read() -> None:
    assert {"max_pool_with_argmax", "max_unpool"} <= set(STEMS)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("stem", STEMS)
def test_each_op_has_its_whole_set_of_files(stem: str, file: str) -> None:
    assert (ROOT / file.format(stem)).is_file()


@pytest.mark.parametrize(
    ("folder", "pattern", "shared"),
    [
        ("cc/tf", "*.cc", set()),
        ("cc/xla", "*.cc", {"adapter"}),
        ("cc/numpy", "*.cc", {"module", "thread_pool"}),
        ("cc/cuda", "*.cu", set()),
        ("tfseg_ops/ops", "*.py", COMPOSITIONS | {"__init__"}),
        ("tfseg_ops/pure_tf", "*.py", COMPOSITIONS | {"__init__"}),
        ("tests/reference", "*.py", COMPOSITIONS | {"__init__"}),
    ],
)
def test_each_file_belongs_to_an_op(folder: str, pattern: str, shared: set[str]) -> None:
    names = {path.stem for path in (ROOT / folder).glob(pattern)}
    assert names - shared <= set(STEMS)


def test_each_example_is_run_by_a_test_of_its_name() -> None:
    examples = [path.stem for path in (ROOT / "examples").glob("*.py")]
    assert examples
    for name in examples:
        assert "--smoke" in (ROOT / f"tests/examples/test_{name}.py").read_text(), name


def test_each_op_is_a_function_in_numpy() -> None:
    assert {stem for stem in STEMS if callable(getattr(_core, stem, None))} == set(STEMS)


def our_ops() -> list[str]:
    """The names of the registered ops of ours."""
    _library.load_ops()
    names = re.findall(r'REGISTER_OP\("(Tfseg>\w+)"\)', sources("cc/tf"))
    assert names
    for name in names:
        assert op_def_registry.get(name) is not None, name
    return names


def sources(folder: str) -> str:
    """All C++ files of a folder."""
    files = sorted(p for p in (ROOT / folder).glob("*") if p.suffix in {".h", ".cc", ".cu"})
    return "\n".join(path.read_text() for path in files)


def core_dtypes(kind: str) -> list[str]:
    """The names in one of core's two lists of dtypes."""
    text = (ROOT / "cc/core/dtypes.h").read_text()
    found = re.search(rf"#define TFSEG_{kind}_DTYPES\(X\)((?:.*\\\n)*.*\n)", text)
    assert found is not None
    return re.findall(r'X\(\w+, \w+, "(\w+)"\)', found.group(1))


def has_attribute(op: str, attribute: str) -> bool:
    """Whether a TF op has an attribute of this name."""
    return attribute in {attr.name for attr in op_def_registry.get(op).attr}


def attribute_dtypes(op: str, attribute: str) -> list[str]:
    """The dtypes that an attribute of a TF op allows."""
    for attr in op_def_registry.get(op).attr:
        if attr.name == attribute:
            return [tf.as_dtype(kind).name for kind in attr.allowed_values.list.type]
    raise AssertionError(f"{op} has no attribute {attribute}")


def kernel_dtypes(op: str, device: str, attribute: str) -> set[str]:
    """The dtypes that the kernels of an op were registered for; a kernel may leave it open."""
    allowed: set[str] = set()
    for kernel in kernels.get_registered_kernels_for_op(op).kernel:
        if kernel.device_type != device:
            continue
        constraints = [c for c in kernel.constraint if c.name == attribute]
        if not constraints:
            allowed |= set(attribute_dtypes(op, attribute))
        for constraint in constraints:
            allowed |= {tf.as_dtype(k).name for k in constraint.allowed_values.list.type}
    return allowed


@pytest.fixture(scope="module", autouse=True)
def registered_xla_kernels() -> None:
    """TF registers its XLA kernels when something is compiled for the first time."""
    tf.function(lambda x: x + 1, jit_compile=True)(tf.constant(1.0))
    stock = {kernel.device_type for kernel in kernels.get_registered_kernels_for_op("AddV2").kernel}
    # The TensorFlow without GPUs (tensorflow-cpu) may not have this one.
    if "GPU" in DEVICES and "XLA_GPU_JIT" in stock:
        DEVICES.append("XLA_GPU_JIT")


@pytest.mark.parametrize(
    ("attribute", "kinds", "checked"),
    [
        ("T", ["FLOAT"], _checks.FLOAT_DTYPES),
        ("Index", ["INDEX"], _checks.INDEX_DTYPES),
        ("Label", ["BYTE", "INDEX", "FLOAT"], _checks.LABEL_DTYPES + _checks.FLOAT_DTYPES),
    ],
)
def test_dtypes_are_the_same_in_core_in_tensorflow_and_in_python(
    attribute: str, kinds: list[str], checked: tuple[tf.DType, ...]
) -> None:
    wanted = [name for kind in kinds for name in core_dtypes(kind)]
    assert [dtype.name for dtype in checked] == wanted
    having = [op for op in our_ops() if has_attribute(op, attribute)]
    assert having
    # Features and weights of a lattice are float32 whatever the values.
    assert attribute != "T" or set(our_ops()) - set(having) == {"Tfseg>PermutohedralLattice"}
    for op in having:
        assert attribute_dtypes(op, attribute) == wanted, op
        for device in DEVICES:
            assert kernel_dtypes(op, device, attribute) == set(wanted), (op, device)


def test_each_op_has_a_gradient_or_a_reason_for_none() -> None:
    for op in our_ops():
        try:
            gradient: Any = tf_ops.gradient_registry.lookup(op)
        except LookupError:
            gradient = None
        assert (gradient is None) == (op in NO_GRADIENT), op
    assert all(NO_GRADIENT.values())


def test_no_reason_is_left_over() -> None:
    assert set(NO_GRADIENT) <= set(our_ops())


def test_each_op_has_kernels_for_every_device_and_for_xla() -> None:
    for op in our_ops():
        devices = {k.device_type for k in kernels.get_registered_kernels_for_op(op).kernel}
        assert set(DEVICES) <= devices, op


INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
FORBIDDEN = re.compile(
    r"^(tensorflow|tsl|xla|absl|Eigen|unsupported|pybind11|numpy|Python\.h|keras)"
)


def test_core_includes_nothing_but_core_and_the_standard_library() -> None:
    includes = INCLUDE.findall(sources("cc/core"))
    assert includes
    for quote, header in includes:
        assert (quote == '"') == header.startswith("core/"), header
        assert not FORBIDDEN.match(header), header
        assert "cuda" not in header.lower(), header


def test_cuda_launchers_include_no_framework() -> None:
    includes = INCLUDE.findall(sources("cc/cuda"))
    assert ("<", "cuda_runtime.h") in includes
    for _, header in includes:
        assert not FORBIDDEN.match(header), header


def test_numpy_module_includes_no_tensorflow() -> None:
    for _, header in INCLUDE.findall(sources("cc/numpy")):
        assert not re.match(r"tensorflow|tsl|xla|absl|Eigen", header), header


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
def test_core_library_exports_its_interface_alone() -> None:
    libraries = sorted((package() / "lib").rglob("libtfseg_core.so"))
    assert libraries
    for library in libraries:
        command = ["nm", "-D", "-C", "--defined-only", str(library)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        symbols = [line.split(maxsplit=2)[2] for line in output.splitlines()]
        assert any("max_unpool::Forward" in symbol for symbol in symbols)
        for symbol in symbols:
            assert re.match(r"((vtable|typeinfo|typeinfo name) for )?tfseg::core::", symbol), symbol


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
@pytest.mark.skipif(bool(_library.cuda_absence()), reason=f"CUDA: {_library.cuda_absence()}")
def test_no_library_takes_cuda_functions_from_another() -> None:
    """TensorFlow's libraries export stubs of them, which fail where it was built without CUDA."""
    libraries = [package() / "lib/libtfseg_cuda.so", _library.OPS_LIBRARY, _library.XLA_LIBRARY]
    for library in libraries:
        command = ["nm", "-D", "--undefined-only", str(library)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert output
        assert not re.findall(r" U _{0,2}cu(?:da|[A-Z])\w*", output), library


def test_public_names_and_signatures_are_those_agreed_on() -> None:
    """If the change is meant: `python tests/helpers/api_surface.py`."""
    actual, wanted = surface(), agreed()
    assert actual["modules"] == wanted["modules"]
    assert actual["signatures"] == wanted["signatures"]


def test_ops_have_the_same_arguments_in_stock_tensorflow() -> None:
    signatures = surface()["signatures"]
    for stem in [*STEMS, "multilevel_roi_align"]:
        assert signatures[f"tfseg_ops.ops.{stem}"] == signatures[f"tfseg_ops.pure_tf.{stem}"]


@pytest.mark.parametrize("name", sorted(public_objects()))
def test_public_function_says_what_it_does_and_has_type_hints(name: str) -> None:
    value = public_objects()[name]
    summary = (inspect.getdoc(value) or "").partition("\n")[0]
    assert summary.endswith((".", ":")), summary
    function = value.__init__ if inspect.isclass(value) else value
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        assert parameter.name == "self" or parameter.annotation is not parameter.empty, parameter
    assert signature.return_annotation is not signature.empty


@pytest.mark.parametrize("name", [name for name in sorted(public_objects()) if name.count(".") > 1])
def test_public_function_lives_in_a_file_of_its_name(name: str) -> None:
    module, _, public = name.rpartition(".")
    # Words begin after a lower-case letter, and with the last capital of several: ROIAlign.
    snake = re.sub(
        r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[A-Z][a-z])", "_", public.replace("IoU", "Iou")
    ).lower()
    assert public_objects()[name].__module__ == f"{module}.{snake}"


@pytest.mark.parametrize("name", MODULES)
def test_public_module_has_a_docstring(name: str) -> None:
    assert (importlib.import_module(name).__doc__ or "").strip()


def test_package_is_marked_as_typed() -> None:
    assert (package() / "py.typed").is_file()
