"""Chips whose cores run whole layers (Speck, Akida): their rules of kernels, maps and memories."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from whetsim.connectivity import Convolution, Dense
from whetsim.network import Projection
from whetsim_hardware.chip import Chip
from whetsim_hardware.placement.errors import DoesNotFitError
from whetsim_hardware.placement.tiles import Triple, layout_of
from whetsim_hardware.placement.value import Core, Placement, Slice
from whetsim_hardware.placement.wiring import Wiring

__all__ = ["has_layer_rules", "place_layers"]


@dataclass(frozen=True)
class _Layer:
    """One population as such a chip sees it: a kernel that slides over a map."""

    name: str
    source: Triple
    target: Triple
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int]
    is_dense: bool
    is_pool: bool
    is_plain: bool
    """Neither dilated nor transposed."""
    n_weights: int


def has_layer_rules(chip: Chip) -> bool:
    """Return whether the chip's file speaks of kernels and maps instead of axons."""
    return "kernel_size" in chip.limits


def place_layers(wiring: Wiring, chip: Chip, weight_bits: int | None = None) -> Placement:
    """Give each population a core of its own, if its kernel and its map fit; one chip alone.

    A fully connected layer is a convolution: its inputs are channels, or its kernel is as large as
    the map that it reads. A group of
    channels still takes the kernel words of a full convolution.
    """
    layers = [_layer(wiring, chip, p.name) for p in wiring.network.populations]
    for layer in layers:
        for resource, needed, available, detail in _breaches(layer, chip):
            raise DoesNotFitError(chip.name, layer.name, resource, needed, available, detail)
    _check_fan_out(wiring, chip)
    bits = weight_bits or int(chip.rule("weight_bits"))
    used = {layer.name: _used(layer, bits) for layer in layers}
    limits, core_of = _assign(layers, used, chip)
    cores = []
    for layer in layers:
        piece = Slice(layer.name, layer.target, (0, 0, 0), layer.target)
        cores.append(Core(core_of[layer.name], 0, 0, 0, (piece,), used[layer.name]))
    network = wiring.network
    return Placement(
        network=network.name,
        chip=chip.name,
        method="greedy",
        encoding=wiring.encoding,
        weight_bits=bits,
        limits=limits,
        cores=tuple(sorted(cores, key=lambda core: core.index)),
        n_chips=1,
        synapses={
            p.name: sum(q.connectivity.n_synapses for q in network.into(p.name))
            for p in network.populations
        },
        messages_per_spike=_messages(wiring),
        notes=_notes(chip),
        fingerprint=network.graded_fingerprint,
    )


def _layer(wiring: Wiring, chip: Chip, name: str) -> _Layer:
    projections = list(wiring.network.into(name))
    if not projections:
        detail = "nothing feeds it: its neurons decide by their biases alone, and have no kernel"
        raise DoesNotFitError(chip.name, name, "layers_without_input", 1, 0, detail)
    if len(projections) != 1:
        detail = f"{len(projections)} projections with kernels of their own"
        raise DoesNotFitError(chip.name, name, "projections", len(projections), 1, detail)
    (projection,) = projections
    connectivity = projection.connectivity
    if isinstance(connectivity, Convolution):
        g = connectivity.geometry
        weights = connectivity.weight
        behind = [
            (g.target[i] - 1) * g.strides[i] + g.kernel[i] - g.before[i] - g.source[i]
            for i in range(2)
        ]
        return _Layer(
            name,
            g.source,
            g.target,
            g.kernel,
            g.strides,
            (max(g.before[0], behind[0]), max(g.before[1], behind[1])),
            is_dense=False,
            is_pool=g.groups == g.source[2] == g.target[2]
            and bool((weights == weights.flat[0]).all()),
            is_plain=g.dilation == (1, 1) and g.input_dilation == (1, 1),
            n_weights=int(weights.size),
        )
    if not isinstance(connectivity, Dense):
        n = connectivity.n_synapses
        detail = "its synapses are a list, neither a convolution nor fully connected"
        raise DoesNotFitError(chip.name, name, "geometry", n, 0, detail)
    source = _dense_source(wiring, chip, projection)
    target = (1, 1, connectivity.n_targets)
    size = int(connectivity.weight.size)
    return _Layer(name, source, target, source[:2], (1, 1), (0, 0), True, False, True, size)


def _dense_source(wiring: Wiring, chip: Chip, projection: Projection) -> Triple:
    """Return the map that a fully connected layer reads.

    Flat, as channels alone, if so many channels are legal (a kernel's lengths are rounded up, so
    that it never takes fewer words) or the map is too large for a kernel.
    """
    height, width, channels = layout_of(wiring.network, projection.source)
    n_inputs = height * width * channels
    largest = chip.limits["kernel_size"].value
    most = chip.limit("channels") if "channels" in chip.limits else None
    too_large = not isinstance(largest, tuple) and max(height, width) > int(largest)
    if too_large or (most is not None and n_inputs <= most):
        return 1, 1, n_inputs
    return height, width, channels


def _breaches(layer: _Layer, chip: Chip) -> Iterator[tuple[str, int, int, str]]:
    """Yield resource, needed, available and what is wrong, for each rule that a layer breaks."""
    dense_inputs = chip.limit("dense_inputs") if layer.is_dense else None
    if dense_inputs is not None:
        if math.prod(layer.source) > dense_inputs:
            yield "dense_inputs", math.prod(layer.source), dense_inputs, "too many inputs"
        return
    if layer.is_pool and "pooling" not in chip.limits:
        return
    source, target = max(layer.source[:2]), max(layer.target[:2])
    rules = (
        ("input_size", source, f"it reads a map of {layer.source[0]} x {layer.source[1]}"),
        ("output_size", target, f"its map is {layer.target[0]} x {layer.target[1]}"),
        ("channels", max(layer.source[2], layer.target[2]), "a map has too many channels"),
        ("padding", max(layer.padding), f"its padding is {layer.padding}"),
    )
    for key, needed, detail in rules:
        available = chip.limit(key) if key in chip.limits else None
        if available is not None and needed > available:
            yield key, needed, available, detail
    yield from _choice("kernel_size", layer.kernel, chip)
    yield from _choice("strides", layer.strides, chip)
    if not layer.is_plain:
        yield "geometry", 1, 0, "a dilated or transposed convolution"


