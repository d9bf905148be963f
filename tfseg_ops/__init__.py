"""Low-level TensorFlow ops and Keras layers for image enhancement and segmentation.

`ops` holds the functions on tensors, `layers` the Keras layers over them, `pure_tf` the same
functions in stock TensorFlow, `testing` what property-tests gradients. `python -m tfseg_ops` says
what works here.

Import this package before loading a SavedModel that uses its ops: their gradients are registered
here.
"""

from tfseg_ops import _library, _portable

if not _portable.is_portable() and not _library.running_doctor():
    _library.load_ops()

from tfseg_ops import layers, ops, pure_tf, testing
from tfseg_ops._portable import portable
from tfseg_ops._version import __version__

__all__ = ["__version__", "layers", "ops", "portable", "pure_tf", "testing"]
