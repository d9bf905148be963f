"""Outputs larger than the caches, wherever numpy's memory begins; tests/ops has TensorFlow's."""

import types
from typing import Any

import numpy as np
import pytest
from helpers.large import large_windows, masks_of, unpooled
from helpers.tolerances import assert_same_bits, name_of

Core = types.ModuleType


@pytest.mark.parametrize("channels", [64, 65])
@pytest.mark.parametrize("dtype", [np.float16, np.float32], ids=name_of)
def test_every_element_is_written(core: Core, dtype: Any, channels: int) -> None:
    values, larger = large_windows(dtype, channels)
    image, masks = unpooled(values, larger), masks_of(larger, np.int32)
    output, argmax = core.max_pool_with_argmax(image, (1, 2), (1, 2), "VALID", np.int32)
    assert_same_bits(output, values)
    assert_same_bits(argmax, masks)
    assert_same_bits(core.max_unpool(values, masks, image.shape[1:3]), image)
    assert_same_bits(core.max_unpool_grad(image, masks), values)
