"""The layer of `ops.roi_align`."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfseg_ops import _checks, ops


@keras.saving.register_keras_serializable(package="tfseg_ops")
class ROIAlign(keras.layers.Layer):
    """Resamples boxes of each image's feature map to `output_size` bins.

    See `ops.roi_align`. Features are cast to the layer's compute dtype, boxes never: half precision
    cannot hold image coordinates.

    Args:
        output_size: bins, an int or `[height, width]`.
        spatial_scale: pixels of the feature map per pixel of the image.
        sampling_ratio: points per bin along each axis; 0 takes `ceil(bin size)`.
        aligned: whether pixel centres lie at halves.

    Call arguments:
        inputs: `[features, boxes]` or `[features, boxes, valid]`: features `[batch, height, width,
            channels]`, floating; boxes `[batch, boxes, 4]`, `[y1, x1, y2, x2]` in image pixels,
            float32 or float64; valid `[batch, boxes]`, bool: others give zeros and no gradient.

    Returns:
        `[batch, boxes, output height, output width, channels]`.

    Raises:
        ValueError: another number of inputs, or shapes that do not fit.
        TypeError: boxes in half precision or integers, `valid` not bool.

    Example:
        >>> crops = ROIAlign(7, spatial_scale=1 / 16)([features, boxes])
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float = 1.0,
        sampling_ratio: int = 0,
        aligned: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        name = type(self).__name__
        self.output_size = _checks.pair(name, "output_size", output_size)
        (self.spatial_scale,) = _checks.scales(name, "spatial_scale", [spatial_scale])
        self.sampling_ratio = _checks.integer(
            name, "sampling_ratio", sampling_ratio, 0, _checks.MOST_POINTS
        )
        self.aligned = bool(aligned)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        features, boxes, *valid = require_inputs(self, inputs)
        flat, box_indices = flat_boxes(self, [features], boxes, *valid)
        crops = ops.roi_align(
            tf.cast(features, self.compute_dtype),
            flat,
            box_indices,
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
        )
        return crops_by_image(crops, boxes)

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[int | None, ...]:
        features, boxes, *_ = require_inputs(self, input_shape)
        return (*boxes[:2], *self.output_size, features[3])

    def compute_output_spec(self, inputs: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        # From the op itself, so that what it would refuse is refused when the model is built.
        return keras.Operation.compute_output_spec(self, inputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "output_size": self.output_size,
            "spatial_scale": self.spatial_scale,
            "sampling_ratio": self.sampling_ratio,
            "aligned": self.aligned,
        }


def require_inputs(layer: keras.layers.Layer, inputs: Any) -> Sequence[Any]:
    """Returns features, boxes and, where it is given, valid."""
    if not isinstance(inputs, (list, tuple)) or len(inputs) not in (2, 3):
        count = len(inputs) if isinstance(inputs, (list, tuple)) else f"a {type(inputs).__name__}"
        raise ValueError(
            f"{type(layer).__name__}: 'inputs' must be [features, boxes] or "
            f"[features, boxes, valid], got {count}"
        )
    return inputs


def flat_boxes(
    layer: keras.layers.Layer,
    features: Sequence[tf.Tensor],
    boxes: tf.Tensor,
    valid: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the boxes of all images in one row, and the image of each, -1 where not valid."""
    name = type(layer).__name__
    sizes: dict[str, int | None] = {}
    for index, level in enumerate(features):
        argument = "features" if len(features) == 1 else f"features[{index}]"
        sizes.update(height=None, width=None)
        _checks.require_shape(name, argument, level, sizes, "batch height width channels")
    _checks.require_shape(name, "boxes", boxes, sizes, "batch num_boxes 4")
    batch, count = tf.unstack(tf.shape(boxes)[:2])
    tf.debugging.assert_equal(
        batch,
        tf.shape(features[0])[0],
        f"{name}: 'boxes' must have the batch of 'features', got batches of",
    )
    images = tf.repeat(tf.range(batch), count)
    if valid is not None:
        _checks.require_dtype(name, "valid", valid.dtype, [tf.bool])
        _checks.require_shape(name, "valid", valid, sizes, "batch num_boxes")
        images = tf.where(tf.reshape(valid, [-1]), images, -1)
    return tf.reshape(boxes, [-1, 4]), images


def crops_by_image(crops: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Returns the crops of the boxes of `flat_boxes` in the boxes' order, image by image."""
    dynamic = tf.shape(boxes)
    leading = [dynamic[n] if size is None else size for n, size in enumerate(boxes.shape[:2])]
    channels = tf.shape(crops)[3] if crops.shape[3] is None else crops.shape[3]
    return tf.reshape(crops, [*leading, *crops.shape[1:3], channels])
