"""Backend ``spinnaker``: the fixed-point arithmetic of sPyNNaker neurons on SpiNNaker 1.

A weight is an unsigned whole number of 16 bits. Those that arrive in a step are added in two ring
buffers, excitatory and inhibitory, which stop at 65535. Their contents, shifted left by as many
bits as the population says, are s16.15 numbers (32 bits, 15 of them behind the point), and their
difference is the input of the neuron.

The membrane must forget its past with every step. A leaky neuron does so with a time constant so
short that its decay factor is 0 in s16.15; its membrane then is the input (the resistance, time
constant over capacitance, is 1). The model without leak keeps its charge and stops at the reset
potential; for it (``model="if_trunc"``) the host sets membranes back after each sample.

References
----------
Ring buffers, shifts, s16.15 and both models: the neural code of sPyNNaker; see ``spinnaker.toml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from whetsim.arithmetic import IntegerFormat
from whetsim.backend import Capabilities, Schedule, Simulation
from whetsim.errors import UnsupportedError, did_you_mean, quote
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
    refuse,
)

__all__ = ["MODELS", "Neurons", "SpinnakerBackend", "neurons_of"]

Integers = NDArray[np.int64]
CHIP = load_chip("spinnaker")
MODELS = ("lif", "if_trunc")
BUFFERS, WRAPS, FLOORS = "ring buffer saturations", "membrane wraps", "floors"


def buffer_max(chip: Chip = CHIP) -> int:
    """Return what a ring buffer holds at most."""
    return (1 << int(chip.rule("accumulator_bits"))) - 1


def _numbers(chip: Chip) -> IntegerFormat:
    largest = int(chip.rule("weight_max"))
    return IntegerFormat(
        weight_min=-largest,
        weight_max=largest,
        threshold_min=-buffer_max(chip),
        threshold_max=buffer_max(chip) + 1,
        positive_sum=buffer_max(chip),
        negative_sum=buffer_max(chip),
    )


@dataclass(frozen=True, eq=False)
class Neurons:
    """Registers of the neurons of a population.

    Parameters
    ----------
    threshold : int64 array
        V_thresh of each neuron, in units of 2^-15.
    shift : int
        Left shift of the ring buffers.
    model : str
        ``lif``: the decay factor is 0, so the membrane is the input. ``if_trunc``: the membrane
        adds up and stops at V_reset, which is 0.
    """

    threshold: Integers
    shift: int
    model: str = "lif"

    def step(
        self, v: Integers, excitatory: Integers, inhibitory: Integers
    ) -> tuple[Integers, Raster, dict[str, Raster]]:
        """Return membranes after one step, which neurons fired, and what overflowed.

        `excitatory` and `inhibitory` are sums of weights, none negative.
        """
        most = buffer_max()
        plus, minus = np.minimum(excitatory, most), np.minimum(inhibitory, most)
        added = ((plus - minus) << self.shift) + (0 if self.model == "lif" else v)
        free = _wrap(added)
        held = free if self.model == "lif" else np.maximum(free, 0)
        fired = held >= self.threshold
        happened = {
            BUFFERS: (plus != excitatory) | (minus != inhibitory),
            WRAPS: free != added,
            FLOORS: held != free,
        }
        return np.where(fired, 0, held), fired, happened


def _wrap(x: Integers) -> Integers:
    """Return two's complement of the membrane's width."""
    low, high = int(CHIP.rule("membrane_min")), int(CHIP.rule("membrane_max"))
    return (x - low) % (high - low + 1) + low


def neurons_of(rule: ChipRule, model: str = "lif") -> Neurons:
    """Return registers of neurons that decide as `rule` does, in the largest shift that fits."""
    most = buffer_max()
    sums = (np.minimum(rule.positive, most), np.minimum(rule.negative, most))
    largest = max(int(x.max(initial=1)) for x in (*sums, np.abs(rule.threshold)))
    whole = int(CHIP.rule("membrane_max")).bit_length()
    shift = min(int(CHIP.rule("membrane_fraction_bits")), whole - largest.bit_length())
    return Neurons(rule.threshold << shift, shift, model)


class SpinnakerLayer(EmulatedLayer):
    """One population, with excitatory and inhibitory synapses."""

    def __init__(self, rule: ChipRule, model: str) -> None:
        super().__init__(rule)
        self.neurons = neurons_of(rule, model)
        self._excitatory, self._inhibitory = self.operands(1), self.operands(-1)

    def decide(self, spikes: Mapping[str, Raster]) -> tuple[Raster, Effects]:
        excitatory = self.sums(self._excitatory, spikes)
        inhibitory = self.sums(self._inhibitory, spikes)
        v = np.zeros_like(excitatory)
        _, fired, happened = self.neurons.step(v, excitatory, inhibitory)
        return fired, {effect: count(raster) for effect, raster in happened.items()}


class SpinnakerBackend(ChipBackend):
    """SpiNNaker 1 with sPyNNaker's neurons, emulated."""

    name = "spinnaker"
    capabilities: ClassVar[Capabilities] = Capabilities(
        encodings=("bitplane", "binary"), kind="emulated", integers=_numbers(CHIP)
    )
    options: ClassVar[Mapping[str, str]] = {
        "model": "'lif' (the default: no memory) or 'if_trunc' (no leak; set back after a sample)"
    }

    def build(self, network: SpikingNetwork, schedule: Schedule, **options: Any) -> Simulation:
        model = options.get("model", MODELS[0])
        if model not in MODELS:
            raise UnsupportedError(
                f"{self.name}: model is {quote(model)}; need one of: {', '.join(MODELS)}."
                f"{did_you_mean(model, MODELS)}"
            )
        rules = self.rules(network)
        for rule in rules:
            if model == "if_trunc" and int(rule.threshold.min(initial=1)) < 1:
                raise refuse(
                    self.name,
                    rule.name,
                    "neurons without leak fire in every step if they fire without input",
                    f"threshold {int(rule.threshold.min())}",
                    "1 or more; model 'lif' has any",
                )
        layers = [SpinnakerLayer(rule, model) for rule in rules]
        return EmulatedSimulation(network, schedule, layers)
