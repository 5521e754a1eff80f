"""The Loihi emulator equals its oracle: network by network, and register by register."""

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
from tests.hardware.oracles_loihi import Compartment, delivered
from whetsim.connectivity import Convolution, Geometry
from whetsim.model import INPUT
from whetsim.network import SpikingNetwork
from whetsim.registry import get_backend
from whetsim_hardware.emulate.common import mantissas, row_shifts
from whetsim_hardware.emulate.loihi import Compartments, compartments_of


def check(network: SpikingNetwork, samples: np.ndarray) -> set[str]:
    """Check the emulator against the oracle; return what happened."""
    divided, rules = in_smallest_integers(network)
    neurons, weights = {}, {}
    for name, rule in rules.items():
        registers = compartments_of(rule)
        neurons[name] = [
            Compartment(int(vth), int(bias))
            for vth, bias in zip(registers.vth, registers.bias, strict=True)
        ]
        shifts = {source: row_shifts(c) for source, c in rule.weights}
        channels = {
            source: c.geometry.source[2] for source, c in rule.weights if isinstance(c, Convolution)
        }

        def deliver(source, i, weight, shifts=shifts, channels=channels):
            shift = int(
                shifts[source][i % channels.get(source, i + 1) if source in channels else i]
            )
            register, rest = divmod(2 * weight, 2**shift)
            assert rest == 0 and -256 <= register <= 254
            return delivered(register, shift - 1)

        weights[name] = deliver
    rasters, effects = run_pipelined(divided, samples, neurons, weights)
    with get_backend("loihi").prepare(network) as simulation:
        check_against(simulation, samples, rasters, effects)
    return set(effects)


@pytest.mark.parametrize("shift", [0, 3, 8])
def test_networks_equal_the_oracle(shift: int) -> None:
    """Weights far enough to the left wrap in the accumulator."""
    happened = set()
    for seed in range(12):
        rng = np.random.default_rng([seed, shift])
        small = random_network(rng, 127)
        network = shifted(small, shift) if shift else small
        happened |= check(network, rng.integers(0, 2, (9, small.input.size)))
    assert happened == ({"accumulator wraps"} if shift == 8 else set())


def shifted(network: SpikingNetwork, shift: int) -> SpikingNetwork:
    """Return a network with all rows but the first shifted left."""
    layers = {}
    for p in network.populations:
        weights = {}
        for projection in network.into(p.name):
            weight = projection.connectivity.weight.copy()
            weight[1:] <<= shift
            weights[projection.source] = weight
        threshold = (p.threshold - p.bias) << (shift // 2)
        layers[p.name] = (weights, np.clip(threshold, -4000, 50_000))
    return integer_network(network.input.size, layers)


def test_a_convolution_has_a_shift_for_each_channel() -> None:
    rng = np.random.default_rng(3)
    geometry = Geometry((4, 4, 4), (2, 3, 6), (3, 2), (1, 1), groups=2)
    kernel = rng.integers(-100, 101, geometry.weight_shape)
    kernel[:, :, 1] *= 128
    kernel[0, 0, 0] = 1
    threshold = rng.integers(-50, 200, 36)
    network = integer_network(64, {"a": ({INPUT: Convolution(kernel, geometry)}, threshold)})
    check(network, rng.integers(0, 2, (6, 64)))


def test_thresholds_far_apart_have_few_values_of_vth() -> None:
    low = [-8188, -8187, -8001, -8000, -4094, -4093, -4092]
    threshold = np.array([*low, 0, 1, 4097, 4098, 12_288, 12_289, 20_480, 32_000, 45_052])
    # Powers of two either way, so that some sample ties with each threshold, or misses it by one.
    powers = [[2**i] for i in range(15)] * 2 + [[-(2**i)] for i in range(14)]
    network = integer_network(
        len(powers), {"a": ({INPUT: np.repeat(powers, len(threshold), axis=1)}, threshold)}
    )
    near = [t + d for t in threshold for d in (-1, 0)]
    samples = [
        [int(t) >> i & 1 if t < 2**15 else 1 for i in range(15)]
        + [(int(t) - 2**15 + 1) >> i & 1 if t >= 2**15 else 0 for i in range(15)]
        + [0] * 14
        if t >= 0
        else [0] * 30 + [-int(t) >> i & 1 for i in range(14)]
        for t in near
    ]
    sums = np.array(samples) @ np.array(powers)
    assert sums[:, 0].tolist() == [int(t) for t in near]
    assert check(network, np.array(samples)) <= {"accumulator wraps"}
    rule = in_smallest_integers(network)[1]["a"]
    registers = compartments_of(rule)
    assert len(np.unique(registers.vth)) <= 7
    mantissa, rest = np.divmod(registers.bias, 64)
    assert not rest.any() and np.abs(mantissa).max() == 8190
    assert (mantissa[np.abs(mantissa) > 4095] % 2 == 0).all()
    assert (registers.vth % 64 == 0).all() and registers.vth.min() == 64


def test_every_register_equals_the_oracle() -> None:
    """Random registers over 40 steps, current and membrane in every step; each branch is met."""
    rng = np.random.default_rng(5)
    n, steps = 600, 40
    registers = {
        "vth": 64 * rng.choice([1, 500, 131_071], n),
        "bias": rng.integers(-4095, 4096, n) << rng.choice([0, 7], n),
        "decay_u": rng.choice([0, 1, 100, 4094, 4095], n),
        "decay_v": rng.choice([0, 1, 2000, 4095, 4096], n),
        "refract": rng.choice([1, 2, 5], n),
    }
    arriving = 64 * rng.integers(-40_000, 40_001, (steps, n)) * (rng.random((steps, n)) < 0.7)
    happened = set()
    for vmin, vmax in ((-(2**23) + 1, 2**23 - 1), (0, 2**23 - 1), (-(2**12) + 1, 2**15 - 1)):
        cells = Compartments(**registers, vmin=vmin, vmax=vmax)
        oracles = [
            Compartment(vmin=vmin, vmax=vmax, **{key: int(r[j]) for key, r in registers.items()})
            for j in range(n)
        ]
        state = cells.start((n,))
        for q in arriving:
            state, fired, overflows = cells.step(state, q)
            for j, oracle in enumerate(oracles):
                fires, what = oracle.step([int(q[j])])
                assert (fires, oracle.u, oracle.v) == (fired[j], state.u[j], state.v[j])
                assert what - {"waits"} == {e for e, who in overflows.items() if who[j]}
                happened |= what
    assert happened == {"accumulator wraps", "current wraps", "membrane saturations", "waits"}


def test_mantissas_and_shifts_give_the_weights_back() -> None:
    network = integer_network(3, {"a": ({INPUT: [[64, -128], [3, 1], [0, 0]]}, [1, 1])})
    ((_, connectivity),) = in_smallest_integers(network)[1]["a"].weights
    shifts = row_shifts(connectivity)
    assert shifts.tolist() == [6, 0, 0]
    assert np.array_equal(mantissas(connectivity, shifts), [[1, -2], [3, 1], [0, 0]])
