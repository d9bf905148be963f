"""The same calls of the core, for comparing threads, callers and instruction levels bit by bit."""

import types
from collections.abc import Iterator
from typing import Any

import numpy as np

from helpers.crf_cases import image_features
from helpers.dice_cases import DiceCase, labels_of, values_of
from helpers.drawing import BOX_KINDS, WILD_BOX_KINDS, RoiCase, box_of, masks_of, values
from helpers.tolerances import FLOAT_DTYPES, name_of

# Large enough for several blocks and threads, with rows, columns and lanes left over.
SHAPE = (2, 83, 65, 67)
POOLINGS: dict[str, Any] = {
    "cells": ((2, 2), (2, 2), "VALID"),
    "overlapping": ((3, 3), (2, 2), "SAME"),
}
# Activation, power, whether targets are dense.
DICE: dict[str, tuple[str, int, bool]] = {
    "softmax": ("softmax", 1, False),
    "softmax, dense": ("softmax", 2, True),
    "sigmoid": ("sigmoid", 1, False),
    "probabilities": ("none", 2, True),
}
# Classes of a step, and whether they are mixed by matrices.
STEPS = {"diagonal": (21, False), "matrices": (37, True)}
# Spatial scales of the levels, sampling ratio.
ROIS: dict[str, tuple[list[float], int]] = {
    "one level": ([1.0], 2),
    "pyramid, adaptive": ([0.5, 0.25, 0.125], 0),
}


def sample_results(core: types.ModuleType, pooling: str, dtype: Any) -> list[np.ndarray]:
    """Pools, unpools and gathers. Sums of many values would round differently in other orders."""
    generator = np.random.default_rng(0)
    image = values(generator, SHAPE, dtype, "any values")
    image[:, ::5, ::7] = values(generator, image[:, ::5, ::7].shape, dtype, "special values")
    output, argmax = core.max_pool_with_argmax(image, *POOLINGS[pooling])
    masks = masks_of(generator, SHAPE, POOLINGS[pooling], np.int32)
    anywhere = generator.integers(0, 997, argmax.shape)
    return [
        output,
        argmax,
        core.max_unpool(output, masks, SHAPE[1:3]),
        core.max_unpool(output, anywhere, SHAPE[1:3]),
        core.max_unpool_grad(image, argmax),
    ]


def roi_case(rois: str, dtype: Any) -> RoiCase:
    """Boxes of all kinds on maps of `SHAPE` and smaller ones, in a few bins each."""
    generator = np.random.default_rng(0)
    scales, ratio = ROIS[rois]
    batch, height, width, channels = SHAPE
    sizes = [(height >> level, width >> level) for level in range(len(scales))]
    kinds = (*BOX_KINDS, *WILD_BOX_KINDS) * 12
    levels = generator.integers(0, len(scales), len(kinds))
    boxes = [
        box_of(generator, kind, sizes[level], scales[level])
        for kind, level in zip(kinds, levels, strict=True)
    ]
    return RoiCase(
        [values(generator, (batch, *size, channels), dtype, "any values") for size in sizes],
        np.array(boxes, np.float64 if dtype == np.float64 else np.float32),
        generator.integers(-1, batch, len(kinds)),
        levels,
        (7, 5),
        scales,
        ratio,
        True,
    )


def roi_results(core: types.ModuleType, rois: str, dtype: Any) -> list[np.ndarray]:
    """Resamples, and sums many values into both gradients."""
    case = roi_case(rois, dtype)
    output = core.multilevel_roi_align(*case)
    places, how = (case.boxes, case.box_indices, case.levels), (case.spatial_scales, *case[6:])
    return [
        output,
        *core.roi_align_features_grad(output, *places, case.sizes, *how),
        core.roi_align_boxes_grad(output, case.features, *places, *how),
    ]


