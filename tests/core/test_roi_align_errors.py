"""Bad input of the core's RoI Align and its gradients: what is wrong is named."""

import types
from typing import Any

import numpy as np
import pytest
from helpers.drawing import RoiCase
from helpers.roi_calls import to_boxes, to_features, upstream_of
from helpers.tolerances import INDEX_DTYPES
from reference.roi_align import multilevel_roi_align, roi_align

Core = types.ModuleType

_FEATURES = np.zeros((2, 4, 5, 3), np.float32)
_OK: dict[str, Any] = {
    "features": _FEATURES,
    "boxes": np.array([[0, 0, 2, 2], [1, 1, 3, 4]], np.float32),
    "box_indices": np.array([0, 1]),
    "output_size": (2, 3),
}
_FLOATS = "must be float16, bfloat16, float32 or float64, got"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (
            {"features": _FEATURES[0]},
            ValueError,
            "'features' must have shape [batch, height, width, channels], got [4, 5, 3]",
        ),
        (
            {"features": np.zeros((1,) * 9)},
            ValueError,
            "'features' must have shape [batch, height, width, channels], got rank 9",
        ),
        (
            {"boxes": np.zeros((2, 5), np.float32)},
            ValueError,
            "'boxes' must have shape [num_boxes, 4], got [2, 5]",
        ),
        (
            {"boxes": np.zeros(4, np.float32)},
            ValueError,
            "'boxes' must have shape [num_boxes, 4], got [4]",
        ),
        (
            {"box_indices": np.zeros(3, np.int32)},
            ValueError,
            "'box_indices' must have shape [num_boxes=2], got [3]",
        ),
        (
            {"box_indices": np.zeros((2, 1), np.int32)},
            ValueError,
            "'box_indices' must have shape [num_boxes=2], got [2, 1]",
        ),
        (
            {"output_size": (0, 3)},
            ValueError,
            "'output_size' must lie in [1, 2147483647], got [0, 3]",
        ),
        (
            {"output_size": (2**31 - 1, 2**31 - 1)},
            ValueError,
            "'output_size' must fit into memory, got [2147483647, 2147483647]",
        ),
        (
            {"sampling_ratio": -1},
            ValueError,
            "'sampling_ratio' must lie in [0, 1048576], got -1",
        ),
        (
            {"sampling_ratio": 2**20 + 1},
            ValueError,
            "'sampling_ratio' must lie in [0, 1048576], got 1048577",
        ),
        ({"features": _FEATURES.astype(np.int32)}, TypeError, f"'features' {_FLOATS} int32"),
        (
            {"boxes": np.zeros((2, 4))},
            TypeError,
            "'boxes' must be float32, got float64",
        ),
        (
            {"features": _FEATURES.astype(np.float64)},
            TypeError,
            "'boxes' must be float64, got float32",
        ),
        (
            {"box_indices": np.zeros(2, np.float32)},
            TypeError,
            "'box_indices' must be int32 or int64, got float32",
        ),
        # Nothing to compute is no reason to accept what is wrong otherwise.
        (
            {"boxes": np.zeros((0, 4)), "box_indices": np.zeros(0, np.int64)},
            TypeError,
            "'boxes' must be float32, got float64",
        ),
    ],
    ids=[
        "rank 3",
        "rank 9",
        "five corners",
        "one box",
        "too many indices",
        "rank of indices",
        "no bins",
        "huge size",
        "negative ratio",
        "huge ratio",
        "integer features",
        "wide boxes",
        "narrow boxes",
        "float indices",
        "dtype of nothing",
    ],
)
def test_wrong_argument_is_named(
    core: Core, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        core.roi_align(**{**_OK, **change})
    assert str(caught.value) == f"roi_align: {words}"


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_scale_must_be_positive_and_finite(core: Core, scale: float) -> None:
    with pytest.raises(
        ValueError, match=r"roi_align: 'spatial_scale.* must be positive and finite"
    ):
        core.roi_align(**_OK, spatial_scale=scale)


_SEVERAL: dict[str, Any] = {
    **_OK,
    "features": [_FEATURES, _FEATURES[:, :2, :2]],
    "levels": np.array([1, 0]),
    "spatial_scales": [1.0, 0.5],
}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (
            {"features": [_FEATURES, _FEATURES[:1]]},
            ValueError,
            "'features[1]' must have shape [batch=2, height, width, channels=3], got [1, 4, 5, 3]",
        ),
        (
            {"features": [_FEATURES, _FEATURES[..., :2]]},
            ValueError,
            "'features[1]' must have shape [batch=2, height, width, channels=3], got [2, 4, 5, 2]",
        ),
        (
            {"features": [_FEATURES, _FEATURES.astype(np.float64)]},
            TypeError,
            "'features[1]' must be float32, got float64",
        ),
        (
            {"features": [_FEATURES] * 3},
            ValueError,
            "'spatial_scales' must have 3 numbers, got 2",
        ),
        (
            {"levels": np.zeros(3, np.int64)},
            ValueError,
            "'levels' must have shape [num_boxes=2], got [3]",
        ),
        (
            {"levels": np.zeros(2, np.float32)},
            TypeError,
            "'levels' must be int32 or int64, got float32",
        ),
    ],
    ids=["batch", "channels", "dtype", "scales", "number of levels", "float levels"],
)
def test_wrong_argument_of_several_levels_is_named(
    core: Core, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        core.multilevel_roi_align(**{**_SEVERAL, **change})
    assert str(caught.value) == f"multilevel_roi_align: {words}"


@pytest.mark.parametrize("count", [0, 17])
def test_there_are_one_to_sixteen_levels(core: Core, count: int) -> None:
    core.multilevel_roi_align(
        **{**_SEVERAL, "features": [_FEATURES] * 16, "spatial_scales": [1.0] * 16}
    )
    change = {"features": [_FEATURES] * count, "spatial_scales": [1.0] * count}
    with pytest.raises(ValueError, match=r"roi_align: '(features|spatial_scales)' must .* 1 to 16"):
        core.multilevel_roi_align(**{**_SEVERAL, **change})


ILLEGAL = [-2, 2, -(2**31), 2**31 - 1, 2**32, -(2**32) - 1, 2**63 - 1, -(2**63)]


@pytest.mark.parametrize(
    ("illegal", "index_dtype"),
    [(n, kind) for kind in INDEX_DTYPES for n in ILLEGAL if np.iinfo(kind).max >= abs(n + 0.5)],
)
@pytest.mark.parametrize("argument", ["box_indices", "levels"])
def test_first_illegal_index_or_level_is_named_by_all_functions(
    core: Core, argument: str, illegal: int, index_dtype: Any
) -> None:
    """One whose low bits are legal too, be there anything to compute or not."""
    maps = [np.zeros((2, 4, 5, 3), np.float32), np.zeros((2, 2, 3, 3), np.float32)]
    for boxes, channels in [(np.ones((9, 4)), 3), (np.full((9, 4), np.nan), 3), (np.ones(36), 0)]:
        places = {name: np.zeros(9, index_dtype) for name in ("box_indices", "levels")}
        places[argument][[4, 7]] = illegal, -7
        # The level of padding is not looked at.
        places["box_indices"][1], places["levels"][1] = -1, -5
        case = RoiCase(
            [level[..., :channels] for level in maps],
            boxes.reshape(9, 4).astype(np.float32),
            places["box_indices"],
            places["levels"],
            (2, 3),
            [1.0, 0.5],
            0,
            True,
        )
        grad = upstream_of(case)
        also = "be -1 or " if argument == "box_indices" else ""
        words = f"'{argument}' must {also}lie in [0, 2), got {illegal} at [4]"
        for call in (
            lambda case=case: core.multilevel_roi_align(*case),
            lambda case=case, grad=grad: to_features(core.roi_align_features_grad, case, grad),
            lambda case=case, grad=grad: to_boxes(core.roi_align_boxes_grad, case, grad),
            lambda case=case: multilevel_roi_align(*case),
        ):
            with pytest.raises(ValueError, match="roi_align") as caught:
                call()
            assert str(caught.value) == f"multilevel_roi_align: {words}"


def test_illegal_index_is_named_where_there_is_one_level(core: Core) -> None:
    words = "roi_align: 'box_indices' must be -1 or lie in [0, 2), got 5 at [1]"
    for function in (core.roi_align, roi_align):
        with pytest.raises(ValueError, match="box_indices") as caught:
            function(**{**_OK, "box_indices": np.array([-1, 5])})
        assert str(caught.value) == words


_GRAD = np.zeros((2, 2, 3, 3), np.float32)
_BACK: dict[str, Any] = {
    "grad": _GRAD,
    "boxes": _OK["boxes"],
    "box_indices": _OK["box_indices"],
    "levels": np.array([0, 0]),
    "spatial_scales": [1.0],
}


@pytest.mark.parametrize(
    ("change", "error", "words", "words_for_boxes"),
    [
        (
            {"grad": _GRAD[0]},
            ValueError,
            "'grad' must have shape [num_boxes, 1, 1, channels], got [2, 3, 3]",
            "'grad' must have shape [num_boxes=2, 1, 1, channels=3], got [2, 3, 3]",
        ),
        (
            {"grad": _GRAD[:1]},
            ValueError,
            "'boxes' must have shape [num_boxes=1, 4], got [2, 4]",
            "'grad' must have shape [num_boxes=2, 2, 3, channels=3], got [1, 2, 3, 3]",
        ),
        (
            {"levels": np.zeros(3, np.int64)},
            ValueError,
            "'levels' must have shape [num_boxes=2], got [3]",
            None,
        ),
        (
            {"sampling_ratio": -1},
            ValueError,
            "'sampling_ratio' must lie in [0, 1048576], got -1",
            None,
        ),
        (
            {"grad": _GRAD.astype(np.float64)},
            TypeError,
            "'boxes' must be float64, got float32",
            "'features' must be float64, got float32",
        ),
        ({"grad": _GRAD.astype(np.int32)}, TypeError, f"'grad' {_FLOATS} int32", "'features' "),
    ],
    ids=["rank", "boxes", "levels", "ratio", "wide grad", "integer grad"],
)
def test_wrong_argument_of_a_gradient_is_named(
    core: Core,
    change: dict[str, Any],
    error: type[Exception],
    words: str,
    words_for_boxes: str | None,
) -> None:
    arguments = {**_BACK, **change}
    with pytest.raises(error) as caught:
        core.roi_align_features_grad(**arguments, sizes=[2, 4, 5])
    assert str(caught.value) == f"roi_align: {words}"
    with pytest.raises(error) as caught:
        core.roi_align_boxes_grad(**arguments, features=[_FEATURES])
    assert str(caught.value).startswith(f"roi_align: {words_for_boxes or words}")


@pytest.mark.parametrize(
    "sizes", [[2, 4], [], [2, -4, 5], [2, 4, 2**31], [2**62, 2, 5], [2, -(2**63), 4]], ids=str
)
def test_wrong_sizes_of_features_are_errors(core: Core, sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"roi_align: '.*' must "):
        core.roi_align_features_grad(**_BACK, sizes=sizes)
