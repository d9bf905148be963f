"""`ops.dense_crf`: against matrices, the exact method, pydensecrf; gradients, paths, sizes."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.crf_cases import (
    NORMALIZATIONS,
    compatibility_of,
    exact_matrices,
    filter_matrices,
    image_features,
    small_image,
    small_logits,
    softmax,
    step_of,
)
from helpers.gpu import EMULATED
from helpers.processes import run_python
from helpers.runners import RUNNERS
from helpers.tolerances import FLOAT_DTYPES, assert_close, assert_same, assert_same_bits, name_of
from reference.permutohedral_lattice import permutohedral_lattice

import tfseg_ops
from tfseg_ops import ops
from tfseg_ops.testing import check_gradients, check_paths

SDEVS = (2.0, 20.0, 30.0)
WEIGHTS = (1.5, 2.0)
NATIVE_AND_PORTABLE = ["eager", "portable"]


def marginals_of(
    logits: np.ndarray,
    matrices: list[np.ndarray],
    weights: Any,
    num_iterations: int,
    compatibility: Any = None,
    normalization: Any = "symmetric",
) -> np.ndarray:
    """Mean-field inference by products with the kernels' matrices."""
    unary = logits.reshape(logits.shape[0], -1, logits.shape[-1]).astype(np.float64)
    q = softmax(unary)
    for _ in range(num_iterations):
        q = step_of(q, unary, matrices, weights, compatibility, normalization)
    return q.reshape(logits.shape)


def exact_of(image: np.ndarray) -> list[np.ndarray]:
    return [exact_matrices(f) for f in image_features(image.astype(np.float64), *SDEVS)]


def lattices_of(image: np.ndarray) -> list[np.ndarray]:
    features = image_features(image.astype(np.float32), *map(np.float32, SDEVS))
    return [filter_matrices(permutohedral_lattice(f.astype(np.float32))) for f in features]


def crf(**keywords: Any) -> Any:
    """A function of logits and image."""
    named = dict(
        zip(("spatial_sdev", "bilateral_spatial_sdev", "bilateral_color_sdev"), SDEVS, strict=True)
    )
    named.update(zip(("spatial_weight", "bilateral_weight"), WEIGHTS, strict=True))
    return lambda logits, image: ops.dense_crf(logits, image, **{**named, **keywords})


@pytest.mark.parametrize("path", NATIVE_AND_PORTABLE)
@pytest.mark.parametrize("method", ["lattice", "exact"])
@pytest.mark.parametrize("normalization", [*NORMALIZATIONS, ["after", "before"]], ids=str)
def test_marginals_are_those_of_products_with_matrices(
    normalization: Any, method: str, path: str
) -> None:
    logits, image = small_logits(), small_image()
    run = crf(normalization=normalization, method=method, num_iterations=3)
    result = RUNNERS[path](run, [logits, image])
    matrices = exact_of(image) if method == "exact" else lattices_of(image)
    expected = marginals_of(logits, matrices, WEIGHTS, 3, None, normalization)
    assert result.dtype == np.float32
    np.testing.assert_allclose(softmax(result.numpy()), expected, 1e-4, 1e-4)


@pytest.mark.parametrize("path", NATIVE_AND_PORTABLE)
@pytest.mark.parametrize("method", ["lattice", "exact"])
def test_weights_per_class_and_matrices_are_used(method: str, path: str) -> None:
    logits, image = small_logits(), small_image()
    weights = [np.array([0.5, 1.0, 2.0]), compatibility_of(3)]
    run = crf(
        spatial_weight=weights[0],
        bilateral_weight=weights[1],
        compatibility=compatibility_of(3).T,
        method=method,
    )
    result = RUNNERS[path](run, [logits, image])
    matrices = exact_of(image) if method == "exact" else lattices_of(image)
    expected = marginals_of(logits, matrices, weights, 5, compatibility_of(3).T)
    np.testing.assert_allclose(softmax(result.numpy()), expected, 1e-4, 1e-4)


