"""The plain integer oracle: one sample, one step, one synapse list at a time. Slow and obvious."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from whetsim.network import SpikingNetwork

__all__ = ["oracle_spikes"]


def oracle_spikes(
    network: SpikingNetwork, values: NDArray[np.integer]
) -> dict[str, list[tuple[int, int, int]]]:
    """Run each sample through all steps with a literal clock.

    Parameters
    ----------
    network : SpikingNetwork
    values : integer array (n_samples, n_input_neurons)
        Value of each input event; 0 is none.

    Returns
    -------
    dict
        Population to a sorted list of ``(sample, step, neuron)``; steps count from the step in
        which the sample was presented.
    """
    synapses = {
        id(p): [
            (int(s), int(t), int(w))
            for block in p.connectivity.synapses()
            for s, t, w in zip(*block, strict=True)
        ]
        for p in network.projections
    }
    spikes: dict[str, list[tuple[int, int, int]]] = {p.name: [] for p in network.populations}
    for sample, row in enumerate(values):
        # What each population sent in each step: neuron to value.
        sent: dict[tuple[str, int], dict[int, int]] = {
            (network.input.name, 0): {i: int(v) for i, v in enumerate(row) if v}
        }
        for step in range(1, network.depth + 1):
            for population in network.populations:
                v = [0] * population.size
                for projection in network.projections:
                    if projection.target == population.name:
                        arriving = sent.get((projection.source, step - projection.delay), {})
                        for source, target, weight in synapses[id(projection)]:
                            v[target] += weight * arriving.get(source, 0)
                if step == population.depth:
                    for neuron in range(population.size):
                        total = v[neuron] + int(population.bias[neuron])
                        if total >= 2 ** (int(population.exponent[neuron]) - 1):
                            sent.setdefault((population.name, step), {})[neuron] = 1
                            spikes[population.name].append((sample, step, neuron))
    return spikes


def oracle_rasters(
    network: SpikingNetwork, values: NDArray[np.integer]
) -> dict[str, NDArray[np.bool_]]:
    """Return the oracle's spikes as rasters, bool ``(n_samples, n_neurons)``."""
    result = {}
    for name, spikes in oracle_spikes(network, values).items():
        raster = np.zeros((len(values), network[name].size), dtype=bool)
        for sample, _, neuron in spikes:
            raster[sample, neuron] = True
        result[name] = raster
    return result
