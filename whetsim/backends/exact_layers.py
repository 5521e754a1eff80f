"""What the exact engine prepares for each population: weights, tables and thresholds as its
compiled loops read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from whetsim.backends import exact_kernels as kernels
from whetsim.connectivity import Connectivity, Convolution, Dense, Geometry, Listed
from whetsim.network import Population, Projection, SpikingNetwork

__all__ = ["Events", "Layer", "Layout", "Scratch", "layer_of", "layout_of"]

Index = NDArray[np.int64]
MAX_INT32 = 2**31 - 1
GATHERED_RUN = 4.0
"""Events in a row of a window below which all rows are gathered into one list."""
DENSE_WINDOW = 128
"""Values in a window up to which all are added up, zeros too."""
DENSE_ROWS = 512
"""Inputs of a dense projection whose weights are added up at a time; they stay in the cache."""


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


class Scratch:
    """Arrays of one thread that are used again and again; fresh ones cost page faults."""

    def __init__(self) -> None:
        self._arrays: dict[Any, NDArray[Any]] = {}

    def array(self, key: Any, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an array of this shape whose contents are arbitrary."""
        found = self._arrays.get(key)
        if found is None or len(found) < shape[0]:
            found = self._arrays[key] = np.empty(shape, dtype)
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


@dataclass(frozen=True, eq=False)
class Sliding:
    """A convolution, or a dense projection as one of a single place."""

    source: str
    weight: NDArray[Any]
    windows: tuple[NDArray[np.int64], ...]
    shape: tuple[int, int, int]
    n_places: int

    def add(self, events: Events, sums: NDArray[Any], scratch: Scratch) -> None:
        """Add what the events cause to the sums."""
        first = events.of_places(self.shape[2], self.n_places, scratch)
        common = (first, self.weight, *self.windows, self.shape, sums)
        if self._gathers(events):
            kernels.slide_gathered(events.numbers, events.values, events.weighted, *common)
        else:
            kernels.slide(events.numbers, events.values, *common)

    def fire(
        self, events: Events, thresholds: NDArray[Any], sums: NDArray[Any],
        bits: NDArray[np.uint64], scratch: Scratch,
    ) -> bool:  # fmt: skip
        """Set the spikes that the events cause, sample after sample, if that is the quicker way."""
        if sums.shape[1] == 1 or self._gathers(events):
            return False
        first = events.of_places(self.shape[2], self.n_places, scratch)
        common = (events.numbers, events.values, first, self.weight, *self.windows, self.shape)
        arguments = (*common, thresholds, sums, bits)
        kernels.slide_and_fire(*arguments)
        return True

    def _gathers(self, events: Events) -> bool:
        """Return whether a row of a window has so few events that all rows go into one list."""
        run = int(events.counts.sum()) * self.shape[1] / (len(events.counts) * self.n_places)
        return self.shape[1] > 1 and run < GATHERED_RUN


@dataclass(frozen=True, eq=False)
class DenseSliding:
    """A convolution with small windows of values that are no mere spikes."""

    source: str
    weight: NDArray[np.float64]
    geometry: Geometry
    after: tuple[int, int]

    @classmethod
    def of(cls, source: str, weight: NDArray[np.float64], g: Geometry) -> DenseSliding:
        """Return the convolution with the padding that makes every window whole."""
        reach = [
            (out - 1) * stride + (kernel - 1) * dilation + 1
            for out, stride, kernel, dilation in zip(
                g.target, g.strides, g.kernel, g.dilation, strict=False
            )
        ]
        down, across = (max(0, reach[axis] - g.before[axis] - g.source[axis]) for axis in range(2))
        return cls(source, weight, g, (down, across))

    def add(self, events: Events, sums: NDArray[Any], scratch: Scratch) -> None:
        """Add what the values cause to the sums."""
        arguments = (*self._arguments(events, scratch), sums)
        kernels.slide_dense(*arguments)

    def fire(
        self, events: Events, thresholds: NDArray[Any], sums: NDArray[Any],
        bits: NDArray[np.uint64], scratch: Scratch,
    ) -> bool:  # fmt: skip
        """Set the spikes that the values cause, sample after sample."""
        arguments = (*self._arguments(events, scratch), thresholds, sums, bits)
        kernels.slide_dense_and_fire(*arguments)
        return True

    def _arguments(self, events: Events, scratch: Scratch) -> tuple[Any, ...]:
        assert events.every is not None
        g, n = self.geometry, len(events.every)
        (h, w, channels), (top, left) = g.source, g.before
        width = left + w + self.after[1]
        shape = (n, top + h + self.after[0], width, channels)
        padded = scratch.array(("padded", self.source, shape[1:]), shape, np.float64)
        padded.fill(0)
        padded[:, top : top + h, left : left + w] = events.every.reshape(n, *g.source)
        rows, columns = (np.arange(g.kernel[axis]) * g.dilation[axis] for axis in range(2))
        cells = (rows[:, None, None] * width + columns[:, None]) * channels
        taps = (cells + np.arange(channels)).ravel()
        row_length = (width * channels, channels)
        return padded.reshape(n, -1), self.weight, taps, g.strides, g.target[:2], row_length


