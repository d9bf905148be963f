"""`portable()` decides, when an op is called, which version runs."""

import threading

import numpy as np
import pytest
import tensorflow as tf

import tfseg_ops
from tfseg_ops import ops

IMAGE = np.arange(16.0).reshape(1, 4, 4, 1)


def ops_in_a_trace() -> set[str]:
    """The ops of ours in a graph that pools and unpools."""

    @tf.function
    def run(image: tf.Tensor) -> tf.Tensor:
        output, argmax = ops.max_pool_with_argmax(image, 2, 2, "VALID")
        return ops.max_unpool(output, argmax, [4, 4])

    graph = run.get_concrete_function(tf.constant(IMAGE)).graph
    return {op.type for op in graph.get_operations() if op.type.startswith("Tfseg>")}


OURS = {"Tfseg>MaxPoolWithArgmax", "Tfseg>MaxUnpool"}


def test_ops_of_ours_run_outside_and_none_inside() -> None:
    assert ops_in_a_trace() == OURS
    with tfseg_ops.portable():
        assert ops_in_a_trace() == set()
        with tfseg_ops.portable():
            assert ops_in_a_trace() == set()
        assert ops_in_a_trace() == set()
    assert ops_in_a_trace() == OURS


def test_error_inside_leaves_nothing_behind() -> None:
    with pytest.raises(ValueError, match="ksize"), tfseg_ops.portable():
        ops.max_pool_with_argmax(IMAGE, 0, 2, "VALID")
    assert ops_in_a_trace() == OURS


@pytest.mark.parametrize(("value", "expected"), [("1", set()), ("0", OURS), ("", OURS)])
def test_environment_decides_for_a_whole_process(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: set[str]
) -> None:
    monkeypatch.setenv("TFSEG_OPS_PORTABLE", value)
    assert ops_in_a_trace() == expected


def test_other_threads_are_not_concerned() -> None:
    seen = []
    with tfseg_ops.portable():
        other = threading.Thread(target=lambda: seen.append(ops_in_a_trace()))
        other.start()
        other.join()
    assert seen == [OURS]
