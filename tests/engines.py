"""Engines for tests that need one to meddle with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from whetsim.backend import Simulation
from whetsim.sums import NetworkSums


class SumsSimulation(Simulation):
    """Right, and simple: every raster from plain matrix products."""

    def rasters(self, values: NDArray[np.int32]) -> dict[str, NDArray[np.bool_]]:
        sums = NetworkSums(self.network).of(values)
        return {p.name: sums[p.name] >= p.threshold for p in self.network.populations}
