"""The CRFs with pydensecrf's names against the oracles and against pydensecrf itself."""

import inspect
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from helpers.tolerances import assert_close, assert_same_bits
from reference.mean_field_step import mean_field_step
from reference.permutohedral_lattice import permutohedral_lattice

from tfseg_ops import _library, ops
from tfseg_ops import postprocess as ours
from tfseg_ops.postprocess import utils

HEIGHT, WIDTH, CLASSES = 5, 7, 4
RANDOM = np.random.default_rng(3)
SMALL_IMAGE = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
SMALL_ENERGIES = RANDOM.gamma(1.0, 2.0, (CLASSES, HEIGHT * WIDTH)).astype(np.float32)
SMALL_DIAGONAL = np.float32([-2, -1, -3, -1.5])
NORMALIZATIONS = {
    "none": ours.NO_NORMALIZATION,
    "before": ours.NORMALIZE_BEFORE,
    "after": ours.NORMALIZE_AFTER,
    "symmetric": ours.NORMALIZE_SYMMETRIC,
}


def learned(kind: str, classes: int, scale: float = 1.0) -> Any:
    """A compatibility as if learned: of each kind that `compat` may be."""
    random = np.random.default_rng(classes)
    if kind == "potts":
        return 3.0 * scale
    if kind == "diagonal":
        return (-scale * random.uniform(1, 4, classes)).astype(np.float32)
    noise = random.normal(size=(classes, classes))
    return (scale * (noise - 3 * np.eye(classes))).astype(np.float32)


def small_crf(compat: Any = 3.0, normalization: int = ours.NORMALIZE_SYMMETRIC) -> Any:
    """A CRF of a few pixels with a spatial kernel of this kind, and a bilateral one."""
    crf = ours.DenseCRF2D(WIDTH, HEIGHT, CLASSES)
    crf.setUnaryEnergy(SMALL_ENERGIES)
    crf.addPairwiseGaussian((2, 3), compat, normalization=normalization)
    crf.addPairwiseBilateral((4, 5), (50, 60, 70), SMALL_IMAGE, SMALL_DIAGONAL)
    return crf


def small_features() -> list[np.ndarray]:
    """The features of its kernels, pixel after pixel, x first."""
    spatial, bilateral = [], []
    for y in range(HEIGHT):
        for x in range(WIDTH):
            red, green, blue = SMALL_IMAGE[y, x].astype(float)
            spatial.append([x / 2, y / 3])
            bilateral.append([x / 4, y / 5, red / 50, green / 60, blue / 70])
    return [np.float32([spatial]), np.float32([bilateral])]


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("kind", ["potts", "diagonal", "matrix"])
def test_marginals_are_those_of_the_oracle(kind: str, normalization: str) -> None:
    compat = learned(kind, CLASSES, 0.2 if normalization == "none" else 1.0)
    crf = small_crf(compat, NORMALIZATIONS[normalization])
    if kind == "potts":
        mixing = np.float32(compat) * np.eye(CLASSES, dtype=np.float32)
    else:
        mixing = -(np.diag(compat) if kind == "diagonal" else (compat + compat.T) / 2)
    mixings = np.float32([mixing, -np.diag(SMALL_DIAGONAL)])
    lattices = [permutohedral_lattice(features) for features in small_features()]
    unary = -SMALL_ENERGIES.T[np.newaxis].astype(np.float64)
    q = np.exp(unary) / np.exp(unary).sum(-1, keepdims=True)
    for steps in range(4):
        marginals = crf.inference(steps)
        assert marginals.dtype == np.float32
        assert_close(marginals, q[0].T)
        q = mean_field_step(q, unary, lattices, mixings, [normalization, "symmetric"])


@pytest.mark.parametrize("kind", ["potts", "matrix"])
def test_steps_are_those_of_inference(kind: str) -> None:
    crf = small_crf(learned(kind, CLASSES))
    marginals, tmp1, tmp2 = crf.startInference()
    for steps in range(3):
        assert_same_bits(marginals, crf.inference(steps))
        crf.stepInference(marginals, tmp1, tmp2)