@pytest.mark.parametrize("path", [path for path in RUNNERS if "unknown" not in path])
def test_marginals_are_those_of_pydensecrf(path: str) -> None:
    """By the package `pydensecrf2`, with the defaults of its examples, which are ours."""
    densecrf = pytest.importorskip("pydensecrf.densecrf")
    logits, image = small_logits(), small_image()
    result = softmax(RUNNERS[path](ops.dense_crf, [logits, image]).numpy())
    for b in range(2):
        peer = densecrf.DenseCRF2D(9, 8, 3)
        peer.setUnaryEnergy(np.ascontiguousarray(-logits[b].reshape(-1, 3).T))
        peer.addPairwiseGaussian(sxy=3, compat=3)
        peer.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image[b].copy(), compat=10)
        marginals = np.array(peer.inference(5)).T.reshape(8, 9, 3)
        np.testing.assert_allclose(result[b], marginals, 1e-3, 1e-4)


@pytest.mark.parametrize("path", NATIVE_AND_PORTABLE)
def test_no_iterations_return_the_logits(path: str) -> None:
    logits = small_logits(np.float16)
    assert_same(RUNNERS[path](crf(num_iterations=0), [logits, small_image()]), logits)


@pytest.mark.parametrize("method", ["lattice", "exact"])
@pytest.mark.parametrize("path", NATIVE_AND_PORTABLE)
def test_weight_of_zero_leaves_its_kernel_out(path: str, method: str) -> None:
    """Its features may then be what they will."""
    logits, image = small_logits(), small_image(np.float32)
    for k, keywords in enumerate(
        [
            {"bilateral_weight": 0, "bilateral_color_sdev": 1e-30},
            {"spatial_weight": 0.0, "spatial_sdev": 1e-30},
        ]
    ):
        result = RUNNERS[path](crf(**keywords, method=method), [logits, image])
        kernel = (exact_of(image) if method == "exact" else lattices_of(image))[k]
        expected = marginals_of(logits, [kernel], WEIGHTS[k : k + 1], 5)
        np.testing.assert_allclose(softmax(result.numpy()), expected, 1e-4, 1e-4)


@pytest.mark.parametrize("path", NATIVE_AND_PORTABLE)
def test_standard_deviations_may_differ_by_axis_and_channel(path: str) -> None:
    """(y, x), and one for each channel: as another image of other colours."""
    logits, image = small_logits(), small_image(np.float32)
    keywords = {"bilateral_weight": 0, "spatial_sdev": (1.0, 4.0)}
    result = RUNNERS[path](crf(**keywords, method="exact"), [logits, image])
    y, x = np.mgrid[:8, :9].reshape(2, 1, -1)
    features = np.stack([y / 1.0, x / 4.0], -1)
    expected = marginals_of(logits, [exact_matrices(features)], WEIGHTS[:1], 5)
    np.testing.assert_allclose(softmax(result.numpy()), expected, 1e-4, 1e-4)

    scaled = image * np.array([1.0, 2.0, 0.5], np.float32)
    result = RUNNERS[path](crf(bilateral_color_sdev=[30, 60, 15]), [logits, scaled])
    assert_close(result, RUNNERS[path](crf(), [logits, image]))


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("path", NATIVE_AND_PORTABLE)
def test_image_may_have_other_channels(path: str, channels: int) -> None:
    logits = small_logits()
    image = np.concatenate([small_image(), small_image(height=8)[:, ::-1]], -1)[..., :channels]
    result = RUNNERS[path](crf(), [logits, image])
    expected = marginals_of(logits, lattices_of(image), WEIGHTS, 5)
    np.testing.assert_allclose(softmax(result.numpy()), expected, 1e-4, 1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float16, np.float32, np.float64])
def test_image_may_be_of_any_numeric_dtype(dtype: Any) -> None:
    image = small_image(np.uint8)
    result = crf()(small_logits(), image.astype(dtype))
    assert_close(result, crf()(small_logits(), image))


