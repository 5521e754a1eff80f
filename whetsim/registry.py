"""Which backends there are: every entry point in the group ``whetsim.backends``."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from whetsim.backend import Backend
from whetsim.errors import BackendNotInstalledError, UnknownNameError, did_you_mean

__all__ = ["backend_names", "get_backend"]

GROUP = "whetsim.backends"


@cache
def _registered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP))}


def backend_names() -> tuple[str, ...]:
    """Return the names of all registered backends, installed simulators or not."""
    return tuple(_registered())


@cache
def get_backend(name: str) -> Backend:
    """Return the backend called `name`.

    Raises
    ------
    UnknownNameError
        If no such backend is registered; the text lists those that are.
    """
    registered = _registered()
    if not isinstance(name, str):
        raise UnknownNameError(f"backend must be a name (got {name!r}).")
    if name not in registered:
        hint = "" if registered else " Install the checkout first: pip install -e ."
        raise UnknownNameError(
            f"no backend named {name!r}; registered: {', '.join(registered) or 'none'}."
            f"{did_you_mean(name, registered)}{hint}"
        )
    try:
        backend: Backend = registered[name].load()()
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BackendNotInstalledError(
            f"{name}: the backend cannot be loaded from {registered[name].value} ({reason}). "
            "Install or remove the package that registers it."
        ) from error
    return backend
