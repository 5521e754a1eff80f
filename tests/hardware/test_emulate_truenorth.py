"""The TrueNorth emulator equals its oracle, crossbar line by crossbar line."""

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
from tests.hardware.oracles_truenorth import MEMBRANE_MAX, MEMBRANE_MIN, Neuron, lines_for
from whetsim.errors import UnsupportedError
from whetsim.model import INPUT
from whetsim.network import SpikingNetwork
from whetsim.registry import get_backend
from whetsim_hardware.axon_values import values_of
from whetsim_hardware.emulate.truenorth import Neurons


def check(network: SpikingNetwork, samples: np.ndarray) -> set[int]:
    """Check the emulator against the oracle; return how many types the populations use."""
    divided, rules = in_smallest_integers(network)
    used = set()
    for rule in rules.values():
        values = values_of(rule, 4)
        assert values is not None
        used.add(values.n_types)
        for _, connectivity in rule.weights:
            for block in connectivity.synapses():
                for _, target, weight in zip(*(part.tolist() for part in block), strict=True):
                    of_types = values.values[target].tolist()
                    assert all(-256 <= value <= 255 for value in of_types)
                    lines = lines_for(weight, of_types)
                    assert sum(of_types[t] for t in lines) == weight
    neurons = {name: [Neuron(leak=-int(t)) for t in rule.threshold] for name, rule in rules.items()}
    weights = {name: lambda source, i, weight: weight for name in rules}
    rasters, effects = run_pipelined(divided, samples, neurons, weights)
    with get_backend("truenorth").prepare(network) as simulation:
        check_against(simulation, samples, rasters, effects)
        assert simulation.effects is not None and not simulation.effects.total()
    return used


@pytest.mark.parametrize(("largest", "types"), [(1, {1, 2}), (3, {3}), (7, {4})])
def test_networks_equal_the_oracle(largest: int, types: set[int]) -> None:
    used = set()
    for seed in range(10):
        rng = np.random.default_rng([seed, largest])
        network = random_network(rng, largest)
        used |= check(network, rng.integers(0, 2, (9, network.input.size)))
    assert used <= types | {max(types) - 1} and max(types) in used


def test_any_four_weights_are_a_neurons_own() -> None:
    rng = np.random.default_rng(1)
    weight = rng.choice([-256, -3, 1, 255], (40, 6))
    weight[:, 3] = rng.integers(-8, 8, 40)
    threshold = weight.sum(axis=0) // 2
    network = integer_network(40, {"a": ({INPUT: weight}, threshold)})
    assert check(network, rng.integers(0, 2, (20, 40))) == {4}


def test_too_many_weights_or_lines_are_refused() -> None:
    backend = get_backend("truenorth")
    five = integer_network(5, {"a": ({INPUT: [[1], [2], [3], [4], [9]]}, [5])})
    with pytest.raises(
        UnsupportedError, match=r"'a'.*more than 4, not all in -8\.\.7.*4 axon types"
    ):
        backend.prepare(five)
    # 64 sources with four lines each fill the 256 lines of a core; one more does not fit.
    column = np.tile([[1], [2], [3], [-5]], (16, 1))
    backend.prepare(integer_network(64, {"a": ({INPUT: column}, [5])})).close()
    more = integer_network(65, {"a": ({INPUT: [*column.tolist(), [1]]}, [5])})
    with pytest.raises(UnsupportedError, match=r"needs 260 axon lines; the chip has 256"):
        backend.prepare(more)


def test_every_register_equals_the_oracle() -> None:
    """Random leaks and thresholds over 60 ticks; membranes carry over, and saturate both ways."""
    rng = np.random.default_rng(2)
    n, ticks = 300, 60
    registers = {
        "leak": rng.choice([0, 7, -7, 60_000, -60_000], n),
        "alpha": rng.choice([0, 50, MEMBRANE_MAX + 1], n),
        "beta": rng.choice([0, 300, -MEMBRANE_MIN], n),
        "reset": rng.choice([0, -5, 5], n),
    }
    neurons = Neurons(**registers)
    oracles = [Neuron(**{key: int(r[j]) for key, r in registers.items()}) for j in range(n)]
    v, happened, fired_at_all = np.zeros(n, np.int64), set(), False
    for _ in range(ticks):
        arriving = rng.integers(-256, 256, n)
        v, fired, saturated = neurons.tick(v, arriving)
        for j, oracle in enumerate(oracles):
            fires, what = oracle.step([int(arriving[j])])
            assert (fires, oracle.v, bool(what)) == (fired[j], v[j], saturated[j])
            happened |= {np.sign(registers["leak"][j])} if what else set()
        fired_at_all |= bool(fired.any())
    assert happened == {-1, 1} and fired_at_all
