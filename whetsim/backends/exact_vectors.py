"""Vector operations of the exact engine: what its loops keep in registers, written for LLVM.

A vector has `LANES` elements, whatever the processor has: LLVM splits or joins them. Numba keeps
what it compiled as long as the file of a loop is the same, so `exact_kernels` names the checksum of
this one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

__all__ = [
    "DIGIT",
    "EVENT_ROOM",
    "I32",
    "I64",
    "LANES",
    "WINDOWS",
    "Vectors",
    "add_rows",
    "fired",
    "fired_window",
    "fired_windows",
    "popcount",
    "write_bits",
]

LANES = 16
"""Channels are padded to a multiple of this: one vector of sums."""
WINDOWS = 8
"""Windows whose sums are kept in registers together."""
DIGIT = 15
"""Bits of the lower digit of a weight that is written as two numbers of 16 bits."""
EVENT_ROOM = 8
"""How many entries behind its numbers `write_bits` may write to."""

I16, I32, I64, F64 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.DoubleType()


class Vectors:
    """What intrinsics share: arguments, and vectors in arrays."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.context, self.builder = context, builder
        self.kinds, self.arguments = signature.args, arguments

    def data(self, i: int) -> Any:
        """Return the data pointer of an array argument."""
        return make_array(self.kinds[i])(self.context, self.builder, self.arguments[i]).data

    def integer(self, i: int) -> Any:
        """Return an argument as int64."""
        return self.context.cast(self.builder, self.arguments[i], self.kinds[i], types.int64)

    def type_of(self, i: int) -> Any:
        """Return the vector type for the elements of an array argument."""
        whole = self.kinds[i].dtype == types.int32
        return ir.VectorType(I32 if whole else F64, LANES)

    def pointer(self, base: Any, index: Any, kind: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(base, [index]), kind.as_pointer())

    def load(self, base: Any, index: Any, kind: Any, align: int = 4) -> Any:
        loaded = self.builder.load(self.pointer(base, index, kind))
        loaded.align = align  # of the elements: rows begin anywhere
        return loaded

    def store(self, value: Any, base: Any, index: Any) -> None:
        self.builder.store(value, self.pointer(base, index, value.type)).align = 4

    def spread(self, element: Any, lanes: int = LANES) -> Any:
        """Return a vector that repeats one element."""
        nothing = ir.Constant(ir.VectorType(element.type, lanes), ir.Undefined)
        one = self.builder.insert_element(nothing, element, I32(0))
        zeros = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
        return self.builder.shuffle_vector(one, nothing, zeros)

    def bits_of(self, mask: Any) -> Any:
        """Return a vector of truth values as the lowest bits of a word."""
        return self.builder.zext(self.builder.bitcast(mask, ir.IntType(LANES)), I64)

    def loop(self, begin: Any, end: Any, running: list[Any], step: Any) -> list[Any]:
        """Return what is left of some values when ``step(i, values)`` ran from begin to end."""
        builder, before = self.builder, self.builder.block
        head, body, done = (builder.append_basic_block(name) for name in ("head", "body", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(I64)
        phis = [builder.phi(value.type) for value in running]
        builder.cbranch(builder.icmp_signed("<", i, end), body, done)
        builder.position_at_end(body)
        after = step(i, phis)
        following = builder.add(i, I64(1))
        builder.branch(head)
        for phi, first, new in zip([i, *phis], [begin, *running], [following, *after], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(new, builder.block)
        builder.position_at_end(done)
        return phis


@intrinsic
def add_rows(typing, step, weight, block, events, values, begin, end, shift, sums, place):
    """Add weight rows ``events[begin:end] + shift`` to ``sums[place : place + step * LANES]``.

    step is 4, 2 or 1; the rows of that length lie one after the other from ``weight[block]`` on.
    A row counts ``values[e]`` times if values are float64, once if they are not.
    """
    signature = types.void(step, weight, block, events, values, begin, end, shift, sums, place)
    weighted = values.dtype == types.float64

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = Vectors(context, builder, signature, arguments)
        vector = v.type_of(1)
        weights, numbers, factors, totals = v.data(1), v.data(3), v.data(4), v.data(8)
        step_, block_, begin_, end_, shift_, place_ = map(v.integer, (0, 2, 5, 6, 7, 9))
        done = builder.append_basic_block("added")
        cases = {width: builder.append_basic_block(f"wide{width}") for width in (4, 2, 1)}
        choice = builder.switch(step_, cases[1])
        for width, case in cases.items():
            if width > 1:
                choice.add_case(I64(width), case)
            builder.position_at_end(case)
            lanes = [I64(i * LANES) for i in range(width)]

            def add(event: Any, totals: list[Any], lanes: list[Any] = lanes) -> list[Any]:
                number = builder.sext(builder.load(builder.gep(numbers, [event])), I64)
                row = builder.mul(builder.add(number, shift_), I64(len(lanes) * LANES))
                row = builder.add(row, block_)
                parts = [v.load(weights, builder.add(row, lane), vector) for lane in lanes]
                if weighted:
                    factor = v.spread(builder.load(builder.gep(factors, [event])))
                    parts = [builder.fmul(part, factor, flags=("contract",)) for part in parts]
                return [_sum(builder, *pair) for pair in zip(totals, parts, strict=True)]

            homes = [builder.add(place_, lane) for lane in lanes]
            found = v.loop(begin_, end_, [v.load(totals, home, vector) for home in homes], add)
            for value, home in zip(found, homes, strict=True):
                v.store(value, totals, home)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return signature, generate


def _sum(builder: Any, left: Any, right: Any) -> Any:
    """Return ``left + right``, vectors of integers or of whole numbers in float64."""
    if isinstance(left.type.element, ir.IntType):
        return builder.add(left, right)
    return builder.fadd(left, right, flags=("contract",))


def _make_fired_windows(n_windows: int) -> Any:
    @intrinsic
    def windows(
        typing,
        weight,
        values,
        offsets,
        n_rows,
        n_pairs,
        begin,
        across,
        limits,
        limit,
        step,
        out,
        place,
        words,
        bit,
    ):
        """Set the bits of `LANES` channels in some windows side by side.

        Parameters
        ----------
        weight : int16 array
            For each pair of taps upper digits of `LANES` channels, then lower; each as two numbers.
        values : int16 array
        offsets : int64 array (n_rows, 2)
            Rows of the kernel: where its pairs begin in `weight`, and in `values` counted from
            the beginning of the window.
        begin, across
            The windows begin at `begin`, ``begin + across``, ...
        limits, limit, step
            Two digits of what `LANES` sums of the first window are less than their thresholds if
            nothing arrives, int32, at ``limits[limit:]``; for the next `step` further.
        out, place, words, bit
            Bits go to ``out[place]``, ``out[place + words]``, ... from `bit` on.
        """
        signature = types.void(
            weight,
            values,
            offsets,
            n_rows,
            n_pairs,
            begin,
            across,
            limits,
            limit,
            step,
            out,
            place,
            words,
            bit,
        )

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            v = Vectors(context, builder, signature, arguments)
            pairs, sums = ir.VectorType(I16, 2 * LANES), ir.VectorType(I32, LANES)
            weights, seen, where = v.data(0), v.data(1), v.data(2)
            n_rows_, n_pairs_, begin_, across_ = map(v.integer, (3, 4, 5, 6))
            firsts = [builder.add(begin_, builder.mul(across_, I64(i))) for i in range(n_windows)]

            def add_row(row: Any, totals: list[Any]) -> list[Any]:
                at = builder.mul(row, I64(2))
                taps = builder.load(builder.gep(where, [at]))
                cells = builder.load(builder.gep(where, [builder.add(at, I64(1))]))
                starts = [builder.add(first, cells) for first in firsts]

                def add_pair(pair: Any, totals: list[Any]) -> list[Any]:
                    tap = builder.add(taps, builder.mul(pair, I64(4 * LANES)))
                    upper = v.load(weights, tap, pairs)
                    lower = v.load(weights, builder.add(tap, I64(2 * LANES)), pairs)
                    after = []
                    for start, high, low in zip(starts, totals[::2], totals[1::2], strict=True):
                        cell = builder.add(start, builder.mul(pair, I64(2)))
                        both = builder.bitcast(v.spread(v.load(seen, cell, I32, 2)), pairs)
                        after.append(
                            builder.add(high, _pairs_of_products(context, builder, both, upper))
                        )
                        after.append(
                            builder.add(low, _pairs_of_products(context, builder, both, lower))
                        )
                    return after

                return v.loop(I64(0), n_pairs_, totals, add_pair)

            limit_, step_, place_, words_, bit_ = map(v.integer, (8, 9, 11, 12, 13))
            start = []
            for i in range(n_windows):
                at = builder.add(limit_, builder.mul(step_, I64(i)))
                start.append(v.load(v.data(7), at, sums))
                start.append(v.load(v.data(7), builder.add(at, I64(LANES)), sums))
            found = v.loop(I64(0), n_rows_, start, add_row)
            shift, zero = (ir.Constant(sums, [value] * LANES) for value in (DIGIT, 0))
            for i, (high, low) in enumerate(zip(found[::2], found[1::2], strict=True)):
                # The shift rounds down, so this is the sign of ``high * 2^DIGIT + low``.
                total = builder.add(high, builder.ashr(low, shift))
                mask = v.bits_of(builder.icmp_signed(">=", total, zero))
                word = builder.gep(v.data(10), [builder.add(place_, builder.mul(words_, I64(i)))])
                builder.store(builder.or_(builder.load(word), builder.shl(mask, bit_)), word)
            return context.get_dummy_value()

        return signature, generate

    return windows


def _pairs_of_products(context: Any, builder: Any, left: Any, right: Any) -> Any:
    """Return ``left[2 i] * right[2 i] + left[2 i + 1] * right[2 i + 1]`` as int32."""
    wide = ir.VectorType(I32, LANES)
    triple, _, features = context.codegen().magic_tuple()
    if not triple.startswith("x86_64"):
        even, odd = (
            [builder.sext(_lanes(builder, v, range(i, 2 * LANES, 2)), wide) for v in (left, right)]
            for i in (0, 1)
        )
        return builder.add(builder.mul(*even), builder.mul(*odd))
    # One instruction, which LLVM does not find by itself.
    size, name = 8, "llvm.x86.sse2.pmadd.wd"
    for feature, wider, wide_name in (
        ("+avx2", 16, "llvm.x86.avx2.pmadd.wd"),
        ("+avx512bw", 32, "llvm.x86.avx512.pmaddw.d.512"),
    ):
        if feature in features.split(","):
            size, name = wider, wide_name
    part, half = ir.VectorType(I16, size), ir.VectorType(I32, size // 2)
    instruction = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(half, [part, part]), name
    )
    parts = [
        builder.call(instruction, [_lanes(builder, v, range(i, i + size)) for v in (left, right)])
        for i in range(0, 2 * LANES, size)
    ]
    while len(parts) > 1:
        n = 2 * parts[0].type.count
        joined = ir.Constant(ir.VectorType(I32, n), list(range(n)))
        parts = [
            builder.shuffle_vector(a, b, joined)
            for a, b in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def _lanes(builder: Any, vector: Any, lanes: Any) -> Any:
    """Return some elements of a vector as a vector."""
    chosen = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), chosen)


fired_windows, fired_window = _make_fired_windows(WINDOWS), _make_fired_windows(1)


@intrinsic
def fired(typing, sums, place, thresholds, offset):
    """Return the bits ``sums[place + i] >= thresholds[offset + i]`` of `LANES` channels."""
    signature = types.uint64(sums, place, thresholds, offset)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = Vectors(context, builder, signature, arguments)
        vector = v.type_of(0)
        left = v.load(v.data(0), v.integer(1), vector)
        right = v.load(v.data(2), v.integer(3), vector)
        whole = isinstance(vector.element, ir.IntType)
        compare = builder.icmp_signed if whole else builder.fcmp_ordered
        return v.bits_of(compare(">=", left, right))

    return signature, generate


@intrinsic
def popcount(typing, word):
    """Return how many bits of a word are set."""
    signature = types.int64(types.uint64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return signature, generate


def _bits_of_bytes() -> Any:
    """Return for each byte the numbers of its bits that are set, (256, 8), rising."""
    table = np.zeros((256, 8), np.int32)
    for byte in range(256):
        numbers = [bit for bit in range(8) if byte >> bit & 1]
        table[byte, : len(numbers)] = numbers
    return table


@intrinsic
def write_bits(typing, byte, base, numbers, place):
    """Write `base` plus the numbers of the bits of a byte to ``numbers[place:]``, eight entries.

    What stands behind the bits that are set is arbitrary.
    """
    signature = types.void(byte, base, numbers, place)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = Vectors(context, builder, signature, arguments)
        rows = ir.ArrayType(ir.VectorType(I32, 8), 256)
        table = ir.Constant(
            rows, [ir.Constant(rows.element, list(map(int, row))) for row in _bits_of_bytes()]
        )
        stored = cgutils.global_constant(builder.module, "bits_of_bytes", table)
        found = builder.load(builder.gep(stored, [I64(0), v.integer(0)]))
        first = v.spread(builder.trunc(v.integer(1), I32), 8)
        v.store(builder.add(found, first), v.data(2), v.integer(3))
        return context.get_dummy_value()

    return signature, generate
