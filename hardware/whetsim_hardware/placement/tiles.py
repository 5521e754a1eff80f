"""How a population is cut into blocks: rectangles of places and channels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from whetsim.connectivity import Convolution
from whetsim.network import SpikingNetwork

__all__ = ["Tiling", "layout_of", "tile_lengths"]

Triple = tuple[int, int, int]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Tiling:
    """A population of `shape` cut into equal rectangles; those at the far ends may be smaller.

    Parameters
    ----------
    shape : (height, width, channels)
        Neurons count with the last axis fastest; a flat population is ``(1, 1, n)``.
    tile : (height, width, channels)
    """

    shape: Triple
    tile: Triple

    @cached_property
    def counts(self) -> Triple:
        """Number of blocks along each axis."""
        y, x, c = (-(-n // t) for n, t in zip(self.shape, self.tile, strict=True))
        return y, x, c

    @property
    def n_blocks(self) -> int:
        """Number of blocks; they count with the last axis fastest."""
        return math.prod(self.counts)

    def ranges(self, axis: int) -> Iterator[tuple[int, int]]:
        """Yield first and end of each tile along an axis."""
        size, step = self.shape[axis], self.tile[axis]
        return ((first, min(first + step, size)) for first in range(0, size, step))

    def corners(self, block: int) -> tuple[Triple, Triple]:
        """Return the first cell of a block and the one behind its last, along each axis."""
        place = np.unravel_index(block, self.counts)
        start = [int(p) * t for p, t in zip(place, self.tile, strict=True)]
        stop = [min(s + t, n) for s, t, n in zip(start, self.tile, self.shape, strict=True)]
        return (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])

    @cached_property
    def block_of(self) -> Integers:
        """Block of each neuron, int64 (n_neurons,)."""
        y, x, c = (np.arange(n) // t for n, t in zip(self.shape, self.tile, strict=True))
        _, nx, nc = self.counts
        blocks = (y[:, None, None] * nx + x[:, None]) * nc + c
        return np.asarray(blocks, dtype=np.int64).ravel()

    def total(self, values: Integers) -> Integers:
        """Return the sum of a value of each neuron over each block."""
        sums = np.bincount(self.block_of, weights=values, minlength=self.n_blocks)
        return np.rint(sums).astype(np.int64)

    def largest(self, values: Integers) -> Integers:
        """Return the largest value of the neurons of each block; values are not negative."""
        result = np.zeros(self.n_blocks, dtype=np.int64)
        np.maximum.at(result, self.block_of, values)
        return result

    def distinct(self, values: Integers) -> Integers:
        """Return how many different values the neurons of each block have."""
        _, code = np.unique(values, return_inverse=True)
        kinds = int(code.max(initial=0)) + 1
        pairs = np.unique(self.block_of * kinds + code)
        return np.bincount(pairs // kinds, minlength=self.n_blocks).astype(np.int64)


def layout_of(network: SpikingNetwork, name: str) -> Triple:
    """Return the shape in which a population (or the input) is cut.

    That of the convolution that feeds it, else its own shape where it is a map, else flat.
    """
    if name == network.input.name:
        shape = network.input.shape
    else:
        for projection in network.into(name):
            if isinstance(projection.connectivity, Convolution):
                return projection.connectivity.geometry.target
        shape = network[name].shape
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return 1, 1, math.prod(shape)


def tile_lengths(size: int) -> list[int]:
    """Return the lengths of tiles worth trying on an axis, longest first: one for each count."""
    counts = np.arange(1, size + 1)
    return [int(n) for n in np.unique(-(-size // counts))[::-1]]
