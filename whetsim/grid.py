"""The dyadic grid: real weights become integers W and an exponent k with w = W * 2^-k.

A neuron fires iff ``sum(w s) + b >= 1/2``, which on the grid is ``sum(W s) + B >= 2^(k-1)``.
Sums of grid numbers are exact in double precision in any order, as long as they stay below 2^53.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import MappingError

__all__ = ["SUM_BITS", "choose_exponents", "to_grid"]

SUM_BITS = (31, 38, 53)
"""Bits that a sum may take, tried in this order.

31 bits fit the integers of chips. 53 bits are what a double adds exactly. 38 bits in between leave
15 bits to simulators that round a little (units of volts, decay factors), so that they still decide
every neuron right for up to about 16,000 synapses each; 0..255 inputs need it.
"""

FRACTION_BITS = 22
"""A grid step times the largest input is at most 2^-22, the order of float32 rounding near 0.5."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def choose_exponents(sums: Floats, largest_value: int) -> tuple[Integers, Integers]:
    """Return the exponent k of each neuron and the bits that its sums may take.

    Parameters
    ----------
    sums : float array
        For each neuron (or output channel) the largest possible ``sum |w| * value + |b|``.
    largest_value : int
        Largest value that an arriving event can carry: 1 for spikes, 255 for 8-bit images.

    Returns
    -------
    exponent, bits : integer arrays
        k is the largest for which `sums` stays below 2^bits, before rounding to integers. bits is
        the first of `SUM_BITS` that leaves ``k >= 22 + log2(largest_value)``, else the last.
    """
    needed = FRACTION_BITS + int(largest_value - 1).bit_length()
    exponent = np.zeros(sums.shape, dtype=np.int64)
    bits = np.zeros(sums.shape, dtype=np.int64)
    for limit in SUM_BITS:
        with np.errstate(divide="ignore", over="ignore"):
            k = np.floor(np.log2((2.0**limit - 1) / sums))
        k = np.minimum(k, limit).astype(np.int64)
        open_ = bits == 0
        exponent[open_], bits[open_] = k[open_], limit
        bits[open_ & (k < needed) & (limit != SUM_BITS[-1])] = 0
    return exponent, bits


def to_grid(values: Floats, exponent: Integers) -> Integers:
    """Return ``round(values * 2^exponent)``, ties to even; `exponent` broadcasts on the last axis.

    Raises
    ------
    MappingError
        If a result would need more than 62 bits.
    """
    scaled = np.ldexp(values, exponent.astype(np.int32))
    if scaled.size and float(np.abs(scaled).max()) >= 2.0**62:
        raise MappingError("weights are too large for the grid. Rescale the layer.")
    result: Integers = np.rint(scaled).astype(np.int64)
    return result
