"""`Chip`: limits, arithmetic, timing and energies of one target, read from a TOML file.

Every number carries its unit, its source and how good the evidence is. What nobody has published
is left out, and what would need it is refused.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from os.path import isdir, isfile
from pathlib import Path
from types import MappingProxyType
from typing import Any

from whetsim.errors import FormatError, UnknownNameError, UnsupportedError, did_you_mean, quote
from whetsim_hardware.chip_keys import ENERGIES, SECTIONS, STATUSES, Kind, operation_of
from whetsim_hardware.chip_values import (
    problem_of_arithmetic,
    problem_of_limits,
    problem_of_text,
    problem_of_value,
)

__all__ = ["EVIDENCE", "Chip", "EnergySet", "Quantity", "chip_names", "load_chip"]

EVIDENCE: Mapping[str, str] = MappingProxyType(
    {
        "P": "read in the primary source",
        "Q": "quoted from the primary source by a third party",
        "S": "stated by a third party",
        "D": "derived from numbers with sources",
    }
)
"""How good the evidence for a number is, best first."""

MAX_FILE_BYTES = 200_000
MAX_LINE = 2_000
MAX_NAME = 255

Value = int | float | str | tuple[int | float, ...]


@dataclass(frozen=True)
class Quantity:
    """One fact about a chip.

    Parameters
    ----------
    value : number, text or tuple of numbers
        The typical value.
    unit : str
        ``1`` for pure numbers, ``rule`` for texts that name a behaviour.
    source : str
        Name of an entry in the chip's ``sources``.
    evidence : str
        A key of `EVIDENCE`.
    low, high : number, optional
        Range that sources give, if they give one.
    note : str
    """

    value: Value
    unit: str
    source: str
    evidence: str
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def range(self) -> tuple[float, float, float]:
        """Low, typical and high; all the same where no range is known.

        Raises
        ------
        UnsupportedError
            If the value is no number.
        """
        if isinstance(self.value, str | tuple):
            raise UnsupportedError(f"a value of {quote(self.value)} has no range.")
        typical = float(self.value)
        low = typical if self.low is None else float(self.low)
        return low, typical, typical if self.high is None else float(self.high)


@dataclass(frozen=True)
class EnergySet:
    """Energies of one chip that belong together.

    Parameters
    ----------
    name : str
    about : str
        What the numbers include and what must not be added to them.
    quantities : mapping of str to Quantity
        Names end in their unit: ``synop_pj``, ``static_mw_per_core``.
    """

    name: str
    about: str
    quantities: Mapping[str, Quantity]


@dataclass(frozen=True, eq=False)
class Chip:
    """One hardware target.

    Parameters
    ----------
    name, title, about : str
    status : str
        ``full``: place, emulate and estimate energy; ``placed``: place, and energy where it is
        known; ``limits``: place, no energies; ``reference``: a processor for the artificial
        network.
    sources : mapping of str to str
        What each source is.
    limits, arithmetic, timing : mapping of str to Quantity
    energy : mapping of str to EnergySet
        The first is the default.
    energy_refused : str
        Why no energy can be estimated; empty if it can.
    """

    name: str
    title: str
    about: str
    status: str
    sources: Mapping[str, str]
    limits: Mapping[str, Quantity] = field(default_factory=dict)
    arithmetic: Mapping[str, Quantity] = field(default_factory=dict)
    timing: Mapping[str, Quantity] = field(default_factory=dict)
    energy: Mapping[str, EnergySet] = field(default_factory=dict)
    energy_refused: str = ""

    def __repr__(self) -> str:
        return f"Chip({self.name!r}: {self.title}, {self.status})"

    def limit(self, key: str) -> int | None:
        """Return a limit as a whole number, None if the chip has none of that name.

        Raises
        ------
        UnsupportedError
            If the limit is a list, such as one number for each core.
        """
        found = self.limits.get(key)
        if found is None:
            return None
        if isinstance(found.value, str | tuple):
            raise UnsupportedError(
                f"chip {self.name!r}: limits.{key} is a list. Use limits[{key!r}].value."
            )
        return int(found.value)

    def rule(self, key: str) -> Any:
        """Return the value of a fact about the arithmetic.

        Raises
        ------
        UnsupportedError
            If the chip file does not say.
        """
        if key not in self.arithmetic:
            raise UnsupportedError(
                f"chip {self.name!r}: its file says nothing of arithmetic.{key}, which this needs."
            )
        return self.arithmetic[key].value

    def quantities(self) -> Iterator[tuple[str, Quantity]]:
        """Yield every fact with its full name, such as ``limits.neurons_per_core``."""
        for section in ("limits", "arithmetic", "timing"):
            for key, quantity in getattr(self, section).items():
                yield f"{section}.{key}", quantity
        for name, energies in self.energy.items():
            for key, quantity in energies.quantities.items():
                yield f"energy.{name}.{key}", quantity


def chip_names() -> tuple[str, ...]:
    """Return the names of all chips that come with the package."""
    folder = resources.files("whetsim_hardware") / "chips"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if _is_toml(f)))


def load_chip(name: str | Path) -> Chip:
    """Return a chip by its name, or read one from a TOML file.

    Raises
    ------
    UnknownNameError
        If there is no such chip; the text lists those that there are.
    FormatError
        If the file is not what a chip file must be; the text names section and key.
    """
    if str(name).endswith(".toml"):
        return _read_file(Path(name))
    if str(name) not in chip_names():
        if isinstance(name, Path) and isdir(name):
            raise FormatError(f"{quote(str(name))}: a folder; need a .toml file.")
        raise UnknownNameError(
            f"no chip named {quote(str(name))}; there are: {', '.join(chip_names())}."
            f"{did_you_mean(name, chip_names())} Or give the path of a .toml file."
        )
    return _bundled(str(name))


def _read_file(path: Path) -> Chip:
    name = path.name
    where = name if name.isprintable() and len(name) <= MAX_NAME else quote(name)
    if isdir(path):
        raise FormatError(f"{where}: a folder; need a file.")
    # Unlike those of Path, these are false for a name that is too long or has a null character.
    if not isfile(path):
        raise FormatError(f"{where}: no such file.")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise FormatError(f"{where}: cannot be read ({error.strerror}).") from None
    return read_chip(data, where)


@cache
def _bundled(name: str) -> Chip:
    file = resources.files("whetsim_hardware") / "chips" / f"{name}.toml"
    return read_chip(file.read_bytes(), file.name)


def read_chip(data: bytes, where: str) -> Chip:
    """Read and check the text of a chip file; `where` is its name, for errors."""
    if len(data) > MAX_FILE_BYTES:
        raise FormatError(f"{where}: a chip file has at most {MAX_FILE_BYTES:,} bytes.")
    for number, line in enumerate(data.split(b"\n"), 1):
        # A key of thousands of parts would keep the parser busy for minutes.
        if len(line) > MAX_LINE:
            raise FormatError(
                f"{where}: line {number:,} has {len(line):,} bytes; need at most {MAX_LINE:,}."
            )
    try:
        # A ValueError: not UTF-8, not TOML, or a number of thousands of digits.
        table = tomllib.loads(data.decode("utf-8"))
    except ValueError as error:
        raise FormatError(f"{where}: not a TOML file ({_one_line(error)}).") from None
    except RecursionError:
        raise FormatError(f"{where}: tables are nested too deeply.") from None
    try:
        return _Reader(where, table).chip()
    except RecursionError:
        raise FormatError(f"{where}: tables are nested too deeply.") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def _is_toml(file: Any) -> bool:
    return bool(file.name.endswith(".toml"))


class _Reader:
    """Turns the tables of one file into a `Chip`, naming what is wrong with it."""

    def __init__(self, where: str, table: dict[str, Any]) -> None:
        self._where = where
        self._table = table
        self._sources: Mapping[str, str] = {}

    def chip(self) -> Chip:
        texts = ("name", "title", "about", "status")
        legal = (*texts, "sources", *SECTIONS, "energy")
        for key in self._table:
            if key not in legal:
                raise self._wrong(f"unknown key {quote(key)}.{did_you_mean(key, legal)}")
        name, title, about, status = (self._text(self._table, key, key) for key in texts)
        if status not in STATUSES:
            raise self._wrong(
                f"status is {quote(status)}; need one of: {', '.join(STATUSES)}."
                f"{did_you_mean(status, STATUSES)}"
            )
        sources = self._section("sources")
        self._sources = MappingProxyType(
            {key: self._text(sources, key, self._name("sources", key)) for key in sources}
        )
        if f"{name}.toml" != self._where:
            raise self._wrong(f"name is {quote(name)}; need the name of the file.")
        energy, refused = self._energy()
        limits, arithmetic = self._quantities("limits"), self._quantities("arithmetic")
        self._check(problem_of_limits({key: q.value for key, q in limits.items()}))
        self._check(problem_of_arithmetic({key: q.value for key, q in arithmetic.items()}))
        return Chip(
            name,
            title,
            about,
            status,
            self._sources,
            limits=limits,
            arithmetic=arithmetic,
            timing=self._quantities("timing"),
            energy=energy,
            energy_refused=refused,
        )

    def _quantities(self, section: str) -> Mapping[str, Quantity]:
        legal = SECTIONS[section]
        found = {}
        for key, table in self._section(section).items():
            where = f"{section}.{key}"
            if key not in legal:
                raise self._wrong(f"unknown key {quote(where)}.{did_you_mean(key, legal)}")
            found[key] = self._quantity(table, where, legal[key])
        return MappingProxyType(found)

    def _energy(self) -> tuple[Mapping[str, EnergySet], str]:
        tables = dict(self._section("energy"))
        refused = tables.pop("refused", "")
        if not isinstance(refused, str) or bool(refused) == bool(tables):
            raise self._wrong(
                "energy: need sets of energies, or 'refused' with the reason why there are none."
            )
        if refused:
            self._text({"refused": refused}, "refused", "energy.refused")
        sets = {name: self._energy_set(name, given) for name, given in tables.items()}
        return MappingProxyType(sets), refused

    def _energy_set(self, name: str, given: Any) -> EnergySet:
        self._name("energy", name)
        if not isinstance(given, dict):
            raise self._wrong(f"energy.{name} is {quote(given)}; need a table.")
        about = self._text(given, "about", f"energy.{name}.about")
        quantities: dict[str, Quantity] = {}
        for key, table in given.items():
            where = f"energy.{name}.{key}"
            if key == "about":
                continue
            if key not in ENERGIES:
                raise self._wrong(f"unknown key {quote(where)}.{did_you_mean(key, ENERGIES)}")
            quantity = self._quantity(table, where, ENERGIES[key])
            for other in quantities:
                if operation_of(other) == operation_of(key):
                    raise self._wrong(f"{where}: {other} is the price of it already; need one.")
            quantities[key] = quantity
        if not quantities:
            raise self._wrong(f"energy.{name} has no energies.")
        all_in = [key for key in quantities if key.startswith("synop_all_in_")]
        if all_in and len(quantities) > 1:
            raise self._wrong(
                f"energy.{name}: {all_in[0]} has all power in it; nothing can stand beside it."
            )
        return EnergySet(name, about, MappingProxyType(quantities))

    def _quantity(self, table: Any, where: str, kind: Kind) -> Quantity:
        if not isinstance(table, dict):
            raise self._wrong(
                f"{where} is {quote(table)}; need a table with value, unit, source, evidence."
            )
        legal = ("value", "unit", "source", "evidence", "low", "high", "note")
        for key in table:
            if key not in legal:
                raise self._wrong(f"{where}: unknown key {quote(key)}.{did_you_mean(key, legal)}")
        for key in legal[:4]:
            if key not in table:
                raise self._wrong(f"{where}: {key} is missing.")
        if table["unit"] != kind.unit:
            raise self._wrong(f"{where}: unit is {quote(table['unit'])}; need {kind.unit!r}.")
        source, evidence = table["source"], table["evidence"]
        if not isinstance(source, str) or source not in self._sources:
            raise self._wrong(
                f"{where}: source {quote(source)} is not among [sources]: "
                f"{', '.join(self._sources) or 'none'}.{did_you_mean(source, self._sources)}"
            )
        if not isinstance(evidence, str) or evidence not in EVIDENCE:
            raise self._wrong(
                f"{where}: evidence is {quote(evidence)}; need one of: {', '.join(EVIDENCE)}."
            )
        note = self._text(table, "note", f"{where}: note") if "note" in table else ""
        given = table["value"]
        problem = problem_of_value(given, kind)
        if problem is not None:
            raise self._wrong(f"{where}: value is {quote(given)}; {problem}.")
        value: Value = tuple(given) if isinstance(given, list) else given
        low, high = self._bounds(table, value, where, kind)
        return Quantity(value, kind.unit, source, evidence, low, high, note)

    def _bounds(
        self, table: dict[str, Any], value: Value, where: str, kind: Kind
    ) -> tuple[float | None, float | None]:
        low, high = table.get("low"), table.get("high")
        for key, bound in (("low", low), ("high", high)):
            if bound is None:
                continue
            if isinstance(value, str | tuple):
                raise self._wrong(f"{where}: {key} needs a value that is one number.")
            problem = problem_of_value(bound, kind)
            if problem is not None:
                raise self._wrong(f"{where}: {key} is {quote(bound)}; {problem}.")
            if (bound > value) if key == "low" else (bound < value):
                raise self._wrong(
                    f"{where}: value is {quote(value)}; need low <= value <= high "
                    f"({key} is {quote(bound)})."
                )
        return low, high

    def _section(self, name: str) -> dict[str, Any]:
        table = self._table.get(name, {})
        if not isinstance(table, dict):
            raise self._wrong(f"{name} is {quote(table)}; need a table.")
        return table

    def _text(self, table: dict[str, Any], key: str, where: str) -> str:
        value = table.get(key)
        problem = problem_of_text(value)
        if problem is not None:
            raise self._wrong(f"{where} is {quote(value)}; {problem}.")
        return str(value)

    def _name(self, section: str, key: str) -> str:
        """Return the full name of a key that the file made up itself."""
        if not key.isprintable() or len(key) > MAX_NAME:
            raise self._wrong(f"{section}: a key is {quote(key)}; need a short one of one line.")
        return f"{section}.{key}"

    def _check(self, problem: str | None) -> None:
        if problem is not None:
            raise self._wrong(f"{problem}.")

    def _wrong(self, text: str) -> FormatError:
        return FormatError(f"{self._where}: {text}")
