"""How the strategies are found; what they draw is tested in `strategies/`."""

from __future__ import annotations

import importlib
import sys

import pytest

import tfseg_ops
from tfseg_ops import testing


def test_strategies_are_an_attribute_of_testing() -> None:
    assert (
        testing.strategies.images is importlib.import_module("tfseg_ops.testing.strategies").images
    )


def test_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'tfseg_ops.testing' has no attribute 'strategy'"):
        testing.strategy  # noqa: B018


def test_only_the_strategies_need_hypothesis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfseg_ops, "testing", testing)  # to have it back
    for name in [name for name in sys.modules if name.startswith("tfseg_ops.testing")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    fresh = importlib.import_module("tfseg_ops.testing")
    assert callable(fresh.check_gradients)
    with pytest.raises(ImportError, match=r'needs hypothesis.*pip install "tfseg_ops\[test\]"'):
        fresh.strategies  # noqa: B018
    with pytest.raises(ImportError, match=r'pip install "tfseg_ops\[test\]"'):
        from tfseg_ops.testing import strategies  # noqa: F401
