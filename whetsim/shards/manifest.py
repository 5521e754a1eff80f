"""The manifest of a sharded run: everything that decides its result, and how two of them differ."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim import registry
from whetsim.backend import samples_digest
from whetsim.errors import FormatError, WhetsimError, quote
from whetsim.formats import Reading
from whetsim.network import SpikingNetwork
from whetsim.shards.folder import MANIFEST

__all__ = [
    "HOW",
    "FieldDifference",
    "Origin",
    "check_inputs",
    "check_same_run",
    "environment",
    "field_differences",
    "key_of",
    "make_manifest",
    "read_manifest",
]

FORMAT = "whetsim sharded run"
VERSION = 1
MAX_BYTES = 2**22
HOW = ("backends", "options", "encoding", "level", "schedule")
"""Entries that say how the network is run."""
NETWORK, DATA, RUN, WHERE = "network", "data", "run", "where"
"""What an entry is about."""


@dataclass(frozen=True)
class Origin:
    """Where network and samples came from, for the manifest; none of it is needed to run.

    Parameters
    ----------
    network : str, optional
        Network file, or name of a bundled network, as the user gave it.
    file : path, optional
        The file itself, whose SHA-256 the manifest then holds.
    reading : Reading, optional
        What the user said about the file.
    data, split, levels : str, optional
        As `whetsim run` takes them.
    limit : int, optional
    """

    network: str | None = None
    file: Path | None = None
    reading: Reading = field(default_factory=Reading)
    data: str | None = None
    split: str | None = None
    limit: int | None = None
    levels: str | None = None


@dataclass(frozen=True)
class _Field:
    """An entry of the manifest: its place, its name for the reader, and what it is good for."""

    place: tuple[str, ...]
    label: str
    about: str
    decides: bool = True
    """Whether a run cannot go on with another value."""
    tells: bool = True
    """Whether another value makes another run; the rest explains where a difference is from."""


_FIELDS = (
    _Field(("command",), "command", RUN),
    _Field(("network", "given"), "network", NETWORK, False, False),
    _Field(("reading", "input_scale"), "input scale", NETWORK, False),
    _Field(("reading", "input_range"), "input range", NETWORK, False),
    _Field(("reading", "assume_sharp"), "assume sharp", NETWORK, False),
    _Field(("network", "sha256"), "SHA-256 of the network file", NETWORK),
    _Field(("network", "fingerprint"), "fingerprint of the network", NETWORK),
    _Field(("data", "given"), "data", DATA, False, False),
    _Field(("data", "split"), "split", DATA, False, False),
    _Field(("data", "limit"), "limit", DATA, False, False),
    _Field(("data", "levels"), "levels", DATA, False, False),
    _Field(("samples",), "number of samples", DATA),
    _Field(("data", "digest"), "digest of the samples", DATA),
    _Field(("data", "labels"), "digest of the labels", DATA),
    _Field(("shards",), "number of shards", RUN, True, False),
    _Field(("backends",), "backends", RUN),
    _Field(("options",), "options", RUN),
    _Field(("encoding",), "encoding", RUN),
    _Field(("level",), "level", RUN),
    _Field(("schedule",), "schedule", RUN),
    _Field(("platform",), "platform", WHERE),
    _Field(("python",), "version of python", WHERE, False),
)


@dataclass(frozen=True)
class FieldDifference:
    """One entry that is not the same in two manifests.

    Parameters
    ----------
    label : str
    values : (object, object)
        In the first and in the second manifest.
    about : str
        ``network``, ``data``, ``run``: how it was cut and run; or ``where``: versions, platform.
    decides, tells : bool
        Whether a run cannot go on with it, and whether it makes another run.
    """

    label: str
    values: tuple[Any, Any]
    about: str
    decides: bool
    tells: bool

    def __str__(self) -> str:
        got, has = self.shown
        return f"{self.label} (got {got}; manifest has {has})"

    def as_dict(self) -> dict[str, Any]:
        """Return it as values that JSON can hold."""
        return {"entry": self.label, "values": list(self.values), "counts": self.tells}

    @property
    def shown(self) -> tuple[str, str]:
        """The values as a reader wants them: digests cut, long ones too."""
        return _shown(self.values[0]), _shown(self.values[1])


def environment(backends: Sequence[str]) -> dict[str, Any]:
    """Return the versions and the platform that a result may depend on.

    Raises
    ------
    BackendNotInstalledError
        If a backend's package is missing.
    """
    from whetsim import __version__

    versions = {"whetsim": __version__, "numpy": np.__version__}
    for name in backends:
        versions |= registry.get_backend(name).versions()
    return {
        "versions": dict(sorted(versions.items())),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def make_manifest(
    command: str,
    network: SpikingNetwork,
    samples: NDArray[Any],
    labels: NDArray[Any] | None,
    n_shards: int,
    how: Mapping[str, Any],
    origin: Origin,
) -> dict[str, Any]:
    """Return the manifest of a run.

    Parameters
    ----------
    command : str
        ``run`` or ``compare``.
    network : SpikingNetwork
    samples : integer array (n_samples, n_values)
        As `to_integers` returns them.
    labels : integer array (n_samples,), optional
    n_shards : int
    how : mapping
        The entries named in `HOW`.
    origin : Origin
    """
    reading = origin.reading
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "command": command,
        "network": {
            "given": origin.network,
            "file": None if origin.file is None else origin.file.name,
            "sha256": None if origin.file is None else _file_digest(origin.file),
            "name": network.name,
            "fingerprint": network.fingerprint,
        },
        "reading": {
            "input_scale": reading.input_scale,
            "input_range": None if reading.input_range is None else list(reading.input_range),
            "assume_sharp": reading.assume_sharp,
        },
        "data": {
            "given": origin.data,
            "split": origin.split,
            "limit": origin.limit,
            "levels": origin.levels,
            "digest": samples_digest(samples, network.input),
            "labels": None if labels is None else _labels_digest(labels),
        },
        "samples": len(samples),
        "shards": n_shards,
        **{key: how[key] for key in HOW},
        **environment(how["backends"]),
        "python": platform.python_version(),
    }
    # As it will be read again: lists for tuples.
    result: dict[str, Any] = json.loads(json.dumps(manifest))
    return result


def key_of(manifest: Mapping[str, Any]) -> str:
    """Return a digest of all entries that decide the result; each shard carries it."""
    deciding = {f.label: _at(manifest, f.place) for f in _fields(manifest) if f.decides}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def field_differences(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> tuple[FieldDifference, ...]:
    """Return where two manifests differ."""
    found = []
    for entry in _fields(first, second):
        values = _at(first, entry.place), _at(second, entry.place)
        if values[0] != values[1]:
            found.append(
                FieldDifference(entry.label, values, entry.about, entry.decides, entry.tells)
            )
    return tuple(found)


def check_same_run(folder: Path, now: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Raise `WhetsimError` if the run in a folder is not the one that is to be done now."""
    differences = field_differences(now, stored)
    if any(d.decides for d in differences):
        raise WhetsimError(
            f"{folder}: the run in this folder is another one; it differs in {_few(differences)}. "
            "Give the command that it was begun with, or name another folder with --out."
        )


