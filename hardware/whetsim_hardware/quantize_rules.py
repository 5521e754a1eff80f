"""What the numbers of a quantized network may be: from a chip's file, or from a width alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import CapacityError, SampleError, UnsupportedError
from whetsim_hardware.chip import Chip

__all__ = ["MAX_BITS", "Rules", "rules_of"]

MAX_BITS = 16
FEWER = "Give each neuron fewer synapses: a smaller kernel, fewer channels or pruned weights."
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rules:
    """The whole numbers that weights and thresholds may be.

    A neuron fires iff the sum of its weights ``q`` over the spikes that arrive is at least its
    threshold. A weight is ``step`` times a whole number, ``low <= q <= high``; with one bit it is
    -1 or 1. An original weight of 0 stays no synapse.

    Parameters
    ----------
    bits : int
        Width of a weight, its sign counted.
    low, high, step : int
    threshold_low, threshold_high : int
        Range of a threshold.
    threshold_spread : int, optional
        By how much thresholds of one population may differ.
    one_scale : bool
        All weights of a population share one scale; else each neuron, or output channel of a
        convolution, has its own.
    sum_limit : int, optional
        Largest absolute sum that is added up right.
    part_limit : int, optional
        Largest sum of the positive weights that arrive, and of the negative ones.
    reach : int, optional
        Largest value of a threshold and the negative weights that arrive, together.
    refusal : str
        Not empty: the weights of a neuron must be equal, and this is the error where they are not.
    """

    bits: int
    low: int
    high: int
    step: int = 1
    threshold_low: int = -(2**31)
    threshold_high: int = 2**31
    threshold_spread: int | None = None
    one_scale: bool = False
    sum_limit: int | None = None
    part_limit: int | None = None
    reach: int | None = None
    refusal: str = ""

    @property
    def signs_apart(self) -> bool:
        """Whether positive and negative weights are added one after the other, or elsewhere."""
        return self.part_limit is not None or self.reach is not None

    def rounded(self, weight: Floats) -> Floats:
        """Return the nearest weights that there are; those that stand for 0 stay 0."""
        if self.bits == 1:
            return np.sign(weight)
        return np.clip(np.rint(weight / self.step) * self.step, self.low, self.high)

    def saturated(self, weight: Floats) -> NDArray[np.bool_]:
        """Return which weights lie more than half a step outside the range."""
        if self.bits == 1:
            return np.zeros(weight.shape, dtype=bool)
        half = self.step / 2
        return (weight > self.high + half) | (weight < self.low - half)

    def holds(self, positive: Floats, negative: Floats, threshold: Floats) -> NDArray[np.bool_]:
        """Return for which neurons no register overflows at such sums of weights that arrive."""
        right = np.ones(threshold.shape, dtype=bool)
        if self.sum_limit is not None:
            right &= np.maximum(positive, negative) <= self.sum_limit
        if self.part_limit is not None:
            right &= np.maximum(positive, negative) <= self.part_limit
        if self.reach is not None:
            right &= negative + threshold <= self.reach
        return right

    def smallest_scale(self, positive: Floats, negative: Floats, threshold: Floats) -> Floats:
        """Return the scale below which such real sums and thresholds overflow a register."""
        scale = np.maximum(threshold / self.threshold_high, 0.0)
        if self.threshold_low < 0:
            scale = np.maximum(scale, threshold / self.threshold_low)
        for limit in (self.sum_limit, self.part_limit):
            if limit is not None:
                scale = np.maximum(scale, np.maximum(positive, negative) / limit)
        if self.reach is not None:
            scale = np.maximum(scale, (negative + threshold) / self.reach)
        return scale


def rules_of(
    chip: Chip | None, bits: int | None, fan_in: int, planes: int = 1, signed: bool = False
) -> Rules:
    """Return what weights and thresholds may be on a chip, at a width, or at a width alone.

    Parameters
    ----------
    chip : Chip, optional
    bits : int, optional
        The widest that the chip has by default.
    fan_in : int
        Synapses that the widest neuron has, one for each bit plane. Where a weight takes several
        axons, they share what a core has.
    planes : int
        Bit planes that the inputs come in, at most; 1 for plain spikes. The weight of a plane
        beyond what a chip's weight exponents count is stored in full.
    signed : bool
        The last plane is that of the sign, and counts downward.

    Raises
    ------
    SampleError
        If `bits` is no width, or there is neither chip nor width.
    UnsupportedError
        If the chip decides with analog values, or its file lacks a number.
    CapacityError
        If the chip has no weights that wide, or none wide enough for so many planes.
    """
    if bits is not None:
        whole = isinstance(bits, (int, np.integer)) and not isinstance(bits, bool)
        if not whole or not 1 <= bits <= MAX_BITS:
            raise SampleError(f"quantize: bits is {bits!r}; need a whole number in 1..{MAX_BITS}.")
        bits = int(bits)
    if chip is None:
        if bits is None:
            raise SampleError("quantize: neither a chip nor bits. Name one of them.")
        return _of_width(bits)
    if chip.rule("decides") == "analog":
        raise UnsupportedError(f"chip {chip.name!r}: it decides with analog values, no integers.")
    axons = _has(chip, "axon_types")
    widest = _on_axon_types(chip, fan_in, bits) if axons else _of_chip(chip)
    rules = widest
    if not widest.refusal and bits is not None and bits != widest.bits:
        rules = _of_width(bits)
        if bits > widest.bits:
            onto = f" with {fan_in} synapses onto a neuron" if axons else ""
            raise CapacityError(
                f"chip {chip.name!r}: weights of {bits} bits; it has at most {widest.bits}, the "
                f"sign counted{onto}. Take fewer bits, or no chip."
            )
    rules = _for_planes(chip, rules, widest, planes, signed)
    return replace(rules, **_registers(chip, rules))


def _for_planes(chip: Chip, rules: Rules, widest: Rules, planes: int, signed: bool) -> Rules:
    """Return the weights whose multiples for all planes the chip can still hold."""
    shifts = int(chip.rule("weight_exponent_max")) + 1 if _has(chip, "weight_exponent_max") else 0
    lost = planes - 1 - shifts
    if lost <= 0:
        return rules
    low, high = (int(limit / widest.step / 2**lost) for limit in (widest.low, widest.high))
    if high < 1:
        has = f"exponents up to {shifts - 1}" if shifts else "no exponents"
        raise CapacityError(
            f"chip {chip.name!r}: input values of {planes} bits; its weights are {widest.low}.."
            f"{widest.high} and have {has}, which the planes need. Take a network that "
            "reads 0 and 1, or encoding='binary'."
        )
    if signed:
        low = max(low, -high)
    low, high = max(low * rules.step, rules.low), min(high * rules.step, rules.high)
    bits = min(rules.bits, (high // rules.step).bit_length() + 1)
    return replace(rules, bits=bits, low=low, high=high)


def _of_width(bits: int) -> Rules:
    """Return weights that are symmetric about 0; one bit is a sign alone."""
    largest = max(1, 2 ** (bits - 1) - 1)
    return Rules(bits, -largest, largest)


def _of_chip(chip: Chip) -> Rules:
    low, high = int(chip.rule("weight_min")), int(chip.rule("weight_max"))
    step = int(chip.rule("weight_step")) if _has(chip, "weight_step") else 1
    # Without a negative weight the sign is kept elsewhere: with the source, or the synapse type.
    largest = (high if low >= 0 else min(high, -low)) // step
    bits = min(largest.bit_length() + 1, MAX_BITS)
    if low < 0 and _has(chip, "weight_bits"):
        bits = min(bits, int(chip.rule("weight_bits")))
    largest = min(largest, 2 ** (bits - 1) - 1) * step
    return Rules(bits, -largest, largest, step)


def _on_axon_types(chip: Chip, fan_in: int, bits: int | None) -> Rules:
    """Return the weights that axons of several types can make, an axon for each bit.

    With types worth 1 and -1 a weight is -1, 0 or 1; with 1, 2, ... and the negative of the next
    power it is a number in two's complement.
    """
    types = int(chip.rule("axon_types"))
    axons = chip.limit("in_axons_per_core") or chip.limit("fan_in") or 0
    room = min(types, axons // max(fan_in, 1))
    if room < 2:
        refusal = (
            f"{fan_in} synapses onto a neuron, of both signs or several sizes (needs {2 * fan_in} "
            f"axons; chip {chip.name!r} has {axons}). {FEWER}"
        )
        if room < 1:
            raise CapacityError(
                f"chip {chip.name!r}: {fan_in} synapses onto a neuron (needs {fan_in} axons; the "
                f"chip has {axons}). {FEWER}"
            )
        return replace(_of_width(1), refusal=refusal)
    taken = room if bits is None else min(bits, room)
    if taken <= 2:
        return _of_width(taken)
    return Rules(taken, -(2 ** (taken - 1)), 2 ** (taken - 1) - 1)


def _registers(chip: Chip, rules: Rules) -> dict[str, Any]:
    """Return the limits of thresholds and sums, in units of the weights."""
    found: dict[str, Any] = {}
    # Weights arrive shifted; the shift can be lowered until the smallest weight is one unit.
    shift = int(chip.rule("weight_shift")) if _has(chip, "weight_shift") else 0
    unit = rules.step / 2**shift
    signed = int(chip.rule("weight_min")) < 0
    if _has(chip, "accumulator_bits"):
        most = 2 ** int(chip.rule("accumulator_bits")) - 1
        found["sum_limit" if signed else "part_limit"] = int(most * unit)
    elif _has(chip, "membrane_max") and signed:
        found["sum_limit"] = int(int(chip.rule("membrane_max")) * unit)
    by_event = chip.rule("decides") == "event" and not signed
    if by_event:
        found["reach"] = int(int(chip.rule("membrane_max")) * unit)
    common = chip.limit("thresholds_per_core") is not None
    if common and _has(chip, "bias_max"):
        # One threshold for many neurons: each has its own by its bias.
        exponent = int(chip.rule("bias_exponent_max")) if _has(chip, "bias_exponent_max") else 0
        most = int(int(chip.rule("bias_max")) * 2**exponent * unit) - 2 * rules.step
        found |= {"threshold_low": -most, "threshold_high": most}
    elif _has(chip, "threshold_max"):
        found["threshold_low"] = int(chip.rule("threshold_min"))
        found["threshold_high"] = int(chip.rule("threshold_max"))
        if by_event:
            # Virtual events fire a neuron whose threshold lies lower.
            found["threshold_low"] = -int(chip.rule("weight_max")) * (chip.limit("fan_in") or 0)
    for limit in ("sum_limit", "part_limit"):
        if limit in found and "threshold_high" not in found:
            found |= {"threshold_low": -found[limit], "threshold_high": found[limit]}
    if _has(chip, "weight_scale") and chip.rule("weight_scale") == "layer":
        found["one_scale"] = True
        if _has(chip, "bias_max"):
            low, high = int(chip.rule("bias_min")), int(chip.rule("bias_max"))
            found["threshold_spread"] = high - low
            found["threshold_low"] -= high
            found["threshold_high"] -= low
    return found


def _has(chip: Chip, key: str) -> bool:
    return key in chip.arithmetic
