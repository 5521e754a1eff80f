"""`Quantization`: what became of a network when its weights became whole numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.network import SpikingNetwork
from whetsim.recording import Recording
from whetsim.runner import run

__all__ = ["Flips", "PopulationReport", "Quantization", "count_flips", "flips_between"]


@dataclass(frozen=True)
class Flips:
    """Spikes of a network that are not those of another, on the same samples.

    Parameters
    ----------
    n_samples : int
    by_population : mapping of str to int
        Spikes too many and spikes missing, together.
    accuracy_before, accuracy_after : float, optional
        Of the two networks, where labels were given.
    """

    n_samples: int
    by_population: Mapping[str, int]
    accuracy_before: float | None
    accuracy_after: float | None

    @property
    def total(self) -> int:
        """Flipped spikes of all populations."""
        return sum(self.by_population.values())


@dataclass(frozen=True)
class PopulationReport:
    """What became of one population.

    Parameters
    ----------
    name : str
    neurons, weights : int
        Weights as they are stored, those of a convolution once; zeros left out.
    flips : int
        Spikes on the calibration samples that are not those of the original network, whether by
        its own weights or by what its sources already flipped.
    flip_rate : float
        Flips a neuron and sample.
    margin_before, margin_after : float
        Mean distance of the sums from the threshold, on the scale where the threshold is 0.5.
    bits : int
        Width of its weights; 0 if it was left as it was.
    kept : bool
        Its weights were whole numbers in range, up to a factor, and decide as before.
    saturated : int
        Weights that lie outside the range at the scale chosen, by more than half a step.
    scale_low, scale_high : float
        Range of the scales: a weight is about its scale times the whole number.
    threshold_shift : float
        Mean absolute change of the threshold of 0.5 less bias.
    exposed : int
        Neurons that some input, on the calibration samples or not, could make overflow.
    """

    name: str
    neurons: int
    weights: int
    flips: int
    flip_rate: float
    margin_before: float
    margin_after: float
    bits: int
    kept: bool
    saturated: int
    scale_low: float
    scale_high: float
    threshold_shift: float
    exposed: int


@dataclass(frozen=True, eq=False)
class Quantization:
    """A network with whole numbers for weights, and how it differs from the original.

    Parameters
    ----------
    network : SpikingNetwork
        Population names, shapes and depths as before.
    chip : str, optional
        Name of the chip that its numbers are for.
    bits : int
        Width of the weights, at most.
    method : str
        ``flips`` or ``max``.
    n_samples : int
        Calibration samples.
    populations : tuple of PopulationReport
    accuracy_before, accuracy_after : float, optional
        On the calibration samples, where labels were given.
    """

    network: SpikingNetwork
    chip: str | None
    bits: int
    method: str
    n_samples: int
    populations: tuple[PopulationReport, ...]
    accuracy_before: float | None = None
    accuracy_after: float | None = None

    def __getitem__(self, name: str) -> PopulationReport:
        """Return the report of the population called `name`."""
        for population in self.populations:
            if population.name == name:
                return population
        raise KeyError(name)

    @property
    def flips(self) -> int:
        """Flipped spikes of all populations on the calibration samples."""
        return sum(p.flips for p in self.populations)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the network as plain values."""
        return {
            "chip": self.chip,
            "bits": self.bits,
            "method": self.method,
            "samples": self.n_samples,
            "flips": self.flips,
            "accuracy_before": self.accuracy_before,
            "accuracy_after": self.accuracy_after,
            "fingerprint": self.network.fingerprint,
            "populations": [asdict(p) for p in self.populations],
        }

    def __str__(self) -> str:
        head = f"{'population':24} {'neurons':>8} {'bits':>4} {'flips':>9} {'a neuron':>9} "
        head += f"{'margin':>15} {'saturated':>9} {'scale':>19} {'exposed':>7}"
        lines = [head, *(_line(p) for p in self.populations)]
        where = "" if self.chip is None else f" for {self.chip}"
        lines.append(
            f"{self.bits} bits{where}, method {self.method}: {self.flips:,} flipped spikes on "
            f"{self.n_samples:,} samples."
        )
        if self.accuracy_before is not None and self.accuracy_after is not None:
            lines.append(
                f"accuracy: {self.accuracy_before:.2%} before, {self.accuracy_after:.2%} after."
            )
        return "\n".join(lines)


def _line(p: PopulationReport) -> str:
    bits = "kept" if p.kept else str(p.bits or "-")
    scales = f"{p.scale_low:.3g}..{p.scale_high:.3g}"
    return (
        f"{p.name:24} {p.neurons:8,} {bits:>4} {p.flips:9,} {p.flip_rate:9.2e} "
        f"{p.margin_before:7.4f}{p.margin_after:8.4f} {p.saturated:9,} {scales:>19} {p.exposed:7,}"
    )


def count_flips(
    original: SpikingNetwork,
    quantized: SpikingNetwork,
    samples: ArrayLike,
    labels: NDArray[Any] | None = None,
) -> Flips:
    """Run two networks in exact integers and count where their spikes differ.

    Parameters
    ----------
    original, quantized : SpikingNetwork
        With the same populations.
    samples : integer array (n_samples, ...)
    labels : int array (n_samples,), optional
        For the accuracy; the network needs a readout.

    Raises
    ------
    SampleError
        If samples or labels do not fit.
    """
    recordings = [run(n, samples, record="rasters") for n in (original, quantized)]
    return flips_between(recordings[0], recordings[1], labels)


def flips_between(before: Recording, after: Recording, labels: NDArray[Any] | None = None) -> Flips:
    """Count where two recordings with rasters differ."""
    by_population = {
        name: _differing(bits, after.packed[name]) for name, bits in before.packed.items()
    }
    accuracy = [None if labels is None else r.accuracy(labels) for r in (before, after)]
    return Flips(before.n_samples, MappingProxyType(by_population), accuracy[0], accuracy[1])


_ONES = np.array([i.bit_count() for i in range(256)], dtype=np.uint8)


def _differing(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    return int(_ONES[one ^ other].sum(dtype=np.int64))
