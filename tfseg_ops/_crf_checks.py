"""Checks of the arguments of the dense CRF, in the words that core uses."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfseg_ops._checks import (
    FLOAT_DTYPES,
    describe,
    integer,
    positive,
    refuse,
    require_dtype,
    require_shape,
)

MOST_DIMENSIONS = 8
# Beyond it float32 cannot place a point in its simplex.
LARGEST_FEATURE = 100000
FEATURES_RULE = f"must lie in [-{LARGEST_FEATURE}, {LARGEST_FEATURE}]"
# In the order of core's numbers.
NORMALIZATIONS = ("none", "before", "after", "symmetric")

# The members of a lattice: dtype and shape.
_MEMBERS = {
    "features": (tf.float32, ["batch", "points", "dimensions"]),
    "vertices": (tf.int32, ["batch", "points", "corners"]),
    "weights": (tf.float32, ["batch", "points", "corners"]),
    "splat_points": (tf.int32, ["batch", "points * corners"]),
    "splat_weights": (tf.float32, ["batch", "points * corners"]),
    "splat_offsets": (tf.int32, ["batch", "bound + 1"]),
    "neighbours": (tf.int32, ["batch", "corners", "bound", "2"]),
    "norms": (tf.float32, ["batch", "points"]),
    "num_vertices": (tf.int32, ["batch"]),
}


def wide(dtype: tf.DType) -> tf.DType:
    """Returns the accumulator's dtype."""
    return tf.float64 if dtype == tf.float64 else tf.float32


def features(value: Any) -> tf.Tensor:
    """Checks the argument of `permutohedral_lattice`, all but its values; returns it in float32."""
    op = "permutohedral_lattice"
    tensor = tf.convert_to_tensor(value, tf.float32 if isinstance(value, (list, tuple)) else None)
    require_dtype(op, "features", tensor.dtype, FLOAT_DTYPES)
    require_shape(op, "features", tensor, {}, "batch points dimensions")
    dimensions = None if tensor.shape.rank is None else tensor.shape[2]
    if dimensions is not None and not 1 <= dimensions <= MOST_DIMENSIONS:
        raise ValueError(
            f"{op}: 'features' must have 1 to {MOST_DIMENSIONS} dimensions, got {dimensions}"
        )
    return tf.cast(tensor, tf.float32)


def lattice(op: str, argument: str, value: Any, sizes: dict[str, int | None]) -> list[tf.Tensor]:
    """Returns the members of a lattice; `sizes` has or learns the batch and number of points."""
    if not isinstance(value, (list, tuple)) or len(value) != len(_MEMBERS):
        got = f"{len(value)} members" if isinstance(value, (list, tuple)) else type(value).__name__
        raise TypeError(f"{op}: '{argument}' must be a Lattice, got {got}")
    members = [tf.convert_to_tensor(member) for member in value]
    own: dict[str, int | None] = {name: sizes.get(name) for name in ("batch", "points")}
    # Sizes that others follow from come first, as in core.
    for name in dict.fromkeys(["features", "neighbours", *_MEMBERS]):
        dtype, dims = _MEMBERS[name]
        member = members[list(_MEMBERS).index(name)]
        require_shape(op, f"{argument}.{name}", member, own, dims)
        require_dtype(op, f"{argument}.{name}", member.dtype, [dtype])
        if own.get("dimensions") is not None:
            own["corners"] = (own["dimensions"] or 0) + 1
        if own.get("corners") is not None and own.get("points") is not None:
            own["points * corners"] = (own["corners"] or 0) * (own["points"] or 0)
        if own.get("bound") is not None:
            own["bound + 1"] = (own["bound"] or 0) + 1
    sizes.update(batch=own.get("batch"), points=own.get("points"))
    return members


class Filtering(NamedTuple):
    """Checked arguments of `gaussian_filter`."""

    values: tf.Tensor
    lattice: list[tf.Tensor]


def filtering(values: Any, members: Any) -> Filtering:
    """Checks the arguments of `gaussian_filter`, all but the indices within the lattice."""
    op = "gaussian_filter"
    values = tf.convert_to_tensor(values)
    require_dtype(op, "values", values.dtype, FLOAT_DTYPES)
    sizes: dict[str, int | None] = {}
    require_shape(op, "values", values, sizes, "batch points channels")
    return Filtering(values, lattice(op, "lattice", members, sizes))


