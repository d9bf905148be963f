"""Calls of the core and of the oracle with a drawn RoI Align."""

import types
from collections.abc import Callable
from typing import Any

import numpy as np

from helpers.drawing import RoiCase


def forward(core: types.ModuleType, case: RoiCase) -> np.ndarray:
    """The output, of the function of one level where there is one."""
    if len(case.features) > 1:
        return np.asarray(core.multilevel_roi_align(*case))
    return np.asarray(
        core.roi_align(
            case.features[0],
            case.boxes,
            case.box_indices,
            case.output_size,
            case.spatial_scales[0],
            case.sampling_ratio,
            case.aligned,
        )
    )


def to_features(function: Callable[..., Any], case: RoiCase, grad: np.ndarray) -> list[np.ndarray]:
    """The gradients to the features, by the core's function or the oracle."""
    places = case.boxes, case.box_indices, case.levels
    how = case.spatial_scales, case.sampling_ratio, case.aligned
    return list(function(grad, *places, case.sizes, *how))


def to_boxes(function: Callable[..., Any], case: RoiCase, grad: np.ndarray) -> np.ndarray:
    """The gradient to the boxes, by the core's function or the oracle."""
    places = case.boxes, case.box_indices, case.levels
    how = case.spatial_scales, case.sampling_ratio, case.aligned
    return np.asarray(function(grad, case.features, *places, *how))


def upstream_of(case: RoiCase) -> np.ndarray:
    """Random gradients of the output."""
    shape = (len(case.boxes), *case.output_size, case.features[0].shape[3])
    return np.random.default_rng(1).normal(size=shape).astype(case.features[0].dtype)
