"""Readers and writers of network files, one module each, chosen by content."""

from __future__ import annotations

import os
from pathlib import Path

from whetsim.errors import FormatError
from whetsim.formats import native
from whetsim.model import Model

__all__ = ["load", "save"]

_FOREIGN = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras .h5)"),
    (b"PK\x03\x04", "a zip archive (Keras .keras, PyTorch .pt or NumPy .npz)"),
    (b"\x08", "a protocol buffer (ONNX)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "a gzip archive"),
)
_PICKLE_OPCODES = b"(]}c\x80"


def load(path: str | os.PathLike[str]) -> Model:
    """Load a trained network from a file; the content decides the format, not the suffix.

    Parameters
    ----------
    path : path
        A native file (see docs/format.md).

    Returns
    -------
    Model

    Raises
    ------
    FormatError
        If the file is missing, damaged, of another format, or describes no valid network.
    """
    path = Path(path)
    try:
        if not path.is_file():
            missing = "is a folder" if path.is_dir() else "no such file"
            raise FormatError(f"{path}: {missing}. Name a network file, or a bundled network.")
        with path.open("rb") as file:
            head = file.read(16)
        if native.recognizes(head):
            return native.read(path)
        raise FormatError(f"{path.name}: {_what_it_is(head)}")
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}).") from None


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write `model` to a native file; the file appears complete or not at all.

    Parameters
    ----------
    model : Model
    path : path
        Where to write; an existing file is replaced.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    native.write(model, Path(path))


def _what_it_is(head: bytes) -> str:
    if not head:
        return "the file is empty."
    if head[0] == 0x80 and len(head) > 1 and head[1] <= 5:
        return (
            "this is a pickle, and opening a pickle runs the code in it, so whetsim never does. "
            "Export the network to the native file instead (docs/format.md)."
        )
    for magic, name in _FOREIGN:
        if head.startswith(magic):
            return (
                f"this looks like {name}; this version reads native files alone "
                "(docs/format.md). Export the network to a native file."
            )
    if head[0] in _PICKLE_OPCODES and head.rstrip().endswith(b"."):
        return "this may be a pickle, which whetsim never opens."
    return (
        "this is no whetsim file (need a safetensors file whose header says 'whetsim'). "
        "docs/format.md describes it."
    )
