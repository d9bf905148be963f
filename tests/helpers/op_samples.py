"""The same calls of all ops, for comparing processes, threads and callers bit by bit."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from helpers.core_samples import (
    DICE,
    POOLINGS,
    ROIS,
    SHAPE,
    STEPS,
    crf_case,
    dice_case,
    roi_case,
)
from helpers.drawing import values
from helpers.tolerances import FLOAT_DTYPES, name_of


def op_results(pooling: str, dtype: Any, jit_compile: bool | None = None) -> list[np.ndarray]:
    """Pools, unpools into sums of many values, and the gradients of both, as bits."""
    import tensorflow as tf

    from tfseg_ops import ops

    generator = np.random.default_rng(0)
    image = values(generator, SHAPE, dtype, "any values")

    def run(image: tf.Tensor, anywhere: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(image)
            output, argmax = ops.max_pool_with_argmax(image, *POOLINGS[pooling])
            restored = ops.max_unpool(output, argmax, tf.shape(image)[1:3])
            summed = ops.max_unpool(output, anywhere, [4, 5])
        gradient = tape.gradient([restored, summed], image)
        return [output, argmax, restored, summed, gradient]

    shape = ops.max_pool_with_argmax(image, *POOLINGS[pooling])[0].shape
    anywhere = generator.integers(0, 4 * 5 * SHAPE[3], shape)
    results = tf.function(run, jit_compile=jit_compile)(image, anywhere)
    return [r.numpy().view(f"u{r.dtype.size}") for r in results]


def roi_op_results(rois: str, dtype: Any, jit_compile: bool | None = None) -> list[np.ndarray]:
    """Resamples boxes, and sums many values into both gradients, as bits."""
    import tensorflow as tf

    from tfseg_ops import ops

    case = roi_case(rois, dtype)

    def run(boxes: tf.Tensor, *maps: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([boxes, *maps])
            output = ops.multilevel_roi_align(maps, boxes, *case[2:])
        gradients = tape.gradient(output, [boxes, *maps], output_gradients=output)
        return [output, *gradients]

    results = tf.function(run, jit_compile=jit_compile)(case.boxes, *case.features)
    return [r.numpy().view(f"u{r.dtype.size}") for r in results]


def dice_op_results(kind: str, dtype: Any) -> list[np.ndarray]:
    """The sums of many pixels and their gradient, as bits."""
    import tensorflow as tf

    from tfseg_ops import ops

    case = dice_case(kind, dtype)

    @tf.function
    def run(logits: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            sums = ops.soft_dice_sums(logits, *case[1:-1])
        outputs = [sums.intersection, sums.prediction, sums.cross_entropy]
        return [*sums, tape.gradient(outputs, logits, output_gradients=list(case.upstream()))]

    return [r.numpy().view(f"u{r.dtype.size}") for r in run(tf.constant(case.logits))]


def crf_op_results(kind: str, dtype: Any) -> list[np.ndarray]:
    """A step on lattices and all its gradients, as bits."""
    import tensorflow as tf

    from tfseg_ops import ops

    features, (q, unary), mixing = crf_case(kind, dtype)

    @tf.function
    def run(*inputs: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            lattices = [ops.permutohedral_lattice(one) for one in inputs[3:]]
            output = ops.mean_field_step(inputs[0], inputs[1], lattices, inputs[2])
        return [output, *tape.gradient(output, inputs, output_gradients=inputs[0])]

    results = run(*map(tf.constant, (q, unary, mixing, *features)))
    return [r.numpy().view(f"u{r.dtype.size}") for r in results]


def all_op_results() -> Iterator[tuple[str, np.ndarray]]:
    """All poolings, kinds of RoI Align, kinds of sums and dtypes, with names."""
    for dtype in FLOAT_DTYPES:
        for kind in STEPS:
            for k, result in enumerate(crf_op_results(kind, dtype)):
                yield f"{name_of(dtype)} CRF, {kind} {k}", result
        for kind in DICE:
            for k, result in enumerate(dice_op_results(kind, dtype)):
                yield f"{name_of(dtype)} {kind} {k}", result
        for rois in ROIS:
            for k, result in enumerate(roi_op_results(rois, dtype)):
                yield f"{name_of(dtype)} {rois} {k}", result
        for pooling in POOLINGS:
            for k, result in enumerate(op_results(pooling, dtype)):
                yield f"{name_of(dtype)} {pooling} {k}", result
