"""Which neuron feeds which, with what integer weight: dense, convolutional or listed.

Convolutions stay convolutions: one kernel and a geometry. Simulators that need every synapse get
arrays, in blocks. A weight of zero is no synapse.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import MappingError
from whetsim.layers import Shape

__all__ = [
    "Connectivity",
    "Convolution",
    "Dense",
    "Geometry",
    "Listed",
    "Synapses",
]

Integers = NDArray[np.integer[Any]]
BLOCK = 4_000_000
"""Synapses in one block, about 100 MB with the arrays a simulator makes of them."""


class Synapses(NamedTuple):
    """A block of synapses; neurons count from 0 in their own population."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    weight: NDArray[np.int64]


class Connectivity(ABC):
    """Weighted synapses from `n_sources` to `n_targets` neurons, on the integer grid."""

    n_sources: int
    n_targets: int
    weight: Integers

    @abstractmethod
    def synapses(self, block: int = BLOCK) -> Iterator[Synapses]:
        """Yield all synapses with non-zero weight, about `block` at a time, in a fixed order."""

    @cached_property
    def fan_out(self) -> NDArray[np.int64]:
        """Number of synapses that leave each source, ``(n_sources,)``."""
        return self._count("source", self.n_sources)

    @cached_property
    def fan_in(self) -> NDArray[np.int64]:
        """Number of synapses that reach each target, ``(n_targets,)``."""
        return self._count("target", self.n_targets)

    @property
    def n_synapses(self) -> int:
        """Number of synapses."""
        return int(self.fan_out.sum())

    @abstractmethod
    def absolute_sums(self) -> NDArray[np.int64]:
        """Return the sum of ``|weight|`` over the synapses of each target, ``(n_targets,)``."""

    @abstractmethod
    def spread(self, factors: NDArray[np.int64]) -> Connectivity:
        """Return the connectivity with every source replaced by several.

        Source i becomes sources ``i * len(factors) + b`` with weights times ``factors[b]``.
        """

    def _count(self, side: str, size: int) -> NDArray[np.int64]:
        total = np.zeros(size, dtype=np.int64)
        for block in self.synapses():
            total += np.bincount(getattr(block, side), minlength=size)
        return total


def _freeze(array: NDArray[Any], what: str, n_axes: int) -> NDArray[Any]:
    array = np.asarray(array)
    if array.dtype.kind not in "iu" or array.ndim != n_axes:
        raise MappingError(
            f"{what}: {array.dtype} of shape {array.shape}; need whole numbers with {n_axes} axes."
        )
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array


def narrow(weight: NDArray[np.int64]) -> Integers:
    """Return `weight` as int32 where it fits, else as int64."""
    fits = weight.size == 0 or int(np.abs(weight).max()) < 2**31
    return weight.astype(np.int32) if fits else weight


