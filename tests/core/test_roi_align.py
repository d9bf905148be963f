"""The core's RoI Align and both gradients against the oracles, on boxes of every kind."""

import math
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.core_library import sanitized
from helpers.core_samples import ROIS, roi_results
from helpers.drawing import BOX_KINDS, RoiCase, box_of, examples, roi_cases
from helpers.processes import run_python
from helpers.roi_calls import forward, to_boxes, to_features, upstream_of
from helpers.tolerances import (
    FLOAT_DTYPES,
    assert_close,
    assert_close_sums,
    assert_same,
    assert_same_bits,
    name_of,
)
from hypothesis import given
from hypothesis import strategies as st
from reference.roi_align import boxes_grad, features_grad, multilevel_roi_align

Core = types.ModuleType


def one_level(features: np.ndarray, boxes: Any, size: tuple[int, int], **how: Any) -> RoiCase:
    """A case of one level, all boxes in the first image."""
    wide = np.float64 if features.dtype == np.float64 else np.float32
    array = np.array(boxes, wide).reshape(-1, 4)
    none = np.zeros(len(array), np.int32)
    how = {"spatial_scale": 1.0, "sampling_ratio": 0, "aligned": True, **how}
    return RoiCase(
        [features],
        array,
        none,
        none,
        size,
        [how["spatial_scale"]],
        how["sampling_ratio"],
        how["aligned"],
    )


def image_of(*shape: int, dtype: Any = np.float64) -> np.ndarray:
    """Random features."""
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


@examples(400)
@given(roi_cases())
def test_drawn_boxes_are_resampled_as_the_oracle_does(core: Core, case: RoiCase) -> None:
    actual, expected = forward(core, case), multilevel_roi_align(*case)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert_close(actual, expected)


@examples(250)
@given(roi_cases())
def test_gradient_to_features_is_that_of_the_oracle(core: Core, case: RoiCase) -> None:
    grad = upstream_of(case)
    actual = to_features(core.roi_align_features_grad, case, grad)
    expected = to_features(features_grad, case, grad)
    terms = to_features(features_grad, case, np.abs(grad.astype(np.float64)))
    for one, wanted, magnitudes in zip(actual, expected, terms, strict=True):
        assert one.dtype == grad.dtype
        assert_close_sums(one, wanted, magnitudes)


@examples(250)
@given(roi_cases())
def test_gradient_to_boxes_is_that_of_the_oracle(core: Core, case: RoiCase) -> None:
    grad = upstream_of(case)
    actual = to_boxes(core.roi_align_boxes_grad, case, grad)
    expected = to_boxes(boxes_grad, case, grad)
    assert actual.dtype == case.boxes.dtype
    largest = max((float(np.abs(level).max(initial=0)) for level in case.features), default=0.0)
    sums = np.abs(grad.astype(np.float64)).sum((1, 2, 3))[:, None] * max(case.spatial_scales)
    assert_close_sums(actual, expected, np.broadcast_to(2 * largest * sums, actual.shape))


def published_rule(
    image: np.ndarray, box: np.ndarray, size: tuple[int, int], ratio: int, aligned: bool
) -> np.ndarray:
    """Point by point, from torchvision's documentation of `roi_align`; the box in its pixels."""
    height, width = image.shape

    def bilinear(y: float, x: float) -> float:
        if y < -1 or y > height or x < -1 or x > width:
            return 0.0
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        total = 0.0
        for i in range(height):
            for j in range(width):
                total += max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j)) * image[i, j]
        return total

    y1, x1, y2, x2 = (float(number) - (0.5 if aligned else 0) for number in box)
    sides = [y2 - y1, x2 - x1] if aligned else [max(y2 - y1, 1), max(x2 - x1, 1)]
    steps = [side / count for side, count in zip(sides, size, strict=True)]
    rows, columns = (ratio or max(math.ceil(step), 0) for step in steps)
    output = np.zeros(size)
    for p, q in np.ndindex(*size):
        for i, j in np.ndindex(rows, columns):
            y = y1 + (p + (i + 0.5) / rows) * steps[0]
            x = x1 + (q + (j + 0.5) / columns) * steps[1]
            output[p, q] += bilinear(y, x) / (rows * columns)
    return output


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", range(5))
@examples(12)
@given(st.data())
def test_points_are_those_of_the_published_rule(
    core: Core, ratio: int, aligned: bool, data: st.DataObject
) -> None:
    """Written by other means than the oracle, which shares its order of rounding with the core."""
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    image = generator.normal(size=data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6))))
    size = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    # On halves and tenths rounding could decide which points count: they are left out.
    kind = data.draw(
        st.sampled_from([kind for kind in BOX_KINDS if kind not in ("halves", "tenths")])
    )
    box = box_of(generator, kind, image.shape)
    case = one_level(image[None, ..., None], box, size, sampling_ratio=ratio, aligned=aligned)
    assert_close(forward(core, case)[0, ..., 0], published_rule(image, box, size, ratio, aligned))


