"""Where cores lie: tiles of one mesh, chip beside chip in a square."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whetsim_hardware.chip import Chip

__all__ = ["Mesh", "mesh_of"]

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Mesh:
    """The tiles of enough chips.

    Parameters
    ----------
    columns, rows : int
        Tiles of one chip.
    cores_per_tile, cores_per_chip : int
    n_chips : int
    routed : bool
        Whether hops between its tiles mean anything: the chip has a mesh, or its chips form one.
    """

    columns: int
    rows: int
    cores_per_tile: int
    cores_per_chip: int
    n_chips: int
    routed: bool

    def positions(self, n_cores: int) -> Integers:
        """Return chip, x, y of cores 0..n-1, int64 (n_cores, 3).

        Chips fill one after the other, their tiles row by row, every other row backwards, so that
        cores with near numbers are neighbours.
        """
        core = np.arange(n_cores)
        chip, within = np.divmod(core, self.cores_per_chip)
        y, x = np.divmod(within // self.cores_per_tile, self.columns)
        x = np.where(y % 2 == 1, self.columns - 1 - x, x)
        across = math.isqrt(max(self.n_chips - 1, 0)) + 1
        down, beside = np.divmod(chip, across)
        return np.stack([chip, beside * self.columns + x, down * self.rows + y], axis=1)


def mesh_of(chip: Chip, n_cores: int) -> Mesh:
    """Return the mesh of as many chips as `n_cores` cores take."""
    per_chip = chip.limit("cores") or 1
    n_chips = -(-n_cores // per_chip)
    per_tile = chip.limit("cores_per_tile")
    columns, rows = chip.limit("tile_columns"), chip.limit("tile_rows")
    if columns is None or rows is None or per_tile is None:
        routed = per_tile is not None and per_tile >= per_chip
        return Mesh(1, 1, per_chip, per_chip, n_chips, routed)
    # Chips of one core are joined by their host, not by routers.
    return Mesh(columns, rows, per_tile, per_chip, n_chips, per_chip > 1)


def distances(positions: Integers) -> Integers:
    """Return hops between all pairs of places, first along x, then along y; int64 (n, n)."""
    x, y = positions[:, 1], positions[:, 2]
    return np.asarray(np.abs(x[:, None] - x) + np.abs(y[:, None] - y))
