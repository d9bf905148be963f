"""The core on numpy arrays, without TensorFlow: cc/numpy."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

def level() -> str: ...
def num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...
def max_pool_with_argmax(
    input: npt.ArrayLike,
    ksize: Sequence[int],
    strides: Sequence[int],
    padding: str,
    output_dtype: npt.DTypeLike = "int64",
    include_batch_in_index: bool = False,
) -> tuple[np.ndarray, np.ndarray]: ...
def max_unpool(
    input: npt.ArrayLike,
    argmax: npt.ArrayLike,
    output_shape: Sequence[int],
    include_batch_in_index: bool = False,
    windows: Sequence[int] = (),
) -> np.ndarray: ...
def max_unpool_grad(
    grad: npt.ArrayLike, argmax: npt.ArrayLike, include_batch_in_index: bool = False
) -> np.ndarray: ...
def roi_align(
    features: npt.ArrayLike,
    boxes: npt.ArrayLike,
    box_indices: npt.ArrayLike,
    output_size: Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> np.ndarray: ...
def multilevel_roi_align(
    features: Sequence[npt.ArrayLike],
    boxes: npt.ArrayLike,
    box_indices: npt.ArrayLike,
    levels: npt.ArrayLike,
    output_size: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> np.ndarray: ...
def roi_align_features_grad(
    grad: npt.ArrayLike,
    boxes: npt.ArrayLike,
    box_indices: npt.ArrayLike,
    levels: npt.ArrayLike,
    sizes: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> list[np.ndarray]: ...
def roi_align_boxes_grad(
    grad: npt.ArrayLike,
    features: Sequence[npt.ArrayLike],
    boxes: npt.ArrayLike,
    box_indices: npt.ArrayLike,
    levels: npt.ArrayLike,
    spatial_scales: Sequence[float],
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> np.ndarray: ...
def soft_dice_sums(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    class_weights: npt.ArrayLike | None = None,
    ignore_label: int | None = None,
    activation: str = "softmax",
    power: int = 1,
    dense: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]: ...
def soft_dice_sums_grad(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    weights: npt.ArrayLike | None,
    class_weights: npt.ArrayLike | None,
    ignore_label: int | None,
    activation: str,
    power: int,
    dense: bool,
    grad_intersection: npt.ArrayLike,
    grad_prediction: npt.ArrayLike,
    grad_cross_entropy: npt.ArrayLike,
) -> np.ndarray: ...
def gaussian_filter(
    values: npt.ArrayLike, lattice: Sequence[npt.ArrayLike], reverse: bool = False
) -> np.ndarray: ...
def gaussian_filter_features_grad(
    values: npt.ArrayLike,
    lattice: Sequence[npt.ArrayLike],
    grad: npt.ArrayLike,
    reverse: bool = False,
) -> np.ndarray: ...
def mean_field_step(
    q: npt.ArrayLike,
    unary: npt.ArrayLike,
    lattices: Sequence[Sequence[npt.ArrayLike]],
    mixing: npt.ArrayLike,
    normalizations: Sequence[str],
    logits: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray: ...
def mean_field_step_grad(
    q: npt.ArrayLike,
    unary: npt.ArrayLike,
    lattices: Sequence[Sequence[npt.ArrayLike]],
    mixing: npt.ArrayLike,
    normalizations: Sequence[str],
    output: npt.ArrayLike,
    grad: npt.ArrayLike,
    logits: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...
def mean_field_step_features_grad(
    q: npt.ArrayLike,
    unary: npt.ArrayLike,
    lattices: Sequence[Sequence[npt.ArrayLike]],
    mixing: npt.ArrayLike,
    normalizations: Sequence[str],
    output: npt.ArrayLike,
    grad: npt.ArrayLike,
    logits: bool = False,
) -> list[np.ndarray]: ...
def permutohedral_lattice(features: npt.ArrayLike) -> tuple[np.ndarray, ...]: ...