@pytest.mark.parametrize("ratio", [0, 1, 2])
@pytest.mark.parametrize(
    ("aligned", "first", "edge"), [(True, 4.5, 13.5), (False, 7.5, 16.5)], ids=str
)
def test_plane_is_upsampled_as_tensorflow_issue_26278_expects(
    core: Core, aligned: bool, first: float, edge: float, ratio: int
) -> None:
    """github.com/tensorflow/tensorflow/issues/26278: 2x2 pixels of arange(25) as 4x4.

    Without the half pixel, the rows begin at 7.5: that is what Detectron2's tests call wrong.
    """
    image = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    case = one_level(image, [1, 1, 3, 3], (4, 4), sampling_ratio=ratio, aligned=aligned)
    expected = first + 2.5 * np.arange(4)[:, None] + 0.5 * np.arange(4)
    assert expected[-1, -1] == edge
    assert_same(forward(core, case)[0, ..., 0], expected.astype(np.float32))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_box_over_the_image_with_a_bin_for_each_pixel_is_the_image(core: Core, dtype: Any) -> None:
    """Pixels of weight zero count for nothing: NaN and Inf stay where they are."""
    generator = np.random.default_rng(0)
    image = generator.choice([1, -2, np.nan, np.inf, -np.inf], size=(1, 5, 7, 67)).astype(dtype)
    for ratio in (0, 1):
        case = one_level(image, [0, 0, 5, 7], (5, 7), sampling_ratio=ratio)
        assert_same(forward(core, case), image)
        assert_same(to_features(core.roi_align_features_grad, case, image)[0], image)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
@pytest.mark.parametrize("channels", [1, 8, 31, 65, 130])
def test_nan_and_infinity_reach_the_bins_that_read_them(
    core: Core, channels: int, dtype: Any
) -> None:
    generator = np.random.default_rng(0)
    special = [0, 1, 1, 1, 2, np.nan, np.inf, -np.inf]
    image = generator.choice(special, size=(1, 9, 8, channels)).astype(dtype)
    boxes = [box_of(generator, kind, (9, 8)) for kind in BOX_KINDS for _ in range(3)]
    for ratio in (0, 2):
        case = one_level(image, boxes, (3, 2), sampling_ratio=ratio)
        expected = multilevel_roi_align(*case)
        assert {True, False} == set(np.isfinite(expected.astype(np.float64)).ravel())
        assert_close(forward(core, case), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=name_of)
@pytest.mark.parametrize("axis", [0, 1])
def test_samples_count_up_to_one_pixel_outside_and_not_beyond(
    core: Core, axis: int, dtype: Any
) -> None:
    """Of a box of one pixel without alignment the sample point stands half a pixel further."""
    image = np.full((1, 4, 4, 1), 3, dtype)
    for start, value in [(-1.5, 3), (-1.500001, 0), (3.5, 3), (3.500001, 0)]:
        box = [start if corner % 2 == axis else 1 for corner in range(4)]
        case = one_level(image, box, (1, 1), sampling_ratio=1, aligned=False)
        assert forward(core, case).item() == value
        grad = np.ones((1, 1, 1, 1), dtype)
        assert to_features(core.roi_align_features_grad, case, grad)[0].sum() == value / 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=name_of)
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(
    ("scale", "size", "ratio"),
    [(0.1, (5, 3), 3), (0.1, (1, 3), 0), (0.3, (5, 3), 3), (0.3, (1, 3), 0)],
)
def test_rounding_decides_which_samples_count_as_it_does_in_the_oracle(
    core: Core, scale: float, size: tuple[int, int], ratio: int, aligned: bool, dtype: Any
) -> None:
    """Of tenths, many samples stand on a border but for the last bit."""
    generator = np.random.default_rng(0)
    boxes = [box_of(generator, "tenths", (6, 7), scale) for _ in range(300)]
    image = np.ones((1, 6, 7, 1), dtype)
    how = {"spatial_scale": scale, "sampling_ratio": ratio, "aligned": aligned}
    case = one_level(image, boxes, size, **how)
    assert_close(forward(core, case), multilevel_roi_align(*case))


