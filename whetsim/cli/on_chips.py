"""What commands that put networks on chips share."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whetsim.cli.app import Doing
from whetsim.cli.inputs import data_name, samples_of
from whetsim.errors import SampleError

if TYPE_CHECKING:
    from whetsim.model import Model
    from whetsim.network import SpikingNetwork
    from whetsim_hardware.report import ReportContent

__all__ = [
    "CALIBRATION",
    "calibration_name",
    "calibration_of",
    "for_chip",
    "is_emulated",
    "page_path",
    "report_facts",
    "tell_stage",
    "write_page",
]

CALIBRATION = 1000
"""Samples that the quantizer sees."""


def is_emulated(backend: str) -> bool:
    """Return whether a backend is a chip's arithmetic, which takes quantized networks."""
    from whetsim.registry import get_backend

    return get_backend(backend).capabilities.kind == "emulated"


def for_chip(
    model: Model,
    chip: str,
    bits: int | None,
    data: str | None,
    data_dir: str | None,
    levels: str | None,
) -> tuple[SpikingNetwork, dict[str, Any]]:
    """Return a network quantized for a chip, and what that changed."""
    from whetsim.mapping import map_to_spikes
    from whetsim_hardware.quantize import quantize

    calibration, labels = calibration_of(model, data, data_dir, levels)
    found = quantize(
        map_to_spikes(model),
        chip,
        calibration,
        bits=bits,
        encoding="bitplane",
        labels=labels if model.readout is not None else None,
        progress=True,
    )
    told = found.to_dict()
    return found.network, told


def calibration_of(
    model: Model, data: str | None, data_dir: str | None, levels: str | None
) -> tuple[Any, Any]:
    """Return samples and labels that the quantizer may see: training ones where there are any."""
    split = "test" if _has_one_split(model, data) else "train"
    return samples_of(model, data, data_dir, split, CALIBRATION, levels)


def calibration_name(model: Model, data: str | None, n_samples: int) -> str:
    """Say which samples `calibration_of` returns."""
    if _has_one_split(model, data):
        return f"the first {n_samples:,} samples of the same file"
    return f"the first {n_samples:,} training samples"


def _has_one_split(model: Model, data: str | None) -> bool:
    """Return whether samples come from a file of the user's own, which has no training ones."""
    from whetsim import datasets

    return data_name(model, data) not in datasets.NAMES


def page_path(out: str, *inputs: str | None) -> Path:
    """Return where a page is to be written, after a look at whether it can be."""
    path = Path(os.path.realpath(out))
    if not path.parent.is_dir():
        raise SampleError(f"{out}: its folder does not exist. Make it first.")
    if out.endswith(("/", os.sep)) or (path.exists() and not path.is_file()):
        raise SampleError(f"{out}: no file that could be written. Give --out report.html.")
    if not os.access(path.parent, os.W_OK):
        raise SampleError(f"{out}: no right to write in its folder. Give another --out.")
    if any(path == Path(os.path.realpath(read)) for read in inputs if read is not None):
        raise SampleError(f"{out}: this is a file to read. Give another --out.")
    return path


def write_page(path: Path, page: str) -> None:
    """Write a page that appears complete or not at all."""
    from whetsim.formats.native import write_whole

    try:
        write_whole(path, page.encode("utf-8", "replace"))
    except OSError as error:
        raise SampleError(f"{path}: cannot be written ({error.strerror}).") from None


def tell_stage(text: str) -> None:
    """Say on a terminal what is under way, and remember it for the message after Ctrl-C."""
    Doing.now = f" while {text}; nothing was written"
    if sys.stderr.isatty():
        print(f"{text} ...", file=sys.stderr)


def report_facts(content: ReportContent, out: str, n_bytes: int) -> dict[str, Any]:
    """Return what a report found, in short."""
    labels, truth = content.labels, content.truth
    known = labels is not None and truth.n_samples > 0
    return {
        "out": out,
        "bytes": n_bytes,
        "network": content.model.name,
        "fingerprint": content.network.graded_fingerprint,
        "samples": truth.n_samples,
        "accuracy": truth.accuracy(labels) if known and labels is not None else None,
        "runs": list(content.runs),
        "missing": dict(content.missing),
        "agrees": content.agreement.agrees,
        "flips": {name: c.flips.total for name, c in content.chips.items()},
        "not_on_chips": dict(content.not_on_chips),
        "fits": {c.chip: c.fits for c in content.fit.chips},
        "energy_pj": {n: e.across_sets_pj._asdict() for n, e in content.energies.items()},
        "no_energy": dict(content.no_energy),
    }
