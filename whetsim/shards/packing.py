"""What a finished shard holds, as an .npz file that can tell whether it is whole.

Its last bytes, the comment of the zip archive, are the SHA-256 of all bytes before it, so nothing
of a damaged file is ever looked into.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import FormatError
from whetsim.recording import Recording

__all__ = ["Shard", "ShardContent", "is_sealed", "pack", "split", "unpack"]

HEX = 64
KINDS = {"spike_counts": np.int64, "synops": np.int64, "digests": np.uint64}
"""Arrays of every run: one row a population, one column a sample."""


@dataclass(frozen=True)
class Shard:
    """Samples ``start`` to ``stop`` of a run, the latter not counted."""

    number: int
    start: int
    stop: int

    @property
    def samples(self) -> slice:
        """The samples, as an index."""
        return slice(self.start, self.stop)


@dataclass(frozen=True, eq=False)
class ShardContent:
    """A finished shard.

    Parameters
    ----------
    shard : Shard
    key : str
        Digest of the manifest that it belongs to.
    environment : mapping
        Versions and platform where it was computed.
    runs : tuple of mapping
        For each backend what its `Recording` says beside the arrays.
    comparison : mapping, optional
        How the backends compare with each other and with the float32 network.
    arrays : tuple of mapping
        For each backend ``spike_counts``, ``synops``, ``digests`` (populations, samples), and
        ``scores`` (samples, classes) if the network has a readout.
    """

    shard: Shard
    key: str
    environment: Mapping[str, Any]
    runs: tuple[Mapping[str, Any], ...]
    comparison: Mapping[str, Any] | None
    arrays: tuple[Mapping[str, NDArray[Any]], ...]


def split(n_samples: int, n_shards: int) -> tuple[Shard, ...]:
    """Return nearly equal contiguous shards, the longer ones first; none is empty.

    Without samples there is one shard, of none.
    """
    n_shards = max(1, min(n_shards, n_samples))
    size, longer = divmod(n_samples, n_shards)
    starts = [i * size + min(i, longer) for i in range(n_shards + 1)]
    return tuple(Shard(i, starts[i], starts[i + 1]) for i in range(n_shards))


def pack(
    shard: Shard,
    key: str,
    environment: Mapping[str, Any],
    recordings: tuple[Recording, ...],
    comparison: Mapping[str, Any] | None,
) -> bytes:
    """Return the file of a shard."""
    runs, arrays = [], {}
    for i, recording in enumerate(recordings):
        timing, source = recording.timing, recording.network.input
        runs.append(
            {
                "backend": recording.backend,
                "schedule": recording.schedule,
                "encoding": source.encoding,
                "level": source.level,
                "versions": dict(recording.versions),
                "input_rounding": recording.input_rounding,
                "build_s": timing.build_s,
                "run_s": timing.run_s,
                "read_s": timing.read_s,
                "spike_counts": list(recording.spike_counts),
                "synops": list(recording.synops),
                "digests": list(recording.digests),
                "has_scores": recording.scores is not None,
            }
        )
        for kind in KINDS:
            arrays[f"{kind}_{i}"] = np.stack(list(getattr(recording, kind).values()))
        if recording.scores is not None:
            arrays[f"scores_{i}"] = recording.scores
    about = {
        "key": key,
        "shard": [shard.number, shard.start, shard.stop],
        "environment": dict(environment),
        "runs": runs,
        "comparison": comparison,
    }
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return _seal(buffer.getvalue())


def unpack(data: bytes) -> ShardContent:
    """Return what the file of a shard holds.

    Raises
    ------
    FormatError
        If it is not whole, or not what `pack` writes.
    """
    if not is_sealed(data):
        raise FormatError("the shard is cut off or damaged.")
    try:
        return _unpack(data)
    except FormatError:
        raise
    except (
        *(ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError),
        *(OSError, EOFError, MemoryError, OverflowError, NotImplementedError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        raise FormatError(f"the shard holds something else ({error}).") from None


def is_sealed(data: bytes) -> bool:
    """Return whether the bytes are whole: those that `pack` wrote."""
    return len(data) > HEX and _seal_of(data[:-HEX]) == data[-HEX:]


def _seal(archive: bytes) -> bytes:
    # A zip archive ends with the length of its comment and the comment; here that was empty.
    body = archive[:-2] + HEX.to_bytes(2, "little")
    return body + _seal_of(body)


def _seal_of(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def _unpack(data: bytes) -> ShardContent:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        # What is stored plainly cannot grow when it is read.
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise FormatError("the shard is compressed.")
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        about = json.loads(file["about"].tobytes())
        shard = Shard(*(int(n) for n in about["shard"]))
        arrays = []
        for i, run in enumerate(about["runs"]):
            found = {kind: file[f"{kind}_{i}"] for kind in KINDS}
            for kind, array in found.items():
                expected = (len(run[kind]), shard.stop - shard.start)
                if array.shape != expected or array.dtype != KINDS[kind]:
                    raise FormatError(f"{kind} are {array.dtype} {array.shape}; need {expected}.")
            if run["has_scores"]:
                found["scores"] = file[f"scores_{i}"]
                if found["scores"].ndim != 2 or len(found["scores"]) != shard.stop - shard.start:
                    raise FormatError(f"scores have shape {found['scores'].shape}.")
            arrays.append(found)
    return ShardContent(
        shard, about["key"], about["environment"], tuple(about["runs"]), about["comparison"],
        tuple(arrays),
    )  # fmt: skip
