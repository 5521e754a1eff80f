"""`diff_runs`: how two finished runs differ, in how they were made and in what they found."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import FormatError
from whetsim.shards.folder import RESULT, RunFolder
from whetsim.shards.manifest import FieldDifference, field_differences, key_of, read_manifest
from whetsim.shards.packing import split, unpack

__all__ = ["BackendDifference", "FinishedRun", "RunDifference", "diff_runs", "read_result"]


class FinishedRun:
    """A finished run, read from its folder.

    Parameters
    ----------
    path : path
        The folder, or the manifest in it.

    Raises
    ------
    FormatError
        If it is no run, or not finished, or a shard is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self.manifest = read_manifest(path)
        self.n_samples: int = self.manifest["samples"]
        folder = RunFolder(self.path)
        there, n_shards = folder.n_shards(), self.manifest["shards"]
        if there < n_shards:
            raise FormatError(
                f"{self.path}: is not finished, {there} of {n_shards} shards are there. Give its "
                "command again, which resumes it."
            )
        self._contents = []
        for shard in split(self.n_samples, n_shards):
            data = folder.read_shard(shard.number)
            content = None if data is None else unpack(data)
            if content is None or (content.shard, content.key) != (shard, key_of(self.manifest)):
                raise FormatError(
                    f"{self.path}: shard {shard.number} is missing or damaged. Give its command "
                    "again, which mends it."
                )
            self._contents.append(content)
        self.result = read_result(self.path)
        try:
            told = json.loads(self.result)
            self.comparison = [told.get(key) for key in ("model", "margins")]
        except (ValueError, AttributeError, RecursionError):
            raise FormatError(
                f"{self.path / RESULT}: is damaged. Give the command of the run again."
            ) from None

    @property
    def backends(self) -> dict[str, int]:
        """Backend to its place among the runs."""
        return {run["backend"]: i for i, run in enumerate(self._contents[0].runs)}

    def figures(self, i: int, kind: str) -> dict[str, NDArray[Any]]:
        """Return population to figures of each sample, for run number `i`."""
        names = self._contents[0].runs[i][kind]
        rows = np.concatenate([c.arrays[i][kind] for c in self._contents], axis=1)
        return dict(zip(names, rows, strict=True))

    def predictions(self, i: int) -> NDArray[np.int64] | None:
        """Return the class of each sample, None without readout."""
        if not self._contents[0].runs[i]["has_scores"]:
            return None
        scores = [c.arrays[i]["scores"] for c in self._contents]
        return np.asarray(np.concatenate(scores).argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True)
