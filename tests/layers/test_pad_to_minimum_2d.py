"""`PadToMinimum2D`: what it appends, sizes known and unknown, config."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfseg_ops.layers import PadToMinimum2D

IMAGE = np.random.default_rng(0).normal(size=(2, 4, 9, 3)).astype(np.float32)


@pytest.mark.parametrize("jit_compile", [None, False, True])
@pytest.mark.parametrize("size", [1, 6, (4, 9), (2, 12)])
def test_zeros_are_appended_where_they_lack(size, jit_compile) -> None:
    layer = PadToMinimum2D(size)
    call = layer if jit_compile is None else tf.function(layer, jit_compile=jit_compile)
    padded = call(IMAGE)
    least = (size, size) if isinstance(size, int) else size
    assert padded.shape == (2, max(4, least[0]), max(9, least[1]), 3)
    assert layer.compute_output_shape(IMAGE.shape) == tuple(padded.shape)
    np.testing.assert_array_equal(padded[:, :4, :9], IMAGE)
    assert np.abs(padded).sum() == pytest.approx(np.abs(IMAGE).sum())


def test_size_may_be_unknown_until_the_call() -> None:
    x = keras.Input([None, 5, 3])
    padded = PadToMinimum2D(7)(x)
    assert padded.shape == (None, None, 7, 3)
    assert keras.Model(x, padded)(np.zeros([1, 8, 5, 3])).shape == (1, 8, 7, 3)


def test_bad_size_is_named() -> None:
    with pytest.raises(ValueError, match="PadToMinimum2D: 'size' must "):
        PadToMinimum2D(0)


def test_other_ranks_than_four_are_refused() -> None:
    with pytest.raises(ValueError, match=r"PadToMinimum2D: 'inputs' must have shape \[batch, "):
        PadToMinimum2D(3)(IMAGE[0])


def test_config_makes_the_same_layer() -> None:
    assert PadToMinimum2D.from_config(PadToMinimum2D((3, 4)).get_config()).size == [3, 4]
