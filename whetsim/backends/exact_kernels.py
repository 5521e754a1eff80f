"""Compiled loops of the exact engine: event-driven sums of whole numbers, spikes as bits.

Spikes of a population are words of 64 bits, ``(n_samples, n_places, n_words)``: bit c of a place is
its channel c. A list of events holds, place after place, the number of every neuron that fired, and
`first` where the events of each place begin. Lists of neighbouring places follow each other, so a
row of a kernel reads one run of the list, and the weights of those events lie at a fixed distance:
nothing is gathered but rows of weights, which are added up in registers.

Sums are int32 where the grid keeps them below 2^31, else whole numbers below 2^53 in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

__all__ = [
    "EVENT_ROOM",
    "LANES",
    "fire",
    "list_events",
    "list_values",
    "pack",
    "pool",
    "scatter",
    "slide",
    "slide_and_fire",
    "slide_dense",
    "slide_dense_and_fire",
    "slide_gathered",
    "starts",
    "tally",
    "tally_places",
]

LANES = 16
"""Channels are padded to a multiple of this: one vector of sums."""


def _compiled(function: Any) -> Any:
    """Compile a loop that lets other threads run; what was compiled is kept on disk."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # nowhere to keep it: a read-only system without a home
        return njit(nogil=True)(function)


class _Vectors:
    """What the intrinsics below share: vectors of `LANES` elements in arrays."""

    def __init__(self, context: Any, builder: Any, kinds: Any, arguments: Any) -> None:
        self.context, self.builder = context, builder
        self.kinds, self.arguments = kinds, arguments

    def data(self, i: int) -> Any:
        """Return the data pointer of an array argument."""
        return make_array(self.kinds[i])(self.context, self.builder, self.arguments[i]).data

    def integer(self, i: int) -> Any:
        """Return an argument as int64."""
        return self.context.cast(self.builder, self.arguments[i], self.kinds[i], types.int64)

    def type_of(self, i: int) -> Any:
        """Return the vector type for the elements of an array argument."""
        whole = self.kinds[i].dtype == types.int32
        return ir.VectorType(ir.IntType(32) if whole else ir.DoubleType(), LANES)

    def pointer(self, base: Any, index: Any, vector: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(base, [index]), vector.as_pointer())

    def load(self, base: Any, index: Any, vector: Any) -> Any:
        loaded = self.builder.load(self.pointer(base, index, vector))
        loaded.align = 4  # of the elements: rows begin anywhere
        return loaded

    def store(self, value: Any, base: Any, index: Any, vector: Any) -> None:
        self.builder.store(value, self.pointer(base, index, vector)).align = 4


def _make_add_rows(width: int) -> Any:
    @intrinsic
    def add_rows(typing, weight, columns, events, values, begin, end, shift, column, sums, place):
        """Add weight rows ``events[begin:end] + shift`` to ``sums[place : place + width * LANES]``.

        Weights are flat rows of `columns`, read from `column` on. A row counts ``values[e]`` times
        if values are float64, once if they are not.
        """
        signature = types.void(
            weight, columns, events, values, begin, end, shift, column, sums, place
        )
        weighted = values.dtype == types.float64

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            v = _Vectors(context, builder, signature.args, arguments)
            i64, vector = ir.IntType(64), v.type_of(0)
            weights, numbers, factors, totals = v.data(0), v.data(2), v.data(3), v.data(8)
            row_length, begin_, end_, shift_, column_, place_ = map(v.integer, (1, 4, 5, 6, 7, 9))
            lanes = [ir.Constant(i64, i * LANES) for i in range(width)]
            start = [v.load(totals, builder.add(place_, lane), vector) for lane in lanes]
            before = builder.block
            head, body, done = (
                builder.function.append_basic_block(n) for n in ("head", "body", "done")
            )
            builder.branch(head)
            builder.position_at_end(head)
            event = builder.phi(i64)
            event.add_incoming(begin_, before)
            running = [builder.phi(vector) for _ in lanes]
            for phi, value in zip(running, start, strict=True):
                phi.add_incoming(value, before)
            builder.cbranch(builder.icmp_signed("<", event, end_), body, done)
            builder.position_at_end(body)
            number = builder.sext(builder.load(builder.gep(numbers, [event])), i64)
            row = builder.add(builder.mul(builder.add(number, shift_), row_length), column_)
            factor = builder.load(builder.gep(factors, [event])) if weighted else None
            for phi, lane in zip(running, lanes, strict=True):
                part = v.load(weights, builder.add(row, lane), vector)
                phi.add_incoming(_plus(builder, phi, part, factor, vector), body)
            event.add_incoming(builder.add(event, ir.Constant(i64, 1)), body)
            builder.branch(head)
            builder.position_at_end(done)
            for phi, lane in zip(running, lanes, strict=True):
                v.store(phi, totals, builder.add(place_, lane), vector)
            return context.get_dummy_value()

        return signature, generate

    return add_rows


