"""`place`: the neurons of a network on the cores of a chip, under every limit of its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from whetsim.errors import SampleError, UnknownNameError, did_you_mean
from whetsim.network import Encoding, SpikingNetwork
from whetsim.recording import Recording
from whetsim_hardware.chip import Chip, load_chip
from whetsim_hardware.placement.arguments import (
    check_max_chips,
    check_spikes,
    check_weight_bits,
)
from whetsim_hardware.placement.errors import DoesNotFitError
from whetsim_hardware.placement.flows import Block, Flow, blocks_and_flows, pack
from whetsim_hardware.placement.layers import has_layer_rules, place_layers
from whetsim_hardware.placement.mesh import Mesh, mesh_of
from whetsim_hardware.placement.registers import is_assumed
from whetsim_hardware.placement.rules import CoreRules, core_rules
from whetsim_hardware.placement.splitting import Split, split_all
from whetsim_hardware.placement.traffic import cost_of, improve
from whetsim_hardware.placement.value import Core, Placement, Slice
from whetsim_hardware.placement.wiring import Wiring, encoded_for, with_relays

__all__ = ["Core", "DoesNotFitError", "Placement", "Slice", "place"]

Integers = NDArray[np.int64]
Method = Literal["greedy", "traffic"]
METHODS = ("greedy", "traffic")


def place(
    network: SpikingNetwork,
    chip: Chip | str | Path,
    method: Method = "greedy",
    *,
    weight_bits: int | None = None,
    encoding: Encoding | None = None,
    max_chips: int | None = None,
    spikes: Recording | Mapping[str, float] | None = None,
) -> Placement:
    """Put the neurons of a network onto the cores of a chip.

    Parameters
    ----------
    network : SpikingNetwork
        Weights that are not in the chip's numbers are taken to be quantized to its bits; which
        synapses there are stays.
    chip : Chip, str or Path
    method : str
        ``greedy``: each population on as few cores as possible, cores in the order of depth.
        ``traffic``: the same blocks, with cores moved so that messages times hops fall; never
        worse than greedy.
    weight_bits : int, optional
        Bits of a stored weight; the chip's own by default.
    encoding : str, optional
        How an input of more than 0 and 1 becomes events: as it is if the chip's events carry so
        many bits, else ``bitplane``.
    max_chips : int, optional
        Refuse a placement that takes more; any number by default.
    spikes : Recording or mapping of str to float, optional
        Spikes a sample of each population (and of ``"input"``), to weigh traffic with. Without,
        every neuron counts as one spike.

    Returns
    -------
    Placement

    Raises
    ------
    DoesNotFitError
        If no split of a population fits; the error names population, resource, what is needed and
        what there is, as attributes too.
    SampleError
        If `spikes` lack a population, or are not finite numbers of at least 0.
    UnknownNameError
        If there is no such method or chip.
    UnsupportedError
        If the chip's file gives no limits of its cores, or `weight_bits` or `max_chips` are out
        of range.
    """
    if method not in METHODS:
        raise UnknownNameError(
            f"no placement method named {method!r}; there are: {', '.join(METHODS)}."
            f"{did_you_mean(method, METHODS)}"
        )
    chip = chip if isinstance(chip, Chip) else load_chip(chip)
    check_weight_bits(chip, weight_bits)
    check_max_chips(chip, max_chips)
    check_spikes(spikes)
    return place_wiring(
        wiring_for(network, chip, encoding), chip, method, weight_bits, max_chips, spikes
    )


def wiring_for(network: SpikingNetwork, chip: Chip, encoding: Encoding | None = None) -> Wiring:
    """Return the network as the chip would get it: encoded, with relays."""
    return Wiring(with_relays(encoded_for(network, chip, encoding), chip.limit("delay")))


def place_wiring(
    wiring: Wiring,
    chip: Chip,
    method: Method = "greedy",
    weight_bits: int | None = None,
    max_chips: int | None = None,
    spikes: Recording | Mapping[str, float] | None = None,
) -> Placement:
    """Place what `wiring_for` returns; several chips may share one wiring."""
    if has_layer_rules(chip):
        return replace(place_layers(wiring, chip, weight_bits), method=method)
    rules = core_rules(chip, weight_bits)
    splits = split_all(wiring, rules)
    blocks, flows = blocks_and_flows(wiring, rules, splits)
    core_of, cores = pack(blocks, rules)
    mesh = mesh_of(chip, len(cores))
    if max_chips is not None and mesh.n_chips > max_chips:
        last = wiring.network.populations[-1].name
        detail = f"{len(cores):,} cores are needed"
        raise DoesNotFitError(chip.name, last, "chips", mesh.n_chips, max_chips, detail)
    weighted = _weights(wiring.network, flows, spikes)
    traffic = _traffic(flows, weighted, core_of, len(cores))
    greedy = _with_port(mesh.positions(len(cores)))
    positions = greedy
    if method == "traffic" and mesh.routed:
        slots = mesh.positions(mesh.n_chips * mesh.cores_per_chip)
        positions = improve(traffic, greedy, slots[: _slots_to_try(mesh, len(cores))])
    _check_distance(chip, flows, core_of, positions)
    network = wiring.network
    return Placement(
        network=network.name,
        chip=chip.name,
        method=method,
        encoding=wiring.encoding,
        weight_bits=rules.weight_bits,
        limits=dict(rules.limits),
        cores=_cores(cores, positions),
        n_chips=mesh.n_chips,
        synapses={s.name: int(s.use["synapses"].sum()) for s in splits},
        relays={s.name: len(s.messages) for s in splits if "/relay_" in s.name},
        splitters={s.name: int(s.splitters.sum()) for s in splits if s.splitters is not None},
        copies=_copies(splits, rules),
        extra_steps=_extra_steps(network, splits),
        hops=_hops(flows, core_of, positions) if mesh.routed else {},
        messages_per_spike=_messages(network, flows),
        traffic=cost_of(traffic, positions) if mesh.routed else 0.0,
        greedy_traffic=cost_of(traffic, greedy) if mesh.routed else 0.0,
        notes=_notes(wiring, rules),
        fingerprint=network.graded_fingerprint,
    )


def _with_port(positions: Integers) -> Integers:
    """Return places with that of the input's port, tile (0, 0), in front."""
    return np.concatenate([np.zeros((1, 3), dtype=np.int64), positions])