@pytest.mark.parametrize("ratio", [0, 1, 2, 4])
def test_image_and_boxes_moved_together_give_the_same(core: Core, ratio: int) -> None:
    generator = np.random.default_rng(0)
    content = generator.normal(size=(9, 8, 5))
    sides = generator.integers(1, 32, (20, 2)) / 8
    first = generator.integers(8, 32, (20, 2)) / 8
    boxes = np.concatenate([first, first + sides], 1) * 2
    results = []
    for y, x in [(0, 0), (3, 5), (11, 2)]:
        image = np.zeros((1, 24, 24, 5))
        image[0, y : y + 9, x : x + 8] = content
        moved = boxes + 2 * np.array([y, x, y, x])
        case = one_level(image, moved, (4, 2), sampling_ratio=ratio, spatial_scale=0.5)
        results.append(forward(core, case))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@pytest.mark.parametrize("aligned", [True, False])
def test_reversed_box_gives_the_bins_in_reverse_where_it_may_be_reversed(
    core: Core, aligned: bool
) -> None:
    """With given points and alignment; else it is one pixel wide, or has no points."""
    image = image_of(1, 8, 8, 3)
    box, turned = [1.25, 2.5, 6.75, 5.5], [6.75, 5.5, 1.25, 2.5]
    plain = forward(core, one_level(image, box, (3, 3), sampling_ratio=2, aligned=aligned))
    flipped = forward(core, one_level(image, turned, (3, 3), sampling_ratio=2, aligned=aligned))
    adaptive = forward(core, one_level(image, turned, (3, 3), aligned=aligned))
    if aligned:
        assert_close(flipped, plain[:, ::-1, ::-1])
        assert_same(adaptive, np.zeros_like(plain))
    else:
        pixel = [6.75, 5.5, 7.75, 6.5]
        small = forward(core, one_level(image, pixel, (3, 3), sampling_ratio=2, aligned=aligned))
        assert_same(flipped, small)
        assert adaptive.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=name_of)
@pytest.mark.parametrize("aligned", [True, False])
def test_gradient_to_boxes_looks_right_on_pixel_centres_and_stands_still_where_clamped(
    core: Core, aligned: bool, dtype: Any
) -> None:
    image = np.array([0, 1, 5, 7], dtype).reshape(1, 1, 4, 1)
    slopes = {-1.0: 0, -0.5: 0, 0.0: 1, 0.5: 1, 1.0: 4, 1.5: 4, 2.0: 2, 2.5: 2, 3.0: 0, 4.0: 0}
    for position, slope in slopes.items():
        x = position if aligned else position - 0.5
        case = one_level(image, [0, x, 1, x + 1], (1, 1), sampling_ratio=1, aligned=aligned)
        gradient = to_boxes(core.roi_align_boxes_grad, case, np.ones((1, 1, 1, 1), dtype))
        assert_same(gradient, np.array([[0, slope / 2, 0, slope / 2]], dtype))


def test_infinite_pixel_reaches_the_gradient_of_the_corners_that_it_moves_alone(core: Core) -> None:
    image = np.arange(16.0).reshape(1, 4, 4, 1)
    image[:, :, 2] = np.inf
    case = one_level(image, [[0.25, 1, 1.25, 2]], (1, 1), sampling_ratio=1)
    # The sample stands on column 1: its neighbour has no weight, and a slope along x.
    gradient = core.roi_align_boxes_grad(
        np.ones((1, 1, 1, 1)), case.features, *case[1:4], case.spatial_scales, 1, True
    )
    assert_same(gradient, [[2, np.inf, 2, np.inf]])


def test_box_widened_to_a_pixel_moves_with_its_first_corner_alone(core: Core) -> None:
    """Without alignment, and in the units of the image; of one pixel or more, with both corners."""
    image = (np.arange(6.0)[:, None] * 10 + np.arange(7.0)).reshape(1, 6, 7, 1)
    grad = np.ones((1, 1, 1, 1))
    for box, expected in [
        ([4, 4, 4.5, 5], [5, 0.5, 0, 0]),
        ([4, 4, 3, 1], [5, 0.5, 0, 0]),
        ([4, 4, 6, 6], [2.5, 0.25, 2.5, 0.25]),
    ]:
        case = one_level(image, box, (1, 1), spatial_scale=0.5, sampling_ratio=2, aligned=False)
        assert_close(to_boxes(core.roi_align_boxes_grad, case, grad), np.array([expected]))


