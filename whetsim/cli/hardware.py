"""Commands about chips: chips, fit, energy, sweep and report."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whetsim.cli.app import app, print_json, show
from whetsim.cli.inputs import data_name, load_network, samples_of
from whetsim.cli.on_chips import (
    CALIBRATION,
    calibration_name,
    calibration_of,
    page_path,
    report_facts,
    tell_stage,
    write_page,
)
from whetsim.cli.options import (
    AsJson,
    AssumeSharp,
    Data,
    DataDir,
    InputRange,
    InputScale,
    Levels,
    Limit,
    Net,
    Split,
)
from whetsim.errors import (
    SampleError,
    UnknownNameError,
    UnsupportedError,
    WhetsimError,
    did_you_mean,
    quote,
)

if TYPE_CHECKING:
    from whetsim_hardware.chip import Chip

Chips = Annotated[
    str | None,
    typer.Option(help="Names with commas between, or paths of .toml files; all by default."),
]
Bits = Annotated[str, typer.Option(help="Widths of weights: 1..8, or 2,4,8.")]


@app.command()
def chips(
    name: Annotated[str | None, typer.Argument(help="Show every fact about this chip.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show which chips are described, or all that a chip's file says, with its sources."""
    from whetsim_hardware.chip import chip_names, load_chip
    from whetsim_hardware.chip_tables import chip_facts, chip_table, chips_table, source_lines

    if name is not None:
        chip = load_chip(name)
        if as_json:
            print_json(chip_facts(chip))
        else:
            show(chip_table(chip), *source_lines(chip))
        return
    listed = [load_chip(n) for n in chip_names()]
    if as_json:
        print_json({"chips": [chip_facts(chip) for chip in listed]})
    else:
        show(chips_table(listed))


@app.command()
def fit(
    net: Net,
    chips: Chips = None,
    input_scale: InputScale = None,
    input_range: InputRange = None,
    assume_sharp: AssumeSharp = False,
    as_json: AsJson = False,
) -> None:
    """Place a network on every chip: cores, chips, the fullest resources, or why it does not fit.

    The exit status is 1 if it does not fit a chip that --chips names.
    """
    from whetsim.mapping import map_to_spikes
    from whetsim_hardware.fit import fit as fit_on

    network = map_to_spikes(
        load_network(net, input_scale, input_range, assume_sharp, guess_input=True)
    )
    found = fit_on(network, _named(chips))
    if as_json:
        print_json(found.to_dict())
    else:
        show(str(found))
    if chips is not None and not all(c.fits for c in found.chips):
        raise typer.Exit(1)


@app.command()
def energy(
    net: Net,
    data: Data = None,
    chips: Chips = None,
    limit: Limit = 1000,
    levels: Levels = None,
    data_dir: DataDir = None,
    split: Split = "test",
    sources: Annotated[
        bool, typer.Option("--sources", help="Print where every figure comes from.")
    ] = False,
    energy_set: Annotated[
        str | None, typer.Option("--set", help="A chip's set of energies; its first by default.")
    ] = None,
    step_us: Annotated[
        float | None, typer.Option(help="Time of a step; the chip's own by default.")
    ] = None,
    input_scale: InputScale = None,
    input_range: InputRange = None,
    assume_sharp: AssumeSharp = False,
    as_json: AsJson = False,
) -> None:
    """Estimate what one inference costs on chips, and as an artificial network on processors.

    Spikes are counted in a run: emulated where the chip has an emulator, else in exact integers.
    Energies are published ones. Chips without any, or that cannot hold the network, are named with
    the reason; the exit status is then 1 if --chips names them.
    """
    from whetsim.coding import encode_network
    from whetsim.mapping import map_to_spikes
    from whetsim.runner import run
    from whetsim_hardware.chip import chip_names, load_chip
    from whetsim_hardware.chip_run import estimate_on_chip, run_on_chip
    from whetsim_hardware.energy_ann import ann_energy

    chosen = _with_energies(_all_or(chips), energy_set, chips is not None)
    _check_step(step_us)
    model = load_network(net, input_scale, input_range, assume_sharp)
    images, _ = samples_of(model, data, data_dir, split, limit, levels)
    if not len(images):
        raise SampleError("energy: no samples to count spikes of. Give --limit 1 or more.")
    calibration, _ = calibration_of(model, data, data_dir, levels)
    network = map_to_spikes(model)
    # Chips take plain spikes alone.
    spiking = encode_network(network, "bitplane")
    plain = run(spiking, images, backend="exact", record="rasters")
    emulators = [load_chip(name) for name in chip_names() if load_chip(name).status == "full"]
    estimates: list[Any] = []
    refused: dict[str, str] = {}
    for chip in chosen:
        try:
            if chip.status == "reference":
                estimates.append(ann_energy(spiking, plain, chip, energy_set=energy_set))
                continue
            emulated = None
            if chip in emulators:
                on_chip = run_on_chip(network, chip.name, images, None, calibration, truth=plain)
                emulated = on_chip.recording
            estimates.append(
                estimate_on_chip(chip, plain, emulated, energy_set=energy_set, step_us=step_us)
            )
        except WhetsimError as error:
            refused[chip.name] = str(error)
    if as_json:
        print_json({"estimates": [e.to_dict() for e in estimates], "refused": refused})
    else:
        for estimate in estimates:
            show(str(estimate), *([estimate.sources()] if sources else []), "")
        for name, reason in refused.items():
            show(f"{name}: no estimate. {reason}")
    if chips is not None and refused:
        raise typer.Exit(1)


