"""The floor under every memory-bound op: reading its inputs once and writing its outputs once."""

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from benchmarks.case import Case, CaseKey, Outputs, Run, Traffic
from benchmarks.device import CPU

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


def device_fill_and_copy(traffic: Traffic) -> Run:
    """Returns a function that moves the bytes of `traffic` in the memory of the current device.

    It is made of stock TensorFlow, and so a bound of what TensorFlow reaches and not of the memory:
    one kernel copies what is both read and written, one fills what is written beyond that, one
    sums up what is read beyond that. Scalars that are known only in the call keep TensorFlow from
    simplifying any of them away.
    """
    read, written = (_whole_lines(size) // 4 for size in (traffic.read, traffic.written))
    both = min(read, written)
    source, rest = tf.ones([both]), tf.ones([max(read - both, 0)])

    @tf.function
    def move(source: tf.Tensor, rest: tf.Tensor, zero: tf.Tensor) -> Outputs:
        outputs = {"copied": source + zero}
        if written > both:
            outputs["filled"] = tf.fill([written - both], zero)
        if read > both:
            outputs["sum"] = tf.reduce_sum(rest)
        return outputs

    arguments = source, rest, tf.zeros([])
    traced = move.get_concrete_function(*arguments)
    return lambda: traced(*arguments)


def bound_cases(key: CaseKey, traffic: Traffic, threads: int, device: str = CPU) -> list[Case]:
    """The bounds of a device as cases beside the case of the given key."""
    if device != CPU:
        own = key._replace(path=f"fill_and_copy {device}", mode="graph")
        return [Case(own, functools.partial(device_fill_and_copy, traffic), traffic)]
    return [
        Case(
            key._replace(path=f"fill_and_copy {'fresh' if fresh else 'warm'}", mode="numpy"),
            functools.partial(fill_and_copy, traffic, threads, fresh),
            traffic,
        )
        for fresh in (True, False)
    ]
