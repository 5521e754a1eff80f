"""`run_sharded` and `compare_sharded`: long runs that survive whatever stops them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.backend import Progress, Schedule
from whetsim.coding import to_integers
from whetsim.errors import FormatError, SampleError, UnsupportedError, WhetsimError
from whetsim.mapping import map_to_spikes
from whetsim.model import Model
from whetsim.network import Encoding
from whetsim.progress import progress_reporter
from whetsim.recording import Recording
from whetsim.report import facts
from whetsim.shards.cluster import compute_on_cluster, need_dask
from whetsim.shards.difference import RunDifference, diff_runs, read_result
from whetsim.shards.folder import MANIFEST, RESULT, TIMINGS, RunFolder
from whetsim.shards.manifest import (
    HOW,
    FieldDifference,
    Origin,
    check_inputs,
    check_same_run,
    field_differences,
    key_of,
    make_manifest,
    parse_manifest,
    read_manifest,
)
from whetsim.shards.merging import ShardedComparison, merge_comparisons, merge_recordings
from whetsim.shards.packing import KINDS, Shard, ShardContent, split, unpack
from whetsim.shards.work import Job, ShardRunner, model_bytes

__all__ = ["Rerun", "compare_sharded", "rerun", "run_sharded"]

VERSION = 1
"""Of result.json."""
_VARYING = ("versions", "build_s", "run_s", "read_s", "samples_per_s")
"""Facts of a run that another one of the same samples need not share."""

Path = str | os.PathLike[str]
Found = tuple[tuple[Recording, ...], ShardedComparison | None]


def run_sharded(
    model: Model,
    samples: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    out: Path,
    shards: int,
    backend: str = "exact",
    encoding: Encoding | None = None,
    level: int | None = None,
    schedule: Schedule | None = None,
    scheduler: str | None = None,
    progress: Progress = False,
    origin: Origin | None = None,
    **options: Any,
) -> Recording:
    """Run samples in shards; each that is finished is on disk, and the same call resumes.

    ``out`` gets ``manifest.json`` first, which says what is run, then a file for each shard, at
    last ``timings.json`` and ``result.json``. The last depends on network, samples and options
    alone, to the byte, however often the run was stopped.

    Parameters
    ----------
    model : Model
    samples : integer array (n_samples, ...)
    labels : integer array (n_samples,), optional
        For the accuracy in ``result.json``.
    out : path
        A folder: new, empty, or of this same run.
    shards : int
        Into how many nearly equal parts the samples are cut; never more than there are samples.
    backend : str
    encoding, level, schedule, **options
        See `whetsim.backend.Backend.prepare`.
    scheduler : str, optional
        Address of a Dask scheduler whose workers compute the shards, or ``local`` for processes
        on this machine (then call this under ``if __name__ == "__main__"``).
    progress : bool or callable
        True shows a bar on a terminal; a callable gets (shards done, shards in all).
    origin : Origin, optional
        Where network and samples came from, for the manifest.

    Returns
    -------
    Recording
        Of all samples, with counts alone; its times are those of all shards together.

    Raises
    ------
    WhetsimError
        If the folder holds another run (the text names what differs), is in use, or cannot be
        written; if the scheduler is lost; and what `prepare` and `run` raise.
    """
    how: dict[str, Any]
    how = {"encoding": encoding, "level": level, "schedule": schedule, "options": options}
    work = _Work("run", model, samples, labels, shards, origin, backends=[backend], **how)
    (recording,), _ = work.do(out, scheduler, progress)
    return recording


def compare_sharded(
    model: Model,
    samples: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    out: Path,
    shards: int,
    backends: Sequence[str],
    encoding: Encoding | None = None,
    level: int | None = None,
    schedule: Schedule | None = None,
    scheduler: str | None = None,
    progress: Progress = False,
    origin: Origin | None = None,
) -> ShardedComparison:
    """Run samples on several backends in shards, and compare; see `run_sharded`.

    Each shard is compared spike by spike, between the backends and with the float32 network, and
    its rasters are then dropped, so that memory is needed for one shard alone.

    Parameters
    ----------
    backends : sequence of str
        The first is taken for the truth.
    model, samples, labels, out, shards, encoding, level, schedule, scheduler, progress, origin
        See `run_sharded`.

    Returns
    -------
    ShardedComparison

    Raises
    ------
    WhetsimError
        See `run_sharded`.

    Notes
    -----
    Figures are those of a comparison in one piece, with two exceptions. The cause of a first
    difference is looked for within its shard, which starts with all membranes at 0. And which
    units float32 rounding decides may depend on how many samples a matrix product has, on the
    machine and its number of threads; each is listed with its margin in any case.
    """
    names = list(dict.fromkeys(backends))
    if not names:
        raise UnsupportedError("compare: no backend named. Name one or more, 'exact' first.")
    if encoding == "binary":
        raise UnsupportedError(
            "compare: the binary encoding changes what the network reads, so the float32 network "
            "is no measure for it. Use run_sharded."
        )
    how: dict[str, Any]
    how = {"encoding": encoding, "level": level, "schedule": schedule, "options": {}}
    work = _Work("compare", model, samples, labels, shards, origin, backends=names, **how)
    _, comparison = work.do(out, scheduler, progress)
    assert comparison is not None
    return comparison


@dataclass(frozen=True)
class Rerun:
    """What `rerun` found.

    Parameters
    ----------
    settings : tuple of FieldDifference
        Where the manifests differ, now first: in versions for example.
    same_result : bool
        Whether ``result.json`` came out the same byte for byte.
    difference : RunDifference, optional
        If not, what differs; None if the shards of the first run are not there any more.
    """

    settings: tuple[FieldDifference, ...]
    same_result: bool
    difference: RunDifference | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as values that JSON can hold."""
        return {
            "same_result": self.same_result,
            "settings": [setting.as_dict() for setting in self.settings],
            "difference": None if self.difference is None else self.difference.as_dict(),
        }


