"""The peak signal-to-noise ratio."""

import math

import tensorflow as tf

# The PSNR of images that are the same is infinite, and would make that of a set infinite too.
MOST = 100.0


def psnr_of(mean_squared_error: tf.Tensor, max_val: float) -> tf.Tensor:
    """Returns `10 log10(max_val^2 / mean_squared_error)`, in dB, at most `MOST`."""
    decibels = 20 * math.log10(max_val) - tf.math.log(mean_squared_error) * (10 / math.log(10))
    return tf.minimum(decibels, MOST)


def squared_errors(truth: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
    """Returns the mean squared error of each image, `[batch]`."""
    return tf.reduce_mean(tf.math.squared_difference(truth, prediction), axis=[1, 2, 3])
