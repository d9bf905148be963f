"""The core's mean-field step against its oracle, central differences and pydensecrf."""

import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.lattice_cases import (
    WRONG_INDICES,
    corrupted_lattice,
    features_of,
    image_lattice,
    picture,
)
from helpers.tolerances import (
    FLOAT_DTYPES,
    TOLERANCES,
    assert_close,
    assert_close_sums,
    assert_same_bits,
    name_of,
)
from reference.mean_field_step import Gradients, gradients, mean_field_step, softmax

Core = types.ModuleType
CHANNELS = [1, 3, 8, 21, 37, 150]
NORMALIZATIONS = ["none", "before", "after", "symmetric"]


class Case(NamedTuple):
    """The arguments, in their order."""

    q: np.ndarray
    unary: np.ndarray
    lattices: list[tuple[np.ndarray, ...]]
    mixing: np.ndarray
    normalizations: list[str]
    logits: bool = False


def case_of(
    core: Core,
    classes: int,
    dtype: Any = np.float32,
    dimensions: tuple[int, ...] = (2, 5),
    normalizations: tuple[str, ...] = ("symmetric", "symmetric"),
    full: bool = False,
    logits: bool = False,
    points: int = 60,
    batch: int = 2,
) -> Case:
    """Probabilities, logits and numbers of both signs in the mixing."""
    generator = np.random.default_rng(classes)
    shape = (batch, points, classes)
    wide = np.float64 if dtype == np.float64 else np.float32
    mixing = generator.normal(0, 1, (len(dimensions), classes, *([classes] if full else [])))
    powers = np.exp(generator.normal(0, 1, shape))
    return Case(
        (powers / powers.sum(axis=-1, keepdims=True)).astype(dtype),
        generator.normal(0, 1, shape).astype(dtype),
        [
            tuple(core.permutohedral_lattice(features_of(generator, batch, points, d, 0.7)))
            for d in dimensions
        ],
        (mixing / (classes**0.5 if full else 1)).astype(wide),
        list(normalizations),
        logits,
    )


def upstream(case: Case) -> np.ndarray:
    """Some gradient of the output."""
    return np.random.default_rng(9).normal(0, 1, case.q.shape).astype(case.q.dtype)


def core_gradients(core: Core, case: Case, output: np.ndarray, grad: np.ndarray) -> Gradients:
    """All of them."""
    arguments = (*case[:5], output, grad, case.logits)
    q, unary, mixing = core.mean_field_step_grad(*arguments)
    return Gradients(q, unary, mixing, core.mean_field_step_features_grad(*arguments))


def assert_close_gradients(actual: Gradients, expected: Gradients, case: Case) -> None:
    """Each as near as its largest number's digits allow, or those of terms that cancel."""
    relative = TOLERANCES[name_of(case.q.dtype)].relative
    wide = min(relative, TOLERANCES["float32"].relative)
    # Terms of the sums for the features: differences of features times messages and gradients.
    sizes = gradients(*case[:3], np.abs(case.mixing), case.normalizations, case.q,
                      np.abs(expected.unary), logits=True)  # fmt: skip
    terms = (case.q.astype(np.float64) * sizes.q).sum(axis=-1).max(initial=0)
    for one, wanted, limit in (
        (actual.q, expected.q, relative),
        (actual.unary, expected.unary, relative),
        (actual.mixing, expected.mixing, wide),
    ):
        assert one.shape == wanted.shape
        scale = np.abs(wanted).max(initial=0)
        np.testing.assert_allclose(one.astype(np.float64), wanted, rtol=limit, atol=limit * scale)
    for k, (features, wanted) in enumerate(zip(actual.features, expected.features, strict=True)):
        scale = 2e-6 * terms * np.ptp(case.lattices[k][0])
        np.testing.assert_allclose(features, wanted, rtol=1e-5, atol=scale)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "matrices"])
@pytest.mark.parametrize("classes", CHANNELS)
def test_step_is_that_of_the_oracle(core: Core, classes: int, full: bool, dtype: Any) -> None:
    for logits in (False, True):
        case = case_of(core, classes, dtype, full=full, logits=logits)
        actual = core.mean_field_step(*case)
        assert actual.dtype == case.q.dtype
        assert_close(actual, mean_field_step(*case))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("dimensions", [(), (1,), (3, 8), (2, 4, 6, 7)])