def test_step_writes_into_any_array() -> None:
    crf = small_crf()
    marginals = np.ascontiguousarray(crf.startInference()[0])
    crf.stepInference(marginals, None, None)
    assert_same_bits(marginals, np.ascontiguousarray(crf.inference(1)))


def test_inference_leaves_the_crf_as_it_was() -> None:
    crf = small_crf()
    first = crf.inference(2)
    first[...] = 0
    assert_same_bits(crf.inference(2), small_crf().inference(2))


def test_result_is_stored_as_theirs() -> None:
    marginals = np.array(small_crf().inference(1))
    assert marginals.shape == (CLASSES, HEIGHT * WIDTH)
    assert marginals.flags.f_contiguous
    assert marginals.flags.writeable
    assert_close(marginals.sum(axis=0), np.ones(HEIGHT * WIDTH, np.float32))


def test_divergence_is_that_of_the_formula() -> None:
    compat = learned("matrix", CLASSES)
    crf = small_crf(compat)
    marginals = crf.inference(1).astype(np.float64)
    expected = (marginals * (np.log(marginals) + SMALL_ENERGIES)).sum()
    compats = [(compat + compat.T) / 2, np.diag(SMALL_DIAGONAL)]
    for features, matrix in zip(small_features(), compats, strict=True):
        lattice = [permutohedral_lattice(features)]
        nothing = np.zeros((1, HEIGHT * WIDTH, CLASSES))
        mixing = np.eye(CLASSES)[np.newaxis]
        filtered = mean_field_step(
            marginals.T[np.newaxis], nothing, lattice, mixing, ["symmetric"], logits=True
        )
        expected += (marginals * (matrix @ filtered[0].T)).sum()
    assert crf.klDivergence(marginals) == pytest.approx(expected, rel=1e-5)


def test_unary_may_come_in_other_guises() -> None:
    crf, expected = small_crf(), small_crf().inference(2)
    for energies in (
        SMALL_ENERGIES.astype(np.float64),
        np.asfortranarray(SMALL_ENERGIES),
        np.repeat(SMALL_ENERGIES, 2, axis=1)[:, ::2],
        SMALL_ENERGIES.tolist(),
    ):
        crf.setUnaryEnergy(energies)
        assert_same_bits(crf.inference(2), expected)
    crf.setUnary(ours.ConstUnary(SMALL_ENERGIES))
    assert_same_bits(crf.inference(2), expected)
    weights = np.eye(CLASSES, dtype=np.float32)
    crf.setUnary(ours.LogisticUnary(weights, SMALL_ENERGIES))
    assert_same_bits(crf.inference(2), expected)
    crf.setUnaryEnergy(weights, SMALL_ENERGIES)
    assert_same_bits(crf.inference(2), expected)


def test_energies_and_image_are_copied() -> None:
    energies, image = SMALL_ENERGIES.copy(), SMALL_IMAGE.copy()
    crf = ours.DenseCRF2D(WIDTH, HEIGHT, CLASSES)
    crf.setUnaryEnergy(energies)
    crf.addPairwiseGaussian((2, 3), 3.0)
    crf.addPairwiseBilateral((4, 5), (50, 60, 70), image, SMALL_DIAGONAL)
    energies[...] = 0
    image[...] = 0
    assert_same_bits(crf.inference(2), small_crf().inference(2))


def test_without_unary_or_kernels_there_is_still_a_result() -> None:
    crf = ours.DenseCRF(3, 4)
    assert (crf.startInference()[0] == 0.25).all()
    assert (crf.inference(2) == 0.25).all()
    crf.addPairwiseEnergy(np.zeros((2, 3)), 1.0)
    assert_close(crf.inference(2), np.full((4, 3), 0.25, np.float32))


