"""Sums of a network by plain matrix products: slow, obvious, and what margins are made of.

Every sum is a whole number below 2^53, which double precision holds exactly whatever the order of
addition. So a matrix product in float64 is integer arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.connectivity import Connectivity, Convolution, Listed
from whetsim.network import Population, SpikingNetwork

__all__ = ["NetworkSums", "operand_of", "propagate"]

Floats = NDArray[np.float64]
CHUNK_VALUES = 2**22
"""Largest intermediate array of a convolution, in values; 32 MiB."""


Decide = Callable[[Population, Floats], NDArray[np.bool_]]


def _reached(population: Population, sums: Floats) -> NDArray[np.bool_]:
    return sums >= population.threshold


class NetworkSums:
    """Computes what every neuron of a network adds up."""

    def __init__(self, network: SpikingNetwork) -> None:
        self._network = network
        self._ready = [(p, operand_of(p.connectivity)) for p in network.projections]

    def of(self, values: NDArray[np.int32], decide: Decide = _reached) -> dict[str, Floats]:
        """Return ``sum(W s) + B`` of every neuron, ``(n_samples, n_neurons)``, whole numbers.

        `decide` says which neurons of a population fire for such sums.
        """
        spikes: dict[str, Floats] = {self._network.input.name: values.astype(np.float64)}
        sums: dict[str, Floats] = {}
        for population in self._network.populations:
            total = np.tile(population.bias.astype(np.float64), (len(values), 1))
            for projection, operand in self._ready:
                if projection.target == population.name:
                    total += propagate(projection.connectivity, operand, spikes[projection.source])
            sums[population.name] = total
            spikes[population.name] = decide(population, total).astype(np.float64)
        return sums


def operand_of(connectivity: Connectivity, dtype: Any = np.float64) -> Any:
    """Return the weights in the form and type in which `propagate` multiplies with them."""
    if isinstance(connectivity, Listed):
        from scipy import sparse

        shape = (connectivity.n_sources, connectivity.n_targets)
        parts = (connectivity.weight.astype(dtype), connectivity.target, connectivity.start)
        return sparse.csr_array(parts, shape=shape)
    return connectivity.weight.astype(dtype)


def propagate(connectivity: Connectivity, weight: Any, spikes: NDArray[Any]) -> NDArray[Any]:
    """Return what arrives at every target, ``(n_samples, n_targets)``.

    `spikes` has the type of the operand `weight`; sums are exact while that type holds them.
    """
    if isinstance(connectivity, Convolution):
        return _convolve(connectivity, weight, spikes)
    result: NDArray[Any] = spikes @ weight
    return result


def _convolve(convolution: Convolution, weight: NDArray[Any], spikes: NDArray[Any]) -> NDArray[Any]:
    g = convolution.geometry
    kh, kw, per_in, n_out = weight.shape
    per_out = n_out // g.groups
    result = np.zeros((len(spikes), *g.target), spikes.dtype)
    step = max(1, CHUNK_VALUES // max(1, g.target[0] * g.target[1] * kh * kw * g.source[2]))
    # (group, kernel position and input channel, output channel of the group)
    kernel = weight.reshape(kh * kw * per_in, g.groups, per_out).transpose(1, 0, 2)
    for start in range(0, len(spikes), step):
        maps = spikes[start : start + step].reshape(-1, *g.source)
        patches = np.zeros((len(maps), *g.target[:2], kh * kw, g.groups, per_in), maps.dtype)
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
