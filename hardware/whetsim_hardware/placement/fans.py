"""How many axons and synapses a block of neurons needs: counted by geometry, not one by one.

An axon is one source that reaches a block. `FanCounts` says how many axons have how many synapses;
blocks that look alike (the inner tiles of a convolution) share one class and are counted once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from whetsim.connectivity import Connectivity, Convolution, Dense, Geometry, Listed
from whetsim_hardware.placement.tiles import Tiling, Triple

__all__ = ["Fan", "FanCounts", "fan_of"]

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
CACHED = 256
"""Tilings of one projection that are kept; the search for a split asks for a few dozen."""


@dataclass(frozen=True, eq=False)
class FanCounts:
    """Axons of the blocks of one tiling, by their number of synapses.

    Parameters
    ----------
    class_of : int64 array (n_blocks,)
        Class of each block.
    entry_class, entry_synapses, entry_axons : int64 array (n_entries,)
        In blocks of class ``entry_class``, ``entry_axons`` axons have ``entry_synapses`` synapses
        each.
    """

    class_of: Integers
    entry_class: Integers
    entry_synapses: Integers
    entry_axons: Integers

    @property
    def axons(self) -> Integers:
        """Axons of each block, ``(n_blocks,)``."""
        return self._sum(self.entry_axons)

    @property
    def synapses(self) -> Integers:
        """Synapses of each block, ``(n_blocks,)``."""
        return self._sum(self.entry_axons * self.entry_synapses)

    def packed(self, bits: Callable[[Integers], Integers]) -> Integers:
        """Return the bits that the blocks' axons take; `bits` is that of one axon's synapses."""
        return self._sum(self.entry_axons * bits(self.entry_synapses))

    def _sum(self, values: Integers) -> Integers:
        n_classes = int(self.class_of.max(initial=-1)) + 1
        total = np.zeros(n_classes, dtype=np.int64)
        np.add.at(total, self.entry_class, values)
        result: Integers = total[self.class_of]
        return result


class Fan(ABC):
    """The synapses of one projection, or those of one sign."""

    def __init__(self, n_sources: int) -> None:
        self.n_sources = n_sources
        self._counts: dict[Tiling, FanCounts] = {}

    def counts(self, tiling: Tiling) -> FanCounts:
        """Return the axons and synapses of the target's blocks."""
        if tiling not in self._counts:
            if len(self._counts) >= CACHED:
                self._counts.clear()
            self._counts[tiling] = self._count(tiling)
        return self._counts[tiling]

    @abstractmethod
    def _count(self, tiling: Tiling) -> FanCounts: ...

    @abstractmethod
    def reached(self, tiling: Tiling) -> sparse.csc_array:
        """Return which source reaches which block: 0/1, ``(n_sources, n_blocks)``."""


def fan_of(connectivity: Connectivity, sign: int = 0) -> Fan:
    """Return the fan of a projection; `sign` 1 or -1 takes only weights of that sign."""
    weight = connectivity.weight
    mask: Mask = weight != 0 if sign == 0 else (weight > 0 if sign > 0 else weight < 0)
    if isinstance(connectivity, Convolution):
        return _ConvolutionFan(mask, connectivity.geometry)
    if isinstance(connectivity, Dense):
        return _DenseFan(mask) if mask.all() else _SparseFan(sparse.csr_array(mask))
    assert isinstance(connectivity, Listed)
    shape = (connectivity.n_sources, connectivity.n_targets)
    data = mask.astype(np.int64)
    matrix = sparse.csr_array((data, connectivity.target, connectivity.start), shape=shape)
    return _SparseFan(matrix)


class _DenseFan(Fan):
    """Every source to every target."""

    def __init__(self, mask: Mask) -> None:
        super().__init__(mask.shape[0])

    def _count(self, tiling: Tiling) -> FanCounts:
        sizes, class_of = np.unique(
            tiling.total(np.ones(len(tiling.block_of), dtype=np.int64)), return_inverse=True
        )
        axons = np.full(len(sizes), self.n_sources, dtype=np.int64)
        return FanCounts(class_of, np.arange(len(sizes)), sizes, axons)

    def reached(self, tiling: Tiling) -> sparse.csc_array:
        return sparse.csc_array(np.ones((self.n_sources, tiling.n_blocks), dtype=np.int64))


