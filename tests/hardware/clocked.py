"""A literal clock for slow oracles of chips: one step, one neuron, one arriving spike at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from whetsim.connectivity import Connectivity, Dense
from whetsim.model import INPUT, InputSpec
from whetsim.network import InputPopulation, Population, Projection, SpikingNetwork
from whetsim_hardware.emulate.common import ChipRule, chip_rule

Effects = dict[str, dict[str, list[int]]]


class Neuron(Protocol):
    """A neuron of an oracle; keeps its own state."""

    def step(self, arriving: list[int]) -> tuple[bool, set[str]]:
        """Take the weights of the spikes that arrive; return whether it fires, what happened."""
        ...


def run_pipelined(
    network: SpikingNetwork,
    values: NDArray[Any],
    neurons: Mapping[str, list[Neuron]],
    weights: Mapping[str, Callable[[str, int, int], int]],
) -> tuple[dict[str, NDArray[np.bool_]], Effects]:
    """Present a sample in every step and return what every population decided of each.

    Parameters
    ----------
    neurons : mapping
        Oracle neurons of each population.
    weights : mapping
        For each population a function that turns source, source neuron and weight into what a
        spike delivers.

    Returns
    -------
    rasters, effects
        Bool ``(n_samples, n_neurons)`` for each population; how often what happened to whom.
    """
    n_samples = len(values)
    fired: dict[tuple[str, int], set[int]] = {
        (INPUT, i): set(np.flatnonzero(row).tolist()) for i, row in enumerate(values)
    }
    rasters = {p.name: np.zeros((n_samples, p.size), bool) for p in network.populations}
    effects: dict[str, dict[str, Counter[int]]] = {}
    synapses = {
        id(p): [
            (s, t, weights[p.target](p.source, s, w))
            for block in p.connectivity.synapses()
            for s, t, w in zip(*(part.tolist() for part in block), strict=True)
        ]
        for p in network.projections
    }
    for step in range(n_samples + network.depth):
        for population in network.populations:
            arriving: list[list[int]] = [[] for _ in range(population.size)]
            for projection in network.into(population.name):
                spikes = fired.get((projection.source, step - projection.delay), set())
                for source, target, delivered in synapses[id(projection)]:
                    if source in spikes:
                        arriving[target].append(delivered)
            sample = step - population.depth
            for j, neuron in enumerate(neurons[population.name]):
                fires, happened = neuron.step(arriving[j])
                if fires:
                    fired.setdefault((population.name, step), set()).add(j)
                if 0 <= sample < n_samples:
                    rasters[population.name][sample, j] = fires
                    for effect in happened:
                        counts = effects.setdefault(effect, {}).setdefault(
                            population.name, Counter()
                        )
                        counts[j] += 1
    return rasters, _listed(network, effects)


def _listed(network: SpikingNetwork, effects: Mapping[str, Mapping[str, Counter[int]]]) -> Effects:
    return {
        effect: {
            name: [counts[j] for j in range(network[name].size)]
            for name, counts in populations.items()
        }
        for effect, populations in effects.items()
    }


Layer = tuple[Mapping[str, Any], Any]


def integer_network(n_inputs: int, layers: Mapping[str, Layer]) -> SpikingNetwork:
    """Return a network of whole numbers.

    Parameters
    ----------
    layers : mapping of str to (mapping of str to array or Connectivity, array)
        Population to its weights from each source, ``(n_sources, n_targets)``, and its thresholds.
    """
    depth = {INPUT: 0}
    populations, projections = [], []
    for name, (weights, thresholds) in layers.items():
        threshold = np.asarray(thresholds, dtype=np.int64)
        depth[name] = 1 + max((depth[s] for s in weights), default=0)
        reach = np.abs(threshold)
        for source, weight in weights.items():
            connectivity = weight if isinstance(weight, Connectivity) else Dense(np.asarray(weight))
            projections.append(Projection(source, name, connectivity, depth[name] - depth[source]))
            reach = reach + connectivity.absolute_sums()
        exponent = int(reach.max()).bit_length() + 2
        bias = 2 ** (exponent - 1) - threshold
        populations.append(
            Population(name, threshold.shape, depth[name], bias, np.full(len(threshold), exponent))
        )
    populations.sort(key=lambda p: p.depth)
    spec = InputSpec((n_inputs,), 0, 1)
    return SpikingNetwork(
        "whole numbers",
        InputPopulation((n_inputs,), 0, 1, "graded", spec),
        tuple(populations),
        tuple(projections),
        populations[-1].name,
    )


def random_network(
    rng: np.random.Generator,
    largest: int,
    *,
    sizes: tuple[int, ...] = (12, 7, 5, 6),
    furthest: int = 10**6,
) -> SpikingNetwork:
    """Return three layers and a skip, weights up to `largest`, thresholds where sums often are.

    Thresholds are at most `furthest` from 0. Each neuron has a weight of 1, so that no divisor
    makes it smaller.
    """

    def weight(n_in: int, n_out: int) -> NDArray[np.int64]:
        drawn = rng.integers(-largest, largest + 1, (n_in, n_out))
        drawn = np.where(rng.random(drawn.shape) < 0.8, drawn, 0)
        drawn[0] = 1
        return drawn

    def threshold(*weights: NDArray[np.int64]) -> NDArray[np.int64]:
        every = np.concatenate(weights)
        sums = (rng.random((1, len(every))) < 0.5) @ every
        return np.clip(sums[0] + rng.integers(-1, 2, every.shape[1]), -furthest, furthest)

    a = weight(sizes[0], sizes[1])
    b = weight(sizes[1], sizes[2])
    c, skip = weight(sizes[2], sizes[3]), weight(sizes[1], sizes[3])
    return integer_network(
        sizes[0],
        {
            "a": ({INPUT: a}, threshold(a)),
            "b": ({"a": b}, threshold(b)),
            "c": ({"b": c, "a": skip}, threshold(c, skip)),
        },
    )


def check_against(
    simulation: Any,
    samples: NDArray[Any],
    rasters: Mapping[str, NDArray[np.bool_]],
    effects: Effects,
) -> None:
    """Check that a simulation gives these spikes and effects, neuron by neuron."""
    recording = simulation.run(samples, record="rasters")
    for name, raster in rasters.items():
        assert np.array_equal(recording.raster(name), raster), name
    found = {
        (effect, name): counts.tolist()
        for effect, populations in simulation.effects.counts.items()
        for name, counts in populations.items()
        if counts.any()
    }
    expected = {(e, n): c for e, populations in effects.items() for n, c in populations.items()}
    assert found == expected


def in_smallest_integers(network: SpikingNetwork) -> tuple[SpikingNetwork, dict[str, ChipRule]]:
    """Return the network with divided weights, for its synapses alone, and the rules."""
    rules = {p.name: chip_rule(network, p.name) for p in network.populations}
    projections = tuple(
        replace(projection, connectivity=connectivity)
        for name, rule in rules.items()
        for projection, (_, connectivity) in zip(network.into(name), rule.weights, strict=True)
    )
    return replace(network, projections=projections), rules
