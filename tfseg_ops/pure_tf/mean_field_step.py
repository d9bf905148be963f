"""One mean-field update of a dense CRF in stock TensorFlow."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfseg_ops import _crf_checks
from tfseg_ops.pure_tf.exact_gaussian_filter import apply as filter_exactly
from tfseg_ops.pure_tf.gaussian_filter import apply as filter_on_lattice
from tfseg_ops.pure_tf.gaussian_filter import norms
from tfseg_ops.pure_tf.permutohedral_lattice import Lattice


class Kernel(NamedTuple):
    """A filter of values `[batch, points, channels]`, and what it makes of ones."""

    apply: Callable[[tf.Tensor], tf.Tensor]
    norms: tf.Tensor  # [batch, points, 1]


def mean_field_step(
    q: Any,
    unary: Any,
    lattices: Any,
    kernel_weights: Any,
    compatibility: Any = None,
    normalization: str | Sequence[str] = "symmetric",
) -> tf.Tensor:
    """Sends messages over all kernels, adds the unary logits and takes the softmax.

    See `ops.mean_field_step`. Each filter's result is a tensor of its own, and kept for gradients.
    Not under XLA, as `gaussian_filter`.
    """
    args = _crf_checks.step(
        "mean_field_step", q, unary, lattices, kernel_weights, compatibility, normalization
    )
    return _crf_checks.unflat(step(args), tf.convert_to_tensor(q), args.shape)


def step(args: _crf_checks.Step, logits: bool = False) -> tf.Tensor:
    """The step of checked arguments; with `logits` what would enter the softmax."""
    dtype = _crf_checks.wide(args.q.dtype)
    kernels = [of_lattice(Lattice(*members), dtype) for members in args.lattices]
    return update(args.q, args.unary, args.mixing, kernels, args.normalizations, logits)


def update(
    q: tf.Tensor,
    unary: tf.Tensor,
    mixing: tf.Tensor,
    kernels: Sequence[Kernel],
    normalizations: Sequence[str],
    logits: bool = False,
) -> tf.Tensor:
    """The step over any kernels; see `cc/core/mean_field_step.h`."""
    total, wide_q = (tf.cast(tensor, mixing.dtype) for tensor in (unary, q))
    for k, (kernel, normalization) in enumerate(zip(kernels, normalizations, strict=True)):
        scale = 1 / (kernel.norms + 1e-20)
        if normalization == "symmetric":
            scale = tf.sqrt(scale)
        before = normalization in ("before", "symmetric")
        after = normalization in ("after", "symmetric")
        message = kernel.apply(scale * wide_q if before else wide_q)
        message = scale * message if after else message
        if mixing.shape.rank == 2:
            total += mixing[k] * message
        else:
            total += tf.matmul(message, mixing[k], transpose_b=True)
    return tf.cast(total if logits else tf.nn.softmax(total), unary.dtype)


def of_lattice(lattice: Lattice, dtype: tf.DType) -> Kernel:
    """The kernel of a lattice."""
    return Kernel(
        lambda values: filter_on_lattice(values, lattice),
        norms(lattice, dtype)[..., None],
    )


def of_features(features: tf.Tensor) -> Kernel:
    """The Gaussian kernel itself; its values have the dtype of the features."""
    return Kernel(
        lambda values: filter_exactly(values, features),
        filter_exactly(tf.ones_like(features[..., :1]), features),
    )
