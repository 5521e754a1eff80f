"""`ShardedRun`: one run from its manifest to its result, wherever its shards are computed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.backend import Progress
from whetsim.coding import to_integers
from whetsim.errors import FormatError, SampleError, UnsupportedError
from whetsim.mapping import map_to_spikes
from whetsim.model import Model
from whetsim.progress import progress_reporter
from whetsim.recording import Recording
from whetsim.report import facts
from whetsim.shards.cluster import compute_on_cluster, need_dask
from whetsim.shards.folder import MANIFEST, RESULT, TIMINGS, RunFolder
from whetsim.shards.manifest import Origin, check_same_run, key_of, make_manifest, parse_manifest
from whetsim.shards.merging import ShardedComparison, merge_comparisons, merge_recordings
from whetsim.shards.packing import KINDS, Shard, ShardContent, split, unpack
from whetsim.shards.work import Job, ShardRunner, model_bytes

__all__ = ["ShardedRun"]

VERSION = 1
"""Of result.json."""
_VARYING = ("versions", "build_s", "run_s", "read_s", "samples_per_s")
"""Facts of a run that another one of the same samples need not share."""

Path = str | os.PathLike[str]
Found = tuple[tuple[Recording, ...], ShardedComparison | None]


class ShardedRun:
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