def test_subclass_is_a_crf_too() -> None:
    class Named(ours.DenseCRF2D):
        pass

    with pytest.raises(ValueError, match=r"^Named\.setUnaryEnergy: 'u' must"):
        Named(2, 2, 2).setUnaryEnergy(np.zeros((2, 5)))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda crf: crf.setUnaryEnergy(np.zeros((3, 35))),
            ValueError,
            "DenseCRF2D.setUnaryEnergy: 'u' must have shape [4, 35], got [3, 35]",
        ),
        (
            lambda crf: crf.setUnaryEnergy(np.zeros((4, 5, 7))),
            ValueError,
            "DenseCRF2D.setUnaryEnergy: 'u' must have shape [4, 35], got [4, 5, 7]",
        ),
        (
            lambda crf: crf.setUnaryEnergy(np.zeros((4, 35), complex)),
            TypeError,
            "DenseCRF2D.setUnaryEnergy: 'u' must be real numbers, got complex128",
        ),
        (
            lambda crf: crf.setUnaryEnergy(np.zeros((4, 2)), np.zeros((3, 35))),
            ValueError,
            "LogisticUnary: 'f' must have shape [2, nvar], got [3, 35]",
        ),
        (
            lambda crf: crf.setUnary(SMALL_ENERGIES),
            TypeError,
            "DenseCRF2D.setUnary: 'u' must be a ConstUnary or LogisticUnary, "
            "got <class 'numpy.ndarray'>",
        ),
        (
            lambda crf: crf.addPairwiseEnergy(np.zeros((2, 34)), 1),
            ValueError,
            "DenseCRF2D.addPairwiseEnergy: 'features' must have shape [d, 35], got [2, 34]",
        ),
        (
            lambda crf: crf.addPairwiseEnergy(np.full((1, 35), np.nan), 1),
            ValueError,
            "permutohedral_lattice: 'features' must lie in [-100000, 100000], got nan at [0, 0, 0]",
        ),
        (
            lambda crf: crf.addPairwiseGaussian(3, np.ones(5)),
            ValueError,
            "DenseCRF2D.addPairwiseGaussian: 'compat' must have shape [4], got [5]",
        ),
        (
            lambda crf: crf.addPairwiseGaussian(3, np.ones((4, 5))),
            ValueError,
            "DenseCRF2D.addPairwiseGaussian: 'compat' must have shape [4, 4], got [4, 5]",
        ),
        (
            lambda crf: crf.addPairwiseGaussian(3, np.ones((4, 4, 1))),
            ValueError,
            "DenseCRF2D.addPairwiseGaussian: 'compat' must have at most 2 dimensions, "
            "got [4, 4, 1]",
        ),
        (
            lambda crf: crf.addPairwiseGaussian(3, "potts"),
            TypeError,
            "DenseCRF2D.addPairwiseGaussian: 'compat' must be real numbers, got <U5",
        ),
        (
            lambda crf: crf.addPairwiseGaussian((3, 0), 1),
            ValueError,
            "DenseCRF2D.addPairwiseGaussian: 'sxy' must be positive and finite, got (3, 0)",
        ),
        (
            lambda crf: crf.addPairwiseGaussian((3, 3, 3), 1),
            ValueError,
            "DenseCRF2D.addPairwiseGaussian: 'sxy' must be a number or 2, got (3, 3, 3)",
        ),
        (
            lambda crf: crf.addPairwiseGaussian(3, 1, normalization=7),
            ValueError,
            "7 is not a valid NormalizationType",
        ),
        (
            lambda crf: crf.addPairwiseBilateral(3, 3, SMALL_IMAGE.transpose(1, 0, 2), 1),
            ValueError,
            "DenseCRF2D.addPairwiseBilateral: 'rgbim' must have shape [5, 7, 3], got [7, 5, 3]",
        ),
        (
            lambda crf: crf.addPairwiseBilateral(3, 3, SMALL_IMAGE / 255, 1),
            TypeError,
            "DenseCRF2D.addPairwiseBilateral: 'rgbim' must be integers in [0, 255], got float64",
        ),
        (
            lambda crf: crf.inference(-1),
            ValueError,
            "DenseCRF2D.inference: 'niter' must not be negative, got -1",
        ),
        (
            lambda crf: crf.inference("3"),
            TypeError,
            "DenseCRF2D.inference: 'niter' must be real numbers, got <U1",
        ),
        (
            lambda crf: crf.stepInference(np.zeros((4, 35), int)),
            TypeError,
            "DenseCRF2D.stepInference: 'Q' must be a floating array, got int64",
        ),
        (
            lambda crf: crf.stepInference([[1.0]], None, None),
            TypeError,
            "DenseCRF2D.stepInference: 'Q' must be a numpy array to write to, got <class 'list'>",
        ),
        (
            lambda crf: crf.klDivergence(np.zeros((35, 4))),
            ValueError,
            "DenseCRF2D.klDivergence: 'Q' must have shape [4, 35], got [35, 4]",
        ),
        (
            lambda _: ours.DenseCRF(0, 2),
            ValueError,
            "DenseCRF: 'nvar' must be at least 1, got 0",
        ),
        (
            lambda _: ours.DenseCRF2D(4, 2.5, 2),
            TypeError,
            "DenseCRF2D: 'h' must be an int, got 2.5",
        ),
    ],
)
def test_nonsense_is_named(call: Any, kind: type[Exception], message: str) -> None:
    crf = small_crf()
    with pytest.raises(kind) as caught:
        call(crf)
    assert str(caught.value) == message
    # What was refused has left no trace.
    assert_same_bits(crf.inference(1), small_crf().inference(1))


