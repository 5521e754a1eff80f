"""`Rows`: figures of samples, one row each; many of them lie in a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["IN_MEMORY", "Rows", "rows_in_memory"]

IN_MEMORY = 2**21
"""Bytes of results that a run keeps in memory; if there are more, they go to a temporary file."""


def rows_in_memory(n_bytes: int) -> int:
    """Return how many rows of that many bytes to keep in memory."""
    return max(1, IN_MEMORY // max(1, n_bytes))


class Rows:
    """Rows of named columns that blocks are added to.

    Up to `limit` of them are in memory. If there are more, all go to a file without a name in the
    system's folder for temporary files, and the columns are mapped from it. Where that cannot be
    written to, because it is full, say, they stay in memory.

    Parameters
    ----------
    columns : mapping of str to int
        Entries of each column in a row.
    dtype : numpy dtype
    limit : int
        Rows in memory, at least 1.
    expected : int
        How many will come, if it is known.
    """

    def __init__(
        self, columns: Mapping[str, int], dtype: Any, limit: int, expected: int = 0
    ) -> None:
        self._slices: dict[str, slice] = {}
        width = 0
        for name, size in columns.items():
            self._slices[name] = slice(width, width + size)
            width += size
        self._limit: int | None = limit
        self._rows = np.empty((min(expected, limit), width), dtype)
        self._n = 0  # in memory
        self._file: Any = None
        self._n_written = 0

    def add(self, block: Mapping[str, NDArray[Any]]) -> None:
        """Add a block: for each column an array ``(n,)`` or ``(n, entries)``."""
        start, n = 0, len(next(iter(block.values()), ()))
        while start < n:
            if self._n == self._limit:
                self._write()
            room = n if self._limit is None else self._limit - self._n
            stop = min(n, start + room)
            end = self._n + stop - start
            self._make_room(end)
            for name, columns in self._slices.items():
                part = block[name][start:stop]
                self._rows[self._n : end, columns] = part.reshape(len(part), -1)
            self._n, start = end, stop

    def finish(self) -> dict[str, NDArray[Any]]:
        """Return each column, read-only, ``(n, entries)``; the rows are used up."""
        if self._file is not None and self._n:
            self._write()
        rows = self._mapped()
        if rows is None:
            self._resize(self._n)
            rows = self._rows
            rows.flags.writeable = False
        return {name: rows[:, columns] for name, columns in self._slices.items()}

    def _mapped(self) -> NDArray[Any] | None:
        """Return the rows as a map of the file, or None if they are in memory."""
        if self._file is None:
            return None
        shape = (self._n_written, self._rows.shape[1])
        try:
            rows = np.asarray(np.memmap(self._file, self._rows.dtype, "r", shape=shape))
        except OSError:  # a file system that maps nothing
            self._read_back()
            return None
        self._file.close()  # the map goes on, and with it what it maps
        return rows

    def _make_room(self, n: int) -> None:
        if n > len(self._rows):
            room = max(n, len(self._rows) * 9 // 8)
            self._resize(room if self._limit is None else min(room, self._limit))

    def _resize(self, n: int) -> None:
        # In place: a large block changes its size without its pages being copied.
        if n != len(self._rows):
            self._rows.resize((n, self._rows.shape[1]), refcheck=False)

    def _write(self) -> None:
        """Write the rows in memory to the file, or give the file up."""
        try:
            if self._file is None:
                # Unbuffered: what fails is known at once. It is open as long as rows come.
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            left = self._rows[: self._n].reshape(-1).view(np.uint8).data
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self._read_back()
        else:
            self._n_written += self._n
            self._n = 0

    def _read_back(self) -> None:
        """Have all rows in memory from now on."""
        n = self._n_written + self._n
        rows = np.empty((n, self._rows.shape[1]), self._rows.dtype)
        if self._file is not None:
            self._file.seek(0)
            left = rows[: self._n_written].reshape(-1).view(np.uint8).data
            while left:
                n_read = self._file.readinto(left)
                if not n_read:
                    raise OSError("a temporary file with results of the run is shorter than it was")
                left = left[n_read:]
            self._file.close()
        rows[self._n_written :] = self._rows[: self._n]
        self._rows, self._n, self._n_written = rows, n, 0
        self._file = self._limit = None
