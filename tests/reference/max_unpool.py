"""Max-unpooling, its gradient and its rules for masks, by plain loops."""

import math
from collections.abc import Sequence

import numpy as np

from reference.max_pool_with_argmax import window_starts

Windows = tuple[Sequence[int], Sequence[int]]


def max_unpool(
    input: np.ndarray,
    argmax: np.ndarray,
    output_shape: Sequence[int],
    include_batch_in_index: bool = False,
    windows: Windows | None = None,
) -> np.ndarray:
    """Adds the values one by one, in row-major order, and rounds once at the end.

    Raises ValueError at the first illegal mask, with the words of the ops.
    """
    batch, _, _, channels = argmax.shape
    require_legal(argmax, output_shape, include_batch_in_index, windows)
    wide = np.float64 if input.dtype == np.float64 else np.float32
    sums = np.zeros((batch, output_shape[0] * output_shape[1] * channels), wide)
    with np.errstate(over="ignore", invalid="ignore"):
        for element in np.ndindex(argmax.shape):
            place = _place(element[0], int(argmax[element]), sums.shape, include_batch_in_index)
            sums[place] += wide(input[element])
        output: np.ndarray = sums.astype(input.dtype)
    return output.reshape(batch, *output_shape, channels)


def max_unpool_grad(
    grad: np.ndarray, argmax: np.ndarray, include_batch_in_index: bool = False
) -> np.ndarray:
    """Reads `grad` at the position that each mask names."""
    require_legal(argmax, grad.shape[1:3], include_batch_in_index)
    grad_input = np.zeros(argmax.shape, grad.dtype)
    images = grad.reshape(grad.shape[0], math.prod(grad.shape[1:]))
    for element in np.ndindex(argmax.shape):
        place = _place(element[0], int(argmax[element]), images.shape, include_batch_in_index)
        grad_input[element] = images[place]
    return grad_input


def require_legal(
    argmax: np.ndarray,
    output_shape: Sequence[int],
    include_batch_in_index: bool = False,
    windows: Windows | None = None,
) -> None:
    """Raises ValueError at the first illegal mask, with the words of the ops."""
    batch, _, _, channels = argmax.shape
    image = output_shape[0] * output_shape[1] * channels
    limit = batch * image if include_batch_in_index else image
    for element in np.ndindex(argmax.shape):
        position = int(argmax[element])
        rule = None
        if not 0 <= position < limit:
            rule = f"lie in [0, {limit})"
        elif windows is not None:
            in_image = position - element[0] * image if include_batch_in_index else position
            if not in_own_window(in_image, element, argmax.shape, output_shape, windows):
                ksize, strides = (list(numbers) for numbers in windows)
                rule = f"lie in its own window of ksize {ksize} and strides {strides}"
        if rule is not None:
            raise ValueError(f"max_unpool: 'argmax' must {rule}, got {position} at {list(element)}")


def in_own_window(
    in_image: int,
    element: Sequence[int],
    shape: Sequence[int],
    output_shape: Sequence[int],
    windows: Windows,
) -> bool:
    """Whether a position lies in its mask's image, channel and window, be it VALID or SAME."""
    _, i, j, c = element
    channels = shape[3]
    if not 0 <= in_image < output_shape[0] * output_shape[1] * channels:
        return False
    y, x = divmod(in_image // channels, output_shape[1])
    return (
        in_image % channels == c
        and y in _reach(i, shape[1], output_shape[0], windows[0][0], windows[1][0])
        and x in _reach(j, shape[2], output_shape[1], windows[0][1], windows[1][1])
    )


def _reach(window: int, count: int, size: int, ksize: int, stride: int) -> range:
    """The rows or columns of one of `count` windows, as VALID or as SAME pooling places it.

    So many windows may fit both: then it reaches from where SAME begins to where VALID ends.
    """
    same = window_starts(size, ksize, stride, "SAME")
    first = same[window] if len(same) == count else window * stride
    return range(first, window * stride + ksize)


def _place(
    image: int, position: int, shape: tuple[int, ...], include_batch_in_index: bool
) -> tuple[int, int]:
    if include_batch_in_index:
        image, position = divmod(position, shape[1])
    return image, position
