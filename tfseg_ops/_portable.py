"""Which path the ops take: the compiled kernels, or the same functions in stock TensorFlow."""

import contextlib
import contextvars
import os
from collections.abc import Iterator

_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("tfseg_ops_portable", default=False)


def is_portable() -> bool:
    """Returns whether ops called here and now run as stock TensorFlow ops."""
    return _inside.get() or os.environ.get("TFSEG_OPS_PORTABLE", "0") not in ("", "0")


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Runs the ops of this package as stock TensorFlow ops inside the `with` block.

    For targets that cannot load the compiled library: TPUs, TF Lite, systems with no build. The
    choice is made when an op is called, so for a `tf.function` when it is traced: trace inside the
    block. The environment variable `TFSEG_OPS_PORTABLE=1` does the same for a whole process, where
    the compiled library then need not exist.

    Example:
        >>> with tfseg_ops.portable():
        ...     output, argmax = tfseg_ops.ops.max_pool_with_argmax(images, 2, 2, "VALID")
    """
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)
