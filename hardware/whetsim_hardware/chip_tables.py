"""Chips as tables for the terminal, and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from whetsim_hardware.chip import EVIDENCE, Chip, Quantity

__all__ = ["chip_facts", "chip_table", "chips_table", "source_lines"]


def chip_facts(chip: Chip) -> dict[str, Any]:
    """Return everything that a chip's file says."""
    return {
        "name": chip.name,
        "title": chip.title,
        "status": chip.status,
        "about": chip.about,
        "quantities": {name: vars(quantity) for name, quantity in chip.quantities()},
        "energy_sets": {name: energies.about for name, energies in chip.energy.items()},
        "energy_refused": chip.energy_refused,
        "sources": dict(chip.sources),
    }


def chips_table(chips: Sequence[Chip]) -> Table:
    """Show the chips there are, a row each."""
    table = Table(title="chips and reference processors", title_justify="left", header_style="dim")
    for column in ("name", "what", "status", "cores", "neurons", "weights", "fires", "energies"):
        table.add_column(column, overflow="fold")
    for chip in chips:
        bits = chip.arithmetic.get("weight_bits")
        fire = chip.arithmetic.get("fire")
        table.add_row(
            chip.name,
            chip.title,
            chip.status,
            _shown(chip.limits.get("cores")),
            _shown(chip.limits.get("neurons_per_core")),
            "-" if bits is None else f"{bits.value} bit",
            _shown(fire),
            ", ".join(chip.energy) or "none published",
        )
    return table


def chip_table(chip: Chip) -> Table:
    """Show every fact about one chip with its unit, source and evidence."""
    table = Table(
        title=f"{chip.title}: {chip.about}",
        title_justify="left",
        header_style="dim",
        title_style="",
    )
    for column in ("fact", "value", "unit", "source", "evidence", "note"):
        table.add_column(column, overflow="fold")
    for name, q in chip.quantities():
        table.add_row(name, _shown(q), q.unit, q.source, q.evidence, q.note)
    return table


def source_lines(chip: Chip) -> list[Text]:
    """Show what the sources are, what the tags mean, and what energies there are."""
    lines = [Text(f"{key}: {text}") for key, text in chip.sources.items()]
    lines.append(Text("evidence: " + "; ".join(f"{k} {v}" for k, v in EVIDENCE.items()), "dim"))
    lines += [Text(f"energies {name!r}: {e.about}") for name, e in chip.energy.items()]
    if chip.energy_refused:
        lines.append(Text(f"no energies: {chip.energy_refused}"))
    return lines


def _shown(quantity: Quantity | None) -> str:
    if quantity is None:
        return "-"
    value = quantity.value
    if isinstance(value, tuple):
        text = ", ".join(f"{v:,}" for v in value)
    elif isinstance(value, bool | str):
        text = str(value)
    else:
        text = f"{value:,}"
    if quantity.low is None and quantity.high is None:
        return text
    low = value if quantity.low is None else quantity.low
    high = value if quantity.high is None else quantity.high
    return f"{text} ({low:,} to {high:,})"
