"""The same network as an artificial one on a reference processor: dense, and skipping zeros."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whetsim.errors import SampleError, UnsupportedError
from whetsim.mapping import map_to_spikes
from whetsim.model import Model
from whetsim.network import SpikingNetwork
from whetsim.recording import Recording
from whetsim_hardware.chip import EVIDENCE, Chip, load_chip
from whetsim_hardware.energy import chosen_set, joules
from whetsim_hardware.energy_parts import Price, Range, price_of, range_of
from whetsim_hardware.operations import PopulationOperations, count_operations, dense_synapses

__all__ = ["AnnEstimate", "ann_energy"]


@dataclass(frozen=True, eq=False)
class AnnEstimate:
    """Energy of one inference of the artificial network.

    Parameters
    ----------
    network, label : str
        What was counted, and whether sparsity is measured in simulation or emulated.
    chip : Chip
    energy_set : str
    dense_macs, effective_macs : float
        Multiply-additions of all, and of those whose activation and weight are not 0.
    neurons : float
        Additions of a bias and comparisons with a threshold: one operation for each neuron.
    each_mac_pj, each_neuron_pj : Range
        What one of them takes, the memory of a multiply-addition's weight in it.
    keys : tuple of str
    note : str
    """

    network: str
    label: str
    chip: Chip
    energy_set: str
    dense_macs: float
    effective_macs: float
    neurons: float
    each_mac_pj: Range
    each_neuron_pj: Range
    keys: tuple[str, ...]
    note: str

    @property
    def dense_pj(self) -> Range:
        """Energy if nothing is skipped, in pJ."""
        return self._of(self.dense_macs)

    @property
    def skipping_pj(self) -> Range:
        """Energy if multiplications with 0 are skipped at no cost, in pJ."""
        return self._of(self.effective_macs)

    def _of(self, macs: float) -> Range:
        return self.each_mac_pj.times(macs).plus(self.each_neuron_pj.times(self.neurons))

    def sources(self) -> str:
        """Return each fact that was used, with value, evidence and source."""
        facts = dict(self.chip.quantities())
        return "\n".join(
            f"{key} = {facts[key].value} {facts[key].unit}: {EVIDENCE[facts[key].evidence]}. "
            f"{self.chip.sources[facts[key].source]}"
            for key in self.keys
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            "network": self.network,
            "chip": self.chip.name,
            "energy_set": self.energy_set,
            "labels": {"dense_macs": "counted", "effective_macs": self.label},
            "dense_macs": self.dense_macs,
            "effective_macs": self.effective_macs,
            "neurons": self.neurons,
            "dense_pj": self.dense_pj._asdict(),
            "skipping_pj": self.skipping_pj._asdict(),
            "note": self.note,
            "sources": self.sources().splitlines(),
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        lines = [
            f"{self.network} as an artificial network on {self.chip.title}, energies "
            f"{self.energy_set!r}: estimated, for one inference"
        ]
        for name, macs, energy in (
            ("dense", self.dense_macs, self.dense_pj),
            ("skipping zeros", self.effective_macs, self.skipping_pj),
        ):
            low, typical, high = (joules(value) for value in energy)
            lines.append(f"  {name:<16}{macs:>16,.1f} MAC  {typical} ({low} to {high})")
        return "\n".join([*lines, *([f"  {self.note}"] if self.note else [])])


def ann_energy(
    network: SpikingNetwork | Model,
    recording: Recording,
    reference: Chip | str | Path,
    *,
    energy_set: str | None = None,
) -> AnnEstimate:
    """Estimate what one inference of the artificial network costs on a reference processor.

    Max pools are comparisons and cost nothing here.

    Parameters
    ----------
    network : SpikingNetwork or Model
        What to count densely.
    recording : Recording
        A run of it, which says how many activations are 0.
    reference : Chip, str or Path
        A processor: ``horowitz45``, ``cpu``, ``gpu``, ``arm``, ``tpu_v1``, ``eyeriss``.
    energy_set : str, optional
        Name of one of its sets of energies; the first by default.

    Raises
    ------
    UnsupportedError
        If `reference` is no reference processor.
    UnknownNameError
        If there is no such processor or set.
    SampleError
        If the recording is not of this network.
    """
    chip = reference if isinstance(reference, Chip) else load_chip(reference)
    energies = chosen_set(chip, energy_set)
    mac = price_of(energies, "mac")
    if chip.status != "reference" or mac is None:
        raise UnsupportedError(
            f"chip {chip.name!r}: no processor for artificial networks. Use estimate_energy."
        )
    counted = map_to_spikes(network) if isinstance(network, Model) else network
    _check_same(counted, recording)
    operations = count_operations(recording)
    layers = [p for p in operations.populations if not p.is_pool]
    planes = _planes(recording.network)
    dense, effective, note = 0.0, 0.0, ""
    for layer in layers:
        of_input = _dense_of_input(recording.network, layer)
        kept = layer.dense - of_input + of_input // planes
        dense += kept
        if planes > 1 and of_input:
            # Bits of a value that spike do not tell how many values are not 0.
            effective += kept
            note = "The input came as bit planes: layers that read it are taken not to skip zeros."
        else:
            effective += layer.synops
    name = energies.name
    each_mac, keys = mac.range, [f"energy.{name}.{mac.key}"]
    memory, bits = price_of(energies, "memory_bit"), energies.quantities.get("memory_bits_per_mac")
    if memory is not None and bits is not None:
        each_mac = each_mac.plus(memory.range.times(range_of(bits)))
        keys += [f"energy.{name}.{memory.key}", f"energy.{name}.memory_bits_per_mac"]
    add: Price = price_of(energies, "add") or mac
    return AnnEstimate(
        network=counted.name,
        label=operations.label,
        chip=chip,
        energy_set=name,
        dense_macs=dense,
        effective_macs=effective,
        neurons=float(sum(p.n_neurons for p in layers)),
        each_mac_pj=each_mac,
        each_neuron_pj=add.range,
        keys=tuple(dict.fromkeys([*keys, f"energy.{name}.{add.key}"])),
        note=note,
    )


def _check_same(network: SpikingNetwork, recording: Recording) -> None:
    ran = {p.name: p.size for p in recording.network.populations}
    asked = {p.name: p.size for p in network.populations}
    if ran != asked:
        raise SampleError(
            f"ann_energy: the recording is of {recording.network.name!r} with other populations "
            f"than {network.name!r}. Run this network."
        )


def _planes(network: SpikingNetwork) -> int:
    """Return how many input neurons stand for one value."""
    return max(network.input.size // max(network.input.samples.size, 1), 1)


def _dense_of_input(network: SpikingNetwork, layer: PopulationOperations) -> int:

    return sum(
        dense_synapses(p.connectivity)
        for p in network.into(layer.name)
        if p.source == network.input.name
    )
