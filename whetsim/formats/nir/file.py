"""NIR files as HDF5: what stands in one, and one read with every size checked first.

The layout is that of ``nir.write`` (NIR 1.0): a text ``version`` and a group ``node``, which has a
text ``type`` and one entry for each parameter. The node of a graph has a group ``nodes`` and a list
of pairs of names, ``edges``. Arrays may be compressed. Links that lead elsewhere, arrays in other
files and virtual arrays are refused.
"""

from __future__ import annotations

import io
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import BackendNotInstalledError, FormatError, install_line, quote
from whetsim.formats.damage import guarded

__all__ = ["NirFile", "NirGraph", "Node", "to_bytes"]

NIR_VERSION = "1.0"
"""The release of NIR whose nodes are written."""

MAX_BYTES = 2**31
"""Largest size of all arrays together."""
MAX_DEPTH = 8
"""How deep graphs may stand in graphs."""
MAX_NODES = 10_000
MAX_EDGES = 100_000
MAX_TEXTS = 2**20
MAX_TEXT = 2**23
"""Largest size of one text, in bytes."""
MAX_NAME = 200

_DEFLATE, _SHUFFLE, _FLETCHER32, _SZIP, _LZF = 1, 2, 3, 4, 32000
_COMPRESSORS = (_DEFLATE, _SZIP, _LZF)
_FILTERS = (*_COMPRESSORS, _SHUFFLE, _FLETCHER32)
MAX_RATIO = 1100
"""No compressor that is allowed makes data smaller than this (deflate: 1032 to 1)."""


@dataclass(frozen=True, eq=False)
class Node:
    """One node: its type, and its parameters as arrays, whole numbers or texts."""

    type: str
    values: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class NirGraph:
    """Nodes by name, in order, and which feeds which."""

    nodes: Mapping[str, Node | NirGraph]
    edges: tuple[tuple[str, str], ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)


def import_h5py(path: Path, doing: str) -> ModuleType:
    """Return h5py, or say how to get it."""
    try:
        import h5py
    except ImportError:
        raise BackendNotInstalledError(
            f"{path.name}: {doing} NIR needs the package h5py. Get it: {install_line('formats')}"
        ) from None
    module: ModuleType = h5py
    return module