class _SparseFan(Fan):
    """Synapses in a sparse matrix of their numbers."""

    def __init__(self, matrix: sparse.csr_array) -> None:
        super().__init__(matrix.shape[0])
        matrix = matrix.astype(np.int64)
        matrix.eliminate_zeros()
        self._matrix = matrix

    def _by_block(self, tiling: Tiling) -> sparse.csc_array:
        n = len(tiling.block_of)
        membership = sparse.csr_array(
            (np.ones(n, dtype=np.int64), tiling.block_of, np.arange(n + 1)),
            shape=(n, tiling.n_blocks),
        )
        return sparse.csc_array(self._matrix @ membership)

    def _count(self, tiling: Tiling) -> FanCounts:
        found = self._by_block(tiling)
        block = np.repeat(np.arange(tiling.n_blocks), np.diff(found.indptr))
        most = int(found.data.max(initial=0)) + 1
        keys, axons = np.unique(block * most + found.data, return_counts=True)
        return FanCounts(
            np.arange(tiling.n_blocks), keys // most, keys % most, axons.astype(np.int64)
        )

    def reached(self, tiling: Tiling) -> sparse.csc_array:
        found = self._by_block(tiling)
        found.data[:] = 1
        return found


@dataclass(frozen=True, eq=False)
class _Window:
    """What the tiles of one axis read: for each class, which tap reads which cell."""

    class_of: list[int]
    first: list[int]
    """First cell that each tile reads."""
    taps: list[NDArray[np.int64]]
    """For each class, 0/1 ``(kernel, cells)``."""