def _plus(builder: Any, total: Any, part: Any, factor: Any, vector: Any) -> Any:
    """Return ``total + part * factor``; whole numbers below 2^53, so every way is exact."""
    if isinstance(vector.element, ir.IntType):
        return builder.add(total, part)
    if factor is not None:
        nothing = ir.Constant(vector, ir.Undefined)
        zero = ir.Constant(ir.IntType(32), 0)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        one = builder.insert_element(nothing, factor, zero)
        spread = builder.shuffle_vector(one, nothing, zeros)
        part = builder.fmul(part, spread, flags=("contract",))
    return builder.fadd(total, part, flags=("contract",))


_add_4, _add_2, _add_1 = (_make_add_rows(width) for width in (4, 2, 1))


def _make_window(n_cells: int) -> Any:
    @intrinsic
    def window(typing, weight, columns, column, values, taps, begin, across, sums, place):
        """Add the products of some windows, side by side, with `LANES` columns of the weights.

        The windows begin at `begin`, ``begin + across``, ...; their sums lie `columns` apart.
        """
        signature = types.void(weight, columns, column, values, taps, begin, across, sums, place)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            v = _Vectors(context, builder, signature.args, arguments)
            i64, vector = ir.IntType(64), v.type_of(0)
            weights, seen, offsets, totals = v.data(0), v.data(3), v.data(4), v.data(7)
            row_length, column_, begin_, across_, place_ = map(v.integer, (1, 2, 5, 6, 8))
            n_taps = make_array(signature.args[4])(context, builder, arguments[4]).nitems
            cells = [ir.Constant(i64, i) for i in range(n_cells)]
            homes = [builder.add(place_, builder.mul(cell, row_length)) for cell in cells]
            firsts = [builder.add(begin_, builder.mul(cell, across_)) for cell in cells]
            start = [v.load(totals, home, vector) for home in homes]
            before = builder.block
            head, body, done = (
                builder.function.append_basic_block(n) for n in ("head", "body", "done")
            )
            builder.branch(head)
            builder.position_at_end(head)
            tap = builder.phi(i64)
            tap.add_incoming(ir.Constant(i64, 0), before)
            running = [builder.phi(vector) for _ in cells]
            for phi, value in zip(running, start, strict=True):
                phi.add_incoming(value, before)
            builder.cbranch(builder.icmp_signed("<", tap, n_taps), body, done)
            builder.position_at_end(body)
            row = builder.add(builder.mul(tap, row_length), column_)
            part = v.load(weights, row, vector)
            offset = builder.load(builder.gep(offsets, [tap]))
            for phi, first in zip(running, firsts, strict=True):
                factor = builder.load(builder.gep(seen, [builder.add(first, offset)]))
                phi.add_incoming(_plus(builder, phi, part, factor, vector), body)
            tap.add_incoming(builder.add(tap, ir.Constant(i64, 1)), body)
            builder.branch(head)
            builder.position_at_end(done)
            for phi, home in zip(running, homes, strict=True):
                v.store(phi, totals, home, vector)
            return context.get_dummy_value()

        return signature, generate

    return window


BLOCK = 4
"""Windows whose sums are kept in registers together."""
_window_block, _window = _make_window(BLOCK), _make_window(1)


@intrinsic
def _fired(typing, sums, place, thresholds, offset):
    """Return the bits ``sums[place + i] >= thresholds[offset + i]`` of `LANES` channels."""
    signature = types.uint64(sums, place, thresholds, offset)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = _Vectors(context, builder, signature.args, arguments)
        vector = v.type_of(0)
        left = v.load(v.data(0), v.integer(1), vector)
        right = v.load(v.data(2), v.integer(3), vector)
        whole = isinstance(vector.element, ir.IntType)
        compare = builder.icmp_signed if whole else builder.fcmp_ordered
        mask = builder.bitcast(compare(">=", left, right), ir.IntType(LANES))
        return builder.zext(mask, ir.IntType(64))

    return signature, generate


