"""What `deconvnet` knows of layers: their order, how they run backwards, and what they look at."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfseg_ops import _checks, ops
from tfseg_ops.layers import MaxPoolingWithArgmax2D

_OP = "deconvnet"
_MAX_POOLS = (keras.layers.MaxPooling2D, MaxPoolingWithArgmax2D)
_POOLS = (*_MAX_POOLS, keras.layers.AveragePooling2D)
_CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)
_ACTIVATIONS = (keras.layers.Activation, keras.layers.ReLU)
_LINEAR = keras.activations.linear
_RELUS = (
    keras.activations.relu,
    keras.activations.relu6,
    keras.ops.relu,
    keras.ops.relu6,
    tf.nn.relu,
    tf.nn.relu6,
)
# Linear, but for what they add to each element whatever the image.
_AFFINE = (
    *_CONVOLUTIONS,
    keras.layers.AveragePooling2D,
    keras.layers.ZeroPadding2D,
    keras.layers.Cropping2D,
    keras.layers.BatchNormalization,
    keras.layers.Normalization,
    keras.layers.Rescaling,
    keras.layers.Add,
    keras.layers.Concatenate,
    # The others give what they get, as at inference.
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
    keras.layers.GaussianNoise,
    keras.layers.RandomBrightness,
    keras.layers.RandomColorJitter,
    keras.layers.RandomContrast,
    keras.layers.RandomFlip,
    keras.layers.RandomHue,
    keras.layers.RandomPerspective,
    keras.layers.RandomRotation,
    keras.layers.RandomSaturation,
    keras.layers.RandomSharpness,
    keras.layers.RandomShear,
    keras.layers.RandomTranslation,
    keras.layers.RandomZoom,
)


class Step(NamedTuple):
    """A layer in the order in which a model computes; value 0 is the image, step k makes k + 1."""

    layer: Any  # or an operation of `keras.ops`, which has a name too
    inputs: tuple[int, ...]  # the values it reads
    shape: tuple[int | None, ...]  # of its output
    output: int  # which, of a layer that has several
    arguments: tuple[Any, Any]  # positional and named ones: Keras tensors and others


class _Scope(NamedTuple):
    """What is known of a model, or of one call of a model inside it."""

    values: dict[int, int]  # numbers of values by the ids of Keras tensors
    inside: dict[int, "_Scope"]  # by the ids of the nodes that call a model


def steps_to(model: Any, layer: Any) -> list[Step]:
    """Returns what a model computes until a layer, that layer last; models inside it unfolded."""
    graph = isinstance(model, keras.Model) and all(hasattr(model, n) for n in ("inputs", "outputs"))
    if not graph or len(model.inputs) != 1:
        rule = "be a functional or built sequential Keras model with one input"
        _checks.refuse(_OP, "model", rule, type(model).__name__)
    steps: list[Step] = []
    scope = _Scope({id(model.inputs[0]): 0}, {})
    for output in model.outputs:
        _unfold(output, scope, steps)
    first = [(k, step.layer) for k, step in enumerate(steps) if step.output == 0]
    found = [k for k, one in first if layer in (one, one.name)]
    if len(found) != 1:
        rule = "be a layer, or the name of a layer, that the model has and uses once"
        name = getattr(layer, "name", layer)
        _checks.refuse(_OP, "layer", rule, f"{name}, used {len(found)} times")

    needed = {found[0] + 1}
    for k in range(found[0], -1, -1):
        if k + 1 in needed:
            needed.update(steps[k].inputs)
    renumbered = {old: new for new, old in enumerate(sorted(needed | {0}))}
    chain = [
        step._replace(inputs=tuple(renumbered[value] for value in step.inputs))
        for k, step in enumerate(steps)
        if k + 1 in needed
    ]
    for step in reversed(chain):
        _require_supported(step)
    return chain


def _unfold(tensor: Any, scope: _Scope, steps: list[Step]) -> int:
    """Appends what a tensor of a Keras graph is computed from; returns the number of its value."""
    if id(tensor) in scope.values:
        return scope.values[id(tensor)]
    operation, node_index, tensor_index = tensor._keras_history
    node = operation._inbound_nodes[node_index]
    inputs = []
    # No comprehension: it would double the depth of the recursion, which grows with the model's.
    for source in node.input_tensors:
        inputs.append(_unfold(source, scope, steps))
    if isinstance(operation, keras.Model) and hasattr(operation, "outputs"):
        given = {id(t): value for t, value in zip(operation.inputs, inputs, strict=True)}
        inside = scope.inside.setdefault(id(node), _Scope(given, {}))
        value = _unfold(operation.outputs[tensor_index], inside, steps)
    else:
        arguments = node.arguments.args, node.arguments.kwargs
        steps.append(Step(operation, tuple(inputs), tensor.shape, tensor_index, arguments))
        value = len(steps)
    scope.values[id(tensor)] = value
    return value


def _require_supported(step: Step) -> None:
    """Refuses a layer that does not run backwards, by name."""
    layer, reason = step.layer, ""
    if step.output != 0:
        reason = "gives positions"
    elif not isinstance(layer, keras.Layer):
        reason = "" if _is_pixelwise(step) else "is no arithmetic that is affine in each pixel"
    elif not isinstance(layer, (*_POOLS, *_ACTIVATIONS, *_AFFINE)):
        reason = "is of another kind"
    elif getattr(layer, "data_format", "channels_last") != "channels_last":
        reason = "has channels first"
    elif isinstance(layer, keras.layers.ReLU) and (layer.negative_slope or layer.threshold):
        reason = "has a slope or a threshold"
    elif _activation(layer) not in (_LINEAR, *_RELUS):
        reason = "has another activation than linear, relu and relu6"
    elif isinstance(layer, keras.layers.Concatenate) and layer.axis not in (-1, 3):
        reason = "joins other things than channels"
    if reason:
        rule = "have nothing but layers that run backwards before 'layer' (see the documentation)"
        _checks.refuse(_OP, "model", rule, f"{type(layer).__name__} '{layer.name}', which {reason}")


def _is_pixelwise(step: Step) -> bool:
    """Whether an operation is affine and looks at one pixel: what `preprocess_input` is made of."""
    operation, leaves = step.layer, keras.tree.flatten(step.arguments)
    tensors = [leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)]
    if any(len(t.shape) < 3 or t.shape[:3] != step.shape[:3] for t in tensors):
        return False
    kind = type(operation).__name__
    if kind == "GetItem":  # x[..., channel] or x[..., channels]
        key = leaves[1:]
        channels = len(key) == 2 and key[0] is Ellipsis and isinstance(key[1], (int, slice))
        return channels and len(tensors[0].shape) == 4
    if kind == "Stack":
        return operation.axis in (-1, 3)
    if any(len(t.shape) != len(step.shape) for t in tensors):
        return False
    # Not 1 / x, and not x * x.
    scaled = len(tensors) == 1 and (kind == "Multiply" or leaves[0] is tensors[0])
    return kind in ("Add", "Subtract") or (kind in ("Multiply", "Divide", "TrueDivide") and scaled)


def _activation(layer: Any) -> Any:
    return getattr(layer, "activation", _LINEAR)


def forward(steps: Sequence[Step], images: tf.Tensor) -> list[tf.Tensor]:
    """Returns the images and the output of each step."""
    values = [images]
    for step in steps:
        values.append(_run(step, [values[value] for value in step.inputs]))
    return values


def _run(step: Step, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the output of a layer, as at inference."""
    if isinstance(step.layer, keras.Layer):
        output = step.layer(inputs[0] if len(inputs) == 1 else inputs, training=False)
        # A pool with argmax has two outputs.
        return output[0] if isinstance(output, (list, tuple)) else output
    given = iter(inputs)
    args, options = keras.tree.map_structure(
        lambda leaf: next(given) if isinstance(leaf, keras.KerasTensor) else leaf, step.arguments
    )
    return step.layer(*args, **options)