@pytest.mark.parametrize("path", NATIVE_AND_PORTABLE)
@pytest.mark.parametrize("method", ["lattice", "exact"])
def test_volumes_are_refined_by_kernels_of_ones_own(method: str, path: str) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(2, 3, 4, 2, 3)).astype(np.float32)
    points = np.stack(np.mgrid[:3, :4, :2], -1).reshape(1, -1, 3).repeat(2, 0) / 1.5
    depth = generator.normal(size=(2, 24, 1))
    features = [points, np.concatenate([points, depth], -1)]
    features = [f.astype(np.float32) for f in features]

    def run(logits: tf.Tensor, *features: tf.Tensor) -> tf.Tensor:
        lattices = [ops.permutohedral_lattice(f) for f in features]
        return ops.dense_crf(
            logits, None, method=method, extra_lattices=lattices, extra_weights=[1.0, 2]
        )

    result = RUNNERS[path](run, [logits, *features])
    if method == "exact":
        matrices = [exact_matrices(f) for f in features]
    else:
        matrices = [filter_matrices(permutohedral_lattice(f)) for f in features]
    expected = marginals_of(logits, matrices, [1, 2], 5)
    assert result.shape == logits.shape
    np.testing.assert_allclose(softmax(result.numpy()), expected, 1e-4, 1e-4)


@pytest.mark.parametrize("path", NATIVE_AND_PORTABLE)
def test_extra_kernels_join_those_of_the_image(path: str) -> None:
    logits, image = small_logits(), small_image(np.float32)
    extra = np.random.default_rng(0).normal(size=(2, 72, 2)).astype(np.float32)

    def run(logits: tf.Tensor, image: tf.Tensor, extra: tf.Tensor) -> tf.Tensor:
        lattice = ops.permutohedral_lattice(extra)
        names = ["symmetric", "after", "before"]
        return crf(extra_lattices=[lattice], extra_weights=[0.7], normalization=names)(
            logits, image
        )

    result = RUNNERS[path](run, [logits, image, extra])
    matrices = [*lattices_of(image), filter_matrices(permutohedral_lattice(extra))]
    names = ["symmetric", "after", "before"]
    expected = marginals_of(logits, matrices, [*WEIGHTS, 0.7], 5, None, names)
    np.testing.assert_allclose(softmax(result.numpy()), expected, 1e-4, 1e-4)


@pytest.mark.parametrize("path", NATIVE_AND_PORTABLE)
def test_logits_alone_come_back_where_there_is_no_kernel(path: str) -> None:
    logits = small_logits()
    result = RUNNERS[path](lambda x: ops.dense_crf(x, None), [logits])
    assert_close(result, logits)


@pytest.mark.parametrize("method", ["lattice", "exact"])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_half_precision_is_computed_in_float32(dtype: Any, method: str) -> None:
    logits, image = small_logits(dtype), small_image()
    result = crf(method=method)(logits, image)
    assert result.dtype == dtype
    wide = logits if dtype == np.float64 else logits.astype(np.float32)
    assert_same(result, crf(method=method)(wide, image).numpy().astype(dtype))


@pytest.mark.parametrize("path", NATIVE_AND_PORTABLE)
@pytest.mark.parametrize("method", ["lattice", "exact"])
def test_batch_is_its_single_images(method: str, path: str) -> None:
    logits, image = small_logits(batch=4), small_image(batch=4)
    together = RUNNERS[path](crf(method=method), [logits, image]).numpy()
    for b in range(4):
        alone = RUNNERS[path](crf(method=method), [logits[b : b + 1], image[b : b + 1]]).numpy()
        if method == "exact":
            assert_close(together[b : b + 1], alone)
        else:
            assert_same_bits(together[b : b + 1], alone)


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("method", ["lattice", "exact"])
def test_one_trace_serves_all_sizes(method: str, portable: bool) -> None:
    specs = [tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([None, None, None, 3], tf.uint8)]
    run = tf.function(crf(method=method, num_iterations=2), input_signature=specs)
    shapes = [(2, 8, 9), (1, 1, 1), (0, 4, 4), (2, 0, 3), (1, 5, 3)]
    if portable:
        with tfseg_ops.portable():
            run.get_concrete_function()
    for batch, height, width in shapes:
        logits = small_logits(batch=batch, height=height, width=width)
        image = small_image(batch=batch, height=height, width=width)
        expected = crf(method=method, num_iterations=2)(logits, image)
        np.testing.assert_allclose(run(logits, image), expected, 1e-4, 1e-4)


