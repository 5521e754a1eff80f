"""The keys that a chip file may have, each with the unit that its value must have."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["ENERGIES", "SECTIONS", "STATUSES"]

STATUSES = ("full", "placed", "limits", "reference")

LIMITS = {
    # How cores are arranged. A tile is a router with the cores that share it.
    "cores": "cores",
    "cores_per_tile": "cores",
    "tile_columns": "tiles",
    "tile_rows": "tiles",
    "chips_per_board": "chips",
    "routing_entries": "entries",
    # What one core holds; a list has one number for each core.
    "neurons_per_core": "neurons",
    "neurons_per_core_each": "neurons",
    "in_axons_per_core": "axons",
    "out_axons_per_core": "axons",
    "axons_per_neuron": "axons",
    "axon_distance": "cores",
    "population_axon_atoms": "atoms",
    "fan_in": "synapses",
    "signed_fan_in": "synapses",
    "fan_out_cores": "cores",
    "thresholds_per_core": "thresholds",
    "weight_formats_per_core": "formats",
    "neuron_formats_per_core": "formats",
    "synapses_per_core": "synapses",
    "kernel_words_per_core_each": "words",
    "bias_words_per_core": "words",
    "memory_bits_per_core": "bit",
    "memory_bits_per_chip": "bit",
    # How synapses are packed: a chunk of so many, a header, rounded up to whole words.
    "synapse_bits_per_core": "bit",
    "synapse_word_bits": "bit",
    "synapse_chunk": "synapses",
    "synapse_header_bits": "bit",
    "synapse_index_bits": "bit",
    "weight_bits_stored": "bit",
    "synapse_memory": "rule",
    "bias_axons_per_core": "axons",
    # What a convolution or a fully connected layer may be, where a chip knows layers.
    "input_size": "pixels",
    "output_size": "pixels",
    "channels": "channels",
    "kernel_size": "pixels",
    "strides": "pixels",
    "padding": "pixels",
    "pooling": "pixels",
    "dense_inputs": "neurons",
    "delay": "step",
    "delay_extended": "step",
}

ARITHMETIC = {
    # Weights as whole numbers that a chip stores: min, min + step, ... max.
    "weight_bits": "bit",
    "weight_bits_choice": "bit",
    "weight_min": "1",
    "weight_max": "1",
    "weight_step": "1",
    "weight_sign": "rule",
    "weight_shift": "bit",
    # "layer": the weights, biases and thresholds of a layer share one scale.
    "weight_scale": "rule",
    "weight_exponent_min": "1",
    "weight_exponent_max": "1",
    "axon_types": "types",
    "shared_weights": "rule",
    "input_bits": "bit",
    "activation_bits_choice": "bit",
    # How arriving weights are added up.
    "accumulator_bits": "bit",
    "accumulator_overflow": "rule",
    "current_bits": "bit",
    "current_overflow": "rule",
    "decay_bits": "bit",
    "membrane_min": "1",
    "membrane_max": "1",
    "membrane_fraction_bits": "bit",
    "membrane_overflow": "rule",
    "membrane_floor": "rule",
    # When a neuron fires, and what then.
    "decides": "rule",
    "fire": "rule",
    "reset": "rule",
    "leak_off": "rule",
    "leak_max": "1",
    "threshold_min": "1",
    "threshold_max": "1",
    "threshold_shift": "bit",
    "bias": "rule",
    "bias_min": "1",
    "bias_max": "1",
    "bias_exponent_max": "1",
    "synops_per_event": "synapses",
}

TIMING = {
    "step_us": "us",
    "step_min_us": "us",
    "barrier_ns": "ns",
    "synop_ns": "ns",
    "neuron_active_ns": "ns",
    "neuron_inactive_ns": "ns",
    "spike_in_tile_ns": "ns",
    "hop_ew_ns": "ns",
    "hop_ns_ns": "ns",
    "clock_mhz": "MHz",
    "cycles_per_synop": "cycles",
    "synops_per_us": "synops/us",
    "macs_per_us": "MAC/us",
}

SECTIONS: Mapping[str, Mapping[str, str]] = {
    "limits": LIMITS,
    "arithmetic": ARITHMETIC,
    "timing": TIMING,
}

_PER_OPERATION = (
    "synop",
    "synop_all_in",
    "neuron_update",
    "neuron_active",
    "neuron_inactive",
    "spike_out",
    "spike_in_tile",
    "axon_out",
    "hop",
    "hop_ew",
    "hop_ns",
    "io_event",
    "learning",
    "mac",
    "add",
    "memory_bit",
    "memory_8kb_64bit",
    "memory_32kb_64bit",
    "memory_1mb_64bit",
    "memory_dram_64bit",
)

ENERGIES: Mapping[str, str] = MappingProxyType(
    {f"{name}_{unit.lower()}": unit for name in _PER_OPERATION for unit in ("fJ", "pJ", "nJ")}
    | {
        "static_mw_per_chip": "mW",
        "static_mw_per_core": "mW",
        "active_mw_per_core": "mW",
        "clock_uw_per_mhz": "uW/MHz",
        "hops_per_spike": "hops",
        "memory_bits_per_mac": "bit",
    }
)
"""Names of energies and powers, each with its unit.

``static_mw_per_chip`` and ``static_mw_per_core`` are two views of one thing, all cores on or the
unused ones off; ``active_mw_per_core`` comes on top, for each core in use.
"""