class NirFile:
    """An open NIR file; a context manager.

    Parameters
    ----------
    path : path

    Raises
    ------
    FormatError
        Here and by every method, if the content is damaged or no NIR.
    BackendNotInstalledError
        If h5py is missing.
    """

    def __init__(self, path: Path) -> None:
        self._h5py = import_h5py(path, "reading")
        self._size = path.stat().st_size
        self._left = min(MAX_BYTES, 2**28 + 100 * self._size)
        self._n_nodes = 0
        with guarded("the HDF5 file"):
            self._texts = _Texts(path)
            self._file = self._h5py.File(path, "r", driver="sec2", locking=False)

    def __enter__(self) -> NirFile:
        return self

    def __exit__(self, *_: object) -> None:
        with guarded("the HDF5 file"):
            self._file.close()
            self._texts.close()

    @property
    def root(self) -> Any | None:
        """The group of the outermost node, or None if this is no NIR."""
        with guarded("the HDF5 file"):
            node = self.child(self._file, "node")
            return node if isinstance(node, self._h5py.Group) and "type" in node else None

    @property
    def version(self) -> str:
        """The version that the file gives, or ''."""
        with guarded("version"):
            return self.text(self._file, "version") if "version" in self._file else ""

    def names(self, group: Any) -> list[str]:
        """Return the names in a group, in the order in which they were made if it is known."""
        with guarded(f"group {quote(group.name)}"):
            self._n_nodes += len(group)
            if self._n_nodes > MAX_NODES:
                raise FormatError(f"the file has more than {MAX_NODES} nodes.")
            return [str(name) for name in group]

    def child(self, group: Any, name: str) -> Any | None:
        """Return what stands under a name, or None."""
        with guarded(quote(name)):
            link = group.get(name, getlink=True)
            if link is None:
                return None
            if not isinstance(link, self._h5py.HardLink):
                raise FormatError(
                    f"{quote(name)} is a link to another place or file, which is not followed. "
                    "Write the file once more with nir.write."
                )
            return group[name]

    def group(self, group: Any, name: str) -> Any | None:
        """Return the group under a name, or None."""
        found = self.child(group, name)
        if found is not None and not isinstance(found, self._h5py.Group):
            raise FormatError(f"{quote(name)} must be a group of the HDF5 file.")
        return found

    def text(self, group: Any, name: str) -> str:
        """Return one text."""
        with guarded(quote(name)):
            dataset = self._dataset(group, name)
            if dataset.shape != () or not self._is_text(dataset.dtype):
                raise FormatError(f"{quote(name)} must be a text.")
            return self._read_texts(dataset, MAX_TEXT)[0]

    def array(self, group: Any, name: str) -> NDArray[Any]:
        """Return an array of numbers."""
        with guarded(quote(name)):
            dataset = self._dataset(group, name)
            if dataset.dtype.kind not in "biuf" or dataset.dtype.itemsize > 8:
                raise FormatError(f"{quote(name)} has type {dataset.dtype} (need numbers).")
            self._spend(dataset, name)
            values = np.asarray(dataset[()])
            return values.astype(values.dtype.newbyteorder("="), copy=False)

    def value(self, group: Any, name: str) -> Any:
        """Return a text, or an array of numbers."""
        with guarded(quote(name)):
            is_text = self._is_text(self._dataset(group, name).dtype)
            return self.text(group, name) if is_text else self.array(group, name)

    def pairs(self, group: Any, name: str) -> tuple[tuple[str, str], ...]:
        """Return a list of pairs of names."""
        with guarded(quote(name)):
            dataset = self._dataset(group, name)
            if dataset.size == 0:
                return ()
            if dataset.ndim != 2 or dataset.shape[1] != 2 or not self._is_text(dataset.dtype):
                raise FormatError(f"{quote(name)} must be a list of pairs of names.")
            if dataset.shape[0] > MAX_EDGES:
                raise FormatError(f"{quote(name)} has more than {MAX_EDGES} entries.")
            texts = self._read_texts(dataset, MAX_NAME)
            return tuple(zip(texts[::2], texts[1::2], strict=True))

    def _read_texts(self, dataset: Any, longest: int) -> list[str]:
        """Return all texts of an array, each at most `longest` bytes."""
        n_texts = math.prod(dataset.shape)
        if dataset.dtype.kind == "S":
            if dataset.dtype.itemsize > longest:
                raise FormatError(f"a text is longer than {longest} bytes.")
            return [v.decode("utf-8") for v in np.asarray(dataset[()]).reshape(n_texts)]
        storage = dataset.id.get_create_plist()
        if storage.get_layout() != self._h5py.h5d.CONTIGUOUS or not dataset.id.get_offset():
            raise FormatError("texts are stored in pieces. Write the file with nir.write.")
        return self._texts.read(dataset.id.get_offset(), n_texts, longest)

    def _dataset(self, group: Any, name: str) -> Any:
        found = self.child(group, name)
        if not isinstance(found, self._h5py.Dataset):
            raise FormatError(f"{quote(name)} is missing.")
        if found.shape is None:
            raise FormatError(f"{quote(name)} is empty.")
        storage = found.id.get_create_plist()
        if storage.get_external_count():
            raise FormatError(f"{quote(name)} is stored in another file, which is never opened.")
        if found.is_virtual:
            raise FormatError(f"{quote(name)} is a virtual array, which is not followed.")
        filters = [storage.get_filter(i)[0] for i in range(storage.get_nfilters())]
        n_compressors = sum(f in _COMPRESSORS for f in filters)
        if not set(filters) <= set(_FILTERS) or n_compressors > 1 or len(filters) > 3:
            raise FormatError(
                f"{quote(name)} is stored with filters {quote(filters)} (need one of gzip, lzf, "
                "szip). Write the file once more with nir.write."
            )
        return found

    def _spend(self, dataset: Any, name: str) -> None:
        """Take an array off the budget before it is read."""
        item = dataset.dtype.itemsize
        n_bytes = math.prod(dataset.shape) * item
        chunks = dataset.chunks
        chunk = 0 if chunks is None else math.prod(chunks) * item
        self._left -= max(n_bytes, chunk)
        if self._left < 0:
            raise FormatError(
                f"{quote(name)} of shape {quote(dataset.shape)} needs far more memory than the "
                f"file holds, or all arrays more than {MAX_BYTES} bytes. The file is damaged, or "
                "too large."
            )
        stored = dataset.id.get_storage_size()
        compressed = dataset.id.get_create_plist().get_nfilters() > 0
        if stored > self._size or stored * (MAX_RATIO if compressed else 1) < n_bytes:
            raise FormatError(f"{quote(name)} is not stored in full. The file is cut off.")

    def _is_text(self, dtype: Any) -> bool:
        return dtype.kind == "S" or self._h5py.check_string_dtype(dtype) is not None