def test_static_shape_is_that_of_the_logits() -> None:
    for method in ("lattice", "exact"):
        trace = tf.function(crf(method=method, num_iterations=1)).get_concrete_function(
            tf.TensorSpec([None, 8, None, 3]), tf.TensorSpec([2, None, 9, 3])
        )
        assert trace.structured_outputs.shape.as_list() == [None, 8, None, 3]


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_all_paths_agree(dtype: Any) -> None:
    """Also in the gradients to logits, image, weights, standard deviations and compatibility."""
    tolerance = 1e-3 if np.dtype(dtype).itemsize > 2 else None

    def run(logits: Any, image: Any, matrix: Any, *numbers: Any) -> tf.Tensor:
        return ops.dense_crf(logits, image, 2, *numbers, compatibility=matrix)

    numbers = [np.float32(number) for number in (*SDEVS, *WEIGHTS)]
    matrix = compatibility_of(3).astype(np.float32)
    check_paths(
        run,
        [small_logits(dtype), small_image(np.float32), matrix, *numbers],
        rtol=tolerance,
        atol=tolerance,
    )


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_exact_gradients_are_those_of_central_differences(normalization: str) -> None:
    """To every input: logits, image, three standard deviations, two weights, compatibility."""
    logits = small_logits(np.float64, 1, 4, 5, 2)
    image = small_image(np.float64, 1, 4, 5)

    @tf.function
    def run(
        logits: Any, image: Any, s: Any, bs: Any, bc: Any, sw: Any, bw: Any, matrix: Any
    ) -> tf.Tensor:
        return ops.dense_crf(logits, image, 2, s, bs, bc, sw, bw, matrix, normalization, "exact")

    numbers = [np.float64(number) for number in (*SDEVS, 0.5, 0.3)]
    arrays = [logits, image, *numbers, compatibility_of(2)]
    check_gradients(run, arrays, rtol=1e-5, atol=1e-7, step=1e-4)


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_lattice_gradients_are_those_of_its_own_central_differences(
    normalization: str, portable: bool
) -> None:
    """To logits, weights and compatibility, by which what is computed is smooth."""
    logits = small_logits(np.float64, 1, 4, 5, 2)
    image = small_image(np.float64, 1, 4, 5)

    @tf.function
    def run(logits: Any, spatial: Any, bilateral: Any, matrix: Any) -> tf.Tensor:
        return ops.dense_crf(logits, image, 2, *SDEVS, spatial, bilateral, matrix, normalization)

    arrays = [logits, np.float64(0.5), np.array([[0.3, 0.1], [0.2, 0.4]]), compatibility_of(2)]
    if portable:
        with tfseg_ops.portable():
            check_gradients(run, arrays)
    else:
        check_gradients(run, arrays)


