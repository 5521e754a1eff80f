"""The SpiNNaker emulator equals its oracle, spike by spike into two ring buffers."""

from __future__ import annotations

import numpy as np
import pytest

from tests.hardware.clocked import (
    check_against,
    in_smallest_integers,
    integer_network,
    random_network,
    run_pipelined,
)
from tests.hardware.oracles_spinnaker import Neuron
from whetsim.errors import UnsupportedError
from whetsim.model import INPUT
from whetsim.network import SpikingNetwork
from whetsim.registry import get_backend
from whetsim_hardware.emulate.spinnaker import Neurons, neurons_of


def check(network: SpikingNetwork, samples: np.ndarray) -> set[str]:
    """Check the emulator against the oracle; return what happened."""
    divided, rules = in_smallest_integers(network)
    neurons = {}
    for name, rule in rules.items():
        registers = neurons_of(rule)
        assert 0 <= registers.shift <= 15
        neurons[name] = [Neuron(int(t), registers.shift) for t in registers.threshold]
    weights = {name: lambda source, i, weight: weight for name in rules}
    rasters, effects = run_pipelined(divided, samples, neurons, weights)
    with get_backend("spinnaker").prepare(network) as simulation:
        check_against(simulation, samples, rasters, effects)
    return set(effects)


@pytest.mark.parametrize("largest", [5, 9000, 65_535])
def test_networks_equal_the_oracle(largest: int) -> None:
    happened = set()
    for seed in range(12):
        rng = np.random.default_rng([seed, largest])
        network = random_network(rng, largest, furthest=65_535)
        happened |= check(network, rng.integers(0, 2, (9, network.input.size)))
    assert happened == ({"ring buffer saturations"} if largest == 65_535 else set())


def test_the_model_without_leak_stops_at_its_reset() -> None:
    """Set back after each sample it decides alike, and what would be below 0 is counted."""
    rng = np.random.default_rng(1)
    weight = rng.integers(-9, 10, (20, 8))
    network = integer_network(20, {"a": ({INPUT: weight}, rng.integers(1, 20, 8))})
    samples = rng.integers(0, 2, (50, 20))
    sums = samples @ weight
    with get_backend("spinnaker").prepare(network, model="if_trunc") as simulation:
        recording = simulation.run(samples, record="rasters")
    assert np.array_equal(
        recording.raster("a"), sums >= in_smallest_integers(network)[1]["a"].threshold
    )
    assert simulation.effects is not None
    assert simulation.effects.counts["floors"]["a"].tolist() == (sums < 0).sum(axis=0).tolist()
    eager = integer_network(1, {"a": ({INPUT: [[1]]}, [0])})
    with pytest.raises(
        UnsupportedError, match=r"'a'.*fire without input.*threshold 0; .*1 or more"
    ):
        get_backend("spinnaker").prepare(eager, model="if_trunc")
    with pytest.raises(UnsupportedError, match=r"model is 'lfi'.*Did you mean 'lif'"):
        get_backend("spinnaker").prepare(network, model="lfi")


@pytest.mark.parametrize("model", ["lif", "if_trunc"])
def test_every_register_equals_the_oracle(model: str) -> None:
    """Random sums over 30 steps and every shift; buffers, membranes and floors are all met."""
    rng = np.random.default_rng(2)
    n, happened = 200, set()
    for shift in (0, 3, 15, 16):
        threshold = rng.integers(-(2**30), 2**31, n)
        neurons = Neurons(threshold, shift, model)
        oracles = [Neuron(int(t), shift, model) for t in threshold]
        v = np.zeros(n, np.int64)
        for _ in range(30):
            plus, minus = rng.integers(0, 90_000, (2, n)) * (rng.random((2, n)) < 0.6)
            v, fired, overflows = neurons.step(v, plus, minus)
            for j, oracle in enumerate(oracles):
                fires, what = oracle.step(halves(int(plus[j])) + halves(-int(minus[j])))
                assert (fires, oracle.v) == (fired[j], v[j])
                assert what == {e for e, who in overflows.items() if who[j]}
                happened |= what
    floors = {"floors"} if model == "if_trunc" else set()
    assert happened == {"ring buffer saturations", "membrane wraps"} | floors


def halves(total: int) -> list[int]:
    """Return two weights, or fewer, of a total."""
    return [w for w in (total // 2, total - total // 2) if w]
