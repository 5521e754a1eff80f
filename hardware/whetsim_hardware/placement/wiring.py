"""A network made ready for placing: relays where delays are too long, and the fans of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from whetsim.coding import bit_factors, encode_network
from whetsim.connectivity import Connectivity, Listed
from whetsim.network import Encoding, Population, Projection, SpikingNetwork
from whetsim_hardware.axon_values import values_of
from whetsim_hardware.chip import Chip
from whetsim_hardware.integers import IntegerRule, integer_rule
from whetsim_hardware.placement.fans import Fan, fan_of

__all__ = ["Wiring", "encoded_for", "with_relays"]


def encoded_for(network: SpikingNetwork, chip: Chip, encoding: Encoding | None) -> SpikingNetwork:
    """Return `network` with its input as the chip's events can carry it.

    Values go as they are where the chip's events hold so many bits, as bit planes elsewhere.
    """
    if encoding is None:
        bits = chip.arithmetic.get("input_bits")
        room = 1 if bits is None else int(bits.value)  # type: ignore[arg-type]
        fits = network.input.low >= 0 and network.input.high < 2**room
        encoding = "graded" if fits else "bitplane"
    return encode_network(network, encoding)


def with_relays(network: SpikingNetwork, longest: int | None) -> SpikingNetwork:
    """Return `network` with relay populations, so that no delay is above `longest` steps.

    A relay fires one step after what it repeats plus the delay it is given; a source has one chain
    of relays for all its targets. Inputs are sent again by the host instead.
    """
    if longest is None or all(
        p.delay <= longest or p.source == network.input.name for p in network.projections
    ):
        return network
    relays: dict[str, Population] = {}
    projections: list[Projection] = []
    for projection in network.projections:
        source, target = projection.source, network[projection.target]
        if source == network.input.name or projection.delay <= longest:
            projections.append(projection)
            continue
        first = last = network[source]
        while target.depth - last.depth > longest:
            name = f"{source}/relay_{last.depth - first.depth + longest}"
            if name not in relays:
                relays[name] = _relay(name, first, last.depth + longest)
                projections.append(Projection(last.name, name, _one_to_one(first.size), longest))
            last = relays[name]
        delay = target.depth - last.depth
        projections.append(replace(projection, source=last.name, delay=delay))
    populations = sorted([*network.populations, *relays.values()], key=lambda p: p.depth)
    return replace(network, populations=tuple(populations), projections=tuple(projections))


def _relay(name: str, source: Population, depth: int) -> Population:
    zeros = np.zeros(source.size, dtype=np.int64)
    return Population(name, source.shape, depth, zeros, zeros + 1)


def _one_to_one(size: int) -> Connectivity:
    place = np.arange(size + 1, dtype=np.int64)
    return Listed(place, place[:-1], np.ones(size, dtype=np.int64), size)


@dataclass(frozen=True, eq=False)
class Line:
    """Axons of one projection: those that carry `fan`, `copies` for each source."""

    projection: Projection
    fan: Fan
    copies: int = 1


class Wiring:
    """A network and, made once when asked for, its fans and integers.

    Parameters
    ----------
    network : SpikingNetwork
        Encoded, and with relays.
    """

    def __init__(self, network: SpikingNetwork) -> None:
        self.network = network
        self._fans: dict[tuple[int, int], Fan] = {}
        self._rules: dict[str, IntegerRule] = {}
        self._types: dict[tuple[str, int], int | None] = {}

    def fan(self, number: int, sign: int = 0) -> Fan:
        """Return the fan of projection `number`, of all weights or of those of one sign."""
        if (number, sign) not in self._fans:
            connectivity = self.network.projections[number].connectivity
            self._fans[number, sign] = fan_of(connectivity, sign)
        return self._fans[number, sign]

    def into(self, name: str) -> Iterator[tuple[int, Projection]]:
        """Yield number and projection of all that reach population `name`."""
        return ((i, p) for i, p in enumerate(self.network.projections) if p.target == name)

    def rule(self, name: str) -> IntegerRule:
        """Return the smallest integers of population `name`."""
        if name not in self._rules:
            self._rules[name] = integer_rule(self.network, name)
        return self._rules[name]

    def axon_types(self, name: str, most: int) -> int | None:
        """Return the axon types that population `name` needs; None if more than `most`."""
        if (name, most) not in self._types:
            values = values_of(self.rule(name), most)
            self._types[name, most] = None if values is None else values.n_types
        return self._types[name, most]

    def largest_weights(self, name: str) -> tuple[int, int]:
        """Return the lowest and highest integer weight, bit planes brought to the same scale."""
        low = high = 0
        for source, connectivity in self.rule(name).weights:
            weight = connectivity.weight
            if source == self.network.input.name and self.planes > 1:
                # The lowest plane has the weights as they are.
                axis = 2 if weight.ndim == 4 else 0
                weight = weight.take(range(0, weight.shape[axis], self.planes), axis=axis)
            low = min(low, int(weight.min(initial=0)))
            high = max(high, int(weight.max(initial=0)))
        return low, high

    @property
    def encoding(self) -> str:
        """How the input becomes events; ``spikes`` if it is 0/1 spikes already."""
        source = self.network.input
        plain = source.encoding == "graded" and not source.is_graded
        return "spikes" if plain else source.encoding

    @property
    def planes(self) -> int:
        """Number of bit planes of the input; 1 for plain spikes."""
        source = self.network.input
        return len(bit_factors(source)) if source.encoding == "bitplane" else 1