class _ConvolutionFan(Fan):
    def __init__(self, mask: Mask, geometry: Geometry) -> None:
        super().__init__(int(np.prod(geometry.source)))
        self._mask, self._geometry = mask, geometry
        self._full = bool(mask.all())

    def _window(self, axis: int, tiling: Tiling) -> _Window:
        g = self._geometry
        known: dict[bytes, int] = {}
        window = _Window([], [], [])
        served = [g.taps(axis, i) for i in range(g.kernel[axis])]
        for start, stop in tiling.ranges(axis):
            taps = np.zeros((g.kernel[axis], g.source[axis]), dtype=np.int64)
            for i, (out, cell) in enumerate(served):
                taps[i, cell[(out >= start) & (out < stop)]] = 1
            used = np.nonzero(taps.any(axis=0))[0]
            first, end = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 0)
            taps = taps[:, first:end]
            key = taps.tobytes()
            if key not in known:
                known[key] = len(window.taps)
                window.taps.append(taps)
            window.class_of.append(known[key])
            window.first.append(first)
        return window

    def _channels(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return how many of the output channels each tap of each input channel serves.

        ``(kernel height, kernel width, input channels)``, or ``(1, 1, input channels)`` if no
        weight is zero.
        """
        g = self._geometry
        per_in, per_out = g.source[2] // g.groups, g.target[2] // g.groups
        mask = self._mask[:1, :1] if self._full else self._mask
        result = np.zeros((*mask.shape[:2], g.source[2]), dtype=np.int64)
        for group in range(start // per_out, -(-stop // per_out)):
            part = slice(max(start, group * per_out), min(stop, (group + 1) * per_out))
            inputs = slice(group * per_in, (group + 1) * per_in)
            result[:, :, inputs] = mask[:, :, :, part].sum(axis=3)
        return result

    def _synapses(
        self, down: NDArray[np.int64], across: NDArray[np.int64], channels: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the synapses of each source in the window, ``(height, width, channels)``."""
        if self._full:
            places = np.outer(down.sum(axis=0), across.sum(axis=0))
            result: NDArray[np.int64] = places[:, :, None] * channels[0, 0]
            return result
        kh, kw, c = channels.shape
        # Whole numbers below 2^53: float64 products are exact and much faster.
        rows = down.T.astype(np.float64) @ channels.reshape(kh, kw * c).astype(np.float64)
        rows = rows.reshape(-1, kw, c).transpose(1, 0, 2).reshape(kw, -1)
        sums = across.T.astype(np.float64) @ rows
        whole = np.rint(sums).astype(np.int64)
        return whole.reshape(across.shape[1], down.shape[1], c).transpose(1, 0, 2)

    def _count(self, tiling: Tiling) -> FanCounts:
        down, across = self._window(0, tiling), self._window(1, tiling)
        kinds, kind_of = self._channel_kinds(tiling)
        entries: list[NDArray[Any]] = []
        for y, taps_y in enumerate(down.taps):
            for x, taps_x in enumerate(across.taps):
                for c, channels in enumerate(kinds):
                    number = (y * len(across.taps) + x) * len(kinds) + c
                    synapses, axons = self._histogram(taps_y, taps_x, channels)
                    entries.append(np.stack([np.full_like(synapses, number), synapses, axons]))
        table = np.concatenate(entries, axis=1)
        classes = np.asarray(down.class_of)[:, None] * len(across.taps) + across.class_of
        class_of = classes.reshape(-1, 1) * len(kinds) + np.asarray(kind_of)
        return FanCounts(class_of.ravel(), table[0], table[1], table[2])

    def _channel_kinds(self, tiling: Tiling) -> tuple[list[NDArray[np.int64]], list[int]]:
        known: dict[bytes, int] = {}
        kinds: list[Integers] = []
        kind_of: list[int] = []
        for start, stop in tiling.ranges(2):
            channels = self._channels(start, stop)
            # Without zeros the order of the input channels makes no difference to the counts.
            key = (np.sort(channels, axis=2) if self._full else channels).tobytes()
            if key not in known:
                known[key] = len(kinds)
                kinds.append(channels)
            kind_of.append(known[key])
        return kinds, kind_of

    def _histogram(
        self, down: NDArray[np.int64], across: NDArray[np.int64], channels: NDArray[np.int64]
    ) -> tuple[Integers, Integers]:
        if not self._full:
            found = np.bincount(self._synapses(down, across, channels).ravel(), minlength=1)
        else:
            found = np.zeros(1, dtype=np.int64)
            rows, n_rows = np.unique(down.sum(axis=0), return_counts=True)
            columns, n_columns = np.unique(across.sum(axis=0), return_counts=True)
            depths, n_depths = np.unique(channels, return_counts=True)
            values = np.multiply.outer(np.multiply.outer(rows, columns), depths).ravel()
            times = np.multiply.outer(np.multiply.outer(n_rows, n_columns), n_depths).ravel()
            if values.size:
                found = np.rint(np.bincount(values, weights=times, minlength=1)).astype(np.int64)
        found[0] = 0
        synapses = np.nonzero(found)[0]
        return synapses, found[synapses].astype(np.int64)

    def reached(self, tiling: Tiling) -> sparse.csc_array:
        down, across = self._window(0, tiling), self._window(1, tiling)
        kinds = [self._channels(*r) for r in tiling.ranges(2)]
        cells = _cells(self._geometry.source)
        cache: dict[Triple, tuple[Integers, ...]] = {}
        found: list[Integers] = []
        for cy, y in zip(down.class_of, down.first, strict=True):
            for cx, x in zip(across.class_of, across.first, strict=True):
                for c, channels in enumerate(kinds):
                    key = (cy, cx, c)
                    if key not in cache:
                        counts = self._synapses(down.taps[cy], across.taps[cx], channels)
                        cache[key] = np.nonzero(counts)
                    in_y, in_x, in_c = cache[key]
                    found.append(cells[in_y + y, in_x + x, in_c])
        starts = np.concatenate([[0], np.cumsum([len(f) for f in found])])
        indices = np.concatenate(found)
        ones = np.ones(len(indices), dtype=np.int64)
        return sparse.csc_array((ones, indices, starts), shape=(self.n_sources, tiling.n_blocks))


def _cells(shape: Triple) -> Integers:
    return np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
