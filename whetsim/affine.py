"""What stands between two steps of a trained network: sums of linear maps, in float64.

An `Affine` value says how each unit of a layer depends on the spikes of earlier populations.
Layers without a step only rewrite it; a step turns it into a population. Convolutions stay
convolutions as long as only scaling meets them; whatever else becomes a sparse matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from whetsim import layers as L
from whetsim.connectivity import Geometry, entries
from whetsim.errors import MappingError
from whetsim.layers import Shape

__all__ = [
    "Affine",
    "Conv",
    "Matrix",
    "Operator",
    "Pick",
    "cells_in_windows",
    "volume_matrix",
]

MAX_ENTRIES = 2**28
"""Synapses that are listed one by one at most; about 4 GB while mapping."""

Floats = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pick:
    """Each target reads at most one source: ``y[j] = scale[j] * x[index[j]]``, -1 reads none."""

    index: Index
    n_sources: int
    scale: Floats | None = None

    @property
    def factors(self) -> Floats:
        """The scale of each target, 0 where it reads none."""
        scale = np.ones(len(self.index)) if self.scale is None else self.scale
        return np.where(self.index >= 0, scale, 0.0)

    @property
    def is_identity(self) -> bool:
        """Whether targets are the sources, unscaled and in order."""
        return self.scale is None and np.array_equal(self.index, np.arange(self.n_sources))


@dataclass(frozen=True, eq=False)
class Conv:
    """A convolution; `weight` has ``geometry.weight_shape``."""

    weight: Floats
    geometry: Geometry


@dataclass(frozen=True, eq=False)
class Matrix:
    """Any linear map, ``(n_sources, n_targets)``: a numpy array or a scipy sparse array."""

    weight: Any


Operator = Pick | Conv | Matrix


@dataclass(frozen=True, eq=False)
class Affine:
    """``sum over terms of operator(spikes of source) + constant``, for every unit of a layer.

    Parameters
    ----------
    shape : tuple of int
        Shape of the layer's output.
    terms : tuple of (source name, operator)
    constant : float64 array (n_units,)
    is_binary : bool
        Whether every unit is known to be 0 or 1.
    """

    shape: Shape
    terms: tuple[tuple[str, Operator], ...]
    constant: Floats
    is_binary: bool = False

    @property
    def size(self) -> int:
        """Number of units."""
        return math.prod(self.shape)

    @classmethod
    def of_population(cls, name: str, shape: Shape, is_binary: bool) -> Affine:
        """Return the output of a population itself."""
        size = math.prod(shape)
        return cls(shape, ((name, Pick(np.arange(size), size)),), np.zeros(size), is_binary)

    def _each(
        self, shape: Shape, change: Callable[[Operator], Operator], constant: Floats
    ) -> Affine:
        return Affine(shape, tuple((name, change(op)) for name, op in self.terms), constant)

    def reshaped(self, shape: Shape) -> Affine:
        """Return the same units under another shape."""
        return replace(self, shape=shape)

    def gathered(self, shape: Shape, index: Index) -> Affine:
        """Return units ``index`` of this value; -1 makes a zero."""
        constant = np.where(index >= 0, self.constant[index], 0.0)
        result = self._each(shape, lambda op: _gather(op, index), constant)
        return replace(result, is_binary=self.is_binary)

    def scaled(self, scale: Floats, shift: Floats) -> Affine:
        """Return ``scale * self + shift`` along the last axis."""
        repeat = self.size // len(scale)
        factors = np.tile(scale, repeat)
        constant = self.constant * factors + np.tile(shift, repeat)
        return self._each(self.shape, lambda op: _scale(op, factors, len(scale)), constant)

    def multiplied(self, shape: Shape, matrix: Any, bias: Floats | float = 0.0) -> Affine:
        """Return ``self @ matrix + bias``; `matrix` is dense or sparse."""
        constant = np.asarray(self.constant @ matrix).ravel() + bias
        return self._each(shape, lambda op: _multiply(op, matrix), constant)

    def convolved(self, weight: Floats, geometry: Geometry, bias: L.FloatArray | None) -> Affine:
        """Return the convolution of this map."""
        constant = _convolve_constant(self.constant, weight, geometry)
        if bias is not None:
            constant = constant + np.tile(bias.astype(np.float64), constant.size // bias.size)
        return self._each(geometry.target, lambda op: _convolve(op, weight, geometry), constant)

    def pooled(self, pool: L.Pool, weight: float = 1.0) -> Affine:
        """Return `weight` times the sum under each window of a pool."""
        if len(self.shape) == 3:
            geometry = _pool_geometry(pool, self.shape)
            return self.convolved(np.full(geometry.weight_shape, weight), geometry, None)
        channels = self.shape[-1]
        shape = pool.output_shape(self.shape)
        _refuse_huge(math.prod(shape) * math.prod(pool.pool_size))
        matrix = volume_matrix(
            np.full((*pool.pool_size, 1, channels), weight),
            self.shape,
            shape,
            strides=pool.steps,
            dilation=(1,) * pool.n_axes,
            before=[before for before, _ in pool.explicit_padding(self.shape[:-1])],
            groups=channels,
        )
        return self.multiplied(shape, matrix)

    def times(self, factors: Floats) -> Affine:
        """Return every unit times its own factor."""
        n = len(factors)
        return self._each(self.shape, lambda op: _scale(op, factors, n), self.constant * factors)

    @staticmethod
    def total(parts: Iterable[Affine], shape: Shape) -> Affine:
        """Return the sum of values of one shape."""
        parts = list(parts)
        terms = tuple(term for part in parts for term in part.terms)
        return Affine(shape, terms, np.sum([part.constant for part in parts], axis=0))


def _pool_geometry(pool: L.Pool, shape: Shape) -> Geometry:
    """Return how the window of `pool` slides over a map of `shape`, each channel by itself."""
    h, w, channels = shape
    (top, _), (left, _) = pool.explicit_padding((h, w))
    out_h, out_w, _ = pool.output_shape(shape)
    (kh, kw), (sy, sx) = pool.pool_size, pool.steps
    return Geometry(
        source=(h, w, channels),
        target=(out_h, out_w, channels),
        kernel=(kh, kw),
        strides=(sy, sx),
        before=(top, left),
        groups=channels,
    )


def cells_in_windows(pool: L.Pool, shape: Shape) -> Floats:
    """Return for each unit of a pool how many cells its window holds, padding not counted."""
    *places, channels = pool.output_shape(shape)
    counts: Floats = np.ones(())
    for axis, (before, _) in enumerate(pool.explicit_padding(shape[:-1])):
        first = np.arange(places[axis]) * pool.steps[axis] - before
        behind = np.minimum(first + pool.pool_size[axis], shape[axis])
        counts = np.multiply.outer(counts, behind - np.maximum(first, 0))
    return np.repeat(counts.ravel(), channels)


def volume_matrix(
    weight: Floats,
    source: Shape,
    target: Shape,
    *,
    strides: Sequence[int],
    dilation: Sequence[int],
    before: Sequence[int],
    groups: int,
) -> Any:
    """Return a convolution over any number of axes as a CSR array ``(n_sources, n_targets)``.

    `weight` is ``(*kernel size, input channels / groups, output channels)``, `before` the padding
    in front of each axis.
    """
    _refuse_huge(math.prod(target) * math.prod(weight.shape[:-1]))
    *kernel, per_in, n_out = weight.shape
    cells, places = (np.arange(math.prod(s[:-1])).reshape(s[:-1]) for s in (source, target))
    empty = np.zeros(0, np.int64)
    parts = [(empty, empty, np.zeros(0))]
    for position in np.ndindex(*kernel):
        reached, read = [], []
        for axis, i in enumerate(position):
            place = np.arange(target[axis])
            cell = place * strides[axis] + i * dilation[axis] - before[axis]
            inside = (cell >= 0) & (cell < source[axis])
            reached.append(place[inside])
            read.append(cell[inside])
        c_in, c_out = np.nonzero(weight[position])
        values = weight[position][c_in, c_out]
        c_in = c_in + c_out // (n_out // groups) * per_in
        rows = np.add.outer(cells[np.ix_(*read)].ravel() * source[-1], c_in)
        columns = np.add.outer(places[np.ix_(*reached)].ravel() * n_out, c_out)
        parts.append((rows.ravel(), columns.ravel(), np.tile(values, len(rows))))
    rows, columns, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    return sparse.csr_array((values, (rows, columns)), (math.prod(source), math.prod(target)))


def as_matrix(op: Operator) -> Any:
    """Return the operator as a scipy CSR array (or the dense array that it already is)."""
    match op:
        case Matrix(weight):
            return weight
        case Pick(index, n_sources, _):
            used = np.nonzero(index >= 0)[0]
            values = op.factors[used]
            shape = (n_sources, len(index))
            return sparse.csr_array((values, (index[used], used)), shape=shape)
        case Conv(weight, geometry):
            _refuse_huge(math.prod(geometry.target) * math.prod(weight.shape[:3]))
            parts = list(entries(weight, geometry))
            if not parts:
                parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
            source, target, values = (np.concatenate(part) for part in zip(*parts, strict=True))
            shape = (math.prod(geometry.source), math.prod(geometry.target))
            return sparse.csr_array((values, (source, target)), shape=shape)


def _gather(op: Operator, index: Index) -> Operator:
    used = index >= 0
    if isinstance(op, Pick):
        scale = None if op.scale is None else np.where(used, op.scale[index], 0.0)
        return Pick(np.where(used, op.index[index], -1), op.n_sources, scale)
    matrix = sparse.csc_array(as_matrix(op))
    picked = np.nonzero(used)[0]
    shape = (matrix.shape[1], len(index))
    selection = sparse.csc_array((np.ones(len(picked)), (index[picked], picked)), shape=shape)
    return Matrix(sparse.csr_array(matrix @ selection))


def _scale(op: Operator, factors: Floats, period: int) -> Operator:
    """Scale each target; `factors` repeat with `period`."""
    if (factors == 1.0).all():
        return op
    match op:
        case Pick(index, n_sources, scale):
            return Pick(index, n_sources, factors if scale is None else scale * factors)
        case Conv(weight, geometry) if period == geometry.target[2]:
            return Conv(weight * factors[:period], geometry)
    matrix = as_matrix(op)
    if isinstance(matrix, np.ndarray):
        return Matrix(matrix * factors)
    return Matrix(sparse.csr_array(matrix @ sparse.diags_array(factors)))


def _multiply(op: Operator, matrix: Any) -> Operator:
    if isinstance(op, Pick) and isinstance(matrix, np.ndarray):
        _refuse_huge(op.n_sources * matrix.shape[1])
        used = op.index >= 0
        rows = matrix[used] * op.factors[used, None]
        result = np.zeros((op.n_sources, matrix.shape[1]))
        np.add.at(result, op.index[used], rows)
        return Matrix(result)
    left = as_matrix(op)
    if isinstance(matrix, np.ndarray):
        _refuse_huge(left.shape[0] * matrix.shape[1])
    return Matrix(left @ matrix)


def _refuse_huge(n_entries: int) -> None:
    if n_entries > MAX_ENTRIES:
        raise MappingError(
            f"folding layers into one would make {n_entries:,} synapses, each with a weight of its "
            f"own (need <= {MAX_ENTRIES:,}). Put a step between the layers."
        )


def _convolve(op: Operator, weight: Floats, geometry: Geometry) -> Operator:
    if isinstance(op, Pick):
        moved = _convolve_channels(op, weight, geometry)
        if moved is not None:
            return moved
    return Matrix(sparse.csr_array(as_matrix(op) @ as_matrix(Conv(weight, geometry))))


def _convolve_channels(pick: Pick, weight: Floats, geometry: Geometry) -> Conv | None:
    """Return the convolution on the source's own channels, if `pick` only chooses channels."""
    h, w, channels = geometry.source
    places = h * w
    index = pick.index.reshape(places, channels)
    scale = pick.factors.reshape(places, channels)
    n_source_channels, rest = divmod(pick.n_sources, places)
    chosen = index[0]
    expected = np.arange(places)[:, None] * n_source_channels + chosen
    same_everywhere = np.array_equal(index, np.where(chosen >= 0, expected, -1))
    in_range = chosen.max(initial=-1) < n_source_channels
    if rest or not in_range or not same_everywhere or not (scale == scale[0]).all():
        return None
    if geometry.groups > 1:
        if not np.array_equal(chosen, np.arange(n_source_channels)):
            return None
        per_in = channels // geometry.groups
        per_out = geometry.target[2] // geometry.groups
        factors = np.repeat(scale[0].reshape(geometry.groups, per_in).T, per_out, axis=1)
        return Conv(weight * factors, geometry)
    kh, kw, _, n_out = weight.shape
    own = np.zeros((kh, kw, n_source_channels, n_out))
    for c in np.nonzero(chosen >= 0)[0]:
        own[:, :, chosen[c], :] += weight[:, :, c, :] * scale[0, c]
    return Conv(own, replace(geometry, source=(h, w, n_source_channels)))


def _convolve_constant(constant: Floats, weight: Floats, geometry: Geometry) -> Floats:
    target = np.zeros(geometry.target)
    if constant.any():
        source = constant.reshape(geometry.source)
        groups, (_, _, per_in, n_out) = geometry.groups, weight.shape
        for i, j, out_y, out_x, in_y, in_x in geometry.positions():
            seen = source[in_y[:, None], in_x].reshape(len(in_y), len(in_x), groups, per_in)
            kernel = weight[i, j].reshape(per_in, groups, n_out // groups)
            part = np.einsum("yxgc,cgo->yxgo", seen, kernel, optimize=False)
            target[out_y[:, None], out_x] += part.reshape(len(in_y), len(in_x), n_out)
    return target.ravel()