def dice_case(kind: str, dtype: Any) -> DiceCase:
    """Images of `SHAPE`, with all kinds of weights."""
    generator = np.random.default_rng(0)
    activation, power, dense = DICE[kind]
    wide = np.float64 if dtype == np.float64 else np.float32
    labels = labels_of(generator, SHAPE, np.float32 if dense else np.int32, dense)
    if not dense:
        labels[:, ::5, ::7] = 255
    return DiceCase(
        values_of(generator, SHAPE, activation, "any values").astype(dtype),
        labels,
        generator.uniform(0, 2, SHAPE[:-1]).astype(wide),
        generator.uniform(0, 2, SHAPE[-1]).astype(wide),
        None if dense else 255,
        activation,
        power,
        dense,
    )


def dice_results(core: types.ModuleType, kind: str, dtype: Any) -> list[np.ndarray]:
    """The sums of many pixels, and their gradient."""
    case = dice_case(kind, dtype)
    return [
        *core.soft_dice_sums(*case),
        core.soft_dice_sums_grad(*case, *case.upstream()),
    ]


def crf_case(kind: str, dtype: Any) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """The features of two kernels of two pictures, q and unary, and the mixing."""
    generator = np.random.default_rng(0)
    classes, matrices = STEPS[kind]
    images = generator.uniform(0, 255, (2, 12, 10, 3)).repeat(8, 1).repeat(8, 2)
    features = image_features(images, 3.0, 30.0, 60.0)
    values = generator.normal(size=(2, 2, features[0].shape[1], classes))
    wide = np.float64 if dtype == np.float64 else np.float32
    shape = (2, classes, classes) if matrices else (2, classes)
    mixing = generator.uniform(0, 0.1, shape).astype(wide)
    return [one.astype(np.float32) for one in features], values.astype(dtype), mixing


def crf_results(core: types.ModuleType, kind: str, dtype: Any) -> list[np.ndarray]:
    """Lattices, a filter, a step, and all gradients."""
    features, (q, unary), mixing = crf_case(kind, dtype)
    lattices = [core.permutohedral_lattice(one) for one in features]
    filtered = core.gaussian_filter(q, lattices[1])
    results = [filtered, core.gaussian_filter_features_grad(q, lattices[0], unary)]
    for *members, neighbours, norms, num_vertices in lattices:
        results += [*members, norms, num_vertices]
        # Behind the last vertex of an image nothing is written.
        for own, count in zip(neighbours, num_vertices, strict=True):
            results.append(own[:, :count])
    # Not in float64, whose exp is the C library's, which has levels of its own.
    logits = dtype == np.float64
    args = (q, unary, lattices, mixing, ["symmetric", "after"])
    output = core.mean_field_step(*args, logits=logits)
    results += [output, *core.mean_field_step_grad(*args, output, q, logits=logits)]
    return results + core.mean_field_step_features_grad(*args, output, q, logits=logits)


def all_sample_results(core: types.ModuleType) -> Iterator[tuple[str, np.ndarray]]:
    """All poolings, kinds of RoI Align, kinds of sums and dtypes, with names."""
    for dtype in FLOAT_DTYPES:
        for kind in STEPS:
            for k, result in enumerate(crf_results(core, kind, dtype)):
                yield f"{name_of(dtype)} CRF, {kind} {k}", result
        # Not in float64, whose exp is the C library's, which has levels of its own.
        for kind in DICE if dtype != np.float64 else ():
            for k, result in enumerate(dice_results(core, kind, dtype)):
                yield f"{name_of(dtype)} {kind} {k}", result
        for rois in ROIS:
            for k, result in enumerate(roi_results(core, rois, dtype)):
                yield f"{name_of(dtype)} {rois} {k}", result
        for pooling in POOLINGS:
            for k, result in enumerate(sample_results(core, pooling, dtype)):
                yield f"{name_of(dtype)} {pooling} {k}", result


def every_number_pooled(core: types.ModuleType) -> Iterator[tuple[str, np.ndarray]]:
    """Every bit pattern of 16 bits through the accumulator, in whole vectors and single lanes."""
    for dtype in FLOAT_DTYPES[:2]:
        every = np.arange(2**16, dtype=np.uint16).view(dtype)
        for channels in (64, 5):
            image = np.resize(every, (1, 1, -(-every.size // channels), channels))
            output, _ = core.max_pool_with_argmax(image, (1, 1), (1, 1), "VALID")
            yield f"{name_of(dtype)} every number {channels}", output
