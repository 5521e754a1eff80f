"""What emulated chips share: the numbers a network needs, refusals, blocks, counts of effects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.arithmetic import EmulationEffects, IntegerFormat
from whetsim.backend import Backend, Schedule, Simulation
from whetsim.connectivity import Connectivity, Convolution, Dense, Listed
from whetsim.errors import UnsupportedError
from whetsim.network import SpikingNetwork
from whetsim.recording import Recording
from whetsim.sums import operand_of, propagate
from whetsim_hardware.integers import IntegerRule, integer_rule

__all__ = [
    "ChipBackend",
    "ChipRule",
    "Effects",
    "EmulatedLayer",
    "EmulatedSimulation",
    "chip_rule",
    "count",
    "mantissas",
    "part_of",
    "refuse",
    "row_shifts",
]

Integers = NDArray[np.int64]
Raster = NDArray[np.bool_]
Effects = Mapping[str, Integers]
"""What happened, and how often to each neuron in a block."""

FLOAT32_EXACT = 2**24


@dataclass(frozen=True, eq=False)
class ChipRule(IntegerRule):
    """How one population decides, with thresholds where sums can be.

    Parameters
    ----------
    name : str
    positive, negative : int64 array (n_neurons,)
        Sum of the positive weights of each neuron, and of the sizes of its negative ones.
    fan_in : int64 array (n_neurons,)
        Synapses of each neuron.
    """

    name: str
    positive: Integers
    negative: Integers
    fan_in: Integers


def chip_rule(network: SpikingNetwork, name: str) -> ChipRule:
    """Return the smallest integers of a population, thresholds moved to where sums can be.

    A neuron whose threshold no sum reaches keeps one that is out of reach by 1; one that fires
    without input gets the lowest sum that its inputs can cause.
    """
    rule = integer_rule(network, name)
    zero = np.zeros(network[name].size, dtype=np.int64)
    positive = sum((part_of(c, 1).absolute_sums() for _, c in rule.weights), zero)
    negative = sum((part_of(c, -1).absolute_sums() for _, c in rule.weights), zero)
    fan_in = sum((c.fan_in for _, c in rule.weights), zero)
    threshold: Integers = np.clip(rule.threshold, -negative, positive + 1)
    return ChipRule(threshold, rule.weights, name, positive, negative, fan_in)


def part_of(connectivity: Connectivity, sign: int) -> Connectivity:
    """Return the synapses of one sign with the sizes of their weights; the others have none."""
    size = np.maximum(sign * connectivity.weight.astype(np.int64), 0)
    return replace(connectivity, weight=size)  # type: ignore[type-var]


def row_shifts(connectivity: Connectivity) -> Integers:
    """Return by how many bits all weights of each row can be shifted right without loss.

    A row is what leaves one source (``(n_sources,)``), or one input channel of a convolution
    (``(channels,)``). Rows without weights have 0.
    """
    weight = connectivity.weight.astype(np.int64)
    if isinstance(connectivity, Convolution):
        g = connectivity.geometry
        grouped = weight.reshape(*weight.shape[:3], g.groups, -1)
        together = np.bitwise_or.reduce(grouped, axis=(0, 1, 4)).T.ravel()
    elif isinstance(connectivity, Dense):
        together = np.bitwise_or.reduce(weight, axis=1)
    else:
        assert isinstance(connectivity, Listed)
        together = np.zeros(connectivity.n_sources, dtype=np.int64)
        np.bitwise_or.at(together, _sources(connectivity), weight)
    lowest = together & -together
    return np.where(together == 0, 0, np.log2(np.maximum(lowest, 1)).astype(np.int64))


def mantissas(connectivity: Connectivity, shifts: Integers) -> Integers:
    """Return the weights with each row shifted right, in the shape of the weights."""
    weight = connectivity.weight.astype(np.int64)
    if isinstance(connectivity, Convolution):
        g = connectivity.geometry
        grouped = weight.reshape(*weight.shape[:3], g.groups, -1)
        by_group = shifts.reshape(g.groups, weight.shape[2]).T
        result: Integers = (grouped >> by_group[:, :, None]).reshape(weight.shape)
        return result
    if isinstance(connectivity, Dense):
        return weight >> shifts[:, None]
    assert isinstance(connectivity, Listed)
    return weight >> shifts[_sources(connectivity)]


def _sources(listed: Listed) -> Integers:
    return np.repeat(np.arange(listed.n_sources), np.diff(listed.start))


QUANTIZE = "Quantize the network first: whetsim_hardware.quantize."
FEWER = "Give each neuron fewer synapses: a smaller kernel, fewer channels or pruned weights."


def refuse(
    backend: str, population: str, what: str, need: str, has: str, advice: str = QUANTIZE
) -> UnsupportedError:
    """Return the error for a network that a chip's registers cannot hold."""
    return UnsupportedError(
        f"{backend}: population {population!r}: {what} (needs {need}; the chip has {has}). {advice}"
    )


