"""`Placement`: which neurons sit on which core, what that takes, and how far spikes travel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import FormatError
from whetsim_hardware.placement.reading import check_content

__all__ = ["Core", "Placement", "Slice"]

Triple = tuple[int, int, int]
JSON_FORMAT = "whetsim placement 1"


@dataclass(frozen=True)
class Slice:
    """A rectangle of one population: neurons from `start` up to, not including, `stop`.

    Parameters
    ----------
    population : str
        Of the network, or ``<population>/splitter``, whose neurons stand for those they repeat.
    shape, start, stop : (height, width, channels)
        Layout of the population and corners of the rectangle.
    """

    population: str
    shape: Triple
    start: Triple
    stop: Triple

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return int(np.prod([b - a for a, b in zip(self.start, self.stop, strict=True)]))

    def neurons(self) -> NDArray[np.int64]:
        """Return the neurons' numbers in their population, int64 (n_neurons,)."""
        y, x, c = (np.arange(a, b) for a, b in zip(self.start, self.stop, strict=True))
        _, width, channels = self.shape
        return np.asarray((y[:, None, None] * width + x[:, None]) * channels + c).ravel()


@dataclass(frozen=True)
class Core:
    """One core in use.

    Parameters
    ----------
    index : int
        Number of the core; cores count through all chips.
    chip : int
        Number of its chip.
    x, y : int
        Place of its tile in the mesh of all chips.
    slices : tuple of Slice
    used : mapping of str to int
        What is taken, by resource.
    """

    index: int
    chip: int
    x: int
    y: int
    slices: tuple[Slice, ...]
    used: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Placement:
    """A network on the cores of a chip.

    Parameters
    ----------
    network, chip, method, encoding : str
    weight_bits : int
        Bits of a stored weight.
    limits : mapping of str to int
        Most that a core (for unequal cores: the largest) holds, by resource.
    cores : tuple of Core
    n_chips : int
        Chips in use.
    synapses : mapping of str to int
        Synapses onto each population.
    relays : mapping of str to int
        Neurons that repeat others because a delay is too long, by population.
    splitters : mapping of str to int
        Neurons that repeat others because these reach too many axons, by population.
    copies : mapping of str to int
        Further neurons that compute the same as one of the network, by population.
    extra_steps : int
        Steps that splitters add to those of the network.
    hops : mapping of (source, target) to float
        Mean hops between tiles of a message from one population to another; empty if the chip has
        no mesh. Spikes of the input enter at tile (0, 0).
    messages_per_spike : mapping of str to float
        Messages between cores (or axons of one core) that one spike of a population causes on
        average.
    traffic : float
        Expected messages times hops of one sample, for `method` and for ``greedy``.
    greedy_traffic : float
    notes : tuple of str
        What was taken for granted.
    fingerprint : str
        ``graded_fingerprint`` of the network.
    """

    network: str
    chip: str
    method: str
    encoding: str
    weight_bits: int
    limits: Mapping[str, int]
    cores: tuple[Core, ...]
    n_chips: int
    synapses: Mapping[str, int]
    relays: Mapping[str, int] = field(default_factory=dict)
    splitters: Mapping[str, int] = field(default_factory=dict)
    copies: Mapping[str, int] = field(default_factory=dict)
    extra_steps: int = 0
    hops: Mapping[tuple[str, str], float] = field(default_factory=dict)
    messages_per_spike: Mapping[str, float] = field(default_factory=dict)
    traffic: float = 0.0
    greedy_traffic: float = 0.0
    notes: tuple[str, ...] = ()
    fingerprint: str = ""

    @property
    def n_cores(self) -> int:
        """Cores in use."""
        return len(self.cores)

    @property
    def n_extra_neurons(self) -> int:
        """Relays, splitters and copies together."""
        extra = (self.relays, self.splitters, self.copies)
        return sum(sum(kind.values()) for kind in extra)

    @property
    def used(self) -> dict[str, tuple[int, int]]:
        """For each limited resource, what the fullest core uses and what a core has."""
        return {
            key: (max((c.used.get(key, 0) for c in self.cores), default=0), limit)
            for key, limit in self.limits.items()
        }

    @property
    def totals(self) -> dict[str, int]:
        """What all cores use together, by resource."""
        keys = {key: None for core in self.cores for key in core.used}
        return {key: sum(core.used.get(key, 0) for core in self.cores) for key in keys}

    @property
    def saved(self) -> float:
        """Share of the greedy placement's traffic that this one avoids."""
        return 1 - self.traffic / self.greedy_traffic if self.greedy_traffic else 0.0

    def cores_of(self, population: str) -> list[int]:
        """Return the numbers of the cores that have neurons of a population."""
        return [c.index for c in self.cores if any(s.population == population for s in c.slices)]

    def to_json(self) -> str:
        """Return everything as JSON text."""
        content = asdict(self)
        content["hops"] = [[*pair, value] for pair, value in self.hops.items()]
        return json.dumps({"format": JSON_FORMAT, **content})

    @classmethod
    def from_json(cls, text: str) -> Placement:
        """Return the placement that `to_json` wrote.

        Raises
        ------
        FormatError
            If the text is not such a placement.
        """
        try:
            content = json.loads(text)
            if not isinstance(content, dict) or content.pop("format", None) != JSON_FORMAT:
                raise ValueError(f"need an object of format {JSON_FORMAT!r}")
            check_content(content)
            content["cores"] = tuple(_core(c) for c in content["cores"])
            content["hops"] = {(source, target): v for source, target, v in content["hops"]}
            content["notes"] = tuple(content["notes"])
            return cls(**content)
        except (ValueError, TypeError, RecursionError) as error:
            raise FormatError(
                f"placement: not what Placement.to_json writes ({error}). Write it again."
            ) from None

    def __str__(self) -> str:
        lines = [
            f"{self.network} on {self.chip} ({self.method}, {self.encoding} input, "
            f"{self.weight_bits}-bit weights): {self.n_cores:,} cores, {self.n_chips:,} chips",
            f"  {'resource':<14}{'fullest':>12}{'of':>12}{'mean':>10}",
        ]
        totals = self.totals
        for key, (most, limit) in self.used.items():
            mean = totals.get(key, 0) / max(self.n_cores, 1)
            lines.append(f"  {key:<14}{most:>12,}{limit:>12,}{mean:>10,.0f}")
        extra = (("relay", self.relays), ("splitter", self.splitters), ("copied", self.copies))
        for word, kind in extra:
            if sum(kind.values()):
                lines.append(f"  {sum(kind.values()):,} {word} neurons")
        if self.extra_steps:
            lines.append(f"  {self.extra_steps} further steps")
        for name, sent in self.messages_per_spike.items():
            lines.append(f"  {name}: {sent:.2f} messages a spike")
        for (source, target), hops in self.hops.items():
            lines.append(f"  {source} -> {target}: {hops:.2f} hops a message")
        if self.method == "traffic":
            lines.append(f"  {self.saved:.1%} less traffic x hops than greedy")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def _core(content: Any) -> Core:
    slices = tuple(
        Slice(s["population"], _triple(s["shape"]), _triple(s["start"]), _triple(s["stop"]))
        for s in content.pop("slices")
    )
    return Core(slices=slices, **content)


def _triple(values: Any) -> Triple:
    a, b, c = values
    return a, b, c
