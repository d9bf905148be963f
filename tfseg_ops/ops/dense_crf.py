"""Inference in fully connected CRFs with Gaussian edge potentials."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfseg_ops import _crf_checks
from tfseg_ops.ops.mean_field_step import step
from tfseg_ops.ops.permutohedral_lattice import permutohedral_lattice
from tfseg_ops.pure_tf.mean_field_step import of_features, update
from tfseg_ops.pure_tf.permutohedral_lattice import Lattice


def dense_crf(
    logits: Any,
    image: Any,
    num_iterations: int = 5,
    spatial_sdev: Any = 3.0,
    bilateral_spatial_sdev: Any = 80.0,
    bilateral_color_sdev: Any = 13.0,
    spatial_weight: Any = 3.0,
    bilateral_weight: Any = 10.0,
    compatibility: Any = None,
    normalization: str | Sequence[str] = "symmetric",
    method: str = "lattice",
    extra_lattices: Sequence[Lattice] = (),
    extra_weights: Sequence[Any] = (),
) -> tf.Tensor:
    """Refines a map of class logits so that pixels alike in place and colour agree.

    Mean-field inference in a CRF that connects each pixel with each other. From `q =
    softmax(logits)`, each iteration is an `ops.mean_field_step` with the logits as unary and, for
    pixels i and j at p in pixels with colours I in [0, 255], the kernels

        spatial    exp(-|p_i - p_j|^2 / (2 spatial_sdev^2))
        bilateral  exp(-|p_i - p_j|^2 / (2 bilateral_spatial_sdev^2)
                       - |I_i - I_j|^2 / (2 bilateral_color_sdev^2))

    and those of `extra_lattices`. See there for weights, compatibility and normalization.

    The result are the logits of the last iteration: log marginals up to a number per pixel, so that
    it drops in before a loss or an argmax; its softmax are the marginals. No iterations return the
    logits as they came.

    There are gradients to `logits`, weights, `compatibility`, standard deviations and `image`, to
    those of them that are asked for. With method "exact" all are exact. With "lattice" the filters
    are approximate (so are label maps: some 90 to 99 % of the pixels are those of "exact"), and the
    gradients to image and standard deviations are those of the Gaussian kernel with the lattice's
    filters in it. Where kernels weigh little (0.5) or iterations are few (2), they differed from
    the exact ones on photographs of 24 to 48 pixels a side by 12 to 43 % in the norm for the image;
    with the default weights and 5 iterations by as much as their own size, and those of standard
    deviations, where sums over pixels cancel, even in sign. All other gradients are those of what
    is computed. Compare the two methods under a normalization, not under "none": the lattice's
    kernels have another height.

    Memory, beyond the arguments: lattices of d dimensions take about `24 d + 24` bytes a pixel (72
    for the spatial kernel, 144 for the bilateral one) and `8 d + 8` a vertex; GPUs set aside room
    for `d + 1` vertices a pixel, `8 (d + 1)^2` bytes. Forward there are besides probabilities
    before and after a step and its messages on the vertices: a photograph of 375x500 and 21 classes
    takes 4 times its logits. For gradients one `[batch, ..., classes]` tensor is kept for each
    iteration and filters are computed again: 9 times the logits and once more for each iteration.
    Inside `tfseg_ops.portable()` each message is kept too. Method "exact" takes time that grows
    with the square of the number of pixels, in blocks of 16 MiB: it is for small images.

    Args:
        logits: `[batch, height, width, classes]`, float16, bfloat16, float32 or float64; half
            precision is computed in float32. Without an image `[batch, ..., classes]` with at least
            three dimensions: volumes, point sets.
        image: `[batch, height, width, channels]` in [0, 255], 1 to 6 channels, any numeric dtype;
            computed in float32 (in float64 with float64 logits by "exact"). None: only the extra
            kernels.
        num_iterations: an int.
        spatial_sdev: pixels, a positive number or tensor, or `(y, x)`.
        bilateral_spatial_sdev: likewise.
        bilateral_color_sdev: in units of the image, a number or one for each channel.
        spatial_weight: scalar, `[classes]` or `[classes, classes]`, floating. The Python number 0
            leaves the kernel out.
        bilateral_weight: likewise.
        compatibility: `[classes, classes]`; None: Potts, 1 - identity.
        normalization: "symmetric", "before", "after" or "none", or a list with one for each kernel
            that is not left out: spatial, bilateral, extra ones.
        method: "lattice", linear in the number of pixels, or "exact".
        extra_lattices: more kernels, from features `[batch, points, d]` of one's own (depth, flow,
            positions in a volume), points in the order of the pixels. "exact" takes their features.
        extra_weights: the weight of each.

    Returns:
        Logits, of the shape and dtype of `logits`.

    Raises:
        TypeError: a dtype is none of the above.
        ValueError, tf.errors.InvalidArgumentError: shapes do not fit, an argument has no such
            value, or (at run time) a standard deviation is so small that a feature exceeds 100000.

    Example:
        >>> refined = dense_crf(logits, image, num_iterations=10)
        >>> labels = tf.argmax(refined, -1)

    References:
        Krähenbühl & Koltun 2011, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
        Potentials", equation 3 and algorithm 1.
        Zheng et al. 2015, "Conditional Random Fields as Recurrent Neural Networks".
    """
    args = _crf_checks.dense_crf(
        logits, image, num_iterations, method, extra_lattices, extra_weights
    )
    dtype = _crf_checks.wide(args.logits.dtype)
    unary = _crf_checks.flat(tf.cast(args.logits, dtype))
    features: list[tf.Tensor] = []
    weights: dict[str, Any] = {}
    if args.image is not None:
        own_dtype = dtype if args.exact else tf.float32
        own = tf.cast(args.image, own_dtype)
        if not _left_out(spatial_weight):
            features.append(_positions(own, "spatial_sdev", spatial_sdev))
            weights["spatial_weight"] = spatial_weight
        if not _left_out(bilateral_weight):
            features.append(
                _positions_and_colors(own, bilateral_spatial_sdev, bilateral_color_sdev)
            )
            weights["bilateral_weight"] = bilateral_weight
    for k, weight in enumerate(args.extra_weights):
        weights[f"extra_weights[{k}]"] = weight
    mixing = _crf_checks.mixing("dense_crf", weights, compatibility, unary)
    names = _crf_checks.normalizations("dense_crf", normalization, len(weights))
    sizes = dict(zip(("batch", "points"), unary.shape[:2], strict=True))
    extra = [
        _crf_checks.lattice("dense_crf", f"extra_lattices[{k}]", lattice, sizes)
        for k, lattice in enumerate(args.extra_lattices)
    ]
    if args.num_iterations == 0:
        return tf.identity(args.logits)

    # From here on all has been checked, so the steps are taken without.
    if args.exact:
        kernels = [of_features(one) for one in features]
        kernels += [of_features(tf.cast(members[0], dtype)) for members in extra]
    else:
        lattices = [list(permutohedral_lattice(one)) for one in features] + extra
    if args.exact:
        q = tf.nn.softmax(unary)
    else:  # a step without messages is a softmax, the same everywhere and faster than stock's
        q = step(_crf_checks.Step(unary, unary, mixing[:0], [], [], unary.shape))
    for iteration in range(args.num_iterations):
        last = iteration == args.num_iterations - 1
        if args.exact:
            q = update(q, unary, mixing, kernels, names, last)
        else:
            q = step(_crf_checks.Step(q, unary, mixing, names, lattices, unary.shape), last)
    result = _crf_checks.unflat(q, args.logits, args.logits.shape)
    return tf.cast(result, args.logits.dtype)


def _left_out(weight: Any) -> bool:
    return isinstance(weight, (int, float)) and weight == 0


def _positions(image: tf.Tensor, argument: str, sdev: Any) -> tf.Tensor:
    """Returns x and y of each pixel over their standard deviations, `[batch, height * width, 2]`.

    x comes first, as in Krähenbühl & Koltun's code: the lattice's axes are not alike.
    """
    sdevs = _crf_checks.sdev("dense_crf", argument, sdev, 2, image.dtype)
    sdevs *= tf.ones([2], image.dtype)
    batch, height, width = tf.unstack(tf.shape(image)[:3], num=3)
    y, x = (
        tf.cast(tf.range(size), image.dtype) / sdevs[axis]
        for axis, size in enumerate((height, width))
    )
    grid = tf.reshape(tf.stack(tf.meshgrid(x, y), -1), tf.stack([1, height * width, 2]))
    result = tf.tile(grid, tf.stack([batch, 1, 1]))
    known = image.shape.with_rank(4)
    result.set_shape([known[0], known[1:3].num_elements(), 2])
    return result


def _positions_and_colors(image: tf.Tensor, spatial_sdev: Any, color_sdev: Any) -> tf.Tensor:
    channels = image.shape.with_rank(4)[3]
    checked = _crf_checks.sdev(
        "dense_crf", "bilateral_color_sdev", color_sdev, channels, image.dtype
    )
    positions = _positions(image, "bilateral_spatial_sdev", spatial_sdev)
    return tf.concat([positions, _crf_checks.flat(image / checked)], -1)
