"""What the exact engine prepares for each population: weights, tables and thresholds as its
compiled loops read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from whetsim.backends import exact_kernels as kernels
from whetsim.backends.exact_arrays import Events, Index, Layout, Scratch, aligned_copy, in_blocks
from whetsim.backends.exact_vectors import DIGIT
from whetsim.connectivity import Connectivity, Convolution, Dense, Geometry, Listed
from whetsim.network import Population, Projection, SpikingNetwork

__all__ = ["DenseSliding", "Layer", "Sliding", "layer_of", "layout_of"]

MAX_INT16, MAX_INT32 = 2**15 - 1, 2**31 - 1
GATHERED_RUN = 4.0
"""Events in a row of a window below which all rows are gathered into one list."""
DENSE_WINDOW = 128
"""Values in a window up to which all are added up, zeros too."""
DENSE_ROWS = 512
"""Inputs of a dense projection whose weights are added up at a time; they stay in the cache."""


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
    ) -> None:  # fmt: skip
        """Set the spikes that the events cause, sample after sample."""
        first = events.of_places(self.shape[2], self.n_places, scratch)
        common = (events.numbers, events.values, first, self.weight, *self.windows, self.shape)
        arguments = (*common, thresholds, sums, bits)
        kernels.slide_and_fire(*arguments)

    def is_quicker_alone(self, events: Events, target: Layout) -> bool:
        """Return whether the sums of one sample are better used before those of the next."""
        return target.n_places > 1 and not self._gathers(events)

    def _gathers(self, events: Events) -> bool:
        """Return whether a row of a window has so few events that all rows go into one list."""
        run = int(events.counts.sum()) * self.shape[1] / (len(events.counts) * self.n_places)
        return self.shape[1] > 1 and run < GATHERED_RUN


@dataclass(frozen=True, eq=False)
class DenseSliding:
    """A convolution with small windows of values that are no mere spikes, alone in its layer."""

    source: str
    weight: NDArray[np.int16]
    limits: NDArray[np.int32]
    shape: tuple[int, int, int]
    geometry: tuple[int, ...]

    @classmethod
    def of(
        cls,
        source: str,
        weight: NDArray[np.int64],
        thresholds: NDArray[np.float64],
        g: Geometry,
        largest: int,
    ) -> DenseSliding | None:
        """Return the convolution, or None if its numbers are too large.

        Parameters
        ----------
        source : str
        weight : int64 array (kernel height, kernel width * channels, n_columns)
        thresholds : float64 array (1 or n_places, n_columns)
        g : Geometry
        largest : int
            Largest absolute value of the input.
        """
        digits = _digits(weight)
        sums = np.abs(digits).sum(axis=(1, 2)) * largest
        if max(largest, int(np.abs(digits).max(initial=0))) > MAX_INT16 or sums.max() > 2**29:
            return None
        # What no sum reaches may be anything beyond.
        bound = (sums[0] << DIGIT) + sums[1] + 1
        limits = _digits(-np.clip(thresholds, -bound, bound).astype(np.int64))
        n_rows, run, n_columns = weight.shape
        digits = np.pad(digits, ((0, 0), (0, 0), (0, run % 2), (0, 0)))
        shape = (2, n_rows, -1, 2, n_columns // kernels.LANES, kernels.LANES)
        ordered = digits.reshape(shape).transpose(4, 1, 2, 0, 5, 3).astype(np.int16)
        limits = limits.reshape(2, len(thresholds), -1, kernels.LANES).transpose(1, 2, 0, 3)
        # So large that every window is whole.
        height, width = (
            max(
                g.before[axis] + g.source[axis],
                (g.target[axis] - 1) * g.strides[axis]
                + (g.kernel[axis] - 1) * g.dilation[axis]
                + 1,
            )
            for axis in range(2)
        )
        geometry = (height, width, *g.before, *g.strides, g.dilation[0], n_rows, run, *g.target[:2])
        return cls(
            source,
            aligned_copy(ordered).ravel(),
            aligned_copy(limits.astype(np.int32)),
            g.source,
            geometry,
        )

    def fire(self, events: Events, bits: NDArray[np.uint64]) -> None:
        """Set the spikes that the values cause."""
        arguments = (events.every, self.shape, self.geometry, self.weight, self.limits, bits)
        kernels.slide_windows(*arguments)


def _digits(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return whole numbers as ``upper * 2^DIGIT + lower``; both in one array, upper first."""
    unit = 1 << DIGIT
    lower = (numbers + unit // 2) % unit - unit // 2
    return np.stack([(numbers - lower) >> DIGIT, lower])


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
    """One population: a pool of bits, windows of grey values, or sums that meet thresholds.

    Parameters
    ----------
    name : str
    layout : Layout
    pool : Pooling, optional
    windows : DenseSliding, optional
    projections : tuple of Sliding or Scattering
    thresholds : array (1 or n_places, n_columns)
        What the sums, biases left out, must reach.
    """

    name: str
    layout: Layout
    pool: Pooling | None
    windows: DenseSliding | None
    projections: tuple[Sliding | Scattering, ...]
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
        if self.windows is not None:
            self.windows.fire(events[self.windows.source], result)
            return result
        dtype = self.thresholds.dtype
        columns = (self.layout.n_places, self.layout.n_columns)
        alone = self.projections[0] if len(self.projections) == 1 else None
        if isinstance(alone, Sliding) and alone.is_quicker_alone(events[alone.source], self.layout):
            one = scratch.array(("sums of one", columns, dtype), (1, *columns), dtype)
            alone.fire(events[alone.source], self.thresholds, one, result, scratch)
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
    windows = None
    if graded and len(projections) == 1:
        windows = _windows_of_values(projections[0], layout, thresholds, network)
    ready: tuple[Sliding | Scattering, ...] = ()
    if pool is None and windows is None:
        ready = tuple(_projection(p, layout, dtype) for p in projections)
    return Layer(population.name, layout, pool, windows, ready, thresholds)


def _windows_of_values(
    projection: Projection,
    layout: Layout,
    thresholds: NDArray[np.float64],
    network: SpikingNetwork,
) -> DenseSliding | None:
    """Return a convolution of the input as one of all values, if its windows are small."""
    connectivity = projection.connectivity
    if not _slides(connectivity, layout):
        return None
    g = connectivity.geometry
    plain = g.input_dilation == (1, 1) and g.dilation[1] == 1 and min(g.before) >= 0
    if not plain or g.kernel == (1, 1) or connectivity.weight[..., 0].size > DENSE_WINDOW:
        return None
    weight = connectivity.weight.astype(np.int64).reshape(g.kernel[0], -1, g.target[2])
    largest = max(abs(network.input.low), abs(network.input.high))
    return DenseSliding.of(projection.source, layout.pad(weight), thresholds, g, largest)


def _projection(projection: Projection, layout: Layout, dtype: Any) -> Sliding | Scattering:
    source, connectivity = projection.source, projection.connectivity
    if isinstance(connectivity, Dense) and layout.n_places == 1:
        weight = layout.pad(connectivity.weight.astype(dtype))
        # As a convolution whose kernel covers the input: one row for each piece of it.
        n_rows = -(-connectivity.n_sources // DENSE_ROWS)
        down = np.arange(n_rows).repeat(2).reshape(-1, 2), np.array([n_rows])
        across = np.array([[0, 0, 1]]), np.ones(1, np.int64)
        weight = np.pad(weight, ((0, n_rows * DENSE_ROWS - len(weight)), (0, 0)))
        return Sliding(source, in_blocks(weight), (*down, *across), (1, 1, DENSE_ROWS), n_rows)
    if _slides(connectivity, layout):
        g = connectivity.geometry
        weight = layout.pad(connectivity.weight.reshape(-1, g.target[2]).astype(dtype))
        shape = (g.source[1], g.kernel[1], g.source[2])
        return Sliding(source, in_blocks(weight), _windows(g), shape, g.source[0] * g.source[1])
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
