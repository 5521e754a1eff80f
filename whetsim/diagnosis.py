"""`diagnose`: what is wrong or suspicious about a network, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from whetsim import layers as L
from whetsim.errors import MappingError
from whetsim.formats.reading import GUESSED
from whetsim.mapping import map_to_spikes
from whetsim.model import Model, Readout
from whetsim.network import Population, SpikingNetwork

__all__ = ["Finding", "diagnose"]

Integers = NDArray[np.int64]
Level = Literal["problem", "warning", "note"]

COARSE_STEP = 2.0**-12
"""Weights that are multiples of this make sums that may well be exactly the threshold."""
TINY_VARIANCE = 0.01
"""A variance below this part of epsilon says nothing: epsilon alone sets the scale."""


@dataclass(frozen=True)
class Finding:
    """One thing a user should know about a network.

    Parameters
    ----------
    level : 'problem', 'warning' or 'note'
        A problem keeps the network from running with spikes.
    where : str
        Layer or population, 'input' or 'readout'.
    what, advice : str
    """

    level: Level
    where: str
    what: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.level}: {self.where}: {self.what} {self.advice}".rstrip()


def diagnose(model: Model, network: SpikingNetwork | None = None) -> tuple[Finding, ...]:
    """Look a trained network through: activations, weights, normalization, readout, dead units.

    Units are called dead by interval arithmetic over all inputs the network may read, so a unit
    not named here may still be silent on real data.

    Parameters
    ----------
    model : Model
    network : SpikingNetwork, optional
        What `map_to_spikes` makes of it, if that has been done already.

    Returns
    -------
    tuple of Finding
        Problems first, then warnings, then notes.
    """
    found = [*_of_source(model), *_of_layers(model), *_of_readout(model)]
    if network is None:
        try:
            network = map_to_spikes(model)
        except MappingError as error:
            if not any(finding.level == "problem" for finding in found):
                where, _, what = str(error).partition(": ")
                found.append(Finding("problem", where, what))
    if network is not None:
        found += _of_network(model, network)
    order = ("problem", "warning", "note")
    return tuple(sorted(found, key=lambda finding: order.index(finding.level)))


def _of_source(model: Model) -> Iterator[Finding]:
    """Yield what the reader of a foreign file remarked; a native file may claim anything here."""
    source = model.metadata.get("source")
    remarks = source.get("remarks") if isinstance(source, Mapping) else None
    for remark in remarks if isinstance(remarks, list) else ():
        if remark == GUESSED:
            advice = "Say it: --input-scale 1/255, or input_scale=1/255 in Python."
            yield Finding("warning", "input", GUESSED, advice)
        else:
            yield Finding("note", "file", f"{remark}.")


def _of_layers(model: Model) -> Iterator[Finding]:
    for layer in model.layers:
        where = f"layer {layer.name!r}"
        match layer:
            case L.Activation():
                sharpness = f" with sharpness {layer.sharpness:g}" if layer.sharpness else ""
                yield Finding(
                    "problem",
                    where,
                    f"{layer.function}{sharpness} is no step, so its values are no spikes.",
                    "Sharpen it in training (docs/training.md), then export again.",
                )
            case L.BatchNorm():
                yield from _of_norm(where, layer)
        weight = getattr(layer, "weight", None)
        if weight is not None:
            yield from _of_weight(where, layer, weight)


def _of_weight(where: str, layer: L.Layer, weight: L.FloatArray) -> Iterator[Finding]:
    if not weight.any():
        yield Finding(
            "warning",
            where,
            f"all {weight.size:,} weights are zero.",
            "Check that the trained weights were saved, not those of a new network.",
        )
        return
    outputs = -2 if isinstance(layer, L.Conv2DTranspose) else -1
    rest = tuple(a for a in range(weight.ndim) if a != weight.ndim + outputs)
    if isinstance(layer, L.DepthwiseConv2D):
        rest = (0, 1)
    empty = ~weight.any(axis=rest)
    if empty.any():
        yield Finding(
            "warning",
            where,
            f"{int(empty.sum())} of its {empty.size} outputs have no weight but zero.",
            "They never depend on the input; prune them, or look at how they were trained.",
        )


def _of_norm(where: str, norm: L.BatchNorm) -> Iterator[Finding]:
    tiny = norm.variance < TINY_VARIANCE * norm.epsilon
    if tiny.any():
        scale = float(np.abs(norm.scale_and_shift()[0][tiny]).max())
        yield Finding(
            "warning",
            where,
            f"{int(tiny.sum())} of {tiny.size} channels have a variance far below epsilon "
            f"({norm.epsilon:g}): they hardly changed in training and are scaled by up to "
            f"{scale:.3g}.",
            "Prune them, or train with more varied batches.",
        )


def _of_readout(model: Model) -> Iterator[Finding]:
    readout = model.readout
    if readout is None:
        units = int(np.prod(model.shapes[model.output]))
        yield Finding(
            "note",
            "readout",
            f"there is none: the result is the {units:,} output spikes themselves.",
            "A classifier needs its key; without one there are no predictions.",
        )
    elif readout.key is not None:
        yield from _of_key(readout)


def _of_key(readout: Readout) -> Iterator[Finding]:
    assert readout.key is not None
    rows = readout.key.astype(np.int64)
    if len(rows) < 2 or len(rows) > 1000:
        return
    distances = {
        (a, b): int((rows[a] != rows[b]).sum()) for a, b in combinations(range(len(rows)), 2)
    }
    (a, b), least = min(distances.items(), key=lambda item: item[1])
    if least == 0:
        yield Finding(
            "problem" if not any(distances.values()) else "warning",
            "readout",
            f"classes {a} and {b} have the same key, so they always tie.",
            "Give each class a row of its own.",
        )
    elif least <= 2:
        yield Finding(
            "note",
            "readout",
            f"the keys of classes {a} and {b} differ in {least} of {rows.shape[1]} outputs alone: "
            "one wrong spike can decide.",
            "Use a wider key.",
        )


def _of_network(model: Model, network: SpikingNetwork) -> Iterator[Finding]:
    strict = {layer.name for layer in model.layers if isinstance(layer, L.Step) and layer.strict}
    spec = network.input
    size = spec.size
    low = {spec.name: np.full(size, spec.low, np.int64)}
    high = {spec.name: np.full(size, spec.high, np.int64)}
    for population in network.populations:
        bottom, top, bits = _reachable(network, population, low, high)
        never, always = top < population.threshold, bottom >= population.threshold
        low[population.name] = always.astype(np.int64)
        high[population.name] = (~never).astype(np.int64)
        where = f"population {population.name!r}"
        yield from _of_dead(where, population, never, "can never fire")
        yield from _of_dead(where, population, always, "always fire")
        is_strict = population.name.partition("/before_")[0] in strict
        yield from _of_ties(where, population, bits, ~(never | always), is_strict)


def _reachable(
    network: SpikingNetwork,
    population: Population,
    low: Mapping[str, Integers],
    high: Mapping[str, Integers],
) -> tuple[Integers, Integers, Integers]:
    """Return the smallest and largest sum of each neuron, and all its weights' bits together."""
    bottom, top = population.bias.copy(), population.bias.copy()
    bits = np.zeros(population.size, np.int64)
    for projection in network.into(population.name):
        lowest, highest = low[projection.source], high[projection.source]
        for source, target, weight in projection.connectivity.synapses():
            one, other = weight * lowest[source], weight * highest[source]
            np.add.at(bottom, target, np.minimum(one, other))
            np.add.at(top, target, np.maximum(one, other))
            np.bitwise_or.at(bits, target, np.abs(weight))
    return bottom, top, bits


