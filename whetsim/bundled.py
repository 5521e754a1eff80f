"""Networks that come with whetsim, and finding a network by path or name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from whetsim.errors import FormatError, did_you_mean

__all__ = ["bundled_names", "find_network"]

SUFFIX = ".safetensors"


def bundled_names() -> tuple[str, ...]:
    """Return the names of the networks in the package."""
    folder = files("whetsim") / "networks"
    return tuple(sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(SUFFIX)))


def find_network(name: str) -> Path:
    """Return the file of a network: a path, or the name of a bundled network.

    Raises
    ------
    FormatError
        If it is neither.
    """
    if Path(name).exists():
        return Path(name)
    names = bundled_names()
    if name in names:
        return Path(str(files("whetsim") / "networks" / f"{name}{SUFFIX}"))
    raise FormatError(
        f"{name}: no such file, and no bundled network has this name; there are: "
        f"{', '.join(names)}.{did_you_mean(name, names)}"
    )
