"""The same calls of the core, for comparing threads, callers and instruction levels bit by bit."""

import types
from collections.abc import Iterator
from typing import Any

import numpy as np

from helpers.drawing import masks_of, values
from helpers.tolerances import FLOAT_DTYPES, name_of

# Large enough for several blocks and threads, with rows, columns and lanes left over.
SHAPE = (2, 83, 65, 67)
POOLINGS: dict[str, Any] = {
    "cells": ((2, 2), (2, 2), "VALID"),
    "overlapping": ((3, 3), (2, 2), "SAME"),
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


def all_sample_results(core: types.ModuleType) -> Iterator[tuple[str, np.ndarray]]:
    """All poolings and dtypes, with names."""
    for dtype in FLOAT_DTYPES:
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
