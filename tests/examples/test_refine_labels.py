"""The example of refined labels runs from start to end, and its labels do get better."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfseg_ops

pytest.importorskip("skimage")
pytest.importorskip("matplotlib")

SCRIPT = Path(__file__).parents[2] / "examples" / "refine_labels.py"
PACKAGE_FOLDER = Path(tfseg_ops.__file__).parents[1]


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("refine_labels", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_smoke_run_improves_the_labels_and_writes_picture_and_tables(tmp_path):
    output = tmp_path / "results"
    command = [sys.executable, SCRIPT, "--smoke", "--output", output]
    paths = [str(PACKAGE_FOLDER), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr

    assert (output / "refined.png").read_bytes().startswith(b"\x89PNG")
    report = (output / "results.md").read_text()
    assert report in run.stdout
    tables = json.loads((output / "results.json").read_text())["tables"]
    kernels = tables["kernels"]
    assert list(kernels) == [
        "coarse labels",
        "superpixels",
        "spatial kernel alone",
        "bilateral kernel alone",
        "both kernels",
    ]
    assert list(tables["bandwidths"]) == ["80 pixels, 5 grey levels", "80 pixels, 13 grey levels"]
    for rows in tables.values():
        assert len({line.count("|") for line in report.splitlines() if line}) == 1
        for name, row in rows.items():
            assert f"| {name} " in report
            assert 0 < row["boundary_f1"] < row["mean_iou"] < row["accuracy"] < 1
    coarse, refined = kernels["coarse labels"], kernels["both kernels"]
    assert refined["accuracy"] > coarse["accuracy"] + 0.03
    assert refined["boundary_f1"] > coarse["boundary_f1"] + 0.03
    assert refined["accuracy"] > kernels["superpixels"]["accuracy"]
    # The kernels are really left out, and the bandwidths passed on.
    assert kernels["spatial kernel alone"] != kernels["bilateral kernel alone"]
    same = tables["bandwidths"]["80 pixels, 13 grey levels"]
    assert same | {"seconds": 0} == refined | {"seconds": 0}


def test_truth_is_the_motorcycle(example):
    photograph, truth = example.load_scene()
    assert photograph.shape == (*truth.shape, 3)
    shares = np.bincount(truth.ravel())[[0, 1, example.IGNORE]] / truth.size
    np.testing.assert_allclose(shares, [0.66, 0.27, 0.07], atol=0.01)
    # y, x of the tank, the engine and the seat; of a cardboard box, the door and the floor.
    for y, x in ((200, 430), (280, 400), (190, 270)):
        assert truth[y, x] == 1
    for y, x in ((80, 530), (80, 200), (450, 30), (450, 250)):
        assert truth[y, x] == 0


def test_coarse_labels_depend_on_the_seed_and_not_on_the_photograph(example):
    truth = np.zeros((40, 51), np.uint8)
    truth[10:30, 10:40] = 1
    truth[:3, :3] = example.IGNORE
    logits = example.coarse_logits(truth, 0)
    assert logits.shape == (40, 51, 2)
    np.testing.assert_array_equal(logits, example.coarse_logits(truth, 0))
    assert not np.array_equal(logits, example.coarse_logits(truth, 1))
    accuracy = (logits.argmax(-1) == truth)[truth != example.IGNORE].mean()
    assert 0.5 < accuracy < 0.99


def test_superpixels_take_the_label_of_most_of_their_pixels(example):
    photograph = np.zeros((60, 60, 3), np.uint8)
    photograph[:, 30:] = 255
    labels = (photograph[..., 0] > 0).astype(np.int64)
    noisy = np.where(np.random.default_rng(0).random(labels.shape) < 0.1, 1 - labels, labels)
    np.testing.assert_array_equal(example.vote(noisy, photograph), labels)


@pytest.mark.parametrize("package", ["skimage", "matplotlib"])
def test_missing_extra_is_named_before_all_else(example, monkeypatch, package):
    monkeypatch.setattr(sys, "argv", ["refine_labels.py"])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "tfseg_ops\[demo\]"'):
        example.parse_arguments()


def test_no_iterations_are_refused(example, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["refine_labels.py", "--iterations", "0"])
    with pytest.raises(SystemExit):
        example.parse_arguments()
    assert "'--iterations' must be at least 1, got 0" in capsys.readouterr().err
