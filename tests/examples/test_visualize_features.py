"""The example of feature maps runs from start to end and writes what it promises."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tfseg_ops

pytest.importorskip("mlxtend")
pytest.importorskip("matplotlib")
pytest.importorskip("skimage")
pytest.importorskip("sklearn")

SCRIPT = Path(__file__).parents[2] / "examples" / "visualize_features.py"
PACKAGE_FOLDER = Path(tfseg_ops.__file__).parents[1]


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("visualize_features", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_drawn(path):
    from matplotlib.image import imread

    picture = imread(path)
    return len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 20


def test_smoke_run_writes_pictures_and_tables(tmp_path):
    output = tmp_path / "results"
    command = [sys.executable, SCRIPT, "--smoke", "--maps", "3", "--output", output]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_FOLDER)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr

    report = (output / "results.md").read_text()
    assert report in run.stdout
    results = json.loads((output / "results.json").read_text())
    assert 0 < results["test_accuracy"] <= 1  # too short a training to be more
    assert 0.2 < results["chance_share"] < 0.4
    for name, pixels in [("conv1", 5), ("conv2", 11), ("conv3", 23)]:
        assert is_drawn(output / f"{name}.png")
        rows = [row for row in results["maps"] if row["layer"] == name]
        assert 1 <= len(rows) <= 3
        assert results["layers"][name]["pixels"] == pixels
        assert f"| {name} " in report
        for row in rows:
            assert row["strongest"] >= row["weakest"] >= 0
            assert 1 / 9 <= row["share"] <= 1
            assert row["label"] in set("0123456789")


def vgg_in_small(**options):
    """Layers of the names that VGG-16 has."""
    image = keras.Input([224, 224, 3])
    x = image
    for block in range(1, 6):
        for number in range(1, 3 if block < 3 else 4):
            name = f"block{block}_conv{number}"
            x = keras.layers.Conv2D(3, 3, padding="same", activation="relu", name=name)(x)
        x = keras.layers.MaxPooling2D(2)(x)
    return keras.Model(image, x)


def test_vgg16_is_loaded_from_a_file_and_drawn(example, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        keras.applications, "VGG16", lambda **options: asked.append(options) or vgg_in_small()
    )
    keras.utils.set_random_seed(0)
    vgg = vgg_in_small()
    vgg.save_weights(weights := tmp_path / "notop.weights.h5")
    loaded = example.load_vgg16(weights)
    assert asked == [{"include_top": False, "weights": None}]
    for one, other in zip(loaded.weights, vgg.weights, strict=True):
        np.testing.assert_array_equal(one, other)

    monkeypatch.setattr(example, "VGG_LAYERS", ("block1_conv2", "block5_conv3"))
    results, report = example.study_vgg16(loaded, 1, tmp_path)
    names = {"astronaut", "chelsea", "coffee", "rocket", "motorcycle", "china", "flower"}
    assert {row["layer"] for row in results["maps"]} == {"block1_conv2", "block5_conv3"}
    for row in results["maps"]:
        assert row["label"] in names
        assert f"| {row['layer']} " in report
        assert is_drawn(tmp_path / f"vgg16_{row['layer']}.png")


def test_photographs_are_prepared_as_vgg16_wants_them(example):
    photographs = example.load_photographs()
    assert photographs.inputs.shape == photographs.pictures.shape == (28, 224, 224, 3)
    assert photographs.pictures.min() >= 0
    assert photographs.pictures.max() <= 1
    means = [103.939, 116.779, 123.68]  # of ImageNet: blue, green, red
    restored = (photographs.inputs + means)[..., ::-1] / 255
    np.testing.assert_allclose(restored, photographs.pictures, atol=1e-5)


def test_split_has_every_digit_once_and_all_classes_equally_often(example):
    parts = example.load_digits((4000, 1000))
    for (images, labels), count in zip(parts, (4000, 1000), strict=True):
        assert images.shape == (count, 28, 28, 1)
        assert (np.bincount(labels) == count // 10).all()
    everything = np.concatenate([images for images, _ in parts]).reshape(5000, -1)
    assert len(np.unique(everything, axis=0)) == 5000
    few, test = example.load_digits((40, 1000))
    np.testing.assert_array_equal(few[0][:4], parts[0][0][:4])
    np.testing.assert_array_equal(test[0], parts[1][0])


def test_patches_cut_off_by_an_edge_are_completed_on_that_side(example, monkeypatch):
    monkeypatch.setattr(example, "PATCH_PIXELS", 3)
    patch = np.zeros([2, 3, 1])
    top = example.mosaic([patch], np.array([[0, 4, 2, 7]]), 3, 0.5)
    bottom = example.mosaic([patch], np.array([[5, 4, 7, 7]]), 3, 0.5)
    np.testing.assert_array_equal(top[1:4, 2, 0], [0.5, 0, 0])
    np.testing.assert_array_equal(bottom[1:4, 2, 0], [0, 0, 0.5])
    assert top.shape == (15, 15, 3)


def test_sizes_are_flags(example, monkeypatch):
    command = "visualize_features.py --digits 40 --filters 2 --epochs 1 --maps 1"
    monkeypatch.setattr(sys, "argv", command.split())
    trained = []
    monkeypatch.setattr(example, "train", lambda *arguments: trained.append(arguments))
    monkeypatch.setattr(example, "study", lambda *arguments: {})
    example.study_digits(example.parse_arguments())
    ((model, images, labels, epochs),) = trained
    assert [model.get_layer(name).filters for name in example.DIGIT_LAYERS] == [2, 4, 6]
    assert (np.bincount(labels) == 4).all()
    assert (len(images), epochs) == (40, 1)


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--epochs", "0", "'--epochs' must be at least 1, got 0"),
        ("--maps", "0", "'--maps' must be at least 1, got 0"),
        ("--filters", "0", "'--filters' must be at least 1, got 0"),
        ("--digits", "0", "'--digits' must be a multiple of 10 from 10 to 4000, got 0"),
        ("--digits", "15", "'--digits' must be a multiple of 10 from 10 to 4000, got 15"),
        ("--digits", "4010", "'--digits' must be a multiple of 10 from 10 to 4000, got 4010"),
        ("--vgg16", "nowhere.h5", "'--vgg16' must be a file, got nowhere.h5"),
    ],
)
def test_bad_flags_are_refused(example, monkeypatch, capsys, flag, value, message):
    monkeypatch.setattr(sys, "argv", ["visualize_features.py", flag, value])
    with pytest.raises(SystemExit):
        example.parse_arguments()
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("package", ["mlxtend", "matplotlib", "skimage", "sklearn"])
def test_missing_extra_is_named_before_the_training(example, monkeypatch, package):
    monkeypatch.setattr(sys, "argv", ["visualize_features.py"])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "tfseg_ops\[demo\]"'):
        example.parse_arguments()