NOT_FINITE = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=name_of)
def test_boxes_that_are_not_finite_and_padding_give_zeros_and_no_gradient(
    core: Core, dtype: Any, ratio: int, aligned: bool
) -> None:
    """Whatever the features, and whatever stands in the boxes and levels of padding."""
    boxes = np.tile(np.array([1, 1, 4, 5], dtype), (14, 1))
    for k, (corner, number) in enumerate((c, n) for c in range(4) for n in NOT_FINITE):
        boxes[k, corner] = number
    indices = np.zeros(14, np.int64)
    indices[12:] = -1
    levels = np.array([0, 1] * 6 + [0, -(2**40)])
    features = [np.full((1, 6, 7, 3), np.nan, dtype), np.full((1, 3, 4, 3), np.inf, dtype)]
    case = RoiCase(features, boxes, indices, levels, (2, 3), [1.0, 0.5], ratio, aligned)
    assert_same(forward(core, case), np.zeros((14, 2, 3, 3), dtype))
    grad = np.full((14, 2, 3, 3), np.nan, dtype)
    for level, size in zip(
        to_features(core.roi_align_features_grad, case, grad), [(6, 7), (3, 4)], strict=True
    ):
        assert_same(level, np.zeros((1, *size, 3), dtype))
    assert_same(to_boxes(core.roi_align_boxes_grad, case, grad), np.zeros((14, 4), dtype))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_arrays_without_elements_give_zeros(core: Core, dtype: Any) -> None:
    def check(shape: tuple[int, int, int, int], count: int, index: int) -> None:
        case = one_level(np.ones(shape, dtype), [[0, 0, 2, 2]] * count, (2, 3))
        case = case._replace(box_indices=np.full(count, index, np.int32))
        assert_same(forward(core, case), np.zeros((count, 2, 3, shape[3]), dtype))
        grad = np.ones((count, 2, 3, shape[3]), dtype)
        grad_features = to_features(core.roi_align_features_grad, case, grad)
        assert_same(grad_features[0], np.zeros(shape, dtype))
        grad_boxes = to_boxes(core.roi_align_boxes_grad, case, grad)
        assert_same(grad_boxes, np.zeros((count, 4), case.boxes.dtype))

    check((1, 4, 5, 3), count=0, index=0)
    check((1, 4, 5, 0), count=2, index=0)
    check((1, 0, 5, 3), count=2, index=0)
    check((1, 4, 0, 3), count=2, index=0)
    check((0, 4, 5, 3), count=2, index=-1)
    check((0, 4, 5, 3), count=0, index=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=name_of)
@pytest.mark.parametrize("reach", [1e5, 1e9, 1e30])
def test_huge_adaptive_box_is_done_in_no_time(core: Core, reach: float, dtype: Any) -> None:
    """A bin of it has up to a million points a side, of which few lie inside the map."""
    image = image_of(1, 50, 40, 8, dtype=dtype)
    boxes = [[-reach, -reach, reach, reach], [0, 0, reach, reach], [3, -reach, 9, reach]]
    case = one_level(image, boxes, (7, 7))
    start = time.perf_counter()
    output = forward(core, case)
    gradient = to_features(core.roi_align_features_grad, case, output)[0]
    to_boxes(core.roi_align_boxes_grad, case, output)
    assert time.perf_counter() - start < 2
    few = case._replace(boxes=case.boxes[:2], output_size=(1, 1))
    none = np.zeros(2, np.int32)
    few = few._replace(box_indices=none, levels=none)
    assert_close(forward(core, few), multilevel_roi_align(*few))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("height", "width"), [(200, 272), (3, 9000)])
def test_mean_of_very_many_points_keeps_its_digits(
    core: Core, dtype: Any, height: int, width: int
) -> None:
    """A single sum of all weighted pixels is wrong in the fourth digit."""
    ones = np.ones((1, height, width, 9), dtype)
    case = one_level(ones, [[0, 0, height, width]], (1, 1))
    assert_close(forward(core, case), np.ones((1, 1, 1, 9), dtype))


@examples(100)
@given(roi_cases(dtypes=st.just(np.float64)))
def test_gradient_to_features_is_the_adjoint(core: Core, case: RoiCase) -> None:
    grad = upstream_of(case)
    output = forward(core, case)
    gradients = to_features(core.roi_align_features_grad, case, grad)
    back = sum(np.vdot(a, b) for a, b in zip(gradients, case.features, strict=True))
    norms = np.linalg.norm(output) * np.linalg.norm(grad)
    np.testing.assert_allclose(back, np.vdot(output, grad), 1e-12, 1e-12 * max(1, norms))


