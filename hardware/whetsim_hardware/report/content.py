"""What the report shows, computed: runs, comparisons, chips, energies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from whetsim.coding import encode_network
from whetsim.comparison import Agreement, Difference, agreement, compare
from whetsim.errors import WhetsimError
from whetsim.mapping import map_to_spikes
from whetsim.margin import Margins, margins
from whetsim.model import Model
from whetsim.model_comparison import ModelComparison, compare_with_model
from whetsim.network import SpikingNetwork
from whetsim.recording import Recording
from whetsim.registry import backend_names, get_backend
from whetsim.runner import run
from whetsim_hardware.chip import chip_names, load_chip
from whetsim_hardware.chip_run import ChipRun, estimate_on_chip, run_on_chip
from whetsim_hardware.energy import EnergyEstimate
from whetsim_hardware.energy_ann import AnnEstimate, ann_energy
from whetsim_hardware.fit import Fit, fit
from whetsim_hardware.sweep import Sweep, sweep

__all__ = ["ReportContent", "gather"]

SWEEP_BITS = (1, 2, 3, 4, 5, 6, 8, 16)
SWEEP_SAMPLES = range(100, 501)
"""The sweep sees as many as its work allows: a large network would take minutes otherwise."""
SWEEP_SYNOPS = 2**28
MARGIN_SAMPLES = 500

Calibration = tuple[NDArray[Any], NDArray[Any] | None]


@dataclass(frozen=True, eq=False)
class ReportContent:
    """Everything that the page shows.

    Parameters
    ----------
    model : Model
    network : SpikingNetwork
    labels : int array (n_samples,), optional
    runs : mapping of str to Recording
        Simulators; the first is backend ``exact``.
    missing : mapping of str to str
        Simulators that did not take part, with the reason.
    agreement : Agreement
    with_model : ModelComparison
    margins : Margins
    chips : mapping of str to ChipRun
    first_flips : mapping of str to Difference
        For each of these chips that flipped spikes, the first of them.
    not_on_chips : mapping of str to str
        Chips with an emulator that the network does not fit, with the reason.
    fit : Fit
    sweep : Sweep, optional
    no_sweep : str
        Why there is none.
    energies : mapping of str to EnergyEstimate
    no_energy : mapping of str to str
        Chips without an estimate, with the reason.
    references : tuple of AnnEstimate
    data : str
        What the samples are.
    calibration : str
        What the weights were quantized with.
    """

    model: Model
    network: SpikingNetwork
    labels: NDArray[Any] | None
    runs: Mapping[str, Recording]
    missing: Mapping[str, str]
    agreement: Agreement
    with_model: ModelComparison
    margins: Margins
    chips: Mapping[str, ChipRun]
    first_flips: Mapping[str, Difference]
    not_on_chips: Mapping[str, str]
    fit: Fit
    sweep: Sweep | None
    no_sweep: str
    energies: Mapping[str, EnergyEstimate]
    no_energy: Mapping[str, str]
    references: tuple[AnnEstimate, ...]
    data: str
    calibration: str

    @property
    def truth(self) -> Recording:
        """The run in exact integers."""
        return self.runs["exact"]


def gather(
    model: Model,
    samples: NDArray[Any],
    labels: NDArray[Any] | None,
    calibration: Calibration,
    *,
    data: str = "",
    calibration_data: str = "",
    tell: Callable[[str], None] = lambda text: None,
    progress: bool = False,
) -> ReportContent:
    """Run a network on all that is there, and collect what the page shows.

    Parameters
    ----------
    model : Model
    samples : integer array (n_samples, ...)
    labels : int array (n_samples,), optional
    calibration : (samples, labels)
        For quantization; other samples than those it is judged by.
    data, calibration_data : str
        What they are, for the page.
    tell : callable
        Called with a few words before each part of the work.
    progress : bool
        As for `whetsim.run`.

    Raises
    ------
    WhetsimError
        If the network cannot be mapped or the samples do not fit it. Simulators and chips that
        refuse it do not raise; the page says why.
    """
    labels = labels if model.readout is not None else None
    network = map_to_spikes(model)
    runs, missing = _simulated(network, samples, tell, progress)
    tell("comparing")
    agrees = agreement(runs)
    with_model = compare_with_model(model, runs["exact"], samples, labels)
    close = margins(network, samples[:MARGIN_SAMPLES])
    # Chips take plain spikes alone.
    plain = run(
        encode_network(network, "bitplane"),
        samples,
        backend="exact",
        record="rasters",
    )
    chips, not_on_chips = _on_chips(network, plain, samples, labels, calibration[0], tell)
    firsts = {name: compare(plain, c.recording).first for name, c in chips.items()}
    tell("placing on chips")
    fits = fit(network)
    tell("sweeping weight widths")
    widths, no_sweep = _swept(network, calibration, progress)
    tell("estimating energies")
    energies, no_energy = _energies(plain, chips, not_on_chips)
    return ReportContent(
        model=model,
        network=network,
        labels=labels,
        runs=runs,
        missing=missing,
        agreement=agrees,
        with_model=with_model,
        margins=close,
        chips=chips,
        first_flips={name: first for name, first in firsts.items() if first is not None},
        not_on_chips=not_on_chips,
        fit=fits,
        sweep=widths,
        no_sweep=no_sweep,
        energies=energies,
        no_energy=no_energy,
        references=tuple(_references(plain)),
        data=data,
        calibration=calibration_data,
    )


def _simulated(
    network: SpikingNetwork,
    samples: NDArray[Any],
    tell: Callable[[str], None],
    progress: bool,
) -> tuple[dict[str, Recording], dict[str, str]]:
    """Return runs of exact integers and the simulators; PyNN's backends would repeat these."""
    runs, refused = {}, {}
    for name in dict.fromkeys(("exact", *backend_names())):
        engine = get_backend(name)
        if name != "exact" and (engine.capabilities.kind != "simulated" or name.startswith("pynn")):
            continue
        tell(f"running on {name}")
        try:
            engine.versions()
            runs[name] = run(network, samples, backend=name, record="rasters", progress=progress)
        except WhetsimError as error:
            if name == "exact":
                raise
            refused[name] = str(error)
    return runs, refused