def test_without_the_core_the_error_is_that_of_the_package(monkeypatch: Any) -> None:
    _library.load_core.cache_clear()
    monkeypatch.setitem(sys.modules, "tfseg_ops._core", None)
    with pytest.raises(ImportError, match=r"^tfseg_ops .*: rebuild it with `pip install"):
        ours.DenseCRF(2, 2)


# --- Against pydensecrf -------------------------------------------------------------------------


class Scene(NamedTuple):
    """A photograph, and the energies that a network might give its pixels."""

    image: np.ndarray
    energies: np.ndarray  # [classes, pixels]


@pytest.fixture(scope="module")
def peer() -> Any:
    """pydensecrf."""
    return pytest.importorskip("pydensecrf.densecrf")


@pytest.fixture(scope="module")
def scene() -> Scene:
    """375 x 500 pixels of a photograph; smooth scores of 21 classes with noise."""
    data = pytest.importorskip("skimage.data")
    ndimage = pytest.importorskip("scipy.ndimage")
    image = np.ascontiguousarray(data.coffee()[:375, :500])
    random = np.random.default_rng(0)
    coarse = random.normal(size=(21, 12, 16))
    scores = 3 * ndimage.zoom(coarse, (1, 375 / 12, 500 / 16), order=1)
    scores += random.normal(size=scores.shape)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=0)
    return Scene(image, utils.unary_from_softmax(probabilities))


def crf_of(library: Any, scene: Scene, sxy: float, srgb: float, compats: Any, kind: int) -> Any:
    """The CRF of a scene with pydensecrf's two kernels; `kind` is their normalization."""
    height, width, _ = scene.image.shape
    crf = library.DenseCRF2D(width, height, len(scene.energies))
    crf.setUnaryEnergy(scene.energies)
    crf.addPairwiseGaussian(sxy=3, compat=compats[0], normalization=kind)
    crf.addPairwiseBilateral(sxy, srgb, scene.image, compats[1], normalization=kind)
    return crf


def assert_same_marginals(actual: Any, expected: Any) -> None:
    """Asserts agreement to 1e-3 at every point, and of 99.99 % of the labels."""
    actual, expected = np.array(actual), np.array(expected)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 1e-3
    assert (actual.argmax(axis=0) == expected.argmax(axis=0)).mean() >= 0.9999


