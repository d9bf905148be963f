"""RoI Align: boxes cut out of a feature map and resampled to one size."""

from typing import Any

import tensorflow as tf

from tfseg_ops import _checks, _gradients, _library, _portable, pure_tf

# What the op and its two gradients share.
_ATTRIBUTES = ("output_size", "spatial_scales", "sampling_ratio", "aligned")


def roi_align(
    features: Any,
    boxes: Any,
    box_indices: Any,
    output_size: Any,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> tf.Tensor:
    """Resamples each box of the feature maps to `output_size` bins.

    `output[k, p, q, c]` is the mean, over the sample points of bin (p, q) of box k, of the bilinear
    interpolation of channel c of `features[box_indices[k]]`. The points of a bin form a grid of
    `sampling_ratio` by `sampling_ratio`, at the centres of its cells. Points, weights and borders
    are those of Detectron2 and torchvision: a point outside `[-1, height]` by `[-1, width]` counts
    as zero, one beyond the centre of the first or last pixel reads that pixel.

    There are gradients of first and second order to `features` and to `boxes`. That to the boxes is
    the exact derivative of the bilinear weights, to the right where a point stands on a pixel's
    centre, and none where it is clamped or outside; the number of points counts as constant. The
    gradient to the features is the same, bit by bit, for any number of threads.

    Boxes that are not finite give zeros and no gradient. Zero-area and reversed boxes are sampled
    as torchvision does it: with `aligned=True` and `sampling_ratio=0` they have no point and give
    zeros. NaN and infinite features reach the bins whose points give weight to them, no others.

    Args:
        features: `[batch, height, width, channels]`, float16, bfloat16, float32 or float64. Sums
            are kept in float32 (float64 for float64).
        boxes: `[num_boxes, 4]`, each `[y1, x1, y2, x2]` in pixels of the image, float32 or float64.
            No half precision: bfloat16 turns 777.7 into 776.
        box_indices: `[num_boxes]`, int32 or int64: the image of each box; -1 gives zeros and no
            gradient.
        output_size: bins, an int or `[height, width]`.
        spatial_scale: pixels of the feature map per pixel of the image, 1/16 for a map of stride
            16, as a float32.
        sampling_ratio: points per bin along each axis, at most 2^20; 0 takes `ceil(bin size)`
            along each axis, per box. Points outside the map are not visited.
        aligned: whether pixel centres lie at halves, so that boxes are shifted by half a pixel. If
            not, their sides are at least one pixel of the map.

    Returns:
        `[num_boxes, output height, output width, channels]` with the dtype of `features`.

    Raises:
        TypeError: a dtype is none of the above.
        ValueError, tf.errors.InvalidArgumentError: shapes do not fit, a number is out of its range,
            or (at run time) a box index is neither -1 nor an image of the batch. On GPUs such a box
            gives zeros instead; so it does under XLA inside `tfseg_ops.portable()`.

    Example:
        >>> crops = roi_align(features, [[8.0, 8.0, 120.0, 90.0]], [0], 7, spatial_scale=1 / 4)

    References:
        He, Gkioxari, Dollar & Girshick 2017, "Mask R-CNN", section 3.
        Jaderberg et al. 2015, "Spatial Transformer Networks", equations 6 and 7.
    """
    args = _checks.roi_alignment(
        "roi_align",
        [features],
        boxes,
        box_indices,
        None,
        output_size,
        [spatial_scale],
        sampling_ratio,
    )
    if _portable.is_portable():
        return pure_tf.roi_align(
            args.features[0],
            args.boxes,
            args.box_indices,
            args.output_size,
            spatial_scale,
            sampling_ratio,
            aligned,
        )
    return align(args, tf.zeros_like(args.box_indices), aligned)


def align(args: _checks.RoiAlignment, levels: tf.Tensor, aligned: bool) -> tf.Tensor:
    """Calls the kernel, for one level or several."""
    return _library.load_ops().tfseg_roi_align(
        boxes=args.boxes,
        box_indices=args.box_indices,
        levels=levels,
        features=args.features,
        output_size=args.output_size,
        spatial_scales=args.spatial_scales,
        sampling_ratio=args.sampling_ratio,
        aligned=aligned,
    )


@tf.RegisterGradient("Tfseg>RoiAlign")
def _gradient(op: Any, grad: tf.Tensor) -> list[tf.Tensor | None]:
    boxes, box_indices, levels, *features = op.inputs
    shared = {name: op.get_attr(name) for name in _ATTRIBUTES}
    grad_boxes, grad_features = None, [None] * len(features)
    if _gradients.wanted(op, [0]):
        grad_boxes = _library.load_ops().tfseg_roi_align_boxes_grad(
            boxes=boxes,
            box_indices=box_indices,
            levels=levels,
            grad=grad,
            features=features,
            **shared,
        )
    if _gradients.wanted(op, range(3, 3 + len(features))):
        sizes = [tf.shape(features[0])[:1], *[tf.shape(level)[1:3] for level in features]]
        grad_features = _library.load_ops().tfseg_roi_align_features_grad(
            boxes=boxes,
            box_indices=box_indices,
            levels=levels,
            grad=grad,
            output_shape=tf.concat(sizes, 0),
            num_levels=len(features),
            **shared,
        )
    return [grad_boxes, None, None, *grad_features]


@tf.RegisterGradient("Tfseg>RoiAlignFeaturesGrad")
def _gradient_of_features_gradient(
    op: Any, *grads: tf.Tensor
) -> tuple[tf.Tensor | None, None, None, tf.Tensor | None, None]:
    # It is the adjoint of the alignment, <gradient(g), f> = <g, alignment(f)>: its derivative by g
    # is the alignment of what comes from above, that by the boxes is the alignment's.
    boxes, box_indices, levels, grad, _ = op.inputs
    shared = {name: op.get_attr(name) for name in _ATTRIBUTES}
    grad_boxes, grad_grad = None, None
    if _gradients.wanted(op, [0]):
        grad_boxes = _library.load_ops().tfseg_roi_align_boxes_grad(
            boxes=boxes, box_indices=box_indices, levels=levels, grad=grad, features=grads, **shared
        )
    if _gradients.wanted(op, [3]):
        grad_grad = _library.load_ops().tfseg_roi_align(
            boxes=boxes, box_indices=box_indices, levels=levels, features=grads, **shared
        )
    return grad_boxes, None, None, grad_grad, None


@tf.RegisterGradient("Tfseg>RoiAlignBoxesGrad")
def _gradient_of_boxes_gradient(op: Any, grad: tf.Tensor) -> list[tf.Tensor | None]:
    boxes, box_indices, levels, upstream, *features = op.inputs
    output_size, scales, ratio, aligned = (op.get_attr(name) for name in _ATTRIBUTES)
    inputs = [boxes, upstream, *features]
    # Rarely asked for, so stock TensorFlow computes it twice over.
    with tf.GradientTape() as outer:
        outer.watch(inputs)
        with tf.GradientTape() as inner:
            inner.watch(boxes)
            output = pure_tf.multilevel_roi_align(
                features, boxes, box_indices, levels, output_size, scales, ratio, aligned
            )
        first = inner.gradient(output, boxes, output_gradients=upstream)
    second = outer.gradient(first, inputs, output_gradients=grad, unconnected_gradients="zero")
    return [second[0], None, None, *second[1:]]