class BackendDifference:
    """What two backends, or one in two runs, did otherwise on the same samples.

    Parameters
    ----------
    names : (str, str)
    samples : mapping
        Population to the number of samples whose spikes differ.
    spikes : mapping
        Population to the spikes of all samples, in the first and in the second run.
    only : (tuple of str, tuple of str)
        Populations that one run alone has.
    first : (int, str), optional
        The first sample that differs, and its shallowest population that does.
    n_predictions : int
        Samples with different predictions.
    """

    names: tuple[str, str]
    samples: Mapping[str, int]
    spikes: Mapping[str, tuple[int, int]]
    only: tuple[tuple[str, ...], tuple[str, ...]]
    first: tuple[int, str] | None
    n_predictions: int

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs."""
        return not (any(self.samples.values()) or any(self.only) or self.n_predictions)

    def as_dict(self) -> dict[str, Any]:
        """Return it as values that JSON can hold."""
        first = None
        if self.first is not None:
            first = {"sample": self.first[0], "population": self.first[1]}
        return {
            "names": list(self.names),
            "differing_samples": dict(self.samples),
            "spikes": {name: list(n) for name, n in self.spikes.items()},
            "only": [list(names) for names in self.only],
            "first": first,
            "differing_predictions": self.n_predictions,
        }


@dataclass(frozen=True)
class RunDifference:
    """How two runs differ.

    Parameters
    ----------
    paths : (Path, Path)
    settings : tuple of FieldDifference
        Entries of the manifests: network, data, options, versions.
    n_samples : (int, int)
    backends : tuple of BackendDifference, optional
        Backends that both ran; None if they ran on different samples.
    same_result : bool
        Whether ``result.json`` is the same byte for byte.
    same_comparison : bool
        Whether what it says of the float32 network is the same.
    """

    paths: tuple[Path, Path]
    settings: tuple[FieldDifference, ...]
    n_samples: tuple[int, int]
    backends: tuple[BackendDifference, ...] | None
    same_result: bool
    same_comparison: bool

    @property
    def results_agree(self) -> bool:
        """Whether both found the same, however they were made: on other backends for example."""
        same = bool(self.backends) and all(b.is_empty for b in self.backends or ())
        return same and self.same_comparison

    @property
    def agrees(self) -> bool:
        """Whether both found the same and were made alike; the number of shards does not count."""
        return self.results_agree and self.same_result and not any(s.tells for s in self.settings)

    def as_dict(self) -> dict[str, Any]:
        """Return what differs as values that JSON can hold."""
        return {
            "paths": [str(path) for path in self.paths],
            "agrees": self.agrees,
            "results_agree": self.results_agree,
            "same_result": self.same_result,
            "same_comparison": self.same_comparison,
            "settings": [setting.as_dict() for setting in self.settings],
            "samples": list(self.n_samples),
            "backends": None if self.backends is None else [b.as_dict() for b in self.backends],
        }

    def lines(self) -> Iterator[str]:
        """Yield what differs, a line each."""
        for setting in self.settings:
            a, b = setting.shown
            yield f"{setting.label}: {a} and {b}"
        if self.backends is None:
            yield "spikes: not compared, because the runs are on different samples"
        for pair in self.backends or ():
            yield from _backend_lines(pair)
        if not self.same_comparison:
            yield "comparison with the float32 network: differs"
        yield f"{RESULT}: {'the same byte for byte' if self.same_result else 'differs'}"


def diff_runs(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> RunDifference:
    """Compare two finished runs.

    Parameters
    ----------
    first, second : path
        Folders of sharded runs, or their manifests.

    Returns
    -------
    RunDifference

    Raises
    ------
    FormatError
        If one is no run, or not finished.
    """
    a, b = FinishedRun(first), FinishedRun(second)
    pairs = None
    if a.manifest["data"]["digest"] == b.manifest["data"]["digest"] and a.n_samples == b.n_samples:
        pairs = tuple(_compared(a, b, i, j) for i, j in _pairs(a, b))
    return RunDifference(
        paths=(a.path, b.path),
        settings=field_differences(a.manifest, b.manifest),
        n_samples=(a.n_samples, b.n_samples),
        backends=pairs,
        same_result=a.result == b.result,
        same_comparison=a.comparison == b.comparison,
    )


def read_result(folder: str | os.PathLike[str]) -> bytes:
    """Return the text of the result of a finished run.

    Raises
    ------
    FormatError
        If there is none.
    """
    path = Path(folder) / RESULT
    try:
        return path.read_bytes()
    except OSError:
        raise FormatError(
            f"{path}: is missing or cannot be read. Give the command of the run again."
        ) from None


def _pairs(a: FinishedRun, b: FinishedRun) -> list[tuple[int, int]]:
    mine, other = a.backends, b.backends
    if len(mine) == len(other) == 1:
        return [(0, 0)]
    return [(i, other[name]) for name, i in mine.items() if name in other]


def _compared(a: FinishedRun, b: FinishedRun, i: int, j: int) -> BackendDifference:
    counts = a.figures(i, "spike_counts"), b.figures(j, "spike_counts")
    digests = a.figures(i, "digests"), b.figures(j, "digests")
    shared = [name for name in digests[0] if name in digests[1]]
    differing = np.array([digests[0][name] != digests[1][name] for name in shared], dtype=bool)
    differing = differing.reshape(len(shared), a.n_samples)
    first = None
    if differing.any():
        sample = int(differing.any(axis=0).argmax())
        first = sample, shared[int(differing[:, sample].argmax())]
    mine, other = a.predictions(i), b.predictions(j)
    n_predictions = 0
    if mine is not None and other is not None:
        n_predictions = int((mine != other).sum())
    return BackendDifference(
        names=(list(a.backends)[i], list(b.backends)[j]),
        samples={name: int(row.sum()) for name, row in zip(shared, differing, strict=True)},
        spikes={name: (int(counts[0][name].sum()), int(counts[1][name].sum())) for name in shared},
        only=(
            tuple(name for name in digests[0] if name not in digests[1]),
            tuple(name for name in digests[1] if name not in digests[0]),
        ),
        first=first,
        n_predictions=n_predictions,
    )


def _backend_lines(pair: BackendDifference) -> Iterator[str]:
    who = " and ".join(dict.fromkeys(pair.names))
    for name, n in pair.samples.items():
        if n:
            a, b = pair.spikes[name]
            yield f"{who}: {name}: {n:,} samples have other spikes ({a:,} and {b:,} in all)"
    for names, which in zip(pair.only, ("first", "second"), strict=True):
        if names:
            yield f"{who}: the {which} run alone has {', '.join(names)}"
    if pair.first is not None:
        yield f"{who}: first differing sample: {pair.first[0]}, population {pair.first[1]!r}"
    if pair.n_predictions:
        yield f"{who}: {pair.n_predictions:,} samples have other predictions"
