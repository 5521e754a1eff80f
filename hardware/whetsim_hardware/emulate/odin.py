"""Backend ``odin``: the event-driven arithmetic of ODIN, one synaptic event after the other.

The membrane is unsigned (0..255), weights are 0..7 with one sign for each source, and a neuron is
tested after every event. So the order of the events of a sample matters. The host sends them, for
one population after the other, in an order that decides as a sum does:

1. virtual events lift each membrane to its offset P, as large as its inhibition can get;
2. inhibitory events;
3. virtual events for neurons that fire without input, then excitatory events.

The threshold is P higher. Excitation only rises, so a neuron reaches it iff the whole sum does.
Where threshold and inhibition exceed 255 together, P is smaller and the membrane may stop at 0. A
neuron that fires starts again at 0 and may fire once more; the host sends its first spike on, and
the others are counted. A source with weights of both signs has two rows. Time-reference events with
the largest leak clear all membranes between samples.

References
----------
Membrane, weights, signs, reset and the test after each event: ODIN's published hardware
description; see ``odin.toml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numba import njit
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
)

__all__ = ["ORDERS", "Neurons", "OdinBackend", "neurons_of", "run_events"]

Integers = NDArray[np.int64]
CHIP = load_chip("odin")
FLOORS, SATURATIONS, EXTRA = "floors", "membrane saturations", "extra spikes"
ORDERS = ("inhibitory first", "excitatory first", "source")
"""Orders of the events of a sample; in the last, sources come by their numbers, signs mixed."""


def _numbers(chip: Chip) -> IntegerFormat:
    largest = int(chip.rule("weight_max"))
    return IntegerFormat(
        weight_min=-largest,
        weight_max=largest,
        # A lower one takes events alone, and is where no sum can be lower.
        threshold_min=-largest * (chip.limit("fan_in") or 0),
        threshold_max=int(chip.rule("threshold_max")),
        fan_in=chip.limit("fan_in"),
        membrane_max=int(chip.rule("membrane_max")),
    )


@dataclass(frozen=True, eq=False)
class Neurons:
    """Registers of neurons and their virtual events, one value for each neuron.

    Parameters
    ----------
    threshold : int64 array
        Reached or exceeded, the neuron fires.
    offset : int64 array
        What virtual events lift it by before all other events; less than the threshold.
    late : int64 array
        What virtual events lift it by behind the inhibitory ones.
    """

    threshold: Integers
    offset: Integers
    late: Integers


def neurons_of(rule: ChipRule, chip: Chip = CHIP) -> Neurons:
    """Return registers that decide as `rule` does wherever membranes have room."""
    least = np.maximum(rule.threshold, 1)
    offset = np.minimum(rule.negative, int(chip.rule("membrane_max")) - least)
    return Neurons(least + offset, offset, least - rule.threshold)


@njit(cache=True)
def run_events(
    active: NDArray[np.bool_],
    start: Integers,
    target: Integers,
    weight: Integers,
    threshold: Integers,
    offset: Integers,
    late: Integers,
    order: int,
    membrane_max: int,
    largest: int,
    spikes: Integers,
    floored: NDArray[np.bool_],
    saturated: NDArray[np.bool_],
) -> None:
    """Run all events of every sample; `active` is ``(n_samples, n_sources)``.

    `start`, `target` and `weight` list the synapses by source. Writes how often each neuron fired,
    and whether its membrane stopped at 0 or at `membrane_max`, all ``(n_samples, n_neurons)``.
    """
    n_neurons = len(threshold)
    v = np.zeros(n_neurons, np.int64)
    for sample in range(len(active)):
        v[:] = 0
        for step in range(4):
            # 0: offsets; 1 and 3: synapses; 2: late offsets, in front of excitation
            kind = step
            if order != 0 and step in (1, 2):
                kind = 3 - step
            if kind in (0, 2):
                for j in range(n_neurons):
                    left = offset[j] if kind == 0 else late[j]
                    while left > 0:
                        w = min(left, largest)
                        left -= w
                        _event(j, w, v, threshold, membrane_max, sample, spikes, floored, saturated)
                continue
            if order == 0:
                sign = -1 if kind == 1 else 1
            elif order == 1:
                sign = 1 if kind == 1 else -1
            else:
                sign = 0
                if kind == 3:
                    continue
            for i in range(active.shape[1]):
                if active[sample, i]:
                    for at in range(start[i], start[i + 1]):
                        w = weight[at]
                        if sign == 0 or w * sign > 0:
                            _event(
                                target[at], w, v, threshold, membrane_max, sample,
                                spikes, floored, saturated,
                            )  # fmt: skip


@njit(cache=True)
def _event(
    j: int,
    w: int,
    v: Integers,
    threshold: Integers,
    membrane_max: int,
    sample: int,
    spikes: Integers,
    floored: NDArray[np.bool_],
    saturated: NDArray[np.bool_],
) -> None:
    """Add one event to the membrane of neuron `j`, and test it."""
    free = v[j] + w
    if free < 0:
        floored[sample, j] = True
        free = 0
    elif free > membrane_max:
        saturated[sample, j] = True
        free = membrane_max
    if free >= threshold[j]:
        spikes[sample, j] += 1
        free = 0
    v[j] = free


class OdinLayer(EmulatedLayer):
    """One population; its events come in the order that the backend was asked for."""

    def __init__(self, rule: ChipRule, order: str) -> None:
        super().__init__(rule)
        self.neurons = neurons_of(rule)
        self._order = ORDERS.index(order)
        self._excitatory, self._inhibitory = self.operands(1), self.operands(-1)
        self._lists = [_listed(c) for _, c in rule.weights]

    def decide(self, spikes: Mapping[str, Raster]) -> tuple[Raster, Effects]:
        if self._order:
            return self._in_events(spikes)
        n = self.neurons
        lowest = n.offset - self.sums(self._inhibitory, spikes)
        highest = np.maximum(lowest, 0) + n.late + self.sums(self._excitatory, spikes)
        fired = highest >= n.threshold
        # Before it fires a membrane is below the threshold, so these alone leave something to
        # follow: a sum that reaches the threshold twice, an event that goes beyond the membrane.
        largest, top = int(CHIP.rule("weight_max")), int(CHIP.rule("membrane_max"))
        unsure = (highest >= 2 * n.threshold) | (fired & (n.threshold - 1 + largest > top))
        samples = np.flatnonzero(unsure.any(axis=1))
        effects = {FLOORS: count(lowest < 0), SATURATIONS: 0 * n.late, EXTRA: 0 * n.late}
        if samples.size:
            _, more = self._in_events({name: raster[samples] for name, raster in spikes.items()})
            effects |= {SATURATIONS: more[SATURATIONS], EXTRA: more[EXTRA]}
        return fired, effects

    def _in_events(self, spikes: Mapping[str, Raster]) -> tuple[Raster, Effects]:
        """Run event by event."""
        parts = [spikes[source] for source, _ in self.rule.weights]
        n_samples = len(next(iter(spikes.values())))
        active = np.concatenate([np.zeros((n_samples, 0), bool), *parts], axis=1)
        start = np.concatenate([[0], *(np.diff(s) for s, _, _ in self._lists)]).cumsum()
        none = np.zeros(0, dtype=np.int64)
        shape, n = (n_samples, len(self.rule.threshold)), self.neurons
        fires, floored = np.zeros(shape, np.int64), np.zeros(shape, bool)
        saturated = np.zeros(shape, bool)
        run_events(
            active,
            start.astype(np.int64),
            np.concatenate([none, *(target for _, target, _ in self._lists)]),
            np.concatenate([none, *(weight for _, _, weight in self._lists)]),
            n.threshold,
            n.offset,
            n.late,
            self._order,
            int(CHIP.rule("membrane_max")),
            int(CHIP.rule("weight_max")),
            fires,
            floored,
            saturated,
        )
        extra = np.maximum(fires - 1, 0).sum(axis=0)
        effects = {FLOORS: count(floored), SATURATIONS: count(saturated), EXTRA: extra}
        return fires > 0, effects


def _listed(connectivity: Any) -> tuple[Integers, Integers, Integers]:
    """Return the synapses by source: where each source starts, targets, weights."""
    blocks = list(connectivity.synapses())
    none = np.zeros(0, dtype=np.int64)
    source, target, weight = (
        np.concatenate([none, *(block[i] for block in blocks)]) for i in range(3)
    )
    order = np.argsort(source, kind="stable")
    start = np.searchsorted(source[order], np.arange(connectivity.n_sources + 1))
    return start, target[order], weight[order]


class OdinBackend(ChipBackend):
    """ODIN, emulated."""

    name = "odin"
    capabilities: ClassVar[Capabilities] = Capabilities(
        encodings=("bitplane", "binary"), kind="emulated", integers=_numbers(CHIP)
    )
    options: ClassVar[Mapping[str, str]] = {
        "order": "of the events of a sample: " + ", ".join(f"'{order}'" for order in ORDERS)
    }

    def versions(self) -> Mapping[str, str]:
        import numba

        return {**super().versions(), "numba": numba.__version__}

    def build(self, network: SpikingNetwork, schedule: Schedule, **options: Any) -> Simulation:
        order = options.get("order", ORDERS[0])
        if order not in ORDERS:
            raise UnsupportedError(
                f"{self.name}: order is {quote(order)}; need one of: {', '.join(ORDERS)}."
                f"{did_you_mean(order, ORDERS)}"
            )
        layers = [OdinLayer(rule, order) for rule in self.rules(network)]
        return EmulatedSimulation(network, schedule, layers)
