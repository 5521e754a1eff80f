"""`run_on_chip`: quantize a network, run it in a chip's arithmetic, count the flips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike, NDArray

from whetsim.errors import UnsupportedError
from whetsim.network import SpikingNetwork
from whetsim.recording import Recording
from whetsim.registry import get_backend
from whetsim.runner import run
from whetsim_hardware.chip import Chip
from whetsim_hardware.energy import EnergyEstimate, estimate_energy
from whetsim_hardware.place import place
from whetsim_hardware.quantize import Method, quantize
from whetsim_hardware.quantize_report import Flips, Quantization, flips_between

__all__ = ["ChipRun", "estimate_on_chip", "run_on_chip"]


@dataclass(frozen=True, eq=False)
class ChipRun:
    """A network quantized for a chip and run in the chip's arithmetic.

    Parameters
    ----------
    chip : str
    quantization : Quantization
    recording : Recording
        Emulated; with rasters.
    flips : Flips
        Spikes that are not those of the network before.
    effects : str
        What wrapped or saturated, in words.
    """

    chip: str
    quantization: Quantization
    recording: Recording
    flips: Flips
    effects: str


def run_on_chip(
    network: SpikingNetwork,
    chip: str,
    samples: ArrayLike,
    labels: NDArray[Any] | None,
    calibration: ArrayLike,
    *,
    truth: Recording | None = None,
    bits: int | None = None,
    method: Method = "flips",
    **options: Any,
) -> ChipRun:
    """Quantize a network for a chip and emulate it there.

    Parameters
    ----------
    network : SpikingNetwork
        As mapped; samples that carry values reach the chip as bit planes.
    chip : str
        One that has an emulator, a backend of the same name.
    samples : integer array (n_samples, ...)
    labels : int array (n_samples,), optional
    calibration : integer array (n, ...)
        Samples that the quantizer sees; not those it is judged by.
    truth : Recording, optional
        The run of `network` on `samples` in exact integers, with rasters, in any encoding that
        loses nothing; run here by default.
    bits, method
        See `quantize`.
    **options
        Of the backend.

    Raises
    ------
    WhetsimError
        If the chip cannot hold the network; the text says what it needs.
    """
    quantized = quantize(network, chip, calibration, bits=bits, method=method, encoding="bitplane")
    with get_backend(chip).prepare(quantized.network, **options) as simulation:
        recording = simulation.run(samples, record="rasters")
        effects = str(getattr(simulation, "effects", ""))
    if truth is None:
        truth = run(network, samples, backend="exact", record="rasters")
    flips = flips_between(truth, recording, labels)
    return ChipRun(chip, quantized, recording, flips, effects)


def estimate_on_chip(
    chip: Chip,
    truth: Recording,
    emulated: Recording | None = None,
    *,
    energy_set: str | None = None,
    step_us: float | None = None,
) -> EnergyEstimate:
    """Place what ran on a chip, and estimate what one inference costs.

    Parameters
    ----------
    chip : Chip
    truth : Recording
        Run in exact integers, whose spikes count where the chip has no emulator.
    emulated : Recording, optional
        Run in the chip's arithmetic.
    energy_set, step_us
        See `estimate_energy`.
    """
    recording = truth if emulated is None else emulated
    if chip.energy_refused:
        raise UnsupportedError(f"chip {chip.name!r}: {chip.energy_refused}")
    placement = place(recording.network, chip)
    return estimate_energy(recording, chip, placement, energy_set=energy_set, step_us=step_us)