@dataclass(frozen=True, eq=False)
class Scattering:
    """Synapses one by one."""

    source: str
    start: Index
    target: Index
    weight: NDArray[Any]

    def add(self, events: Events, sums: NDArray[Any], scratch: Scratch) -> None:
        """Add what the events cause to the sums."""
        lists = (events.numbers, events.values, events.weighted, events.counts)
        kernels.scatter(*lists, self.start, self.target, self.weight, sums)


@dataclass(frozen=True, eq=False)
class Pooling:
    """A max pool of spikes: any of the window (or, behind a negative scale, every one)."""

    source: str
    windows: tuple[NDArray[np.int64], ...]
    width: int
    every: bool


@dataclass(frozen=True, eq=False)
class Layer:
    """One population: either a pool of bits, or sums that meet thresholds.

    Parameters
    ----------
    name : str
    layout : Layout
    pool : Pooling, optional
    projections : tuple of Sliding, DenseSliding or Scattering
    thresholds : array (1 or n_places, n_columns)
        What the sums, biases left out, must reach.
    """

    name: str
    layout: Layout
    pool: Pooling | None
    projections: tuple[Sliding | DenseSliding | Scattering, ...]
    thresholds: NDArray[Any]

    def bits(
        self,
        events: Mapping[str, Events],
        bits: Mapping[str, NDArray[np.uint64]],
        n: int,
        scratch: Scratch,
    ) -> NDArray[np.uint64]:
        """Return the spikes of n samples as words, given those of the sources."""
        shape = (n, self.layout.n_places, self.layout.n_words)
        result = np.empty(shape, np.uint64)
        if self.pool is not None:
            pool = self.pool
            windows = (bits[pool.source], *pool.windows, pool.width, pool.every, result)
            kernels.pool(*windows)
            return result
        dtype = self.thresholds.dtype
        columns = (self.layout.n_places, self.layout.n_columns)
        alone = self.projections[0] if len(self.projections) == 1 else None
        if alone is not None and not isinstance(alone, Scattering):
            one = scratch.array(("sums of one", columns, dtype), (1, *columns), dtype)
            if alone.fire(events[alone.source], self.thresholds, one, result, scratch):
                return result
        sums = scratch.array(("sums", self.name), (n, *columns), dtype)
        sums.fill(0)
        for projection in self.projections:
            projection.add(events[projection.source], sums, scratch)
        kernels.fire(sums, self.thresholds, result)
        return result


def layout_of(network: SpikingNetwork, population: Population) -> Layout:
    """Return how the spikes of a population lie: as the map that a convolution makes, or flat."""
    for projection in network.into(population.name):
        if isinstance(projection.connectivity, Convolution):
            h, w, channels = projection.connectivity.geometry.target
            return Layout(h * w, channels)
    if len(population.shape) == 3:
        return Layout(population.shape[0] * population.shape[1], population.shape[2])
    return Layout(1, population.size)


def layer_of(
    network: SpikingNetwork, population: Population, layouts: Mapping[str, Layout]
) -> Layer:
    """Return what the engine computes for a population."""
    layout = layouts[population.name]
    projections = list(network.into(population.name))
    missing = population.threshold - population.bias
    pool = None
    if len(projections) == 1:
        pool = _pooling(projections[0], missing, layouts)
    graded = network.input.is_graded and any(p.source == network.input.name for p in projections)
    largest = network.largest_sums[population.name] + population.threshold
    whole = not graded and int(largest.max(initial=0)) < MAX_INT32
    dtype = np.int32 if whole else np.float64
    never = MAX_INT32 if whole else np.inf
    thresholds = layout.pad(missing.reshape(layout.n_places, layout.channels).astype(dtype), never)
    if (thresholds == thresholds[0]).all():
        thresholds = np.ascontiguousarray(thresholds[:1])
    ready: tuple[Sliding | DenseSliding | Scattering, ...] = ()
    if pool is None:
        values = network.input.name if graded else None
        ready = tuple(_projection(p, layout, dtype, p.source == values) for p in projections)
    return Layer(population.name, layout, pool, ready, thresholds)