def rerun(
    run: Path,
    model: Model,
    samples: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    out: Path | None = None,
    scheduler: str | None = None,
    progress: Progress = False,
    origin: Origin | None = None,
) -> Rerun:
    """Do a finished run again, with what is installed now, and compare the results.

    Parameters
    ----------
    run : path
        Folder of the run, or its manifest with ``result.json`` beside it.
    model, samples, labels
        As they were then; their digests are checked.
    out : path, optional
        Folder for the new run; by default none is left.
    scheduler, progress, origin
        See `run_sharded`.

    Returns
    -------
    Rerun

    Raises
    ------
    FormatError
        If `run` is no run, or not finished.
    WhetsimError
        If network or samples are other ones, and what `run_sharded` raises.
    """
    folder, stored = read_manifest(run)
    before = read_result(folder)
    how = {key: stored[key] for key in HOW}
    given = None if stored["data"].get("labels") is None else labels
    work = _Work(stored["command"], model, samples, given, stored["shards"], origin, **how)
    check_inputs(folder, stored, work.manifest)
    with ExitStack() as stack:
        place = out or stack.enter_context(tempfile.TemporaryDirectory(prefix="whetsim-"))
        if os.path.realpath(place) == os.path.realpath(folder):
            raise WhetsimError(f"{place}: is the folder of the run itself. Name another one.")
        work.do(place, scheduler, progress)
        same = read_result(place) == before
        difference = None
        if not same:
            with suppress(FormatError):
                difference = diff_runs(place, folder)
    return Rerun(field_differences(work.manifest, stored), same, difference)


