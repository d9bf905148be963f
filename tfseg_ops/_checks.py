"""Checks of arguments, in the words that core uses: `op: 'argument' rule, got value`."""

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import tensorflow as tf

FLOAT_DTYPES = (tf.float16, tf.bfloat16, tf.float32, tf.float64)
INDEX_DTYPES = (tf.int32, tf.int64)
LABEL_DTYPES = (tf.uint8, *INDEX_DTYPES)
# Of coordinates: bfloat16 turns 777.7 into 776.
BOX_DTYPES = (tf.float32, tf.float64)
MOST_LEVELS = 16
# A pixel of this level of a pyramid is wider than any image.
COARSEST_LEVEL = 30
# Of a bin along one axis, be they asked for or adaptive, as in core.
MOST_POINTS = 2**20


def refuse(op: str, argument: str, rule: str, got: Any) -> NoReturn:
    """Raises ValueError."""
    raise ValueError(f"{op}: '{argument}' must {rule}, got {got}")


def describe(shape: tf.TensorShape | Sequence[int | None]) -> str:
    """Returns a shape as core writes it: "[8, ?, 3]"."""
    sizes = tf.TensorShape(shape)
    if sizes.rank is None:
        return "an unknown shape"
    return "[" + ", ".join("?" if size is None else str(size) for size in sizes) + "]"


