"""ONNX files as bytes: whether a file is one, its message, and its tensors as arrays.

The package `onnx` would open any file that a tensor names and allocate what a header claims, so
the arrays are taken from the message here, each number compared with the bytes that are there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import BackendNotInstalledError, FormatError, install_line, quote

__all__ = ["Tensors", "is_onnx", "parse"]

MAX_FILE = 2**31 - 1
"""Largest message that protobuf allows, in bytes."""
MAX_TOP_FIELDS = 10_000

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH = 7
# Fields of ModelProto and their wire types (onnx.proto3).
_MODEL_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_GRAPH_FIELDS = frozenset({1, 2, 5, 10, 11, 12, 13, 14, 15, 16})

_DTYPES: dict[int, str] = {
    1: "<f4",
    2: "u1",
    3: "i1",
    4: "<u2",
    5: "<i2",
    6: "<i4",
    7: "<i8",
    9: "?",
    10: "<f2",
    11: "<f8",
    12: "<u4",
    13: "<u8",
    16: "<u2",
}
"""TensorProto.DataType to what its raw bytes are; bfloat16 (16) as its bits."""
_BFLOAT16, _FLOAT16 = 16, 10
_FIELDS = {1: "float_data", 11: "double_data", 7: "int64_data", 12: "uint64_data"}
_FIELDS |= {13: "uint64_data"} | dict.fromkeys((2, 3, 4, 5, 6, 9, 10, 16), "int32_data")


def is_onnx(path: Path, head: bytes) -> bool:
    """Return whether a file is laid out as an ONNX model, perhaps cut off.

    Its outermost fields must be those of a ModelProto and one of them must hold a graph: any file
    may begin with the byte 8.
    """
    if not head or head[0] not in {field_ << 3 | wire for field_, wire in _MODEL_FIELDS.items()}:
        return False
    size = path.stat().st_size
    graph = version = False
    with path.open("rb") as file:
        for _ in range(MAX_TOP_FIELDS):
            if file.tell() >= size:
                break
            tag = _varint(file)
            number = None if tag is None else tag >> 3
            if tag is None or number is None or _MODEL_FIELDS.get(number) != tag & 7:
                return False
            value = _varint(file)
            if value is None:
                return graph
            version |= number == 1
            if number == _GRAPH:
                graph = _begins_graph(file, value)
                if not graph:
                    return False
            if tag & 7 == _BYTES:
                file.seek(value, 1)
                if file.tell() > size:
                    break
    return graph and version


def _begins_graph(file: BinaryIO, length: int) -> bool:
    """Return whether the bytes that follow begin like a GraphProto; stay where the file is."""
    here = file.tell()
    tag = _varint(file) if length else 0
    file.seek(here)
    # None: the file ends here, cut off.
    return tag is None or (tag != 0 and tag & 7 == _BYTES and tag >> 3 in _GRAPH_FIELDS)


def _varint(file: BinaryIO) -> int | None:
    value = 0
    for shift in range(0, 63, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


def parse(path: Path) -> Any:
    """Return the ModelProto in a file, without opening any other file.

    Raises
    ------
    FormatError
        If the file is no valid message.
    BackendNotInstalledError
        If the package `onnx` is missing.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError:
        raise BackendNotInstalledError(
            f"{path.name}: reading ONNX needs the package onnx. Get it: {install_line('formats')}"
        ) from None
    size = path.stat().st_size
    if size > MAX_FILE:
        raise FormatError(
            f"the file has {size} bytes (need <= {MAX_FILE}). Export the weights as external data."
        )
    try:
        return onnx.ModelProto.FromString(path.read_bytes())
    except DecodeError:
        raise FormatError("not a valid ONNX message. The file is cut off or damaged.") from None


