"""`CropLike2D`: the window it cuts, sizes known and unknown, bad input, config."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfseg_ops.layers import CropLike2D

IMAGE = np.random.default_rng(0).normal(size=(2, 7, 9, 3)).astype(np.float32)
LIKE = np.zeros([2, 4, 5, 1], np.float32)


@pytest.mark.parametrize(
    ("offset", "window"),
    [
        (0, IMAGE[:, :4, :5]),
        (2, IMAGE[:, 2:6, 2:7]),
        ((3, 1), IMAGE[:, 3:7, 1:6]),
        ("center", IMAGE[:, 1:5, 2:7]),
    ],
)
@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_window_is_that_of_numpy(offset, window, jit_compile) -> None:
    layer = CropLike2D(offset)
    call = layer if jit_compile is None else tf.function(layer, jit_compile=jit_compile)
    np.testing.assert_array_equal(call([IMAGE, LIKE]), window)


def test_size_may_be_unknown_until_the_call() -> None:
    x, like = keras.Input([None, None, 3]), keras.Input([None, 5, 1])
    cropped = CropLike2D("center")([x, like])
    assert cropped.shape == (None, None, 5, 3)
    model = keras.Model([x, like], cropped)
    np.testing.assert_array_equal(model([IMAGE, LIKE]), IMAGE[:, 1:5, 2:7])


def test_window_beyond_the_tensor_is_refused() -> None:
    with pytest.raises(ValueError, match=r"CropLike2D: 'x' must hold a window of \[4, 5\] at "):
        CropLike2D(4)([IMAGE, LIKE])
    unknown = tf.TensorSpec([2, None, None, None])
    layer = tf.function(CropLike2D(4), input_signature=[[unknown, unknown]])
    with pytest.raises(tf.errors.InvalidArgumentError):
        layer([tf.constant(IMAGE), tf.constant(LIKE)])


@pytest.mark.parametrize("offset", ["middle", -1, (1, 2, 3), 1.5])
def test_bad_offset_is_named(offset) -> None:
    with pytest.raises(ValueError, match="CropLike2D: 'offset' must "):
        CropLike2D(offset)


def test_other_inputs_than_two_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'inputs' must be \[x, like\]"):
        CropLike2D()([IMAGE, LIKE, LIKE])


def test_other_ranks_than_four_are_refused() -> None:
    with pytest.raises(ValueError, match=r"CropLike2D: 'like' must have shape \[batch, height, "):
        CropLike2D()([IMAGE, LIKE[0]])


@pytest.mark.parametrize("offset", [3, (1, 2), "center"])
def test_config_makes_the_same_layer(offset) -> None:
    layer = CropLike2D(offset)
    again = CropLike2D.from_config(layer.get_config())
    assert again.offset == layer.offset
