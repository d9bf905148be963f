"""Fixtures of the tests of the models."""

from collections.abc import Iterator

import keras
import pytest


@pytest.fixture(autouse=True)
def same_policy_afterwards() -> Iterator[None]:
    """Puts back the precision policy."""
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)