class Step(NamedTuple):
    """Checked arguments of a mean-field step."""

    q: tf.Tensor  # [batch, points, classes]
    unary: tf.Tensor  # likewise
    mixing: tf.Tensor  # [lattices, classes] or [lattices, classes, classes], the accumulator's
    normalizations: list[str]
    lattices: list[list[tf.Tensor]]
    shape: tf.TensorShape  # of q and unary as they came, [batch, ..., classes]


def step(
    op: str,
    q: Any,
    unary: Any,
    lattices: Any,
    kernel_weights: Any,
    compatibility: Any,
    normalization: Any,
) -> Step:
    """Checks the arguments of `mean_field_step`; puts weights and compatibility together."""
    q, unary = tf.convert_to_tensor(q), tf.convert_to_tensor(unary)
    require_dtype(op, "q", q.dtype, FLOAT_DTYPES)
    require_dtype(op, "unary", unary.dtype, [q.dtype])
    shape = class_shape(op, "q", q)
    if not shape.is_compatible_with(unary.shape):
        raise ValueError(
            f"{op}: 'unary' must have shape {describe(shape)}, got {describe(unary.shape)}"
        )
    shape = shape.merge_with(unary.shape)
    flat_q, flat_unary = flat(q), flat(unary)
    if hasattr(lattices, "_fields"):
        lattices = [lattices]
    if not isinstance(lattices, (list, tuple)):
        raise TypeError(
            f"{op}: 'lattices' must be a Lattice or a list of them, got {type(lattices).__name__}"
        )
    sizes = dict(zip(("batch", "points"), flat_q.shape[:2], strict=True))
    members = [lattice(op, f"lattices[{k}]", one, sizes) for k, one in enumerate(lattices)]
    in_list = _in_list(op, "kernel_weights", kernel_weights, "lattices", len(members), q)
    weights = {f"kernel_weights[{k}]": weight for k, weight in enumerate(in_list)}
    return Step(
        flat_q,
        flat_unary,
        mixing(op, weights, compatibility, q),
        normalizations(op, normalization, len(members)),
        members,
        shape,
    )


def class_shape(op: str, argument: str, tensor: tf.Tensor) -> tf.TensorShape:
    """Returns the shape `[batch, ..., classes]` after a check of its rank and classes."""
    shape = tensor.shape
    if shape.rank is not None and shape.rank < 3:
        raise ValueError(
            f"{op}: '{argument}' must have shape [batch, ..., classes], got {describe(shape)}"
        )
    if shape.rank is not None and shape[-1] == 0:
        raise ValueError(f"{op}: '{argument}' must have at least one class, got {describe(shape)}")
    return shape


def flat(tensor: tf.Tensor) -> tf.Tensor:
    """Returns `[batch, points, classes]` of `[batch, ..., classes]`."""
    shape = tensor.shape
    if shape.rank == 3:
        return tensor
    dynamic = tf.shape(tensor)
    # Not by -1, which TensorFlow cannot resolve where there are no elements.
    sizes = [dynamic[0], tf.reduce_prod(dynamic[1:-1]), dynamic[-1]]
    if shape.rank is None:
        return tf.reshape(tensor, tf.stack(sizes))
    known = [shape[0], shape[1:-1].num_elements(), shape[-1]]
    result = tf.reshape(
        tensor,
        [size if static is None else static for size, static in zip(sizes, known, strict=True)],
    )
    result.set_shape(known)
    return result