def to_bytes(graph: NirGraph, path: Path) -> bytes:
    """Return a NIR file; the same graph always gives the same bytes."""
    h5py = import_h5py(path, "writing")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("version", data=NIR_VERSION, dtype=h5py.string_dtype())
        _write_graph(h5py, file.create_group("node"), graph)
    return buffer.getvalue()


def _write_graph(h5py: ModuleType, group: Any, graph: NirGraph) -> None:
    _write_entries(h5py, group, {"type": "NIRGraph"}, graph.metadata)
    # Frameworks build their modules in the order in which they find the nodes.
    nodes = group.create_group("nodes", track_order=True)
    for name, node in graph.nodes.items():
        below = nodes.create_group(name)
        if isinstance(node, NirGraph):
            _write_graph(h5py, below, node)
        else:
            _write_entries(h5py, below, {"type": node.type, **node.values}, node.metadata)
    edges = np.array(graph.edges, dtype=object).reshape(-1, 2)
    group.create_dataset("edges", data=edges, dtype=h5py.string_dtype())


def _write_entries(
    h5py: ModuleType, group: Any, values: Mapping[str, Any], metadata: Mapping[str, Any]
) -> None:
    for name, value in values.items():
        if isinstance(value, Mapping):
            _write_entries(h5py, group.create_group(name), value, {})
        elif isinstance(value, str):
            group.create_dataset(name, data=value, dtype=h5py.string_dtype())
        elif isinstance(value, np.ndarray) and value.ndim:
            group.create_dataset(name, data=value, compression="gzip")
        else:
            group.create_dataset(name, data=value)
    if metadata:
        _write_entries(h5py, group.create_group("metadata"), metadata, {})


class _Texts:
    """Texts of any length, which HDF5 keeps in heaps, read without its library.

    The library allocates whatever length a reference to a text claims, and follows a heap whose
    objects lead nowhere for ever.

    References
    ----------
    HDF5 File Format Specification 3.0, III.E (global heap) and VIII.A (references into it).
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}
        self._n_objects = 0
        sizes = self._content[13:15] if self._content[8] < 2 else self._content[9:11]
        if sizes != b"\x08\x08":
            raise FormatError("addresses have not 8 bytes. Write the file with nir.write.")

    def close(self) -> None:
        """Close the file."""
        self._content.close()

    def read(self, offset: int, n_texts: int, longest: int) -> list[str]:
        """Return the texts that `n_texts` references at a place in the file refer to."""
        references = self._content[offset : offset + 16 * n_texts]
        if len(references) < 16 * n_texts:
            raise FormatError("texts are not stored in full. The file is cut off.")
        texts = []
        for length, heap, index in struct.iter_unpack("<IQI", references):
            if length > longest:
                raise FormatError(f"a text has {length} bytes (need <= {longest}).")
            texts.append(self._bytes(heap, index, length).decode("utf-8") if length else "")
        return texts

    def _bytes(self, heap: int, index: int, length: int) -> bytes:
        if heap not in self._heaps:
            self._heaps[heap] = self._objects(heap)
        start, size = self._heaps[heap].get(index, (0, 0))
        if length > size:
            raise FormatError("a text is not where the file says. The file is damaged.")
        return self._content[start : start + length]

    def _objects(self, heap: int) -> dict[int, tuple[int, int]]:
        """Return place and size of each object of a heap."""
        if self._content[heap : heap + 5] != b"GCOL\x01":
            raise FormatError("a heap of texts is not where the file says. The file is damaged.")
        end = heap + int.from_bytes(self._content[heap + 8 : heap + 16], "little")
        objects: dict[int, tuple[int, int]] = {}
        place = heap + 16
        while place + 16 <= min(end, len(self._content)):
            index, size = struct.unpack("<H6xQ", self._content[place : place + 16])
            # Index 0 is the free space behind all objects.
            if not index:
                break
            objects[index] = place + 16, min(size, end - place - 16)
            self._n_objects += 1
            if self._n_objects > MAX_TEXTS:
                raise FormatError(f"the file has more than {MAX_TEXTS} texts.")
            place += 16 + (size + 7) // 8 * 8
        return objects
