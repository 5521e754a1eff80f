"""Compares what a simulation did with what it must do, spike by spike and step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.backend import ClockedSimulation, Events, Simulation
from whetsim.recording import Recording
from whetsim.testing.cases import Spikes

__all__ = ["Watched", "check_events", "check_recording", "spikes_of"]


LEAD_STEPS = 16
"""How many steps before its first sample a simulator may need to get going."""


class Watched:
    """Keeps what a simulation with a clock hands over, block by block, before any of it is used.

    Parameters
    ----------
    simulation : Simulation
        One without a clock has no events to keep; ``blocks`` stays empty.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.blocks: list[tuple[int, dict[str, Events]]] = []
        """Number of samples and events of each block."""
        if isinstance(simulation, ClockedSimulation):
            engine = simulation.events

            def events(values: NDArray[np.int32]) -> dict[str, Events]:
                result = engine(values)
                self.blocks.append((len(values), result))
                return result

            simulation.events = events  # type: ignore[method-assign]


def spikes_of(recording: Recording) -> Spikes:
    """Return a recording of rasters as sorted ``(sample, step, neuron)`` for each population."""
    return {
        p.name: [(int(i), p.depth, int(n)) for i, n in np.argwhere(recording.raster(p.name))]
        for p in recording.network.populations
    }


def check_recording(expected: Spikes, recording: Recording, where: str) -> None:
    """Check that a recording has exactly the spikes that are expected."""
    actual = spikes_of(recording)
    assert list(actual) == list(expected), f"{where}: other populations than expected"
    for name, spikes in expected.items():
        _same(set(spikes), set(actual[name]), f"{where}, population {name!r}")
        counts = np.bincount([s for s, _, _ in spikes], minlength=recording.n_samples)
        assert np.array_equal(recording.spike_counts[name], counts), f"{where}: counts of {name!r}"


def check_events(expected: Spikes, simulation: Simulation, watched: Watched, where: str) -> None:
    """Check the step of every spike that a simulation with a clock handed over.

    The population of depth d fires for sample i in step ``i * period + d`` of its block, where the
    oracle says so, once, and nowhere else. Only before its first and after its last sample may
    it fire, where no sample has it work.
    """
    if not isinstance(simulation, ClockedSimulation):
        assert not watched.blocks
        return
    first = 0
    for n_samples, events in watched.blocks:
        for population in simulation.network.populations:
            name, depth, period = population.name, population.depth, simulation.period
            steps = events[name].step.astype(np.int64)
            last = (n_samples - 1) * period + depth
            # Sequential, all steps of a sample are its own, and only one of them is to fire in.
            begin, end = (depth, last) if period == 1 else (0, n_samples * period - 1)
            early = int(steps.min(initial=0))
            assert early >= -LEAD_STEPS, (
                f"{where}, population {name!r}: a spike {-early} steps before the block. Spikes "
                "that were handed over must be forgotten."
            )
            inside = (steps >= begin) & (steps <= end)
            found = list(
                zip(steps[inside].tolist(), events[name].neuron[inside].tolist(), strict=True)
            )
            wanted = {
                ((sample - first) * period + step, neuron)
                for sample, step, neuron in expected[name]
                if first <= sample < first + n_samples
            }
            label = f"{where}, population {name!r} of depth {depth}, period {period}"
            _same(wanted, set(found), f"{label}, (step, neuron)")
            assert len(found) == len(set(found)), f"{label}: a neuron fires twice in one step"
        first += n_samples


def _same(expected: set[Any], actual: set[Any], where: str) -> None:
    missing, extra = sorted(expected - actual), sorted(actual - expected)
    assert not missing and not extra, (
        f"{where}: {len(missing)} of {len(expected)} spikes missing, first {missing[:3]}; "
        f"{len(extra)} too many, first {extra[:3]}"
    )