@dataclass(frozen=True, eq=False)
class Dense(Connectivity):
    """Every source to every target; `weight` is ``(n_sources, n_targets)``."""

    weight: Integers

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", _freeze(self.weight, "dense weights", 2))

    @property
    def n_sources(self) -> int:  # type: ignore[override]
        return int(self.weight.shape[0])

    @property
    def n_targets(self) -> int:  # type: ignore[override]
        return int(self.weight.shape[1])

    def synapses(self, block: int = BLOCK) -> Iterator[Synapses]:
        rows = max(1, block // max(1, self.n_targets))
        for start in range(0, self.n_sources, rows):
            part = self.weight[start : start + rows]
            source, target = np.nonzero(part)
            if source.size:
                yield Synapses(source + start, target, part[source, target].astype(np.int64))

    @cached_property
    def fan_out(self) -> NDArray[np.int64]:
        return np.asarray(np.count_nonzero(self.weight, axis=1), dtype=np.int64)

    @cached_property
    def fan_in(self) -> NDArray[np.int64]:
        return np.asarray(np.count_nonzero(self.weight, axis=0), dtype=np.int64)

    def absolute_sums(self) -> NDArray[np.int64]:
        total: NDArray[np.int64] = np.abs(self.weight.astype(np.int64)).sum(axis=0)
        return total

    def spread(self, factors: NDArray[np.int64]) -> Dense:
        wide = self.weight.astype(np.int64)[:, None, :] * factors[None, :, None]
        return Dense(narrow(wide.reshape(-1, self.n_targets)))


@dataclass(frozen=True, eq=False)
class Listed(Connectivity):
    """Synapses as lists, sorted by source; source i has ``start[i]`` up to ``start[i + 1]``."""

    start: NDArray[np.int64]
    target: NDArray[np.int64]
    weight: Integers
    n_targets: int

    def __post_init__(self) -> None:
        for key in ("start", "target", "weight"):
            object.__setattr__(self, key, _freeze(getattr(self, key), f"listed {key}", 1))
        start, target = self.start, self.target
        in_order = len(start) > 0 and start[0] == 0 and (np.diff(start) >= 0).all()
        if not in_order or not start[-1] == len(target) == len(self.weight):
            raise MappingError(
                "listed start: must rise from 0 to the number of targets and of weights."
            )
        if len(target) and not 0 <= int(target.min()) <= int(target.max()) < self.n_targets:
            raise MappingError(f"listed target: must be in 0..{self.n_targets - 1}.")

    @property
    def n_sources(self) -> int:  # type: ignore[override]
        return len(self.start) - 1

    def synapses(self, block: int = BLOCK) -> Iterator[Synapses]:
        source = np.repeat(np.arange(self.n_sources), np.diff(self.start))
        for first in range(0, len(self.target), block):
            part = slice(first, first + block)
            weight = self.weight[part].astype(np.int64)
            kept = np.nonzero(weight)[0]
            if kept.size:
                yield Synapses(source[part][kept], self.target[part][kept], weight[kept])

    def absolute_sums(self) -> NDArray[np.int64]:
        total = np.zeros(self.n_targets, dtype=np.int64)
        np.add.at(total, self.target, np.abs(self.weight.astype(np.int64)))
        return total

    def spread(self, factors: NDArray[np.int64]) -> Listed:
        n = len(factors)
        counts = np.diff(self.start)
        start = np.concatenate([[0], np.cumsum(np.repeat(counts, n))])
        # Copies of one source stand together, so its run of synapses is repeated n times.
        order = _repeated_runs(self.start, n)
        factor = np.repeat(np.tile(factors, self.n_sources), np.repeat(counts, n))
        target = self.target[order]
        weight = self.weight.astype(np.int64)[order] * factor
        return Listed(start, target, narrow(weight), self.n_targets)


def _repeated_runs(start: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    counts = np.repeat(np.diff(start), n)
    first = np.repeat(start[:-1], n)
    offset = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    result: NDArray[np.int64] = np.repeat(first, counts) + offset
    return result


@dataclass(frozen=True)
class Geometry:
    """How a kernel slides: output cell y reads, for kernel position i, the cell
    ``(y * stride + i * dilation - before) / input_dilation`` of the input, where that is whole.

    Parameters
    ----------
    source, target : (height, width, channels)
        Shapes of the two maps.
    kernel, strides, dilation, input_dilation, before : (vertical, horizontal)
        Kernel size; stride; spacing of kernel cells; spacing of input cells (above 1 in a
        transposed convolution); padding on top and on the left (what lies behind follows from
        the target's size).
    groups : int
        Channels come in that many groups that do not mix.
    """

    source: tuple[int, int, int]
    target: tuple[int, int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    input_dilation: tuple[int, int] = (1, 1)
    before: tuple[int, int] = (0, 0)
    groups: int = 1

    @property
    def weight_shape(self) -> Shape:
        """``(kernel height, kernel width, input channels / groups, output channels)``."""
        return (*self.kernel, self.source[2] // self.groups, self.target[2])

    def taps(self, axis: int, i: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the output cells that kernel position `i` serves, and the input cells they read.

        `axis` is 0 for vertical, 1 for horizontal.
        """
        out = np.arange(self.target[axis])
        place = out * self.strides[axis] + i * self.dilation[axis] - self.before[axis]
        cell, rest = np.divmod(place, self.input_dilation[axis])
        inside = (rest == 0) & (cell >= 0) & (cell < self.source[axis])
        return out[inside], cell[inside]

    def positions(self) -> Iterator[tuple[int, int, Any, Any, Any, Any]]:
        """Yield ``i, j, out_y, out_x, in_y, in_x`` for all kernel positions that reach anything."""
        across = [self.taps(1, j) for j in range(self.kernel[1])]
        for i in range(self.kernel[0]):
            out_y, in_y = self.taps(0, i)
            for j, (out_x, in_x) in enumerate(across):
                if out_y.size and out_x.size:
                    yield i, j, out_y, out_x, in_y, in_x


def entries(
    weight: NDArray[Any], geometry: Geometry, block: int = BLOCK
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]]:
    """Yield the synapses of a convolution as arrays ``source, target, weight``, zeros left out."""
    g = geometry
    per_in, per_out = g.source[2] // g.groups, g.target[2] // g.groups
    for i, j, out_y, out_x, in_y, in_x in g.positions():
        # (input channel, output channel) pairs at this kernel position, once for all places.
        c_in, c_out = np.nonzero(weight[i, j])
        if not c_in.size:
            continue
        values = weight[i, j, c_in, c_out]
        c_in = c_in + (c_out // per_out) * per_in
        place_in = ((in_y[:, None] * g.source[1] + in_x) * g.source[2]).ravel()
        place_out = ((out_y[:, None] * g.target[1] + out_x) * g.target[2]).ravel()
        rows = max(1, block // c_in.size)
        for first in range(0, place_in.size, rows):
            part = slice(first, first + rows)
            source = (place_in[part, None] + c_in).ravel()
            target = (place_out[part, None] + c_out).ravel()
            yield source, target, np.tile(values, source.size // values.size)


@dataclass(frozen=True, eq=False)
class Convolution(Connectivity):
    """One kernel for all places; `weight` has ``geometry.weight_shape``."""

    weight: Integers
    geometry: Geometry

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", _freeze(self.weight, "convolution weights", 4))
        if self.weight.shape != self.geometry.weight_shape:
            raise MappingError(
                f"convolution weights: shape {self.weight.shape}; the geometry needs "
                f"{self.geometry.weight_shape}."
            )

    @property
    def n_sources(self) -> int:  # type: ignore[override]
        return math.prod(self.geometry.source)

    @property
    def n_targets(self) -> int:  # type: ignore[override]
        return math.prod(self.geometry.target)

    def synapses(self, block: int = BLOCK) -> Iterator[Synapses]:
        for source, target, weight in entries(self.weight, self.geometry, block):
            yield Synapses(source, target, weight.astype(np.int64))

    @cached_property
    def fan_out(self) -> NDArray[np.int64]:
        g = self.geometry
        per_in, per_out = g.source[2] // g.groups, g.target[2] // g.groups
        total = np.zeros(g.source, dtype=np.int64)
        for i, j, _, _, in_y, in_x in g.positions():
            used = self.weight[i, j] != 0
            by_group = used.reshape(per_in, g.groups, per_out).sum(axis=2).T.ravel()
            np.add.at(total, (in_y[:, None], in_x[None, :]), by_group)
        return total.ravel()

    @cached_property
    def fan_in(self) -> NDArray[np.int64]:
        return self._sum_at_targets((self.weight != 0).sum(axis=2))

    def absolute_sums(self) -> NDArray[np.int64]:
        return self._sum_at_targets(np.abs(self.weight.astype(np.int64)).sum(axis=2))

    def _sum_at_targets(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        total = np.zeros(self.geometry.target, dtype=np.int64)
        for i, j, out_y, out_x, _, _ in self.geometry.positions():
            total[out_y[:, None], out_x[None, :]] += values[i, j]
        return total.ravel()

    def spread(self, factors: NDArray[np.int64]) -> Convolution:
        g, n = self.geometry, len(factors)
        wide = self.weight.astype(np.int64)[:, :, :, None, :] * factors[:, None]
        source = (g.source[0], g.source[1], g.source[2] * n)
        geometry = Geometry(
            source, g.target, g.kernel, g.strides, g.dilation, g.input_dilation, g.before, g.groups
        )
        return Convolution(narrow(wide.reshape(geometry.weight_shape)), geometry)
