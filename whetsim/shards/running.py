"""`run_sharded`, `compare_sharded` and `rerun`: long runs that survive whatever stops them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from whetsim.backend import Progress, Schedule
from whetsim.errors import FormatError, UnsupportedError, WhetsimError
from whetsim.model import Model
from whetsim.network import Encoding
from whetsim.recording import Recording
from whetsim.shards.difference import RunDifference, diff_runs, read_result
from whetsim.shards.manifest import (
    HOW,
    FieldDifference,
    Origin,
    check_inputs,
    field_differences,
    read_manifest,
)
from whetsim.shards.merging import ShardedComparison
from whetsim.shards.sharded_run import ShardedRun

__all__ = ["Rerun", "compare_sharded", "rerun", "run_sharded"]

Path = str | os.PathLike[str]


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
    work = ShardedRun("run", model, samples, labels, shards, origin, backends=[backend], **how)
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
    work = ShardedRun("compare", model, samples, labels, shards, origin, backends=names, **how)
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
    work = ShardedRun(stored["command"], model, samples, given, stored["shards"], origin, **how)
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
