"""The example of auto-encoders runs from start to end and writes what it promises."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import tfseg_ops

pytest.importorskip("mlxtend")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

EXAMPLES = Path(__file__).parents[2] / "examples"
PACKAGE_FOLDER = Path(tfseg_ops.__file__).parents[1]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load("autoencode_digits")


def test_smoke_run_writes_pictures_and_tables(tmp_path: Path) -> None:
    output = tmp_path / "results"
    script = EXAMPLES / "autoencode_digits.py"
    command = [sys.executable, script, "--smoke", "--output", output]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_FOLDER)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr

    pictures = ["reconstructed.png", "codes.png", "dense/epoch_003.png"]
    for picture in [*pictures, "convolutional/epoch_001.png"]:
        assert (output / picture).read_bytes().startswith(b"\x89PNG")
    report = (output / "results.md").read_text()
    assert report in run.stdout
    rows = json.loads((output / "results.json").read_text())["rows"]
    assert list(rows) == ["grey values", "PCA-32", "dense", "convolutional"]
    table = [line for line in report.splitlines() if line.startswith("|")]
    assert len({len(line) for line in table}) == 1
    for name, row in rows.items():
        assert f"| {name} " in report
        assert row["numbers"] == (784 if name == "grey values" else 32)
        assert 0 < row["accuracy"] < 1
    assert rows["PCA-32"]["psnr"] > 16
    assert rows["PCA-32"]["accuracy"] > 0.7


def test_split_is_that_of_the_other_example(example: ModuleType) -> None:
    counts = (4000, 500, 500)
    others = load("denoise_digits").load_digits(counts)
    for ours, other in zip(example.load_digits(counts), others, strict=True):
        np.testing.assert_array_equal(ours.images, other[0])
        np.testing.assert_array_equal(ours.labels, other[1])
    for digits in example.load_digits((320, 50, 40)):
        assert len(digits.images) == len(digits.labels) in (320, 50, 40)
        assert np.ptp(np.bincount(digits.labels)) == 0


def test_batches_are_shifted_by_up_to_a_pixel_afresh_and_repeat_with_the_seed(
    example: ModuleType,
) -> None:
    images = np.zeros([example.BATCH_SIZE, 28, 28, 1], "float32")
    images[:, 10, 20] = 1

    def places() -> list[tuple[int, ...]]:
        batches = example.training_batches(images, seed=3).repeat(30)
        return [tuple(np.argwhere(shifted[0, ..., 0])[0]) for shifted, _ in batches]

    seen = places()
    assert {y for y, _ in seen} == {9, 10, 11}
    assert {x for _, x in seen} == {19, 20, 21}
    assert places() == seen


def test_halves_give_back_what_the_whole_model_does(example: ModuleType) -> None:
    images = example.load_digits((10, 10, 10))[0].images
    model = example.conv_autoencoder((28, 28, 1), (2, 2, 2, 2), 8, output_activation=None)
    code = example.model_code(model)
    encoded = code.encode(images)
    assert encoded.shape == (10, 32)
    whole = 1 / (1 + np.exp(-np.asarray(model(images))))
    np.testing.assert_allclose(code.decode(encoded), whole, rtol=1e-5, atol=1e-5)


def test_winner_is_named_with_the_digits_that_decide(example: ModuleType) -> None:
    rows = {
        "PCA-32": {"psnr": 18.0},
        "dense": {"psnr": 25.0, "validation_psnr": 19.0},
        "convolutional": {"psnr": 20.5, "validation_psnr": 20.0},
    }
    ours, pca = np.repeat([True, False], [90, 10]), np.repeat([False, True], [20, 80])
    words = example.explain(32, rows, {"convolutional": ours, "PCA-32": pca})
    words = " ".join(words.split())
    assert "validation PSNR: convolutional. On the test digits it gives back 20.50 dB" in words
    assert "2.50 dB more than PCA-32" in words
    assert "neighbours: convolutional. Of 100 test digits 20 are named" in words
    assert "10 by PCA-32 alone. The difference, 10, is not more than two standard" in words
    assert "of chance (11.0)." in words
    words = example.explain(32, rows, {"convolutional": pca & ~ours, "PCA-32": pca})
    assert "Nearest neighbours: PCA-32." in words
    assert "The difference, 70, is more than" in words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "'--epochs' must be at least 1, got 0"),
        (["--numbers", "30"], "'--numbers' must be a positive multiple of 4, got 30"),
    ],
)
def test_bad_arguments_are_refused(
    example: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["autoencode_digits.py", *arguments])
    with pytest.raises(SystemExit):
        example.parse_arguments()
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("package", ["mlxtend", "sklearn", "matplotlib"])
def test_missing_extra_is_named_before_the_training(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["autoencode_digits.py"])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "tfseg_ops\[demo\]"'):
        example.parse_arguments()
