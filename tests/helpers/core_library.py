"""Loads the numpy module `_core` without importing TensorFlow or the package."""

import importlib.util
import os
import types
from pathlib import Path

from helpers.processes import package


def folder() -> Path:
    """Returns the folder of the module: TFSEG_CORE_DIR (a sanitized build, say) or the package."""
    return Path(os.environ.get("TFSEG_CORE_DIR") or package())


def sanitized() -> bool:
    """Returns whether this process runs under a sanitizer, which does not follow forks."""
    return "san" in os.environ.get("LD_PRELOAD", "")


def load_core() -> types.ModuleType:
    """Returns the module, loaded from its file alone."""
    files = sorted(folder().glob("_core*.so"))
    if not files:
        raise ImportError(f"no _core*.so in {folder()}: build the package, or set TFSEG_CORE_DIR")
    spec = importlib.util.spec_from_file_location("_core", files[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
