"""`margins`: how close decisions are to the threshold, before anything is put on hardware."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.coding import encode_samples, to_integers
from whetsim.network import SpikingNetwork
from whetsim.sums import NetworkSums

__all__ = ["EDGES", "Margins", "margins"]

EDGES: NDArray[np.float64] = np.concatenate([[0.0], 10.0 ** np.arange(-9, 3), [np.inf]])
"""Edges of the histogram bins: 0, then decades from 1e-9 to 100."""

BLOCK_VALUES = 2**22


@dataclass(frozen=True, eq=False)
class Margins:
    """Distances ``|v - 0.5|`` of all decisions of a network on some samples.

    Parameters
    ----------
    n_samples : int
    smallest : mapping
        Population to its smallest margin; inf if there are no samples.
    histogram : mapping
        Population to int64 counts ``(len(EDGES) - 1,)``.
    """

    n_samples: int
    smallest: Mapping[str, float]
    histogram: Mapping[str, NDArray[np.int64]]

    def share_below(self, name: str, margin: float) -> float:
        """Return the share of decisions of a population in bins that end at or below `margin`."""
        counts = self.histogram[name]
        inside = EDGES[1:] <= margin * (1 + 1e-12)
        return float(counts[inside].sum() / max(int(counts.sum()), 1))


def margins(network: SpikingNetwork, samples: ArrayLike) -> Margins:
    """Return how far all sums stay from the threshold, exactly.

    Parameters
    ----------
    network : SpikingNetwork
    samples : integer array (n_samples, ...)

    Returns
    -------
    Margins

    Raises
    ------
    SampleError
        If the samples do not fit the network.
    """
    integers = to_integers(samples, network.input)
    sums_of_network = NetworkSums(network)
    smallest = {p.name: np.inf for p in network.populations}
    histogram = {p.name: np.zeros(len(EDGES) - 1, dtype=np.int64) for p in network.populations}
    size = max(1, BLOCK_VALUES // max(1, network.n_neurons))
    for start in range(0, len(integers), size):
        values = encode_samples(integers[start : start + size], network.input)
        for name, sums in sums_of_network.of(values).items():
            exponent = network[name].exponent.astype(np.int32)
            margin = np.abs(np.ldexp(sums, -exponent) - 0.5)
            smallest[name] = min(smallest[name], float(margin.min(initial=np.inf)))
            histogram[name] += np.histogram(margin, EDGES)[0]
    return Margins(len(integers), smallest, histogram)
