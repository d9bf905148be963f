"""The public names of the package and how they are called.

`tests/api_surface.json` holds what `surface()` returned when it was last agreed on. After a change
that is meant, write it anew and read the difference: `python tests/helpers/api_surface.py`.
"""

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[1] / "api_surface.json"
MODULES = (
    "tfseg_ops",
    "tfseg_ops.layers",
    "tfseg_ops.losses",
    "tfseg_ops.metrics",
    "tfseg_ops.models",
    "tfseg_ops.ops",
    "tfseg_ops.postprocess",
    "tfseg_ops.postprocess.utils",
    "tfseg_ops.pure_tf",
    "tfseg_ops.testing",
    "tfseg_ops.testing.strategies",
    "tfseg_ops.visualize",
    "tfseg_ops.weights",
)


def public_objects() -> dict[str, Any]:
    """Returns every public function and class by its name, "tfseg_ops.ops.max_unpool"."""
    objects = {}
    for name in MODULES:
        module = importlib.import_module(name)
        for public in module.__all__:
            value = getattr(module, public)
            if callable(value):
                objects[f"{name}.{public}"] = value
    return objects


def surface() -> dict[str, Any]:
    """Returns the names in each module's `__all__`, and the signatures of functions and classes."""
    return {
        "modules": {name: sorted(importlib.import_module(name).__all__) for name in MODULES},
        "signatures": {name: signature_of(value) for name, value in public_objects().items()},
    }


def signature_of(function: Any) -> str:
    """Returns the parameters and their defaults.

    Annotations, and how other packages print themselves, vary between versions: they are left out.
    """
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        default = parameter.default
        plain = isinstance(default, int | float | str | tuple | None)
        if not plain and default is not parameter.empty:
            default = _Named(getattr(default, "__name__", getattr(default, "name", "...")))
        parameters.append(parameter.replace(annotation=parameter.empty, default=default))
    return str(inspect.Signature(parameters))


class _Named:
    """Prints as a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


def agreed() -> dict[str, Any]:
    """Returns what the file holds."""
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content


if __name__ == "__main__":
    FILE.write_text(json.dumps(surface(), indent=2, sort_keys=True) + "\n")
