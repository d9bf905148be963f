"""Bad input to the ops of the dense CRF: the same words on every path."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.messages import words_of
from helpers.runners import RUNNERS, TF_ERRORS

from tfseg_ops import ops

PATHS = [path for path in RUNNERS if "unknown" not in path]
ZEROS = np.zeros((2, 4, 3), np.float32)


def spoilt(value: float) -> np.ndarray:
    points = ZEROS.copy()
    points[1, 2, 0] = points[1, 3, 1] = value
    return points


POINTS: dict[str, tuple[np.ndarray, str]] = {
    "rank": (ZEROS[0], "'features' must have shape [batch, points, dimensions], got [4, 3]"),
    "none": (ZEROS[..., :0], "'features' must have 1 to 8 dimensions, got 0"),
    "many": (np.zeros((2, 4, 9)), "'features' must have 1 to 8 dimensions, got 9"),
    "integers": (
        ZEROS.astype(np.int32),
        "'features' must be float16, bfloat16, float32 or float64, got int32",
    ),
    "nan": (spoilt(np.nan), "'features' must lie in [-100000, 100000], got nan at [1, 2, 0]"),
    "infinite": (
        spoilt(-np.inf),
        "'features' must lie in [-100000, 100000], got -inf at [1, 2, 0]",
    ),
    "huge": (spoilt(2e5), "'features' must lie in [-100000, 100000], got 200000 at [1, 2, 0]"),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", POINTS)
def test_wrong_features_are_named(case: str, path: str) -> None:
    points, words = POINTS[case]
    with pytest.raises(TF_ERRORS) as caught:
        RUNNERS[path](lambda f: list(ops.permutohedral_lattice(f)), [points])
    assert words_of(caught.value) == f"permutohedral_lattice: {words}"


def lattice(**changes: Any) -> ops.Lattice:
    return ops.permutohedral_lattice(ZEROS)._replace(**changes)


FILTERS: dict[str, tuple[Any, Any, str]] = {
    "rank": (
        ZEROS[0],
        lattice,
        "'values' must have shape [batch, points, channels], got [4, 3]",
    ),
    "integers": (
        ZEROS.astype(int),
        lattice,
        "'values' must be float16, bfloat16, float32 or float64, got int64",
    ),
    "points": (
        ZEROS[:, :3],
        lattice,
        "'lattice.features' must have shape [batch=2, points=3, dimensions], got [2, 4, 3]",
    ),
    "features": (ZEROS, lambda: ZEROS, "'lattice' must be a Lattice, got ndarray"),
    "members": (ZEROS, lambda: lattice()[:5], "'lattice' must be a Lattice, got 5 members"),
    "dtype": (
        ZEROS,
        lambda: lattice(vertices=np.zeros((2, 4, 4))),
        "'lattice.vertices' must be int32, got float64",
    ),
    "corners": (
        ZEROS,
        lambda: lattice(weights=np.zeros((2, 4, 5), np.float32)),
        "'lattice.weights' must have shape [batch=2, points=4, corners=4], got [2, 4, 5]",
    ),
    "splats": (
        ZEROS,
        lambda: lattice(splat_points=np.zeros((2, 15), np.int32)),
        "'lattice.splat_points' must have shape [batch=2, points * corners=16], got [2, 15]",
    ),
    "neighbours": (
        ZEROS,
        lambda: lattice(neighbours=np.zeros((2, 5, 16, 2), np.int32)),
        "'lattice.neighbours' must have shape [batch=2, corners=4, bound, 2], got [2, 5, 16, 2]",
    ),
    "offsets": (
        ZEROS,
        lambda: lattice(splat_offsets=np.zeros((2, 16), np.int32)),
        "'lattice.splat_offsets' must have shape [batch=2, bound + 1=17], got [2, 16]",
    ),
}


@pytest.mark.parametrize("path", ["eager", "graph", "portable"])
@pytest.mark.parametrize("case", FILTERS)
def test_wrong_values_and_lattices_are_named(case: str, path: str) -> None:
    values, make, words = FILTERS[case]
    with pytest.raises(TF_ERRORS) as caught:
        RUNNERS[path](lambda v: ops.gaussian_filter(v, make()), [values])
    assert words_of(caught.value) == f"gaussian_filter: {words}"


STEPS: dict[str, tuple[dict[str, Any], str]] = {
    "rank": ({"q": ZEROS[0]}, "'q' must have shape [batch, ..., classes], got [4, 3]"),
    "classes": (
        {"q": ZEROS[..., :0]},
        "'q' must have at least one class, got [2, 4, 0]",
    ),
    "unary": ({"unary": ZEROS[:1]}, "'unary' must have shape [2, 4, 3], got [1, 4, 3]"),
    "dtypes": ({"unary": ZEROS.astype(float)}, "'unary' must be float32, got float64"),
    "no list": ({"lattices": 7}, "'lattices' must be a Lattice or a list of them, got int"),
    "points": (
        {"q": ZEROS[:, :3], "unary": ZEROS[:, :3]},
        "'lattices[0].features' must have shape [batch=2, points=3, dimensions], got [2, 4, 3]",
    ),
    "too few weights": (
        {"kernel_weights": []},
        "'kernel_weights' must have one for each of 1 lattices, got 0",
    ),
    "too many weights": (
        {"kernel_weights": tf.constant([1.0, 2.0])},
        "'kernel_weights' must have one for each of 1 lattices, got 2",
    ),
    "weights": (
        {"kernel_weights": [[1.0, 2.0]]},
        "'kernel_weights[0]' must have shape [], [classes=3] or [classes=3, classes=3], got [2]",
    ),
    "integer weights": (
        {"kernel_weights": [np.array(1)]},
        "'kernel_weights[0]' must be float16, bfloat16, float32 or float64, got int64",
    ),
    "compatibility": (
        {"compatibility": np.zeros((2, 2))},
        "'compatibility' must have shape [3, 3], got [2, 2]",
    ),
    "normalization": (
        {"normalization": "both"},
        "'normalization' must be symmetric, before, after or none, got both",
    ),
    "normalizations": (
        {"normalization": ["none", "none"]},
        "'normalization' must have one name for each of 1 kernels, got 2",
    ),
}


@pytest.mark.parametrize("path", ["eager", "graph", "portable"])
@pytest.mark.parametrize("case", STEPS)
def test_wrong_arguments_of_a_step_are_named(case: str, path: str) -> None:
    changes, words = STEPS[case]
    arguments = {"q": ZEROS, "unary": ZEROS, "kernel_weights": [1.0], **changes}

    def run(q: tf.Tensor, unary: tf.Tensor) -> tf.Tensor:
        lattices = arguments.get("lattices") or [lattice()]
        others = {
            name: arguments[name]
            for name in ("kernel_weights", "compatibility", "normalization")
            if name in arguments
        }
        return ops.mean_field_step(q, unary, lattices, **others)

    with pytest.raises(TF_ERRORS) as caught:
        RUNNERS[path](run, [arguments["q"], arguments["unary"]])
    assert words_of(caught.value) == f"mean_field_step: {words}"


LOGITS, IMAGE = np.zeros((2, 4, 5, 3), np.float32), np.zeros((2, 4, 5, 3), np.uint8)
CRFS: dict[str, tuple[dict[str, Any], str]] = {
    "rank": (
        {"logits": LOGITS[0]},
        "'logits' must have shape [batch, height, width, classes], got [4, 5, 3]",
    ),
    "integers": (
        {"logits": IMAGE},
        "'logits' must be float16, bfloat16, float32 or float64, got uint8",
    ),
    "image": (
        {"image": IMAGE[:, :3]},
        "'image' must have shape [batch=2, height=4, width=5, channels], got [2, 3, 5, 3]",
    ),
    "channels": (
        {"image": np.zeros((2, 4, 5, 7))},
        "'image' must have 1 to 6 channels, got [2, 4, 5, 7]",
    ),
    "text": ({"image": np.zeros((2, 4, 5, 3), bool)}, "'image' must be numbers, got bool"),
    "iterations": (
        {"num_iterations": -1},
        "'num_iterations' must lie in [0, 2147483647], got -1",
    ),
    "fraction": ({"num_iterations": 2.5}, "'num_iterations' must lie in [0, 2147483647], got 2.5"),
    "method": ({"method": "fast"}, "'method' must be lattice or exact, got fast"),
    "sdev": ({"spatial_sdev": 0}, "'spatial_sdev' must be positive and finite, got 0"),
    "sdevs": (
        {"bilateral_spatial_sdev": [1.0, -2.0]},
        "'bilateral_spatial_sdev' must be positive and finite, got -2.0",
    ),
    "many sdevs": (
        {"bilateral_color_sdev": [1.0, 2.0]},
        "'bilateral_color_sdev' must be a number or 3 numbers, got [2]",
    ),
    "weight": (
        {"spatial_weight": [1.0, 2.0]},
        "'spatial_weight' must have shape [], [classes=3] or [classes=3, classes=3], got [2]",
    ),
    "compatibility": (
        {"compatibility": [[1.0]]},
        "'compatibility' must have shape [3, 3], got [1, 1]",
    ),
    "normalization": (
        {"normalization": ["none"]},
        "'normalization' must have one name for each of 2 kernels, got 1",
    ),
    "a lattice alone": (
        {"extra_lattices": "lattice", "extra_weights": [1.0]},
        "'extra_lattices' must be a list of lattices, got Lattice",
    ),
    "extra weights": (
        {"extra_weights": [1.0]},
        "'extra_weights' must have one for each of 0 extra lattices, got 1",
    ),
    "extra points": (
        {"extra_lattices": ["lattice"], "extra_weights": [1.0]},
        "'extra_lattices[0].features' must have shape [batch=2, points=20, dimensions], "
        "got [2, 4, 3]",
    ),
}


@pytest.mark.parametrize("path", ["eager", "graph", "portable"])
@pytest.mark.parametrize("case", CRFS)
def test_wrong_arguments_of_a_crf_are_named(case: str, path: str) -> None:
    changes, words = CRFS[case]
    arguments = {"logits": LOGITS, "image": IMAGE, **changes}

    def run(logits: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        others = {k: v for k, v in arguments.items() if k not in ("logits", "image")}
        extra = others.get("extra_lattices")
        if extra is not None:
            others["extra_lattices"] = lattice() if extra == "lattice" else [lattice()]
        return ops.dense_crf(logits, image, **others)

    with pytest.raises(TF_ERRORS) as caught:
        RUNNERS[path](run, [arguments["logits"], arguments["image"]])
    assert words_of(caught.value) == f"dense_crf: {words}"


@pytest.mark.parametrize("path", ["eager", "graph", "portable"])
def test_standard_deviation_that_is_too_small_is_an_error_of_the_lattice(path: str) -> None:
    image = np.full(IMAGE.shape, 255, np.uint8)
    with pytest.raises(TF_ERRORS, match=r"must lie in \[-100000, 100000\]"):
        RUNNERS[path](lambda x, i: ops.dense_crf(x, i, bilateral_color_sdev=1e-5), [LOGITS, image])
