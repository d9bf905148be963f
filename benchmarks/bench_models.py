"""Times a training step of DeconvNet and SegNet beside the same models with `pure_tf`'s ops."""

import contextlib
import functools
import itertools
import sys

import keras
import numpy as np
import tensorflow as tf

from benchmarks.case import FORWARD_BACKWARD, Benchmark, Case, CaseKey, Outputs, Run, Traffic
from benchmarks.harness import compiled
from tfseg_ops import models, portable

_MODELS = {"segnet": models.segnet, "deconvnet": models.deconvnet}
_PATHS = (("native", "graph"), ("native", "xla"), ("pure_tf", "graph"), ("pure_tf", "xla"))
_CLASSES = 21
_FULL = (1 / 4, 4, 128)  # width, images, pixels a side
_SMOKE = (1 / 64, 2, 16)


def cases(smoke: bool, threads: int, device: str) -> list[Case]:
    """Each model by each path."""
    del threads, device  # no bound: the convolutions compute, and more than they move
    result = []
    for name, (path, mode) in itertools.product(_MODELS, _PATHS):
        setup = functools.partial(_setup, name, smoke, path, mode)
        key = CaseKey(
            f"{name}, training step", FORWARD_BACKWARD, "float32", "int32 masks", path, mode
        )
        result.append(Case(key, setup, _traffic(name, smoke), tolerance=1e-3))
    return result


def _setup(name: str, smoke: bool, path: str, mode: str) -> Run:
    model, images, labels = _inputs(name, smoke)
    optimizer = keras.optimizers.SGD(1e-3)
    variables = model.trainable_variables
    optimizer.build(variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def step(images: tf.Tensor, labels: tf.Tensor) -> Outputs:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        optimizer.apply(gradients, variables)
        # XLA sums in another order, which so many normalised layers amplify to some percent of
        # this gradient. So only graphs are held against each other there.
        return {"loss": loss, f"gradient to the first kernel, {mode}": gradients[0]}

    with portable() if path == "pure_tf" else contextlib.nullcontext():
        return compiled(step, (images, labels), mode)


def _inputs(name: str, smoke: bool) -> tuple[keras.Model, tf.Tensor, tf.Tensor]:
    """A model of its own for each path, all with the same weights, and smooth images."""
    width, batch, size = _SMOKE if smoke else _FULL
    keras.utils.set_random_seed(0)
    model = _MODELS[name](_CLASSES, (size, size, 3), width)
    random = np.random.default_rng(0)
    coarse = random.uniform(size=[batch, 8, 8, 3]).astype(np.float32)
    images = tf.image.resize(coarse, [size, size])
    labels = tf.cast(tf.reduce_mean(images, -1) * _CLASSES, tf.int32)
    return model, images, labels


@functools.cache
def _traffic(name: str, smoke: bool) -> Traffic:
    """Images and parameters read, parameters written."""
    model, images, labels = _inputs(name, smoke)
    parameters = 4 * model.count_params()
    given = 4 * (int(tf.size(images)) + int(tf.size(labels)))
    return Traffic(read=given + parameters, written=parameters)


def _sizes(smoke: bool) -> str:
    width, batch, size = _SMOKE if smoke else _FULL
    return f"{batch} images of {size}x{size}, {_CLASSES} classes, {width} of the filters"


BENCHMARK = Benchmark(name="models", sizes=_sizes, cases=cases)

if __name__ == "__main__":
    from benchmarks.command_line import main

    raise SystemExit(main(["models", *sys.argv[1:]]))
