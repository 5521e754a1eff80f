"""Backend ``truenorth``: the integer arithmetic of TrueNorth, tick by tick.

A crossbar point is one bit. What a spike is worth is the receiving neuron's own value for the type
of the axon line it comes on, one of four. So a neuron has four weights of its own, or sums of
them: a source that has a line of every type is worth 1, 2, 4, ... and -2^(n-1) in any combination.

A neuron that keeps nothing has firing threshold 0, negative threshold 0, goes to 0 on both sides,
and leaks its threshold every tick: it fires iff ``sum - threshold >= 0``.

Notes
-----
No source states the widths of leak and threshold; the 20 bits of the membrane are the only bound
here. Nor does one say how a membrane overflows within a tick: it is clipped once, at its end.

References
----------
Equation, order and widths: Merolla 2014 and Akopyan 2015; negative side: NeMo; see
``truenorth.toml``.
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
from whetsim_hardware.axon_values import Values, values_of
from whetsim_hardware.chip import Chip, load_chip
from whetsim_hardware.emulate.common import (
    FEWER,
    ChipBackend,
    ChipRule,
    Effects,
    EmulatedLayer,
    EmulatedSimulation,
    Raster,
    count,
    refuse,
)

__all__ = ["Neurons", "TrueNorthBackend"]

Integers = NDArray[np.int64]
CHIP = load_chip("truenorth")
SATURATIONS = "membrane saturations"


def _numbers(chip: Chip) -> IntegerFormat:
    low, high = int(chip.rule("membrane_min")), int(chip.rule("membrane_max"))
    lines, step = chip.limit("fan_in") or 0, -int(chip.rule("weight_min"))
    assert lines * step <= high  # no sum that arrives in one tick can saturate a membrane
    return IntegerFormat(
        weight_min=int(chip.rule("weight_min")),
        weight_max=int(chip.rule("weight_max")),
        weight_values=int(chip.rule("axon_types")),
        threshold_min=low,
        threshold_max=high,
        fan_in=lines,
    )


@dataclass(frozen=True, eq=False)
class Neurons:
    """Registers of neurons beside their weights; every array has one value for each neuron.

    Parameters
    ----------
    leak : int64 array
        Added to the membrane every tick, behind what arrives.
    alpha : int or int64 array
        A neuron fires iff its membrane is at least this, and then goes to `reset`.
    beta : int or int64 array
        Below ``-beta`` the membrane goes to ``-reset``.
    reset : int or int64 array
    """

    leak: Integers
    alpha: Any = 0
    beta: Any = 0
    reset: Any = 0

    def tick(self, v: Integers, arriving: Integers) -> tuple[Integers, Raster, Raster]:
        """Return membranes after one tick, which neurons fired, and which saturated."""
        free = v + arriving + self.leak
        held = np.clip(free, int(CHIP.rule("membrane_min")), int(CHIP.rule("membrane_max")))
        fired = held >= self.alpha
        under = ~fired & (held < -np.asarray(self.beta))
        after = np.where(fired, self.reset, np.where(under, -np.asarray(self.reset), held))
        return after, fired, held != free


class TrueNorthLayer(EmulatedLayer):
    """One population of neurons that keep nothing."""

    def __init__(self, rule: ChipRule, values: Values) -> None:
        super().__init__(rule)
        self.values = values
        self.neurons = Neurons(leak=-rule.threshold)
        self._operands = self.operands()

    def decide(self, spikes: Mapping[str, Raster]) -> tuple[Raster, Effects]:
        arriving = self.sums(self._operands, spikes)
        _, fired, saturated = self.neurons.tick(np.zeros_like(arriving), arriving)
        return fired, {SATURATIONS: count(saturated)}


class TrueNorthBackend(ChipBackend):
    """IBM TrueNorth, emulated."""

    name = "truenorth"
    capabilities: ClassVar[Capabilities] = Capabilities(
        encodings=("bitplane", "binary"), kind="emulated", integers=_numbers(CHIP)
    )

    def build(self, network: SpikingNetwork, schedule: Schedule, **options: Any) -> Simulation:
        layers = [TrueNorthLayer(rule, self._values(rule)) for rule in self.rules(network)]
        return EmulatedSimulation(network, schedule, layers)

    def _values(self, rule: ChipRule) -> Values:
        types, lines = int(CHIP.rule("axon_types")), CHIP.limit("fan_in") or 0
        values = values_of(rule, types)
        if values is None:
            raise refuse(
                self.name,
                rule.name,
                "a neuron has too many different weights",
                f"more than {types}, not all in -{1 << (types - 1)}..{(1 << (types - 1)) - 1}",
                f"{types} axon types",
            )
        needed = int(rule.fan_in.max(initial=0)) * values.n_types
        if needed > lines:
            raise refuse(
                self.name,
                rule.name,
                f"too many synapses onto a neuron with {values.n_types} axon types for each source",
                f"{needed} axon lines",
                f"{lines}",
                FEWER,
            )
        return values
