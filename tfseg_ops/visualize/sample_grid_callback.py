"""A picture of a model's outputs after each epoch."""

import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfseg_ops import _checks

_GAP = 2  # pixels between the images
_WHITE = 255


class SampleGridCallback(keras.callbacks.Callback):
    """Draws the same sample images and what the model makes of them, after each epoch.

    A grid with a column for each image and up to three rows: the images, the model's outputs, and
    the targets if there are any. It goes into a folder as `epoch_001.png`, `epoch_002.png` and so
    on, to TensorBoard, or both. A file appears under its name when it is complete; one of an
    earlier training is replaced.

    uint8 pixels are grey values in [0, 255], bool and floating ones in [0, 1]: what lies outside is
    clipped, NaN drawn black. One channel is grey, three are red, green, blue. Where sizes differ,
    smaller images are repeated 2x2, 3x3 ... times as long as they fit, and centred on white.

    The model is called eagerly with `training=False`, whatever `jit_compile` and `run_eagerly` say.
    The images are all in one batch, so give it some ten.

    Args:
        images: `[batch, height, width, channels]`, of 1 or 3 channels, given to the model as they
            are.
        path: a folder for the PNG files, made where it is missing, on the disk or on whatever else
            `tf.io.gfile` reaches ("gs://bucket/samples"); or None.
        log_dir: such a folder for TensorBoard; or None. Steps are numbered from 0, as
            `keras.callbacks.TensorBoard` does. Needs no package `tensorboard` for writing.
        targets: as many images as `images`, of 1 or 3 channels, of any size; or None.
        postprocess: what to do with the model's outputs before they are drawn, as `tf.sigmoid` for
            a model that returns logits, or a function that takes one of several outputs (which
            come as the model's list or dict); or None.
        name: of the image in TensorBoard.

    Raises:
        ValueError: neither `path` nor `log_dir`, or images or targets that cannot be drawn; after
            the first epoch, outputs that cannot be drawn or of which there are several.
        TypeError: images or targets that are neither uint8, bool nor floating; after the first
            epoch, such outputs.

    Example:
        >>> samples = SampleGridCallback(noisy[:8], "samples", targets=clean[:8])
        >>> model.fit(noisy, clean, epochs=10, callbacks=[samples])
    """

    def __init__(  # noqa: D107, the class says it
        self,
        images: Any,
        path: str | os.PathLike[str] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        targets: Any = None,
        *,
        postprocess: Callable[[Any], Any] | None = None,
        name: str = "samples",
    ) -> None:
        super().__init__()
        if path is None and log_dir is None:
            _checks.refuse("SampleGridCallback", "path", "be given, or 'log_dir'", None)
        if postprocess is not None and not callable(postprocess):
            _checks.refuse("SampleGridCallback", "postprocess", "be a function", postprocess)
        self.images = np.array(images)  # a copy: the same sample whatever becomes of the original
        self._inputs = _pixels("images", self.images)
        self._targets = None if targets is None else _pixels("targets", targets, len(self._inputs))
        self.path = None if path is None else os.fspath(path)
        self.log_dir = None if log_dir is None else os.fspath(log_dir)
        self.postprocess = postprocess
        self.name = name
        self._writer: Any = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Draws the grid."""
        outputs = self.model(self.images, training=False)
        if self.postprocess is not None:
            outputs = self.postprocess(outputs)
        if isinstance(outputs, (list, tuple, dict)):
            rule = "be one batch of images: give a 'postprocess' that takes one of several"
            got = f"a {type(outputs).__name__} of {len(outputs)}"
            _checks.refuse("SampleGridCallback", "outputs", rule, got)
        rows = [self._inputs, _pixels("outputs", outputs, len(self._inputs))]
        grid = _grid(rows if self._targets is None else [*rows, self._targets])
        png = tf.io.encode_png(grid)
        if self.path is not None:
            _write(self.path, f"epoch_{epoch + 1:03d}", png.numpy())
        if self.log_dir is not None:
            self._log(epoch, grid.shape, png)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _log(self, epoch: int, shape: tuple[int, ...], png: tf.Tensor) -> None:
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self.log_dir)
        # What tf.summary.image writes, which itself needs the package tensorboard.
        metadata = tf.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = "images"
        values = tf.stack([str(shape[1]), str(shape[0]), png])
        with self._writer.as_default(), tf.summary.record_if(True):
            tf.summary.write(self.name, values, step=epoch, metadata=metadata)
        self._writer.flush()


def _pixels(argument: str, images: Any, count: int | None = None) -> np.ndarray:
    """Returns images as uint8 `[count, height, width, channels]`."""
    array = np.asarray(images)
    if str(array.dtype) == "bfloat16":
        array = array.astype(np.float32)
    fits = array.ndim == 4 and array.shape[3] in (1, 3) and array.size > 0
    if not fits or count not in (None, len(array)):
        batch = "batch" if count is None else f"batch={count}"
        rule = f"have shape [{batch}, height, width, 1 or 3] and at least one pixel"
        _checks.refuse("SampleGridCallback", argument, rule, list(array.shape))
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "fb":
        rule = "be uint8, bool or floating"
        raise TypeError(f"SampleGridCallback: '{argument}' must {rule}, got {array.dtype}")
    grey = np.clip(np.nan_to_num(array.astype(np.float32), nan=0.0), 0, 1)
    return np.rint(grey * _WHITE).astype(np.uint8)


def _grid(rows: list[np.ndarray]) -> np.ndarray:
    """Returns one picture: a row for each batch of images, a column for each of its images."""
    height, width, channels = np.max([row.shape[1:] for row in rows], axis=0)
    cells = np.full(
        [len(rows), height + _GAP, len(rows[0]), width + _GAP, channels], _WHITE, np.uint8
    )
    for cell, images in zip(cells, rows, strict=True):
        times = min(height // images.shape[1], width // images.shape[2])
        large = images.repeat(times, 1).repeat(times, 2)
        top, left = (height - large.shape[1]) // 2, (width - large.shape[2]) // 2
        window = cell[top : top + large.shape[1], :, left : left + large.shape[2]]
        window[...] = large.transpose(1, 0, 2, 3)  # grey images go into all channels
    picture = cells.reshape(len(rows) * (height + _GAP), len(rows[0]) * (width + _GAP), channels)
    return picture[:-_GAP, :-_GAP]


def _write(folder: str, name: str, data: bytes) -> None:
    """Writes a PNG file that appears under its name when it is complete."""
    tf.io.gfile.makedirs(folder)
    unfinished = os.path.join(folder, f"{name}.unfinished")
    with tf.io.gfile.GFile(unfinished, "wb") as file:
        file.write(data)
    tf.io.gfile.rename(unfinished, os.path.join(folder, f"{name}.png"), overwrite=True)
