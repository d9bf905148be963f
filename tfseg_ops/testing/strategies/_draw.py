"""What the strategies draw from."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from hypothesis import strategies as st

Size: TypeAlias = int | st.SearchStrategy[int]

BATCH = st.integers(0, 3)
SIDE = st.integers(0, 9)
CHANNELS = st.integers(1, 4)


def draw_size(draw: st.DrawFn, op: str, name: str, size: Size, minimum: int = 0) -> int:
    value = draw(size) if isinstance(size, st.SearchStrategy) else size
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise ValueError(
            f"{op}: '{name}' must be an int of at least {minimum} or a strategy of such, "
            f"got {value!r}"
        )
    return int(value)


def draw_generator(draw: st.DrawFn) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
