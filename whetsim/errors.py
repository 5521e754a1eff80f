"""Every error whetsim raises on purpose.

Texts have one form: *where: what is wrong (got X; need Y). What to do.*
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable

__all__ = [
    "BackendNotInstalledError",
    "CapacityError",
    "FormatError",
    "MappingError",
    "SampleError",
    "UnknownNameError",
    "UnsupportedError",
    "WhetsimError",
    "did_you_mean",
    "install_line",
    "quote",
]


class WhetsimError(Exception):
    """Base class: catching it catches every error that whetsim raises on purpose."""


class FormatError(WhetsimError, ValueError):
    """A file or a model description is not what it must be."""


class MappingError(WhetsimError, ValueError):
    """A trained model cannot become a spiking network; the text names layer and reason."""


class SampleError(WhetsimError, ValueError):
    """Samples, labels or keys have the wrong shape, type or range."""


class CapacityError(WhetsimError, ValueError):
    """A network does not fit a chip."""


class UnsupportedError(WhetsimError, NotImplementedError):
    """A backend was asked for something outside its declared capabilities."""


class UnknownNameError(WhetsimError, LookupError):
    """No backend, data set or network has the name that was asked for."""


class BackendNotInstalledError(WhetsimError, ImportError):
    """A package that is needed is not installed; the text says how to get it."""


def did_you_mean(name: object, choices: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest of `choices`, else an empty string."""
    # Both may come from a hostile file, and matching takes the square of a length.
    wanted = str(name)
    few = [c for c in itertools.islice(choices, 200) if len(c) <= 64]
    close = difflib.get_close_matches(wanted, few, n=1, cutoff=0.6) if len(wanted) <= 64 else []
    return f" Did you mean {close[0]!r}?" if close else ""


def install_line(extra: str) -> str:
    """Return the command that installs the packages of an extra."""
    return f'pip install "whetsim[{extra}]" (in a clone: pip install -e ".[{extra}]")'


def quote(value: object) -> str:
    """Return ``repr(value)``, cut to a length that fits a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
