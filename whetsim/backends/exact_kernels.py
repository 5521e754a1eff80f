"""Compiled loops of the exact engine: event-driven sums of whole numbers, spikes as bits.

Spikes of a population are words of 64 bits, ``(n_samples, n_places, n_words)``: bit c of a place is
its channel c. A list of events holds, place after place, the number of every neuron that fired, and
`first` where the events of each place begin. Lists of neighbouring places follow each other, so a
row of a kernel reads one run of the list, and the weights of those events lie at a fixed distance:
nothing is gathered but rows of weights, which are added up in registers.

Sums are int32 where the grid keeps them below 2^31, else whole numbers below 2^53 in float64, or
two int32 digits where small windows of grey values are multiplied (`slide_windows`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from whetsim.backends.exact_vectors import (
    EVENT_ROOM,
    LANES,
    WINDOWS,
    add_rows,
    fired,
    fired_window,
    fired_windows,
    popcount,
    write_bits,
)

__all__ = [
    "EVENT_ROOM",
    "LANES",
    "count_values",
    "fire",
    "list_events",
    "list_values",
    "pack",
    "pool",
    "scatter",
    "slide",
    "slide_and_fire",
    "slide_gathered",
    "slide_windows",
    "starts",
    "tally",
    "tally_places",
    "tally_values",
    "width_of",
]

VECTORS = 0x70A13587
"""CRC-32 of `exact_vectors`: numba compiles a loop anew if the file of the loop has changed, not
that of what it calls."""


def _compiled(function: Any) -> Any:
    """Compile a loop that lets other threads run; what was compiled is kept on disk."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # nowhere to keep it: a read-only system without a home
        return njit(nogil=True)(function)


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
                    write_bits(byte, base, events[sample], n)
                    n += popcount(byte)
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
def _join(bits, channels, packed):
    """Write the spikes neuron after neuron: bit i % 64 of word i // 64 is neuron i."""
    n_places, n_words = bits.shape[1:]
    if channels == 64 * n_words:  # as they lie
        for sample in range(len(bits)):
            words = bits[sample].ravel()
            for w in range(len(words)):
                packed[sample, w] = words[w]
        return
    if channels == 32:
        for sample in range(len(bits)):
            words = bits[sample].ravel()
            for w in range(n_places // 2):
                packed[sample, w] = words[2 * w] | words[2 * w + 1] << np.uint64(32)
            if n_places % 2:
                packed[sample, n_places // 2] = words[n_places - 1]
        return
    for sample in range(len(bits)):
        word, filled, n = np.uint64(0), 0, 0
        for place in range(n_places):
            for w in range(n_words):
                new = bits[sample, place, w]
                size = min(64, channels - 64 * w)
                word |= new << np.uint64(filled)
                if filled + size >= 64:
                    packed[sample, n] = word
                    n += 1
                    # A shift by 64 would be one by 0.
                    word = new >> np.uint64(64 - filled) if filled else np.uint64(0)
                filled = (filled + size) % 64
        if filled:
            packed[sample, n] = word


@_compiled
def pack(bits, channels, packed, digests, counts):
    """Write the spikes neuron after neuron, with a fingerprint and the number of each sample's.

    bits (n, n_places, n_words); packed (n, ceil(n_neurons / 64)): bit i % 64 of word i // 64 is
    neuron i.
    """
    _join(bits, channels, packed)
    for sample in range(len(packed)):
        words, spikes, digest = packed[sample], 0, np.uint64(0)
        for w in range(len(words)):
            spikes += popcount(words[w])
            digest += _mixed(words[w], w + 1)
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
                here += popcount(bits[sample, place, w])
            total += here * table[place]
        result[sample] = total


@_compiled
def count_values(values, counts):
    """Write how many inputs of each sample are not 0."""
    for sample in range(len(values)):
        row, n = values[sample], 0
        for neuron in range(len(row)):
            n += row[neuron] != 0
        counts[sample] = n


@_compiled
def tally_values(values, table, result):
    """Write the sum of a table over the inputs of each sample that are not 0."""
    for sample in range(len(values)):
        row, total = values[sample], 0
        for neuron in range(len(row)):
            total += table[neuron] if row[neuron] != 0 else 0
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
def width_of(n_columns):
    """Return how many vectors wide the next block of columns is, if so many are left."""
    left = n_columns // LANES
    return 4 if left >= 4 else (2 if left >= 2 else 1)


@_compiled
def slide(events, values, first, weight, rows, row_ends, columns, column_ends, shape, sums):
    """Add a convolution to sums ``(n, n_out_y * n_out_x, n_columns)``.

    Parameters
    ----------
    events, values : (n, n_neurons + EVENT_ROOM)
        values are read if they are float64.
    first : (n, n_places + 1)
    weight : flat
        kernel height * kernel width * channels rows, in blocks of columns (`width_of`).
    rows, row_ends
        Pairs (kernel row, input row) of each output row one after the other, and where they end.
    columns, column_ends
        Triples (kernel column, first input column, one behind the last) of each output column.
    shape : (input width, kernel width, input channels)
    """
    width, kernel_width, channels = shape
    n_columns = sums.shape[2]
    n_weights = len(weight) // n_columns
    n_out_x = len(column_ends)
    column = 0
    while column < n_columns:
        step = width_of(n_columns - column)
        block = column * n_weights
        # One row of the kernel at a time: so few weights stay in the nearest cache.
        for ky in range(n_weights // max(1, kernel_width * channels)):
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
                            add_rows(
                                step, weight, block, listed, numbers, begin, end, shift, total,
                                place,
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
    n_columns = sums.shape[2]
    n_weights = len(weight) // n_columns
    n_out_x = len(column_ends)
    listed = np.empty(n_weights + EVENT_ROOM, np.int32)
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
                    step = width_of(n_columns - column)
                    add_rows(
                        step, weight, column * n_weights, listed, numbers, 0, n, 0, total,
                        place + column,
                    )  # fmt: skip
                    column += step * LANES
            r0 = row_ends[y]


@_compiled
def slide_windows(values, shape, geometry, weight, limits, bits):
    """Set the spikes of a convolution of values of up to 16 bits, of which all are multiplied.

    Better than events for windows of a few values, whose lists would cost more than they save.
    Rows of a window that are 0 are left out.

    Parameters
    ----------
    values : int32 array (n, n_inputs)
    shape : (height, width, channels) of the input
    geometry : (padded height, padded width, rows above, columns before, stride down, stride
        across, row distance, kernel rows, values in a row of the kernel, output rows, output
        columns)
    weight : int16 array, flat
        For each `LANES` columns, kernel row and pair of values: two digits of each weight.
    limits : int32 array (1 or n_places, n_columns / LANES, 2, LANES)
        The threshold of each channel, negative, as two digits.
    bits : (n, n_places, n_words)
    """
    height, width, channels = shape
    n_lines, line, top, left, down, across, dilation, n_rows, run, n_out_y, n_out_x = geometry
    n_pairs = (run + 1) // 2
    n_columns = limits.shape[1] * LANES
    step = 2 * n_columns if len(limits) > 1 else 0
    missing, row_length, n_words = limits.ravel(), line * channels, bits.shape[2]
    # One value more: a pair may end behind the last row.
    seen = np.zeros(n_lines * row_length + 1, np.int16)
    rows = np.empty((n_rows, 2), np.int64)
    extent = np.zeros((n_lines, 2), np.int64)
    for sample in range(len(values)):
        for y in range(height):
            begin, end, home = row_length, 0, (top + y) * row_length
            for x in range(width * channels):
                value, at = values[sample, y * width * channels + x], left * channels + x
                seen[home + at] = value
                if value != 0:
                    begin, end = min(begin, at), at + 1
            extent[top + y, 0], extent[top + y, 1] = begin, end
        out = bits[sample].ravel()
        out[:] = 0
        for y in range(n_out_y):
            x = 0
            while x < n_out_x:
                size = WINDOWS if n_out_x >= WINDOWS else 1
                # The last windows may be computed twice.
                x = min(x, n_out_x - size)
                first = x * across * channels
                behind = first + (size - 1) * across * channels + run
                for column in range(0, n_columns, LANES):
                    n = 0
                    for ky in range(n_rows):
                        iy = y * down + ky * dilation
                        if extent[iy, 0] < behind and extent[iy, 1] > first:
                            block = column // LANES * n_rows + ky
                            rows[n, 0] = block * n_pairs * 4 * LANES
                            rows[n, 1] = iy * row_length
                            n += 1
                    place = y * n_out_x + x
                    word, bit = place * n_words + column // 64, column % 64
                    if size == WINDOWS:
                        fired_windows(
                            weight, seen, rows, n, n_pairs, first, across * channels, missing,
                            place * step + 2 * column, step, out, word, n_words, bit,
                        )  # fmt: skip
                    else:
                        fired_window(
                            weight, seen, rows, n, n_pairs, first, across * channels, missing,
                            place * step + 2 * column, step, out, word, n_words, bit,
                        )  # fmt: skip
                x += size


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
                    mask = fired(flat, place * n_columns + column, limits, place * step + column)
                    word |= mask << np.uint64(lane)
                bits[sample, place, w] = word


@_compiled
def pool(source, rows, row_ends, columns, column_ends, width, every, bits):
    """Set the bits of the channels that fired anywhere (or, if `every`, all over) in the window."""
    n_words, n_out_x = bits.shape[2], len(column_ends)
    # All over is not anywhere of what did not fire.
    flip = ~np.uint64(0) if every else np.uint64(0)
    pairs = len(columns) == n_out_x and np.all(columns[:, 2] - columns[:, 1] == 2)
    # Rows first, as they lie; then what is left of each window in them.
    seen = np.empty(width * n_words, np.uint64)
    for sample in range(len(source)):
        words = source[sample].ravel()
        r0 = 0
        for y in range(len(row_ends)):
            seen[:] = 0
            for r in range(r0, row_ends[y]):
                row = words[rows[r, 1] * len(seen) :]
                for i in range(len(seen)):
                    seen[i] |= row[i] ^ flip
            r0 = row_ends[y]
            out = bits[sample, y * n_out_x : (y + 1) * n_out_x]
            if pairs and n_words == 1:
                for x in range(n_out_x):
                    out[x, 0] = (seen[columns[x, 1]] | seen[columns[x, 1] + 1]) ^ flip
                continue
            c0 = 0
            for x in range(n_out_x):
                for w in range(n_words):
                    word = np.uint64(0)
                    for c in range(c0, column_ends[x]):
                        for ix in range(columns[c, 1], columns[c, 2]):
                            word |= seen[ix * n_words + w]
                    out[x, w] = word ^ flip
                c0 = column_ends[x]


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
