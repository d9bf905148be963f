"""Feature maps projected back to pixels, after Zeiler & Fergus."""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfseg_ops import _checks
from tfseg_ops.visualize import _layers

_OP = "deconvnet"


class FeatureProjections(NamedTuple):
    """What excites a feature map most, strongest first; k images."""

    projections: np.ndarray
    """`[k, height, width, channels]`, floating: each chosen activation, taken back to pixels."""
    projection_patches: list[np.ndarray]
    """The projections inside the boxes, k arrays of the boxes' sizes."""
    image_patches: list[np.ndarray]
    """The images inside the boxes, in their own dtype."""
    boxes: np.ndarray
    """int64 `[k, 4]`: `[y1, x1, y2, x2]` in pixels, the end excluded: all that the unit sees."""
    indices: np.ndarray
    """int64 `[k]`: which images."""
    positions: np.ndarray
    """int64 `[k, 2]`: row and column of the chosen unit in the feature map."""
    activations: np.ndarray
    """`[k]`, float32 (float64 of a float64 model), falling."""


def deconvnet(
    model: keras.Model,
    images: Any,
    layer: str | keras.layers.Layer,
    feature_map: int,
    top_k: int = 9,
    *,
    rectify: str = "relu",
    batch_size: int = 32,
    verbose: int = 0,
) -> FeatureProjections:
    """Shows what in a set of images excites a feature map most, and which pixels are to blame.

    In the output of `layer`, each image has one strongest unit of `feature_map`, the first in
    row-major order where several are equal. The `top_k` images with the strongest are chosen, the
    earlier image of two equals. For each, all of the layer's output but that unit is set to
    zero, and taken back to the pixels layer by layer:

    - a max-pooling is undone through its switches, `ops.max_unpool` with the positions of the
      maxima in this image; where windows overlap and share a maximum, their values are summed;
    - a ReLU becomes a ReLU of the signal, with `rectify="relu"`;
    - a convolution becomes the convolution with the transposed filters; its bias is left out.

    So a projection is in units of the activation times those of the model's weights, may have
    either sign, and differs from the gradient times the activation only at the ReLUs, which
    let the gradient through where the *forward* value was positive. In a model without ReLUs, or
    with none on the way, they are equal.

    Beyond the paper, other layers go back as their gradient does: average-pooling, zero-padding and
    cropping transposed; batch normalisation (as at inference), `Rescaling` and `Normalization`
    multiply by their scale, and what they add is left out; `Add` passes the signal to all branches
    and `Concatenate` of channels to each its own, and where branches part the signals are summed.
    Dropout, noise, `Identity` and the random layers that turn, move, zoom or warp images or change
    their brightness, contrast, colours or sharpness do nothing. Convolutions may be depthwise or
    separable, with strides, dilations and groups; activations are linear, relu or relu6, of Keras
    or of TensorFlow; models inside the model are looked into. Of bare operations on Keras tensors
    there may be those that `keras.applications.*.preprocess_input` consists of: `+` and `-`, `*`
    and `/` by numbers, `x[..., channels]` and `keras.ops.stack` of channels.

    Refused, by name: transposed convolutions, upsampling and unpooling, global pooling and dense
    layers, other activations (also LeakyReLU), other normalisations, `RandomCrop`, other operations
    such as `keras.ops.relu(x)`, and custom layers.

    A unit's box comes from kernel sizes, strides and paddings, and is clipped to the image; it
    has no pixels if the unit sees nothing but zero-padding. A map that is zero everywhere gives
    projections of zeros; if its largest value is negative (a layer without ReLU), that is what
    is projected. Passes over the images once in batches, then over the chosen ones. Images that
    numpy maps into memory (`numpy.load(..., mmap_mode="r")`) stay on the disk.

    Args:
        model: a functional or built sequential model with one input, channels last.
        images: `[count, height, width, channels]`, what the model takes, finite.
        layer: the layer or its name, also of one inside a nested model; its output must be
            `[batch, height, width, channels]`.
        feature_map: the channel of that output, from 0.
        top_k: how many images; all of them where there are fewer.
        rectify: "relu" as in the paper, or "none": ReLUs pass the signal unchanged.
        batch_size: images that are computed at a time.
        verbose: 1 shows a progress bar.

    Returns:
        A `FeatureProjections`: projections, projection_patches, image_patches, boxes, indices,
        positions, activations.

    Raises:
        ValueError: an argument is none of the above, an image or an activation is not finite, or a
            layer before `layer` is of another kind; the message names it.

    Example:
        >>> shown = deconvnet(model, images, "block3_conv3", feature_map=7)
        >>> plt.imshow(shown.image_patches[0])

    References:
        Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 2.1
        and figure 2.
        Simonyan, Vedaldi & Zisserman 2014, "Deep Inside Convolutional Networks", section 4: how it
        relates to the gradient.
    """
    top_k = _checks.integer(_OP, "top_k", top_k, 1)
    batch_size = _checks.integer(_OP, "batch_size", batch_size, 1)
    rectified = _checks.choice(_OP, "rectify", rectify, ("relu", "none")) == "relu"
    _checks.choice(_OP, "verbose", verbose, (0, 1))
    steps = _layers.steps_to(model, layer)
    shape = steps[-1].shape
    channels = shape[3] if len(shape) == 4 else None
    if channels is None:
        rule = "give [batch, height, width, channels]"
        _checks.refuse(_OP, "layer", rule, _checks.describe(shape))
    feature_map = _checks.integer(_OP, "feature_map", feature_map, 0, channels - 1)
    images = np.asarray(images)
    wanted = tf.TensorShape([None, *model.inputs[0].shape[1:]])
    if not (len(images) and wanted.is_compatible_with(images.shape)):
        rule = f"be some images of shape {_checks.describe(wanted)}"
        _checks.refuse(_OP, "images", rule, _checks.describe(images.shape))
    dtype = "float64" if model.inputs[0].dtype == "float64" else "float32"

    peaks, places = _peaks(steps, images, feature_map, batch_size, dtype, verbose)
    indices = np.argsort(-peaks, kind="stable")[:top_k]
    parts = []
    for chosen in np.split(indices, range(batch_size, len(indices), batch_size)):
        values = _layers.forward(steps, tf.constant(images[chosen], dtype))
        height_width = values[-1].shape[1:3]
        positions = np.stack(np.unravel_index(places[chosen], height_width), axis=1)
        units = np.insert(positions, 0, np.arange(len(chosen)), axis=1)  # [k, 3]
        units = np.insert(units, 3, feature_map, axis=1)
        signal = tf.scatter_nd(units, tf.constant(peaks[chosen]), values[-1].shape)
        signal = tf.cast(signal, values[-1].dtype)
        projections = _layers.backward(steps, values, signal, rectified).numpy()
        parts.append((projections, positions, _layers.boxes_of(steps, values, positions)))
    projections, positions, boxes = (np.concatenate(part) for part in zip(*parts, strict=True))
    return FeatureProjections(
        projections,
        [_crop(projection, box) for projection, box in zip(projections, boxes, strict=True)],
        [_crop(images[index], box) for index, box in zip(indices, boxes, strict=True)],
        boxes,
        indices,
        positions,
        peaks[indices],
    )


