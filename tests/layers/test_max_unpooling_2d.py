"""`MaxUnpooling2D`: sizes with and without `like`, foreign masks, shapes, config, precision."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.messages import words_of
from helpers.tolerances import assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.max_unpool import max_unpool

from tfseg_ops import ops
from tfseg_ops.layers import MaxPoolingWithArgmax2D, MaxUnpooling2D
from tfseg_ops.testing.strategies import windows

sides = st.integers(1, 12)


def image_of(*shape: int) -> np.ndarray:
    """Random float32 values, all positive."""
    return np.random.default_rng(0).uniform(1, 2, size=shape).astype(np.float32)


@settings(max_examples=60)
@given(st.data(), sides, sides)
def test_like_restores_any_size_exactly(data: st.DataObject, height: int, width: int) -> None:
    ksize, strides, padding = data.draw(windows(height=height, width=width))
    image = image_of(2, height, width, 3)
    output, argmax = MaxPoolingWithArgmax2D(ksize, strides, padding.lower())(image)
    unpool = MaxUnpooling2D(ksize, strides)
    restored = unpool([output, argmax, image])
    assert_same(restored, max_unpool(output.numpy(), argmax.numpy(), (height, width)))
    shapes = [output.shape, argmax.shape, image.shape]
    assert unpool.compute_output_shape(shapes) == tuple(restored.shape)


@settings(max_examples=60)
@given(st.data(), st.integers(1, 4), st.integers(1, 4))
def test_without_like_sizes_divisible_by_the_strides_are_restored(
    data: st.DataObject, rows: int, columns: int
) -> None:
    """With SAME padding any window: masks of overlapping ones may lie before their stride."""
    ksize, strides, _ = data.draw(windows())
    image = image_of(2, rows * strides[0], columns * strides[1], 3)
    output, argmax = MaxPoolingWithArgmax2D(ksize, strides, "same")(image)
    unpool = MaxUnpooling2D(ksize, strides)
    restored = unpool([output, argmax])
    assert_same(restored, max_unpool(output.numpy(), argmax.numpy(), image.shape[1:3]))
    assert unpool.compute_output_shape([output.shape, argmax.shape]) == tuple(restored.shape)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_overlapping_windows_are_legal_without_like(padding: str, dtype: str) -> None:
    image = image_of(2, 8, 12, 3)
    output, argmax = MaxPoolingWithArgmax2D(3, 2, padding, dtype)(image)
    if padding == "valid":
        # One window less on each side: only `like` knows the size.
        restored = MaxUnpooling2D(3, 2)([output, argmax, image])
    else:
        restored = MaxUnpooling2D(3, 2)([output, argmax])
    assert_same(restored, max_unpool(output.numpy(), argmax.numpy(), (8, 12)))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("shape", [(2, 7, 9, 3), (1, 8, 9, 2)])
@pytest.mark.parametrize("pool", [(2, 2), (3, 2)])
def test_masks_of_an_odd_width_raise_without_like(
    pool: tuple[int, int], shape: tuple[int, ...], padding: str
) -> None:
    """They are legal numbers in wrong places."""
    output, argmax = MaxPoolingWithArgmax2D(*pool, padding)(image_of(*shape))
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        MaxUnpooling2D(*pool)([output, argmax])
    assert words_of(caught.value).startswith("max_unpool: 'argmax' must lie in its own window of")


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_masks_of_an_odd_height_alone_are_in_their_places(padding: str) -> None:
    """The last row is cut off or added; positions count by the width, which fits."""
    image = image_of(2, 9, 8, 3)
    output, argmax = MaxPoolingWithArgmax2D(2, padding=padding)(image)
    restored = MaxUnpooling2D()([output, argmax]).numpy()
    assert restored.shape == (2, 8 if padding == "valid" else 10, 8, 3)
    expected = max_unpool(output.numpy(), argmax.numpy(), (9, 8))
    rows = min(9, restored.shape[1])
    np.testing.assert_array_equal(restored[:, :rows], expected[:, :rows])


@pytest.mark.parametrize("compiled", [False, True])
def test_foreign_masks_raise_in_a_model_too(compiled: bool) -> None:
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, MaxUnpooling2D()(MaxPoolingWithArgmax2D()(inputs)))
    model.compile(jit_compile=compiled)
    assert model.predict(image_of(1, 4, 6, 1), verbose=0).shape == (1, 4, 6, 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="own window"):
        model.predict(image_of(1, 4, 7, 1), verbose=0)


@pytest.mark.parametrize(
    ("shapes", "static"),
    [
        ([(None, None, None, 3)] * 2, (None, None, None, 3)),
        ([(None, 4, None, 3)] * 2, (None, 12, None, 3)),
        ([(None, None, None, 3)] * 2 + [(None, None, None, 3)], (None, None, None, 3)),
        ([(None, 4, 5, 3)] * 2 + [(None, 13, 11, 8)], (None, 13, 11, 3)),
    ],
    ids=str,
)
def test_unknown_sizes_stay_unknown(shapes: Any, static: Any) -> None:
    layer = MaxUnpooling2D(3, (3, 2))
    assert layer.compute_output_shape(shapes) == static
    inputs = [keras.Input(shape[1:]) for shape in shapes]
    inputs[1] = keras.Input(shapes[1][1:], dtype="int64")
    assert layer(inputs).shape == static


def test_like_may_have_other_channels_and_any_dtype() -> None:
    image = image_of(1, 5, 7, 2)
    output, argmax = ops.max_pool_with_argmax(image, 2, 2, "SAME")
    expected = MaxUnpooling2D()([output, argmax, image])
    for like in (np.zeros((1, 5, 7, 9), np.uint8), np.full((1, 5, 7, 1), np.nan)):
        assert_same(MaxUnpooling2D()([output, argmax, like]), expected)


def test_config_makes_the_same_layer() -> None:
    layer = MaxUnpooling2D((3, 2), (1, 2), name="unpool")
    config = layer.get_config()
    assert (config["pool_size"], config["strides"]) == ([3, 2], [1, 2])
    copy = MaxUnpooling2D.from_config(config)
    assert copy.get_config() == config
    revived = keras.layers.deserialize(keras.layers.serialize(layer))
    assert isinstance(revived, MaxUnpooling2D)
    assert revived.get_config() == config


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_values_follow_the_policy_and_masks_are_left_alone(policy: str) -> None:
    dtype = policy.removeprefix("mixed_")
    # Wide enough for positions that half precision cannot count.
    image = image_of(1, 40, 67, 1)
    output, argmax = ops.max_pool_with_argmax(image, 2, 2, "SAME")
    layer = MaxUnpooling2D(dtype=policy)
    inputs = [keras.Input(output.shape[1:]), keras.Input(output.shape[1:], dtype="int64")]
    assert layer(inputs).dtype == dtype
    restored = layer([output, argmax, image])
    values = tf.cast(output, dtype).numpy()
    assert_same(restored, max_unpool(values, argmax.numpy(), (40, 67)))


@pytest.mark.parametrize(
    ("inputs", "got"),
    [
        ([np.zeros((1, 2, 2, 1))], "1"),
        ([np.zeros((1, 2, 2, 1))] * 4, "4"),
        (np.zeros((1, 2, 2, 1), np.float32), "a "),
    ],
    ids=["one", "four", "a tensor"],
)
def test_another_number_of_inputs_is_an_error(inputs: Any, got: str) -> None:
    rule = "MaxUnpooling2D: 'inputs' must be [values, argmax] or [values, argmax, like], got "
    with pytest.raises(ValueError, match="MaxUnpooling2D: 'inputs'") as caught:
        MaxUnpooling2D()(inputs)
    assert rule + got in str(caught.value)


@pytest.mark.parametrize("count", [1, 4])
def test_another_number_of_symbolic_inputs_is_an_error(count: int) -> None:
    inputs = [keras.Input((2, 2, 1)) for _ in range(count)]
    with pytest.raises(ValueError, match=f"values, argmax, like], got {count}"):
        MaxUnpooling2D()(inputs)


def test_shapes_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"'argmax' must have shape \[batch=1, height=4, width=4"):
        MaxUnpooling2D()([image_of(1, 4, 4, 3), np.zeros((1, 4, 5, 3), np.int64)])
