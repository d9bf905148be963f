"""Drawn arguments of `soft_dice_sums`: all activations, targets, powers, weights and extremes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from helpers.drawing import float_dtypes, generators
from helpers.tolerances import FLOAT_DTYPES

LABEL_DTYPES = [np.uint8, np.int32, np.int64]
# Around the lanes of a vector and of a tile, and the tile's 64 pixels.
CLASSES = (1, 2, 3, 7, 8, 21, 65)
ACTIVATIONS = ("softmax", "sigmoid", "none")
CONTENTS = ("any values", "large values", "infinite values", "equal values")
LARGE = 1e4


class DiceCase(NamedTuple):
    """Arguments of `soft_dice_sums`, in the order of the core's function."""

    logits: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None  # in the accumulator's dtype
    class_weights: np.ndarray | None  # in the accumulator's dtype
    ignore_label: int | None
    activation: str
    power: int
    dense: bool

    @property
    def wide(self) -> Any:
        """The accumulator's dtype."""
        return np.float64 if self.logits.dtype == np.float64 else np.float32

    @property
    def counts(self) -> np.ndarray:
        """Which pixels enter the sums."""
        counts = np.ones(self.logits.shape[:-1], bool)
        if self.weights is not None:
            counts &= self.weights != 0
        if self.ignore_label is not None:
            counts &= self.labels != self.ignore_label
        return counts

    def upstream(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Random gradients of the sums that depend on the logits."""
        generator = np.random.default_rng(1)
        shape = self.logits.shape[0], self.logits.shape[-1]
        numbers = generator.normal(size=shape), generator.normal(size=shape)
        entropy = generator.normal(size=shape[0])
        return tuple(part.astype(self.wide) for part in (*numbers, entropy))


def values_of(
    generator: np.random.Generator, shape: Any, activation: str, content: str
) -> np.ndarray:
    """Logits in float64; probabilities where there is no activation."""
    if activation == "none":
        numbers = generator.uniform(1e-3, 1, shape)
        if content != "any values":
            extreme = generator.choice([0.0, 1.0, 0.5, 2.0**-30], shape)
            numbers = np.where(generator.uniform(size=shape) < 0.4, extreme, numbers)
        return numbers
    if content == "equal values":
        return generator.choice([0.0, -2.5], shape)
    numbers = generator.normal(size=shape) * 3
    if content != "any values":
        extreme = LARGE if content == "large values" else np.inf
        chosen = generator.choice([-extreme, extreme], shape)
        numbers = np.where(generator.uniform(size=shape) < 0.3, chosen, numbers)
    return numbers


def labels_of(generator: np.random.Generator, shape: Any, dtype: Any, dense: bool) -> np.ndarray:
    """Dense targets of any dtype, or labels; `shape` is that of the logits."""
    if not dense:
        return generator.integers(0, shape[-1], shape[:-1]).astype(dtype)
    if np.dtype(dtype).kind in "iu" or generator.uniform() < 0.3:
        return generator.integers(0, 2, shape).astype(dtype)
    return generator.uniform(size=shape).astype(dtype)


@st.composite
def dice_cases(
    draw: st.DrawFn,
    dtypes: st.SearchStrategy[Any] = float_dtypes,
    classes: st.SearchStrategy[int] | None = None,
    largest: int = 150,
    poison: bool = True,
    for_ops: bool = False,
) -> DiceCase:
    """Any rank from 2 to 5; now and then no pixels or images, or none that counts.

    Args:
        draw: given by hypothesis.
        dtypes: of the logits.
        classes: by default one of `CLASSES`.
        largest: number of pixels of an image.
        poison: whether pixels that do not count may hold NaN and infinite numbers.
        for_ops: whether dense targets must be told from labels by their dtype and shape.
    """
    generator = draw(generators)
    dtype = draw(dtypes)
    wide = np.float64 if dtype == np.float64 else np.float32
    count = draw(st.sampled_from(CLASSES) if classes is None else classes)
    rank = draw(st.sampled_from([2, 3, 4, 4, 5]))
    side = st.integers(
        1, {2: 1, 3: largest, 4: int(largest**0.5), 5: int(largest ** (1 / 3))}[rank]
    )
    sides = [draw(st.integers(1, 3)), *(draw(side) for _ in range(rank - 2))]
    if draw(st.integers(0, 9)) == 9:
        sides[draw(st.integers(0, len(sides) - 1))] = 0
    shape = (*sides, count)

    activation = draw(st.sampled_from(ACTIVATIONS))
    content = draw(st.sampled_from(CONTENTS))
    logits = values_of(generator, shape, activation, content).astype(dtype)
    dense = draw(st.booleans())
    kinds = [*LABEL_DTYPES, *FLOAT_DTYPES] if dense else LABEL_DTYPES
    if dense and for_ops and count == 1:
        kinds = FLOAT_DTYPES
    kind = draw(st.sampled_from(kinds))
    single = count == 1 and activation != "softmax" and not dense
    labels = labels_of(generator, (*sides, 2) if single else shape, kind, dense)
    weights = class_weights = ignore_label = None
    if draw(st.booleans()):
        weights = generator.uniform(0.1, 2, sides).astype(wide)
        weights[generator.uniform(size=sides) < draw(st.sampled_from([0, 0.2, 1]))] = 0
    if draw(st.booleans()):
        class_weights = generator.choice([0, 0.5, 1, 1.7], count).astype(wide)
    if not dense and draw(st.booleans()):
        ignore_label = draw(st.sampled_from([255, 0, -1, 254]))
        if ignore_label >= 0 or kind != np.uint8:
            share = draw(st.sampled_from([0, 0.2, 1]))
            labels[generator.uniform(size=sides) < share] = ignore_label
    case = DiceCase(
        logits,
        labels,
        weights,
        class_weights,
        ignore_label,
        activation,
        draw(st.sampled_from([1, 2])),
        dense,
    )
    if poison and draw(st.booleans()):
        poisoned(generator, case)
    return case


def poisoned(generator: np.random.Generator, case: DiceCase) -> None:
    """Puts NaN and infinite numbers where nothing counts."""
    lost = ~case.counts
    for array in (case.logits, case.labels if case.dense else None):
        if array is not None and array.dtype.kind not in "iu":
            wild = generator.choice([np.nan, np.inf, -np.inf], array.shape).astype(array.dtype)
            array[lost] = wild[lost]


def call(function: Callable[..., Any], case: DiceCase) -> Any:
    """Calls a function of tensors, which sees for itself whether targets are dense."""
    return function(*case[:-1])


def smooth_case(activation: str, power: int, dense: bool, classes: int) -> DiceCase:
    """A few pixels in float64, away from where anything bends; two are ignored."""
    generator = np.random.default_rng(0)
    shape = (2, 2, 2, classes)
    logits = (
        generator.normal(size=shape) if activation != "none" else generator.uniform(0.1, 0.9, shape)
    )
    single = classes == 1 and activation != "softmax"
    labels = generator.integers(0, 2 if single else classes, shape[:-1])
    labels[0, 0, 1] = labels[1, 1, 0] = 255
    return DiceCase(
        logits,
        generator.uniform(size=shape) if dense else labels,
        generator.uniform(0.5, 2, shape[:-1]),
        generator.uniform(0.5, 2, classes),
        None if dense else 255,
        activation,
        power,
        dense,
    )


def tensors_of(
    function: Callable[..., Any], case: DiceCase
) -> tuple[list[np.ndarray], Callable[..., Any]]:
    """The floating arguments of a case, and the function of them alone; a pixel has no weight."""
    keep = np.ones(case.logits.shape[:-1])
    keep[1, 0, 0] = 0
    arrays = [case.logits, case.weights, case.class_weights]
    if not case.dense:
        return arrays, lambda logits, weights, class_weights: function(
            logits, case.labels, weights * keep, class_weights, *case[4:-1]
        )
    return [*arrays, case.labels], lambda logits, weights, class_weights, labels: function(
        logits, labels, weights * keep, class_weights, *case[4:-1]
    )
