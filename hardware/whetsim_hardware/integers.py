"""The smallest integers with which a population decides the same: what a chip would have to hold.

On the grid, neuron i fires iff ``sum(W s) + B >= 2^(k-1)``. Dividing by the greatest common divisor
g of its weights changes no decision: it fires iff ``sum(W/g s) >= ceil((2^(k-1) - B) / g)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from whetsim.connectivity import Connectivity, Convolution, Dense, Listed, narrow
from whetsim.network import SpikingNetwork

__all__ = ["IntegerRule", "integer_rule"]

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class IntegerRule:
    """How one population decides, in the smallest whole numbers.

    Neuron i fires iff the sum of ``weight * spike`` over all projections is at least
    ``threshold[i]``.

    Parameters
    ----------
    threshold : int64 array (n_neurons,)
        May be 0 or negative: such a neuron fires without input.
    weights : tuple of (str, Connectivity)
        Source population (or ``"input"``) and divided weights, a pair for each projection, in the
        order of ``network.into(name)``.
    """

    threshold: Integers
    weights: tuple[tuple[str, Connectivity], ...]

    @property
    def largest_weight(self) -> int:
        """Largest absolute weight; 0 without synapses."""
        return max((int(np.abs(c.weight).max(initial=0)) for _, c in self.weights), default=0)


def integer_rule(network: SpikingNetwork, name: str) -> IntegerRule:
    """Return how population `name` decides, with each neuron's common divisor taken out.

    Neurons that share the weights of a convolution share the divisor.
    """
    population = network[name]
    projections = list(network.into(name))
    divisor = np.zeros(population.size, dtype=np.int64)
    for projection in projections:
        divisor = np.gcd(divisor, _divisors(projection.connectivity))
    if any(isinstance(p.connectivity, Convolution) for p in projections):
        channels = divisor.reshape(-1, population.shape[-1])
        divisor = np.tile(np.gcd.reduce(channels, axis=0), len(channels))
    divisor[divisor == 0] = 1
    weights = tuple((p.source, _divided(p.connectivity, divisor)) for p in projections)
    threshold: Integers = -((population.bias - population.threshold) // divisor)
    return IntegerRule(threshold, weights)


def _divisors(connectivity: Connectivity) -> Integers:
    """Return the greatest common divisor of the weights onto each target; 0 without any."""
    weight = connectivity.weight.astype(np.int64)
    if isinstance(connectivity, Convolution):
        height, width, _ = connectivity.geometry.target
        return np.tile(np.gcd.reduce(weight, axis=(0, 1, 2)), height * width)
    if isinstance(connectivity, Dense):
        return np.asarray(np.gcd.reduce(weight, axis=0), dtype=np.int64)
    assert isinstance(connectivity, Listed)
    result = np.zeros(connectivity.n_targets, dtype=np.int64)
    np.gcd.at(result, connectivity.target, weight)
    return result


def _divided(connectivity: Connectivity, divisor: Integers) -> Connectivity:
    """Return the connectivity with the weights onto each target divided by its divisor."""
    weight = connectivity.weight.astype(np.int64)
    if isinstance(connectivity, Convolution):
        of_each = divisor[: connectivity.geometry.target[2]]
        return replace(connectivity, weight=narrow(weight // of_each))
    if isinstance(connectivity, Dense):
        return Dense(narrow(weight // divisor))
    assert isinstance(connectivity, Listed)
    return replace(connectivity, weight=narrow(weight // divisor[connectivity.target]))
