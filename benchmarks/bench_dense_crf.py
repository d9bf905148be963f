"""Times the whole dense CRF, lattices included, beside pydensecrf and stock TensorFlow."""

import functools
import importlib.util
import sys

import numpy as np
import tensorflow as tf

from benchmarks.bound import bound_cases
from benchmarks.case import FORWARD, Benchmark, Case, CaseKey, Goal, Outputs, Run, Traffic
from benchmarks.crf_inputs import (
    BILATERAL_SDEVS,
    SPATIAL_SDEV,
    photograph,
    rough_logits,
    size_of,
)
from benchmarks.harness import compiled
from tfseg_ops import ops, portable

_REFINE, _TRAIN, _GROWTH = "dense_crf", "dense_crf, training", "dense_crf, growth"
_TEN = "10 iterations"
_ALONE, _GRADIENTS = "5 iterations, forward", "5 iterations, forward+backward"
_SPATIAL_WEIGHT, _BILATERAL_WEIGHT = 3.0, 10.0
_PIXELS = (128, 256, 512, 1024)
_CLASSES = (2, 21, 60, 150)
_FEW_CLASSES_SIZE = 256
_HAS_PEER = importlib.util.find_spec("pydensecrf") is not None  # extra `peers`


def cases(smoke: bool, threads: int, device: str) -> list[Case]:
    """The refinement of a photograph, a step of training, and growth with pixels and classes."""
    size = size_of(smoke)
    paths = [("native", "graph"), ("native", "xla"), ("postprocess", "numpy"), ("pure_tf", "graph")]
    if _HAS_PEER:
        paths.append(("pydensecrf", "numpy"))
    traffic = _traffic(size)
    result = [
        Case(
            _key(_REFINE, _TEN, path, mode),
            functools.partial(_refine, size, 10, path, mode),
            traffic,
            tolerance=1e-3,
        )
        for path, mode in paths
    ]
    result += bound_cases(_key(_REFINE, _TEN, "native", "graph"), traffic, threads, device)
    for variant in (_ALONE, _GRADIENTS):
        for mode in ("graph", "xla"):
            setup = functools.partial(_train, size, variant, mode)
            result.append(Case(_key(_TRAIN, variant, "native", mode), setup, traffic, _ALONE))
    for side in _PIXELS:
        result.append(_growth((side, side, 21), smoke))
    for classes in _CLASSES:
        result.append(_growth((_FEW_CLASSES_SIZE, _FEW_CLASSES_SIZE, classes), smoke))
    return list({case.key: case for case in result}.values())


def _growth(size: tuple[int, int, int], smoke: bool) -> Case:
    height, width, classes = size
    variant = f"{height}x{width}, {classes} classes, 5 iterations"
    # Named after the real size in a smoke run too, which has but to run.
    own = (height // 64, width // 64, classes) if smoke else size
    setup = functools.partial(_refine, own, 5, "native", "graph")
    first = f"{_PIXELS[0]}x{_PIXELS[0]}, 21 classes, 5 iterations"
    return Case(_key(_GROWTH, variant, "native", "graph"), setup, _traffic(own), first)


def _refine(size: tuple[int, int, int], iterations: int, path: str, mode: str) -> Run:
    image, logits = photograph(*size[:2]), rough_logits(*size)
    if mode == "numpy":
        return functools.partial(_by_pydensecrf_names, image, logits, iterations, path)

    def run(logits: tf.Tensor, image: tf.Tensor) -> Outputs:
        marginals = tf.nn.softmax(ops.dense_crf(logits, image, iterations))
        return {f"marginals {size}": tf.reshape(marginals, [-1, size[2]])}

    inputs = (tf.constant(logits), tf.constant(image[None]))
    if path == "native":
        return compiled(run, inputs, mode)
    with portable():
        return compiled(run, inputs, mode)


def _by_pydensecrf_names(
    image: np.ndarray, logits: np.ndarray, iterations: int, path: str
) -> Outputs:
    if path == "pydensecrf":
        from pydensecrf import densecrf as module
    else:
        from tfseg_ops import postprocess as module
    height, width, classes = logits.shape[1:]
    crf = module.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(-logits.reshape(-1, classes).T))
    crf.addPairwiseGaussian(sxy=SPATIAL_SDEV, compat=_SPATIAL_WEIGHT)
    sdev, color_sdev = BILATERAL_SDEVS
    crf.addPairwiseBilateral(sxy=sdev, srgb=color_sdev, rgbim=image, compat=_BILATERAL_WEIGHT)
    marginals = np.array(crf.inference(iterations)).T
    return {f"marginals {(height, width, classes)}": marginals}


def _train(size: tuple[int, int, int], variant: str, mode: str) -> Run:
    image, logits = photograph(*size[:2]), rough_logits(*size)
    inputs = (
        tf.constant(logits),
        tf.constant(image[None]),
        tf.constant(_SPATIAL_WEIGHT),
        tf.constant(_BILATERAL_WEIGHT),
        1 - tf.eye(size[2]),
    )

    def forward(*inputs: tf.Tensor) -> Outputs:
        logits, image, spatial, bilateral, compatibility = inputs
        refined = ops.dense_crf(
            logits,
            image,
            spatial_weight=spatial,
            bilateral_weight=bilateral,
            compatibility=compatibility,
        )
        return {"refined": refined}

    def forward_backward(*inputs: tf.Tensor) -> Outputs:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            refined = forward(*inputs)["refined"]
        wanted = [inputs[0], *inputs[2:]]
        names = ("logits", "spatial weight", "bilateral weight", "compatibility")
        gradients = tape.gradient(refined, wanted, output_gradients=inputs[0])
        return {"refined": refined} | dict(zip(names, gradients, strict=True))

    return compiled(forward if variant == _ALONE else forward_backward, inputs, mode)


def _traffic(size: tuple[int, int, int]) -> Traffic:
    height, width, classes = size
    logits = 4 * height * width * classes
    return Traffic(read=logits + 3 * height * width, written=logits)


def _key(op: str, variant: str, path: str, mode: str) -> CaseKey:
    return CaseKey(op, FORWARD, "float32", variant, path, mode)


def _sizes(smoke: bool) -> str:
    height, width, classes = size_of(smoke)
    return f"a photograph of {height}x{width}, {classes} classes, kernels 3 and 80/13"


_PEER = _key(_REFINE, _TEN, "pydensecrf", "numpy")
_NATIVE = _key(_REFINE, _TEN, "native", "graph")
_TRAINED = _key(_TRAIN, _GRADIENTS, "native", "graph")

_PEER_GOALS = (
    Goal("10 iterations: native over pydensecrf", _PEER, _NATIVE, 4),
    Goal(
        "10 iterations: postprocess over pydensecrf",
        _PEER,
        _NATIVE._replace(path="postprocess", mode="numpy"),
        4,
    ),
)

BENCHMARK = Benchmark(
    name="dense_crf",
    sizes=_sizes,
    cases=cases,
    goals=(
        *(_PEER_GOALS if _HAS_PEER else ()),
        Goal(
            "5 iterations: forward over forward+backward (1/4)",
            _TRAINED._replace(variant=_ALONE),
            _TRAINED,
            0.25,
        ),
    ),
)

if __name__ == "__main__":
    from benchmarks.command_line import main

    raise SystemExit(main(["dense_crf", *sys.argv[1:]]))
