"""HDF5 files that nobody vouches for: what a Keras file needs of them, and no more.

Keras writes plain groups, text attributes and contiguous arrays. So links that lead elsewhere,
arrays in other files, compressed, chunked or virtual arrays, and references are all refused.
"""

from __future__ import annotations

import io
import math
import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import BackendNotInstalledError, FormatError, install_line, quote
from whetsim.formats.damage import guarded
from whetsim.formats.keras.texts import Content, TextAttributes

__all__ = ["Budget", "Hdf5"]

MAX_BYTES = 2**31
"""Largest size of all arrays together."""
MAX_PARTS = 64
"""Into how many attributes a list may be cut; Keras begins a new one after 64 KB."""


class Budget:
    """How many bytes of arrays a file of a given size may lead to.

    A file may use one array many times over, so that what is used counts, not what is stored.
    """

    def __init__(self, file_size: int) -> None:
        self.left = min(MAX_BYTES, 2**26 + 100 * file_size)

    def spend(self, n_bytes: int) -> None:
        """Take bytes off, or raise `FormatError` where too few are left."""
        self.left -= n_bytes
        if self.left < 0:
            raise FormatError(
                "the arrays of the network take far more memory than the file holds, or more than "
                f"{MAX_BYTES} bytes. The file is damaged, or too large."
            )


class Hdf5:
    """An open HDF5 file, read with every size checked first.

    Parameters
    ----------
    source : path or bytes
        A file, or the contents of one.

    Raises
    ------
    FormatError
        Here and by every method, if the content is damaged or not what Keras writes.
    BackendNotInstalledError
        If h5py is missing.
    """

    def __init__(self, source: Path | bytes) -> None:
        try:
            import h5py
        except ImportError:
            raise BackendNotInstalledError(
                "reading an HDF5 file needs the package h5py. "
                f"Get it with: {install_line('formats')}"
            ) from None
        self._h5py = h5py
        self.size = len(source) if isinstance(source, bytes) else source.stat().st_size
        with guarded("the HDF5 file"):
            if isinstance(source, bytes):
                self._content: Content = source
                self.root = h5py.File(io.BytesIO(source), "r")
            else:
                with source.open("rb") as file:
                    self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self.root = h5py.File(source, "r", driver="sec2", locking=False)
            self._attributes = TextAttributes(self._content)

    def __enter__(self) -> Hdf5:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with guarded("the HDF5 file"):
            self.root.close()
            if isinstance(self._content, mmap.mmap):
                self._content.close()

    def has(self, group: Any, name: str) -> bool:
        """Return whether a group has an entry of this name."""
        with guarded(f"group {quote(group.name)}"):
            return group.get(name, getlink=True) is not None

    def has_attribute(self, group: Any, name: str) -> bool:
        """Return whether a group has an attribute of this name."""
        with guarded(f"attribute {quote(name)}"):
            return self._attributes.has(self._address(group), name)

    def group(self, group: Any, path: str) -> Any | None:
        """Return the group at a path below `group`, or None."""
        found = self._find(group, path)
        if found is not None and not isinstance(found, self._h5py.Group):
            raise FormatError(f"{quote(path)} must be a group of the HDF5 file.")
        return found

    def dataset(self, group: Any, path: str) -> Any:
        """Return the array at a path below `group`, not read yet."""
        found = self._find(group, path)
        if not isinstance(found, self._h5py.Dataset):
            raise FormatError(f"array {quote(path)} is not in the file. It is damaged.")
        with guarded(f"array {quote(path)}"):
            if found.shape is None:
                raise FormatError(f"array {quote(path)} is empty.")
        return found

    def text(self, group: Any, name: str) -> str | None:
        """Return an attribute that is one text, or None."""
        with guarded(f"attribute {quote(name)}"):
            return self._attributes.text(self._address(group), name)

    def texts(self, group: Any, name: str) -> list[str]:
        """Return an attribute that is a list of texts, perhaps cut into ``name0``, ``name1``..."""
        with guarded(f"attribute {quote(name)}"):
            address = self._address(group)
            whole = self._attributes.texts(address, name)
            if whole is not None:
                return whole
            result: list[str] = []
            for number in range(MAX_PARTS):
                part = self._attributes.texts(address, f"{name}{number}")
                if part is None:
                    return result
                result += part
            raise FormatError(f"attribute {quote(name)} has more than {MAX_PARTS} parts.")

    def floats(self, dataset: Any, budget: Budget) -> NDArray[np.floating[Any]]:
        """Return an array, taken off the budget before it is read."""
        what = f"array {quote(dataset.name)}"
        with guarded(what):
            self._refuse_odd_storage(dataset, what)
            dtype = dataset.dtype
            if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
                raise FormatError(f"{what} has type {dtype} (need float16, float32 or float64).")
            n_bytes = math.prod(dataset.shape) * dtype.itemsize
            offset = dataset.id.get_offset() or 0
            if dataset.id.get_storage_size() < n_bytes or offset + n_bytes > self.size:
                raise FormatError(f"{what} is not stored in full. The file is cut off or damaged.")
            budget.spend(n_bytes)
            values: NDArray[np.floating[Any]] = np.asarray(dataset[()])
            return values.astype(dtype.newbyteorder("="), copy=False)

    def _refuse_odd_storage(self, dataset: Any, what: str) -> None:
        storage = dataset.id.get_create_plist()
        plain = (self._h5py.h5d.CONTIGUOUS, self._h5py.h5d.COMPACT)
        if storage.get_external_count():
            raise FormatError(f"{what} is stored in another file, which is never opened.")
        if storage.get_layout() not in plain or storage.get_nfilters():
            raise FormatError(
                f"{what} is stored in pieces, compressed or virtual; Keras stores arrays whole. "
                "Save the model once more with Keras."
            )

    def _find(self, group: Any, path: str) -> Any | None:
        """Return what hard links alone lead to."""
        with guarded(f"{quote(path)}"):
            for part in path.split("/"):
                if not part or part == ".":
                    continue
                if not isinstance(group, self._h5py.Group):
                    return None
                link = group.get(part, getlink=True)
                if link is None:
                    return None
                if not isinstance(link, self._h5py.HardLink):
                    raise FormatError(
                        f"{quote(path)} is a link to another place or file, which is not followed. "
                        "Save the model once more with Keras."
                    )
                group = group[part]
            return group

    def _address(self, group: Any) -> int:
        return int(self._h5py.h5o.get_info(group.id).addr)