def require_shape(
    op: str,
    argument: str,
    tensor: tf.Tensor,
    sizes: dict[str, int | None],
    names: str | Sequence[str],
) -> None:
    """Requires a dimension of `tensor` for each name, of the size `sizes` has or learns here.

    Names are listed, or divided by spaces. One that is a number stands for that size.
    """
    shape = tensor.shape
    if shape.rank is None:
        return
    dims = names.split() if isinstance(names, str) else list(names)
    sizes.update({name: int(name) for name in dims if name.isdigit()})
    fits = shape.rank == len(dims) and all(
        size is None or sizes.get(name) is None or size == sizes[name]
        for name, size in zip(dims, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(
            name if name.isdigit() or sizes.get(name) is None else f"{name}={sizes[name]}"
            for name in dims
        )
        raise ValueError(f"{op}: '{argument}' must have shape [{wanted}], got {describe(shape)}")
    for name, size in zip(dims, shape, strict=True):
        if sizes.get(name) is None:
            sizes[name] = size


def require_dtype(op: str, argument: str, dtype: tf.DType, allowed: Sequence[tf.DType]) -> None:
    """Requires one of the allowed dtypes; raises TypeError."""
    if dtype not in allowed:
        names = " or ".join(
            filter(None, [", ".join(d.name for d in allowed[:-1]), allowed[-1].name])
        )
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


def integer(op: str, argument: str, value: Any, lowest: int, highest: float = math.inf) -> int:
    """Returns an int that lies in a range."""
    if not _is_int(value) or not lowest <= value <= highest:
        open_ended = highest == math.inf
        rule = f"be an int of at least {lowest}" if open_ended else f"lie in [{lowest}, {highest}]"
        refuse(op, argument, rule, value)
    return int(value)


def choice(op: str, argument: str, value: Any, choices: Sequence[Any]) -> Any:
    """Returns a value that is one of some."""
    if not any(value is one or (type(value) is type(one) and value == one) for one in choices):
        names = [f'"{one}"' if isinstance(one, str) else str(one) for one in choices]
        refuse(op, argument, f"be {', '.join(names[:-1])} or {names[-1]}", value)
    return value


def positive(op: str, argument: str, value: Any) -> float:
    """Returns a number that is positive and finite."""
    if not (_is_number(value) and 0 < value < math.inf):
        refuse(op, argument, "be positive and finite", value)
    return float(value)


def not_negative(op: str, argument: str, value: Any) -> float:
    """Returns a finite number of at least 0."""
    if not (_is_number(value) and 0 <= value < math.inf):
        refuse(op, argument, "be a number of at least 0", value)
    return float(value)


def probability(op: str, argument: str, value: Any) -> float:
    """Returns a number between 0 and 1."""
    if not (_is_number(value) and 0 < value < 1):
        refuse(op, argument, "lie between 0 and 1", value)
    return float(value)


def boolean(op: str, argument: str, value: Any) -> bool:
    """Returns True or False."""
    if not isinstance(value, bool | np.bool_):
        refuse(op, argument, "be True or False", value)
    return bool(value)


def weights_of_classes(op: str, values: Any) -> list[float]:
    """Returns finite numbers of at least 0, of which there are some."""
    try:
        weights = np.asarray(values, np.float64)
    except (TypeError, ValueError):  # a dict of them, a word
        weights = np.zeros(0)
    if weights.ndim != 1 or weights.size == 0 or not ((weights >= 0) & (weights < np.inf)).all():
        refuse(op, "class_weights", "be a list of numbers of at least 0", values)
    return [float(weight) for weight in weights]


def ignore_label_of(op: str, value: Any) -> int | None:
    """Returns an int, or None where no label is ignored."""
    if value is None:
        return None
    if not _is_int(value) or not -(2**63) <= value < 2**63:
        refuse(op, "ignore_label", "be an int or None", value)
    return int(value)


def power_of_sums(op: str, value: Any) -> int:
    """Returns the power of prediction and target."""
    if not _is_int(value) or value not in (1, 2):
        refuse(op, "power", "be 1 or 2", value)
    return int(value)


def sample_weight(op: str, value: Any, pixels: tf.TensorShape, dtype: tf.DType) -> tf.Tensor:
    """Returns weights in a dtype: one number, or those of images, or those of pixels."""
    weights = tf.cast(tf.convert_to_tensor(value), dtype)
    shapes = [pixels[:1], pixels, pixels.concatenate(1)]
    if weights.shape.rank != 0 and not any(map(weights.shape.is_compatible_with, shapes)):
        images, *others = map(describe, shapes)
        rule = f"be a number or have shape {images}, {' or '.join(others)}"
        refuse(op, "sample_weight", rule, describe(weights.shape))
    return weights


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


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


class RoiAlignment(NamedTuple):
    """Checked arguments of a RoI Align over one or several levels."""

    features: list[tf.Tensor]
    boxes: tf.Tensor  # in the accumulator's dtype
    box_indices: tf.Tensor
    levels: tf.Tensor | None  # of the dtype of box_indices
    output_size: list[int]
    spatial_scales: list[float]  # float32 numbers
    sampling_ratio: int


def roi_alignment(
    op: str,
    features: Any,
    boxes: Any,
    box_indices: Any,
    levels: Any,
    output_size: Any,
    spatial_scales: Any,
    sampling_ratio: Any,
) -> RoiAlignment:
    """Checks the arguments of `roi_align`, in lists of one, or of `multilevel_roi_align`.

    All but the values of `box_indices` and `levels`. For `roi_align` `levels` is None.
    """
    maps = _maps(op, features)
    wide = tf.float64 if maps[0].dtype == tf.float64 else tf.float32
    boxes = tf.convert_to_tensor(boxes, wide if isinstance(boxes, (list, tuple)) else None)
    box_indices = _integers(box_indices)
    require_dtype(op, "boxes", boxes.dtype, BOX_DTYPES)
    require_dtype(op, "box_indices", box_indices.dtype, INDEX_DTYPES)
    sizes: dict[str, int | None] = {}
    require_shape(op, "boxes", boxes, sizes, "num_boxes 4")
    require_shape(op, "box_indices", box_indices, sizes, "num_boxes")
    if op != "roi_align":
        levels = _integers(levels)
        require_dtype(op, "levels", levels.dtype, INDEX_DTYPES)
        require_shape(op, "levels", levels, sizes, "num_boxes")
        if levels.dtype != box_indices.dtype:
            # Not to int32: high bits would be lost, and with them what makes a number illegal.
            levels, box_indices = tf.cast(levels, tf.int64), tf.cast(box_indices, tf.int64)
    return RoiAlignment(
        maps,
        tf.cast(boxes, wide),
        box_indices,
        levels,
        pair(op, "output_size", output_size),
        scales(
            op,
            "spatial_scale" if levels is None else "spatial_scales",
            spatial_scales,
            len(maps),
        ),
        integer(op, "sampling_ratio", sampling_ratio, 0, MOST_POINTS),
    )


def _integers(value: Any) -> tf.Tensor:
    # An empty list would be a floating tensor.
    empty = isinstance(value, (list, tuple)) and not value
    return tf.convert_to_tensor(value, tf.int32 if empty else None)


def _maps(op: str, features: Any) -> list[tf.Tensor]:
    """Returns the feature maps, of one dtype, batch and number of channels."""
    if not isinstance(features, (list, tuple)) or not 1 <= len(features) <= MOST_LEVELS:
        got = len(features) if isinstance(features, (list, tuple)) else type(features).__name__
        raise ValueError(f"{op}: 'features' must be a list of 1 to {MOST_LEVELS} maps, got {got}")
    maps = [tf.convert_to_tensor(level) for level in features]
    shared: dict[str, int | None] = {}
    for index, level in enumerate(maps):
        name = "features" if len(maps) == 1 else f"features[{index}]"
        require_dtype(op, name, level.dtype, FLOAT_DTYPES if index == 0 else [maps[0].dtype])
        shared.update(height=None, width=None)
        require_shape(op, name, level, shared, "batch height width channels")
    return maps


def scales(op: str, argument: str, value: Any, count: int | None = None) -> list[float]:
    """Returns one float32 number for each map, of `count` maps or of as many as there are."""
    try:
        given = list(value)
    except TypeError:
        given = [value]
    if count is None and not 1 <= len(given) <= MOST_LEVELS:
        raise ValueError(
            f"{op}: '{argument}' must have 1 to {MOST_LEVELS} numbers, got {len(given)}"
        )
    if count is not None and len(given) != count:
        raise ValueError(f"{op}: '{argument}' must have {count} numbers, got {len(given)}")
    with np.errstate(over="ignore"):
        rounded = [float(np.float32(positive(op, argument, scale))) for scale in given]
    return [positive(op, argument, scale) for scale in rounded]


class DiceSums(NamedTuple):
    """Checked arguments of `soft_dice_sums`."""

    logits: tf.Tensor
    labels: tf.Tensor  # [batch, ...], or the shape of the logits where dense
    weights: tf.Tensor | None  # [batch, ...], in the accumulator's dtype
    class_weights: tf.Tensor | None  # [classes], in the accumulator's dtype
    ignore_label: int | None
    activation: str
    power: int
    dense: bool


def soft_dice_sums(
    logits: Any,
    labels: Any,
    weights: Any,
    class_weights: Any,
    ignore_label: Any,
    activation: Any,
    power: Any,
) -> DiceSums:
    """Checks the arguments of `soft_dice_sums`, all but the values of the labels.

    A last dimension of 1 that labels or weights have beyond `[batch, ...]` is taken off.
    """
    op = "soft_dice_sums"
    logits, labels = tf.convert_to_tensor(logits), tf.convert_to_tensor(labels)
    require_dtype(op, "logits", logits.dtype, FLOAT_DTYPES)
    require_dtype(op, "labels", labels.dtype, LABEL_DTYPES + FLOAT_DTYPES)
    rank = logits.shape.rank
    if rank is not None and rank < 2:
        raise ValueError(
            f"{op}: 'logits' must have shape [batch, ..., classes], got {describe(logits.shape)}"
        )
    if rank is not None and logits.shape[-1] == 0:
        raise ValueError(
            f"{op}: 'logits' must have at least one class, got {describe(logits.shape)}"
        )
    if activation not in ("softmax", "sigmoid", "none"):
        raise ValueError(f"{op}: 'activation' must be softmax, sigmoid or none, got {activation}")
    exponent, ignored = power_of_sums(op, power), ignore_label_of(op, ignore_label)

    dense = labels.dtype.is_floating
    if not dense and rank is not None and labels.shape.rank == rank:
        # An unknown last dimension of integers is taken for the classes, or for 1 where a label is
        # ignored: else a shape error says so.
        last = labels.shape[-1]
        dense = last != 1 and (last is not None or ignored is None)
        labels = labels if dense else tf.squeeze(labels, -1)
    pixels = logits.shape[:-1]
    if dense:
        _require_shape_of(op, "labels", labels, logits.shape)
    else:
        pixels = _require_shape_of(op, "labels", labels, pixels)

    wide = tf.float64 if logits.dtype == tf.float64 else tf.float32
    if weights is not None:
        weights = _floats(op, "weights", weights, wide)
        if rank is not None and weights.shape.rank == rank and weights.shape[-1] in (1, None):
            weights = tf.squeeze(weights, -1)
        _require_shape_of(op, "weights", weights, pixels)
    if class_weights is not None:
        class_weights = _floats(op, "class_weights", class_weights, wide)
        classes = tf.TensorShape([None]) if rank is None else logits.shape[-1:]
        _require_shape_of(op, "class_weights", class_weights, classes)
    if ignored is not None and dense:
        rule = "be None where labels are targets for each class"
        refuse(op, "ignore_label", rule, ignored)
    return DiceSums(logits, labels, weights, class_weights, ignored, activation, exponent, dense)


def _require_shape_of(
    op: str, argument: str, tensor: tf.Tensor, shape: tf.TensorShape
) -> tf.TensorShape:
    """Requires a shape, unknown parts aside; returns what is known of it now."""
    if not shape.is_compatible_with(tensor.shape):
        raise ValueError(
            f"{op}: '{argument}' must have shape {describe(shape)}, got {describe(tensor.shape)}"
        )
    return shape.merge_with(tensor.shape)


def _floats(op: str, argument: str, value: Any, dtype: tf.DType) -> tf.Tensor:
    """Returns floating numbers in another dtype; those of lists may be integers."""
    tensor = tf.convert_to_tensor(value, dtype if isinstance(value, (list, tuple)) else None)
    require_dtype(op, argument, tensor.dtype, FLOAT_DTYPES)
    return tf.cast(tensor, dtype)
