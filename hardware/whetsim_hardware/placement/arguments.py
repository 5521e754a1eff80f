"""Checks of what `place` is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from whetsim.errors import SampleError, UnsupportedError, quote
from whetsim.recording import Recording
from whetsim_hardware.chip import Chip

__all__ = ["check_max_chips", "check_spikes", "check_weight_bits"]

MOST_BITS = 64
"""Of a weight, where the chip's file does not list the sizes that it stores."""


def check_weight_bits(chip: Chip, bits: Any) -> None:
    """Raise `UnsupportedError` unless a chip stores weights of so many bits, or `bits` is None."""
    sizes = chip.limits.get("weight_bits_stored")
    most = int(max(sizes.value)) if sizes and isinstance(sizes.value, tuple) else MOST_BITS
    if bits is not None and not _is_whole(bits, 1, most):
        raise UnsupportedError(
            f"chip {chip.name!r}: no such weight_bits (got {quote(bits)}; need 1..{most}). "
            "Leave them out for the chip's own."
        )


def check_max_chips(chip: Chip, most: Any) -> None:
    """Raise `UnsupportedError` unless `most` is a number of chips, or None."""
    if most is not None and not _is_whole(most, 1, math.inf):
        raise UnsupportedError(
            f"chip {chip.name!r}: max_chips is no number of chips (got {quote(most)}; need a whole "
            "number, at least 1). Leave it out for any number."
        )


def check_spikes(spikes: Any) -> None:
    """Raise `SampleError` unless `spikes` are those of a recording or of named populations."""
    if spikes is None or isinstance(spikes, Recording):
        return
    if not isinstance(spikes, Mapping):
        raise SampleError(
            f"spikes: got {quote(spikes)}; need a recording, or spikes a sample by population. "
            "Leave them out to count every neuron alike."
        )
    for name, value in spikes.items():
        if not isinstance(value, Real) or not 0 <= float(value) < math.inf:
            raise SampleError(
                f"spikes: {quote(name)} has no number of spikes (got {quote(value)}; need a finite "
                "number, at least 0). Give its spikes a sample."
            )


def _is_whole(value: Any, least: int, most: float) -> bool:
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and least <= int(value) <= most