def _choice(key: str, pair: tuple[int, int], chip: Chip) -> Iterator[tuple[str, int, int, str]]:
    """Check numbers of which a chip's file lists the legal ones, or gives the largest."""
    if key not in chip.limits:
        return
    value = chip.limits[key].value
    if isinstance(value, tuple):
        for n in pair:
            if n not in value:
                legal = ", ".join(str(v) for v in value)
                yield key, n, int(max(value)), f"its {key} is {pair}, legal are {legal}"
                return
    elif max(pair) > int(value):
        yield key, max(pair), int(value), f"its {key} is {pair}"


def _used(layer: _Layer, weight_bits: int) -> dict[str, int]:
    """Return the words a layer takes, each length rounded up to a power of two.

    Notes
    -----
    ``kernel = c * 2^(ceil(log2(kx ky)) + ceil(log2 f))`` and
    ``neurons = f * 2^(ceil(log2 fx) + ceil(log2 fy))`` (documentation of sinabs).
    """
    height, width, features = layer.target
    kernel = math.prod(layer.kernel)
    return {
        "kernel_words": layer.source[2] << (_log2(kernel) + _log2(features)),
        "neuron_words": features << (_log2(width) + _log2(height)),
        "bias_words": features,
        "dense_inputs": math.prod(layer.source) if layer.is_dense else 0,
        "weight_bits": layer.n_weights * weight_bits,
        "neurons": math.prod(layer.target),
    }


def _log2(n: int) -> int:
    return (n - 1).bit_length()


def _assign(
    layers: list[_Layer], used: dict[str, dict[str, int]], chip: Chip
) -> tuple[dict[str, int], dict[str, int]]:
    """Return what the largest cores hold, and a core for each layer.

    Raises
    ------
    DoesNotFitError
        If a layer fits no core, or there are not enough cores of the size that layers need.
    """
    n_cores = chip.limit("cores") or 1
    rooms: dict[str, NDArray[np.int64]] = {}
    keys = {"kernel_words": "kernel_words_per_core_each", "neuron_words": "neurons_per_core_each"}
    for resource, key in keys.items():
        if key in chip.limits:
            rooms[resource] = np.asarray(chip.limits[key].value, dtype=np.int64)
    bias = chip.limit("bias_words_per_core")
    if bias is not None:
        rooms["bias_words"] = np.full(n_cores, bias)
    for layer in layers:
        for resource, room in rooms.items():
            needed = used[layer.name][resource]
            if needed > int(room.max()):
                detail = f"its {resource.replace('_', ' ')} are more than any core has"
                raise DoesNotFitError(
                    chip.name, layer.name, resource, needed, int(room.max()), detail
                )
    memory = chip.limit("memory_bits_per_chip")
    total = sum(use["weight_bits"] for use in used.values())
    if memory is not None and total > memory:
        detail = "with it, all weights are more than the chip's memory"
        raise DoesNotFitError(chip.name, layers[-1].name, "memory_bits", total, memory, detail)
    fits = np.array(
        [[all(used[x.name][r] <= room[c] for r, room in rooms.items()) for c in range(n_cores)]
         for x in layers]
    )  # fmt: skip
    # As many layers as possible get a core that fits; among those, a core as small as possible.
    waste = sum((room / room.max() for room in rooms.values()), np.zeros(n_cores))
    row, column = linear_sum_assignment(np.where(fits, waste, 1000.0 * n_cores))
    chosen = {int(r): int(c) for r, c in zip(row, column, strict=True) if fits[r, c]}
    if len(chosen) < len(layers):
        first = next(i for i in range(len(layers)) if i not in chosen)
        detail = f"{len(layers)} layers, and {len(chosen)} of them find a core large enough"
        raise DoesNotFitError(
            chip.name, layers[first].name, "cores", len(layers), len(chosen), detail
        )
    limits = {resource: int(room.max()) for resource, room in rooms.items()}
    dense_inputs = chip.limit("dense_inputs")
    if dense_inputs is not None:
        limits["dense_inputs"] = dense_inputs
    return limits, {layers[r].name: c for r, c in chosen.items()}


def _check_fan_out(wiring: Wiring, chip: Chip) -> None:
    most = chip.limit("fan_out_cores")
    for name, n in _messages(wiring).items():
        if most is not None and n > most and name != wiring.network.input.name:
            detail = f"it feeds {int(n)} populations, each on a core of its own"
            raise DoesNotFitError(chip.name, name, "fan_out_cores", int(n), most, detail)


def _messages(wiring: Wiring) -> dict[str, float]:
    """Return how many cores each population sends its spikes to: one for each projection."""
    result: dict[str, float] = {}
    for projection in wiring.network.projections:
        result[projection.source] = result.get(projection.source, 0.0) + 1.0
    return result


def _notes(chip: Chip) -> tuple[str, ...]:
    if "kernel_words_per_core_each" in chip.limits:
        return ("each layer on one core of one chip; weights taken to be quantized",)
    return (
        "each layer counts as one core: its file does not say how layers share processors",
        "weights taken to be quantized; pools need nothing of their own",
    )
