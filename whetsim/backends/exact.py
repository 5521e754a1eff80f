"""Backend ``exact``: the network in integer arithmetic, layer by layer, many samples at once.

Every sum is a whole number below 2^53, which double precision holds exactly whatever the order of
addition. So a matrix product in float64 is integer arithmetic at the speed of BLAS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.backend import Backend, Capabilities, Schedule, Simulation
from whetsim.connectivity import Connectivity, Convolution, Dense, Listed
from whetsim.network import SpikingNetwork

__all__ = ["ExactBackend"]

Floats = NDArray[np.float64]
CHUNK_VALUES = 2**22
"""Largest intermediate array of a convolution, in values; 32 MiB."""


class ExactBackend(Backend):
    """Integer arithmetic; the definition of what all other backends must compute."""

    name = "exact"
    capabilities = Capabilities(kind="reference")

    def versions(self) -> Mapping[str, str]:
        from whetsim import __version__

        return {"whetsim": __version__, "numpy": np.__version__}

    def build(self, network: SpikingNetwork, schedule: Schedule, **options: Any) -> Simulation:
        return ExactSimulation(network, schedule)


class ExactSimulation(Simulation):
    """Layer after layer. Both schedules are one: no state passes from sample to sample."""

    block_values = 2**21

    def __init__(self, network: SpikingNetwork, schedule: Schedule) -> None:
        super().__init__(network, schedule)
        self._ready = [(p, _operand(p.connectivity)) for p in network.projections]

    def rasters(self, values: NDArray[np.int32]) -> dict[str, NDArray[np.bool_]]:
        sums = self.sums(values)
        return {p.name: sums[p.name] >= p.threshold for p in self.network.populations}

    def sums(self, values: NDArray[np.int32]) -> dict[str, Floats]:
        """Return ``sum(W s) + B`` of every neuron, ``(n_samples, n_neurons)``, whole numbers."""
        spikes: dict[str, Floats] = {self.network.input.name: values.astype(np.float64)}
        sums: dict[str, Floats] = {}
        for population in self.network.populations:
            total = np.tile(population.bias.astype(np.float64), (len(values), 1))
            for projection, operand in self._ready:
                if projection.target == population.name:
                    total += _propagate(projection.connectivity, operand, spikes[projection.source])
            sums[population.name] = total
            spikes[population.name] = (total >= population.threshold).astype(np.float64)
        return sums


def _operand(connectivity: Connectivity) -> Any:
    if isinstance(connectivity, Listed):
        from scipy import sparse

        shape = (connectivity.n_sources, connectivity.n_targets)
        parts = (connectivity.weight.astype(float), connectivity.target, connectivity.start)
        return sparse.csr_array(parts, shape=shape)
    return connectivity.weight.astype(np.float64)


def _propagate(connectivity: Connectivity, weight: Any, spikes: Floats) -> Floats:
    if isinstance(connectivity, Convolution):
        return _convolve(connectivity, weight, spikes)
    assert isinstance(connectivity, (Dense, Listed))
    result: Floats = spikes @ weight
    return result


def _convolve(convolution: Convolution, weight: Floats, spikes: Floats) -> Floats:
    g = convolution.geometry
    kh, kw, per_in, n_out = weight.shape
    per_out = n_out // g.groups
    result = np.zeros((len(spikes), *g.target))
    step = max(1, CHUNK_VALUES // max(1, g.target[0] * g.target[1] * kh * kw * g.source[2]))
    # (group, kernel position and input channel, output channel of the group)
    kernel = weight.reshape(kh * kw * per_in, g.groups, per_out).transpose(1, 0, 2)
    for start in range(0, len(spikes), step):
        maps = spikes[start : start + step].reshape(-1, *g.source)
        patches = np.zeros((len(maps), *g.target[:2], kh * kw, g.groups, per_in))
        for i, j, out_y, out_x, in_y, in_x in g.positions():
            seen = maps[:, in_y[:, None], in_x].reshape(
                len(maps), len(in_y), len(in_x), g.groups, per_in
            )
            patches[:, out_y[:, None], out_x, i * kw + j] = seen
        for group in range(g.groups):
            rows = patches[:, :, :, :, group].reshape(-1, kh * kw * per_in)
            part = rows @ kernel[group]
            columns = slice(group * per_out, (group + 1) * per_out)
            result[start : start + step, :, :, columns] = part.reshape(
                len(maps), *g.target[:2], per_out
            )
    return result.reshape(len(spikes), convolution.n_targets)
