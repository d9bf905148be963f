"""The layer of `ops.mean_field_step`."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfseg_ops import _crf_checks, ops


@keras.saving.register_keras_serializable(package="tfseg_ops")
class MeanFieldStep(keras.layers.Layer):
    """Updates class probabilities by messages over Gaussian kernels of any features, once.

    See `ops.mean_field_step`. Called again it has the same weights, as in CRF-as-RNN; each call
    builds the lattices of its features, so for many iterations over an image `DenseCRF` is faster.
    Weights, `unary` and features are never cast to half precision, the output is.

    Args:
        kernel_weights: the initial weight of each kernel, a number for all of them or a list.
        compatibility: `[classes, classes]`, what class m near costs class l; None: Potts,
            1 - identity.
        normalization: "symmetric", "before", "after" or "none", or a list with one for each kernel.
        learn_weights: whether `kernel_weights` are trained.
        per_class_weights: whether each class has weights of its own.
        learn_compatibility: whether `compatibility` is trained.

    Call arguments:
        inputs: `[q, unary, *features]`: q, probabilities, and unary, logits, `[batch, ...,
            classes]`, floating; for each kernel features `[batch, points, d]`, d from 1 to 8, in
            units of the standard deviation, points being all dimensions between the first and the
            last of `q`.

    Returns:
        Probabilities, `[batch, ..., classes]`.

    Raises:
        ValueError: no features, an unknown number of classes, or shapes that do not fit.

    Example:
        >>> q = MeanFieldStep(kernel_weights=[3.0, 10.0])([q, logits, places, colors])
    """

    def __init__(
        self,
        kernel_weights: float | Sequence[float] = 1.0,
        compatibility: Any = None,
        normalization: str | Sequence[str] = "symmetric",
        learn_weights: bool = True,
        per_class_weights: bool = False,
        learn_compatibility: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        self.kernel_weights = numbers(self, "kernel_weights", kernel_weights)
        self.compatibility = square(self, compatibility)
        self.normalization = normalization
        self.learn_weights = bool(learn_weights)
        self.per_class_weights = bool(per_class_weights)
        self.learn_compatibility = bool(learn_compatibility)

    def build(self, input_shape: Sequence[Any]) -> None:
        shapes = _require_inputs(input_shape)
        classes, count = require_classes(self, shapes[0]), len(shapes) - 2
        weights = self.kernel_weights
        if not isinstance(weights, list):
            weights = [weights] * count
        if len(weights) != count:
            raise ValueError(
                f"MeanFieldStep: 'inputs' must have features for each of {len(weights)} kernels, "
                f"got {count}"
            )
        _crf_checks.normalizations("MeanFieldStep", self.normalization, count)
        self._kernel_weights = [
            kernel_weight(self, f"kernel_weight_{k}", weight, classes)
            for k, weight in enumerate(weights)
        ]
        self._matrix = compatibility_matrix(self, classes)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        q, unary, *features = _require_inputs(inputs)
        dtype = wide(self, unary)
        output = ops.mean_field_step(
            tf.cast(q, dtype),
            tf.cast(unary, dtype),
            [ops.permutohedral_lattice(one) for one in features],
            self._kernel_weights,
            self._matrix,
            self.normalization,
        )
        return tf.cast(output, self.compute_dtype)

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[int | None, ...]:
        return tuple(_require_inputs(input_shape)[1])

    def compute_output_spec(self, inputs: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        # From the op itself, so that what it would refuse is refused when the model is built.
        return keras.Operation.compute_output_spec(self, inputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_weights": self.kernel_weights,
            "compatibility": self.compatibility,
            "normalization": self.normalization,
            "learn_weights": self.learn_weights,
            "per_class_weights": self.per_class_weights,
            "learn_compatibility": self.learn_compatibility,
        }


def _require_inputs(inputs: Any) -> Sequence[Any]:
    if not isinstance(inputs, (list, tuple)) or len(inputs) < 3:
        count = len(inputs) if isinstance(inputs, (list, tuple)) else f"a {type(inputs).__name__}"
        raise ValueError(
            f"MeanFieldStep: 'inputs' must be [q, unary, *features], one or more, got {count}"
        )
    return inputs


def require_classes(layer: keras.layers.Layer, shape: Any) -> int:
    """Returns the number of classes, which weights need to know."""
    if not isinstance(shape, (list, tuple)) or len(shape) < 3 or shape[-1] is None:
        raise ValueError(
            f"{type(layer).__name__}: 'inputs' must have a known number of classes, "
            f"[batch, ..., classes], got {shape}"
        )
    return int(shape[-1])


def number(layer: keras.layers.Layer, argument: str, value: Any) -> float:
    """Returns a finite float."""
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(
            f"{type(layer).__name__}: '{argument}' must be a finite number, got {value}"
        )
    return float(value)


def numbers(layer: keras.layers.Layer, argument: str, value: Any) -> Any:
    """Returns a finite float, or a list of them: what a config can hold."""
    if isinstance(value, (list, tuple)):
        return [number(layer, argument, one) for one in value]
    return number(layer, argument, value)


def square(layer: keras.layers.Layer, value: Any) -> list[list[float]] | None:
    """Returns a compatibility matrix as lists."""
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ValueError(
            f"{type(layer).__name__}: 'compatibility' must have shape [classes, classes], "
            f"got {list(array.shape)}"
        )
    matrix: list[list[float]] = array.astype(float).tolist()
    return matrix


def kernel_weight(layer: Any, name: str, value: float, classes: int) -> Any:
    """Returns a variable if weights are learned, else the number itself."""
    if not layer.learn_weights:
        return value
    shape = (classes,) if layer.per_class_weights else ()
    return add_weight(layer, name, shape, keras.initializers.Constant(value))


def compatibility_matrix(layer: Any, classes: int) -> Any:
    """Returns a variable if it is learned, else the matrix, None for Potts."""
    given = layer.compatibility
    if given is not None and len(given) != classes:
        raise ValueError(
            f"{type(layer).__name__}: 'compatibility' must have shape [{classes}, {classes}], "
            f"got [{len(given)}, {len(given)}]"
        )
    if not layer.learn_compatibility:
        return given
    start = 1 - np.eye(classes) if given is None else np.array(given)
    return add_weight(layer, "compatibility", (classes, classes), constant(start))


def add_weight(layer: Any, name: str, shape: tuple[int, ...], initializer: Any) -> Any:
    """Returns a variable that no policy makes half precision."""
    # The layer's own autocast=False is not enough: Keras opens a scope of its policy all the same.
    return layer.add_weight(
        shape=shape,
        initializer=initializer,
        dtype="float64" if layer.variable_dtype == "float64" else "float32",
        autocast=False,
        name=name,
    )


def constant(value: Any) -> Any:
    """Returns an initializer; Keras' own takes numbers only."""
    return lambda shape, dtype=None: keras.ops.convert_to_tensor(value, dtype)


def wide(layer: keras.layers.Layer, tensor: tf.Tensor) -> tf.DType:
    """Returns what to compute in: never half precision, whatever the policy."""
    either = tf.float64 in (tensor.dtype, tf.as_dtype(layer.compute_dtype))
    return tf.float64 if either else tf.float32