def _slots_to_try(mesh: Mesh, n_cores: int) -> int:
    """Return how many slots the cores may move to: what is in use on one chip, and some more."""
    spare = max(16, n_cores)
    return min(mesh.n_chips * mesh.cores_per_chip, n_cores + spare)


def _weights(
    network: SpikingNetwork,
    flows: list[Flow],
    spikes: Recording | Mapping[str, float] | None,
) -> dict[str, float]:
    """Return spikes of one neuron in one sample, by population."""
    sizes = {p.name: p.size for p in network.populations} | {network.input.name: network.input.size}
    if spikes is None:
        return {flow.source: 1.0 for flow in flows}
    given = spikes.spikes_per_sample if isinstance(spikes, Recording) else spikes
    rates = {}
    for flow in flows:
        origin = flow.source.split("/splitter")[0].split("/relay_")[0]
        if origin not in given:
            raise SampleError(f"spikes: nothing is said of {origin!r}. Give its spikes a sample.")
        rates[flow.source] = float(given[origin]) / max(sizes[origin], 1)
    return rates


def _traffic(
    flows: list[Flow], weights: Mapping[str, float], core_of: Mapping[str, Integers], n: int
) -> sparse.csr_array:
    """Return expected messages between cores; 0 is the input's port."""
    total = sparse.csr_array((n + 1, n + 1), dtype=np.float64)
    for flow in flows:
        source, target, messages = _ends(flow, core_of)
        data = messages * weights[flow.source]
        total = total + sparse.csr_array((data, (source, target)), shape=(n + 1, n + 1))
    return total


def _ends(flow: Flow, core_of: Mapping[str, Integers]) -> tuple[Integers, Integers, Integers]:
    """Return source core, target core (1 more than their numbers, 0 the port) and messages."""
    pairs = flow.pairs.tocoo()
    source = core_of[flow.source][pairs.row] + 1 if flow.source in core_of else pairs.row * 0
    return source, core_of[flow.target][pairs.col] + 1, pairs.data


