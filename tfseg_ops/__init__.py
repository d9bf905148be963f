"""Low-level TensorFlow ops and Keras layers for image enhancement and segmentation.

`ops` holds the functions on tensors, `layers`, `losses` and `metrics` the Keras objects, `models`
the reference models of them, `visualize` pictures of what a model does, `weights` those of classes
and pixels, `postprocess` dense CRFs on numpy arrays, `pure_tf` the functions in stock TensorFlow,
`testing` what property-tests gradients. `python -m tfseg_ops` says what works here.

Import this package before loading a SavedModel that uses its ops: their gradients are registered
here.
"""

from tfseg_ops import _library, _portable

if not _portable.is_portable() and not _library.running_doctor():
    _library.load_ops()

from tfseg_ops import (
    layers,
    losses,
    metrics,
    models,
    ops,
    postprocess,
    pure_tf,
    testing,
    visualize,
    weights,
)
from tfseg_ops._portable import portable
from tfseg_ops._version import __version__

__all__ = [
    "__version__",
    "layers",
    "losses",
    "metrics",
    "models",
    "ops",
    "portable",
    "postprocess",
    "pure_tf",
    "testing",
    "visualize",
    "weights",
]