@pytest.mark.parametrize(("sxy", "srgb"), [(80, 13), (60, 5)])
def test_photograph_has_their_marginals_and_divergence(
    peer: Any, scene: Scene, sxy: float, srgb: float
) -> None:
    one, other = (
        crf_of(library, scene, sxy, srgb, (3, 10), ours.NORMALIZE_SYMMETRIC)
        for library in (ours, peer)
    )
    state, expected = one.startInference(), other.startInference()
    for step in range(1, 11):
        one.stepInference(*state)
        other.stepInference(*expected)
        if step in (1, 5, 10):
            assert_same_marginals(state[0], expected[0])
            # Theirs sums millions of terms in float32.
            theirs = other.klDivergence(expected[0])
            assert one.klDivergence(state[0]) == pytest.approx(theirs, rel=2e-3)
    assert_same_bits(one.inference(10), state[0])


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("kind", ["potts", "diagonal", "matrix"])
def test_photograph_has_their_marginals_with_what_was_learned(
    peer: Any, scene: Scene, kind: str, normalization: str
) -> None:
    # Unnormalized kernels sum up to some hundred pixels, normalized ones to about one.
    scale = 1e-3 if normalization == "none" else 1.0
    compats = learned(kind, 21, scale), learned(kind, 21, 2 * scale)
    marginals = [
        crf_of(library, scene, 80, 13, compats, NORMALIZATIONS[normalization]).inference(5)
        for library in (ours, peer)
    ]
    assert_same_marginals(*marginals)
    assert np.ptp(np.array(marginals[1]).argmax(axis=0)) > 0


@pytest.mark.parametrize("steps", [1, 5, 10])
@pytest.mark.parametrize("kind", ["potts", "matrix"])
def test_unnormalized_marginals_are_theirs_as_far_as_float32_goes(
    peer: Any, scene: Scene, kind: str, steps: int
) -> None:
    """With weights of normalized kernels logits reach thousands, whose last bit is 1e-4.

    Both libraries are then some 1e-3 to 1e-2 from the same steps in float64, at a few pixels; of
    each other they are nearer, and with Potts weights of 3 and 10 near enough.
    """
    matrix, weights = None, (3.0, 10.0)
    compats: Any = weights
    if kind == "matrix":
        matrix, weights = learned(kind, 21), (1.0, 2.0)
        compats = matrix, 2 * matrix
        matrix = (matrix + matrix.T).astype(np.float64) / 2  # as they take it
    mine, theirs = (
        np.array(crf_of(library, scene, 80, 13, compats, ours.NO_NORMALIZATION).inference(steps))
        for library in (ours, peer)
    )
    logits = ops.dense_crf(
        -scene.energies.T.reshape(1, *scene.image.shape[:2], 21).astype(np.float64),
        scene.image[np.newaxis].astype(np.float32),
        steps,
        spatial_weight=weights[0],
        bilateral_weight=weights[1],
        compatibility=matrix,
        normalization="none",
    )
    exact = tf.reshape(tf.nn.softmax(logits), [-1, 21]).numpy().T
    difference = np.abs(mine - theirs).max(axis=0)
    assert (difference <= 1e-3).mean() >= 0.9999
    rounding = np.abs(theirs - exact).max() if kind == "matrix" else 0.0
    assert difference.max() <= max(1e-3, rounding)
    assert (mine.argmax(axis=0) == theirs.argmax(axis=0)).mean() >= 0.9999


def test_volume_has_their_marginals(peer: Any) -> None:
    random = np.random.default_rng(5)
    shape, classes = (6, 20, 25), 3
    blob = np.hypot(*(np.indices(shape)[1:] - np.reshape([10, 12], (2, 1, 1, 1)))) < 7
    volume = blob + random.normal(0, 0.2, shape)
    labels = np.where(random.random(shape) < 0.3, random.integers(0, classes, shape), blob)
    positions = utils.create_pairwise_gaussian((1, 3, 3), shape)
    colours = utils.create_pairwise_bilateral((2, 8, 8), 0.3, volume)
    marginals = []
    for library in (ours, peer):
        crf = library.DenseCRF(blob.size, classes)
        crf.setUnaryEnergy(utils.unary_from_labels(labels, classes, 0.6, zero_unsure=False))
        crf.addPairwiseEnergy(positions, 2)
        crf.addPairwiseEnergy(colours, 4, library.FULL_KERNEL, library.NORMALIZE_AFTER)
        marginals.append(crf.inference(5))
    assert_same_marginals(*marginals)
    assert (np.argmax(marginals[0], axis=0) == blob.ravel()).mean() > 0.97


