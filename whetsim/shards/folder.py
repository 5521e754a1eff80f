"""`RunFolder`: the files of one sharded run, each complete or absent, for one process at a time."""

from __future__ import annotations

import json
import os
import re
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from whetsim.errors import UnsupportedError, WhetsimError
from whetsim.shards.packing import is_sealed

__all__ = ["MANIFEST", "RESULT", "TIMINGS", "RunFolder", "json_text"]

MANIFEST, RESULT, TIMINGS = "manifest.json", "result.json", "timings.json"
LOCK = ".lock"
MAX_FILE = 2**34
"""Bytes of the largest shard that is read back."""
_OURS = re.compile(
    rf"{re.escape(LOCK)}|\.?({MANIFEST}|{RESULT}|{TIMINGS}|shard-\d{{5,}}\.npz)(\.part)?"
)


def json_text(value: object) -> str:
    """Return JSON whose text depends on the value alone."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


class RunFolder(AbstractContextManager["RunFolder"]):
    """The folder of a sharded run, made if it is not there, and locked while it is open.

    Parameters
    ----------
    path : path

    Raises
    ------
    WhetsimError
        If it is no folder, cannot be made or written, holds foreign files, or another process
        works in it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock: int | None = None

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise WhetsimError(f"{self.path}: is a file. Name a folder with --out.") from None
        except OSError as error:
            raise WhetsimError(
                f"{self.path}: the folder cannot be made ({_why(error)}). Name another one."
            ) from None
        self._refuse_foreign_files()
        self._take_lock()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read_shard(self, number: int) -> bytes | None:
        """Return the file of a shard, None if it is missing or damaged."""
        path = self._shard(number)
        try:
            if path.stat().st_size > MAX_FILE:
                return None
            data = path.read_bytes()
        except OSError:
            return None
        return data if is_sealed(data) else None

    def n_shards(self) -> int:
        """Return how many files of shards there are, whole or not."""
        return sum(1 for _ in self.path.glob("shard-*.npz"))

    def write_shard(self, number: int, data: bytes) -> None:
        """Write the file of a shard."""
        self._write(self._shard(number), data)

    def write_json(self, name: str, value: object) -> None:
        """Write a value as JSON, unless the file holds that text already."""
        data = json_text(value).encode()
        path = self.path / name
        with suppress(OSError):
            if path.read_bytes() == data:
                return
        self._write(path, data)

    def remove(self, *names: str) -> None:
        """Remove files; those that are not there are no matter."""
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(self.path / name)

    def read_manifest(self) -> bytes | None:
        """Return the text of the manifest, None if there is none yet."""
        try:
            return (self.path / MANIFEST).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WhetsimError(f"{self.path / MANIFEST}: cannot be read ({_why(error)}).") from None

    def _shard(self, number: int) -> Path:
        return self.path / f"shard-{number:05d}.npz"

    def _refuse_foreign_files(self) -> None:
        try:
            names = sorted(os.listdir(self.path))
        except OSError as error:
            raise WhetsimError(f"{self.path}: cannot be read ({_why(error)}).") from None
        if MANIFEST in names:
            return
        foreign = [name for name in names if not _OURS.fullmatch(name)]
        if foreign:
            raise WhetsimError(
                f"{self.path}: holds files that are not of a sharded run ({foreign[0]!r}"
                f"{f' and {len(foreign) - 1} more' if foreign[1:] else ''}). Name a new or empty "
                "folder with --out."
            )

    def _take_lock(self) -> None:
        """Lock the folder; the kernel lets go of it when this process ends, however it ends."""
        try:
            import fcntl
        except ImportError:
            raise UnsupportedError(
                "sharded runs need file locks as Linux and macOS have them. Run without --shards."
            ) from None
        try:
            self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.__exit__(None, None, None)
            raise WhetsimError(
                f"{self.path}: another process works in this folder. Wait until it has ended, or "
                "name another one with --out."
            ) from None
        except OSError as error:
            self.__exit__(None, None, None)
            raise WhetsimError(
                f"{self.path}: cannot be locked ({_why(error)}). Name a folder that can be written."
            ) from None

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file that is there whole or not at all, even if the power fails."""
        # One process works here, so a name left by one that was killed is written over.
        part = path.with_name(f".{path.name}.part")
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            folder = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise WhetsimError(
                f"{path}: cannot be written ({_why(error)}). What is finished is kept: make "
                "room, and the same command resumes."
            ) from None


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__