def _projection(
    projection: Projection, layout: Layout, dtype: Any, has_values: bool
) -> Sliding | DenseSliding | Scattering:
    source, connectivity = projection.source, projection.connectivity
    if isinstance(connectivity, Dense) and layout.n_places == 1:
        weight = layout.pad(connectivity.weight.astype(dtype))
        # As a convolution whose kernel covers the input: one row for each piece of it.
        n_rows = -(-connectivity.n_sources // DENSE_ROWS)
        down = np.arange(n_rows).repeat(2).reshape(-1, 2), np.array([n_rows])
        across = np.array([[0, 0, 1]]), np.ones(1, np.int64)
        weight = np.pad(weight, ((0, n_rows * DENSE_ROWS - len(weight)), (0, 0)))
        return Sliding(source, weight, (*down, *across), (1, 1, DENSE_ROWS), n_rows)
    if _slides(connectivity, layout):
        g = connectivity.geometry
        weight = layout.pad(connectivity.weight.reshape(-1, g.target[2]).astype(dtype))
        small = len(weight) <= DENSE_WINDOW and g.input_dilation == (1, 1)
        if has_values and small and g.kernel != (1, 1) and min(g.before) >= 0:
            return DenseSliding.of(source, weight, g)
        shape = (g.source[1], g.kernel[1], g.source[2])
        return Sliding(source, weight, _windows(g), shape, g.source[0] * g.source[1])
    start, target, values = _lists(projection)
    place, channel = np.divmod(target, layout.channels)
    return Scattering(source, start, place * layout.n_columns + channel, values.astype(dtype))


def _slides(connectivity: Connectivity, layout: Layout) -> TypeGuard[Convolution]:
    """Return whether a convolution makes the very map in which the population's spikes lie."""
    if not isinstance(connectivity, Convolution) or connectivity.geometry.groups != 1:
        return False
    h, w, channels = connectivity.geometry.target
    return layout == Layout(h * w, channels)


def _lists(projection: Projection) -> tuple[Index, Index, NDArray[Any]]:
    """Return the synapses sorted by source: where those of each begin, targets, weights."""
    connectivity = projection.connectivity
    if isinstance(connectivity, Listed):
        start = connectivity.start.astype(np.int64)
        return start, connectivity.target.astype(np.int64), connectivity.weight
    parts = list(connectivity.synapses())
    none = np.zeros(0, np.int64)
    source, target, weight = (
        np.concatenate([none, *(part[i] for part in parts)]) for i in range(3)
    )
    order = np.argsort(source, kind="stable")
    start = np.concatenate([[0], np.cumsum(connectivity.fan_out)]).astype(np.int64)
    return start, target[order], weight[order]


def _pooling(
    projection: Projection, missing: Index, layouts: Mapping[str, Layout]
) -> Pooling | None:
    """Return a pool of bits if that is what the sums of a population come to."""
    connectivity, source = projection.connectivity, layouts.get(projection.source)
    if not isinstance(connectivity, Convolution) or source is None:
        return None
    g = connectivity.geometry
    if not g.groups == g.source[2] == g.target[2] == source.channels:
        return None
    if source.n_places != g.source[0] * g.source[1] or g.input_dilation != (1, 1):
        return None
    weight = int(connectivity.weight.flat[0])
    if weight <= 0 or not (connectivity.weight == weight).all():
        return None
    needed = -(-missing // weight)  # how many spikes reach the threshold
    every = bool((needed == connectivity.fan_in).all() and connectivity.fan_in.min() > 0)
    if not every and not (needed == 1).all():
        return None
    return Pooling(projection.source, _windows(g), g.source[1], every)


def _windows(g: Geometry) -> tuple[NDArray[np.int64], ...]:
    """Return rows, their ends, columns and their ends, as `exact_kernels.slide` reads them."""
    rows, row_ends = _taps(g, 0)
    taps, tap_ends = _taps(g, 1)
    columns: list[tuple[int, int, int]] = []
    column_ends: list[int] = []
    begin = 0
    for end in tap_ends:
        for kernel, cell in taps[begin:end]:
            # Neighbours in the kernel that read neighbours in the map are one run.
            last = columns[-1] if len(columns) > (column_ends[-1] if column_ends else 0) else None
            if last and kernel == last[0] + last[2] - last[1] and cell == last[2]:
                columns[-1] = (last[0], last[1], cell + 1)
            else:
                columns.append((kernel, cell, cell + 1))
        column_ends.append(len(columns))
        begin = end
    return (
        np.array(rows, np.int64).reshape(-1, 2),
        np.array(row_ends, np.int64),
        np.array(columns, np.int64).reshape(-1, 3),
        np.array(column_ends, np.int64),
    )


def _taps(g: Geometry, axis: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Return (kernel cell, input cell) pairs of each output cell along an axis, and their ends."""
    found: list[list[tuple[int, int]]] = [[] for _ in range(g.target[axis])]
    for i in range(g.kernel[axis]):
        for out, cell in zip(*g.taps(axis, i), strict=True):
            found[int(out)].append((i, int(cell)))
    ends = np.cumsum([len(taps) for taps in found])
    return [tap for taps in found for tap in taps], [int(end) for end in ends]
