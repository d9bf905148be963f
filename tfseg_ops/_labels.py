"""Class numbers that come as floats."""

import tensorflow as tf


def whole_numbers(labels: tf.Tensor) -> tf.Tensor:
    """Returns integers as they are, floats as int32; those with a fraction become illegal.

    Keras takes floats for labels, and shows them to a loss when it builds a replicated model,
    whatever the labels are.
    """
    if not labels.dtype.is_floating:
        return labels
    return tf.where(labels == tf.floor(labels), tf.cast(labels, tf.int32), tf.int32.min)
