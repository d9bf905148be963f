"""Tests of the core run without TensorFlow, also on a sanitized build (TFSEG_CORE_DIR)."""

import types
from collections.abc import Iterator

import pytest
from helpers.core_library import load_core


@pytest.fixture(scope="session")
def core() -> types.ModuleType:
    """The numpy module, loaded from its file alone."""
    return load_core()


@pytest.fixture
def same_threads_afterwards(core: types.ModuleType) -> Iterator[None]:
    """Puts back the number of threads that the other tests run with."""
    before = core.num_threads()
    yield
    core.set_num_threads(before)