def _peaks(
    steps: list[_layers.Step],
    images: np.ndarray,
    feature_map: int,
    batch_size: int,
    dtype: str,
    verbose: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the largest value of a feature map for each image, and where it stands in the map."""

    # As a graph, which frees values when they are no longer needed.
    @tf.function(reduce_retracing=True)
    def peaks_of(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values = _layers.forward(steps, batch)[-1][..., feature_map]
        flat = tf.cast(tf.reshape(values, [tf.shape(batch)[0], -1]), dtype)
        return tf.reduce_max(flat, axis=1), tf.argmax(flat, axis=1)

    bar = keras.utils.Progbar(len(images), verbose=verbose)
    peaks, places = np.zeros(len(images), dtype), np.zeros(len(images), np.int64)
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        batch = np.asarray(images[part], dtype)
        _require_finite("images", batch, start)
        peaks[part], places[part] = (tensor.numpy() for tensor in peaks_of(batch))
        _require_finite("images", peaks[part], start)
        bar.update(start + len(batch))
    return peaks, places


def _require_finite(argument: str, values: np.ndarray, start: int) -> None:
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        rule = "be finite and give finite activations"
        _checks.refuse(_OP, argument, rule, f"others at image {start + np.argmin(finite)}")


def _crop(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    return image[box[0] : box[2], box[1] : box[3]]