def _on_chips(
    network: SpikingNetwork,
    plain: Recording,
    samples: NDArray[Any],
    labels: NDArray[Any] | None,
    calibration: NDArray[Any],
    tell: Callable[[str], None],
) -> tuple[dict[str, ChipRun], dict[str, str]]:
    runs, refused = {}, {}
    for name in chip_names():
        if load_chip(name).status != "full":
            continue
        tell(f"emulating {name}")
        try:
            runs[name] = run_on_chip(network, name, samples, labels, calibration, truth=plain)
        except WhetsimError as error:
            refused[name] = str(error)
    return runs, refused


def _swept(
    network: SpikingNetwork, calibration: Calibration, progress: bool
) -> tuple[Sweep | None, str]:
    samples, labels = calibration
    synapses = sum(p.connectivity.n_synapses for p in network.projections)
    n = min(max(SWEEP_SYNOPS // max(synapses, 1), SWEEP_SAMPLES[0]), SWEEP_SAMPLES[-1])
    labels = None if labels is None or network.readout is None else labels[:n]
    try:
        found = sweep(network, samples[:n], labels, bits=SWEEP_BITS, progress=progress)
    except WhetsimError as error:
        return None, str(error)
    return found, ""


def _energies(
    plain: Recording, chips: Mapping[str, ChipRun], not_on_chips: Mapping[str, str]
) -> tuple[dict[str, EnergyEstimate], dict[str, str]]:
    """Return estimates: of the emulated run where there is an emulator, else of exact integers."""
    found, refused = {}, {}
    for name in chip_names():
        chip = load_chip(name)
        if chip.status == "reference" or not plain.n_samples:
            continue
        if name in not_on_chips and not chip.energy_refused:
            refused[name] = not_on_chips[name]
            continue
        emulated = chips[name].recording if name in chips else None
        try:
            found[name] = estimate_on_chip(chip, plain, emulated)
        except WhetsimError as error:
            refused[name] = str(error)
    return found, refused


def _references(plain: Recording) -> Iterator[AnnEstimate]:
    if not plain.n_samples:
        return
    for name in chip_names():
        chip = load_chip(name)
        if chip.status == "reference" and chip.energy:
            yield ann_energy(plain.network, plain, chip)
