"""The recipes of docs/models.md run as they stand, with one epoch; its parameter counts hold."""

import re

import pytest
from helpers.processes import ROOT

PAGE = (ROOT / "docs" / "models.md").read_text()
RECIPES = dict(re.findall(r"## Recipe: (.*?)\n.*?```python\n(.*?)```", PAGE, re.DOTALL))


def test_page_has_both_recipes() -> None:
    assert list(RECIPES) == ["depth from a stereo pair", "the next frame of a film"]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_recipe_runs(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("skimage")
    pytest.importorskip("mlxtend")
    short, changes = re.subn(r"^epochs = \d+$", "epochs = 1", recipe, flags=re.MULTILINE)
    assert changes == 1
    exec(compile(short, "docs/models.md", "exec"), {})  # the page is ours
    assert re.search(r"error \d+\.\d+", capsys.readouterr().out)


@pytest.mark.parametrize(
    "model", ["dense_autoencoder", "conv_autoencoder", "unet", "super_resolution"]
)
def test_number_of_parameters_is_true(model: str) -> None:
    """The larger models' numbers are tested beside the models."""
    from tfseg_ops import models

    row = re.search(rf"\| \[`{model}`\]\(.*\|\s*([\d.,]+)( million)?[^|]*\|\n", PAGE)
    assert row is not None
    number, million = row.groups()
    built = getattr(models, model)(*[1] * (model == "unet"))
    if million:
        assert f"{built.count_params() / 1e6:.3g}".startswith(number)
    else:
        assert built.count_params() == int(number.replace(",", ""))
