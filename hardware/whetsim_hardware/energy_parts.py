"""What an energy estimate is made of: ranges, counts and the price of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from whetsim_hardware.chip import EnergySet, Quantity

__all__ = ["Part", "Price", "Range", "price_of", "total"]

PJ_IN = {"fJ": 1e-3, "pJ": 1.0, "nJ": 1e3}


class Range(NamedTuple):
    """What an estimate may be: low, typical, high."""

    low: float
    typical: float
    high: float

    def times(self, factor: float | Range) -> Range:
        """Return the product, bound by bound."""
        other = factor if isinstance(factor, Range) else Range(factor, factor, factor)
        return Range(self.low * other.low, self.typical * other.typical, self.high * other.high)

    def plus(self, other: Range) -> Range:
        """Return the sum, bound by bound."""
        return Range(self.low + other.low, self.typical + other.typical, self.high + other.high)


ZERO = Range(0.0, 0.0, 0.0)


def total(ranges: Iterable[Range]) -> Range:
    """Return the sum of ranges, bound by bound."""
    result = ZERO
    for each in ranges:
        result = result.plus(each)
    return result


class Price(NamedTuple):
    """What one operation takes, and the name of the fact that says so."""

    range: Range
    key: str


def price_of(energies: EnergySet, operation: str) -> Price | None:
    """Return the price of an operation in pJ, None if the set has none."""
    for unit, factor in PJ_IN.items():
        key = f"{operation}_{unit.lower()}"
        if key in energies.quantities:
            return Price(range_of(energies.quantities[key]).times(factor), key)
    return None


def power_of(energies: EnergySet, key: str) -> Price | None:
    """Return a power in mW (the same as pJ each ns), None if the set has none."""
    quantity = energies.quantities.get(key)
    return None if quantity is None else Price(range_of(quantity), key)


def range_of(quantity: Quantity) -> Range:
    """Return the range of a fact."""
    return Range(*quantity.range)


@dataclass(frozen=True)
class Part:
    """One part of an energy estimate, for one inference.

    Parameters
    ----------
    name : str
    count : float or None
        How often it happens; None if that is not known.
    unit : str
        What is counted.
    label : str
        Where the count is from: ``measured in simulation``, ``emulated`` or ``estimated``.
    energy_pj : Range or None
        None if it cannot be said; `note` says why.
    is_static : bool
        Whether it takes power as long as the chip is on.
    note : str
    keys : tuple of str
        Names of the facts it was computed with, as `Chip.quantities` gives them.
    """

    name: str
    count: float | None
    unit: str
    label: str
    energy_pj: Range | None
    is_static: bool = False
    note: str = ""
    keys: tuple[str, ...] = ()
