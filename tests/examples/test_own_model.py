"""The example of a model of one's own runs from start to end and leaves a model that loads."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfseg_ops

pytest.importorskip("mlxtend")
pytest.importorskip("scipy")

SCRIPT = Path(__file__).parents[2] / "examples" / "own_model.py"
PACKAGE_FOLDER = Path(tfseg_ops.__file__).parents[1]


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("own_model", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_smoke_run_prints_scores_and_writes_a_model(tmp_path):
    import keras

    command = [sys.executable, SCRIPT, "--smoke", "--output", tmp_path / "results"]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_FOLDER)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr

    rows = {}
    for line in run.stdout.splitlines():
        if line.startswith(("noisy image", "smoothed image", "model")):
            rows[line[:14].strip()] = [float(word) for word in line[14:].split()]
    assert list(rows) == ["noisy image", "smoothed image", "model"]
    for iou, dice, boundary in rows.values():
        assert 0 < iou < dice < 1
        assert 0 <= boundary <= 1
    assert rows["smoothed image"][0] > rows["noisy image"][0] + 0.1

    model = keras.models.load_model(tmp_path / "results" / "model.keras")
    assert isinstance(model.loss, tfseg_ops.losses.SoftDiceCrossEntropy)
    assert model.predict(np.zeros((1, 9, 7, 1)), verbose=0).shape == (1, 9, 7, 2)


def test_digits_are_the_same_in_each_run_and_their_rims_are_ignored(example):
    images, labels = example.load_digits(200)
    assert images.shape == (200, 28, 28, 1)
    assert labels.dtype == np.uint8
    assert np.unique(labels).tolist() == [0, 1, example.IGNORE]
    np.testing.assert_array_equal(images, example.load_digits(200)[0])
    assert 0.85 < images[labels == 1].mean() < 1
    assert abs(images[labels == 0].mean()) < 0.05
    assert 0.95 < images[labels == 0].std() < 1.05


def test_missing_extra_is_named(example, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["own_model.py"])
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(ImportError, match=r'pip install "tfseg_ops\[demo\]"'):
        example.main()
