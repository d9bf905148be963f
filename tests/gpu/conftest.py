"""Fixtures of the tests that need a GPU. See `helpers.gpu`."""

import os
import types
from collections.abc import Iterator

import pytest
from helpers.core_library import load_core
from helpers.gpu import DEVICE

# Tests in other processes want some of the memory too.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


@pytest.fixture(scope="session")
def core() -> types.ModuleType:
    """The truth: the same op on numpy arrays, on the CPU, without TensorFlow."""
    return load_core()


@pytest.fixture(scope="module")
def device() -> Iterator[str]:
    """The device under test, from which no op may fall back to another meanwhile."""
    import tensorflow as tf

    before = tf.config.get_soft_device_placement()
    tf.config.set_soft_device_placement(False)
    yield DEVICE
    tf.config.set_soft_device_placement(before)
