"""Backend ``loihi``: the integer arithmetic of Loihi 1, bit by bit.

A neuron is one compartment that forgets its current and its membrane with every step, so that a
new sample may enter every step. All weights that arrive are multiples of 64; in units of 64, a
weight is ``mantissa * 2^shift``, one shift for each synapse format. The chip fires above its
threshold, not at it. So one threshold serves a whole population, and each neuron's own bias puts
the membrane above it exactly where the sum reaches the neuron's threshold.

References
----------
Arithmetic and widths: the emulator and builder of nengo-loihi 1.1.0; numbers in ``loihi.toml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from whetsim.arithmetic import IntegerFormat
from whetsim.backend import Capabilities, Schedule, Simulation
from whetsim.network import SpikingNetwork
from whetsim_hardware.chip import Chip, load_chip
from whetsim_hardware.emulate.common import (
    ChipBackend,
    ChipRule,
    Effects,
    EmulatedLayer,
    EmulatedSimulation,
    Raster,
    count,
)

__all__ = ["Compartments", "LoihiBackend", "State", "compartments_of", "unit"]

Integers = NDArray[np.int64]
CHIP = load_chip("loihi")
WRAPS, CURRENT_WRAPS = "accumulator wraps", "current wraps"
SATURATIONS = "membrane saturations"


def unit(chip: Chip = CHIP) -> int:
    """Return what a weight of 1 in the mantissa's lowest bit delivers, 64."""
    return 1 << int(chip.rule("weight_shift"))


def _numbers(chip: Chip) -> IntegerFormat:
    # A register of mixed sign is even, so a mantissa is half of it, and the exponent one higher.
    step = int(chip.rule("weight_step"))
    room = 1 << (int(chip.rule("accumulator_bits")) - int(chip.rule("weight_shift")))
    reach, few = int(chip.rule("bias_max")), chip.limit("thresholds_per_core") or 1
    return IntegerFormat(
        weight_min=int(chip.rule("weight_min")) // step,
        weight_max=int(chip.rule("weight_max")) // step,
        weight_shift=int(chip.rule("weight_exponent_max")) + 1,
        threshold_min=2 - 2 * reach,
        # Two values of vth serve all thresholds below, each of the others a band above.
        threshold_max=2 + reach + (few - 2) * (2 * reach + 1),
        positive_sum=room - 1,
        negative_sum=room,
    )


@dataclass(frozen=True, eq=False)
class Compartments:
    """Registers of compartments of one core; every array has a value for each or one for all.

    Parameters
    ----------
    decay_u, decay_v : int64 array
        Of 4096 parts of the current ``decay_u + 1`` are lost each step, of the membrane `decay_v`.
    vth, bias : int64 array
    vmin, vmax : int
    refract : int64 array
        1: no step without spikes after one.
    """

    vth: Integers
    bias: Integers
    decay_u: Any = 4095
    decay_v: Any = 4096
    vmin: int = int(CHIP.rule("membrane_min"))
    vmax: int = int(CHIP.rule("membrane_max"))
    refract: Any = 1

    def start(self, shape: tuple[int, ...]) -> State:
        """Return the state without any charge."""
        zero = np.zeros(shape, dtype=np.int64)
        return State(zero, zero, zero)

    def step(self, state: State, arriving: Integers) -> tuple[State, Raster, dict[str, Raster]]:
        """Return the state after one step, which compartments fired, and what overflowed.

        `arriving` is the sum of the delivered weights; all arrays have the state's shape.
        """
        scale = int(CHIP.rule("decay_bits"))
        bits, wide = int(CHIP.rule("accumulator_bits")), int(CHIP.rule("current_bits"))
        q = _wrap(arriving, bits)
        kept_u = _decay(state.u, (1 << scale) - 1 - np.asarray(self.decay_u), scale)
        u = _wrap(kept_u + q, wide)
        driven = _wrap(u + self.bias, wide)
        free = _decay(state.v, (1 << scale) - np.asarray(self.decay_v), scale) + driven
        v = np.clip(free, self.vmin, self.vmax)
        overflows = {
            WRAPS: q != arriving,
            CURRENT_WRAPS: (u != kept_u + q) | (driven != u + self.bias),
            SATURATIONS: v != free,
        }
        v = np.where(state.waiting > 0, 0, v)
        fired = v > self.vth
        waiting = np.where(fired, self.refract, state.waiting)
        return State(u, np.where(fired, 0, v), np.maximum(waiting - 1, 0)), fired, overflows


@dataclass(frozen=True, eq=False)
class State:
    """Current, membrane and refractory steps left of compartments."""

    u: Integers
    v: Integers
    waiting: Integers


def _wrap(x: Integers, bits: int) -> Integers:
    """Return two's complement of `bits` bits and a sign."""
    return ((x + (1 << bits)) & ((2 << bits) - 1)) - (1 << bits)


def _decay(x: Integers, kept: Any, scale: int) -> Integers:
    """Return ``kept / 2^scale`` of `x`, rounded toward 0."""
    if not np.any(kept):
        return np.zeros_like(x)
    result: Integers = np.sign(x) * ((np.abs(x) * kept) >> scale)
    return result


def compartments_of(rule: ChipRule, chip: Chip = CHIP) -> Compartments:
    """Return registers of memoryless compartments that decide as `rule` does.

    With a threshold of ``m`` units and a bias of ``m - T + 1`` units, a sum of S units puts the
    membrane above the threshold iff ``S + 1 > T``. A bias is a mantissa of up to 4095 times a power
    of two. So with m = 1 it reaches 4095 units either way, one by one; down to twice as far it has
    even numbers of units, and m is 1 or 2. Thresholds far above have an m of their own.
    """
    reach = int(chip.rule("bias_max"))
    band = np.maximum(rule.threshold - 2 + reach, 0) // (2 * reach + 1)
    odd = (rule.threshold < 2 - reach) & (rule.threshold % 2 == 1)
    m = 1 + band * (2 * reach + 1) + odd
    return Compartments(vth=unit(chip) * m, bias=unit(chip) * (m - rule.threshold + 1))


class LoihiLayer(EmulatedLayer):
    """One population in compartments of its own."""

    def __init__(self, rule: ChipRule) -> None:
        super().__init__(rule)
        self.compartments = compartments_of(rule)
        self._operands = self.operands()

    def decide(self, spikes: Mapping[str, Raster]) -> tuple[Raster, Effects]:
        arriving = self.sums(self._operands, spikes) * unit()
        _, fired, overflows = self.compartments.step(
            self.compartments.start(arriving.shape), arriving
        )
        return fired, {effect: count(happened) for effect, happened in overflows.items()}


class LoihiBackend(ChipBackend):
    """Intel Loihi 1, emulated."""

    name = "loihi"
    capabilities: ClassVar[Capabilities] = Capabilities(
        encodings=("bitplane", "binary"), kind="emulated", integers=_numbers(CHIP)
    )

    def build(self, network: SpikingNetwork, schedule: Schedule, **options: Any) -> Simulation:
        layers = [LoihiLayer(rule) for rule in self.rules(network)]
        return EmulatedSimulation(network, schedule, layers)