@intrinsic
def _popcount(typing, word):
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


_BITS_OF_BYTES = _bits_of_bytes()
EVENT_ROOM = 8
"""How many entries behind its events `list_events` may write to."""


@_compiled
def list_events(bits, channels, events, first):
    """Write the numbers of the neurons that fired, and where those of each place begin.

    bits (n, n_places, n_words); events (n, n_neurons + EVENT_ROOM) int32; first (n, n_places + 1),
    of which the last is how many there are.
    """
    for sample in range(len(bits)):
        n = 0
        for place in range(bits.shape[1]):
            first[sample, place] = n
            for w in range(bits.shape[2]):
                word = bits[sample, place, w]
                base = place * channels + 64 * w
                while word:
                    byte = word & np.uint64(255)
                    # All eight at once, of which the next byte overwrites those not set.
                    for i in range(8):
                        events[sample, n + i] = base + _BITS_OF_BYTES[byte, i]
                    n += _popcount(byte)
                    word >>= np.uint64(8)
                    base += 8
        first[sample, bits.shape[1]] = n


@_compiled
def _mixed(word, number):
    """Return a word and its number mixed as in `whetsim.recording`."""
    z = word + np.uint64(number) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@_compiled
def pack(bits, channels, packed, digests, counts):
    """Write the spikes neuron after neuron, with a fingerprint and the number of each sample's.

    bits (n, n_places, n_words); packed (n, ceil(n_neurons / 64)): bit i % 64 of word i // 64 is
    neuron i.
    """
    for sample in range(len(bits)):
        word, filled, n, spikes = np.uint64(0), 0, 0, 0
        digest = np.uint64(0)
        for place in range(bits.shape[1]):
            for w in range(bits.shape[2]):
                new = bits[sample, place, w]
                size = min(64, channels - 64 * w)
                spikes += _popcount(new)
                word |= new << np.uint64(filled)
                if filled + size >= 64:
                    packed[sample, n] = word
                    n += 1
                    digest += _mixed(word, n)
                    # A shift by 64 would be one by 0.
                    word = new >> np.uint64(64 - filled) if filled else np.uint64(0)
                filled = (filled + size) % 64
        if filled:
            packed[sample, n] = word
            digest += _mixed(word, n + 1)
        digests[sample] = digest
        counts[sample] = spikes


@_compiled
def tally_places(bits, table, result):
    """Write the sum over the spikes of a number for each place; table (n_places,)."""
    for sample in range(len(bits)):
        total = 0
        for place in range(bits.shape[1]):
            here = 0
            for w in range(bits.shape[2]):
                here += _popcount(bits[sample, place, w])
            total += here * table[place]
        result[sample] = total


@_compiled
def list_values(values, events, numbers, counts):
    """Write number and value of every input that is not 0, and how many, for each sample."""
    for sample in range(len(values)):
        n = 0
        for neuron in range(values.shape[1]):
            value = values[sample, neuron]
            # What the next one overwrites is harmless, and a branch would cost more.
            events[sample, n] = neuron
            numbers[sample, n] = value
            n += value != 0
        counts[sample] = n


@_compiled
def starts(events, counts, channels, first):
    """Write where the events of each place begin, and where those of the last end.

    first (n, n_places + 1).
    """
    for sample in range(len(events)):
        place, bound = 0, channels
        first[sample, 0] = 0
        for e in range(counts[sample]):
            while events[sample, e] >= bound:
                place += 1
                bound += channels
                first[sample, place] = e
        first[sample, place + 1 :] = counts[sample]