@pytest.mark.parametrize("path", NATIVE_AND_PORTABLE)
@pytest.mark.parametrize("normalization", ["symmetric", "after", "before"])
@pytest.mark.parametrize(
    ("numbers", "weights", "iterations", "bounds"),
    [((3, 30, 60), WEIGHTS, 2, (0.35, 0.5)), ((3, 80, 13), (0.5, 0.5), 5, (0.6, 0.3))],
    ids=["few iterations", "small weights"],
)
def test_lattice_gradients_to_image_and_sdevs_are_near_the_exact_ones(
    numbers: Any,
    weights: Any,
    iterations: int,
    bounds: tuple[float, float],
    normalization: str,
    path: str,
) -> None:
    """Relative errors in the norm. Not so with large weights and more iterations: see the op."""
    size: dict[str, Any] = {"batch": 1, "height": 24, "width": 24}
    logits, image = small_logits(**size), small_image(np.float32, **size)
    upstream = np.random.default_rng(7).normal(size=logits.shape).astype(np.float32)
    numbers = [np.float32(number) for number in numbers]

    def gradients(method: str) -> Any:
        def run(image: tf.Tensor, *sdevs: tf.Tensor) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch([image, *sdevs])
                keywords: Any = {"normalization": normalization, "method": method}
                refined = ops.dense_crf(logits, image, iterations, *sdevs, *weights, **keywords)
                marginals = tf.nn.softmax(refined)
            return tape.gradient(marginals, [image, *sdevs], output_gradients=upstream)

        to_image, *to_sdevs = RUNNERS[path](run, [image, *numbers])
        # Per relative change, so that all three count.
        return to_image.numpy(), np.array(to_sdevs) * numbers

    pairs = zip(gradients("lattice"), gradients("exact"), strict=True)
    errors = [np.linalg.norm(one - other) / np.linalg.norm(other) for one, other in pairs]
    assert errors[0] < bounds[0]
    assert errors[1] < bounds[1]


@pytest.mark.parametrize("method", ["lattice", "exact"])
def test_extreme_logits_stay_finite(method: str) -> None:
    logits = small_logits()
    logits[0, 0, 0, 1] = 1e30
    result = crf(method=method)(logits, small_image())
    assert np.isfinite(result).all()


PEAK = """
import sys
import tensorflow as tf

tf.config.threading.set_intra_op_parallelism_threads(2)
from skimage.data import astronaut
from helpers.memory import peak
from tfseg_ops import ops

iterations, backward = int(sys.argv[1]), sys.argv[2] == "backward"

@tf.function(reduce_retracing=True, autograph=False)
def refine(logits, image):
    weights = tf.constant(3.0), tf.constant(10.0)
    with tf.GradientTape() as tape:
        if backward:
            tape.watch([logits, weights])
        refined = ops.dense_crf(
            logits, image, iterations, spatial_weight=weights[0], bilateral_weight=weights[1]
        )
    return tape.gradient(refined, [logits, weights])[0] if backward else refined

def run(height, width):
    image = tf.constant(astronaut()[None, :height, :width])
    logits = tf.random.stateless_normal([1, height, width, 21], [1, 2])
    before = peak()
    refine(logits, image)[0, 0, 0].numpy()
    return peak() - before

run(24, 32)
print(run(375, 500), 375 * 500 * 21 * 4)
"""


@pytest.mark.skipif(EMULATED, reason="a GPU has a memory of its own")
@pytest.mark.parametrize(
    ("iterations", "direction", "times"), [(10, "forward", 6), (5, "backward", 15)]
)
def test_memory_of_a_photograph_is_bounded(iterations: int, direction: str, times: int) -> None:
    more, logits = map(int, run_python(PEAK, iterations, direction).split())
    assert more < times * logits


@pytest.mark.parametrize("path", ["graph", "portable"])
@pytest.mark.parametrize("method", ["lattice", "exact"])
@pytest.mark.parametrize("shape", [(2, 9, 7, 3), (1, 7, 9, 3), (2, 7, 8, 3)], ids=str)
def test_image_of_other_pixels_is_named_at_run_time(
    shape: tuple[int, ...], method: str, path: str
) -> None:
    logits, image = np.zeros((2, 7, 9, 4), np.float32), np.zeros(shape, np.uint8)

    def build(_: Any) -> Any:
        specs = [tf.TensorSpec([None] * 3 + [4]), tf.TensorSpec([None] * 3 + [3], tf.uint8)]
        run = tf.function(crf(method=method), input_signature=specs)
        run.get_concrete_function()
        return run

    run = RUNNERS["portable" if path == "portable" else "eager"](build, [logits])
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        run(logits, image)
    words = "dense_crf: 'image' must have shape [batch, height, width, channels] of the logits"
    assert words in str(caught.value).replace("\\", "")