def backward(
    steps: Sequence[Step], values: Sequence[tf.Tensor], signal: tf.Tensor, rectify: bool
) -> tf.Tensor:
    """Takes a signal from the last value back to the images; where branches meet it is summed."""
    signals = {len(steps): signal}
    for k in range(len(steps), 0, -1):
        step = steps[k - 1]
        inputs = [values[value] for value in step.inputs]
        parts = _transpose(step, inputs, signals.pop(k), rectify)
        for value, part in zip(step.inputs, parts, strict=True):
            # Under mixed precision, branches that meet may have taken it back in other dtypes.
            part = tf.cast(part, values[value].dtype)
            signals[value] = signals[value] + part if value in signals else part
    return signals[0]


def _transpose(
    step: Step, inputs: list[tf.Tensor], signal: tf.Tensor, rectify: bool
) -> list[tf.Tensor]:
    """Takes a signal from the output of a layer to its inputs."""
    layer = step.layer
    if isinstance(layer, _MAX_POOLS):
        pooled = tf.cast(inputs[0], layer.compute_dtype)
        _, switches = ops.max_pool_with_argmax(
            pooled, layer.pool_size, layer.strides, layer.padding
        )
        return [ops.max_unpool(signal, switches, tf.shape(pooled)[1:3])]
    rectified = isinstance(layer, keras.layers.ReLU) or _activation(layer) is not _LINEAR
    if rectify and rectified:
        signal = tf.nn.relu(signal)
    if isinstance(layer, _ACTIVATIONS):
        return [signal]

    # The transpose of an affine layer is its vector-Jacobian product, wherever it is taken. For a
    # convolution that is the one with the transposed filters. Copies, since Add may get a tensor
    # twice.
    copies = [tf.identity(tensor) for tensor in inputs]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(copies)
        # The layer itself would apply its activation.
        convolves = isinstance(layer, _CONVOLUTIONS)
        outputs = _convolve(layer, copies[0]) if convolves else _run(step, copies)
    return tape.gradient(outputs, copies, tf.cast(signal, outputs.dtype))


