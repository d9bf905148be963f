"""Checks for the gradients, adjoints and execution paths of TensorFlow functions.

`tfseg_ops.testing.strategies` (hypothesis strategies for images, masks, boxes and pooling windows)
is loaded on first use, since only it needs hypothesis: `pip install "tfseg_ops[test]"`.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from .check_adjoint import check_adjoint
from .check_gradients import check_gradients
from .check_paths import check_paths
from .numeric_gradient import numeric_gradient

__all__ = ["check_adjoint", "check_gradients", "check_paths", "numeric_gradient"]

# Hidden from type checkers, for which a module `__getattr__` would make every misspelt name legal.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> ModuleType:
        if name == "strategies":
            return importlib.import_module(".strategies", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