def _of_dead(
    where: str, population: Population, dead: NDArray[np.bool_], word: str
) -> Iterator[Finding]:
    whole = dead.reshape(-1, population.shape[-1]).all(axis=0)
    units = "neurons" if len(population.shape) == 1 else "channels"
    if whole.any():
        yield Finding(
            "problem" if whole.all() else "warning",
            where,
            f"{int(whole.sum()):,} of {whole.size:,} {units} {word}, whatever the input.",
            "They carry no information: check scale and bias of the layer and the input range, "
            "or prune them.",
        )
    elsewhere = int(dead.sum()) - int(whole.sum()) * (dead.size // whole.size)
    if elsewhere:
        yield Finding(
            "note",
            where,
            f"{elsewhere:,} of {dead.size:,} neurons {word} where others of their channel do not "
            "(at borders windows see less).",
        )


def _of_ties(
    where: str, population: Population, bits: Integers, alive: NDArray[np.bool_], strict: bool
) -> Iterator[Finding]:
    step = bits & -bits  # the lowest bit: every sum is the bias plus a multiple of it
    coarse = (step > 0) & (np.ldexp(step, -population.exponent.astype(np.int32)) >= COARSE_STEP)
    missing = population.threshold - population.bias - int(strict)
    tied = coarse & alive & (missing % np.maximum(step, 1) == 0)
    count = int(tied.sum())
    if count:
        size = float(np.ldexp(step[tied], -population.exponent[tied].astype(np.int32)).min())
        rule = "does not fire" if strict else "fires"
        yield Finding(
            "note",
            where,
            f"sums of {count:,} of {population.size:,} neurons can be exactly the threshold: their "
            f"weights are multiples of {size:g}.",
            f"By the file's rule such a tie {rule}; a chip that decides otherwise differs there.",
        )
