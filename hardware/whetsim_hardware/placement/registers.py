"""What a population takes of the registers that the neurons of a core share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from whetsim.connectivity import Connectivity, Convolution, Dense, Listed
from whetsim_hardware.chip import Chip
from whetsim_hardware.emulate.common import chip_rule, row_shifts
from whetsim_hardware.emulate.loihi import compartments_of
from whetsim_hardware.placement.rules import CoreRules
from whetsim_hardware.placement.wiring import Wiring

__all__ = ["is_assumed", "thresholds_of", "weight_formats"]

Integers = NDArray[np.int64]


def is_assumed(wiring: Wiring, rules: CoreRules, name: str) -> bool:
    """Return whether a population's integers do not fit, so that quantizing is assumed."""
    if "weight_formats" in rules.limits:
        needed = _exponents(wiring, rules.chip, name)
        return needed is None or needed > rules.limits["weight_formats"]
    if rules.axon_types:
        # Bit planes share the types, so that their weights count as they are.
        if wiring.axon_types(name, rules.axon_types) is None:
            return True
        weights = [c.weight for _, c in wiring.rule(name).weights]
        low = min((int(w.min(initial=0)) for w in weights), default=0)
        high = max((int(w.max(initial=0)) for w in weights), default=0)
    else:
        low, high = wiring.largest_weights(name)
    room = rules.chip.arithmetic
    if "weight_max" not in room or "weight_min" not in room:
        return False
    smallest = int(room["weight_min"].value)  # type: ignore[arg-type]
    if rules.splits_signs or smallest == 0:
        smallest = -int(room["weight_max"].value)  # type: ignore[arg-type]
    return low < smallest or high > int(room["weight_max"].value)  # type: ignore[arg-type]


def thresholds_of(wiring: Wiring, rules: CoreRules, name: str) -> Integers:
    """Return the value of the shared threshold registers that each neuron needs, (n_neurons,).

    As the emulator sets them: each neuron's own bias does the rest. One value for all if the
    weights are yet to be quantized.
    """
    size = wiring.network[name].size
    if is_assumed(wiring, rules, name):
        return np.zeros(size, dtype=np.int64)
    vth = compartments_of(chip_rule(wiring.network, name), rules.chip).vth
    return np.asarray(np.broadcast_to(vth, (size,)))


def weight_formats(wiring: Wiring, rules: CoreRules, name: str) -> int:
    """Return the synapse formats of a population: one for each exponent of each projection.

    Of bit planes those of the lowest alone; of weights that are yet to be quantized one for each
    projection.
    """
    if is_assumed(wiring, rules, name):
        return len(wiring.rule(name).weights)
    return _exponents(wiring, rules.chip, name) or 0


def _exponents(wiring: Wiring, chip: Chip, name: str) -> int | None:
    """Return the fewest exponents of all projections; None if a row of weights has none."""
    total = 0
    for source, connectivity in wiring.rule(name).weights:
        planes = wiring.planes if source == wiring.network.input.name else 1
        found = _fewest_shifts(connectivity, chip, planes)
        if found is None:
            return None
        total += found
    return total


def _fewest_shifts(connectivity: Connectivity, chip: Chip, planes: int) -> int | None:
    """Return how many different shifts bring all rows into the range of the mantissas.

    A row may be shifted right as far as its lowest bits are 0, and must be until it is in range.
    """
    step = int(chip.rule("weight_step"))
    smallest, largest = int(chip.rule("weight_min")) // step, int(chip.rule("weight_max")) // step
    reach = int(chip.rule("weight_exponent_max")) + 1
    most = np.minimum(row_shifts(connectivity), reach)[::planes]
    low, high = (extreme[::planes] for extreme in _extremes(connectivity))
    least = np.zeros_like(most)
    for shift in range(reach + 1):
        least += (low >> shift < smallest) | (high >> shift > largest)
    if (least > most).any():
        return None
    used = (low < 0) | (high > 0)
    least, most = least[used], most[used]
    count = 0
    while most.size:
        # The row that can be shifted least gets its largest shift, and all that can share it.
        kept = least > most.min()
        least, most = least[kept], most[kept]
        count += 1
    return count


def _extremes(connectivity: Connectivity) -> tuple[Integers, Integers]:
    """Return the lowest and the highest weight of each row, 0 included; rows as `row_shifts`."""
    weight = connectivity.weight.astype(np.int64)
    if isinstance(connectivity, Convolution):
        parts = weight.reshape(*weight.shape[:3], connectivity.geometry.groups, -1)
        low, high = (f(parts, axis=(0, 1, 4), initial=0).T.ravel() for f in (np.min, np.max))
    elif isinstance(connectivity, Dense):
        low, high = weight.min(axis=1, initial=0), weight.max(axis=1, initial=0)
    else:
        assert isinstance(connectivity, Listed)
        low, high = (np.zeros(connectivity.n_sources, dtype=np.int64) for _ in range(2))
        source = np.repeat(np.arange(connectivity.n_sources), np.diff(connectivity.start))
        np.minimum.at(low, source, weight)
        np.maximum.at(high, source, weight)
    return low, high
