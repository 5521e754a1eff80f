"""The diary of a training: a file of JSON lines, read with suspicion.

The first line is a header, every other one an entry, in the order of training::

    {"whetsim_diary": 1, "layers": ["hidden", "output"], "units": [128, 100],
     "score_name": "accuracy", "n_samples": 360, "margin_quantiles": [0.01, 0.05, 0.25, 0.5]}
    {"epoch": 1.0, "kind": "epoch", "sharpness": {"hidden": 0.0, "output": 0.0},
     "straight_through": false, "logs": {"loss": 0.7}, "validation": {"as_is": 0.9,
     "spiking": 0.4}, "spikes_per_sample": {...}, "never": {...}, "always": {...},
     "margins": {"hidden": [0.004, 0.02, 0.1, 0.25], ...}, "seconds": 0.8}

`epoch` counts the epochs that are done, parts of them too; `train` has the form of `validation`,
where it was asked for. A number that was not finite is null. A last line that was cut off is no
error: the training may have been stopped while it was written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NoReturn, TypeVar, final

from whetsim.errors import FormatError, quote

__all__ = ["DiaryEntry", "DiaryFile", "Scores", "read_diary"]

HEADER = "whetsim_diary"
VERSION = 1
KINDS = ("epoch", "step")
MAX_BYTES = 64 * 2**20
MAX_LINE = 2**20
MAX_LAYERS = 10_000
MAX_LOGS = 1_000

T = TypeVar("T")


@final
@dataclass(frozen=True)
class Scores:
    """How good the network was on one probe; larger is better, None if it was not finite.

    Parameters
    ----------
    as_is : float or None
        With the sharpness it had.
    spiking : float or None
        With every layer an exact step.
    """

    as_is: float | None
    spiking: float | None


@final
@dataclass(frozen=True, eq=False)
class DiaryEntry:
    """One moment of a training.

    Parameters
    ----------
    epoch : float
        Epochs done.
    kind : {"epoch", "step"}
        The end of an epoch, or a moment in one at which a layer had become sharper.
    sharpness : mapping of str to float
        By layer, 0 to 1.
    straight_through : bool
    logs : mapping of str to (float or None)
        What Keras told: loss, accuracy, ...
    validation : Scores
    train : Scores or None
    spikes_per_sample : mapping of str to float
        By layer, mean over the validation probe, every layer an exact step; the rest too.
    never, always : mapping of str to int
        By layer, how many units never and always fired.
    margins : mapping of str to tuple of (float or None)
        By layer, quantiles of the margin.
    seconds : float
        Since training began.
    """

    epoch: float
    kind: Literal["epoch", "step"]
    sharpness: Mapping[str, float]
    straight_through: bool
    logs: Mapping[str, float | None]
    validation: Scores
    train: Scores | None
    spikes_per_sample: Mapping[str, float]
    never: Mapping[str, int]
    always: Mapping[str, int]
    margins: Mapping[str, tuple[float | None, ...]]
    seconds: float

    @property
    def is_sharp(self) -> bool:
        """Whether every layer was an exact step."""
        return all(value == 1.0 for value in self.sharpness.values())


@final
@dataclass(frozen=True, eq=False)
class DiaryFile:
    """What a diary says.

    Parameters
    ----------
    name : str
        Name of the file.
    layers : tuple of str
        The layers that are sharpened, from input to output.
    units : tuple of int
        How many units each has.
    score_name : str
        What the scores are.
    n_samples : int
        Size of the validation probe.
    margin_quantiles : tuple of float
    entries : tuple of DiaryEntry
        In the order of training.
    truncated : bool
        Whether the last line was cut off; it is left out.
    """

    name: str
    layers: tuple[str, ...]
    units: tuple[int, ...]
    score_name: str
    n_samples: int
    margin_quantiles: tuple[float, ...]
    entries: tuple[DiaryEntry, ...]
    truncated: bool

    @property
    def best(self) -> DiaryEntry | None:
        """The fully sharp epoch with the highest validation score, the first of equal ones."""
        sharp = [
            entry
            for entry in self.entries
            if entry.kind == "epoch" and entry.is_sharp and entry.validation.spiking is not None
        ]
        return max(sharp, key=lambda entry: entry.validation.spiking or 0.0, default=None)


def read_diary(path: str | os.PathLike[str]) -> DiaryFile:
    """Read a diary.

    Parameters
    ----------
    path : path
        A file that `whetsim.sharpen.Diary` wrote.

    Returns
    -------
    DiaryFile

    Raises
    ------
    FormatError
        If the file is missing or no diary; the text names the line.
    """
    path = Path(path)
    try:
        if not path.is_file():
            missing = "is a folder" if path.is_dir() else "no such file"
            raise FormatError(f"{path}: {missing}. Name a diary of a training.")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}).") from None
    if len(raw) > MAX_BYTES:
        raise FormatError(f"{path.name}: too large for a diary (need at most {MAX_BYTES:,} bytes).")
    try:
        return _parse(raw, path.name)
    except RecursionError:
        raise FormatError(f"{path.name}: nested too deeply for a diary.") from None


def looks_like_diary(path: Path) -> bool:
    """Return whether the first line of a file is that of a diary, of any version."""
    with path.open("rb") as file:
        first = file.readline(MAX_LINE)
    try:
        return HEADER in _object(first)
    except (FormatError, RecursionError):
        return False


def read_lines_before(path: Path, epoch: float) -> tuple[DiaryFile, list[bytes]]:
    """Return a diary and its lines, header first, that were written when so many epochs were done.

    Raises
    ------
    FormatError
        See `read_diary`.
    """
    diary = read_diary(path)
    lines = path.read_bytes().split(b"\n")[: 1 + len(diary.entries)]
    n_kept = sum(entry.epoch <= epoch for entry in diary.entries)
    return diary, lines[: 1 + n_kept]


def header_line(
    layers: list[str],
    units: list[int],
    score_name: str,
    n_samples: int,
    margin_quantiles: tuple[float, ...],
) -> str:
    """Return the first line of a diary."""
    return _line(
        {
            HEADER: VERSION,
            "layers": layers,
            "units": units,
            "score_name": score_name,
            "n_samples": n_samples,
            "margin_quantiles": list(margin_quantiles),
        }
    )


def entry_line(entry: DiaryEntry) -> str:
    """Return the line of an entry."""
    content: dict[str, Any] = {
        "epoch": entry.epoch,
        "kind": entry.kind,
        "sharpness": dict(entry.sharpness),
        "straight_through": entry.straight_through,
        "logs": dict(entry.logs),
        "validation": vars(entry.validation),
    }
    if entry.train is not None:
        content["train"] = vars(entry.train)
    for key in ("spikes_per_sample", "never", "always", "margins"):
        content[key] = dict(getattr(entry, key))
    return _line({**content, "seconds": entry.seconds})


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, allow_nan=False) + "\n"


def _parse(raw: bytes, name: str) -> DiaryFile:
    first, *lines = raw.split(b"\n")
    try:
        header = _header(_object(first))
    except FormatError as error:
        raise FormatError(
            f"{name}: this is no diary of a training (line 1: {error}). "
            "Name a file that whetsim.sharpen.Diary wrote."
        ) from None
    layers, units = header["layers"], header["units"]
    entries: list[DiaryEntry] = []
    truncated = False
    for number, line in enumerate(lines, start=2):
        is_last = number == len(lines) + 1  # without the line feed that ends a whole one
        if is_last and not line:
            break
        try:
            entry = _entry(_object(line), dict(zip(layers, units, strict=True)), header)
            if entries and entry.epoch < entries[-1].epoch:
                raise FormatError(f"epoch {entry.epoch:g} stands after {entries[-1].epoch:g}")
        except FormatError as error:
            if is_last and isinstance(error, _NoJSONError):
                truncated = True
                break
            raise FormatError(
                f"{name}: line {number}: {error}. Cut the file off before this line."
            ) from None
        entries.append(entry)
    return DiaryFile(name=name, entries=tuple(entries), truncated=truncated, **header)


class _NoJSONError(FormatError):
    """A line that does not parse, as one that was cut off."""


def _object(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise FormatError(f"too long (got {len(line):,} bytes; need at most {MAX_LINE:,})")
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except FormatError:
        raise
    except ValueError:
        raise _NoJSONError("no JSON") from None
    if not isinstance(value, dict):
        raise FormatError(f"no JSON object (got {quote(value)})")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise FormatError(f"{text} is no number that JSON has")


def _header(content: dict[str, Any]) -> dict[str, Any]:
    version = _get(content, HEADER, _count)
    if version != VERSION:
        raise FormatError(f"version {version} (this whetsim reads version {VERSION})")
    layers = _get(content, "layers", _list_of(_text, MAX_LAYERS))
    if len(set(layers)) < len(layers):
        raise FormatError("'layers' has a name twice")
    units = _get(content, "units", _list_of(_count, MAX_LAYERS))
    if len(units) != len(layers):
        raise FormatError(f"'units' has {len(units)} numbers for {len(layers)} layers")
    return {
        "layers": layers,
        "units": units,
        "score_name": _get(content, "score_name", _text),
        "n_samples": _get(content, "n_samples", _count),
        "margin_quantiles": _get(content, "margin_quantiles", _list_of(_part, 100)),
    }


def _entry(content: dict[str, Any], units: dict[str, int], header: dict[str, Any]) -> DiaryEntry:
    kind = content.get("kind")
    if kind not in KINDS:
        raise FormatError(f"'kind' is {quote(kind)} (need 'epoch' or 'step')")
    straight_through = content.get("straight_through")
    if not isinstance(straight_through, bool):
        raise FormatError(f"'straight_through' is {quote(straight_through)} (need true or false)")
    logs = _get(content, "logs", _mapping_of(_or_null(_number)))
    if len(logs) > MAX_LOGS:
        raise FormatError(f"'logs' has {len(logs):,} numbers (need at most {MAX_LOGS:,})")
    train = _get(content, "train", _scores) if "train" in content else None
    n_quantiles = len(header["margin_quantiles"])
    entry = DiaryEntry(
        epoch=_get(content, "epoch", _epoch),
        kind=kind,
        sharpness=_by_layer(content, "sharpness", _part, units),
        straight_through=straight_through,
        logs=logs,
        validation=_get(content, "validation", _scores),
        train=train,
        spikes_per_sample=_by_layer(content, "spikes_per_sample", _not_negative, units),
        never=_by_layer(content, "never", _count, units),
        always=_by_layer(content, "always", _count, units),
        margins=_by_layer(content, "margins", _list_of(_or_null(_not_negative), 100), units),
        seconds=_get(content, "seconds", _not_negative),
    )
    for name, n_units in units.items():
        if len(entry.margins[name]) != n_quantiles:
            raise FormatError(f"'margins' has not {n_quantiles} numbers for {quote(name)}")
        most = max(entry.spikes_per_sample[name], entry.never[name] + entry.always[name])
        if most > n_units:
            raise FormatError(f"{quote(name)} has {n_units:,} units, but an entry says {most:,}")
    return entry


def _get(content: Mapping[str, Any], key: str, convert: Callable[[Any], T]) -> T:
    if key not in content:
        raise FormatError(f"{key!r} is missing")
    try:
        return convert(content[key])
    except FormatError as error:
        raise FormatError(f"{key!r}: {error}") from None


def _by_layer(
    content: dict[str, Any], key: str, convert: Callable[[Any], T], units: Mapping[str, int]
) -> Mapping[str, T]:
    values = _get(content, key, _mapping_of(convert))
    if values.keys() != units.keys():
        raise FormatError(f"{key!r} is not about the layers that the first line names")
    return MappingProxyType({name: values[name] for name in units})


def _number(value: object) -> float:
    # An integer of JSON may be too large for a float.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e300:
        raise FormatError(f"got {quote(value)}; need a finite number")
    return float(value)


def _not_negative(value: object) -> float:
    number = _number(value)
    if number < 0:
        raise FormatError(f"got {number:g}; need at least 0")
    return number


def _epoch(value: object) -> float:
    number = _not_negative(value)
    if number > 1e9:
        raise FormatError(f"got {number:g}; need at most 1e+09")
    return number


def _part(value: object) -> float:
    number = _number(value)
    if not 0 <= number <= 1:
        raise FormatError(f"got {number:g}; need 0 to 1")
    return number


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise FormatError(f"got {quote(value)}; need a whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 1000 or not value.isprintable():
        raise FormatError(f"got {quote(value)}; need a name")
    return value


def _or_null(convert: Callable[[object], T]) -> Callable[[object], T | None]:
    return lambda value: None if value is None else convert(value)


def _list_of(convert: Callable[[object], T], most: int) -> Callable[[object], tuple[T, ...]]:
    def check(value: object) -> tuple[T, ...]:
        if not isinstance(value, list) or not 0 < len(value) <= most:
            raise FormatError(f"got {quote(value)}; need a list of 1 to {most:,}")
        return tuple(map(convert, value))

    return check


def _mapping_of(convert: Callable[[object], T]) -> Callable[[object], Mapping[str, T]]:
    def check(value: object) -> Mapping[str, T]:
        if not isinstance(value, dict):
            raise FormatError(f"got {quote(value)}; need an object")
        return MappingProxyType({key: convert(item) for key, item in value.items()})

    return check


def _scores(value: object) -> Scores:
    scores = _mapping_of(_or_null(_number))(value)
    try:
        return Scores(scores["as_is"], scores["spiking"])
    except KeyError as missing:
        raise FormatError(f"{missing} is missing") from None
