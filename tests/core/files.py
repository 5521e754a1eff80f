"""Files for tests, valid and broken, made without the writer under test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whetsim
from whetsim.errors import FormatError

FLOAT = np.dtype("<f4")
NAMES = {"<f2": "F16", "<f4": "F32", "<f8": "F64", "|u1": "U8", "<i4": "I32", "<i8": "I64"}


def small_graph() -> dict[str, Any]:
    """Return the JSON of a network of two layers, with its tensors in `small_tensors`."""
    return {
        "format": "whetsim",
        "version": 1,
        "name": "small",
        "input": {"shape": [3], "low": 0, "high": 1, "scale": 1.0},
        "layers": [
            layer("dense", "dense", ["input"], arrays={"weight": "w", "bias": "b"}),
            layer("step", "step", ["dense"], {"threshold": 0.5}),
        ],
        "output": "step",
        "metadata": {},
        "readout": {"key": "k"},
    }


def layer(
    name: str,
    kind: str,
    inputs: list[Any],
    parameters: Mapping[str, Any] | None = None,
    arrays: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the JSON of one layer."""
    return {
        "name": name,
        "kind": kind,
        "inputs": inputs,
        "parameters": dict(parameters or {}),
        "arrays": dict(arrays or {}),
    }


def small_tensors() -> dict[str, np.ndarray]:
    """Return the tensors of `small_graph`."""
    return {
        "w": np.array([[1, 0.25], [-1, 0.5], [0.5, 0]], FLOAT),
        "b": np.array([0, 0.25], FLOAT),
        "k": np.eye(2, dtype=np.uint8),
    }


def checksum(text: str, tensors: Mapping[str, np.ndarray]) -> str:
    """Return the checksum that docs/format.md asks for."""
    data = b"".join(tensors[name].tobytes() for name in sorted(tensors))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass") + data).hexdigest()


def layout(
    graph: Mapping[str, Any] | str, tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], bytes]:
    """Return the safetensors header and data of a file with a valid checksum."""
    text = graph if isinstance(graph, str) else json.dumps(graph)
    top: dict[str, Any] = {"__metadata__": {"whetsim": f"{checksum(text, tensors)} {text}"}}
    data = b""
    # Large items first, as the safetensors library lays them out.
    for name, array in sorted(tensors.items(), key=lambda item: -item[1].itemsize):
        span = [len(data), len(data) + array.nbytes]
        top[name] = {
            "dtype": NAMES[array.dtype.str],
            "shape": list(array.shape),
            "data_offsets": span,
        }
        data += array.tobytes()
    return top, data


def pack(top: Mapping[str, Any] | str | bytes, data: bytes = b"", length: int = -1) -> bytes:
    """Return the bytes of a safetensors file; `length` is what its header claims to be."""
    text = top if isinstance(top, (str, bytes)) else json.dumps(top)
    header = text.encode() if isinstance(text, str) else text
    size = len(header) if length < 0 else length
    return size.to_bytes(8, "little") + header + data


def file_bytes(
    graph: Mapping[str, Any] | str | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
) -> bytes:
    """Return a whole file with a valid checksum; the small network by default."""
    return pack(
        *layout(
            small_graph() if graph is None else graph,
            small_tensors() if tensors is None else tensors,
        )
    )


def write(folder: Path, data: bytes, name: str = "net.safetensors") -> Path:
    """Write `data` to a file of its own."""
    path = folder / name
    path.write_bytes(data)
    return path


def refused(path: Path, match: str) -> str:
    """Check that loading `path` raises a `FormatError` of one line; return its text."""
    with pytest.raises(FormatError, match=match) as caught:
        whetsim.load(path)
    text = str(caught.value)
    assert text.splitlines() == [text], "a message is one line"
    assert path.name in text.partition(": ")[0]
    assert text.isprintable()
    return text
