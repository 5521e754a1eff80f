"""What a core of a chip can hold, and what a block of neurons takes of it, read from its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import UnsupportedError
from whetsim_hardware.chip import Chip

__all__ = ["ONE_SIGN", "CoreRules", "core_rules"]

Integers = NDArray[np.int64]

ONE_SIGN = ("one for each source", "one for each row")
"""Values of ``arithmetic.weight_sign`` with which a source of both signs takes two axons."""
STATE_BITS = 32
"""A neuron's state where a core's memory holds synapses and neurons: one float."""
PER_CORE = ("neurons", "in_axons", "out_axons", "synapses", "synapse_bits", "thresholds")


@dataclass(frozen=True, eq=False)
class CoreRules:
    """Limits of one core and how its synapses are stored.

    Parameters
    ----------
    chip : Chip
    limits : mapping of str to int
        Largest sum over a core, by resource; only what the chip's file gives.
    fan_in : int, optional
        Most synapses onto one neuron.
    weight_bits : int
        Bits of a stored weight.
    splits_signs : bool
        A source whose weights on a core have both signs takes two axons.
    axon_types : int
        More than 0: a weight is one bit and a value for the axon's type, so that an input takes
        one axon for each bit of its weights.
    axons_per_neuron : int, optional
        How many axons a neuron can send to.
    shares_cores : bool
        Several populations may sit on one core.
    """

    chip: Chip
    limits: Mapping[str, int]
    fan_in: int | None
    weight_bits: int
    splits_signs: bool
    axon_types: int
    axons_per_neuron: int | None
    shares_cores: bool

    @property
    def memory(self) -> str | None:
        """Name of the resource that holds the synapses; None if there is no limit to it."""
        return next((key for key in ("synapse_bits", "memory_bits") if key in self.limits), None)

    def axon_bits(self, synapses: Integers, delay: int, dense: int = 0) -> Integers:
        """Return the bits that axons with so many synapses take.

        Parameters
        ----------
        synapses : int64 array
        delay : int
            Of the projection, in steps.
        dense : int
            More than 0: rows of that many weights without target indices, zeros stored too.

        Notes
        -----
        With chunks: every `chunk` synapses of an axon take
        ``ceil((n (weight + delay + index bits) + header) / word) * word`` bits.
        """
        chip = self.chip
        header = chip.limit("synapse_header_bits") or 0
        word = chip.limit("synapse_word_bits")
        chunk = chip.limit("synapse_chunk")
        if chunk is None or word is None:
            return np.asarray(synapses * (word or self.weight_bits) + header)
        each = self.weight_bits + (delay - 1).bit_length()
        if dense:
            synapses = np.full_like(synapses, dense)
        else:
            each += self._index_bits()
        whole, rest = np.divmod(synapses, chunk)
        words = whole * -(-(chunk * each + header) // word)
        words = words + np.where(rest > 0, -(-(rest * each + header) // word), 0)
        return np.asarray(words * word)

    def _index_bits(self) -> int:
        codes = self.chip.limits.get("synapse_index_bits")
        needed = (self.limits.get("neurons", 1) - 1).bit_length()
        if codes is None or not isinstance(codes.value, tuple):
            return needed
        return int(min((c for c in codes.value if c >= needed), default=needed))


def core_rules(chip: Chip, weight_bits: int | None = None) -> CoreRules:
    """Return what a core of `chip` holds.

    Raises
    ------
    UnsupportedError
        If the chip's file gives no limit of its cores at all.
    """
    limits = {key: chip.limit(f"{key}_per_core") for key in PER_CORE}
    limits["weight_formats"] = chip.limit("weight_formats_per_core")
    where = chip.limits.get("synapse_memory")
    if where is not None and where.value == "chip":
        limits["memory_bits"] = (chip.limit("memory_bits_per_chip") or 0) // (
            chip.limit("cores") or 1
        )
    elif where is not None:
        limits["memory_bits"] = chip.limit("memory_bits_per_core")
    given = {key: value for key, value in limits.items() if value is not None}
    if not given or chip.limit("cores") is None:
        raise UnsupportedError(
            f"chip {chip.name!r}: its file gives no limits of cores, so nothing can be placed. "
            "Take a chip with cores."
        )
    sign = chip.arithmetic.get("weight_sign")
    types = chip.arithmetic.get("axon_types")
    decides = chip.arithmetic.get("decides")
    return CoreRules(
        chip=chip,
        limits=given,
        fan_in=chip.limit("fan_in"),
        weight_bits=_stored_bits(chip, weight_bits),
        splits_signs=sign is not None and sign.value in ONE_SIGN,
        axon_types=0 if types is None else int(types.value),  # type: ignore[arg-type]
        axons_per_neuron=chip.limit("axons_per_neuron"),
        shares_cores="memory_bits" not in given and decides is not None and decides.value == "step",
    )


def _stored_bits(chip: Chip, weight_bits: int | None) -> int:
    native = chip.arithmetic.get("weight_bits")
    bits = weight_bits or (8 if native is None else int(native.value))  # type: ignore[arg-type]
    sizes = chip.limits.get("weight_bits_stored")
    if sizes is None or not isinstance(sizes.value, tuple):
        return bits
    return int(min((s for s in sizes.value if s >= bits), default=max(sizes.value)))


def bits_of(rules: CoreRules, delay: int, dense: int = 0) -> partial[Integers]:
    """Return `CoreRules.axon_bits` for one projection."""
    return partial(rules.axon_bits, delay=delay, dense=dense)
