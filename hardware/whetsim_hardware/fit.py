"""`fit`: does a network fit each chip, how tightly, and if not, why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from whetsim.errors import CapacityError, UnknownNameError, did_you_mean, quote
from whetsim.network import Encoding, SpikingNetwork
from whetsim_hardware.chip import Chip, chip_names, load_chip
from whetsim_hardware.place import place_wiring, wiring_for
from whetsim_hardware.placement.value import Placement
from whetsim_hardware.placement.wiring import Wiring

__all__ = ["ChipFit", "Fit", "fit"]

TIGHTEST = 3
"""Resources of a chip that the table shows."""


@dataclass(frozen=True)
class ChipFit:
    """How a network fits one chip.

    Parameters
    ----------
    chip : str
    fits : bool
    encoding : str
        How the input reaches it.
    n_cores, n_chips : int
        0 if it does not fit.
    tightest : tuple of (str, int, int)
        Resource, most that a core uses, what a core has: the fullest first.
    reason : str
        Why it does not fit; or, where only a binary input fits, why other inputs do not.
    notes : tuple of str
        What was taken for granted.
    """

    chip: str
    fits: bool
    encoding: str
    n_cores: int = 0
    n_chips: int = 0
    tightest: tuple[tuple[str, int, int], ...] = ()
    reason: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fit:
    """How a network fits each of several chips.

    Parameters
    ----------
    network : str
    chips : tuple of ChipFit
    """

    network: str
    chips: tuple[ChipFit, ...]

    def __getitem__(self, chip: str) -> ChipFit:
        """Return how it fits the chip of that name.

        Raises
        ------
        UnknownNameError
            If that chip was not tried.
        """
        for found in self.chips:
            if found.chip == chip:
                return found
        names = [c.chip for c in self.chips]
        raise UnknownNameError(
            f"no chip named {quote(chip)} was tried; there are: {', '.join(names)}."
            f"{did_you_mean(chip, names)}"
        )

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [("chip", "fits", "input", "cores", "chips", "fullest core")]
        for c in self.chips:
            full = ", ".join(f"{key} {used:,}/{most:,}" for key, used, most in c.tightest)
            numbers = (f"{c.n_cores:,}", f"{c.n_chips:,}") if c.fits else ("-", "-")
            rows.append((c.chip, "yes" if c.fits else "no", c.encoding, *numbers, full or "-"))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [f"{self.network}:"]
        lines += [
            "  "
            + "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[5]])
            for row in rows
        ]
        for c in self.chips:
            lines += [f"  {c.chip}: {text}" for text in (c.reason, *c.notes) if text]
        return "\n".join(lines)


def fit(
    network: SpikingNetwork,
    chips: str | Path | Chip | Iterable[str | Path | Chip] | None = None,
    *,
    encoding: Encoding | None = None,
) -> Fit:
    """Place a network on each chip and say what comes of it.

    Parameters
    ----------
    network : SpikingNetwork
        Weights that are not in a chip's numbers are taken to be quantized to its bits.
    chips : name, path or Chip, or several of them, optional
        All chips of the package by default; processors for artificial networks are left out.
    encoding : str, optional
        How an input of more than 0 and 1 becomes events. By default as each chip can carry it
        exactly; where that does not fit and a binary input does, the binary one, and why.

    Returns
    -------
    Fit
    """
    if chips is None:
        chips = [name for name in chip_names() if load_chip(name).status != "reference"]
    if isinstance(chips, str | Path | Chip):
        chips = [chips]
    known: dict[tuple[str, ...], Wiring] = {}
    loaded = [chip if isinstance(chip, Chip) else load_chip(chip) for chip in chips]
    return Fit(network.name, tuple(_fit_one(network, chip, encoding, known) for chip in loaded))


def _fit_one(
    network: SpikingNetwork,
    chip: Chip,
    encoding: Encoding | None,
    known: dict[tuple[str, ...], Wiring],
) -> ChipFit:
    try:
        return _fitting(_placed(network, chip, encoding, known))
    except CapacityError as error:
        refused = error
    used = wiring_for(network, chip, encoding).encoding
    if encoding is None and network.input.is_graded:
        try:
            return _fitting(
                _placed(network, chip, "binary", known), f"with {used} input: {refused}"
            )
        except CapacityError as error:
            refused, used = error, "binary"
    return ChipFit(chip.name, False, used, reason=str(refused))


def _placed(
    network: SpikingNetwork,
    chip: Chip,
    encoding: Encoding | None,
    known: dict[tuple[str, ...], Wiring],
) -> Placement:
    """Place with the wiring of an earlier chip that gets the same network."""
    made = wiring_for(network, chip, encoding)
    # Relays are all that tells two networks of one encoding apart.
    names = (made.network.input.encoding, *(p.name for p in made.network.populations))
    return place_wiring(known.setdefault(names, made), chip)


def _fitting(placement: Placement, reason: str = "") -> ChipFit:
    full = [(key, used, most) for key, (used, most) in placement.used.items()]
    full.sort(key=lambda row: -row[1] / max(row[2], 1))
    return ChipFit(
        placement.chip,
        True,
        placement.encoding,
        placement.n_cores,
        placement.n_chips,
        tuple(full[:TIGHTEST]),
        reason,
        placement.notes,
    )
