"""What reaches a population on calibration samples: rows of inputs, and weights onto groups.

Neurons that share weights (an output channel of a convolution) are one group, at many places; any
other neuron is a group of its own. What all groups of a place read alike (dense layers, patches of
convolutions) is one matrix of rows; the rest (single synapses, grouped kernels) stays sparse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.connectivity import Connectivity, Convolution, Dense, Listed, narrow
from whetsim.network import Population, Projection, SpikingNetwork

__all__ = ["Grouped", "Rows", "grouped", "read_rows", "rows_that_fit", "written"]

Floats = NDArray[np.float64]
Singles = NDArray[Any]
CELLS = 2**26
"""Values in the matrix of inputs at most; 256 MiB in single precision."""
DECISIONS = 2**23
"""Sums of a population that are looked at, at most."""


@dataclass(frozen=True, eq=False)
class _Sparse:
    """Synapses of a projection that groups do not read alike.

    Parameters
    ----------
    projection : Projection
    weight : float array
        Its weights, flattened.
    group : int array
        Group of each weight.
    matrix : scipy sparse array (n_sources, n_targets)
        Its data tell which weight each synapse has.
    """

    projection: Projection
    weight: Floats
    group: NDArray[np.int64]
    matrix: Any


@dataclass(frozen=True, eq=False)
class Grouped:
    """Weights onto a population, column by column of groups.

    Parameters
    ----------
    n_groups, n_places : int
        Neuron ``place * n_groups + group`` is at that place in that group.
    weight : float array (n_columns, n_groups)
        Whole numbers of the network's grid, for what all groups of a place read alike.
    threshold : float array (n_places, n_groups)
        A neuron fires iff its weighted spikes reach it.
    shared : tuple of Projection
        Whose weights the columns are, in their order.
    sparse : tuple of _Sparse
    """

    n_groups: int
    n_places: int
    weight: Floats
    threshold: Floats
    shared: tuple[Projection, ...]
    sparse: tuple[_Sparse, ...]

    def parts(self) -> Iterator[tuple[Floats, Any]]:
        """Yield weights, and an index that gives of an array of groups what belongs to them."""
        yield self.weight, slice(None)
        for part in self.sparse:
            yield part.weight, part.group

    def largest(self, of: Callable[[Floats], Floats]) -> Floats:
        """Return the largest ``of(weight)`` of each group, at least 0."""
        result = of(self.weight).max(axis=0, initial=0.0)
        for part in self.sparse:
            np.maximum.at(result, part.group, of(part.weight))
        return np.asarray(result, dtype=np.float64)

    @property
    def divisor(self) -> NDArray[np.int64]:
        """Greatest common divisor of the weights of each group; 1 where all are 0."""
        result = np.gcd.reduce(self.weight.astype(np.int64), axis=0)
        for part in self.sparse:
            np.gcd.at(result, part.group, part.weight.astype(np.int64))
        result[result == 0] = 1
        return np.asarray(result)

    @property
    def n_weights(self) -> int:
        """Number of weights that are stored, zeros left out."""
        return sum(int(np.count_nonzero(weight)) for weight, _ in self.parts())


def grouped(network: SpikingNetwork, population: Population) -> Grouped:
    """Return the weights onto a population by groups."""
    projections = list(network.into(population.name))
    maps = [p for p in projections if isinstance(p.connectivity, Convolution)]
    n_groups = maps[0].connectivity.geometry.target[2] if maps else population.size  # type: ignore[attr-defined]
    n_places = population.size // max(n_groups, 1)
    shared: list[Projection] = []
    rest: list[Projection] = []
    for projection in projections:
        (shared if _read_alike(projection.connectivity, bool(maps)) else rest).append(projection)
    columns = [p.connectivity.weight.reshape(-1, n_groups).astype(np.float64) for p in shared]
    weight = np.concatenate(columns) if columns else np.zeros((0, n_groups))
    threshold = (population.threshold - population.bias).astype(np.float64)
    return Grouped(
        n_groups,
        n_places,
        weight,
        threshold.reshape(n_places, n_groups),
        tuple(shared),
        tuple(_sparse(p, n_groups) for p in rest),
    )


def _read_alike(connectivity: Connectivity, maps: bool) -> bool:
    if isinstance(connectivity, Convolution):
        return connectivity.geometry.groups == 1
    return isinstance(connectivity, Dense) and not maps


def _sparse(projection: Projection, n_groups: int) -> _Sparse:
    from scipy import sparse

    connectivity: Any = projection.connectivity
    weight = connectivity.weight
    # Weights that name themselves: a synapse tells which of the stored weights it has.
    names = narrow(np.arange(1, weight.size + 1, dtype=np.int64)).reshape(weight.shape)
    blocks = list(replace(connectivity, weight=names).synapses())
    source, target, name = (
        np.concatenate([block[i] for block in blocks]) if blocks else np.zeros(0, dtype=np.int64)
        for i in range(3)
    )
    order = np.argsort(source, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=connectivity.n_sources))])
    matrix = sparse.csr_array(
        (name[order] - 1, target[order], start),
        shape=(connectivity.n_sources, connectivity.n_targets),
    )
    if isinstance(connectivity, Listed):
        group = connectivity.target % n_groups
    else:
        group = np.arange(weight.size) % n_groups
    return _Sparse(projection, weight.ravel().astype(np.float64), group, matrix)


@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs of a population on some samples.

    Parameters
    ----------
    groups : Grouped
    columns : float array (n_rows, n_columns)
        A row for each sample and place; exact for whole sums below the precision's limit.
    spikes : tuple of float array
        For each sparse projection its sources on the samples.
    sign_plane : int
        What the sign bit of a negative input value takes away; 0 if there are none.
    """

    groups: Grouped
    columns: Singles
    spikes: tuple[Singles, ...]
    sign_plane: int = 0

    def apart(self) -> tuple[Rows, Rows | None]:
        """Return what the bit planes count upward, and what sign bits take away (None: nothing)."""
        if not self.sign_plane:
            return self, None
        down = replace(
            self,
            columns=self._signs(self.columns),
            spikes=tuple(self._signs(values) for values in self.spikes),
        )
        up = replace(
            self,
            columns=self.columns + down.columns,
            spikes=tuple(a + b for a, b in zip(self.spikes, down.spikes, strict=True)),
        )
        return up, down

    def _signs(self, values: Singles) -> Singles:
        return np.where(values < 0, values.dtype.type(self.sign_plane), values.dtype.type(0))

    def sums(self, weight: Floats, sparse: tuple[Floats, ...]) -> Singles:
        """Return the sums of such weights, ``(n_rows, n_groups)``."""
        groups = self.groups
        total = self.columns @ weight.astype(self.columns.dtype)
        for part, spikes, values in zip(groups.sparse, self.spikes, sparse, strict=True):
            matrix = part.matrix.copy()
            matrix.data = values[part.matrix.data].astype(spikes.dtype)
            total += (spikes @ matrix).reshape(-1, groups.n_groups)
        return np.asarray(total)