@app.command()
def sweep(
    net: Net,
    data: Data = None,
    bits: Bits = "1..8",
    chip: Annotated[
        str | None, typer.Option(help="Obey this chip's rules; only the width by default.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="flips (fewest flipped spikes) or max (largest weight).")
    ] = "flips",
    limit: Limit = CALIBRATION,
    levels: Levels = None,
    data_dir: DataDir = None,
    split: Split = "train",
    input_scale: InputScale = None,
    input_range: InputRange = None,
    assume_sharp: AssumeSharp = False,
    as_json: AsJson = False,
) -> None:
    """Round the weights to fewer and fewer bits: flipped spikes, accuracy, smallest safe widths."""
    from whetsim.mapping import map_to_spikes
    from whetsim_hardware.chip import load_chip
    from whetsim_hardware.sweep import sweep as sweep_over

    widths = _widths(bits)
    obeyed = None if chip is None else load_chip(chip)
    model = load_network(net, input_scale, input_range, assume_sharp)
    images, labels = samples_of(model, data, data_dir, split, limit, levels)
    found = sweep_over(
        map_to_spikes(model),
        images,
        labels if model.readout is not None else None,
        bits=widths,
        chip=obeyed,
        method=method,  # type: ignore[arg-type]
        progress=True,
    )
    if as_json:
        print_json(found.to_dict())
    else:
        show(str(found))


@app.command()
def report(
    net: Net,
    data: Data = None,
    out: Annotated[str, typer.Option("--out", "-o", help="File to write.")] = "report.html",
    limit: Limit = 1000,
    levels: Levels = None,
    data_dir: DataDir = None,
    split: Split = "test",
    input_scale: InputScale = None,
    input_range: InputRange = None,
    assume_sharp: AssumeSharp = False,
    as_json: AsJson = False,
) -> None:
    """Write one page that shows a network: spikes, agreement, margins, chips, energy, sources.

    The page loads nothing; it can be mailed. Takes about a minute for a small network. The exit
    status is 1 if a spike differs between simulators; the page is written all the same.
    """
    from whetsim_hardware.report import gather, render

    path = page_path(out, net, data)
    model = load_network(net, input_scale, input_range, assume_sharp)
    images, labels = samples_of(model, data, data_dir, split, limit, levels)
    calibration = calibration_of(model, data, data_dir, levels)
    content = gather(
        model,
        images,
        labels,
        calibration,
        data=f"{os.path.basename(data_name(model, data))}, {split}",
        calibration_data=calibration_name(model, data, len(calibration[0])),
        tell=tell_stage,
        progress=True,
    )
    write_page(path, render(content))
    if as_json:
        print_json(report_facts(content, out, path.stat().st_size))
    else:
        show(f"wrote {out}: {path.stat().st_size:,} bytes")
    if not content.agreement.agrees:
        raise typer.Exit(1)


def _named(chips: str | None) -> list[str] | None:
    if chips is None:
        return None
    names = [name.strip() for name in chips.split(",") if name.strip()]
    if not names:
        raise UnsupportedError("chips: none named. Give --chips loihi,truenorth for example.")
    return names


def _all_or(chips: str | None) -> list[Chip]:
    from whetsim_hardware.chip import chip_names, load_chip

    return [load_chip(name) for name in _named(chips) or chip_names()]


def _with_energies(chips: list[Chip], energy_set: str | None, named: bool) -> list[Chip]:
    """Return the chips that have a set of energies of this name; all of them must if named."""
    if energy_set is None:
        return chips
    having = [chip for chip in chips if energy_set in chip.energy]
    lacking = [chip for chip in chips if chip not in having]
    if not having or (named and lacking):
        known = sorted({name for chip in chips for name in chip.energy})
        raise UnknownNameError(
            f"set: no energies named {quote(energy_set)} for "
            f"{', '.join(chip.name for chip in lacking)}; there are: {', '.join(known) or 'none'}."
            f"{did_you_mean(energy_set, known)}"
        )
    return having


def _check_step(step_us: float | None) -> None:
    if step_us is not None and not 0 < step_us < math.inf:
        raise UnsupportedError(f"step-us: need a number of microseconds > 0 (got {step_us:g}).")


def _widths(text: str) -> Sequence[int]:
    """Return the widths that '1..8' or '2,4,8' means."""
    wrong = f"bits: need widths of 1 to 16 (got {quote(text)}; for example 1..8, or 2,4,8)."
    first, dots, last = text.partition("..")
    parts = [first, last] if dots else text.split(",")
    if not all(re.fullmatch(" *[0-9]{1,2} *", part) for part in parts):
        raise UnsupportedError(wrong)
    numbers = [int(part) for part in parts]
    if not all(1 <= n <= 16 for n in numbers):
        raise UnsupportedError(wrong)
    if dots and numbers[0] > numbers[1]:
        raise UnsupportedError(
            f"bits: {quote(text)} is no width. Give the smaller one first: "
            f"{numbers[1]}..{numbers[0]}."
        )
    return range(numbers[0], numbers[1] + 1) if dots else numbers
