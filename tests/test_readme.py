"""The examples of the README run as they stand."""

import pathlib
import re

import pytest

README = pathlib.Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_readme_has_the_three_examples() -> None:
    assert len(BLOCKS) == 3


@pytest.mark.parametrize("block", BLOCKS, ids=["model", "loss", "gradients"])
def test_readme_example_runs(block: str) -> None:
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(block, str(README), "exec"), names)  # the README is ours
    for name, value in names.items():
        if name.startswith("test_") and callable(value):
            value()


def test_readme_model_restores_odd_sizes_under_jit_compile() -> None:
    import numpy as np

    names: dict[str, object] = {}
    exec(compile(BLOCKS[0], str(README), "exec"), names)
    model = names["model"]
    images = np.random.default_rng(0).random((2, 13, 9, 3), np.float32)
    history = model.fit(images, images[..., :1], verbose=0)  # type: ignore[attr-defined]
    assert np.isfinite(history.history["loss"][0])
    assert model(images).shape == (2, 13, 9, 1)  # type: ignore[operator]


def test_readme_loss_trains_on_uint8_labels() -> None:
    import numpy as np

    names: dict[str, object] = {}
    exec(compile(BLOCKS[1], str(README), "exec"), names)
    random = np.random.default_rng(0)
    labels = random.choice([0, 20, 255], (2, 5, 6)).astype(np.uint8)
    history = names["model"].fit(random.random((2, 5, 6, 1)), labels, verbose=0)  # type: ignore[attr-defined]
    assert np.isfinite(history.history["loss"][0])
