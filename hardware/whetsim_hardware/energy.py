"""Energy of an inference: counts of a run, times what a chip file says that each takes.

Counts are measured in a simulation or emulated; every energy is an estimate from published
constants, and says from which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whetsim.errors import UnknownNameError, UnsupportedError, did_you_mean, quote
from whetsim.recording import Recording
from whetsim_hardware.chip import EVIDENCE, Chip, EnergySet, load_chip
from whetsim_hardware.energy_charge import charge
from whetsim_hardware.energy_parts import Part, Range, total
from whetsim_hardware.energy_time import Pace, pace_of
from whetsim_hardware.energy_work import Work
from whetsim_hardware.placement.value import Placement

__all__ = ["EnergyEstimate", "estimate_energy"]


@dataclass(frozen=True, eq=False)
class EnergyEstimate:
    """Energy, time and what they were computed from, for one inference.

    Parameters
    ----------
    network, backend, schedule, encoding : str
        What ran.
    n_samples : int
    label : str
        What the counts of the run are: ``measured in simulation`` or ``emulated``.
    chip : Chip
    energy_set : str
        Name of the chip's set of energies.
    parts : tuple of Part
    pace : Pace
    n_cores, n_chips : int
    is_placed : bool
        Whether cores, messages and hops are those of a placement.
    other_sets : mapping of str to Range
        What the chip's other sets give in all, in pJ.
    """

    network: str
    backend: str
    schedule: str
    encoding: str
    n_samples: int
    label: str
    chip: Chip
    energy_set: str
    parts: tuple[Part, ...]
    pace: Pace
    n_cores: int
    n_chips: int
    is_placed: bool
    other_sets: Mapping[str, Range]

    def __getitem__(self, name: str) -> Part:
        """Return the part called `name`."""
        for part in self.parts:
            if part.name == name:
                return part
        names = [p.name for p in self.parts]
        raise UnknownNameError(
            f"no part named {quote(name)}; there are: {', '.join(names)}."
            f"{did_you_mean(name, names)}"
        )

    @property
    def dynamic_pj(self) -> Range:
        """Energy of what happens, without static power, in pJ."""
        return total(p.energy_pj for p in self.parts if p.energy_pj and not p.is_static)

    @property
    def static_pj(self) -> Range:
        """Energy of what runs all the time, in pJ."""
        return total(p.energy_pj for p in self.parts if p.energy_pj and p.is_static)

    @property
    def total_pj(self) -> Range:
        """Energy of all parts that are known, in pJ."""
        return self.dynamic_pj.plus(self.static_pj)

    @property
    def missing(self) -> tuple[Part, ...]:
        """Parts without an energy; each says why."""
        return tuple(p for p in self.parts if p.energy_pj is None)

    @property
    def latency_us(self) -> Range | None:
        """Time from a sample to its result, in microseconds."""
        return self.pace.latency_us

    @property
    def throughput_hz(self) -> Range | None:
        """Inferences a second."""
        interval = self.pace.interval_us
        if interval is None or interval.low <= 0:
            return None
        return Range(1e6 / interval.high, 1e6 / interval.typical, 1e6 / interval.low)

    @property
    def energy_delay_pj_us(self) -> Range | None:
        """Total energy times latency, in pJ us."""
        latency = self.pace.latency_us
        return None if latency is None else self.total_pj.times(latency)

    @property
    def across_sets_pj(self) -> Range:
        """Total of this set, and the lowest and highest of all sets of the chip, in pJ."""
        all_sets = [self.total_pj, *self.other_sets.values()]
        low, high = min(r.low for r in all_sets), max(r.high for r in all_sets)
        return Range(low, self.total_pj.typical, high)

    def sources(self) -> str:
        """Return each fact that was used, with value, evidence and source."""
        facts = dict(self.chip.quantities())
        keys = dict.fromkeys([k for p in self.parts for k in p.keys] + list(self.pace.keys))
        lines = []
        for key in keys:
            fact = facts[key]
            bounds = "" if fact.low is None and fact.high is None else f" ({_bounds(fact.range)})"
            note = f" {fact.note}." if fact.note else ""
            lines.append(
                f"{key} = {fact.value} {fact.unit}{bounds}: {EVIDENCE[fact.evidence]}.{note} "
                f"{self.chip.sources[fact.source]}"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            "network": self.network,
            "backend": self.backend,
            "schedule": self.schedule,
            "encoding": self.encoding,
            "n_samples": self.n_samples,
            "chip": self.chip.name,
            "energy_set": self.energy_set,
            "labels": {"counts": self.label, "energies": "estimated"},
            "is_placed": self.is_placed,
            "n_cores": self.n_cores,
            "n_chips": self.n_chips,
            "parts": [_part_dict(p) for p in self.parts],
            "dynamic_pj": self.dynamic_pj._asdict(),
            "static_pj": self.static_pj._asdict(),
            "total_pj": self.total_pj._asdict(),
            "across_sets_pj": self.across_sets_pj._asdict(),
            "other_sets_pj": {name: r._asdict() for name, r in self.other_sets.items()},
            "latency_us": _or_none(self.latency_us),
            "throughput_hz": _or_none(self.throughput_hz),
            "energy_delay_pj_us": _or_none(self.energy_delay_pj_us),
            "time": self.pace.note,
            "sources": self.sources().splitlines(),
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        where = "placed" if self.is_placed else "not placed, counted by neurons alone"
        lines = [
            f"{self.network} on {self.chip.title}, energies {self.energy_set!r}: estimated, for "
            "one inference",
            f"  counts {self.label} on {self.backend}, {self.schedule}, {self.encoding} input, "
            f"mean of {self.n_samples:,} samples; {self.n_cores:,} cores, {self.n_chips:,} chips "
            f"({where})",
            f"  {'part':<16}{'count':>16} {'':<8}{'low':>12}{'typical':>12}{'high':>12}",
        ]
        for part in self.parts:
            if part.energy_pj is not None:
                count = "" if part.count is None else f"{part.count:,.1f}"
                lines.append(_row(part.name, count, part.unit, part.energy_pj))
        lines.append(_row("without static", "", "", self.dynamic_pj))
        lines.append(_row("total", "", "", self.total_pj))
        if self.other_sets:
            lines.append(_row("over all sets", "", "", self.across_sets_pj))
        lines += self._time_lines()
        for part in self.parts:
            if part.note and part.energy_pj is not None:
                lines.append(f"  {part.name}: {part.note}")
        reasons = dict.fromkeys(part.note for part in self.missing)
        for reason in reasons:
            names = ", ".join(part.name for part in self.missing if part.note == reason)
            lines.append(f"  not included: {names} ({reason})")
        lines.append(f"  {self.chip.energy[self.energy_set].about}")
        return "\n".join(lines)

    def _time_lines(self) -> list[str]:
        latency, rate, product = self.latency_us, self.throughput_hz, self.energy_delay_pj_us
        if latency is None or product is None:
            return [f"  time: unknown ({self.pace.note})"]
        each = "" if rate is None else f", {rate.typical:,.0f} inferences a second"
        return [
            f"  latency {latency.typical:,.4g} us ({_bounds(latency)}){each}, energy-delay "
            f"{product.typical * 1e-18:.3g} J s; time: {self.pace.note}"
        ]


def estimate_energy(
    recording: Recording,
    chip: Chip | str | Path,
    placement: Placement | None = None,
    *,
    energy_set: str | None = None,
    step_us: float | None = None,
) -> EnergyEstimate:
    """Estimate what one inference costs on a chip.

    Parameters
    ----------
    recording : Recording
        A run, with spikes of 0 and 1 as input.
    chip : Chip, str or Path
    placement : Placement, optional
        Cores, messages and hops; without one, messages and hops are left out.
    energy_set : str, optional
        Name of one of the chip's sets of energies; the first by default.
    step_us : float, optional
        Time of a step in microseconds; the chip's own by default.

    Returns
    -------
    EnergyEstimate

    Raises
    ------
    UnsupportedError
        If nobody has published the chip's energies (the text says so), it is a processor for
        artificial networks, the input carries values, or the step is none the chip can have.
    UnknownNameError
        If there is no such chip or set of energies.
    SampleError
        If the run had no samples.
    """
    chip = chip if isinstance(chip, Chip) else load_chip(chip)
    chosen = chosen_set(chip, energy_set)
    if chip.status == "reference":
        raise UnsupportedError(
            f"chip {chip.name!r}: a processor for artificial networks. Use ann_energy."
        )
    work = Work(recording, chip, placement)
    pace = pace_of(work, step_us)
    parts = charge(work, chosen, pace)
    others = {
        name: total(p.energy_pj for p in charge(work, other, pace) if p.energy_pj)
        for name, other in chip.energy.items()
        if name != chosen.name
    }
    return EnergyEstimate(
        network=recording.network.name,
        backend=recording.backend,
        schedule=recording.schedule,
        encoding=recording.encoding,
        n_samples=recording.n_samples,
        label=work.operations.label,
        chip=chip,
        energy_set=chosen.name,
        parts=parts,
        pace=pace,
        n_cores=work.n_cores,
        n_chips=work.n_chips,
        is_placed=placement is not None,
        other_sets=others,
    )


def chosen_set(chip: Chip, name: str | None) -> EnergySet:
    """Return a set of energies of a chip, the first by default."""
    if chip.energy_refused:
        raise UnsupportedError(
            f"chip {chip.name!r}: its energy cannot be estimated: {chip.energy_refused}."
        )
    if name is None:
        return next(iter(chip.energy.values()))
    if not isinstance(name, str) or name not in chip.energy:
        raise UnknownNameError(
            f"chip {chip.name!r} has no energies named {quote(name)}; there are: "
            f"{', '.join(chip.energy)}.{did_you_mean(name, chip.energy)}"
        )
    return chip.energy[name]


def joules(picojoules: float) -> str:
    """Return an energy with a unit that suits it."""
    for unit, size in (("J", 1e12), ("mJ", 1e9), ("uJ", 1e6), ("nJ", 1e3)):
        if abs(picojoules) >= size:
            return f"{picojoules / size:.4g} {unit}"
    return f"{picojoules:.4g} pJ"


def _row(name: str, count: str, unit: str, energy: Range) -> str:
    numbers = "".join(f"{joules(value):>12}" for value in energy)
    return f"  {name:<16}{count:>16} {unit:<8}{numbers}"


def _bounds(values: Range | tuple[float, float, float]) -> str:
    return f"{values[0]:,.4g} to {values[2]:,.4g}"


def _or_none(values: Range | None) -> dict[str, float] | None:
    return None if values is None else values._asdict()


def _part_dict(part: Part) -> dict[str, Any]:
    return {**vars(part), "energy_pj": _or_none(part.energy_pj)}
