"""Plain facts about networks and runs, as values that JSON can hold. Tables are made of these."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from numpy.typing import NDArray

from whetsim import layers as L
from whetsim.comparison import Agreement, Comparison
from whetsim.diagnosis import Finding
from whetsim.errors import WhetsimError
from whetsim.margin import Margins
from whetsim.model import Model
from whetsim.model_comparison import ModelComparison
from whetsim.network import SpikingNetwork
from whetsim.recording import Recording
from whetsim.registry import get_backend
from whetsim.report.diary_file import DiaryEntry, DiaryFile

__all__ = [
    "agreement_facts",
    "diary_facts",
    "finding_facts",
    "margin_facts",
    "model_comparison_facts",
    "model_facts",
    "multiply_adds",
    "network_facts",
    "run_facts",
]


def multiply_adds(model: Model) -> dict[str, int]:
    """Return the multiply-adds of each affine layer for one sample, padding not counted out."""
    result = {}
    for layer in model.layers:
        out = math.prod(model.shapes[layer.name])
        match layer:
            case L.Dense():
                result[layer.name] = int(layer.weight.size)
            case L.Convolution():
                result[layer.name] = out * math.prod(layer.weight.shape[:-1])
            case L.DepthwiseConv2D():
                result[layer.name] = out * math.prod(layer.weight.shape[:2])
            case L.Conv2DTranspose():
                source = math.prod(model.shapes[layer.inputs[0]][:2])
                result[layer.name] = source * int(layer.weight.size)
    return result


def model_facts(model: Model) -> dict[str, Any]:
    """Return what a trained network consists of."""
    macs = multiply_adds(model)
    spec = model.input
    readout = None
    if model.readout is not None:
        kind = "key" if model.readout.key is not None else "decoder"
        readout = {
            "kind": kind,
            "outputs": model.readout.n_outputs,
            "classes": model.readout.n_classes,
        }
    return {
        "name": model.name,
        "input": {
            "shape": list(spec.shape),
            "low": spec.low,
            "high": spec.high,
            "scale": spec.scale,
        },
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "inputs": list(layer.inputs),
                "shape": list(model.shapes[layer.name]),
                "parameters": layer.n_parameters,
                "multiply_adds": macs.get(layer.name, 0),
                "weights": _weight_range(layer),
            }
            for layer in model.layers
        ],
        "output": model.output,
        "readout": readout,
        "parameters": model.n_parameters,
        "multiply_adds": sum(macs.values()),
        "metadata": dict(model.metadata),
    }


def _weight_range(layer: L.Layer) -> list[float] | None:
    weight = getattr(layer, "weight", None)
    if weight is None or not weight.size:
        return None
    return [float(weight.min()), float(weight.max())]


def finding_facts(finding: Finding) -> dict[str, str]:
    """Return one finding of the diagnosis."""
    return asdict(finding)


def network_facts(network: SpikingNetwork) -> dict[str, Any]:
    """Return what a spiking network consists of."""
    populations = []
    for p in network.populations:
        into = list(network.into(p.name))
        populations.append(
            {
                "name": p.name,
                "shape": list(p.shape),
                "neurons": p.size,
                "depth": p.depth,
                "synapses": sum(q.connectivity.n_synapses for q in into),
                "sources": [q.source for q in into],
                "exponent": [int(p.exponent.min()), int(p.exponent.max())],
                "sum_bits": int(network.largest_sums[p.name].max()).bit_length(),
            }
        )
    return {
        "fingerprint": network.fingerprint,
        "populations": populations,
        "neurons": network.n_neurons,
        "synapses": network.n_synapses,
        "depth": network.depth,
        "sum_bits": network.sum_bits,
        "weight_bytes": sum(int(p.connectivity.weight.nbytes) for p in network.projections),
    }


def run_facts(recording: Recording, labels: NDArray[Any] | None = None) -> dict[str, Any]:
    """Return the figures of a run; each is counted in it, none is an estimate."""
    timing = recording.timing
    accuracy = None
    if labels is not None and recording.scores is not None and recording.n_samples:
        accuracy = recording.accuracy(labels)
    seconds = timing.run_s + timing.read_s
    return {
        "backend": recording.backend,
        "kind": _kind(recording.backend),
        "versions": dict(recording.versions),
        "schedule": recording.schedule,
        "encoding": recording.encoding,
        "samples": recording.n_samples,
        "accuracy": accuracy,
        "tied_predictions": None if recording.scores is None else int(recording.tied.sum()),
        "spikes_per_sample": recording.spikes_per_sample,
        "synops_per_sample": recording.synops_per_sample,
        "input_rounding": recording.input_rounding,
        "build_s": timing.build_s,
        "run_s": timing.run_s,
        "read_s": timing.read_s,
        "samples_per_s": recording.n_samples / seconds if seconds else None,
    }


def _kind(backend: str) -> str:
    """Return what results of a backend are; those of one that is gone were simulated."""
    try:
        return get_backend(backend).capabilities.kind
    except WhetsimError:
        return "simulated"


def _comparison_facts(comparison: Comparison) -> dict[str, Any]:
    first = comparison.first
    return {
        "backends": list(comparison.names),
        "differing_spikes": dict(comparison.differences),
        "differing_predictions": comparison.n_predictions,
        "first": None
        if first is None
        else {
            "sample": first.sample,
            "population": first.population,
            "step": first.step,
            "neuron": first.neuron,
            "coordinates": first.coordinates,
            "spikes": first.spikes,
            "v": first.v,
            "margin": first.margin,
            "cause": first.cause,
        },
    }


def agreement_facts(result: Agreement) -> dict[str, Any]:
    """Return an agreement matrix and what differs from the first run."""
    return {
        "names": list(result.names),
        "matrix": result.matrix.tolist(),
        "agrees": result.agrees,
        "against_first": [_comparison_facts(c) for c in result.comparisons],
    }


def model_comparison_facts(result: ModelComparison) -> dict[str, Any]:
    """Return how a run differs from its float32 network; every tie and fault is listed."""

    def units(found: tuple[Any, ...]) -> list[dict[str, Any]]:
        return [dict(vars(unit)) for unit in found]

    return {
        "backend": result.backend,
        "samples": result.n_samples,
        "units": result.n_units,
        "differing_units": dict(result.differences),
        "ties": units(result.ties),
        "faults": units(result.faults),
        "differing_predictions": result.n_predictions,
        "accuracy_float32": None if result.accuracy is None else result.accuracy[0],
    }


def margin_facts(result: Margins) -> dict[str, Any]:
    """Return smallest margins and histograms."""
    return {
        "samples": result.n_samples,
        "smallest": {n: m if math.isfinite(m) else None for n, m in result.smallest.items()},
        "histogram": {n: h.tolist() for n, h in result.histogram.items()},
    }


def diary_facts(diary: DiaryFile) -> dict[str, Any]:
    """Return what a diary of a training says; None stands for a number that was not finite."""
    best = diary.best
    return {
        "file": diary.name,
        "layers": dict(zip(diary.layers, diary.units, strict=True)),
        "score_name": diary.score_name,
        "samples": diary.n_samples,
        "margin_quantiles": list(diary.margin_quantiles),
        "truncated": diary.truncated,
        "entries": [_diary_entry_facts(entry) for entry in diary.entries],
        "best": None
        if best is None
        else {"epoch": best.epoch, "score": best.validation.spiking, "logs": dict(best.logs)},
    }


def _diary_entry_facts(entry: DiaryEntry) -> dict[str, Any]:
    return {
        "epoch": entry.epoch,
        "kind": entry.kind,
        "sharpness": dict(entry.sharpness),
        "straight_through": entry.straight_through,
        "logs": dict(entry.logs),
        "validation": dict(vars(entry.validation)),
        "train": None if entry.train is None else dict(vars(entry.train)),
        "spikes_per_sample": dict(entry.spikes_per_sample),
        "never": dict(entry.never),
        "always": dict(entry.always),
        "margins": {name: list(values) for name, values in entry.margins.items()},
        "seconds": entry.seconds,
    }
