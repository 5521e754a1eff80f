"""Arrays of the exact engine: how spikes and weights lie, lists of events, room that stays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.backends import exact_kernels as kernels

__all__ = ["Events", "Index", "Layout", "Scratch", "aligned", "aligned_copy", "in_blocks"]

Index = NDArray[np.int64]
ALIGNMENT = 64
"""Bytes of a cache line; a vector that lies in two of them takes twice as long to load."""


@dataclass(frozen=True)
class Layout:
    """How the spikes of a population lie in words: places, and channels of each."""

    n_places: int
    channels: int

    @property
    def n_words(self) -> int:
        """Words of 64 channels a place."""
        return -(-self.channels // 64)

    @property
    def n_columns(self) -> int:
        """Channels with padding."""
        return -(-self.channels // kernels.LANES) * kernels.LANES

    def pad(self, array: NDArray[Any], fill: Any = 0) -> NDArray[Any]:
        """Return an array ``(..., channels)`` with its padding."""
        room = [(0, 0)] * (array.ndim - 1) + [(0, self.n_columns - self.channels)]
        return np.ascontiguousarray(np.pad(array, room, constant_values=fill))


def aligned(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return an array of arbitrary contents that begins at a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + ALIGNMENT, np.uint8)
    begin = -room.ctypes.data % ALIGNMENT
    result: NDArray[Any] = room[begin : begin + size].view(dtype).reshape(shape)
    return result


def aligned_copy(array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of an array that begins at a cache line."""
    result = aligned(array.shape, array.dtype)
    result[...] = array
    return result


def in_blocks(weight: NDArray[Any]) -> NDArray[Any]:
    """Return weights ``(rows, n_columns)`` flat, one block of columns behind the other."""
    blocks, column = [], 0
    while column < weight.shape[1]:
        width = kernels.width_of(weight.shape[1] - column) * kernels.LANES
        blocks.append(weight[:, column : column + width].ravel())
        column += width
    return aligned_copy(np.concatenate(blocks))


class Scratch:
    """Arrays of one thread that are used again and again; fresh ones cost page faults."""

    def __init__(self) -> None:
        self._arrays: dict[Any, NDArray[Any]] = {}

    def array(self, key: Any, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an array of this shape whose contents are arbitrary."""
        found = self._arrays.get(key)
        if found is None or len(found) < shape[0]:
            found = self._arrays[key] = aligned(shape, dtype)
        return found[: shape[0]]


@dataclass(frozen=True, eq=False)
class Events:
    """The spikes of a population in some samples, as lists.

    Parameters
    ----------
    numbers : int32 array (n_samples, n_neurons or more)
        Neurons that fired, rising; only the first ``counts`` of each row are valid.
    counts : int64 array (n_samples,)
    values : array (n_samples, n_neurons or more)
        What each carries, if float64; else all carry 1.
    channels : int
        Neurons of a place.
    first : int64 array (n_samples, n_places + 1)
        Where the events of each place begin.
    every : integer array (n_samples, n_neurons), optional
        The values of all neurons, if events carry values.
    """

    numbers: NDArray[np.int32]
    counts: Index
    values: NDArray[Any]
    channels: int
    first: Index
    every: NDArray[np.integer[Any]] | None = None

    @classmethod
    def unlisted(cls, counts: Index, every: NDArray[np.integer[Any]]) -> Events:
        """Return the values of all neurons, where nothing reads which of them are not 0."""
        none = np.zeros((len(counts), 0), np.int32)
        return cls(none, counts, none, every.shape[1], np.zeros((len(counts), 0), np.int64), every)

    @property
    def weighted(self) -> bool:
        """Whether events carry values."""
        return self.values.dtype == np.float64

    def of_places(self, channels: int, n_places: int, scratch: Scratch) -> Index:
        """Return where the events of each place begin, for places of that many channels."""
        if channels == self.channels:
            return self.first
        first = scratch.array(("first", n_places), (len(self.counts), n_places + 1), np.int64)
        kernels.starts(self.numbers, self.counts, channels, first)
        return first
