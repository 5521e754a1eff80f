"""The parts of an energy estimate: each count times its price."""

from __future__ import annotations

from whetsim_hardware.chip import EnergySet
from whetsim_hardware.energy_parts import Part, Price, Range, power_of, price_of, range_of
from whetsim_hardware.energy_time import Pace
from whetsim_hardware.energy_work import Work

__all__ = ["charge"]

ESTIMATED = "estimated"


def charge(work: Work, energies: EnergySet, pace: Pace) -> tuple[Part, ...]:
    """Return every part of one inference with the energies of one set.

    A set whose synaptic operations have all power in them is charged for nothing else.
    """
    bill = _Bill(work, energies, pace)
    if price_of(energies, "synop_all_in") is not None:
        return (bill.synops(),)
    return (
        bill.synops(),
        bill.updates(),
        bill.events("spikes out", "spike_out", work.spikes, "spikes"),
        bill.messages(),
        bill.hops(),
        bill.events("input", "io_event", work.operations.input_spikes, "events"),
        bill.events("output", "io_event", _output_spikes(work), "events"),
        *bill.static(),
    )


def _output_spikes(work: Work) -> float:
    return float(work.recording.spike_counts[work.recording.network.output].mean())


class _Bill:
    def __init__(self, work: Work, energies: EnergySet, pace: Pace) -> None:
        self._work, self._energies, self._pace = work, energies, pace
        self._label = work.operations.label

    def synops(self) -> Part:
        """Synaptic operations."""
        price = price_of(self._energies, "synop_all_in") or price_of(self._energies, "synop")
        label, note = self._label, ""
        per_event = self._work.chip.arithmetic.get("synops_per_event")
        keys: tuple[str, ...] = ()
        if per_event is not None:
            label, keys = ESTIMATED, ("arithmetic.synops_per_event",)
            note = (
                f"each event makes {per_event.value}, of whatever weight; events of the host that "
                "shift, bias or clear membranes are in neither energy nor time"
            )
        elif "axon_types" in self._work.chip.arithmetic:
            note = "at least: a weight on lines of several axon types is an event on each of them"
        return self._part("synops", "synops", self._work.synops, price, label, note, keys)

    def updates(self) -> Part:
        """Updates of all neurons in use, in every step that the chip is busy with a sample."""
        work = self._work
        n_updates = float(work.n_neurons * work.n_steps)
        if work.is_event_driven:
            note = "neurons change with events alone; that is in the synops"
            return Part("neuron updates", None, "updates", ESTIMATED, None, note=note)
        price = price_of(self._energies, "neuron_update")
        active, inactive = (price_of(self._energies, f"neuron_{s}") for s in ("active", "inactive"))
        if price is not None or active is None or inactive is None:
            return self._part("neuron updates", "updates", n_updates, price, ESTIMATED)
        # Which neurons count as active is not published: those that fire, at the most all.
        spikes = work.spikes
        rest = max(n_updates - spikes, 0.0)
        energy = Range(
            min(active.range.low, inactive.range.low) * n_updates,
            active.range.typical * spikes + inactive.range.typical * rest,
            max(active.range.high, inactive.range.high) * n_updates,
        )
        note = "typical: those that fire are active; low: none, high: all"
        keys = (self._key(active), self._key(inactive))
        return Part("neuron updates", n_updates, "updates", ESTIMATED, energy, False, note, keys)

    def events(self, name: str, operation: str, count: float, unit: str) -> Part:
        """Things that happen once a spike."""
        price = price_of(self._energies, operation)
        return self._part(name, unit, count, price, self._label)

    def messages(self) -> Part:
        """Messages that a spike sends to cores."""
        price = price_of(self._energies, "axon_out") or price_of(self._energies, "spike_in_tile")
        return self._part("axon messages", "messages", self._work.messages, price, ESTIMATED)

    def hops(self) -> Part:
        """Hops of messages between tiles."""
        price = price_of(self._energies, "hop")
        east, north = (price_of(self._energies, f"hop_{way}") for way in ("ew", "ns"))
        hops = self._work.hops
        keys: tuple[str, ...]
        if price is None and east is not None and north is not None:
            keys = (self._key(east), self._key(north))
            each = Range(
                min(east.range.low, north.range.low),
                (east.range.typical + north.range.typical) / 2,
                max(east.range.high, north.range.high),
            )
            note = "typical: as many along each axis"
        elif price is not None:
            each, keys, note = price.range, (self._key(price),), ""
        else:
            return Part("hops", None, "hops", ESTIMATED, None, note=self._no_price)
        if hops is None:
            return Part("hops", None, "hops", ESTIMATED, None, note=self._no_count)
        energy = each.times(hops)
        return Part("hops", hops.typical, "hops", ESTIMATED, energy, False, note, keys)

    def static(self) -> list[Part]:
        """Return what takes power all the time, for as long as one inference takes."""
        powers = [
            ("static", self._leakage(), "low: unused cores are off, if chips can do that"),
            ("active cores", self._active_cores(), ""),
            ("clock", self._clock(), ""),
        ]
        interval = self._pace.interval_us
        parts = []
        for name, (power_mw, keys), note in powers:
            if power_mw is None:
                if name == "static":
                    missing = Part(name, None, "us", ESTIMATED, None, True, self._no_price)
                    parts.append(missing)
            elif interval is None:
                parts.append(Part(name, None, "us", ESTIMATED, None, True, self._pace.note))
            else:
                # mW times us is nJ.
                energy = power_mw.times(interval).times(1e3)
                part = Part(name, interval.typical, "us", ESTIMATED, energy, True, note, keys)
                parts.append(part)
        return parts

    def _leakage(self) -> tuple[Range | None, tuple[str, ...]]:
        whole = power_of(self._energies, "static_mw_per_chip")
        share = power_of(self._energies, "static_mw_per_core")
        on_chips = None if whole is None else whole.range.times(self._work.n_chips)
        on_cores = None if share is None else share.range.times(self._work.n_cores)
        keys = tuple(self._key(p) for p in (whole, share) if p is not None)
        if on_chips is None or on_cores is None:
            return on_chips or on_cores, keys
        low = min(on_chips.low, on_cores.low)
        return Range(low, on_chips.typical, on_chips.high), keys

    def _active_cores(self) -> tuple[Range | None, tuple[str, ...]]:
        each = power_of(self._energies, "active_mw_per_core")
        if each is None:
            return None, ()
        return each.range.times(self._work.n_cores), (self._key(each),)

    def _clock(self) -> tuple[Range | None, tuple[str, ...]]:
        per_mhz = power_of(self._energies, "clock_uw_per_mhz")
        clock = self._work.chip.timing.get("clock_mhz")
        if per_mhz is None or clock is None:
            return None, ()
        power = per_mhz.range.times(range_of(clock)).times(1e-3)
        return power, (self._key(per_mhz), "timing.clock_mhz")

    def _part(
        self,
        name: str,
        unit: str,
        count: float | None,
        price: Price | None,
        label: str,
        note: str = "",
        keys: tuple[str, ...] = (),
    ) -> Part:
        if price is None:
            return Part(name, count, unit, label, None, note=self._no_price)
        if count is None:
            return Part(name, None, unit, label, None, note=self._no_count)
        energy = price.range.times(count)
        return Part(name, count, unit, label, energy, False, note, (self._key(price), *keys))

    def _key(self, price: Price) -> str:
        return f"energy.{self._energies.name}.{price.key}"

    @property
    def _no_price(self) -> str:
        return f"energies {self._energies.name!r} have no such part"

    @property
    def _no_count(self) -> str:
        return "needs a placement that knows it"
