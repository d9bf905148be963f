"""`MaxPoolingWithArgmax2D`: outputs, shapes, config and precision."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.tolerances import assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.max_pool_with_argmax import max_pool_with_argmax

from tfseg_ops.layers import MaxPoolingWithArgmax2D
from tfseg_ops.testing.strategies import windows


def image_of(*shape: int) -> np.ndarray:
    """Random float32 values."""
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("arguments", "pooling"),
    [
        ({}, ((2, 2), (2, 2), "VALID")),
        ({"pool_size": 3}, ((3, 3), (3, 3), "VALID")),
        ({"pool_size": (3, 2), "strides": (1, 2)}, ((3, 2), (1, 2), "VALID")),
        ({"pool_size": [3, 3], "strides": 2, "padding": "same"}, ((3, 3), (2, 2), "SAME")),
        ({"padding": "SAME", "argmax_dtype": "int32"}, ((2, 2), (2, 2), "SAME")),
    ],
    ids=str,
)
def test_output_and_positions_are_those_of_the_op(arguments: dict[str, Any], pooling: Any) -> None:
    image = image_of(2, 7, 8, 3)
    output, argmax = MaxPoolingWithArgmax2D(**arguments)(image)
    expected = max_pool_with_argmax(image, *pooling, arguments.get("argmax_dtype", np.int64))
    assert_same(output, expected[0])
    assert_same(argmax, expected[1])


@settings(max_examples=60)
@given(st.data(), st.integers(0, 12), st.integers(0, 12), st.sampled_from(["int32", "int64"]))
def test_computed_shapes_and_dtypes_are_those_of_the_outputs(
    data: st.DataObject, height: int, width: int, argmax_dtype: str
) -> None:
    ksize, strides, padding = data.draw(windows(height=max(1, height), width=max(1, width)))
    layer = MaxPoolingWithArgmax2D(ksize, strides, padding.lower(), argmax_dtype)
    image = image_of(2, height, width, 3)
    outputs = layer(image)
    assert layer.compute_output_shape(image.shape) == [tuple(o.shape) for o in outputs]
    specs = layer.compute_output_spec(keras.KerasTensor(image.shape))
    for spec, output in zip(specs, outputs, strict=True):
        assert spec.shape == tuple(output.shape)
        assert spec.dtype == output.dtype.name


@pytest.mark.parametrize(
    ("shape", "arguments", "static"),
    [
        ((None, None, None, 3), {}, (None, None, None, 3)),
        ((None, 9, None, 3), {}, (None, 4, None, 3)),
        ((5, None, 7, None), {"pool_size": 3, "strides": 2, "padding": "same"}, (5, None, 4, None)),
        ((None, 5, 7, 3), {"pool_size": 7, "strides": 3}, (None, 0, 1, 3)),
    ],
    ids=str,
)
def test_unknown_sizes_stay_unknown(shape: Any, arguments: Any, static: Any) -> None:
    layer = MaxPoolingWithArgmax2D(**arguments)
    assert layer.compute_output_shape(shape) == [static, static]
    symbolic = keras.Input(shape=shape[1:], batch_size=shape[0])
    for output in MaxPoolingWithArgmax2D(**arguments)(symbolic):
        assert output.shape == static


def test_model_of_unknown_sizes_pools_all_sizes() -> None:
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, MaxPoolingWithArgmax2D(padding="same")(inputs))
    for shape in [(2, 7, 5, 3), (1, 4, 6, 3), (3, 1, 1, 3)]:
        image = image_of(*shape)
        output, argmax = model.predict(image, verbose=0)
        expected = max_pool_with_argmax(image, (2, 2), (2, 2), "SAME")
        assert_same(output, expected[0])
        assert_same(argmax, expected[1])


def test_config_makes_the_same_layer() -> None:
    layer = MaxPoolingWithArgmax2D((3, 2), (1, 2), "same", "int32", name="pool")
    config = layer.get_config()
    assert config["pool_size"] == [3, 2]
    assert config["strides"] == [1, 2]
    assert (config["padding"], config["argmax_dtype"]) == ("same", "int32")
    copy = MaxPoolingWithArgmax2D.from_config(config)
    assert copy.get_config() == config
    revived = keras.layers.deserialize(keras.layers.serialize(layer))
    assert isinstance(revived, MaxPoolingWithArgmax2D)
    assert revived.get_config() == config


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64", "float32"])
def test_values_follow_the_policy_and_positions_stay_integers(policy: str) -> None:
    dtype = policy.removeprefix("mixed_")
    inputs = keras.Input((None, None, 2))
    layer = MaxPoolingWithArgmax2D(argmax_dtype="int32", dtype=policy)
    output, argmax = layer(inputs)
    assert (output.dtype, argmax.dtype) == (dtype, "int32")
    image = image_of(2, 5, 6, 2)
    results = layer(image)
    expected = max_pool_with_argmax(
        tf.cast(image, dtype).numpy(), (2, 2), (2, 2), "VALID", np.int32
    )
    assert_same(results[0], expected[0])
    assert_same(results[1], expected[1])


def test_positions_over_256_are_exact_in_bfloat16() -> None:
    """bfloat16 would turn 777 into 776."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    image = np.zeros((1, 40, 40, 1), np.float32)
    image[0, 19, 17] = 1
    _, argmax = MaxPoolingWithArgmax2D(40)(image)
    assert int(argmax[0, 0, 0, 0]) == 777


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"padding": "full"}, ValueError, '\'padding\' must be "valid" or "same", got full'),
        ({"pool_size": 0}, ValueError, "'pool_size' must lie in [1, 2147483647], got [0, 0]"),
        (
            {"strides": [1, 2, 3]},
            ValueError,
            "'strides' must be an int, [height, width] or [1, height, width, 1], got [1, 2, 3]",
        ),
        ({"argmax_dtype": "uint8"}, TypeError, "'argmax_dtype' must be int32 or int64, got uint8"),
    ],
    ids=["padding", "pool size", "strides", "dtype"],
)
def test_wrong_argument_is_named(arguments: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        MaxPoolingWithArgmax2D(**arguments)
    assert str(caught.value) == f"MaxPoolingWithArgmax2D: {words}"


def test_input_of_another_rank_is_an_error_when_the_model_is_built() -> None:
    with pytest.raises(ValueError, match=r"\[batch, height, width, channels\]"):
        MaxPoolingWithArgmax2D()(keras.Input((8, 3)))
