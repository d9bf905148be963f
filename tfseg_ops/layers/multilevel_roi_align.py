"""The layer of `ops.multilevel_roi_align`."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfseg_ops import _checks, ops
from tfseg_ops.layers.roi_align import crops_by_image, flat_boxes, require_inputs


@keras.saving.register_keras_serializable(package="tfseg_ops")
class MultilevelROIAlign(keras.layers.Layer):
    """Resamples boxes of each image's feature pyramid to `output_size` bins.

    See `ops.multilevel_roi_align`, and `ops.fpn_levels` for the level that a box is cut out of.
    Features are cast to the layer's compute dtype, boxes never: half precision cannot hold image
    coordinates.

    Args:
        output_size: bins, an int or `[height, width]`.
        spatial_scales: for each level, its pixels per pixel of the image, finest first: `[1 / 4,
            1 / 8, 1 / 16, 1 / 32]` for P2 to P5.
        sampling_ratio: points per bin along each axis; 0 takes `ceil(bin size)`.
        aligned: whether pixel centres lie at halves.
        finest_level: the number of the first level, 2 for P2.
        canonical_size: the size in image pixels of the boxes that belong to `canonical_level`.
        canonical_level: see there.

    Call arguments:
        inputs: `[features, boxes]` or `[features, boxes, valid]`: features a list of one map
            `[batch, height, width, channels]` for each level, floating; boxes `[batch, boxes, 4]`,
            `[y1, x1, y2, x2]` in image pixels, float32 or float64; valid `[batch, boxes]`, bool:
            others give zeros and no gradient.

    Returns:
        `[batch, boxes, output height, output width, channels]`.

    Raises:
        ValueError: another number of inputs or levels, or shapes that do not fit.
        TypeError: boxes in half precision or integers, `valid` not bool.

    Example:
        >>> align = MultilevelROIAlign(7, spatial_scales=[1 / 4, 1 / 8, 1 / 16, 1 / 32])
        >>> crops = align([[p2, p3, p4, p5], boxes])
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scales: Sequence[float],
        sampling_ratio: int = 0,
        aligned: bool = True,
        finest_level: int = 2,
        canonical_size: float = 224.0,
        canonical_level: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        name = type(self).__name__
        self.output_size = _checks.pair(name, "output_size", output_size)
        self.spatial_scales = _checks.scales(name, "spatial_scales", spatial_scales)
        self.sampling_ratio = _checks.integer(
            name, "sampling_ratio", sampling_ratio, 0, _checks.MOST_POINTS
        )
        self.aligned = bool(aligned)
        self.finest_level = _checks.integer(
            name, "finest_level", finest_level, 0, _checks.COARSEST_LEVEL
        )
        self.canonical_size = _checks.positive(name, "canonical_size", canonical_size)
        self.canonical_level = _checks.integer(
            name, "canonical_level", canonical_level, 0, _checks.COARSEST_LEVEL
        )

    def call(self, inputs: Sequence[Any]) -> tf.Tensor:
        features, boxes, *valid = require_inputs(self, inputs)
        self._require_levels(features)
        flat, box_indices = flat_boxes(self, features, boxes, *valid)
        levels = ops.fpn_levels(
            flat, len(features), self.finest_level, self.canonical_size, self.canonical_level
        )
        crops = ops.multilevel_roi_align(
            [tf.cast(level, self.compute_dtype) for level in features],
            flat,
            box_indices,
            levels,
            self.output_size,
            self.spatial_scales,
            self.sampling_ratio,
            self.aligned,
        )
        return crops_by_image(crops, boxes)

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[int | None, ...]:
        features, boxes, *_ = require_inputs(self, input_shape)
        self._require_levels(features)
        return (*boxes[:2], *self.output_size, features[0][3])

    def compute_output_spec(self, inputs: Sequence[Any]) -> keras.KerasTensor:
        # From the op itself, so that what it would refuse is refused when the model is built.
        return keras.Operation.compute_output_spec(self, inputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "output_size": self.output_size,
            "spatial_scales": self.spatial_scales,
            "sampling_ratio": self.sampling_ratio,
            "aligned": self.aligned,
            "finest_level": self.finest_level,
            "canonical_size": self.canonical_size,
            "canonical_level": self.canonical_level,
        }

    def _require_levels(self, features: Any) -> None:
        count = len(self.spatial_scales)
        if not isinstance(features, (list, tuple)) or len(features) != count:
            got = len(features) if isinstance(features, (list, tuple)) else type(features).__name__
            raise ValueError(
                f"{type(self).__name__}: 'features' must be a list of {count} maps, got {got}"
            )
