"""Tests of the core run without TensorFlow, also on a sanitized build (TFSEG_CORE_DIR)."""

import types

import pytest
from helpers.core_library import load_core


@pytest.fixture(scope="session")
def core() -> types.ModuleType:
    """The numpy module, loaded from its file alone."""
    return load_core()
