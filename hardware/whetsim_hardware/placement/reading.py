"""Checks of what a placement's JSON text holds, before anything is made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from whetsim.errors import quote

__all__ = ["check_content"]

MOST = 2**53
"""Counts above are no counts of anything on a chip."""
Check = Callable[[str, Any], None]


def check_content(content: Mapping[str, Any]) -> None:
    """Check the fields of a placement.

    Raises
    ------
    ValueError
        If one is not of its kind; the text names it.
    """
    _fields("", content, PLACEMENT)


def _text(where: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{where}: got {quote(value)}; need a text")


def _count(where: str, value: Any, least: int = 0) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST:
        raise ValueError(f"{where}: got {quote(value)}; need a whole number, at least {least}")


def _positive(where: str, value: Any) -> None:
    _count(where, value, 1)


def _amount(where: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (0 <= value < math.inf):
        raise ValueError(f"{where}: got {quote(value)}; need a finite number, at least 0")


def _all(check: Check) -> Check:
    """Return the check of a list."""

    def each(where: str, value: Any) -> None:
        if not isinstance(value, list):
            raise ValueError(f"{where}: got {quote(value)}; need a list")
        for number, item in enumerate(value):
            check(f"{where}[{number}]", item)

    return each


def _named(check: Check) -> Check:
    """Return the check of an object whose keys are names."""

    def each(where: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: got {quote(value)}; need an object")
        for name, item in value.items():
            check(f"{where}[{quote(name)}]", item)

    return each


def _hops(where: str, value: Any) -> None:
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"{where}: got {quote(value)}; need source, target and hops")
    _text(where, value[0])
    _text(where, value[1])
    _amount(where, value[2])


def _triple(where: str, value: Any) -> None:
    _all(_count)(where, value)
    if len(value) != 3:
        raise ValueError(f"{where}: got {quote(value)}; need height, width and channels")


def _slice(where: str, value: Any) -> None:
    _fields(where, value, SLICE)
    corners = zip(value["start"], value["stop"], value["shape"], strict=True)
    if not all(start < stop <= size for start, stop, size in corners):
        raise ValueError(f"{where}: got {quote(value)}; need start < stop <= shape")


def _core(where: str, value: Any) -> None:
    _fields(where, value, CORE)


def _fields(where: str, value: Any, checks: Mapping[str, Check]) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'content'}: got {quote(value)}; need an object")
    prefix = f"{where}." if where else ""
    _refuse_keys(prefix, "unknown", [key for key in value if key not in checks])
    _refuse_keys(prefix, "missing", [k for k in checks if k not in value])
    for key, item in value.items():
        checks[key](f"{prefix}{key}", item)


def _refuse_keys(prefix: str, how: str, keys: Iterable[str]) -> None:
    for key in keys:
        raise ValueError(f"{how} key {prefix}{quote(key)}")


SLICE: Mapping[str, Check] = {
    "population": _text,
    "shape": _triple,
    "start": _triple,
    "stop": _triple,
}
CORE: Mapping[str, Check] = {
    **dict.fromkeys(("index", "chip", "x", "y"), _count),
    "slices": _all(_slice),
    "used": _named(_count),
}
PLACEMENT: Mapping[str, Check] = {
    **dict.fromkeys(("network", "chip", "method", "encoding", "fingerprint"), _text),
    **dict.fromkeys(("weight_bits", "n_chips"), _positive),
    **dict.fromkeys(("limits", "synapses", "relays", "splitters", "copies"), _named(_count)),
    "cores": _all(_core),
    "extra_steps": _count,
    "hops": _all(_hops),
    "messages_per_spike": _named(_amount),
    "traffic": _amount,
    "greedy_traffic": _amount,
    "notes": _all(_text),
}
