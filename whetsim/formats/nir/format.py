"""NIR, the Neuromorphic Intermediate Representation: its files read and written (docs/nir.md)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from whetsim.errors import FormatError, WhetsimError
from whetsim.formats.damage import HDF5_MAGIC
from whetsim.formats.native import write_whole
from whetsim.formats.nir.description import ENTRY, description
from whetsim.formats.nir.file import NirFile, to_bytes
from whetsim.formats.nir.reader import to_model
from whetsim.formats.nir.writer import express
from whetsim.formats.reading import Reading
from whetsim.model import Model

__all__ = ["read", "recognizes", "write"]


def recognizes(path: Path, head: bytes) -> bool:
    """Return whether a file is HDF5 and has a node, as ``nir.write`` makes it."""
    if not head.startswith(HDF5_MAGIC):
        return False
    try:
        with NirFile(path) as file:
            return file.root is not None
    except WhetsimError:
        # Without h5py, or damaged: the suffix is all there is to go by.
        return path.suffix.lower() == ".nir"


def read(path: Path, reading: Reading) -> Model:
    """Read a NIR file.

    Raises
    ------
    FormatError
        If the file is damaged, or holds what has no exact counterpart; the text names the node.
    BackendNotInstalledError
        If h5py is missing.
    """
    try:
        with NirFile(path) as file:
            return to_model(file, path.stem, reading)
    except FormatError as error:
        raise FormatError(f"{path.name}: {error}") from None


def write(model: Model, path: Path) -> None:
    """Write `model` as NIR; the same model always gives the same bytes.

    Raises
    ------
    FormatError
        If NIR has no node for a layer; the text names it.
    BackendNotInstalledError
        If h5py is missing.
    """
    try:
        expressed = express(model)
        metadata = {ENTRY: description(model, expressed)}
        data = to_bytes(replace(expressed.graph, metadata=metadata), path)
    except FormatError as error:
        raise FormatError(f"{path.name}: {error}") from None
    write_whole(path, data)
