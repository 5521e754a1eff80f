"""How many int32 additions a second this machine reaches, by where their operands lie."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from whetsim.backends import exact_kernels as kernels
from whetsim.backends.exact_arrays import aligned_copy
from whetsim.backends.exact_vectors import I32, I64, LANES, Vectors

__all__ = ["peaks"]

PAIRS = 8
"""Pairs of vectors that `_add_in_registers` adds to each other; all fit the registers."""


def peaks() -> dict[str, float]:
    """Return additions of int32 numbers a second on all cores, by where the operands lie.

    In registers: a loop of nothing but additions. Else the engine's own inner loop, over weights
    that fit the nearest cache, the next, and memory.
    """
    rounds = 2**22
    result = {"registers": _additions_per_s(lambda: _spin(rounds), 2 * PAIRS * LANES * rounds)}
    none = np.zeros((1, 1), np.uint8)
    one = np.array([[0, 0]]), np.ones(1, np.int64), np.array([[0, 0, 1]]), np.ones(1, np.int64)
    n_events, columns, repeats = 2**16, 64, 20
    first = np.array([[0, n_events]])
    for where, rows in (("L1", 64), ("L2", 2048), ("memory", 2**19)):
        weight = aligned_copy(np.ones(rows * columns, np.int32))
        order = np.random.default_rng(0).integers(0, rows, (1, n_events)).astype(np.int32)

        def add(weight: Any = weight, order: Any = order, rows: int = rows) -> None:
            sums = np.zeros((1, 1, columns), np.int32)
            for _ in range(repeats):
                kernels.slide(order, none, first, weight, *one, (1, 1, rows), sums)

        result[where] = _additions_per_s(add, repeats * n_events * columns)
    return result


def _additions_per_s(work: Callable[[], Any], additions: int) -> float:
    """Return the additions a second of all cores together; the best of five."""
    threads = len(os.sched_getaffinity(0))
    work()
    times = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            begin = time.perf_counter()
            for future in [pool.submit(work) for _ in range(threads)]:
                future.result()
            times.append(time.perf_counter() - begin)
    return threads * additions / min(times)


@intrinsic
def _add_in_registers(typing, rounds):
    """Return a number that depends on ``2 * PAIRS`` additions of vectors a round."""
    signature = types.int32(rounds)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = Vectors(context, builder, signature, arguments)
        vector = ir.VectorType(I32, LANES)

        def add(_: Any, numbers: list[Any]) -> list[Any]:
            # Each to the other in turn, as Fibonacci did: no compiler shortens that.
            after = []
            for a, b in zip(numbers[::2], numbers[1::2], strict=True):
                after.append(builder.add(a, b))
                after.append(builder.add(b, after[-1]))
            return after

        seed = v.spread(builder.trunc(v.integer(0), I32))
        starts = [builder.add(seed, ir.Constant(vector, [i] * LANES)) for i in range(2 * PAIRS)]
        total, *rest = v.loop(I64(0), v.integer(0), starts, add)
        for number in rest:
            total = builder.xor(total, number)
        return builder.extract_element(total, I32(0))

    return signature, generate


@njit(nogil=True)
def _spin(rounds: int) -> Any:
    return _add_in_registers(rounds)
