"""The layer `MeanFieldStep`: like the op, shared between iterations, trained, saved."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.crf_cases import compatibility_of, image_features, small_image, small_logits, softmax
from helpers.tolerances import assert_close

from tfseg_ops import ops
from tfseg_ops.layers import MeanFieldStep

SIZE = {"batch": 2, "height": 4, "width": 5}


def inputs_of(dtype: Any = np.float32) -> list[np.ndarray]:
    """q, unary, and features of two kernels."""
    logits = small_logits(dtype, **SIZE)
    features = image_features(small_image(np.float32, **SIZE), 2.0, 10.0, 50.0)
    return [softmax(logits).astype(dtype), logits, *(f.astype(np.float32) for f in features)]


@pytest.mark.parametrize("learn", [False, True])
def test_layer_is_the_op_with_the_initial_numbers(learn: bool) -> None:
    q, unary, *features = inputs_of()
    lattices = [ops.permutohedral_lattice(f) for f in features]
    for matrix in (None, compatibility_of(3)):
        layer = MeanFieldStep(
            [1.5, 2.0],
            matrix,
            "after",
            learn_weights=learn,
            per_class_weights=learn,
            learn_compatibility=learn,
        )
        expected = ops.mean_field_step(q, unary, lattices, [1.5, 2.0], matrix, "after")
        np.testing.assert_allclose(layer(inputs_of()), expected, 1e-4, 1e-5)
    same = MeanFieldStep(2.0)(inputs_of())
    assert_close(same, ops.mean_field_step(q, unary, lattices, [2.0, 2.0]))


def test_variables_are_what_is_learned() -> None:
    shapes = [(2, 4, 5, 3), (2, 4, 5, 3), (2, 20, 2), (2, 20, 5)]
    for keywords, expected in [
        ({}, {"kernel_weight_0": (), "kernel_weight_1": ()}),
        ({"learn_weights": False}, {}),
        ({"per_class_weights": True}, {"kernel_weight_0": (3,), "kernel_weight_1": (3,)}),
        ({"learn_weights": False, "learn_compatibility": True}, {"compatibility": (3, 3)}),
    ]:
        layer = MeanFieldStep(**keywords)
        layer.build(shapes)
        assert {v.name: tuple(v.shape) for v in layer.trainable_variables} == expected


def model_of(iterations: int = 2) -> keras.Model:
    """Iterations that share their weights, as in CRF-as-RNN."""
    logits = keras.Input((None, None, 3))
    features = [keras.Input((None, 2)), keras.Input((None, 5))]
    step = MeanFieldStep([0.5, 0.5], learn_compatibility=True)
    q = keras.layers.Softmax()(logits)
    for _ in range(iterations):
        q = step([q, logits, *features])
        assert q.shape == (None, None, None, 3)
    return keras.Model([logits, *features], q)


def test_fit_lowers_the_loss_and_a_file_brings_the_model_back(tmp_path: Path) -> None:
    model = model_of()
    assert len(model.trainable_variables) == 3
    _, *inputs = inputs_of()
    labels = small_image(**SIZE).argmax(-1)
    for run_eagerly, jit_compile in ((True, False), (False, False), (False, True)):
        model.compile(
            keras.optimizers.Adam(0.05),
            "sparse_categorical_crossentropy",
            run_eagerly=run_eagerly,
            jit_compile=jit_compile,
        )
        losses = model.fit(inputs, labels, epochs=4, verbose=0).history["loss"]
        assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(again.predict(inputs, verbose=0), model.predict(inputs, verbose=0))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_only_the_output_follows_the_policy(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    dtype = policy.removeprefix("mixed_")
    weights = [10.3, 7.7]  # numbers that half precision has not
    layer = MeanFieldStep(weights)
    q, unary, *features = inputs_of()
    result = layer([tf.cast(q, dtype), unary, *features])
    assert result.dtype == dtype
    lattices = [ops.permutohedral_lattice(f) for f in features]
    rounded = tf.cast(tf.cast(q, dtype), q.dtype)
    expected = ops.mean_field_step(rounded, unary, lattices, weights)
    np.testing.assert_allclose(tf.cast(result, tf.float32), expected, 1e-2, 1e-3)


def test_config_makes_the_same_layer() -> None:
    layer = MeanFieldStep([1, 2], compatibility_of(3), ["after", "none"], False, True, True)
    config = layer.get_config()
    assert (config["kernel_weights"], config["normalization"]) == ([1.0, 2.0], ["after", "none"])
    revived = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(revived) is MeanFieldStep
    assert revived.get_config() == config


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no features": (
        inputs_of()[:2],
        {},
        "MeanFieldStep: 'inputs' must be [q, unary, *features], one or more, got 2",
    ),
    "kernels": (
        inputs_of(),
        {"kernel_weights": [1.0]},
        "MeanFieldStep: 'inputs' must have features for each of 1 kernels, got 2",
    ),
    "normalization": (
        inputs_of(),
        {"normalization": ["none"]},
        "MeanFieldStep: 'normalization' must have one name for each of 2 kernels, got 1",
    ),
    "points": (
        [*inputs_of()[:3], inputs_of()[3][:, :7]],
        {},
        "'lattices[1].features' must have shape [batch=2, points=20, dimensions], got [2, 7, 5]",
    ),
    "a word": (inputs_of(), {"kernel_weights": "many"}, "'kernel_weights' must be a finite number"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_inputs_and_arguments_are_named(case: str) -> None:
    inputs, keywords, words = WRONG[case]
    with pytest.raises(ValueError, match="must") as caught:
        MeanFieldStep(**keywords)(inputs)
    assert words in str(caught.value)
