"""The keys that a chip file may have, each with the unit and the range of its value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

__all__ = ["ENERGIES", "ORDERED", "SECTIONS", "STATUSES", "Kind", "operation_of"]

STATUSES = ("full", "placed", "limits", "reference")

MAX_CORES = 10**6
MAX_COUNT = 10**15


@dataclass(frozen=True)
class Kind:
    """What the value of a key must be.

    Parameters
    ----------
    unit : str
        ``rule``: a text; anything else: a number.
    low, high : number
        Smallest and largest value, those of a list too.
    is_whole : bool
        Whether it is a whole number.
    lists : str
        ``none``: one number; ``may``: one or a list; ``must``: a list; ``cores``: a list with a
        number for each of the chip's cores.
    words : tuple of str
        The texts it may be; any, if there are none.
    """

    unit: str
    low: float = 1
    high: float = MAX_COUNT
    is_whole: bool = True
    lists: str = "none"
    words: tuple[str, ...] = ()


_text = partial(Kind, "rule")
_bits = partial(Kind, "bit", high=64)
_shift = partial(Kind, high=64)
_signed = partial(Kind, "1", low=-MAX_COUNT)
_positive = partial(Kind, low=1e-6, high=1e9, is_whole=False)

LIMITS = {
    # How cores are arranged. A tile is a router with the cores that share it.
    "cores": Kind("cores", high=MAX_CORES),
    "cores_per_tile": Kind("cores", high=MAX_CORES),
    "tile_columns": Kind("tiles", high=MAX_CORES),
    "tile_rows": Kind("tiles", high=MAX_CORES),
    "chips_per_board": Kind("chips"),
    "routing_entries": Kind("entries"),
    # What one core holds; a list has one number for each core.
    "neurons_per_core": Kind("neurons"),
    "neurons_per_core_each": Kind("neurons", lists="cores"),
    "in_axons_per_core": Kind("axons"),
    "out_axons_per_core": Kind("axons"),
    "axons_per_neuron": Kind("axons"),
    "axon_distance": Kind("cores"),
    "population_axon_atoms": Kind("atoms"),
    "fan_in": Kind("synapses"),
    "signed_fan_in": Kind("synapses"),
    "fan_out_cores": Kind("cores"),
    "thresholds_per_core": Kind("thresholds"),
    "weight_formats_per_core": Kind("formats"),
    "neuron_formats_per_core": Kind("formats"),
    "synapses_per_core": Kind("synapses"),
    "kernel_words_per_core_each": Kind("words", lists="cores"),
    "bias_words_per_core": Kind("words"),
    "memory_bits_per_core": Kind("bit"),
    "memory_bits_per_chip": Kind("bit"),
    # How synapses are packed: a chunk of so many, a header, rounded up to whole words.
    "synapse_bits_per_core": Kind("bit"),
    "synapse_word_bits": Kind("bit", high=2**20),
    "synapse_chunk": Kind("synapses"),
    "synapse_header_bits": Kind("bit", low=0),
    "synapse_index_bits": _bits(low=0, lists="must"),
    "weight_bits_stored": _bits(lists="must"),
    "synapse_memory": _text(words=("core", "chip")),
    "bias_axons_per_core": Kind("axons"),
    # What a convolution or a fully connected layer may be, where a chip knows layers.
    "input_size": Kind("pixels"),
    "output_size": Kind("pixels"),
    "channels": Kind("channels"),
    "kernel_size": Kind("pixels", lists="may"),
    "strides": Kind("pixels", lists="may"),
    "padding": Kind("pixels", low=0),
    "pooling": Kind("pixels", lists="may"),
    "dense_inputs": Kind("neurons"),
    "delay": Kind("step"),
    "delay_extended": Kind("step"),
}

ARITHMETIC = {
    # Weights as whole numbers that a chip stores: min, min + step, ... max.
    "weight_bits": _bits(),
    "weight_bits_choice": _bits(lists="must"),
    "weight_min": _signed(high=0),
    "weight_max": Kind("1"),
    "weight_step": Kind("1"),
    "weight_sign": _text(),
    "weight_shift": _shift("bit", 0),
    # "layer": the weights, biases and thresholds of a layer share one scale.
    "weight_scale": _text(),
    "weight_exponent_min": _shift("1", -64),
    "weight_exponent_max": _shift("1", -64),
    "axon_types": Kind("types", high=64),
    "shared_weights": _text(),
    "input_bits": _bits(),
    "activation_bits_choice": _bits(lists="must"),
    # How arriving weights are added up.
    "accumulator_bits": _bits(),
    "accumulator_overflow": _text(words=("wrap", "saturate")),
    "current_bits": _bits(),
    "current_overflow": _text(words=("wrap", "saturate")),
    "decay_bits": _bits(),
    "membrane_min": _signed(high=0),
    "membrane_max": Kind("1"),
    "membrane_fraction_bits": _bits(low=0),
    "membrane_overflow": _text(words=("wrap", "saturate")),
    "membrane_floor": _text(),
    # When a neuron fires, and what then.
    "decides": _text(words=("step", "event", "analog")),
    "fire": _text(words=(">=", ">")),
    "reset": _text(),
    "leak_off": _text(),
    "leak_max": Kind("1", low=0),
    "threshold_min": _signed(),
    "threshold_max": Kind("1"),
    "threshold_shift": _shift("bit", 0),
    "bias": _text(),
    "bias_min": _signed(high=0),
    "bias_max": Kind("1", low=0),
    "bias_exponent_max": _shift("1", 0),
    "synops_per_event": Kind("synapses"),
}

TIMING = {
    "step_us": _positive("us"),
    "step_min_us": _positive("us"),
    "barrier_ns": _positive("ns"),
    "synop_ns": _positive("ns"),
    "neuron_active_ns": _positive("ns"),
    "neuron_inactive_ns": _positive("ns"),
    "spike_in_tile_ns": _positive("ns"),
    "hop_ew_ns": _positive("ns"),
    "hop_ns_ns": _positive("ns"),
    "clock_mhz": _positive("MHz"),
    "cycles_per_synop": _positive("cycles"),
    "synops_per_us": _positive("synops/us"),
    "macs_per_us": _positive("MAC/us"),
}

SECTIONS: Mapping[str, Mapping[str, Kind]] = {
    "limits": LIMITS,
    "arithmetic": ARITHMETIC,
    "timing": TIMING,
}

ORDERED = (
    ("weight_min", "weight_max"),
    ("weight_step", "weight_max"),
    ("weight_exponent_min", "weight_exponent_max"),
    ("membrane_min", "membrane_max"),
    ("threshold_min", "threshold_max"),
    ("bias_min", "bias_max"),
    ("weight_shift", "accumulator_bits"),
)
"""Pairs of keys of the arithmetic of which the first must not be larger."""

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

_UNITS = ("fJ", "pJ", "nJ")
_energy = partial(Kind, low=0, is_whole=False)

ENERGIES: Mapping[str, Kind] = MappingProxyType(
    {f"{name}_{unit.lower()}": _energy(unit) for name in _PER_OPERATION for unit in _UNITS}
    | {
        "static_mw_per_chip": _energy("mW"),
        "static_mw_per_core": _energy("mW"),
        "active_mw_per_core": _energy("mW"),
        "clock_uw_per_mhz": _energy("uW/MHz"),
        "hops_per_spike": _energy("hops"),
        "memory_bits_per_mac": _energy("bit"),
    }
)
"""Names of energies and powers, each with its unit.

``static_mw_per_chip`` and ``static_mw_per_core`` are two views of one thing, all cores on or the
unused ones off; ``active_mw_per_core`` comes on top, for each core in use.
"""


def operation_of(key: str) -> str:
    """Return the operation whose energy `key` names, ``synop`` of ``synop_pj``; else the key."""
    stem, _, unit = key.rpartition("_")
    return stem if unit in {u.lower() for u in _UNITS} and stem in _PER_OPERATION else key