class _Work:
    """One sharded run, checked before its folder is touched."""

    def __init__(
        self,
        command: str,
        model: Model,
        samples: ArrayLike,
        labels: ArrayLike | None,
        n_shards: int,
        origin: Origin | None,
        **how: Any,
    ) -> None:
        if isinstance(n_shards, bool) or not isinstance(n_shards, int) or n_shards < 1:
            raise SampleError(f"shards: need a whole number, 1 or more (got {n_shards!r}).")
        for name, value in how["options"].items():
            if not isinstance(value, (str, int, float, bool, type(None))):
                raise UnsupportedError(
                    f"option {name!r}: a sharded run takes text and numbers alone (got {value!r})."
                )
        self.model = model
        self.network = map_to_spikes(model)
        self.samples = to_integers(samples, self.network.input)
        self.labels = _checked_labels(labels, len(self.samples))
        self.shards = split(len(self.samples), n_shards)
        self.manifest = make_manifest(
            command,
            self.network,
            self.samples,
            self.labels,
            len(self.shards),
            how,
            origin or Origin(),
        )
        self.job = Job(
            key=key_of(self.manifest),
            compares=command == "compare",
            fingerprint=self.network.fingerprint,
            backends=tuple(how["backends"]),
            options=how["options"],
            encoding=how["encoding"],
            level=how["level"],
            schedule=how["schedule"],
        )

    def do(self, out: Path, scheduler: str | None, progress: Progress) -> Found:
        """Compute what is missing, write it, and put all shards together."""
        if scheduler is not None:
            need_dask()
        with RunFolder(out) as folder:
            self._claim(folder)
            contents = self._all_shards(folder, scheduler, progress)
            digest = self.manifest["data"]["digest"]
            recordings = merge_recordings(self.network, contents, digest)
            comparison = None
            if self.job.compares:
                comparison = merge_comparisons(recordings, contents, self.labels)
            folder.write_json(TIMINGS, _timings(contents))
            # The last file: where it is, the run is finished.
            folder.write_json(RESULT, self._result(recordings, comparison))
        return recordings, comparison

    def _claim(self, folder: RunFolder) -> None:
        stored = folder.read_manifest()
        if stored is not None:
            manifest = parse_manifest(folder.path / MANIFEST, stored)
            # Without a finished shard nothing binds: the first try may have been a slip.
            if folder.n_shards():
                check_same_run(folder.path, self.manifest, manifest)
                return
            folder.remove(RESULT, TIMINGS)
        folder.write_json(MANIFEST, self.manifest)

    def _all_shards(
        self, folder: RunFolder, scheduler: str | None, progress: Progress
    ) -> list[ShardContent]:
        done: dict[Shard, ShardContent] = {}
        for shard in self.shards:
            data = folder.read_shard(shard.number)
            # What is damaged, or of another run, is computed again.
            with suppress(FormatError):
                if data is not None:
                    done[shard] = self._checked(shard, data)
        missing = [shard for shard in self.shards if shard not in done]
        with (
            progress_reporter(progress, len(self.shards), "shards") as tell,
            closing(self._compute(missing, scheduler)) as computed,
        ):
            tell(len(done))
            for shard, data in computed:
                done[shard] = self._checked(shard, data)
                folder.write_shard(shard.number, data)
                tell(len(done))
        return [done[shard] for shard in self.shards]

    def _checked(self, shard: Shard, data: bytes) -> ShardContent:
        """Return what a shard holds if it is one of this run.

        Raises
        ------
        FormatError
            If it is not.
        """
        content = unpack(data)
        for key, value in content.environment.items():
            if value != self.manifest[key]:
                raise FormatError(
                    f"shard {shard.number}: was computed with other {key} (got {value}; manifest "
                    f"has {self.manifest[key]}). Give all workers the same versions."
                )
        if (content.shard, content.key) != (shard, self.job.key):
            raise FormatError(f"shard {shard.number}: is one of another run.")
        return content

    def _compute(
        self, missing: Sequence[Shard], scheduler: str | None
    ) -> Generator[tuple[Shard, bytes]]:
        """Yield the files of missing shards."""
        if not missing:
            return
        samples, labels = self.samples, self.labels
        if scheduler is not None:
            network = model_bytes(self.model)
            yield from compute_on_cluster(scheduler, self.job, network, missing, samples, labels)
            return
        with ShardRunner(self.model, self.network, self.job) as runner:
            for shard in missing:
                part = shard.samples
                truth = None if labels is None else labels[part]
                yield shard, runner.run(shard, samples[part], truth)

    def _result(
        self, recordings: Sequence[Recording], comparison: ShardedComparison | None
    ) -> dict[str, Any]:
        """Return what the run found; nothing in it depends on when, where or how often it ran."""
        result: dict[str, Any] = {
            "format": "whetsim result",
            "version": VERSION,
            "command": self.manifest["command"],
            "fingerprint": self.network.fingerprint,
            "samples": len(self.samples),
            "runs": [_run_result(recording, self.labels) for recording in recordings],
        }
        if comparison is not None:
            result["agreement"] = facts.agreement_facts(comparison.agreement)
            result["model"] = facts.model_comparison_facts(comparison.model)
            result["margins"] = facts.margin_facts(comparison.margins)
            result["agrees"] = comparison.agrees
        return result


def _run_result(recording: Recording, labels: NDArray[Any] | None) -> dict[str, Any]:
    told = facts.run_facts(recording, labels)
    result = {key: value for key, value in told.items() if key not in _VARYING}
    result["spikes"] = {name: int(n.sum()) for name, n in recording.spike_counts.items()}
    result["synops"] = {name: int(n.sum()) for name, n in recording.synops.items()}
    result["digest"] = _digest(recording)
    return result


def _digest(recording: Recording) -> str:
    """Return one digest of every figure of every sample."""
    digest = hashlib.sha256()
    for kind, dtype in KINDS.items():
        for name, figures in getattr(recording, kind).items():
            digest.update(f"{kind} {name!r} {len(figures)};".encode())
            digest.update(figures.astype(np.dtype(dtype).newbyteorder("<")).tobytes())
    if recording.scores is not None:
        digest.update(recording.predictions.astype("<i8").tobytes())
        digest.update(recording.tied.tobytes())
    return digest.hexdigest()


def _timings(contents: Sequence[ShardContent]) -> dict[str, Any]:
    """Return where the time of each shard went, in seconds of wall clock."""
    return {
        "shards": [
            {
                "shard": content.shard.number,
                "samples": content.shard.stop - content.shard.start,
                "runs": [
                    {key: run[key] for key in ("backend", "build_s", "run_s", "read_s")}
                    for run in content.runs
                ],
            }
            for content in contents
        ]
    }


def _checked_labels(labels: ArrayLike | None, n_samples: int) -> NDArray[Any] | None:
    if labels is None:
        return None
    array = np.asarray(labels)
    if array.shape != (n_samples,) or array.dtype.kind not in "bui":
        raise SampleError(
            f"labels: {array.dtype} of shape {array.shape}; need whole numbers ({n_samples},), one "
            "a sample."
        )
    return array.astype(np.int64)
