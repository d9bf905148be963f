"""Where a run takes place: "cpu" or "gpu", and how its work is known to be finished there."""

import numpy as np
import tensorflow as tf

from benchmarks.case import Outputs

CPU = "cpu"
GPU = "gpu"
DEVICES = (CPU, GPU)


def tf_name(device: str) -> str:
    """TensorFlow's name of the first such device, for `tf.device`."""
    return f"/{device.upper()}:0"


def suffix(device: str) -> str:
    """What the names of result files end with, so that no device overwrites another's."""
    return "" if device == CPU else f"_{device}"


def absence(device: str) -> str:
    """Returns why nothing can be timed there, or an empty string."""
    if tf.config.list_physical_devices(device.upper()):
        return ""
    return f"'--device {device}' needs a {device.upper()} that TensorFlow sees, got none"


def wait(device: str, outputs: Outputs) -> None:
    """Returns when the outputs are there.

    On the CPU an element of each is read, which waits for the tensor and copies nothing. On a GPU
    reading would copy the whole output to the host: all devices are synchronized instead, which
    waits for what eager calls, graphs and XLA programs have put on any stream.
    """
    if device == GPU:
        tf.test.experimental.sync_devices()
        return
    for output in outputs.values():
        array = np.asarray(output)
        array[(0,) * array.ndim]