@_compiled
def slide(events, values, first, weight, rows, row_ends, columns, column_ends, shape, sums):
    """Add a convolution to sums ``(n, n_out_y * n_out_x, n_columns)``.

    Parameters
    ----------
    events, values : (n, n_neurons + EVENT_ROOM)
        values are read if they are float64.
    first : (n, n_places + 1)
    weight : (kernel height * kernel width * channels, n_columns)
    rows, row_ends
        Pairs (kernel row, input row) of each output row one after the other, and where they end.
    columns, column_ends
        Triples (kernel column, first input column, one behind the last) of each output column.
    shape : (input width, kernel width, input channels)
    """
    width, kernel_width, channels = shape
    n_columns = weight.shape[1]
    flat = weight.ravel()
    n_out_x = len(column_ends)
    column = 0
    while column < n_columns:
        left = (n_columns - column) // LANES
        step = 4 if left >= 4 else (2 if left >= 2 else 1)
        # One row of the kernel at a time: so few weights stay in the nearest cache.
        for ky in range(len(weight) // max(1, kernel_width * channels)):
            for sample in range(len(events)):
                listed, numbers, begins = events[sample], values[sample], first[sample]
                total = sums[sample].ravel()
                r0 = 0
                for y in range(len(row_ends)):
                    iy = np.int64(-1)
                    for r in range(r0, row_ends[y]):
                        if rows[r, 0] == ky:
                            iy = rows[r, 1] * width
                    r0 = row_ends[y]
                    if iy < 0:
                        continue
                    c0 = 0
                    for x in range(n_out_x):
                        place = (y * n_out_x + x) * n_columns + column
                        for c in range(c0, column_ends[x]):
                            begin, end = begins[iy + columns[c, 1]], begins[iy + columns[c, 2]]
                            shift = ky * kernel_width + columns[c, 0] - iy - columns[c, 1]
                            shift *= channels
                            if step == 4:
                                _add_4(
                                    flat, n_columns, listed, numbers, begin, end, shift, column,
                                    total, place,
                                )  # fmt: skip
                            elif step == 2:
                                _add_2(
                                    flat, n_columns, listed, numbers, begin, end, shift, column,
                                    total, place,
                                )  # fmt: skip
                            else:
                                _add_1(
                                    flat, n_columns, listed, numbers, begin, end, shift, column,
                                    total, place,
                                )  # fmt: skip
                        c0 = column_ends[x]
        column += step * LANES


@_compiled
def slide_gathered(
    events, values, weighted, first, weight, rows, row_ends, columns, column_ends, shape, sums
):
    """Do what `slide` does, with all events of a window in one list first.

    Better where a row of the window holds a few events alone. values are read if `weighted`.
    """
    width, kernel_width, channels = shape
    n_columns = weight.shape[1]
    flat = weight.ravel()
    n_out_x = len(column_ends)
    listed = np.empty(len(weight) + EVENT_ROOM, np.int32)
    numbers = np.empty(len(listed) if weighted else 1, values.dtype)
    for sample in range(len(events)):
        total = sums[sample].ravel()
        r0 = 0
        for y in range(len(row_ends)):
            c0 = 0
            for x in range(n_out_x):
                n = 0
                for r in range(r0, row_ends[y]):
                    ky, iy = rows[r, 0], rows[r, 1] * width
                    for c in range(c0, column_ends[x]):
                        begin = first[sample, iy + columns[c, 1]]
                        end = first[sample, iy + columns[c, 2]]
                        shift = ky * kernel_width + columns[c, 0] - iy - columns[c, 1]
                        shift *= channels
                        # Eight at once, of which the next run overwrites those too many: no
                        # branch that depends on how many there are, as long as they are few.
                        for e in range(begin, end, 8):
                            for i in range(8):
                                listed[n + e - begin + i] = events[sample, e + i] + shift
                            if weighted:
                                for i in range(8):
                                    numbers[n + e - begin + i] = values[sample, e + i]
                        n += end - begin
                c0 = column_ends[x]
                place = (y * n_out_x + x) * n_columns
                column = 0
                while column < n_columns:
                    left = (n_columns - column) // LANES
                    step = 4 if left >= 4 else (2 if left >= 2 else 1)
                    at = place + column
                    if step == 4:
                        _add_4(flat, n_columns, listed, numbers, 0, n, 0, column, total, at)
                    elif step == 2:
                        _add_2(flat, n_columns, listed, numbers, 0, n, 0, column, total, at)
                    else:
                        _add_1(flat, n_columns, listed, numbers, 0, n, 0, column, total, at)
                    column += step * LANES
            r0 = row_ends[y]


@_compiled
def slide_dense(values, weight, taps, strides, target, row_length, sums):
    """Add a convolution of every value, 0 or not, to sums ``(n, n_out_y * n_out_x, n_columns)``.

    Better for windows of a few values, whose lists would cost more than they save.

    Parameters
    ----------
    values : float64 array (n, n_padded)
        Maps with zeros around them, so that every window is whole.
    weight : float64 array (n_taps, n_columns)
    taps : int64 array (n_taps,)
        Where each value of a window lies, counted from its first.
    strides, target : (vertical, horizontal)
        Strides of the window; numbers of output cells.
    row_length : (values in a padded row, values in a cell)
    """
    n_columns = weight.shape[1]
    flat = weight.ravel()
    down, across = strides[0] * row_length[0], strides[1] * row_length[1]
    for sample in range(len(values)):
        total, seen = sums[sample].ravel(), values[sample]
        for column in range(0, n_columns, LANES):
            for y in range(target[0]):
                x = 0
                while x < target[1]:
                    place = (y * target[1] + x) * n_columns + column
                    begin = y * down + x * across
                    if x + BLOCK <= target[1]:
                        _window_block(
                            flat, n_columns, column, seen, taps, begin, across, total, place
                        )
                        x += BLOCK
                    else:
                        _window(flat, n_columns, column, seen, taps, begin, across, total, place)
                        x += 1


@_compiled
def scatter(events, values, weighted, counts, start, target, weight, sums):
    """Add listed synapses to sums (n, n_places, n_columns); `target` counts in these.

    values are read if `weighted`.
    """
    for sample in range(len(events)):
        total = sums[sample].ravel()
        for e in range(counts[sample]):
            source = events[sample, e]
            for s in range(start[source], start[source + 1]):
                if weighted:
                    total[target[s]] += weight[s] * values[sample, e]
                else:
                    total[target[s]] += weight[s]


@_compiled
def fire(sums, thresholds, bits):
    """Set the bits of the neurons whose sum reaches their threshold.

    sums (n, n_places, n_columns); thresholds (1 or n_places, n_columns).
    """
    n, n_places, n_columns = sums.shape
    limits = thresholds.ravel()
    step = n_columns if len(thresholds) > 1 else 0
    for sample in range(n):
        flat = sums[sample].ravel()
        for place in range(n_places):
            for w in range(bits.shape[2]):
                word = np.uint64(0)
                for lane in range(0, min(64, n_columns - 64 * w), LANES):
                    column = 64 * w + lane
                    mask = _fired(flat, place * n_columns + column, limits, place * step + column)
                    word |= mask << np.uint64(lane)
                bits[sample, place, w] = word


@_compiled
def pool(source, rows, row_ends, columns, column_ends, width, every, bits):
    """Set the bits of the channels that fired anywhere (or, if `every`, all over) in the window."""
    for sample in range(len(source)):
        r0 = 0
        for y in range(len(row_ends)):
            c0 = 0
            for x in range(len(column_ends)):
                place = y * len(column_ends) + x
                for w in range(bits.shape[2]):
                    word = ~np.uint64(0) if every else np.uint64(0)
                    for r in range(r0, row_ends[y]):
                        for c in range(c0, column_ends[x]):
                            for ix in range(columns[c, 1], columns[c, 2]):
                                seen = source[sample, rows[r, 1] * width + ix, w]
                                word = word & seen if every else word | seen
                    bits[sample, place, w] = word
                c0 = column_ends[x]
            r0 = row_ends[y]


@_compiled
def tally(events, counts, table, result):
    """Write the sum of a table over the events of each sample."""
    for sample in range(len(events)):
        total = 0
        for e in range(counts[sample]):
            total += table[events[sample, e]]
        result[sample] = total


# Sums and spikes of one sample after the other, where a projection stands alone: its sums stay in
# the cache.


@_compiled
def slide_and_fire(
    events,
    values,
    first,
    weight,
    rows,
    row_ends,
    columns,
    column_ends,
    shape,
    thresholds,
    sums,
    bits,
):
    """Do `slide`, then `fire`; sums (1, n_places, n_columns) is room for one sample."""
    for i in range(len(bits)):
        sums[:] = 0
        one = slice(i, i + 1)
        slide(
            events[one], values[one], first[one], weight, rows, row_ends, columns, column_ends,
            shape, sums,
        )  # fmt: skip
        fire(sums, thresholds, bits[one])


@_compiled
def slide_dense_and_fire(values, weight, taps, strides, target, row_length, thresholds, sums, bits):
    """Do `slide_dense`, then `fire`; sums (1, n_places, n_columns) is room for one sample."""
    for i in range(len(bits)):
        sums[:] = 0
        one = slice(i, i + 1)
        slide_dense(values[one], weight, taps, strides, target, row_length, sums)
        fire(sums, thresholds, bits[one])