def reject_wide_weights(backend: str, rule: ChipRule, numbers: IntegerFormat) -> None:
    """Raise `UnsupportedError` if a weight is outside the range of the registers.

    Rows of weights are shifted right first, as far as the registers can shift them back.
    """
    for source, connectivity in rule.weights:
        shifts = np.minimum(row_shifts(connectivity), numbers.weight_shift)
        found = mantissas(connectivity, shifts)
        low, high = int(found.min(initial=0)), int(found.max(initial=0))
        if low < numbers.weight_min or high > numbers.weight_max:
            shifted = f", shifted left by 0..{numbers.weight_shift}" if numbers.weight_shift else ""
            raise refuse(
                backend,
                rule.name,
                f"weights from {source!r} are too large",
                f"{low}..{high}",
                f"{numbers.weight_min}..{numbers.weight_max}{shifted}",
            )


def reject_far_thresholds(backend: str, rule: ChipRule, numbers: IntegerFormat) -> None:
    """Raise `UnsupportedError` if a threshold or a fan-in is outside what the registers hold."""
    low, high = int(rule.threshold.min(initial=1)), int(rule.threshold.max(initial=1))
    if low < numbers.threshold_min or high > numbers.threshold_max:
        raise refuse(
            backend,
            rule.name,
            "thresholds are too far from 0",
            f"{low}..{high}",
            f"{numbers.threshold_min}..{numbers.threshold_max}",
        )
    fan_in = int(rule.fan_in.max(initial=0))
    if numbers.fan_in is not None and fan_in > numbers.fan_in:
        raise refuse(
            backend,
            rule.name,
            "too many synapses onto a neuron",
            f"{fan_in}",
            f"{numbers.fan_in}",
            FEWER,
        )


class ChipBackend(Backend):
    """A chip whose arithmetic is emulated."""

    def versions(self) -> Mapping[str, str]:
        from whetsim import __version__

        return {"whetsim": __version__, "numpy": np.__version__}

    def rules(self, network: SpikingNetwork) -> list[ChipRule]:
        """Return the integers of every population.

        Raises
        ------
        UnsupportedError
            If the registers of the chip cannot hold weights or thresholds.
        """
        numbers = self.capabilities.integers
        assert numbers is not None
        rules = []
        for population in network.populations:
            rule = chip_rule(network, population.name)
            reject_wide_weights(self.name, rule, numbers)
            reject_far_thresholds(self.name, rule, numbers)
            rules.append(rule)
        return rules


class EmulatedLayer(ABC):
    """One population on a chip.

    Parameters
    ----------
    rule : ChipRule
    """

    def __init__(self, rule: ChipRule) -> None:
        self.name = rule.name
        self.rule = rule
        largest = int((rule.positive + rule.negative).max(initial=0))
        self._type = np.float32 if largest < FLOAT32_EXACT else np.float64

    @abstractmethod
    def decide(self, spikes: Mapping[str, Raster]) -> tuple[Raster, Effects]:
        """Return which neurons fire, ``(n_samples, n_neurons)``, and what happened.

        `spikes` are those of all populations before it, and of the input.
        """

    def operands(self, sign: int | None = None) -> list[tuple[str, Connectivity, Any]]:
        """Return source, synapses and operand of every projection; of one sign if it is given."""
        parts = [(s, c if sign is None else part_of(c, sign)) for s, c in self.rule.weights]
        return [(source, c, operand_of(c, self._type)) for source, c in parts]

    def sums(
        self, operands: Sequence[tuple[str, Connectivity, Any]], spikes: Mapping[str, Raster]
    ) -> Integers:
        """Return the sum of weights that arrive at each neuron, ``(n_samples, n_neurons)``."""
        n_samples = len(next(iter(spikes.values())))
        total = np.zeros((n_samples, len(self.rule.threshold)), self._type)
        for source, connectivity, operand in operands:
            total += propagate(connectivity, operand, spikes[source].astype(self._type))
        return total.astype(np.int64)


class EmulatedSimulation(Simulation):
    """Population after population; nothing passes from sample to sample.

    Parameters
    ----------
    layers : sequence of EmulatedLayer
        In the order of the populations.
    """

    block_values = 2**22

    def __init__(
        self, network: SpikingNetwork, schedule: Schedule, layers: Sequence[EmulatedLayer]
    ) -> None:
        super().__init__(network, schedule)
        self.layers = tuple(layers)
        self._counts: dict[str, dict[str, Integers]] = {}

    def run(self, samples: ArrayLike | Any, **options: Any) -> Recording:
        """Run samples as `Simulation.run` does, and keep what happened in ``effects``."""
        self._counts, self.effects = {}, None
        recording = super().run(samples, **options)
        self.effects = EmulationEffects(recording.n_samples, self._counts)
        return recording

    def rasters(self, values: NDArray[np.int32]) -> dict[str, Raster]:
        spikes: dict[str, Raster] = {self.network.input.name: values != 0}
        for layer in self.layers:
            spikes[layer.name], effects = layer.decide(spikes)
            for effect, counts in effects.items():
                populations = self._counts.setdefault(effect, {})
                populations[layer.name] = populations.get(layer.name, 0) + counts
        return {layer.name: spikes[layer.name] for layer in self.layers}


def count(happened: Raster) -> Integers:
    """Return in how many samples something happened to each neuron."""
    result: Integers = np.count_nonzero(happened, axis=0).astype(np.int64)
    return result
