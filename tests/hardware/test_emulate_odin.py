"""The ODIN emulator equals its oracle, event by event, in every order."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from tests.hardware.clocked import (
    check_against,
    in_smallest_integers,
    integer_network,
    random_network,
)
from tests.hardware.oracles_odin import events_of, run_sample
from whetsim.errors import UnsupportedError
from whetsim.model import INPUT
from whetsim.network import SpikingNetwork
from whetsim.registry import get_backend
from whetsim_hardware.emulate.odin import ORDERS, neurons_of


def check(network: SpikingNetwork, samples: np.ndarray, order: str) -> set[str]:
    """Check the emulator against the oracle; return what happened."""
    divided, rules = in_smallest_integers(network)
    rasters = {p.name: np.zeros((len(samples), p.size), bool) for p in network.populations}
    effects: dict[str, dict[str, Counter[int]]] = defaultdict(lambda: defaultdict(Counter))
    for sample, row in enumerate(samples):
        fired = {INPUT: np.flatnonzero(row).tolist()}
        for population in network.populations:
            registers = neurons_of(rules[population.name])
            synapses: dict[int, list[tuple[int, int]]] = defaultdict(list)
            active, base = [], 0
            for projection in divided.into(population.name):
                for block in projection.connectivity.synapses():
                    for s, t, w in zip(*(part.tolist() for part in block), strict=True):
                        synapses[base + s].append((t, w))
                active += [base + s for s in fired[projection.source]]
                base += projection.connectivity.n_sources
            offset, late = registers.offset.tolist(), registers.late.tolist()
            events = events_of(active, synapses, offset, late, order)
            firing, happened = run_sample(events, registers.threshold.tolist())
            fired[population.name] = sorted(firing)
            rasters[population.name][sample, sorted(firing)] = True
            for effect, counts in happened.items():
                effects[effect][population.name].update(counts)
    with get_backend("odin").prepare(network, order=order) as simulation:
        counted = {
            effect: {
                name: [counts[j] for j in range(network[name].size)]
                for name, counts in populations.items()
                if counts.total()
            }
            for effect, populations in effects.items()
        }
        check_against(simulation, samples, rasters, counted)
    return {effect for effect, populations in counted.items() if populations}


ALL = {"floors", "membrane saturations", "extra spikes"}


@pytest.mark.parametrize("order", ORDERS)
def test_networks_equal_the_oracle(order: str) -> None:
    happened = set()
    for seed in range(30):
        rng = np.random.default_rng([seed, 1])
        sizes = (180, 30, 12, 6) if seed % 7 == 6 else (60, 30, 12, 6)
        network = random_network(rng, 1 + seed % 7, sizes=sizes, furthest=100)
        samples = (rng.random((6, network.input.size)) < (0.5, 0.95)[seed % 2]).astype(np.int64)
        happened |= check(network, samples, order)
    assert happened == ALL


def test_inhibition_first_decides_as_a_sum_does() -> None:
    rng = np.random.default_rng(1)
    weight = rng.integers(-4, 5, (40, 20))
    threshold = rng.integers(-30, 60, 20)
    network = integer_network(40, {"a": ({INPUT: weight}, threshold)})
    samples = rng.integers(0, 2, (200, 40))
    expected = samples @ weight >= threshold
    wrong = {}
    for order in ORDERS:
        with get_backend("odin").prepare(network, order=order) as simulation:
            raster = simulation.run(samples, record="rasters").raster("a")
        assert simulation.effects is not None
        assert not simulation.effects.total("floors") or order != ORDERS[0]
        wrong[order] = np.count_nonzero(raster != expected)
    assert wrong[ORDERS[0]] == 0 < wrong["source"] < wrong["excitatory first"]


def test_a_membrane_without_room_stops_at_zero() -> None:
    """Threshold and inhibition exceed 255: the offset is too small, and a sum of 0 fires."""
    weight = [[-7]] * 40 + [[7]] * 40 + [[1]]
    network = integer_network(81, {"a": ({INPUT: weight}, [5])})
    samples = np.array([[1] * 35 + [0] * 5 + [1] * 35 + [0] * 6, [1] * 80 + [0]])
    assert check(network, samples, ORDERS[0]) == {"floors", "membrane saturations"}
    with get_backend("odin").prepare(network) as simulation:
        assert simulation.run(samples, record="rasters").raster("a").tolist() == [[False], [True]]


def test_bad_orders_are_refused() -> None:
    network = integer_network(1, {"a": ({INPUT: [[1]]}, [1])})
    with pytest.raises(UnsupportedError, match=r"order is 'sources'.*Did you mean 'source'"):
        get_backend("odin").prepare(network, order="sources")