def test_any_lattices_and_normalizations(
    core: Core, dimensions: tuple[int, ...], normalization: str
) -> None:
    normalizations = (normalization, *NORMALIZATIONS)[: len(dimensions)]
    for dtype in (np.float32, np.float64):
        case = case_of(core, 5, dtype, dimensions, normalizations)
        output = core.mean_field_step(*case)
        assert_close(output, mean_field_step(*case))
        grad = upstream(case)
        assert_close_gradients(
            core_gradients(core, case, output, grad),
            gradients(*case[:5], output, grad),
            case,
        )


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
@pytest.mark.parametrize("logits", [False, True], ids=["probabilities", "logits"])
@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "matrices"])
@pytest.mark.parametrize("classes", CHANNELS)
def test_gradients_are_those_of_the_oracle(
    core: Core, classes: int, full: bool, logits: bool, dtype: Any
) -> None:
    case = case_of(core, classes, dtype, full=full, logits=logits, points=40)
    output, grad = core.mean_field_step(*case), upstream(case)
    actual = core_gradients(core, case, output, grad)
    assert actual.q.dtype == actual.unary.dtype == case.q.dtype
    assert actual.mixing.dtype == case.mixing.dtype
    assert all(one.dtype == np.float32 for one in actual.features)
    assert_close_gradients(actual, gradients(*case[:5], output, grad, logits), case)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "matrices"])
@pytest.mark.parametrize("logits", [False, True], ids=["probabilities", "logits"])
def test_gradients_are_central_differences(
    core: Core, logits: bool, full: bool, normalization: str
) -> None:
    """To q, unary and mixing, of which every element is moved; in float64."""
    case = case_of(
        core,
        3,
        np.float64,
        normalizations=(normalization, "none"),
        full=full,
        logits=logits,
        points=9,
    )
    grad = upstream(case)
    actual = core_gradients(core, case, core.mean_field_step(*case), grad)
    for name in ("q", "unary", "mixing"):
        value, numeric = getattr(case, name), np.zeros_like(getattr(case, name))
        for place in np.ndindex(value.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = value.copy()
                moved[place] += step
                ends.append((grad * core.mean_field_step(*case._replace(**{name: moved}))).sum())
            numeric[place] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(getattr(actual, name), numeric, rtol=1e-6, atol=1e-8)


def test_softmax_takes_large_and_infinite_logits(core: Core) -> None:
    case = case_of(core, 21, dimensions=(), normalizations=())
    unary = case.unary * 1e4
    unary[0, 1, 2:] = -np.inf
    unary[1, 3] = 3e38
    output = core.mean_field_step(*case._replace(unary=unary))
    assert_close(output, softmax(unary.astype(np.float64)))


@pytest.mark.parametrize("classes", [3, 21, 70])
def test_nan_spoils_its_own_point_and_neighbours_alone(core: Core, classes: int) -> None:
    case = case_of(core, classes, dimensions=(2, 5))
    before = core.mean_field_step(*case)
    unary, q = case.unary.copy(), case.q.copy()
    unary[0, 5, classes - 1] = np.nan
    after = core.mean_field_step(*case._replace(unary=unary))
    assert np.isnan(after[0, 5]).all()
    after[0, 5] = before[0, 5]
    assert_same_bits(after, before)
    q[1, 7, 0] = np.nan
    logits = core.mean_field_step(*case._replace(q=q, logits=True))
    assert np.isnan(logits[1, 7, 0])
    assert not np.isnan(logits[..., 1:]).any()
    assert not np.isnan(logits[0]).any()


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3), (2, 5, 0)])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_step_of_nothing_is_nothing(core: Core, dtype: Any, shape: tuple[int, int, int]) -> None:
    batch, points, classes = shape
    case = case_of(core, classes, dtype, points=points, batch=batch)
    output = core.mean_field_step(*case)
    assert output.shape == shape
    for grad in core.mean_field_step_grad(*case[:5], output, output):
        assert not grad.astype(np.float64).any()
    for grad in core.mean_field_step_features_grad(*case[:5], output, output):
        assert not grad.any()


def everything(core: Core, case: Case) -> list[np.ndarray]:
    """All results of a case."""
    output = core.mean_field_step(*case)
    grads = core_gradients(core, case, output, upstream(case))
    return [output, *grads[:3], *grads.features]


@pytest.mark.usefixtures("same_threads_afterwards")
@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "matrices"])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_number_of_threads_changes_no_bit(core: Core, dtype: Any, full: bool) -> None:
    case = case_of(core, 21, dtype, full=full, points=2500)
    results = []
    for threads in (1, 2, 5):
        core.set_num_threads(threads)
        results.append(everything(core, case))
    for result in results[1:]:
        for one, wanted in zip(result, results[0], strict=True):
            assert_same_bits(one, wanted)


