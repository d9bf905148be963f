"""What holds for every reference model: sizes, training in three modes, saving, half precision."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers.model_cases import ModelCase, model_cases
from helpers.processes import run_python

CASES = model_cases()
JITTED = [CASES[name].build for name in ("unet-unpool-crf", "super_resolution_residual")]
every_model = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def images_of(case: ModelCase, batch: int, size: tuple[int, int]) -> np.ndarray:
    """Smooth random images, `[batch, height, width, channels]` in [0, highest]."""
    coarse = np.random.default_rng(0).uniform(size=[batch, 4, 4, case.channels])
    images = keras.ops.image.resize(coarse.astype(np.float32), size, "bilinear")
    return case.highest * np.asarray(images)


def targets_of(case: ModelCase, images: np.ndarray) -> np.ndarray:
    """Labels that follow the grey values, or images that a model can approach."""
    grey = images.mean(-1) / case.highest
    inside = slice(case.lost, -case.lost or None)
    grey = grey[:, inside, inside].repeat(case.scale, 1).repeat(case.scale, 2)
    if case.num_classes is None:
        return np.repeat(grey[..., np.newaxis], case.channels, -1)
    return (grey * case.num_classes).astype(np.uint8)


def built(case: ModelCase) -> Any:
    """The model with the same weights every time."""
    keras.utils.set_random_seed(0)
    return case.build()


def compiled(case: ModelCase, model: Any, **options: Any) -> None:
    """Compiles the model with a loss that fits what it returns."""
    loss = "mse"
    if case.num_classes is not None:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, **options)


@every_model
def test_no_size_is_refused(case: ModelCase) -> None:
    model = built(case)
    channels = case.num_classes or case.channels
    for size in case.sizes:
        outputs = model(images_of(case, 2, size))
        height, width = (case.scale * (side - 2 * case.lost) for side in size)
        assert outputs.shape == (2, height, width, channels)
        assert np.isfinite(outputs).all()


@pytest.mark.parametrize("mode", ["eager", "graph", "jit_compile"])
@every_model
def test_a_few_steps_lower_the_loss(case: ModelCase, mode: str) -> None:
    model = built(case)
    compiled(case, model, run_eagerly=mode == "eager", jit_compile=mode == "jit_compile")
    images = images_of(case, 2, case.training_size)
    history = model.fit(images, targets_of(case, images), epochs=6, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert min(history[3:]) < 0.97 * history[0]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@every_model
def test_mixed_precision_trains_and_returns_float32(case: ModelCase, policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    model = built(case)
    # Compiling all of them takes too long: one of our layers is in each of these.
    compiled(case, model, jit_compile=policy == "mixed_bfloat16" and case.build in JITTED)
    images = images_of(case, 2, case.training_size)
    assert np.isfinite(model.fit(images, targets_of(case, images), verbose=0).history["loss"]).all()
    assert all(variable.dtype == "float32" for variable in model.trainable_variables)
    assert model(images).dtype == "float32"


def test_saved_models_give_the_same_numbers_in_a_fresh_process(tmp_path: Path) -> None:
    """All of them in one: starting TensorFlow takes longer than loading a model."""
    for name, case in CASES.items():
        model = built(case)
        images = images_of(case, 1, case.training_size)
        model.save(tmp_path / f"{name}.keras")
        model.save_weights(tmp_path / f"{name}.weights.h5")
        np.savez(tmp_path / f"{name}.npz", images=images, outputs=model(images))
    output = run_python(
        """
        import pathlib
        import sys
        import keras
        import numpy as np
        import tfseg_ops
        from helpers.model_cases import model_cases

        folder = pathlib.Path(sys.argv[1])
        for name, case in model_cases().items():
            data = np.load(folder / f"{name}.npz")
            loaded = keras.models.load_model(folder / f"{name}.keras")
            rebuilt = case.build()
            rebuilt.load_weights(folder / f"{name}.weights.h5")
            for model in (loaded, rebuilt):
                np.testing.assert_allclose(model(data["images"]), data["outputs"], 1e-5, 1e-5)
            print(name)
        """,
        tmp_path,
        timeout=600,
    )
    assert output.split() == list(CASES)