# More boxes and rows than there are threads and blocks; channels around vectors and chunks.
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
@pytest.mark.parametrize(("channels", "ratio"), [(1, 0), (64, 2), (67, 0)])
def test_many_boxes_on_large_maps_are_the_oracles(
    core: Core, channels: int, ratio: int, dtype: Any
) -> None:
    generator = np.random.default_rng(channels)
    features = [
        generator.normal(size=(2, *size, channels)).astype(dtype) for size in [(70, 61), (35, 31)]
    ]
    levels = generator.integers(0, 2, 120)
    kinds = generator.choice(["inside", "across", "small"], 120)
    boxes = np.array(
        [
            box_of(generator, kind, features[n].shape[1:3], 0.25 / 2**n)
            for kind, n in zip(kinds, levels, strict=True)
        ]
    )
    case = RoiCase(
        features,
        boxes.astype(np.float64 if dtype == np.float64 else np.float32),
        generator.integers(-1, 2, 120),
        levels,
        (7, 7),
        [0.25, 0.125],
        ratio,
        True,
    )
    assert_close(forward(core, case), multilevel_roi_align(*case))
    grad = upstream_of(case)
    expected = to_features(features_grad, case, grad)
    terms = to_features(features_grad, case, np.abs(grad.astype(np.float64)))
    actual = to_features(core.roi_align_features_grad, case, grad)
    for one, wanted, magnitudes in zip(actual, expected, terms, strict=True):
        assert_close_sums(one, wanted, magnitudes)


@pytest.mark.usefixtures("same_threads_afterwards")
@pytest.mark.parametrize("rois", ROIS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_results_are_bitwise_the_same_for_any_number_of_threads(
    core: Core, dtype: Any, rois: str
) -> None:
    core.set_num_threads(1)
    expected = roi_results(core, rois, dtype)
    for count in (2, 3, 8):
        core.set_num_threads(count)
        for actual, wanted in zip(roi_results(core, rois, dtype), expected, strict=True):
            assert_same_bits(actual, wanted)


_LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "fortran": np.asfortranarray,
    "flipped": lambda a: np.flip(np.flip(a, 0).copy(), 0),
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "list": lambda a: a.tolist(),
}


@pytest.mark.parametrize("layout", _LAYOUTS)
def test_layout_of_the_arrays_does_not_matter(core: Core, layout: str) -> None:
    lay = _LAYOUTS[layout]
    features = image_of(2, 6, 7, 5)
    boxes, indices = np.array([[0.5, 1, 4, 6], [2, 2.5, 3, 7]]), np.array([1, 0])
    case = one_level(features, boxes, (3, 2), sampling_ratio=2)._replace(box_indices=indices)
    laid = case._replace(features=[lay(features)], boxes=lay(boxes), box_indices=lay(indices))
    expected = multilevel_roi_align(*case)
    assert_close(forward(core, laid), expected)
    assert_close(
        to_boxes(core.roi_align_boxes_grad, laid, lay(expected)),
        to_boxes(boxes_grad, case, expected),
    )


@pytest.mark.skipif(sanitized(), reason="a sanitizer's memory is its own")
def test_forward_needs_little_memory_besides_its_output() -> None:
    """Under 5 % of the features' size, at the sizes of a detector."""
    output = run_python(
        """
        import numpy as np
        from helpers.core_library import load_core
        from helpers.memory import peak

        core = load_core()
        generator = np.random.default_rng(0)
        first = generator.uniform(0, 600, (1000, 2)).astype(np.float32)
        boxes = np.concatenate([first, first + generator.uniform(32, 400, (1000, 2))], 1)
        boxes, indices = boxes.astype(np.float32), np.zeros(1000, np.int32)
        for ratio, dtype in ((2, np.float32), (0, np.float32), (2, np.float16)):
            features = np.ones((1, 200, 272, 256), dtype)
            core.roi_align(features, boxes[:9], indices[:9], (7, 7), 0.25, ratio)
            before = peak()
            result = core.roi_align(features, boxes, indices, (7, 7), 0.25, ratio)
            extra = peak() - before - result.nbytes
            del result
            print(extra / features.nbytes)
            assert extra < 0.05 * features.nbytes, extra
        """
    )
    assert len(output.split()) == 3