SCRIPT = """
import numpy as np
import pydensecrf.densecrf as dcrf
from pydensecrf.utils import unary_from_labels, create_pairwise_bilateral
from pydensecrf.utils import create_pairwise_gaussian

d = dcrf.DenseCRF2D(image.shape[1], image.shape[0], 3)
U = unary_from_labels(labels, 3, gt_prob=0.7, zero_unsure=False)
d.setUnaryEnergy(U)
d.addPairwiseGaussian(sxy=(3, 3), compat=3, kernel=dcrf.DIAG_KERNEL,
                      normalization=dcrf.NORMALIZE_SYMMETRIC)
d.addPairwiseBilateral(sxy=(80, 80), srgb=(13, 13, 13), rgbim=image, compat=10,
                       kernel=dcrf.DIAG_KERNEL, normalization=dcrf.NORMALIZE_SYMMETRIC)
Q = d.inference(5)
MAP = np.argmax(Q, axis=0)
proba = np.array(Q).reshape((3, image.shape[0], image.shape[1]))

Q, tmp1, tmp2 = d.startInference()
for i in range(5):
    kl = d.klDivergence(Q)
    d.stepInference(Q, tmp1, tmp2)

d = dcrf.DenseCRF(image.shape[0] * image.shape[1], 3)
d.setUnaryEnergy(U)
feats = create_pairwise_gaussian(sdims=(3, 3), shape=image.shape[:2])
d.addPairwiseEnergy(feats, compat=3, kernel=dcrf.DIAG_KERNEL,
                    normalization=dcrf.NORMALIZE_SYMMETRIC)
feats = create_pairwise_bilateral(sdims=(80, 80), schan=(13, 13, 13), img=image, chdim=2)
d.addPairwiseEnergy(feats, compat=10, kernel=dcrf.DIAG_KERNEL,
                    normalization=dcrf.NORMALIZE_SYMMETRIC)
Q = d.inference(5)
"""


def test_script_runs_with_its_imports_changed(peer: Any) -> None:
    random = np.random.default_rng(1)
    image = np.kron(random.integers(0, 256, (4, 5, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    labels = np.kron(random.integers(0, 3, (4, 5)), np.ones((8, 8))).astype(int)
    changed = SCRIPT.replace("pydensecrf.densecrf", "tfseg_ops.postprocess").replace(
        "pydensecrf.utils", "tfseg_ops.postprocess.utils"
    )
    results = []
    for script in (SCRIPT, changed):
        names: dict[str, Any] = {"image": image, "labels": labels}
        exec(script, names)
        results.append(names)
    theirs, mine = results
    np.testing.assert_array_equal(mine["MAP"], theirs["MAP"])
    assert_close(mine["U"], theirs["U"])
    np.testing.assert_allclose(mine["proba"], theirs["proba"], atol=1e-3)
    np.testing.assert_allclose(mine["Q"], np.array(theirs["Q"]), atol=1e-3)
    assert mine["kl"] == pytest.approx(theirs["kl"], rel=1e-4)


def test_names_and_numbers_are_theirs(peer: Any) -> None:
    names = [name for name in dir(peer) if name.endswith("_KERNEL") or "NORMALIZ" in name]
    assert len(names) == 7
    for name in names:
        assert int(getattr(ours, name)) == int(getattr(peer, name))
    for name in ("DenseCRF", "DenseCRF2D"):
        theirs = {method for method in dir(getattr(peer, name)) if not method.startswith("_")}
        mine = {method for method in dir(getattr(ours, name)) if not method.startswith("_")}
        assert mine == theirs


def test_arguments_have_the_names_and_defaults_that_are_documented() -> None:
    default = "kernel=<KernelType.DIAG_KERNEL: 1>"
    default += ", normalization=<NormalizationType.NORMALIZE_SYMMETRIC: 3>"
    for method, expected in (
        ("addPairwiseEnergy", f"(self, features, compat, {default})"),
        ("addPairwiseGaussian", f"(self, sxy, compat, {default})"),
        ("addPairwiseBilateral", f"(self, sxy, srgb, rgbim, compat, {default})"),
    ):
        signature = inspect.signature(getattr(ours.DenseCRF2D, method))
        parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        assert str(inspect.Signature(parameters)) == expected