def unflat(tensor: tf.Tensor, like: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    """Returns `[batch, points, classes]` in the shape of `like`, of which `shape` is known."""
    if shape.rank == 3:
        return tensor
    result = tf.reshape(tensor, shape if shape.is_fully_defined() else tf.shape(like))
    result.set_shape(shape)
    return result


def normalizations(op: str, value: Any, count: int) -> list[str]:
    """Returns one name for each lattice."""
    try:
        names = [value] if isinstance(value, str) else list(value)
    except TypeError:  # None, a number
        names = [value]
    for name in names:
        if not isinstance(name, str) or name not in NORMALIZATIONS:
            raise ValueError(
                f"{op}: 'normalization' must be symmetric, before, after or none, got {name}"
            )
    if isinstance(value, str):
        names *= count
    if len(names) != count:
        raise ValueError(
            f"{op}: 'normalization' must have one name for each of {count} kernels, "
            f"got {len(names)}"
        )
    return names


def _in_list(
    op: str, argument: str, weights: Any, kernels: str, count: int, like: tf.Tensor
) -> list[Any]:
    """Returns the weights of each of `count` kernels, given as a list, a tensor or one weight."""
    if not isinstance(weights, (list, tuple)):
        if not isinstance(weights, (int, float)) and not hasattr(weights, "shape"):
            raise TypeError(
                f"{op}: '{argument}' must be a list of weights, got {type(weights).__name__}"
            )
        tensor = floats(op, argument, weights, wide(like.dtype))
        if tensor.shape.rank == 0:
            weights = [tensor]
        elif tensor.shape[:1].is_compatible_with([count]):
            weights = tf.unstack(tensor, num=count)
        else:
            weights = [None] * tensor.shape[0]
    if len(weights) != count:
        raise ValueError(
            f"{op}: '{argument}' must have one for each of {count} {kernels}, got {len(weights)}"
        )
    return list(weights)


def mixing(op: str, weights: dict[str, Any], compatibility: Any, like: tf.Tensor) -> tf.Tensor:
    """Returns what is multiplied with the messages: see `cc/core/mean_field_step.h`.

    Potts with scalars or weights per class, adding `w (K q)`, is a diagonal, `[kernels, classes]`;
    else there are matrices, `[kernels, classes, classes]`: `-compatibility weights`.

    Args:
        op: for errors.
        weights: of each kernel, by name.
        compatibility: a matrix or None.
        like: `[..., classes]`.
    """
    dtype = wide(like.dtype)
    static = None if like.shape.rank is None else like.shape[-1]
    classes = tf.shape(like)[-1] if static is None else static
    own = [_weight(op, name, weight, static, dtype) for name, weight in weights.items()]
    matrix = None
    if compatibility is not None:
        matrix = floats(op, "compatibility", compatibility, dtype)
        if not matrix.shape.is_compatible_with([static, static]):
            wanted = "[classes, classes]" if static is None else describe([static, static])
            raise ValueError(
                f"{op}: 'compatibility' must have shape {wanted}, got {describe(matrix.shape)}"
            )
    if not own:
        return tf.zeros(tf.stack([0, classes]), dtype)
    if matrix is None and all(weight.shape.rank < 2 for weight in own):
        return tf.stack([weight * tf.ones([classes], dtype) for weight in own])
    eye = tf.eye(classes, dtype=dtype)
    stacked = tf.stack([weight if weight.shape.rank == 2 else weight * eye for weight in own])
    # -(1 - identity) W is W up to a number common to all classes, which the softmax does not see.
    return stacked if matrix is None else -tf.einsum("lm,kmn->kln", matrix, stacked)


def _weight(op: str, argument: str, weight: Any, classes: int | None, dtype: tf.DType) -> tf.Tensor:
    tensor = floats(op, argument, weight, dtype)
    rank = tensor.shape.rank
    fits = rank is not None and rank <= 2 and tensor.shape.is_compatible_with([classes] * rank)
    if not fits:
        name = "classes" if classes is None else f"classes={classes}"
        raise ValueError(
            f"{op}: '{argument}' must have shape [], [{name}] or [{name}, {name}], "
            f"got {describe(tensor.shape)}"
        )
    return tensor


def floats(op: str, argument: str, value: Any, dtype: tf.DType) -> tf.Tensor:
    """Returns floating numbers in another dtype; numbers of Python may be integers."""
    plain = isinstance(value, (int, float, list, tuple)) and not isinstance(value, bool)
    tensor = tf.convert_to_tensor(value, dtype if plain else None)
    require_dtype(op, argument, tensor.dtype, FLOAT_DTYPES)
    return tf.cast(tensor, dtype)


class DenseCrf(NamedTuple):
    """Checked arguments of `dense_crf`."""

    logits: tf.Tensor  # [batch, ..., classes]
    image: tf.Tensor | None  # [batch, height, width, channels], the accumulator's dtype
    num_iterations: int
    exact: bool
    extra_lattices: Sequence[Any]
    extra_weights: Sequence[Any]


def dense_crf(
    logits: Any,
    image: Any,
    num_iterations: Any,
    method_name: Any,
    extra_lattices: Any,
    extra_weights: Any,
) -> DenseCrf:
    """Checks those arguments of `dense_crf` that do not belong to its steps."""
    op = "dense_crf"
    logits = tf.convert_to_tensor(logits)
    require_dtype(op, "logits", logits.dtype, FLOAT_DTYPES)
    class_shape(op, "logits", logits)
    if image is not None:
        image = tf.convert_to_tensor(image)
        if not (image.dtype.is_floating or image.dtype.is_integer):
            raise TypeError(f"{op}: 'image' must be numbers, got {image.dtype.name}")
        sizes: dict[str, int | None] = {}
        require_shape(op, "logits", logits, sizes, "batch height width classes")
        require_shape(op, "image", image, sizes, "batch height width channels")
        most = MOST_DIMENSIONS - 2
        channels = None if image.shape.rank is None else image.shape[3]
        if channels is not None and not 1 <= channels <= most:
            raise ValueError(
                f"{op}: 'image' must have 1 to {most} channels, got {describe(image.shape)}"
            )
        logits, image = _with_same_pixels(op, logits, image)
        image = tf.cast(image, wide(logits.dtype))
    if hasattr(extra_lattices, "_fields") or not isinstance(extra_lattices, (list, tuple)):
        raise TypeError(
            f"{op}: 'extra_lattices' must be a list of lattices, "
            f"got {type(extra_lattices).__name__}"
        )
    return DenseCrf(
        logits,
        image,
        integer(op, "num_iterations", num_iterations, 0, 2**31 - 1),
        method(op, method_name) == "exact",
        extra_lattices,
        _in_list(op, "extra_weights", extra_weights, "extra lattices", len(extra_lattices), logits),
    )


def _with_same_pixels(op: str, logits: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns both; where shapes are unknown, they agree at run time (not so under XLA)."""
    pixels = logits.shape[:-1], image.shape[:-1]
    if all(shape.is_fully_defined() for shape in pixels):
        return logits, image
    of_logits, of_image = tf.shape(logits), tf.shape(image)
    words = f"{op}: 'image' must have shape [batch, height, width, channels] of the logits"
    alike = tf.reduce_all(tf.equal(of_logits[:3], of_image[:3]))
    check = tf.debugging.Assert(alike, [f"{words}, got:", of_image, of_logits], 4)
    with tf.control_dependencies([check]):
        return tf.identity(logits), tf.identity(image)


def method(op: str, value: Any) -> str:
    """Returns the name of a method."""
    if value not in ("lattice", "exact"):
        raise ValueError(f"{op}: 'method' must be lattice or exact, got {value}")
    return str(value)


def sdev(op: str, argument: str, value: Any, count: int, dtype: tf.DType) -> tf.Tensor:
    """Returns standard deviations, one or `count` of them, positive and finite.

    Values that are not known yet are checked at run time, under XLA not at all.
    """
    numbers = value if isinstance(value, (list, tuple)) else [value]
    if all(isinstance(number, (int, float)) for number in numbers):
        for number in numbers:
            positive(op, argument, number)
    tensor = floats(op, argument, _python_integers(value), dtype)
    if not any(tensor.shape.is_compatible_with(shape) for shape in ([], [count])):
        raise ValueError(
            f"{op}: '{argument}' must be a number or {count} numbers, got {describe(tensor.shape)}"
        )
    known = tf.get_static_value(tensor)
    if known is not None:
        illegal = np.ravel(known)[~((np.ravel(known) > 0) & (np.ravel(known) < np.inf))]
        if illegal.size:
            refuse(op, argument, "be positive and finite", illegal[0])
        return tensor  # not what is known: gradients go through it
    legal = tf.reduce_all((tensor > 0) & tf.math.is_finite(tensor))
    words = f"{op}: '{argument}' must be positive and finite, got"
    with tf.control_dependencies([tf.debugging.Assert(legal, [words, tensor])]):
        return tf.identity(tensor)


def _python_integers(value: Any) -> Any:
    """Returns numbers with the integers of numpy among them as Python's."""
    if isinstance(value, (list, tuple)):
        return [_python_integers(one) for one in value]
    if isinstance(value, (np.integer, np.ndarray)) and value.dtype.kind in "iu":
        return value.tolist()
    return value