def _convolve(layer: Any, inputs: tf.Tensor) -> tf.Tensor:
    """Returns the output of a convolution before its bias and its activation."""
    separable = isinstance(layer, keras.layers.SeparableConv2D)
    names = ("depthwise_kernel", "pointwise_kernel") if separable else ("kernel",)
    kernels = [tf.convert_to_tensor(getattr(layer, name)) for name in names]
    inputs = tf.cast(inputs, kernels[0].dtype)
    if isinstance(layer, keras.layers.Conv2D):
        return layer.convolution_op(inputs, *kernels)
    convolve = keras.ops.separable_conv if separable else keras.ops.depthwise_conv
    options = {"padding": layer.padding, "data_format": layer.data_format}
    return convolve(
        inputs, *kernels, strides=layer.strides, dilation_rate=layer.dilation_rate, **options
    )


def boxes_of(
    steps: Sequence[Step], values: Sequence[tf.Tensor], positions: np.ndarray
) -> np.ndarray:
    """Returns what pixels the units at `positions [k, 2]` of the last value see, `[k, 4]`.

    Clipped to each map on the way, since padding sees nothing.
    """
    boxes = {len(steps): np.stack([positions, positions + 1], axis=1)}  # [k, 2, 2]
    for k in range(len(steps), 0, -1):
        step, box = steps[k - 1], boxes.pop(k)
        for value in step.inputs:
            seen = _inputs_of(step.layer, box, np.array(values[value].shape[1:3]))
            if value in boxes:
                low = np.minimum(seen[:, 0], boxes[value][:, 0])
                high = np.maximum(seen[:, 1], boxes[value][:, 1])
                seen = np.stack([low, high], axis=1)
            boxes[value] = seen
    return boxes[0].reshape(-1, 4)


def _inputs_of(layer: Any, box: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Returns the elements of an input of `size` that a layer's output reads inside a box."""
    window, strides, padding = np.array([1, 1]), np.array([1, 1]), np.array([0, 0])
    if isinstance(layer, (*_CONVOLUTIONS, *_POOLS)):
        window = np.array(getattr(layer, "kernel_size", None) or layer.pool_size)
        window = (window - 1) * getattr(layer, "dilation_rate", 1) + 1
        strides = np.array(layer.strides)
        if layer.padding == "same":
            padding = np.maximum((-(-size // strides) - 1) * strides + window - size, 0) // 2
    elif isinstance(layer, keras.layers.ZeroPadding2D):
        padding = np.array(layer.padding)[:, 0]
    elif isinstance(layer, keras.layers.Cropping2D):
        padding = -np.array(layer.cropping)[:, 0]
    low = box[:, 0] * strides - padding
    high = (box[:, 1] - 1) * strides - padding + window
    high = np.where(box[:, 0] < box[:, 1], high, low)  # nothing but padding, seen by nobody
    return np.clip(np.stack([low, high], axis=1), 0, size)
