"""ODIN in plain whole numbers: one synaptic event after the other."""

from __future__ import annotations

from collections import Counter

MEMBRANE_MAX = 255
LARGEST = 7

Event = tuple[int, int]
"""Neuron, signed weight."""


def virtual(neuron: int, total: int) -> list[Event]:
    """Return virtual events that lift a neuron by `total`, at most 7 each."""
    events = []
    while total > 0:
        events.append((neuron, min(total, LARGEST)))
        total -= LARGEST
    return events


def events_of(
    active: list[int],
    synapses: dict[int, list[Event]],
    offset: list[int],
    late: list[int],
    order: str,
) -> list[Event]:
    """Return the events of one sample for one population, in the order they are sent."""
    first = [e for j, total in enumerate(offset) for e in virtual(j, total)]
    second = [e for j, total in enumerate(late) for e in virtual(j, total)]
    all_events = [event for source in sorted(active) for event in synapses.get(source, [])]
    inhibitory = [e for e in all_events if e[1] < 0]
    excitatory = [e for e in all_events if e[1] > 0]
    if order == "inhibitory first":
        return first + inhibitory + second + excitatory
    if order == "excitatory first":
        return first + second + excitatory + inhibitory
    return first + second + all_events


def run_sample(
    events: list[Event], threshold: list[int]
) -> tuple[set[int], dict[str, Counter[int]]]:
    """Return which neurons fire in a sample, membranes cleared before, and what happened."""
    v = [0] * len(threshold)
    fires: Counter[int] = Counter()
    happened: dict[str, set[int]] = {"floors": set(), "membrane saturations": set()}
    for neuron, weight in events:
        assert 0 < abs(weight) <= LARGEST
        v[neuron] += weight
        if v[neuron] < 0:
            happened["floors"].add(neuron)
            v[neuron] = 0
        if v[neuron] > MEMBRANE_MAX:
            happened["membrane saturations"].add(neuron)
            v[neuron] = MEMBRANE_MAX
        if v[neuron] >= threshold[neuron]:
            fires[neuron] += 1
            v[neuron] = 0
    effects = {name: Counter(dict.fromkeys(who, 1)) for name, who in happened.items()}
    effects["extra spikes"] = Counter({j: n - 1 for j, n in fires.items() if n > 1})
    return set(fires), effects
