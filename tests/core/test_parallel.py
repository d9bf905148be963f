"""The core's loops: one result for any number of threads, callers that never hang, forks."""

import types
from typing import Any

import numpy as np
import pytest
from helpers.core_library import sanitized
from helpers.core_samples import POOLINGS, SHAPE, sample_results
from helpers.processes import run_python
from helpers.tolerances import FLOAT_DTYPES, assert_same_bits, name_of

Core = types.ModuleType

pytestmark = pytest.mark.usefixtures("same_threads_afterwards")


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=name_of)
def test_results_are_bitwise_the_same_for_any_number_of_threads(
    core: Core, dtype: Any, pooling: str
) -> None:
    core.set_num_threads(1)
    expected = sample_results(core, pooling, dtype)
    for count in (2, 3, 8):
        core.set_num_threads(count)
        for actual, wanted in zip(sample_results(core, pooling, dtype), expected, strict=True):
            assert_same_bits(actual, wanted)


def test_first_illegal_mask_is_named_by_any_number_of_threads(core: Core) -> None:
    masks = np.zeros(SHAPE, np.int64)
    masks[1:, 5::7] = -1
    messages = set()
    for count in (1, 2, 3, 8, 8, 8, 8):
        core.set_num_threads(count)
        with pytest.raises(ValueError, match="argmax") as caught:
            core.max_unpool_grad(np.zeros(SHAPE, np.float32), masks)
        messages.add(str(caught.value).partition("got ")[2])
    assert messages == {"-1 at [1, 5, 0, 0]"}


@pytest.mark.parametrize(("asked", "given"), [(0, 1), (-3, 1), (5, 5)])
def test_number_of_threads_is_at_least_one(core: Core, asked: int, given: int) -> None:
    core.set_num_threads(asked)
    assert core.num_threads() == given


def test_absurd_number_of_threads_does_no_harm() -> None:
    run_python(
        """
        import numpy as np
        from helpers.core_library import load_core

        core = load_core()
        masks = np.random.default_rng(0).integers(0, 90000, (1, 300, 300, 1))
        expected = core.max_unpool(masks.astype(np.float32), masks, (300, 300))
        core.set_num_threads(2**31 - 1)
        result = core.max_unpool(masks.astype(np.float32), masks, (300, 300))
        np.testing.assert_array_equal(result, expected)
        """
    )


def test_four_callers_on_two_threads_finish_and_agree() -> None:
    run_python(
        """
        import threading
        import numpy as np
        from helpers.core_library import load_core
        from helpers.core_samples import sample_results
        from helpers.tolerances import bits

        core = load_core()
        core.set_num_threads(2)
        expected = sample_results(core, "overlapping", np.float32)
        wrong = []

        def call():
            for _ in range(10):
                results = sample_results(core, "overlapping", np.float32)
                same = [np.array_equal(bits(a), bits(b)) for a, b in zip(results, expected)]
                if not all(same):
                    wrong.append(same)

        callers = [threading.Thread(target=call) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert not wrong, wrong
        """,
        timeout=60,
    )


@pytest.mark.skipif(sanitized(), reason="sanitizers do not follow forks")
def test_forked_child_has_threads_of_its_own() -> None:
    output = run_python(
        """
        import multiprocessing
        import numpy as np
        from helpers.core_library import load_core

        core = load_core()
        image = np.random.default_rng(0).normal(size=(4, 200, 200, 32)).astype(np.float32)

        def call(_):
            return core.num_threads(), core.max_pool_with_argmax(image, (2, 2), (2, 2), "SAME")

        core.set_num_threads(3)
        _, expected = call(0)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            for threads, results in pool.map(call, range(4)):
                assert threads == 3, threads
                for result, wanted in zip(results, expected):
                    np.testing.assert_array_equal(result, wanted)
        _, results = call(0)
        np.testing.assert_array_equal(results[0], expected[0])
        print("done")
        """,
        timeout=60,
    )
    assert output == "done\n"