def rows_that_fit(groups: Grouped) -> int:
    """Return on how many samples the inputs of a population fit into memory, at least one."""
    cells = groups.n_places * max(len(groups.weight), 1)
    decisions = groups.n_places * max(groups.n_groups, 1)
    return max(1, min(CELLS // max(cells, 1), DECISIONS // max(decisions, 1)))


def read_rows(
    groups: Grouped,
    spikes: Mapping[str, Singles],
    double: bool,
    n_samples: int,
    sign_plane: int = 0,
) -> Rows:
    """Return the inputs of a population when its sources fire like this.

    Parameters
    ----------
    groups : Grouped
    spikes : mapping
        Source to what its events carry, ``(n_samples, n_sources)``.
    double : bool
        Sums need double precision to be exact.
    n_samples : int
    sign_plane : int
        See `Rows`.
    """
    dtype = np.float64 if double else np.float32
    parts = [
        _columns(p.connectivity, spikes[p.source].astype(dtype, copy=False)) for p in groups.shared
    ]
    n_rows = n_samples * groups.n_places
    columns = np.concatenate(parts, axis=1) if parts else np.zeros((n_rows, 0), dtype=dtype)
    sources = tuple(spikes[p.projection.source].astype(dtype, copy=False) for p in groups.sparse)
    return Rows(groups, columns, sources, sign_plane)


def _columns(connectivity: Connectivity, spikes: Singles) -> Singles:
    if not isinstance(connectivity, Convolution):
        return spikes
    g = connectivity.geometry
    n_taps, channels = g.kernel[0] * g.kernel[1], g.source[2]
    maps = spikes.reshape(-1, *g.source)
    patches = np.zeros((len(maps), *g.target[:2], n_taps, channels), dtype=spikes.dtype)
    for i, j, out_y, out_x, in_y, in_x in g.positions():
        seen = maps[:, in_y[:, None], in_x]
        patches[:, out_y[:, None], out_x, i * g.kernel[1] + j] = seen
    return patches.reshape(-1, n_taps * channels)


def written(
    groups: Grouped, weight: Floats, sparse: tuple[Floats, ...]
) -> Iterator[tuple[Projection, Projection]]:
    """Yield each projection, and the same with these weights in place of its own."""
    start = 0
    for projection in groups.shared:
        connectivity: Any = projection.connectivity
        n = connectivity.weight.size // max(groups.n_groups, 1)
        yield projection, _with(projection, weight[start : start + n])
        start += n
    for part, values in zip(groups.sparse, sparse, strict=True):
        yield part.projection, _with(part.projection, values)


def _with(projection: Projection, weight: Floats) -> Projection:
    connectivity: Any = projection.connectivity
    whole = narrow(np.rint(weight).astype(np.int64).reshape(connectivity.weight.shape))
    return replace(projection, connectivity=replace(connectivity, weight=whole))
