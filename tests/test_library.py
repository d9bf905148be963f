"""Loading the libraries: one sentence for what does not fit, XLA optional, portable without any."""

import re
import shutil
import warnings
from pathlib import Path

import pytest
import tensorflow as tf
from helpers.processes import package, run_python

from tfseg_ops import _library

PIP = (
    'pip install "setuptools>=77" cmake ninja pybind11 && '
    "pip install --no-build-isolation --no-deps --force-reinstall"
)
SOURCE = package().parent
WHERE = f'-e "{SOURCE}"' if (SOURCE / "setup.py").exists() else "tfseg_ops"
COMMAND = f"`{PIP} {WHERE}`"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Lets the functions that remember what they loaded run again."""
    monkeypatch.setattr(_library, "load_ops", _library.load_ops.__wrapped__)
    monkeypatch.setattr(_library, "xla_absence", _library.xla_absence.__wrapped__)
    return monkeypatch


@pytest.fixture
def not_a_library(tmp_path: Path) -> Path:
    """A file that no linker can load."""
    file = tmp_path / "_tfseg_broken.so"
    file.write_bytes(b"not a library " * 100)
    return file


@pytest.mark.parametrize("built_for", ["2.19.1", "2.22.0", "3.21.0"])
def test_library_for_another_tensorflow_names_both_versions_and_the_command(
    fresh: pytest.MonkeyPatch, built_for: str
) -> None:
    fresh.setattr(_library, "build_info", lambda: {"tensorflow": built_for})
    with pytest.raises(ImportError) as caught:
        _library.load_ops()
    assert str(caught.value) == (
        f"tfseg_ops was built for TensorFlow {built_for}, and TensorFlow {tf.__version__} is "
        f"installed: rebuild it with {COMMAND}"
    )


def test_another_patch_version_fits(fresh: pytest.MonkeyPatch) -> None:
    built_for = ".".join([*tf.__version__.split(".")[:2], "77"])
    fresh.setattr(_library, "build_info", lambda: {"tensorflow": built_for})
    assert _library.load_ops().tfseg_max_unpool


@pytest.mark.parametrize(
    "complaint",
    [
        "/x/_tfseg_ops.so: undefined symbol: _ZN10tensorflow8OpKernel11TraceStringERKNS_15OpKern",
        "/x/_tfseg_ops.so: undefined symbol: _ZNK4absl12lts_202308026Status\nmore lines",
    ],
)
@pytest.mark.parametrize("error", [tf.errors.NotFoundError, OSError])
def test_undefined_symbol_is_never_shown(
    fresh: pytest.MonkeyPatch, error: type[Exception], complaint: str
) -> None:
    def load(path: str) -> None:
        if error is OSError:
            raise OSError(complaint)
        raise tf.errors.NotFoundError(None, None, complaint)

    fresh.setattr(tf, "load_op_library", load)
    with pytest.raises(ImportError) as caught:
        _library.load_ops()
    text = str(caught.value)
    assert text.startswith("tfseg_ops was built for TensorFlow ")
    assert f"TensorFlow {tf.__version__} is installed: rebuild it with {COMMAND}" in text
    assert "symbol" not in text
    assert "_Z" not in text
    assert caught.value.__suppress_context__


def test_broken_library_is_the_same_sentence(
    fresh: pytest.MonkeyPatch, not_a_library: Path
) -> None:
    fresh.setattr(_library, "OPS_LIBRARY", not_a_library)
    with pytest.raises(ImportError, match="could not be loaded") as caught:
        _library.load_ops()
    assert COMMAND in str(caught.value)


def test_xla_library_that_cannot_be_loaded_is_a_warning(
    fresh: pytest.MonkeyPatch, not_a_library: Path
) -> None:
    fresh.setattr(_library, "XLA_LIBRARY", not_a_library)
    with pytest.warns(RuntimeWarning, match="could not be loaded") as caught:
        assert _library.load_ops().tfseg_max_unpool
    assert "not under jit_compile=True" in str(caught[0].message)
    assert COMMAND in str(caught[0].message)
    assert not _library.xla_available()


def test_xla_library_that_was_not_built_is_a_warning(
    fresh: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fresh.setattr(_library, "XLA_LIBRARY", tmp_path / "none.so")
    with pytest.warns(RuntimeWarning, match="was not built"):
        assert _library.load_ops().tfseg_max_unpool
    assert not _library.xla_available()


def test_complete_package_loads_without_a_warning(fresh: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _library.load_ops().tfseg_max_unpool
    assert _library.xla_available()


@pytest.fixture
def unbuilt(tmp_path: Path) -> Path:
    """A folder with the package's Python files alone."""
    ignore = shutil.ignore_patterns("*.so", "_build_info.py", "lib", "__pycache__")
    shutil.copytree(package(), tmp_path / "tfseg_ops", ignore=ignore)
    return tmp_path


def test_package_that_was_not_built_says_so(unbuilt: Path) -> None:
    output = run_python(
        """
        try:
            import tfseg_ops
        except ImportError as error:
            print(error)
        """,
        path=unbuilt,
        env={"TFSEG_OPS_PORTABLE": "0"},
    )
    assert output == (
        f"tfseg_ops has not been built here, and TensorFlow {tf.__version__} is installed: "
        f"rebuild it with `{PIP} tfseg_ops`\n"
    )


def test_portable_process_needs_no_library(unbuilt: Path) -> None:
    output = run_python(
        """
        import keras
        import numpy as np
        import tensorflow as tf
        import tfseg_ops
        from tfseg_ops import layers, ops

        print(tfseg_ops.__file__)
        image = tf.constant(np.random.default_rng(0).normal(size=(2, 5, 7, 3)))
        with tf.GradientTape() as tape:
            tape.watch(image)
            output, argmax = ops.max_pool_with_argmax(image, 2, 2, "SAME")
            restored = ops.max_unpool(output, argmax, [5, 7])
        gradient = tape.gradient(restored, image)
        np.testing.assert_array_equal(gradient, tf.cast(restored != 0, tf.float64))

        inputs = keras.Input((None, None, 3))
        pooled, masks = layers.MaxPoolingWithArgmax2D(padding="same")(inputs)
        model = keras.Model(inputs, layers.MaxUnpooling2D()([pooled, masks, inputs]))
        model.compile(jit_compile=True)
        predicted = model.predict(tf.cast(image, tf.float32), verbose=0)
        np.testing.assert_allclose(predicted, restored, 1e-6)
        """,
        path=unbuilt,
        env={"TFSEG_OPS_PORTABLE": "1"},
    )
    assert output == f"{unbuilt}/tfseg_ops/__init__.py\n"


def test_missing_tensorflow_is_named() -> None:
    output = run_python(
        """
        import sys

        sys.modules["tensorflow"] = None
        try:
            import tfseg_ops
        except ImportError as error:
            print(error)
        """
    )
    assert re.fullmatch(
        r"tfseg_ops needs TensorFlow, which is not installed: install it with `.*`\n", output
    )