def check_inputs(
    where: str | os.PathLike[str], stored: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Raise `WhetsimError` if network or samples are not those of a stored manifest."""
    differences = [d for d in field_differences(now, stored) if d.about in (NETWORK, DATA)]
    if any(d.decides for d in differences):
        raise WhetsimError(
            f"{where}: this is not what ran; it differs in {_few(differences)}. Name the right "
            "files with --network and --data."
        )


def read_manifest(path: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a run and its manifest.

    Parameters
    ----------
    path : path
        The folder, or the manifest in it.

    Raises
    ------
    FormatError
        If there is none, or it is none.
    """
    path = Path(path)
    file = path / MANIFEST if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            return file.parent, parse_manifest(file, stream.read(MAX_BYTES + 1))
    except FileNotFoundError:
        raise FormatError(
            f"{file}: no such file. Name the folder of a sharded run, or its manifest."
        ) from None
    except OSError as error:
        raise FormatError(f"{file}: cannot be read ({error.strerror or error}).") from None


def parse_manifest(file: Path, data: bytes) -> dict[str, Any]:
    """Return the manifest that a text says.

    Raises
    ------
    FormatError
        If it says none.
    """
    try:
        value = json.loads(data) if len(data) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise FormatError(
            f"{file}: is no manifest of a sharded run, or a damaged one. Name the folder of a "
            "sharded run, or begin in a new one."
        )
    if value.get("version") != VERSION:
        raise FormatError(
            f"{file}: has version {quote(value.get('version'))}; this whetsim reads {VERSION}."
        )
    _check_types(file, value)
    return value


def _check_types(file: Path, value: Mapping[str, Any]) -> None:
    """Refuse a manifest whose entries are not of the types that a command needs."""

    def need(good: bool, what: str) -> None:
        if not good:
            raise FormatError(f"{file}: {what} is missing or wrong. Begin in a new folder.")

    for key in ("network", "reading", "data", "options", "versions"):
        need(isinstance(value.get(key), dict), key)
    for key in ("samples", "shards"):
        number = value.get(key)
        need(type(number) is int and 0 <= number < 2**48, key)
    need(value["shards"] >= 1, "shards")
    need(value.get("command") in ("run", "compare"), "command")
    names = value.get("backends")
    need(isinstance(names, list) and bool(names), "backends")
    need(all(isinstance(name, str) for name in value["backends"]), "backends")
    need(value["command"] == "compare" or len(value["backends"]) == 1, "backends")
    for place in (("encoding",), ("schedule",), ("network", "given"), ("data", "given")):
        need(isinstance(_at(value, place), (str, type(None))), place[-1])
    for place in (("data", "split"), ("data", "levels")):
        need(isinstance(_at(value, place), (str, type(None))), place[-1])
    for place in (("level",), ("data", "limit")):
        need(type(_at(value, place)) in (int, type(None)), place[-1])
    need(type(_at(value, ("reading", "assume_sharp"))) is bool, "assume_sharp")
    scale, limits = (_at(value, ("reading", k)) for k in ("input_scale", "input_range"))
    need(type(scale) in (int, float, type(None)), "input_scale")
    pair = isinstance(limits, list) and len(limits) == 2 and all(type(n) is int for n in limits)
    need(limits is None or pair, "input_range")


def _fields(*manifests: Mapping[str, Any]) -> Iterator[_Field]:
    yield from _FIELDS
    packages = set().union(*(m["versions"] for m in manifests))
    for name in sorted(packages):
        yield _Field(("versions", name), f"version of {name}", WHERE)


def _at(manifest: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    value: Any = manifest
    for key in place:
        value = value.get(key)
    return value


def _few(differences: Sequence[FieldDifference]) -> str:
    more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
    return "; ".join(map(str, differences[:3])) + more


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    # The first digits of a digest are enough to tell two apart.
    if isinstance(value, str) and len(value) in (32, 64) and set(value) <= set(string.hexdigits):
        return value[:12]
    return quote(value)


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror or error}).") from None


def _labels_digest(labels: NDArray[Any]) -> str:
    return hashlib.sha256(np.asarray(labels, dtype="<i8").tobytes()).hexdigest()
