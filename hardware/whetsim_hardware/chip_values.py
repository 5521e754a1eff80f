"""What is wrong with a value of a chip file, in words; the reader says where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whetsim.errors import quote
from whetsim_hardware.chip_keys import MAX_COUNT, ORDERED, Kind

__all__ = [
    "MAX_TEXT",
    "is_number",
    "problem_of_arithmetic",
    "problem_of_limits",
    "problem_of_text",
    "problem_of_value",
]

MAX_TEXT = 2_000
MAX_LIST = 64


def problem_of_text(value: Any) -> str | None:
    """Return what is wrong with a text, None if nothing is."""
    if not isinstance(value, str) or not value:
        return "need a text"
    if len(value) > MAX_TEXT:
        return f"need a text of at most {MAX_TEXT:,} characters"
    if not value.isprintable():
        return "need a text of one line, without control characters"
    return None


def problem_of_value(value: Any, kind: Kind) -> str | None:
    """Return what is wrong with a value of a kind, None if nothing is."""
    if kind.unit == "rule":
        problem = problem_of_text(value)
        if problem is None and kind.words and value not in kind.words:
            legal = " or ".join(f"'{word}'" for word in kind.words)
            problem = f"need {legal}"
        return problem
    if isinstance(value, list | tuple):
        return _problem_of_list(value, kind)
    if kind.lists in ("must", "cores"):
        each = "numbers" if kind.lists == "must" else "one number for each core"
        return f"need a list of {each}"
    return _problem_of_number(value, kind)


def _problem_of_list(values: Any, kind: Kind) -> str | None:
    if kind.lists == "none":
        return "need one number"
    if not values:
        return "need at least one number"
    if kind.lists != "cores" and len(values) > MAX_LIST:
        return f"need at most {MAX_LIST} numbers"
    problems = (_problem_of_number(value, kind) for value in values)
    return next((problem for problem in problems if problem is not None), None)


def _problem_of_number(value: Any, kind: Kind) -> str | None:
    if not is_number(value):
        return "need a finite number"
    if kind.is_whole and not isinstance(value, int):
        return f"need a whole number {_range_of(kind)}"
    if not kind.low <= value <= kind.high:
        return f"need a {'whole ' if kind.is_whole else ''}number {_range_of(kind)}"
    return None


def _range_of(kind: Kind) -> str:
    if kind.high == MAX_COUNT:
        return f">= {kind.low:,}" if kind.low > -MAX_COUNT else "of at most 15 digits"
    low = f"{-MAX_COUNT:,}" if kind.low == -MAX_COUNT else f"{kind.low:,}"
    return f"from {low} to {kind.high:,.0f}"


def problem_of_limits(limits: Mapping[str, Any]) -> str | None:
    """Return which limits contradict each other; `limits` are the values alone."""
    cores = limits.get("cores")
    for key, value in limits.items():
        if key.endswith("_each") and len(value) != cores:
            return f"limits.{key} has {len(value):,} numbers; need one for each of limits.cores"
    mesh = ("tile_columns", "tile_rows", "cores_per_tile")
    if cores is not None and all(key in limits for key in mesh):
        columns, rows, each = (limits[key] for key in mesh)
        if columns * rows * each < cores:
            return (
                f"limits.cores is {cores:,}; need at most the {columns:,} x {rows:,} tiles of "
                f"{each:,} cores"
            )
    return None


def problem_of_arithmetic(rules: Mapping[str, Any]) -> str | None:
    """Return which facts of the arithmetic contradict each other; `rules` are values alone."""
    for smaller, larger in ORDERED:
        if smaller in rules and larger in rules and rules[smaller] > rules[larger]:
            return (
                f"arithmetic.{smaller} is {quote(rules[smaller])}; need at most "
                f"arithmetic.{larger}, {quote(rules[larger])}"
            )
    low, step = rules.get("weight_min", 0), rules.get("weight_step", 1)
    if low < 0 and -low < step:
        return (
            f"arithmetic.weight_step is {step:,}; need at most {-low:,}, as weight_min is {low:,}"
        )
    return None


def is_number(value: Any) -> bool:
    """Whether `value` is a number that is finite and of a size that a fact can have."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -MAX_COUNT <= value <= MAX_COUNT
    )