@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "matrices"])
@pytest.mark.parametrize("classes", [3, 21, 150])
def test_batch_is_its_images_one_by_one(core: Core, classes: int, full: bool) -> None:
    case = case_of(core, classes, full=full, batch=4)
    grad = upstream(case)
    output = core.mean_field_step(*case)
    grads = core_gradients(core, case, output, grad)
    total = np.zeros(case.mixing.shape)
    for b in range(4):
        image = slice(b, b + 1)
        one = case._replace(
            q=case.q[image],
            unary=case.unary[image],
            lattices=[
                tuple(core.permutohedral_lattice(lattice[0][image])) for lattice in case.lattices
            ],
        )
        assert_same_bits(core.mean_field_step(*one), output[image])
        own = core_gradients(core, one, output[image], grad[image])
        assert_same_bits(own.q, grads.q[image])
        assert_same_bits(own.unary, grads.unary[image])
        for features, wanted in zip(own.features, grads.features, strict=True):
            assert_same_bits(features, wanted[image])
        total += own.mixing
    assert_close_sums(grads.mixing, total, np.abs(total).max())


def test_diagonal_is_a_matrix_of_zeros_elsewhere(core: Core) -> None:
    case = case_of(core, 21, np.float64)
    matrices = case._replace(mixing=np.stack([np.diag(row) for row in case.mixing]))
    assert_close(core.mean_field_step(*case), core.mean_field_step(*matrices))
    output, grad = core.mean_field_step(*case), upstream(case)
    one = core_gradients(core, case, output, grad)
    two = core_gradients(core, matrices, output, grad)
    assert_close_gradients(one, two._replace(mixing=np.einsum("kll->kl", two.mixing)), case)


@pytest.mark.parametrize("wrong", WRONG_INDICES)
def test_wrong_index_is_an_error_that_names_it(core: Core, wrong: str) -> None:
    lattice, words = corrupted_lattice(core, wrong)
    for full in (False, True):
        case = case_of(core, 5, full=full, points=40)
        case.lattices[1] = lattice
        calls: list[Callable[[], Any]] = [
            lambda case=case: core.mean_field_step(*case),
            lambda case=case: core.mean_field_step_grad(*case[:5], case.q, case.q),
            lambda case=case: core.mean_field_step_features_grad(*case[:5], case.q, case.q),
        ]
        for call in calls:
            with pytest.raises(ValueError, match=r"^mean_field_step: 'lattices\[1\]' ") as caught:
                call()
            assert words in str(caught.value)
            assert str(caught.value).endswith("image 1")


