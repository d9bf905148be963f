"""The floor under every memory-bound op: reading its inputs once and writing its outputs once."""

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from benchmarks.case import Case, CaseKey, Outputs, Run, Traffic

_LINE_BYTES = 64


def fill_and_copy(traffic: Traffic, threads: int, fresh: bool) -> Run:
    """Returns a function that moves the bytes of `traffic` and computes nothing.

    It copies as many bytes as are both read and written (memcpy), fills what is written beyond that
    with zeros (memset), and sums up what is read beyond that. Each of the threads takes one
    contiguous share. This is numpy and not TensorFlow, so it holds for no particular runtime.

    Args:
        traffic: the bytes to read and to write.
        threads: the number of threads that share the work.
        fresh: True to allocate the output in each call, as TensorFlow does, so that its page faults
            are in the time (numpy asks for huge pages from 4 MB on); False to write into a buffer
            touched before. Warm is the bound of the memory, fresh the bound of an op.
    """
    source = np.ones(_whole_lines(traffic.read) // 8, np.int64).view(np.uint8)
    warm = np.ones(0 if fresh else _whole_lines(traffic.written), np.uint8)
    pool = ThreadPoolExecutor(threads)

    def run() -> Outputs:
        target = np.empty(_whole_lines(traffic.written), np.uint8) if fresh else warm
        sums = pool.map(
            lambda index: _move(_share(source, index, threads), _share(target, index, threads)),
            range(threads),
        )
        return {"moved": target, "sum": np.asarray(sum(sums))}

    return run


def _whole_lines(size: int) -> int:
    return -(-size // _LINE_BYTES) * _LINE_BYTES


def _share(buffer: NDArray[np.uint8], index: int, threads: int) -> NDArray[np.uint8]:
    lines = buffer.size // _LINE_BYTES
    start, stop = (lines * i // threads * _LINE_BYTES for i in (index, index + 1))
    return buffer[start:stop]


def _move(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> int:
    copied = min(source.size, target.size)
    np.copyto(target[:copied], source[:copied])
    np.copyto(target[copied:], 0)
    return int(source[copied:].view(np.int64).sum())


def bound_cases(key: CaseKey, traffic: Traffic, threads: int) -> list[Case]:
    """The two bounds as cases beside the case of the given key."""
    return [
        Case(
            key._replace(path=f"fill_and_copy {'fresh' if fresh else 'warm'}", mode="numpy"),
            functools.partial(fill_and_copy, traffic, threads, fresh),
            traffic,
        )
        for fresh in (True, False)
    ]
