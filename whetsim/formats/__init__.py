"""Readers and writers of network files, one module each, chosen by content."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

from whetsim.errors import FormatError
from whetsim.formats.damage import HDF5_MAGIC, ZIP_MAGIC
from whetsim.formats.graph import Reading
from whetsim.model import Model

__all__ = ["Reading", "load", "read", "save"]

_READERS = {
    "native": "whetsim.formats.native",
    "keras": "whetsim.formats.keras.reader",
    "onnx": "whetsim.formats.onnx.reader",
    "nir": "whetsim.formats.nir.format",
}
"""Each with ``recognizes(path, head)`` and ``read(path, reading)``; asked in this order."""
_WRITERS = {".onnx": "whetsim.formats.onnx.writer", ".nir": "whetsim.formats.nir.format"}
"""Each with ``write(model, path)``; any other suffix is a native file."""
_FOREIGN = (
    (HDF5_MAGIC, "an HDF5 file that holds neither a Keras model nor a NIR graph"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "a gzip archive"),
)
_PICKLE_OPCODES = b"(]}c\x80"
_ZIP_NAME = 30
"""Where in a zip archive the name of its first member stands."""
_EXPORT = (
    "Export the network: whetsim.from_torch(module, example_input) or torch.onnx.export(module, "
    "(example_input,), 'net.onnx') in PyTorch, model.save('net.keras') in Keras."
)


def load(
    path: str | os.PathLike[str],
    *,
    input_scale: float | None = None,
    input_range: tuple[int, int] | None = None,
    assume_sharp: bool = False,
) -> Model:
    """Load a trained network from a file; the content decides the format, not the suffix.

    Parameters
    ----------
    path : path
        A native file (docs/format.md), Keras .h5 or .keras, ONNX or NIR.
    input_scale : float, optional
        What one unit of an integer sample is worth, for files that do not say it: 1/255 for a
        network that was trained on 8-bit images divided by 255.
    input_range : tuple of int, optional
        Smallest and largest value of a sample; by default 0 to ``1 / input_scale``.
    assume_sharp : bool
        Take activations that are nearly steps for steps, instead of refusing them.

    Returns
    -------
    Model

    Raises
    ------
    FormatError
        If the file is missing, damaged, of another format, or describes no valid network; if it
        lacks what the caller must then give.
    BackendNotInstalledError
        If the package that reads the format is missing; the text says how to get it.
    """
    return read(path, Reading(input_scale, input_range, assume_sharp))


def read(path: str | os.PathLike[str], reading: Reading) -> Model:
    """Load a trained network as `load` does, with what the caller says in one value."""
    path = Path(path)
    reader, head = _reader_of(path)
    try:
        if reader is not None:
            model: Model = reader.read(path, reading)
            return model
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror or error}).") from None
    raise FormatError(f"{path.name}: {_what_it_is(path, head)}")


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write `model` to a file; it appears complete or not at all.

    Parameters
    ----------
    model : Model
    path : path
        Where to write; an existing file is replaced. ``.onnx`` and ``.nir`` choose these formats,
        any other suffix the native one.

    Raises
    ------
    FormatError
        If the format cannot hold the network; the text names the layer.
    OSError
        If the file cannot be written.
    """
    path = Path(path)
    writer = importlib.import_module(_WRITERS.get(path.suffix.lower(), "whetsim.formats.native"))
    writer.write(model, path)


def _reader_of(path: Path) -> tuple[ModuleType | None, bytes]:
    """Return the module that reads a file, and the file's first bytes."""
    try:
        if not path.is_file():
            missing = "is a folder" if path.is_dir() else "no such file"
            raise FormatError(f"{path}: {missing}. Name a network file, or a bundled network.")
        with path.open("rb") as file:
            head = file.read(16)
        for name in _READERS.values():
            reader = importlib.import_module(name)
            if reader.recognizes(path, head):
                return reader, head
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror or error}).") from None
    return None, head


def _what_it_is(path: Path, head: bytes) -> str:
    if not head:
        return "the file is empty."
    if head.startswith(ZIP_MAGIC):
        return _what_zip_it_is(path)
    if head[0] == 0x80 and len(head) > 1 and head[1] <= 5:
        return (
            "this is a pickle, and opening a pickle runs the code in it, so whetsim never does. "
            f"{_EXPORT}"
        )
    for magic, name in _FOREIGN:
        if head.startswith(magic):
            return f"this looks like {name}, which whetsim does not read. {_EXPORT}"
    if head[0] in _PICKLE_OPCODES and head.rstrip().endswith(b"."):
        return "this may be a pickle, which whetsim never opens."
    return (
        "this is no whetsim file (need a safetensors file whose header says 'whetsim'), nor Keras, "
        "ONNX or NIR. docs/format.md describes the first."
    )


def _what_zip_it_is(path: Path) -> str:
    """Tell weights of PyTorch by the name of their first member; nothing is unpacked."""
    with path.open("rb") as file:
        header = file.read(_ZIP_NAME + 256)
    length = int.from_bytes(header[_ZIP_NAME - 4 : _ZIP_NAME - 2], "little")
    if header[_ZIP_NAME : _ZIP_NAME + length].endswith(b"data.pkl"):
        return (
            "this is a zip archive of PyTorch (.pt, .pth): it holds weights but no graph, and a "
            f"pickle, which whetsim never opens because that runs the code in it. {_EXPORT}"
        )
    return f"this is a zip archive but no .keras file. {_EXPORT}"