_NUMBERS = np.zeros((2, 40, 5), np.float32)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (
            {"q": _NUMBERS[0]},
            ValueError,
            "'q' must have shape [batch, points, classes], got [40, 5]",
        ),
        (
            {"unary": _NUMBERS[:1]},
            ValueError,
            "'unary' must have shape [batch=2, points=40, classes=5], got [1, 40, 5]",
        ),
        ({"unary": _NUMBERS.astype(float)}, TypeError, "'unary' must be float32, got float64"),
        (
            {"q": _NUMBERS.astype(int), "unary": _NUMBERS.astype(int)},
            TypeError,
            "'q' must be float16, bfloat16, float32 or float64, got int64",
        ),
        ({"mixing": np.zeros((2, 5))}, TypeError, "'mixing' must be float32, got float64"),
        (
            {"mixing": np.zeros((1, 5), np.float32)},
            ValueError,
            "'mixing' must have shape [lattices=2, classes=5], got [1, 5]",
        ),
        (
            {"mixing": np.zeros((2, 5, 4), np.float32)},
            ValueError,
            "'mixing' must have shape [lattices=2, classes=5, classes=5], got [2, 5, 4]",
        ),
        (
            {"normalizations": ["none"]},
            ValueError,
            "'normalizations' must be one for each of 2 lattices, got 1",
        ),
        (
            {"normalizations": ["none", "all"]},
            ValueError,
            "'normalization' must be none, before, after or symmetric, got all",
        ),
        (
            {"q": _NUMBERS[:, 1:], "unary": _NUMBERS[:, 1:]},
            ValueError,
            "'lattices[0].features' must have shape [batch=2, points=39, dimensions], "
            "got [2, 40, 2]",
        ),
    ],
    ids=[
        "rank",
        "unary",
        "wide unary",
        "integers",
        "wide mixing",
        "one diagonal",
        "matrix",
        "one name",
        "name",
        "points",
    ],
)
def test_wrong_argument_is_named(
    core: Core, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    case = case_of(core, 5, points=40)._replace(**change)
    with pytest.raises(error) as caught:
        core.mean_field_step(*case)
    assert str(caught.value) == f"mean_field_step: {words}"


def test_gradient_of_another_shape_or_dtype_is_an_error(core: Core) -> None:
    case = case_of(core, 5, points=40)
    for gradient in (core.mean_field_step_grad, core.mean_field_step_features_grad):
        with pytest.raises(ValueError, match="mean_field_step: 'output' must have shape"):
            gradient(*case[:5], case.q[1:], case.q)
        with pytest.raises(ValueError, match="mean_field_step: 'grad' must have shape"):
            gradient(*case[:5], case.q, case.q[:, 1:])
        with pytest.raises(TypeError, match="mean_field_step: 'grad' must be float32, got float64"):
            gradient(*case[:5], case.q, case.q.astype(np.float64))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_marginals_are_those_of_pydensecrf(core: Core, normalization: str) -> None:
    """After 1, 5 and 10 iterations, with Potts and with matrices."""
    densecrf = pytest.importorskip("pydensecrf.densecrf")
    height, width, classes = 120, 160, 21
    image = picture(height, width)
    unary = np.random.default_rng(0).normal(0, 1.5, (1, height * width, classes))
    unary = unary.astype(np.float32)
    lattices = [image_lattice(core, image, 3), image_lattice(core, image, 80, 13)]
    chosen = getattr(densecrf, {"none": "NO_NORMALIZATION"}.get(
        normalization, f"NORMALIZE_{normalization.upper()}"
    ))  # fmt: skip
    # Without normalization messages are as many times larger.
    sizes = [lattice[7].mean() if normalization == "none" else 1 for lattice in lattices]
    asymmetric = np.random.default_rng(1).normal(0, 1, (classes, classes)).astype(np.float32)
    compatibility = asymmetric + asymmetric.T
    for first, second in ((3.0, 10.0), (compatibility, compatibility / 2)):
        weights = [np.float32(1 / size) * w for w, size in zip((first, second), sizes, strict=True)]
        crf = densecrf.DenseCRF2D(width, height, classes)
        crf.setUnaryEnergy(np.ascontiguousarray(-unary[0].T))
        crf.addPairwiseGaussian(sxy=3, compat=weights[0], normalization=chosen)
        crf.addPairwiseBilateral(
            sxy=80, srgb=13, rgbim=image, compat=weights[1], normalization=chosen
        )
        # Their compatibility is an energy.
        mixing = np.stack([np.eye(classes) * w if np.ndim(w) == 0 else -w for w in weights]).astype(
            np.float32
        )
        state = crf.startInference()
        q = softmax(unary).astype(np.float32)
        for iteration in range(1, 11):
            crf.stepInference(*state)
            q = core.mean_field_step(q, unary, lattices, mixing, [normalization] * 2)
            if iteration in (1, 5, 10):
                assert np.abs(q[0] - np.array(state[0]).T).max() < 1e-3


def test_result_goes_where_asked(core: Core) -> None:
    generator = np.random.default_rng(0)
    q, unary = generator.random((2, 2, 5, 3), np.float32)
    lattice = core.permutohedral_lattice(generator.random((2, 5, 2), np.float32))
    args = (q, unary, [lattice], np.ones((1, 3), np.float32), ["symmetric"])
    out = np.empty_like(q)
    assert core.mean_field_step(*args, out=out) is out
    np.testing.assert_array_equal(out, core.mean_field_step(*args))


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda q: [1.0], "be a numpy array"),
        (lambda q: q.astype(np.float64), "have the dtype of 'q'"),
        (lambda q: q[:, :4].copy(), "have the shape of 'q'"),
        (lambda q: np.asfortranarray(q), "be writeable and contiguous"),
        (lambda q: q, "share no memory with 'q' and 'unary'"),
    ],
)
def test_wrong_place_for_the_result_is_an_error(
    core: Core, make: Callable[[np.ndarray], Any], rule: str
) -> None:
    q = np.zeros((2, 5, 3), np.float32)
    args = (q, q.copy(), [], np.zeros((0, 3), np.float32), [])
    with pytest.raises(ValueError, match=rf"^mean_field_step: 'out' must {rule}$"):
        core.mean_field_step(*args, out=make(q))
