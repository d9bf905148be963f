"""The super-resolution example runs from start to end and writes what it promises."""

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
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

SCRIPT = Path(__file__).parents[2] / "examples" / "super_resolve.py"
PACKAGE_FOLDER = Path(tfseg_ops.__file__).parents[1]


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("super_resolve", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_smoke_run_writes_crops_and_tables(tmp_path):
    output = tmp_path / "results"
    command = [sys.executable, SCRIPT, "--smoke", "--downscaling", "antialiased"]
    command += ["--output", output]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_FOLDER)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr

    report = (output / "results.md").read_text()
    assert report in run.stdout
    tables = json.loads((output / "results.json").read_text())
    assert list(tables) == ["antialiased"]
    for downscaling, rows in tables.items():
        assert (output / f"crops_{downscaling}.png").read_bytes().startswith(b"\x89PNG")
        learned = ["auto-encoder", "U-Net", "residual", "residual, 8 views"]
        assert list(rows) == ["bilinear", "bicubic", *learned]
        for name, row in rows.items():
            assert f"| {name} " in report
            assert list(row["photographs"]) == ["astronaut", "cat", "flower", "rocket"]
            for measure in ("psnr", "ssim"):
                scores = [scores[measure] for scores in row["photographs"].values()]
                assert row[measure] == pytest.approx(np.mean(scores))
            assert 0 < row["psnr"] < 60
            assert -1 <= row["ssim"] <= 1
        # What is known of them, and that two steps leave these models near where they start.
        assert 25 < rows["bilinear"]["psnr"] < rows["bicubic"]["psnr"] - 0.3
        for name in ("U-Net", "residual"):
            assert abs(rows[name]["psnr"] - rows["bilinear"]["psnr"]) < 1.5


def test_views_are_put_back_before_they_are_averaged(example):
    small = np.random.default_rng(0).uniform(size=(3, 5, 3)).astype(np.float32)

    def enlarge(image):
        return image.repeat(4, axis=0).repeat(4, axis=1)

    np.testing.assert_allclose(example.in_all_views(enlarge, small), enlarge(small), 1e-6)
    corner = np.zeros((12, 20, 3))
    for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        corner[y, x] = 2 / 8

    def mark(image):  # two of the eight views bring each corner to the first place
        marked = np.zeros((4 * image.shape[0], 4 * image.shape[1], 3))
        marked[0, 0] = 1
        return marked

    np.testing.assert_allclose(example.in_all_views(mark, small), corner)


def test_both_ways_to_make_photographs_small_are_the_default(example, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["super_resolve.py"])
    assert example.parse_arguments().downscaling == ["antialiased", "bilinear"]
    monkeypatch.setattr(sys, "argv", ["super_resolve.py", "--downscaling", "bilinear"])
    assert example.parse_arguments().downscaling == ["bilinear"]


def test_no_photograph_is_in_two_parts(example):
    names = [*example.TRAINING, example.VALIDATION, *example.HELD_OUT]
    assert len(set(names)) == len(names)
    photographs = {name: example.load_photograph(name) for name in names}
    for name, photograph in photographs.items():
        assert photograph.dtype == np.float32
        assert photograph.shape[2] == 3
        assert not any(side % example.SCALE for side in photograph.shape[:2])
        assert 0 <= photograph.min() < 0.3, name
        assert 0.7 < photograph.max() <= 1, name
    # The views of the stereo pair show one scene: both are trained on.
    assert {"motorcycle_left", "motorcycle_right"} <= set(example.TRAINING)
    for (y, x), name in ((corner, name) for name, corner in example.HELD_OUT.items()):
        height, width, _ = photographs[name].shape
        assert y + example.CROP <= height
        assert x + example.CROP <= width


def test_downscaling_is_anti_aliased_or_not(example):
    stripes = np.zeros([16, 16, 3], np.float32)
    stripes[:, 1::4] = 1  # the second of four columns, which plain bilinear reads
    smooth, plain = (example.downscale(stripes, kind) for kind in ("antialiased", "bilinear"))
    assert smooth.shape == plain.shape == (4, 4, 3)
    np.testing.assert_allclose(plain, 0.5, atol=1e-6)
    assert 0.15 < smooth.mean() < 0.35


def test_patches_fit_and_repeat_with_the_seed(example):
    """A small patch of a photograph with one value for each small pixel is every fourth pixel."""
    small = np.random.default_rng(0).uniform(size=(12, 20, 3)).astype(np.float32)
    pairs = [(small, small.repeat(4, axis=0).repeat(4, axis=1))]

    def first_two(seed):
        batches = example.training_batches(pairs, batch=8, size=5, seed=seed)
        return [[patches.numpy() for patches in batch] for batch in batches.take(2)]

    batches = first_two(3)
    for patches, originals in batches:
        assert patches.shape == (8, 5, 5, 3)
        assert originals.shape == (8, 20, 20, 3)
        np.testing.assert_array_equal(originals[:, ::4, ::4], patches)
        np.testing.assert_array_equal(originals[:, 3::4, 3::4], patches)
        assert len({patch.tobytes() for patch in patches}) == 8
    np.testing.assert_array_equal(batches[0][0], first_two(3)[0][0])
    assert not np.array_equal(batches[0][0], batches[1][0])
    assert not np.array_equal(batches[0][0], first_two(4)[0][0])


def test_score_leaves_the_borders_out(example):
    truth = np.zeros((32, 32, 3), np.float32)
    found = np.full_like(truth, 0.1)
    found[:4] = found[-4:] = found[:, :4] = found[:, -4:] = 1
    assert example.score(truth, found)["psnr"] == pytest.approx(20, abs=1e-4)
    found[4, 4] = 1
    assert example.score(truth, found)["psnr"] < 19.9


@pytest.mark.parametrize("option", ["epochs", "steps", "batch", "patch", "blocks"])
def test_no_work_is_refused(example, monkeypatch, capsys, option):
    monkeypatch.setattr(sys, "argv", ["super_resolve.py", f"--{option}", "0"])
    with pytest.raises(SystemExit):
        example.parse_arguments()
    assert f"'--{option}' must be at least 1, got 0" in capsys.readouterr().err


def test_patches_larger_than_a_photograph_are_refused(example, monkeypatch, capsys):
    sides = [min(example.load_photograph(name).shape[:2]) for name in example.TRAINING]
    assert min(sides) // example.SCALE >= example.LARGEST_PATCH
    monkeypatch.setattr(sys, "argv", ["super_resolve.py", "--patch", "65"])
    with pytest.raises(SystemExit):
        example.parse_arguments()
    assert "'--patch' must be at most 64, got 65" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["skimage", "sklearn", "matplotlib"])
def test_missing_extra_is_named_before_the_training(example, monkeypatch, package):
    monkeypatch.setattr(sys, "argv", ["super_resolve.py"])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "tfseg_ops\[demo\]"'):
        example.parse_arguments()
