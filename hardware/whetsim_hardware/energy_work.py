"""What a chip has to do for one inference: a run's counts on a placement."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from whetsim.errors import UnsupportedError
from whetsim.recording import Recording
from whetsim_hardware.chip import Chip
from whetsim_hardware.energy_parts import Range, range_of
from whetsim_hardware.operations import Operations, count_operations
from whetsim_hardware.placement.value import Placement

__all__ = ["Work"]


@dataclass(frozen=True, eq=False)
class Work:
    """Counts of one inference, mean of a run's samples.

    Parameters
    ----------
    recording : Recording
    chip : Chip
    placement : Placement, optional
        Without it, cores are counted by neurons alone, and messages and hops are not known.

    Raises
    ------
    UnsupportedError
        If the input carries values that the chip's events cannot, or the placement is of another
        network (whatever its name), chip or encoding.
    SampleError
        If the run had no samples.
    """

    recording: Recording
    chip: Chip
    placement: Placement | None = None

    def __post_init__(self) -> None:
        network, chip, placement = self.recording.network, self.chip, self.placement
        if network.input.largest > 1:
            raise UnsupportedError(
                f"energy: the input of {network.name!r} carries values up to "
                f"{network.input.largest}, and events of chip {chip.name!r} only 0 and 1. Run with "
                "encoding='bitplane' or 'binary'."
            )
        if placement is None:
            return
        for what, got, need in (
            ("chip", placement.chip, chip.name),
            ("network", placement.network, network.name),
            ("encoding", placement.encoding, network.input.encoding),
        ):
            # Where samples are 0/1 spikes already, all encodings are one.
            if got != need and not (what == "encoding" and self.recording.encoding == "spikes"):
                raise UnsupportedError(
                    f"energy: the placement is for {what} {got!r} (need {need!r}). Place again."
                )
        if placement.fingerprint != network.graded_fingerprint:
            raise UnsupportedError(
                f"energy: the placement is of another network named {network.name!r}. "
                "Place this one."
            )

    @cached_property
    def operations(self) -> Operations:
        """What the run itself counted."""
        return count_operations(self.recording)

    @property
    def depth(self) -> int:
        """Steps from a sample to its decision."""
        extra = 0 if self.placement is None else self.placement.extra_steps
        return self.recording.network.depth + extra

    @property
    def n_steps(self) -> int:
        """Steps that the chip is busy with one sample alone."""
        return 1 if self.recording.schedule == "pipelined" else self.depth + 1

    @property
    def is_event_driven(self) -> bool:
        """Whether the chip has no step and updates neurons only with an event."""
        rule = self.chip.arithmetic.get("decides")
        return rule is not None and rule.value == "event"

    @cached_property
    def extra_neurons(self) -> tuple[tuple[str, int, bool], ...]:
        """Inserted neurons: the population they repeat, how many, whether as relays."""
        if self.placement is None:
            return ()
        p = self.placement
        repeated = [
            (self._base(name), n, True) for m in (p.relays, p.splitters) for name, n in m.items()
        ]
        return (*repeated, *((self._base(name), n, False) for name, n in p.copies.items()))

    @property
    def n_neurons(self) -> int:
        """Neurons on the cores in use."""
        return self.operations.neuron_updates + sum(n for _, n, _ in self.extra_neurons)

    @property
    def spikes(self) -> float:
        """Spikes of all neurons, inserted ones too, input not counted."""
        inserted = sum(n * self._rate(name) for name, n, _ in self.extra_neurons)
        return self.operations.spikes + inserted

    @property
    def synops(self) -> float:
        """Synaptic operations as the chip counts them."""
        per_event = self.chip.arithmetic.get("synops_per_event")
        if per_event is not None:
            return self.events * range_of(per_event).typical
        inserted = 0.0
        for name, n, is_relay in self.extra_neurons:
            # A relay gets one spike for each that it sends; a copy what the copied neuron gets.
            inserted += n * (self._rate(name) if is_relay else self._synops_each(name))
        return self.operations.synops + inserted

    @cached_property
    def events(self) -> float:
        """Axon events; without a placement each spike with synapses is one."""
        if self.placement is not None:
            return self.messages or 0.0
        senders = {p.source for p in self.recording.network.projections}
        return sum(self._spikes_of(name) for name in senders)

    @property
    def messages(self) -> float | None:
        """Messages to cores; None without a placement."""
        if self.placement is None:
            return None
        sent = self.placement.messages_per_spike
        return sum(self._spikes_of(name) * n for name, n in sent.items())

    @property
    def hops(self) -> Range | None:
        """Hops of all messages; None if the placement does not know them.

        Where a population sends to several, how its messages are shared out is not known, so that
        the range is that of its targets.
        """
        if self.placement is None or not self.placement.hops:
            return None
        low = typical = high = 0.0
        for name, n in self.placement.messages_per_spike.items():
            distances = [h for (source, _), h in self.placement.hops.items() if source == name]
            if distances:
                sent = self._spikes_of(name) * n
                low += sent * min(distances)
                typical += sent * sum(distances) / len(distances)
                high += sent * max(distances)
        return Range(low, typical, high)

    @property
    def n_cores(self) -> int:
        """Cores in use; without a placement those that hold the neurons."""
        if self.placement is not None:
            return self.placement.n_cores
        per_core = self.chip.limit("neurons_per_core")
        if per_core is None:
            return 1
        return sum(math.ceil(p.n_neurons / per_core) for p in self.operations.populations)

    @property
    def n_chips(self) -> int:
        """Chips in use."""
        if self.placement is not None:
            return self.placement.n_chips
        return math.ceil(self.n_cores / (self.chip.limit("cores") or 1))

    def loads(self) -> Iterator[tuple[int, dict[int, float]]]:
        """Yield neurons and, by depth of their populations, synops of each core.

        Unplaced, those of one core of each population. Inserted neurons count at the depth of what
        they repeat.
        """
        network = self.recording.network
        if self.placement is None:
            per_core = self.chip.limit("neurons_per_core") or 1
            for p in self.operations.populations:
                n_cores = math.ceil(p.n_neurons / per_core)
                if n_cores:
                    each = {network[p.name].depth: p.synops / n_cores}
                    yield min(p.n_neurons, per_core), each
            return
        for core in self.placement.cores:
            synops: dict[int, float] = {}
            for piece in core.slices:
                base = self._base(piece.population)
                depth = 0 if base == network.input.name else network[base].depth
                more = piece.n_neurons * self._synops_each(piece.population)
                synops[depth] = synops.get(depth, 0.0) + more
            yield sum(s.n_neurons for s in core.slices), synops

    def _base(self, name: str) -> str:
        """Return the population of the network that a relay or splitter repeats."""
        while name not in self.recording.spike_counts and "/" in name:
            name = name.rpartition("/")[0]
        if name not in self.recording.spike_counts:
            raise UnsupportedError(
                f"energy: the placement has a population {name!r} that did not run. Place again."
            )
        return name

    def _rate(self, name: str) -> float:
        base = self._base(name)
        n = self.recording.network.size_of(base)
        return float(self.recording.spike_counts[base].mean()) / n if n else 0.0

    def _spikes_of(self, name: str) -> float:
        """Return the spikes that messages of `name` are counted for.

        A placement gives the messages of splitters for a spike of what they repeat, not for one of
        their own: the splitters of a neuron share out what it sends.
        """
        if name not in self.recording.spike_counts:
            name = name.removesuffix("/splitter")
        if name in self.recording.spike_counts:
            return float(self.recording.spike_counts[name].mean())
        n_relays = 0 if self.placement is None else self.placement.relays.get(name, 0)
        return n_relays * self._rate(name)

    def _synops_each(self, name: str) -> float:
        """Return the synops of one neuron; a relay or splitter gets its source's spikes."""
        if name not in self.recording.synops:
            return self._rate(name)
        n = self.recording.network.size_of(name)
        return float(self.recording.synops[name].mean()) / n if n else 0.0
