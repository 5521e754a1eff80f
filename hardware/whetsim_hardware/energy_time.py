"""How long one inference takes on a chip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

from whetsim.errors import UnsupportedError, quote
from whetsim_hardware.energy_parts import Range, range_of, total
from whetsim_hardware.energy_work import Work

__all__ = ["Pace", "pace_of"]


@dataclass(frozen=True)
class Pace:
    """Time of one inference.

    Parameters
    ----------
    interval_us : Range or None
        From one result to the next; None if it is not known.
    latency_us : Range or None
        From a sample to its result.
    note : str
        Where the time is from, or why there is none.
    keys : tuple of str
        Names of the facts it was computed with.
    """

    interval_us: Range | None
    latency_us: Range | None
    note: str
    keys: tuple[str, ...] = ()


def pace_of(work: Work, step_us: float | None) -> Pace:
    """Return how long an inference takes.

    A pipelined run has a result each step and `depth` + 1 steps from sample to result. In a
    sequential one each population gets its spikes in one of these steps alone.

    Raises
    ------
    UnsupportedError
        If `step_us` is no positive number, shorter than the chip can, or the chip has no step.
    """
    chip = work.chip
    if work.is_event_driven:
        if step_us is not None:
            raise UnsupportedError(
                f"step_us: chip {chip.name!r} has no step, its time follows from its events. "
                "Leave step_us out."
            )
        return _event_driven(work)
    if step_us is None and "step_us" not in chip.timing:
        return _by_work(work)
    step, note, keys = _step(work, step_us)
    return Pace(step.times(work.n_steps), step.times(work.depth + 1), note, keys)


def _event_driven(work: Work) -> Pace:
    timing = work.chip.timing
    if "cycles_per_synop" in timing and "clock_mhz" in timing:
        cycles, clock = range_of(timing["cycles_per_synop"]), range_of(timing["clock_mhz"])
        fast = Range(
            cycles.low / clock.high, cycles.typical / clock.typical, cycles.high / clock.low
        )
        time = fast.times(work.synops)
        keys = ("timing.cycles_per_synop", "timing.clock_mhz")
        return Pace(time, time, "cycles of all synaptic operations", keys)
    if "synops_per_us" in timing:
        rate = range_of(timing["synops_per_us"])
        time = Range(1 / rate.high, 1 / rate.typical, 1 / rate.low).times(work.synops)
        note = "synaptic operations one after the other"
        return Pace(time, time, note, ("timing.synops_per_us",))
    return Pace(None, None, "no time of a synaptic operation is published")


def _step(work: Work, step_us: float | None) -> tuple[Range, str, tuple[str, ...]]:
    """Return the time of a step that is given, where it is from and the facts it is made of."""
    timing = work.chip.timing
    if step_us is None:
        step = range_of(timing["step_us"])
        return step, f"a step of {step.typical:g} us", ("timing.step_us",)
    step_us = _checked_step(work, step_us)
    note = f"a step of {step_us:g} us, as asked for"
    if "step_us" in timing and range_of(timing["step_us"]).typical != step_us:
        own = range_of(timing["step_us"]).typical
        note += f"; powers are those at the chip's own {own:g} us"
    return Range(step_us, step_us, step_us), note, ()


def _by_work(work: Work) -> Pace:
    """Return the time of steps that end when the busiest core has done its work."""
    timing = work.chip.timing
    needed = ("barrier_ns", "synop_ns", "neuron_active_ns", "neuron_inactive_ns")
    if any(key not in timing for key in needed):
        return Pace(None, None, "the chip file has no step; give step_us")
    barrier, synop, active, inactive = (range_of(timing[key]) for key in needed)
    update = Range(inactive.low, active.typical, active.high)
    loads = list(work.loads())

    def step(at: int | None) -> Range:
        """Return the time of step `at` of one sample alone; None: of one with samples in all."""
        times = []
        for n_neurons, synops in loads:
            n_synops = sum(synops.values()) if at is None else synops.get(at, 0.0)
            times.append(update.times(n_neurons).plus(synop.times(n_synops)))
        busiest = max(times, key=lambda t: t.typical, default=Range(0.0, 0.0, 0.0))
        return barrier.plus(busiest).times(1e-3)

    keys = tuple(f"timing.{key}" for key in needed)
    note = "a barrier and the neurons and synaptic operations of the busiest core, each step"
    if work.recording.schedule == "pipelined":
        each = step(None)
        return Pace(each, each.times(work.depth + 1), note, keys)
    whole = total(step(at) for at in range(work.depth + 1))
    return Pace(whole, whole, note, keys)


def _checked_step(work: Work, step_us: float) -> float:
    is_number = isinstance(step_us, Real) and not isinstance(step_us, bool)
    if not is_number or not math.isfinite(step_us) or step_us <= 0:
        raise UnsupportedError(f"step_us is {quote(step_us)}; need a number of microseconds > 0.")
    timing = work.chip.timing
    if "step_min_us" in timing:
        shortest = range_of(timing["step_min_us"]).typical
    elif "barrier_ns" in timing:
        shortest = range_of(timing["barrier_ns"]).low * 1e-3
    else:
        return float(step_us)
    if step_us < shortest:
        raise UnsupportedError(
            f"step_us is {step_us:g}; chip {work.chip.name!r} was shown to take at least "
            f"{shortest:g} us."
        )
    return float(step_us)
