"""Greedy splitting: each population by itself, from the output back, on as few cores as it can."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from whetsim_hardware.placement.errors import DoesNotFitError
from whetsim_hardware.placement.registers import is_assumed, thresholds_of, weight_formats
from whetsim_hardware.placement.rules import STATE_BITS, CoreRules, bits_of
from whetsim_hardware.placement.tiles import Tiling, layout_of, tile_lengths
from whetsim_hardware.placement.wiring import Line, Wiring

__all__ = ["Split", "lines_of", "split_all"]

Integers = NDArray[np.int64]
Use = dict[str, Integers]


@dataclass(frozen=True, eq=False)
class Split:
    """One population, cut into blocks.

    Parameters
    ----------
    name : str
    tiling : Tiling
    lines : tuple of Line
        What reaches it.
    use : mapping of str to int64 array (n_blocks,)
        What each block takes of a core, by resource.
    messages : int64 array (n_neurons,)
        Axons that each neuron sends to.
    splitters : int64 array, optional
        For a population with splitter neurons: how many of them serve each neuron, 0 where it
        reaches its only axon itself.
    """

    name: str
    tiling: Tiling
    lines: tuple[Line, ...]
    use: Mapping[str, Integers]
    messages: Integers
    splitters: Integers | None = field(default=None)


def lines_of(wiring: Wiring, rules: CoreRules, name: str) -> tuple[Line, ...]:
    """Return the axons that reach a population, as the chip needs them.

    Raises
    ------
    DoesNotFitError
        If weights need more axon types than there are.
    """
    copies = _typed_axons(wiring, rules, name) if rules.axon_types else 1
    signs = (1, -1) if rules.splits_signs else (0,)
    return tuple(
        Line(projection, wiring.fan(number, sign), copies)
        for number, projection in wiring.into(name)
        for sign in signs
    )


def _typed_axons(wiring: Wiring, rules: CoreRules, name: str) -> int:
    """Return axons for each source, one of each type, as the emulator counts them.

    Weights with which there are too many are taken to be quantized to -1, 0 and 1.
    """
    if not is_assumed(wiring, rules, name):
        return wiring.axon_types(name, rules.axon_types) or 1
    reads_planes = any(p.source == wiring.network.input.name for _, p in wiring.into(name))
    planes = wiring.planes if reads_planes else 1
    signs = sum(1 for extreme in wiring.largest_weights(name) if extreme)
    # The different values themselves, or two's complement with the negative value last.
    types = min(signs * planes, planes + 1)
    if types > rules.axon_types:
        raise DoesNotFitError(
            rules.chip.name,
            name,
            "axon_types",
            types,
            rules.axon_types,
            f"{planes} bit planes need a type each, even with ternary weights",
        )
    return types


def split_all(wiring: Wiring, rules: CoreRules) -> list[Split]:
    """Return the splits of all populations, in the order of the network.

    From the output back: how many axons a neuron sends to depends on how its targets are cut.

    Raises
    ------
    DoesNotFitError
        For the first population of which one neuron alone is too much; else for the last whose
        neurons send to too many axons.
    """
    try:
        return _split_backwards(wiring, rules)
    except DoesNotFitError as error:
        last = error
    _refuse_first(wiring, rules)
    raise last


def _split_backwards(wiring: Wiring, rules: CoreRules) -> list[Split]:
    network = wiring.network
    messages = {p.name: np.zeros(p.size, dtype=np.int64) for p in network.populations}
    splits = []
    for population in reversed(network.populations):
        name = population.name
        split = _Splitter(wiring, rules, name, messages[name]).best()
        for line in split.lines:
            if line.projection.source in messages:
                reached = line.fan.reached(split.tiling).sum(axis=1)
                messages[line.projection.source] += line.copies * np.asarray(reached).ravel()
        splits.append(split)
    return splits[::-1]


def _refuse_first(wiring: Wiring, rules: CoreRules) -> None:
    """Raise for the first population of which a single neuron is too much, if there is one."""
    for population in wiring.network.populations:
        nothing = np.zeros(population.size, dtype=np.int64)
        _Splitter(wiring, rules, population.name, nothing).check_single_neurons()


class _Splitter:
    """Finds the split of one population."""

    def __init__(self, wiring: Wiring, rules: CoreRules, name: str, messages: Integers) -> None:
        self._rules, self._name, self._messages = rules, name, messages
        self._population = wiring.network[name]
        self._shape = layout_of(wiring.network, name)
        self._lines = lines_of(wiring, rules, name)
        limits = rules.limits
        self._formats = weight_formats(wiring, rules, name) if "weight_formats" in limits else 0
        self._thresholds = thresholds_of(wiring, rules, name) if "thresholds" in limits else None

    def best(self) -> Split:
        """Return the split with the fewest cores; neurons that feed several axons are copied, or
        send through splitter neurons where that takes fewer cores.
        """
        self._check_fan_in()
        one_axon_each = self._rules.axons_per_neuron == 1
        if not one_axon_each or int(self._messages.max(initial=0)) <= 1:
            return self._split(np.ones_like(self._messages))
        room = self._rules.limits["neurons"]
        relayed = np.where(self._messages > 1, self._messages, 0)
        split = self._split(splitter_axons(relayed, room), relayed)
        if int(self._messages.max()) > room:
            return split
        copied = self._attempt(np.maximum(self._messages, 1))
        cores = split.tiling.n_blocks - (-int(relayed.sum()) // room)
        return split if copied is None or copied.tiling.n_blocks > cores else copied

    def _split(self, slots: Integers, splitters: Integers | None = None) -> Split:
        """Return the split if each neuron takes so many places on its core.

        Raises
        ------
        DoesNotFitError
            If one neuron alone is too much.
        """
        split = self._attempt(slots, splitters)
        if split is None:
            raise self._refusal(slots)
        return split

    def _attempt(self, slots: Integers, splitters: Integers | None = None) -> Split | None:
        """Return the split of `_split`, None if there is none."""
        found: tuple[tuple[int, int], Tiling, Use] | None = None
        for height, width in self._places():
            places = -(-self._shape[0] // height) * -(-self._shape[1] // width)
            if found is not None and places > found[0][0]:
                break
            tiling = self._widest(height, width, slots)
            if tiling is None or (found is not None and tiling.n_blocks > found[0][0]):
                continue
            use = dict(self._uses(tiling, slots))
            score = (tiling.n_blocks, int(use["in_axons"].sum()))
            if found is None or score < found[0]:
                found = score, tiling, use
        if found is None:
            return None
        return Split(self._name, found[1], self._lines, found[2], self._messages, splitters)

    def _places(self) -> list[tuple[int, int]]:
        """Return heights and widths of tiles to try, those that make the fewest tiles first.

        Whole rows and columns, parts of one row or column, and tiles in the map's proportions;
        single cells are among them.
        """
        height, width, _ = self._shape
        pairs = {(h, w) for h in tile_lengths(height) for w in (1, width)}
        pairs |= {(h, w) for h in (1, height) for w in tile_lengths(width)}
        widths = np.asarray(tile_lengths(width))
        for h in tile_lengths(height):
            nearest = widths[np.argmin(np.abs(widths * height - h * width))]
            pairs.add((h, int(nearest)))
        return sorted(
            pairs, key=lambda p: (-(-height // p[0]) * -(-width // p[1]), abs(p[0] - p[1]))
        )

    def _widest(self, height: int, width: int, slots: Integers) -> Tiling | None:
        """Return the tiling with these places and as many channels on a core as fit."""
        channels = self._shape[2]
        low, high = 0, channels
        while low < high:
            middle = (low + high + 1) // 2
            if self._fits(Tiling(self._shape, (height, width, middle)), slots):
                low = middle
            else:
                high = middle - 1
        if low == 0:
            return None
        even = -(-channels // -(-channels // low))
        balanced = Tiling(self._shape, (height, width, even))
        if even == low or self._fits(balanced, slots):
            return balanced
        return Tiling(self._shape, (height, width, low))

    def _fits(self, tiling: Tiling, slots: Integers) -> bool:
        limits = self._rules.limits
        y, x, c = (min(t, n) for t, n in zip(tiling.tile, tiling.shape, strict=True))
        if y * x * c > limits.get("neurons", y * x * c):
            return False
        return all(
            int(used.max(initial=0)) <= limits[key]
            for key, used in self._uses(tiling, slots)
            if key in limits
        )

    def _uses(self, tiling: Tiling, slots: Integers) -> Iterator[tuple[str, Integers]]:
        """Yield what the blocks take, the cheapest to count first."""
        limits, rules = self._rules.limits, self._rules
        n_blocks = tiling.n_blocks
        yield "neurons", tiling.total(slots)
        counts = [(line, line.fan.counts(tiling)) for line in self._lines]
        axons = sum((line.copies * c.axons for line, c in counts), np.zeros(n_blocks, np.int64))
        bias = rules.chip.limit("bias_axons_per_core")
        yield "in_axons", axons + (bias if bias and self._population.bias.any() else 0)
        yield "synapses", sum((c.synapses for _, c in counts), np.zeros(n_blocks, np.int64))
        if rules.axons_per_neuron is None:
            yield "out_axons", tiling.total(self._messages)
        if self._thresholds is not None:
            yield "thresholds", tiling.distinct(self._thresholds)
        if "weight_formats" in limits:
            yield "weight_formats", np.full(n_blocks, self._formats, np.int64)
        if rules.memory is not None:
            yield rules.memory, self._memory(tiling)

    def _memory(self, tiling: Tiling) -> Integers:
        rules = self._rules
        total = np.zeros(tiling.n_blocks, np.int64)
        sizes = tiling.total(np.ones_like(self._messages))
        if rules.memory == "memory_bits" and "neurons" not in rules.limits:
            total = total + sizes * STATE_BITS
        for line in self._lines:
            found = line.fan.counts(tiling)
            packed = found.packed(bits_of(rules, line.projection.delay))
            if rules.chip.limit("synapse_chunk") is not None:
                packed = np.minimum(packed, _dense_rows(rules, line, sizes, found.axons))
            total = total + packed
        return total

    def check_single_neurons(self) -> None:
        """Raise if one neuron alone is too much for a core."""
        self._check_fan_in()
        if not self._fits(Tiling(self._shape, (1, 1, 1)), np.ones_like(self._messages)):
            raise self._refusal(np.ones_like(self._messages))

    def _check_fan_in(self) -> None:
        if self._rules.fan_in is None:
            return
        fan_in = sum(
            (line.projection.connectivity.fan_in for line in _once(self._lines)),
            np.zeros_like(self._messages),
        )
        needed = int(fan_in.max(initial=0))
        if needed > self._rules.fan_in:
            raise DoesNotFitError(
                self._rules.chip.name,
                self._name,
                "fan_in",
                needed,
                self._rules.fan_in,
                f"neuron {int(fan_in.argmax())} has {needed:,} synapses",
            )

    def _refusal(self, slots: Integers) -> DoesNotFitError:
        """Return what is wrong with a core that has one neuron alone."""
        limits = self._rules.limits
        unit = Tiling(self._shape, (1, 1, 1))
        for key, used in self._uses(unit, slots):
            needed = int(used.max(initial=0))
            if key in limits and needed > limits[key]:
                detail = f"neuron {int(used.argmax())} alone is too much for a core"
                return DoesNotFitError(
                    self._rules.chip.name, self._name, key, needed, limits[key], detail
                )
        raise AssertionError("a population that fits neuron by neuron was not split")


def splitter_axons(splitters: Integers, room: int) -> Integers:
    """Return how many axons each neuron sends to if splitter neurons stand in lines of `room`.

    Splitter neurons of all neurons stand in one line, a core for each `room` of them; a neuron
    feeds an axon on every core where it has some.
    """
    end = np.cumsum(splitters)
    first, last = (end - splitters) // room, (end - 1) // room
    return np.asarray(np.where(splitters > 0, last - first + 1, 1))


def _dense_rows(rules: CoreRules, line: Line, sizes: Integers, axons: Integers) -> Integers:
    """Return the bits if each axon stores a weight for every neuron of the block, zeros too."""
    kinds, kind_of = np.unique(sizes, return_inverse=True)
    row = [int(rules.axon_bits(k[None], line.projection.delay, int(k))[0]) for k in kinds]
    return np.asarray(row, dtype=np.int64)[kind_of] * axons


def _once(lines: tuple[Line, ...]) -> list[Line]:
    """Return one line of each projection."""
    return list({id(line.projection): line for line in lines}.values())
