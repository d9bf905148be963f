"""The sample grids of a training: what is drawn where, file by file, and what is refused."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.util import event_pb2

from tfseg_ops.visualize import SampleGridCallback

GAP = 2
IMAGES = np.ones([2, 4, 4, 1], np.float32)


def scaling(factor: float, channels: int = 1, dtype: str = "float32") -> Any:
    """A model that multiplies the grey values, by a trainable number that nothing changes."""
    images = keras.Input([None, None, channels], dtype=dtype)
    layer = keras.layers.Conv2D(channels, 1, use_bias=False, name="scale")
    model = keras.Model(images, layer(images))
    model.set_weights([factor * np.eye(channels).reshape(1, 1, channels, channels)])
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    return model


def fit(model: Any, callback: SampleGridCallback, epochs: int = 1, **options: Any) -> None:
    images = np.ones([2, 4, 4, model.input_shape[-1]])
    model.fit(images, images, epochs=epochs, verbose=0, callbacks=[callback], **options)


def read(path: Path) -> np.ndarray:
    return tf.io.decode_png(path.read_bytes()).numpy()


def cell(grid: np.ndarray, row: int, column: int, height: int, width: int) -> np.ndarray:
    top, left = row * (height + GAP), column * (width + GAP)
    return grid[top : top + height, left : left + width]


def test_each_epoch_has_a_file_with_inputs_outputs_and_targets(tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(size=[3, 5, 6, 1]).astype(np.float32)
    targets = images[:, ::-1]
    model = scaling(0.5)
    fit(model, SampleGridCallback(images, tmp_path / "new", targets=targets), epochs=2)
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["epoch_001.png", "epoch_002.png"]
    grid = read(tmp_path / "new" / names[-1])
    assert grid.shape == (3 * 5 + 2 * GAP, 3 * 6 + 2 * GAP, 1)
    for column in range(3):
        for row, expected in enumerate([images, 0.5 * images, targets]):
            drawn = cell(grid, row, column, 5, 6)
            np.testing.assert_allclose(drawn, 255 * expected[column], atol=0.51)
    assert (grid[5:7] == 255).all()
    assert (grid[:, 6:8] == 255).all()


def test_grid_shows_what_the_model_has_learnt_so_far(tmp_path: Path) -> None:
    images = np.full([1, 4, 4, 1], 0.5, np.float32)
    model = scaling(0.0)
    model.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=True)
    history = model.fit(
        images, images, epochs=3, verbose=0, callbacks=[SampleGridCallback(images, tmp_path)]
    )
    assert history.history["loss"][2] < history.history["loss"][0]
    drawn = [int(read(tmp_path / f"epoch_00{epoch}.png")[-1, -1, 0]) for epoch in (1, 2, 3)]
    # w += 0.5 * 2 * 0.25 * (1 - w) at each step; grey is 255 * 0.5 * w.
    assert drawn == pytest.approx([127.5 * (1 - 0.75**epoch) for epoch in (1, 2, 3)], abs=0.51)


def test_uint8_goes_to_the_model_and_into_the_grid_as_it_is(tmp_path: Path) -> None:
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1) * 8
    callback = SampleGridCallback(images, tmp_path, postprocess=lambda outputs: outputs / 255)
    fit(scaling(0.5), callback)
    grid = read(tmp_path / "epoch_001.png")
    np.testing.assert_array_equal(cell(grid, 0, 1, 4, 4), images[1])
    np.testing.assert_allclose(cell(grid, 1, 1, 4, 4), images[1] / 2)


def test_postprocess_turns_logits_or_several_outputs_into_images(tmp_path: Path) -> None:
    images = np.full([1, 4, 4, 1], 0.5, np.float32)
    fit(scaling(0.0), SampleGridCallback(images, tmp_path / "a", postprocess=tf.sigmoid))
    assert (cell(read(tmp_path / "a" / "epoch_001.png"), 1, 0, 4, 4) == 128).all()

    model = scaling(0.5)
    model = keras.Model(model.input, [model.output, model.output[:, :1]])
    model.compile("sgd", "mse")
    callback = SampleGridCallback(images, tmp_path / "b", postprocess=lambda outputs: outputs[1])
    callback.set_model(model)
    callback.on_epoch_end(0)
    assert read(tmp_path / "b" / "epoch_001.png").shape == (2 * 4 + GAP, 4, 1)


def test_values_outside_the_range_are_clipped_and_nan_is_black(tmp_path: Path) -> None:
    images = np.array([-1, 0, 0.25, 7, np.nan, np.inf], np.float32).reshape(1, 1, 6, 1)
    fit(scaling(1.0), SampleGridCallback(images, tmp_path))
    grid = read(tmp_path / "epoch_001.png")
    np.testing.assert_array_equal(grid[0, :, 0], [0, 0, 64, 255, 0, 255])


def test_grey_and_colour_stand_side_by_side(tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(size=[2, 4, 4, 1]).astype(np.float32)
    colours = np.random.default_rng(1).integers(256, size=[2, 4, 4, 3], dtype=np.uint8)
    fit(scaling(1.0), SampleGridCallback(images, tmp_path, targets=colours))
    grid = read(tmp_path / "epoch_001.png")
    assert grid.shape[2] == 3
    assert np.ptp(cell(grid, 0, 1, 4, 4), axis=-1).max() == 0
    np.testing.assert_array_equal(cell(grid, 2, 1, 4, 4), colours[1])


def test_small_images_are_enlarged_by_whole_numbers_and_centred(tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(size=[1, 2, 3, 1]).astype(np.float32)
    targets = np.zeros([1, 6, 7, 1], np.float32)
    fit(scaling(1.0), SampleGridCallback(images, tmp_path, targets=targets))
    large = np.rint(255 * images[0]).repeat(2, 0).repeat(2, 1)
    expected = np.pad(large, [(1, 1), (0, 1), (0, 0)], constant_values=255)
    np.testing.assert_array_equal(cell(read(tmp_path / "epoch_001.png"), 0, 0, 6, 7), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_tensorboard_gets_the_same_grid_at_each_step(tmp_path: Path, channels: int) -> None:
    images = np.random.default_rng(0).uniform(size=[3, 5, 6, channels]).astype(np.float32)
    callback = SampleGridCallback(images, tmp_path / "png", tmp_path / "logs", name="digits")
    fit(scaling(0.5, channels), callback, epochs=2)
    (file,) = (tmp_path / "logs").iterdir()
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(file))]
    events = [event_pb2.Event.FromString(record) for record in records][1:]  # after the version
    assert [event.step for event in events] == [0, 1]
    for epoch, event in enumerate(events, start=1):
        (value,) = event.summary.value
        assert (value.tag, value.metadata.plugin_data.plugin_name) == ("digits", "images")
        png = (tmp_path / "png" / f"epoch_00{epoch}.png").read_bytes()
        assert tf.make_ndarray(value.tensor).tolist() == [b"22", b"12", png]


def test_training_may_go_on_and_replaces_files(tmp_path: Path) -> None:
    images = np.full([1, 4, 4, 1], 0.5, np.float32)
    callback = SampleGridCallback(images, tmp_path, tmp_path / "logs")
    fit(scaling(0.5), callback, epochs=1)
    fit(scaling(0.25), callback, epochs=2)
    fit(scaling(0.25), callback, epochs=12, initial_epoch=11)
    pictures = {path.name: int(read(path)[-1, -1, 0]) for path in tmp_path.glob("*.*")}
    assert pictures == {"epoch_001.png": 32, "epoch_002.png": 32, "epoch_012.png": 32}
    assert len(list((tmp_path / "logs").iterdir())) == 3


def test_nothing_half_written_bears_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = SampleGridCallback(np.ones([1, 4, 4, 1], np.float32), tmp_path)
    fit(scaling(1.0), callback)
    before = (tmp_path / "epoch_001.png").read_bytes()

    class FullDisk(tf.io.gfile.GFile):
        def write(self, data: bytes) -> None:
            super().write(data[:10])
            raise OSError("no space left on device")

    monkeypatch.setattr(tf.io.gfile, "GFile", FullDisk)
    with pytest.raises(OSError, match="no space left"):
        fit(scaling(0.0), callback)
    assert (tmp_path / "epoch_001.png").read_bytes() == before
    monkeypatch.undo()
    fit(scaling(0.0), callback)
    assert (tmp_path / "epoch_001.png").read_bytes() != before
    assert [file.name for file in tmp_path.iterdir()] == ["epoch_001.png"]


def test_folders_may_be_elsewhere_than_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # nothing of "ram:/..." in it
    fit(scaling(1.0), SampleGridCallback(IMAGES, "ram://grids/png", "ram://grids/logs"), epochs=2)
    assert not list(tmp_path.iterdir())
    assert sorted(tf.io.gfile.listdir("ram://grids/png")) == ["epoch_001.png", "epoch_002.png"]
    with tf.io.gfile.GFile("ram://grids/png/epoch_002.png", "rb") as file:
        assert tf.io.decode_png(file.read()).shape == (2 * 4 + GAP, 2 * 4 + GAP, 1)
    assert len(tf.io.gfile.listdir("ram://grids/logs")) == 1


def test_sample_is_that_of_the_beginning(tmp_path: Path) -> None:
    images = np.ones([1, 4, 4, 1], np.float32)
    callback = SampleGridCallback(images, tmp_path)
    images[...] = 0
    fit(scaling(1.0), callback)
    assert read(tmp_path / "epoch_001.png").min() == 255


def test_mixed_precision_outputs_are_drawn(tmp_path: Path) -> None:
    images = np.full([1, 4, 4, 1], 0.5, np.float32)
    callback = SampleGridCallback(
        images, tmp_path, postprocess=lambda outputs: tf.cast(outputs, tf.bfloat16)
    )
    fit(scaling(0.5), callback)
    assert (cell(read(tmp_path / "epoch_001.png"), 1, 0, 4, 4) == 64).all()


@pytest.mark.parametrize(
    ("error", "arguments", "message"),
    [
        (ValueError, {"path": None}, "'path' must be given, or 'log_dir', got None"),
        (
            ValueError,
            {"images": IMAGES[0]},
            r"'images' must have shape \[batch, height, width, 1 or 3\] and at least one pixel, "
            r"got \[4, 4, 1\]",
        ),
        (ValueError, {"images": IMAGES[:0]}, r"'images' must .*, got \[0, 4, 4, 1\]"),
        (ValueError, {"images": np.ones([2, 4, 4, 2])}, r"'images' must .*, got \[2, 4, 4, 2\]"),
        (
            ValueError,
            {"targets": IMAGES[:1]},
            r"'targets' must have shape \[batch=2, height, width, 1 or 3\] .*, got \[1, 4, 4, 1\]",
        ),
        (ValueError, {"postprocess": "sigmoid"}, "'postprocess' must be a function, got sigmoid"),
        (
            TypeError,
            {"images": IMAGES.astype(np.int64)},
            "'images' must be uint8, bool or floating, got int64",
        ),
    ],
)
def test_bad_arguments_are_named(
    tmp_path: Path, error: type[Exception], arguments: dict, message: str
) -> None:
    with pytest.raises(error, match=f"SampleGridCallback: {message}"):
        SampleGridCallback(**{"images": IMAGES, "path": tmp_path, **arguments})


def test_outputs_that_are_no_images_are_named(tmp_path: Path) -> None:
    callback = SampleGridCallback(IMAGES, tmp_path, postprocess=lambda outputs: outputs[..., 0])
    with pytest.raises(ValueError, match=r"'outputs' must have shape .*, got \[2, 4, 4\]"):
        fit(scaling(1.0), callback)


@pytest.mark.parametrize(
    ("outputs", "got"),
    [
        (lambda x: [x, x[:, :1]], "a list of 2"),
        (lambda x: {"a": x, "b": x[:, :1], "c": x}, "a dict of 3"),
    ],
    ids=["list", "dict"],
)
def test_several_outputs_without_postprocess_are_refused_with_what_to_do(
    tmp_path: Path, outputs: Any, got: str
) -> None:
    model = scaling(1.0)
    callback = SampleGridCallback(IMAGES, tmp_path)
    callback.set_model(keras.Model(model.input, outputs(model.output)))
    message = f"SampleGridCallback: 'outputs' must .* give a 'postprocess' .*, got {got}"
    with pytest.raises(ValueError, match=message):
        callback.on_epoch_end(0)


def test_outputs_that_are_class_numbers_are_a_type_error(tmp_path: Path) -> None:
    callback = SampleGridCallback(
        IMAGES, tmp_path, postprocess=lambda outputs: tf.cast(outputs, tf.int64)
    )
    with pytest.raises(TypeError, match="'outputs' must be uint8, bool or floating, got int64"):
        fit(scaling(1.0), callback)