SDEV_NAMES = ("spatial_sdev", "bilateral_spatial_sdev", "bilateral_color_sdev")


@pytest.mark.parametrize("method", ["lattice", "exact"])
@pytest.mark.parametrize("name", SDEV_NAMES)
@pytest.mark.parametrize("number", [-1.0, 0.0, np.inf, np.nan])
def test_standard_deviations_that_are_not_positive_are_named(
    number: float, name: str, method: str
) -> None:
    words = f"dense_crf: '{name}' must be positive and finite, got"
    count = 3 if name == "bilateral_color_sdev" else 2
    vector = np.float32([*[1.0] * (count - 1), number])
    arrays = [np.float32(number), np.array(number), vector]
    for value in [*arrays, *map(tf.constant, arrays), tf.Variable(vector)]:
        with pytest.raises(ValueError, match=f"{words} {number}"):
            crf(method=method, **{name: value})(small_logits(), small_image())
    for value in arrays:
        run = tf.function(lambda s: crf(method=method, **{name: s})(small_logits(), small_image()))
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            run(tf.constant(value))
        assert words in str(caught.value).replace("\\", "")


def test_standard_deviations_may_be_integers_of_numpy() -> None:
    logits, image = small_logits(), small_image()
    for value, same in (
        (np.int64(3), 3.0),
        (np.array([3, 4]), (3.0, 4.0)),
        ([np.int32(3), np.float32(4)], (3.0, 4.0)),
    ):
        expected = crf(spatial_sdev=same)(logits, image).numpy()
        assert_same_bits(crf(spatial_sdev=value)(logits, image).numpy(), expected)


@pytest.mark.parametrize("path", ["eager", "graph", "xla", "portable"])
def test_gradients_go_through_checked_standard_deviations(path: str) -> None:
    """To tensors whose values are known, to variables and to what a function is given."""
    variables = [tf.Variable(number) for number in SDEVS]

    def gradients(*tensors: tf.Tensor) -> list[tf.Tensor]:
        found = []
        for sdevs in (tensors, variables):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                named = dict(zip(SDEV_NAMES, sdevs, strict=True))
                refined = crf(**named, method="exact")(small_logits(), small_image(np.float32))
                loss = tf.reduce_sum(refined[..., 0])
            found += tape.gradient(loss, sdevs)
        return found

    found = RUNNERS[path](gradients, [np.float32(number) for number in SDEVS])
    to_tensors, to_variables = np.split(np.array(found), 2)
    assert (to_tensors != 0).all()
    np.testing.assert_allclose(to_variables, to_tensors, 1e-4, 1e-5)


@pytest.mark.parametrize("path", ["eager", "graph", "portable"])
def test_extra_weights_may_be_one_tensor(path: str) -> None:
    logits = small_logits()
    points = np.random.default_rng(0).normal(size=(2, 72, 2)).astype(np.float32)

    def run(logits: tf.Tensor, points: tf.Tensor, weights: Any) -> tf.Tensor:
        lattices = [ops.permutohedral_lattice(points), ops.permutohedral_lattice(points / 2)]
        return ops.dense_crf(logits, None, extra_lattices=lattices, extra_weights=weights)

    weights = np.float32([[1.0, 2.0, 3.0], [0.5, 0.6, 0.7]])
    expected = run(logits, points, list(weights))
    assert_close(RUNNERS[path](run, [logits, points, weights]), expected)
    assert_close(run(logits, points, weights), expected)
    with pytest.raises(ValueError, match="'extra_weights' must have one for each of 2 extra "):
        run(logits, points, tf.constant([1.0]))
    with pytest.raises(TypeError, match="'extra_weights' must be a list of weights, got NoneType"):
        run(logits, points, None)


def test_normalization_that_is_no_name_is_named() -> None:
    words = "dense_crf: 'normalization' must be symmetric, before, after or none, got None"
    with pytest.raises(ValueError, match=words):
        crf(normalization=None)(small_logits(), small_image())
