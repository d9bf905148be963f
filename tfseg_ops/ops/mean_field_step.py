"""One mean-field update of a dense CRF."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfseg_ops import _crf_checks, _gradients, _library, _portable
from tfseg_ops.pure_tf.mean_field_step import step as portable_step
from tfseg_ops.pure_tf.permutohedral_lattice import Lattice


def mean_field_step(
    q: Any,
    unary: Any,
    lattices: Any,
    kernel_weights: Any,
    compatibility: Any = None,
    normalization: str | Sequence[str] = "symmetric",
) -> tf.Tensor:
    """Updates the class probabilities of all points by messages from all others, once.

    With `K_k` the Gaussian filter on lattice k, normalized (below), for point i and class l

        message_k = K_k q
        logits[i, l] = unary[i, l]
            - sum_m compatibility[l, m] sum_k sum_n kernel_weights[k][m, n] message_k[i, n]
        output = softmax(logits)

    A scalar weight stands for itself times the identity, weights `[classes]` for their diagonal
    matrix. `compatibility` is what class m near costs class l; None is the Potts model,
    1 - identity: all other classes cost the same.

    Normalization, with n_i the filter of ones at point i: "symmetric" `n_i^-1/2 [K (n^-1/2 q)]_i`,
    "before" `[K (n^-1 q)]_i`, "after" `n_i^-1 [K q]_i`, a weighted mean, "none" `[K q]_i`.

    One fused pass over the points for each lattice. There are gradients of first order to `q`,
    `unary`, `kernel_weights`, `compatibility` and, through filters and norms, to the member
    `features` of each lattice, which is computed only where it is asked for. Results are the same,
    bit by bit, for any number of threads. NaN and infinite numbers spread as in
    `ops.gaussian_filter`.

    Args:
        q: probabilities, `[batch, ..., classes]` with at least three dimensions, float16, bfloat16,
            float32 or float64. They need not add up to 1.
        unary: logits, of the shape and dtype of `q`.
        lattices: a `Lattice` of `[batch, points, d]` features, or a list of them; points are all
            dimensions between the first and the last of `q`. None at all makes `softmax(unary)`.
        kernel_weights: one for each lattice: scalar, `[classes]` or `[classes, classes]`, any
            floating dtype; also a tensor `[lattices, ...]`, and of one lattice its weight.
        compatibility: `[classes, classes]`, any floating dtype; None: Potts.
        normalization: "symmetric", "before", "after" or "none", or a list with one for each
            lattice.

    Returns:
        Probabilities, of the shape and dtype of `q`. Sums are kept in float32 (float64 for
        float64).

    Raises:
        TypeError: a dtype is none of the above, or a lattice is none.
        ValueError, tf.errors.InvalidArgumentError: shapes or numbers of arguments do not fit.

    Example:
        >>> lattice = permutohedral_lattice(features)
        >>> q = tf.nn.softmax(logits)
        >>> q = mean_field_step(q, logits, [lattice], [3.0])

    References:
        Krähenbühl & Koltun 2011, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
        Potentials", algorithm 1.
        Zheng et al. 2015, "Conditional Random Fields as Recurrent Neural Networks", section 4.
    """
    args = _crf_checks.step(
        "mean_field_step", q, unary, lattices, kernel_weights, compatibility, normalization
    )
    return _crf_checks.unflat(step(args), tf.convert_to_tensor(q), args.shape)


def step(args: _crf_checks.Step, logits: bool = False) -> tf.Tensor:
    """The step of checked arguments; with `logits` what would enter the softmax."""
    if _portable.is_portable():
        return portable_step(args, logits)
    return _library.load_ops().tfseg_mean_field_step(
        q=args.q,
        unary=args.unary,
        mixing=args.mixing,
        **_by_member(args.lattices),
        normalizations=[_crf_checks.NORMALIZATIONS.index(name) for name in args.normalizations],
        diagonal=args.mixing.shape.rank == 2,
        logits=logits,
    )


def _by_member(lattices: Sequence[Sequence[tf.Tensor]]) -> dict[str, list[tf.Tensor]]:
    """Returns what the op takes: for each member a list with that of each lattice."""
    return {name: [members[k] for members in lattices] for k, name in enumerate(Lattice._fields)}


@tf.RegisterGradient("Tfseg>MeanFieldStep")
def _gradient(op: Any, grad: tf.Tensor) -> list[tf.Tensor | None]:
    q, unary, mixing, *members = op.inputs
    count = len(members) // len(Lattice._fields)
    shared: dict[str, Any] = {
        "q": q,
        "unary": unary,
        "mixing": mixing,
        "output": op.outputs[0],
        "grad": grad,
    } | {name: op.get_attr(name) for name in ("normalizations", "diagonal", "logits")}
    for k, name in enumerate(Lattice._fields):
        shared[name] = members[k * count : (k + 1) * count]
    gradients: list[tf.Tensor | None] = [None] * len(op.inputs)
    if _gradients.wanted(op, [0, 1, 2]):
        gradients[:3] = _library.load_ops().tfseg_mean_field_step_grad(**shared)
    if _gradients.wanted(op, range(3, 3 + count)):
        gradients[3 : 3 + count] = _library.load_ops().tfseg_mean_field_step_features_grad(**shared)
    return gradients
