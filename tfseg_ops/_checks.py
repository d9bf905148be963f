"""Checks of arguments, in the words that core uses: `op: 'argument' rule, got value`."""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

FLOAT_DTYPES = (tf.float16, tf.bfloat16, tf.float32, tf.float64)
INDEX_DTYPES = (tf.int32, tf.int64)


def describe(shape: tf.TensorShape | Sequence[int | None]) -> str:
    """Returns a shape as core writes it: "[8, ?, 3]"."""
    sizes = tf.TensorShape(shape)
    if sizes.rank is None:
        return "an unknown shape"
    return "[" + ", ".join("?" if size is None else str(size) for size in sizes) + "]"


def require_shape(
    op: str, argument: str, tensor: tf.Tensor, sizes: dict[str, int | None], names: str
) -> None:
    """Requires a dimension of `tensor` for each name, of the size `sizes` has or learns here."""
    shape = tensor.shape
    if shape.rank is None:
        return
    dims = names.split()
    fits = shape.rank == len(dims) and all(
        size is None or sizes.get(name) is None or size == sizes[name]
        for name, size in zip(dims, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(
            name if sizes.get(name) is None else f"{name}={sizes[name]}" for name in dims
        )
        raise ValueError(f"{op}: '{argument}' must have shape [{wanted}], got {describe(shape)}")
    for name, size in zip(dims, shape, strict=True):
        if sizes.get(name) is None:
            sizes[name] = size


def require_dtype(op: str, argument: str, dtype: tf.DType, allowed: Sequence[tf.DType]) -> None:
    """Requires one of the allowed dtypes; raises TypeError."""
    if dtype not in allowed:
        names = ", ".join(d.name for d in allowed[:-1]) + " or " + allowed[-1].name
        raise TypeError(f"{op}: '{argument}' must be {names}, got {tf.as_dtype(dtype).name}")


def pair(op: str, argument: str, value: Any) -> list[int]:
    """Returns [height, width] of an int, a pair, or four numbers [1, height, width, 1]."""
    try:
        numbers = [value, value] if _is_int(value) else list(value)
    except TypeError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 2
    if len(numbers) == 4 and all(map(_is_int, numbers)) and numbers[0] == numbers[3] == 1:
        numbers = numbers[1:3]
    if len(numbers) != 2 or not all(map(_is_int, numbers)):
        raise ValueError(
            f"{op}: '{argument}' must be an int, [height, width] or [1, height, width, 1], "
            f"got {value}"
        )
    sizes = [int(number) for number in numbers]
    if min(sizes) < 1 or max(sizes) > 2**31 - 1:
        raise ValueError(f"{op}: '{argument}' must lie in [1, 2147483647], got {sizes}")
    return sizes


def _is_int(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)


class Pooling(NamedTuple):
    """Checked arguments of a max-pooling with argmax."""

    input: tf.Tensor
    ksize: list[int]
    strides: list[int]
    padding: str
    output_dtype: tf.DType


def pooling(input: Any, ksize: Any, strides: Any, padding: str, output_dtype: Any) -> Pooling:
    """Checks the arguments of `max_pool_with_argmax`, all but what core's shape rule knows."""
    op = "max_pool_with_argmax"
    input = tf.convert_to_tensor(input)
    output_dtype = tf.as_dtype(output_dtype)
    require_dtype(op, "input", input.dtype, FLOAT_DTYPES)
    require_dtype(op, "output_dtype", output_dtype, INDEX_DTYPES)
    require_shape(op, "input", input, {}, "batch height width channels")
    if not isinstance(padding, str) or padding.upper() not in ("VALID", "SAME"):
        raise ValueError(f"{op}: 'padding' must be VALID or SAME, got {padding}")
    return Pooling(
        input, pair(op, "ksize", ksize), pair(op, "strides", strides), padding.upper(), output_dtype
    )


class Unpooling(NamedTuple):
    """Checked arguments of a max-unpooling."""

    input: tf.Tensor
    argmax: tf.Tensor
    output_shape: tf.Tensor
    windows: list[int]


def unpooling(input: Any, argmax: Any, output_shape: Any, windows: Any) -> Unpooling:
    """Checks the arguments of `max_unpool`, all but the values of the masks."""
    op = "max_unpool"
    input = tf.convert_to_tensor(input)
    argmax = tf.convert_to_tensor(argmax)
    require_dtype(op, "input", input.dtype, FLOAT_DTYPES)
    require_dtype(op, "argmax", argmax.dtype, INDEX_DTYPES)
    sizes: dict[str, int | None] = {}
    require_shape(op, "input", input, sizes, "batch height width channels")
    require_shape(op, "argmax", argmax, sizes, "batch height width channels")
    size = tf.convert_to_tensor(output_shape)
    if size.shape.rank is not None and not size.shape.is_compatible_with([2]):
        raise ValueError(f"{op}: 'output_shape' must have shape [2], got {describe(size.shape)}")
    require_dtype(op, "output_shape", size.dtype, INDEX_DTYPES)
    known = tf.get_static_value(size)
    if known is not None and min(known) < 0:
        raise ValueError(f"{op}: 'output_shape' must not be negative, got {known.tolist()}")
    if known is not None and max(known) > 2**31 - 1:
        raise ValueError(f"{op}: 'output_shape' must fit into memory, got {known.tolist()}")
    if known is not None and size.dtype != tf.int32:
        # On a GPU machine TensorFlow keeps small int32 tensors in host memory, where the kernel
        # reads the sizes; int64 ones would go to the GPU and be waited for.
        size = tf.constant(known, tf.int32)
    numbers: list[int] = []
    if windows is not None:
        if not isinstance(windows, (list, tuple)) or len(windows) != 2:
            raise ValueError(f"{op}: 'windows' must be (pool_size, strides), got {windows}")
        numbers = pair(op, "windows", windows[0]) + pair(op, "windows", windows[1])
    return Unpooling(input, argmax, size, numbers)
