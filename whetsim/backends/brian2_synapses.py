"""Every synapse of a network as flat arrays, for simulators that hold each one.

The synapses of a neuron stand together, also those of a convolution, so that the delivery of one
spike reads memory from front to back. Arrays are filled in place, block by block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from whetsim.connectivity import Connectivity, Convolution, Geometry
from whetsim.errors import UnsupportedError
from whetsim.network import Population

__all__ = ["FlatSynapses", "Part"]

BLOCK = 2**18
"""Synapses handled at a time; their arrays stay in the caches of a processor."""
MOST = 2**31 - 1
"""Brian2 counts synapses in 32 bits."""


class Part(NamedTuple):
    """One projection, and where its neurons are in the simulator's groups."""

    connectivity: Connectivity
    target: Population
    source_start: int
    target_start: int
    delay: int


class FlatSynapses:
    """The synapses of several projections, counted through.

    Raises
    ------
    UnsupportedError
        If there are 2^31 or more.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._sizes = [part.connectivity.n_synapses for part in parts]
        if len(self) > MOST:
            raise UnsupportedError(
                f"brian2: holds at most {MOST:,} synapses (got {len(self):,}). Use backend 'exact'."
            )

    def __len__(self) -> int:
        return sum(self._sizes)

    @property
    def delays(self) -> NDArray[np.float64]:
        """Delay of each synapse in steps, or a single one if it is the same for all."""
        each = [float(part.delay) for part in self._parts]
        return np.repeat(each, self._sizes) if len(set(each)) > 1 else np.array(each[:1])

    def fill(
        self,
        source: NDArray[np.int32],
        target: NDArray[np.int32],
        weight: NDArray[np.float64],
    ) -> None:
        """Write source, target and weight of each; the threshold is 0.5."""
        position = 0
        for part in self._parts:
            # Powers of two: the product is exact.
            scale = np.ldexp(1.0, -part.target.exponent.astype(np.int32))
            for i, j, w in _by_source(part.connectivity):
                here = slice(position, position + len(i))
                np.add(i, part.source_start, out=source[here], casting="same_kind")
                np.add(j, part.target_start, out=target[here], casting="same_kind")
                np.multiply(w, scale[j], out=weight[here])
                position += len(i)


def _by_source(connectivity: Connectivity) -> Iterator[tuple[Any, Any, Any]]:
    """Yield blocks ``source, target, weight``, the synapses of a neuron one behind the other."""
    if isinstance(connectivity, Convolution):
        return _of_convolution(connectivity.weight, connectivity.geometry)
    return connectivity.synapses(BLOCK)


class _Cells(NamedTuple):
    """Input cells of one axis that the same kernel positions read, and for which output cells."""

    cell: NDArray[np.int64]
    position: NDArray[np.int64]
    out: NDArray[np.int64]
    """(cells, positions)"""


def _alike(geometry: Geometry, axis: int) -> Iterator[_Cells]:
    out_of = np.full((geometry.source[axis], geometry.kernel[axis]), -1)
    for i in range(geometry.kernel[axis]):
        out, cell = geometry.taps(axis, i)
        out_of[cell, i] = out
    patterns, which = np.unique(out_of >= 0, axis=0, return_inverse=True)
    for k, pattern in enumerate(patterns):
        if pattern.any():
            position, cell = np.nonzero(pattern)[0], np.nonzero(which.ravel() == k)[0]
            yield _Cells(cell, position, out_of[cell][:, position])


def _of_convolution(weight: NDArray[Any], g: Geometry) -> Iterator[tuple[Any, Any, Any]]:
    per_in, per_out = g.source[2] // g.groups, g.target[2] // g.groups
    across = list(_alike(g, 1))
    for down in _alike(g, 0):
        for along in across:
            # Cells that the same kernel positions read have the same synapses, moved.
            kernel = weight[down.position][:, along.position]
            kernel = kernel.reshape(*kernel.shape[:2], per_in, g.groups, per_out)
            kernel = kernel.transpose(3, 2, 0, 1, 4)
            group, c_in, a, b, c_out = np.nonzero(kernel)
            if not group.size:
                continue
            values = kernel[group, c_in, a, b, c_out].astype(np.float64)
            i = (group * per_in + c_in).astype(np.int32)
            rows, columns = down.out[0] - down.out[0, 0], along.out[0] - along.out[0, 0]
            place = rows[a] * g.target[1] + columns[b]
            j = (place * g.target[2] + group * per_out + c_out).astype(np.int32)
            in_place = down.cell[:, None] * g.source[1] + along.cell
            out_place = down.out[:, :1] * g.target[1] + along.out[:, 0]
            first_in = (in_place * g.source[2]).astype(np.int32).ravel()
            first_out = (out_place * g.target[2]).astype(np.int32).ravel()
            n = max(1, BLOCK // i.size)
            for start in range(0, first_in.size, n):
                source = first_in[start : start + n, None] + i
                target = first_out[start : start + n, None] + j
                yield (
                    source.ravel(),
                    target.ravel(),
                    np.broadcast_to(values, source.shape).ravel(),
                )