@dataclass(eq=False)
class Tensors:
    """Makes arrays of a file's tensors.

    Parameters
    ----------
    folder : path, optional
        Where the file is; weights outside it are never read. None for a model in memory.
    """

    folder: Path | None

    def array(self, tensor: Any) -> NDArray[Any]:
        """Return a TensorProto as an array; bfloat16 becomes float32.

        Raises
        ------
        FormatError
            If type, shape and data do not agree, or the data is outside the folder.
        """
        where = f"tensor {quote(tensor.name)}"
        kind = int(tensor.data_type)
        if kind not in _DTYPES:
            raise FormatError(
                f"{where}: type {_type_name(kind)} is not supported (need float, integer or bool). "
                "Export the network with float32 weights."
            )
        shape = tuple(int(n) for n in tensor.dims)
        if any(n < 0 for n in shape) or len(shape) > 16:
            raise FormatError(f"{where}: it cannot have shape {quote(shape)}.")
        if tensor.HasField("segment"):
            raise FormatError(f"{where}: tensors in segments are not supported.")
        size = math.prod(shape)
        dtype = np.dtype(_DTYPES[kind])
        if tensor.data_location == 1:
            flat = self._read_external(tensor, where, size, dtype)
        elif tensor.HasField("raw_data"):
            if len(tensor.raw_data) != size * dtype.itemsize:
                raise FormatError(
                    f"{where}: shape {quote(shape)} needs {size * dtype.itemsize} bytes; it has "
                    f"{len(tensor.raw_data)}. The file is damaged."
                )
            flat = np.frombuffer(tensor.raw_data, dtype)
        else:
            values = getattr(tensor, _FIELDS[kind])
            if len(values) != size:
                raise FormatError(
                    f"{where}: shape {quote(shape)} needs {size} values; it has {len(values)}. "
                    "The file is damaged."
                )
            flat = _from_numbers(values, kind, dtype)
        if kind == _BFLOAT16:
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return flat.reshape(shape)

    def _read_external(self, tensor: Any, where: str, size: int, dtype: Any) -> NDArray[Any]:
        entries = {e.key: e.value for e in tensor.external_data}
        path = self._beside(entries.get("location", ""), where)
        offset = _whole(entries.get("offset", "0"), where)
        n_bytes = size * dtype.itemsize
        length = _whole(entries.get("length", str(n_bytes)), where)
        available = path.stat().st_size
        if length != n_bytes or offset + n_bytes > available:
            raise FormatError(
                f"{where}: it needs {n_bytes} bytes from byte {offset} of {quote(path.name)}, "
                f"which has {available} (length says {length}). The file is damaged."
            )
        with path.open("rb") as file:
            file.seek(offset)
            return np.frombuffer(file.read(n_bytes), dtype)

    def _beside(self, location: str, where: str) -> Path:
        """Return the file of that name in the model's folder or below, and nowhere else."""
        parts = PurePosixPath(location.replace("\\", "/"))
        wrong = parts.is_absolute() or ".." in parts.parts or ":" in location or "\0" in location
        if self.folder is None or not location or wrong:
            raise FormatError(
                f"{where}: its data is in {quote(location)} (need a file beside the model). "
                "Put it there, or save the model as one file."
            )
        folder = self.folder.resolve()
        path = folder.joinpath(*parts.parts).resolve()
        if not path.is_relative_to(folder):
            raise FormatError(
                f"{where}: its data {quote(location)} lies outside the model's folder. Put the "
                "file itself there."
            )
        if not path.is_file():
            raise FormatError(
                f"{where}: its data {quote(location)} is no file beside the model. Keep the two "
                "together."
            )
        return path


def _from_numbers(values: Any, kind: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the numbers of a typed field; half floats are written there as their bits."""
    if kind == _FLOAT16:
        return np.array(values, np.uint16).view(np.float16)
    return np.array(values, dtype)


def _whole(text: str, where: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise FormatError(f"{where}: {quote(text)} is no number of bytes. The file is damaged.")
    return int(text)


def _type_name(kind: int) -> str:
    from onnx import TensorProto

    names = {number: name for name, number in TensorProto.DataType.items()}
    return str(names.get(kind, kind))
