"""TensorFlow's threads: one result for any number of them, and callers that never hang."""

from pathlib import Path

import numpy as np
import pytest
from helpers.gpu import EMULATED
from helpers.processes import run_python

pytestmark = pytest.mark.skipif(EMULATED, reason="a GPU's kernels do not run on these threads")


def test_results_are_bitwise_the_same_for_one_and_two_threads(tmp_path: Path) -> None:
    for threads in (1, 2):
        run_python(
            """
            import sys
            import numpy as np
            import tensorflow as tf
            from helpers.op_samples import all_op_results

            tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
            np.savez(sys.argv[2], **dict(all_op_results()))
            """,
            threads,
            tmp_path / f"{threads}.npz",
        )
    one, two = np.load(tmp_path / "1.npz"), np.load(tmp_path / "2.npz")
    assert one.files == two.files
    for name in one.files:
        np.testing.assert_array_equal(two[name], one[name], name)


def test_four_callers_on_two_threads_never_hang() -> None:
    """Each caller waits for helpers that may never start: eagerly, in graphs and under XLA."""
    output = run_python(
        """
        import threading
        import numpy as np
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(2)
        tf.config.threading.set_inter_op_parallelism_threads(2)
        from tfseg_ops import ops

        image = tf.constant(np.random.default_rng(0).normal(size=(4, 64, 64, 64)), tf.float32)

        def run(image):
            with tf.GradientTape() as tape:
                tape.watch(image)
                output, argmax = ops.max_pool_with_argmax(image, 3, 2, "SAME")
                restored = ops.max_unpool(output, argmax, [64, 64])
            return restored, tape.gradient(restored, image)

        expected = [result.numpy() for result in run(image)]
        modes = {"eager": run, "graph": tf.function(run), "xla": tf.function(run, jit_compile=True)}
        for mode, function in modes.items():
            function(image)
            wrong = []

            def call():
                for _ in range(25):
                    for result, wanted in zip(function(image), expected):
                        if not np.array_equal(result.numpy(), wanted):
                            wrong.append(mode)

            callers = [threading.Thread(target=call) for _ in range(4)]
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join()
            assert not wrong, wrong
            print(mode)
        """,
        timeout=150,
    )
    assert output.split() == ["eager", "graph", "xla"]
