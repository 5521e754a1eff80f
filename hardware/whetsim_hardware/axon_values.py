"""How neurons make their weights where a weight is one bit and a value for the axon's type.

A source has a line of every type in use; a neuron's weight is the sum of its own values for the
types of the lines that it takes. Emulation and placement count lines by this alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whetsim.connectivity import Connectivity, Convolution, Listed
from whetsim_hardware.integers import IntegerRule

__all__ = ["Values", "values_of"]

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Values:
    """How the neurons of a population make their weights.

    Parameters
    ----------
    n_types : int
        Axon types in use: every source has a line of each.
    values : int64 array (n_neurons, n_types)
        What a spike on a line of each type is worth to each neuron.
    """

    n_types: int
    values: Integers


def values_of(rule: IntegerRule, most: int) -> Values | None:
    """Return values whose sums are the weights of every neuron; None with more than `most` types.

    A neuron takes its different weights themselves, if there are few enough, else two's
    complement: 1, 2, 4, ... and a negative last one.
    """
    different = []
    n_types = 1
    for weights in _different(rule):
        n_types = max(n_types, min(len(weights), _bits(weights)))
        if n_types > most:
            return None
        different.append(weights)
    values = np.zeros((len(different), n_types), dtype=np.int64)
    binary = np.left_shift(1, np.arange(n_types))
    binary[-1] *= -1
    for neuron, weights in enumerate(different):
        if len(weights) <= n_types:
            values[neuron, : len(weights)] = weights
        else:
            values[neuron] = binary
    repeats = len(rule.threshold) // max(1, len(different))
    return Values(n_types, np.tile(values, (repeats, 1)))


def _bits(weights: Integers) -> int:
    """Return how many bits two's complement of all weights takes."""
    return max((int(w if w >= 0 else ~w).bit_length() + 1 for w in weights), default=1)


def _different(rule: IntegerRule) -> Iterator[Integers]:
    """Yield the different weights onto each neuron.

    If convolutions alone feed the population, all places of a channel share their kernels: only
    the first of each channel is yielded.
    """
    connectivities = [c for _, c in rule.weights]
    n_neurons = len(rule.threshold)
    shared = [c for c in connectivities if isinstance(c, Convolution)]
    if shared and len(shared) == len(connectivities):
        n_neurons = shared[0].weight.shape[-1]
    by_source = [_by_target(c) for c in connectivities]
    for neuron in range(n_neurons):
        parts = [onto[neuron % len(onto)] for onto in by_source]
        found = np.concatenate([np.zeros(0, dtype=np.int64), *parts])
        yield np.unique(found[found != 0])


def _by_target(connectivity: Connectivity) -> list[Integers]:
    """Return the weights onto each target, or onto each channel of a convolution."""
    weight = connectivity.weight.astype(np.int64)
    if not isinstance(connectivity, Listed):
        return list(np.ascontiguousarray(weight.reshape(-1, weight.shape[-1]).T))
    order = np.argsort(connectivity.target, kind="stable")
    ends = np.searchsorted(connectivity.target[order], np.arange(1, connectivity.n_targets))
    return np.split(weight[order], ends)