def _far(
    flow: Flow, core_of: Mapping[str, Integers], positions: Integers
) -> tuple[Integers, Integers]:
    """Return how far along x and y each pair of cores of a flow lies, (2, n), and messages."""
    source, target, messages = _ends(flow, core_of)
    return np.abs(positions[source, 1:] - positions[target, 1:]).T, messages


def _hops(
    flows: list[Flow], core_of: Mapping[str, Integers], positions: Integers
) -> dict[tuple[str, str], float]:
    hops = {}
    for flow in flows:
        far, messages = _far(flow, core_of, positions)
        total = int(messages.sum())
        mean = float((far.sum(axis=0) * messages).sum()) / total if total else 0.0
        hops[flow.source, flow.target] = mean
    return hops


def _check_distance(
    chip: Chip, flows: list[Flow], core_of: Mapping[str, Integers], positions: Integers
) -> None:
    longest = chip.limit("axon_distance")
    for flow in flows if longest is not None else ():
        far, _ = _far(flow, core_of, positions)
        needed = int(far.max(initial=0))
        if needed > (longest or 0) and flow.source in core_of:
            detail = f"its neurons send {needed:,} cores far along one axis"
            raise DoesNotFitError(
                chip.name, flow.source, "axon_distance", needed, longest or 0, detail
            )


def _messages(network: SpikingNetwork, flows: list[Flow]) -> dict[str, float]:
    """Return mean messages for a spike; those of splitters for a spike of what they repeat."""
    result: dict[str, float] = {}
    for flow in flows:
        origin = flow.source.split("/splitter")[0]
        size = network.size_of(origin)
        result[flow.source] = result.get(flow.source, 0.0) + float(flow.pairs.sum()) / size
    return result


def _copies(splits: list[Split], rules: CoreRules) -> dict[str, int]:
    """Return how many neurons beyond those of the network each population takes."""
    if rules.axons_per_neuron is None:
        return {}
    extra = {s.name: int(s.use["neurons"].sum()) - len(s.messages) for s in splits}
    return {name: n for name, n in extra.items() if n}


def _extra_steps(network: SpikingNetwork, splits: list[Split]) -> int:
    """Return by how many steps splitters make the longest path longer."""
    late = {s.name: int(s.splitters is not None) for s in splits}
    depth = {network.input.name: 0}
    for population in network.populations:
        sources = [p.source for p in network.into(population.name)]
        before = max((depth[s] + late.get(s, 0) for s in sources), default=0)
        depth[population.name] = max(before + 1, population.depth)
    return max(depth.values()) - network.depth


def _notes(wiring: Wiring, rules: CoreRules) -> tuple[str, ...]:
    notes = []
    names = [p.name for p in wiring.network.populations if is_assumed(wiring, rules, p.name)]
    if names:
        how = "ternary weights" if rules.axon_types else f"{rules.weight_bits}-bit weights"
        notes.append(f"taken to be quantized to {how}: {', '.join(names)}")
    if "weight_formats" in rules.limits and wiring.planes > 1:
        notes.append("weight formats: those of the lowest bit plane alone are counted")
    if "population_axon_atoms" in rules.chip.limits:
        notes.append("every synapse stored: no weights shared by population axons")
    if rules.chip.limits.get("synapse_memory") and "neurons" not in rules.limits:
        notes.append("memory for the program is not counted, so cores are at least so many")
    if rules.memory == "synapse_bits" and "synapse_chunk" not in rules.chip.limits:
        notes.append("packing is not published: bits are those of the weights alone, at least")
    return tuple(notes)


def _cores(cores: list[list[Block]], positions: Integers) -> tuple[Core, ...]:
    result = []
    for index, blocks in enumerate(cores):
        used: dict[str, int] = {}
        for block in blocks:
            for key, value in block.use.items():
                used[key] = used.get(key, 0) + value
        chip, x, y = (int(v) for v in positions[index + 1])
        result.append(Core(index, chip, x, y, tuple(b.slice for b in blocks), used))
    return tuple(result)
