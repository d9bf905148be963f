"""The layer of `ops.dense_crf`."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfseg_ops import _checks, _crf_checks, ops
from tfseg_ops.layers.mean_field_step import (
    add_weight,
    compatibility_matrix,
    constant,
    kernel_weight,
    number,
    numbers,
    require_classes,
    square,
    wide,
)

_SDEVS = ("spatial_sdev", "bilateral_spatial_sdev", "bilateral_color_sdev")


@keras.saving.register_keras_serializable(package="tfseg_ops")
class DenseCRF(keras.layers.Layer):
    """Refines a network's class logits by the places and colours of the image's pixels.

    See `ops.dense_crf`. The last layer of a network that is trained through it (CRF-as-RNN), or
    with nothing learned a fixed refinement. The image and all weights are never cast to half
    precision, the output is.

    Bandwidths that are learned are kept as their logarithms, so they stay positive; see there how
    far their gradients are from exact ones. A weight of 0 leaves its kernel out, unless weights are
    learned.

    Args:
        num_iterations: in training.
        num_inference_iterations: at inference; None: as many.
        spatial_sdev: initial, in pixels, a number or `(y, x)`.
        bilateral_spatial_sdev: likewise.
        bilateral_color_sdev: initial, in units of the image, a number or one for each channel.
        spatial_weight: initial, a number.
        bilateral_weight: likewise.
        compatibility: `[classes, classes]`, what class m near costs class l; None: Potts,
            1 - identity.
        normalization: "symmetric", "before", "after" or "none", or a list with one for each kernel.
        method: "lattice" or, for small images, "exact".
        learn_weights: whether the two weights are trained.
        per_class_weights: whether each class has weights of its own.
        learn_compatibility: whether `compatibility` is trained.
        learn_bandwidths: whether the three standard deviations are trained.

    Call arguments:
        inputs: `[logits, image]`: logits `[batch, height, width, classes]`, floating; image
            `[batch, height, width, channels]` in [0, 255], any numeric dtype. Sizes may be unknown,
            classes and channels not.
        training: which number of iterations.

    Returns:
        Logits, `[batch, height, width, classes]`.

    Raises:
        ValueError: another number of inputs, an unknown number of classes, or shapes that do not
            fit.

    Example:
        >>> refined = DenseCRF()([logits, image])
    """

    def __init__(
        self,
        num_iterations: int = 5,
        num_inference_iterations: int | None = 10,
        spatial_sdev: float | Sequence[float] = 3.0,
        bilateral_spatial_sdev: float | Sequence[float] = 80.0,
        bilateral_color_sdev: float | Sequence[float] = 13.0,
        spatial_weight: float = 3.0,
        bilateral_weight: float = 10.0,
        compatibility: Any = None,
        normalization: str | Sequence[str] = "symmetric",
        method: str = "lattice",
        learn_weights: bool = True,
        per_class_weights: bool = False,
        learn_compatibility: bool = False,
        learn_bandwidths: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        name = type(self).__name__
        if num_inference_iterations is None:
            num_inference_iterations = num_iterations
        self.num_iterations = _checks.integer(name, "num_iterations", num_iterations, 0, 2**31 - 1)
        self.num_inference_iterations = _checks.integer(
            name, "num_inference_iterations", num_inference_iterations, 0, 2**31 - 1
        )
        self.spatial_sdev = _sdev(self, "spatial_sdev", spatial_sdev)
        self.bilateral_spatial_sdev = _sdev(self, "bilateral_spatial_sdev", bilateral_spatial_sdev)
        self.bilateral_color_sdev = _sdev(self, "bilateral_color_sdev", bilateral_color_sdev)
        self.spatial_weight = number(self, "spatial_weight", spatial_weight)
        self.bilateral_weight = number(self, "bilateral_weight", bilateral_weight)
        self.compatibility = square(self, compatibility)
        self.learn_weights = bool(learn_weights)
        self.per_class_weights = bool(per_class_weights)
        self.learn_compatibility = bool(learn_compatibility)
        self.learn_bandwidths = bool(learn_bandwidths)
        weights = [self.spatial_weight, self.bilateral_weight]
        count = sum(self.learn_weights or weight != 0 for weight in weights)
        _crf_checks.normalizations(name, normalization, count)
        self.normalization = normalization
        self.method = _crf_checks.method(name, method)

    def build(self, input_shape: Sequence[Any]) -> None:
        classes = require_classes(self, _require_inputs(input_shape)[0])
        self._kernel_weights = {
            name: kernel_weight(self, name, getattr(self, name), classes)
            for name in ("spatial_weight", "bilateral_weight")
        }
        self._matrix = compatibility_matrix(self, classes)
        self._log_sdevs = {}
        if self.learn_bandwidths:
            for name in _SDEVS:
                start = getattr(self, name)
                shape = (len(start),) if isinstance(start, list) else ()
                self._log_sdevs[name] = add_weight(
                    self, f"log_{name}", shape, constant(np.log(start))
                )

    def call(self, inputs: Sequence[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        logits, image = _require_inputs(inputs)
        refined = ops.dense_crf(
            tf.cast(logits, wide(self, logits)),
            image,
            self.num_iterations if training else self.num_inference_iterations,
            **{name: self._sdev(name) for name in _SDEVS},
            **self._kernel_weights,
            compatibility=self._matrix,
            normalization=self.normalization,
            method=self.method,
        )
        return tf.cast(refined, self.compute_dtype)

    def _sdev(self, name: str) -> Any:
        if name in self._log_sdevs:
            return tf.exp(tf.convert_to_tensor(self._log_sdevs[name]))
        return getattr(self, name)

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[int | None, ...]:
        return tuple(_require_inputs(input_shape)[0])

    def compute_output_spec(
        self, inputs: Sequence[keras.KerasTensor], training: bool | None = None
    ) -> keras.KerasTensor:
        # From the op itself, so that what it would refuse is refused when the model is built.
        return keras.Operation.compute_output_spec(self, inputs, training=training)

    def get_config(self) -> dict[str, Any]:
        names = (
            "num_iterations",
            "num_inference_iterations",
            *_SDEVS,
            "spatial_weight",
            "bilateral_weight",
            "compatibility",
            "normalization",
            "method",
            "learn_weights",
            "per_class_weights",
            "learn_compatibility",
            "learn_bandwidths",
        )
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _require_inputs(inputs: Any) -> Sequence[Any]:
    if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
        count = len(inputs) if isinstance(inputs, (list, tuple)) else f"a {type(inputs).__name__}"
        raise ValueError(f"DenseCRF: 'inputs' must be [logits, image], got {count}")
    return inputs


def _sdev(layer: keras.layers.Layer, argument: str, value: Any) -> Any:
    """Returns a positive float, or a list of them."""
    for one in value if isinstance(value, (list, tuple)) else [value]:
        _checks.positive(type(layer).__name__, argument, one)
    return numbers(layer, argument, value)
