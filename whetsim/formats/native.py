"""The native file: a safetensors file whose header carries the graph (docs/format.md)."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import FormatError, did_you_mean, quote
from whetsim.formats.graph import Reading
from whetsim.layers import KINDS, Layer
from whetsim.model import InputSpec, Model, Readout

__all__ = [
    "FORMAT",
    "MAX_HEADER",
    "VERSION",
    "assemble",
    "describe",
    "parse_graph",
    "read",
    "recognizes",
    "write",
    "write_whole",
]

FORMAT = "whetsim"
VERSION = 1
MAX_HEADER = 4 * 2**20
_READOUT = ("key", "decoder", "bias")
_DTYPES = ("F16", "F32", "F64", "U8")


def recognizes(path: Path, head: bytes) -> bool:
    """Return whether a file that begins with `head` is laid out as safetensors."""
    return len(head) >= 9 and head[8:9] == b"{"


def read(path: Path, reading: Reading) -> Model:
    """Read a native file.

    Raises
    ------
    FormatError
        If any rule of docs/format.md is broken; the text names the file and the rule.
    """
    try:
        if not reading.says_nothing:
            raise FormatError(
                "a native file says itself what the network reads, and its steps are exact. Leave "
                "input_scale, input_range and assume_sharp out."
            )
        return assemble(*_read_parts(path))
    except FormatError as error:
        raise FormatError(f"{path.name}: {error}") from None
    except (RecursionError, OverflowError, ValueError) as error:
        raise FormatError(
            f"{path.name}: the header holds values that no network has ({error})."
        ) from None


def write(model: Model, path: Path) -> None:
    """Write `model`; the same model always gives the same bytes."""
    from safetensors.numpy import save

    header, tensors = describe(model)
    text = json.dumps(header, separators=(",", ":"), allow_nan=False)
    # One entry alone: the library writes several in an order that changes from run to run.
    data = save(tensors, metadata={FORMAT: f"{_checksum(text, tensors)} {text}"})
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER:
        raise FormatError(
            f"{path.name}: graph and metadata make a header of {length} bytes (need <= "
            f"{MAX_HEADER}). Shorten the metadata."
        )
    write_whole(path, data)


def describe(model: Model) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the graph of docs/format.md and the tensors it names."""
    tensors: dict[str, NDArray[Any]] = {}
    layers = []
    for layer in model.layers:
        entry: dict[str, Any] = {"name": layer.name, "kind": layer.kind}
        entry["inputs"] = list(layer.inputs)
        entry["parameters"] = layer.parameters
        entry["arrays"] = {}
        for key in layer.arrays:
            array = getattr(layer, key)
            if array is not None:
                tensor = f"{layer.name}/{key}"
                tensors[tensor] = _little(array)
                entry["arrays"][key] = tensor
        layers.append(entry)
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "name": model.name,
        "input": {
            "shape": list(model.input.shape),
            "low": model.input.low,
            "high": model.input.high,
            "scale": model.input.scale,
        },
        "layers": layers,
        "output": model.output,
        "metadata": dict(model.metadata),
    }
    if model.readout is not None:
        header["readout"] = {}
        for part in _READOUT:
            array = getattr(model.readout, part)
            if array is not None:
                tensors[f"readout/{part}"] = _little(array)
                header["readout"][part] = f"readout/{part}"
    return header, tensors


def parse_graph(text: bytes) -> dict[str, Any]:
    """Return the graph that a JSON text holds, if it is of this version.

    Raises
    ------
    FormatError
        If it is no JSON object, uses a name twice, or holds NaN.
    """
    header = _parse(text, f"header entry '{FORMAT}'")
    _check_version(header)
    return header


def _little(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array as it lies in the file: little-endian, the last axis fastest."""
    # The library writes memory as it is, whatever the strides.
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears complete or not at all."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: its folder does not exist. Make it first.")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _checksum(text: str, tensors: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


def _read_parts(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER:
            raise FormatError(
                f"the header claims {length} bytes (need <= {MAX_HEADER}). The file is damaged."
            )
        if length + 8 > size:
            raise FormatError(
                f"the header claims {length} bytes but the file has {size}. It is cut off or "
                "damaged."
            )
        text = file.read(length)
    top = _parse(text, "header")
    meta = top.pop("__metadata__", None)
    if not isinstance(meta, dict) or FORMAT not in meta:
        raise FormatError(
            "the file holds tensors but no network: its header has no entry "
            f"'{FORMAT}' (see docs/format.md). Export the network with its graph."
        )
    for name, entry in top.items():
        dtype = entry.get("dtype") if isinstance(entry, dict) else None
        if dtype not in _DTYPES:
            raise FormatError(
                f"tensor {quote(name)}: type {quote(dtype)} (need {', '.join(_DTYPES)})."
            )
    checksum, _, graph = str(meta[FORMAT]).partition(" ")
    header = parse_graph(graph.encode())
    tensors = _load_tensors(path)
    if checksum != _checksum(graph, tensors):
        raise FormatError(
            "the checksum (sha256) does not match the content. The file is damaged, or was "
            "changed after it was written."
        )
    return header, tensors


def _check_version(header: Mapping[str, Any]) -> None:
    if header.get("format") != FORMAT:
        raise FormatError(f"format is {quote(header.get('format'))} (need {FORMAT!r}).")
    version = header.get("version")
    if version != VERSION or type(version) is not int:
        raise FormatError(
            f"version is {quote(version)}; this whetsim reads version {VERSION}. Update whetsim, "
            "or export the network again."
        )


def _parse(text: bytes, what: str) -> dict[str, Any]:
    def no_constant(word: str) -> Any:
        raise FormatError(f"{what}: {word} is no number.")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise FormatError(f"{what}: the name {quote(twice)} is used twice.")
        return result

    try:
        value = json.loads(text, parse_constant=no_constant, object_pairs_hook=unique)
    except FormatError:
        raise
    except ValueError as error:
        raise FormatError(f"{what}: is not JSON ({error}). The file is damaged.") from None
    if not isinstance(value, dict):
        raise FormatError(f"{what}: must be a JSON object.")
    return value


def _load_tensors(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise FormatError(f"not a valid safetensors file ({error}). The file is damaged.") from None


def assemble(header: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> Model:
    """Return the model that a graph and its tensors describe; what `describe` takes apart.

    Raises
    ------
    FormatError
        If any rule of docs/format.md is broken.
    """
    _only(header, "header", _HEADER)
    spec = _object(header["input"], "input")
    _only(spec, "input", ("shape", "low", "high", "scale"))
    layers = header["layers"]
    if not isinstance(layers, list):
        raise FormatError("layers must be a list.")
    used: set[str] = set()
    model = Model(
        name=_text(header["name"], "name"),
        input=InputSpec(**spec),
        layers=tuple(_to_layer(_object(e, "layer"), tensors, used) for e in layers),
        output=_text(header["output"], "output"),
        readout=_to_readout(header.get("readout"), tensors, used),
        metadata=_object(header["metadata"], "metadata"),
    )
    left = sorted(set(tensors) - used)
    if left:
        raise FormatError(f"tensor {quote(left[0])} belongs to no layer. Remove it.")
    return model


_HEADER = ("format", "version", "name", "input", "layers", "output", "metadata")


def _to_layer(entry: dict[str, Any], tensors: Mapping[str, NDArray[Any]], used: set[str]) -> Layer:
    name = _text(entry.get("name"), "layer name")
    where = f"layer {quote(name)}"
    _only(entry, where, ("name", "kind", "inputs", "parameters", "arrays"))
    kind = entry["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise FormatError(
            f"{where}: kind {quote(kind)} is unknown; known: {', '.join(KINDS)}."
            f"{did_you_mean(kind, KINDS)}"
        )
    cls = KINDS[kind]
    parameters = _object(entry["parameters"], f"{where}: parameters")
    arrays = _object(entry["arrays"], f"{where}: arrays")
    known = {f.name for f in fields(cls)} - {"name", "inputs"} - set(cls.arrays)
    for key in parameters:
        if key not in known:
            raise FormatError(
                f"{where}: {kind} has no parameter {quote(key)}; known: "
                f"{', '.join(sorted(known)) or 'none'}."
                f"{did_you_mean(key, known)}"
            )
    values: dict[str, Any] = {key: _tuples(value) for key, value in parameters.items()}
    for key, tensor in arrays.items():
        if key not in cls.arrays:
            raise FormatError(f"{where}: {kind} has no array {quote(key)}.")
        values[key] = _take(tensor, f"{where}: {key}", tensors, used)
    if not isinstance(entry["inputs"], list):
        raise FormatError(f"{where}: inputs must be a list of names.")
    try:
        return cls(name=name, inputs=tuple(entry["inputs"]), **values)
    except TypeError as error:
        missing = str(error).partition("argument")[2].lstrip("s: ") or str(error)
        raise FormatError(f"{where}: {kind} lacks {missing}.") from None


def _to_readout(
    entry: object, tensors: Mapping[str, NDArray[Any]], used: set[str]
) -> Readout | None:
    if entry is None:
        return None
    parts = _object(entry, "readout")
    for key in parts:
        if key not in _READOUT:
            raise FormatError(f"readout: {quote(key)} is unknown (need 'key' or 'decoder').")
    return Readout(**{k: _take(v, f"readout: {k}", tensors, used) for k, v in parts.items()})


def _take(
    tensor: object, where: str, tensors: Mapping[str, NDArray[Any]], used: set[str]
) -> NDArray[Any]:
    if not isinstance(tensor, str) or tensor not in tensors:
        raise FormatError(
            f"{where}: tensor {quote(tensor)} is not in the file.{did_you_mean(tensor, tensors)}"
        )
    if tensor in used:
        raise FormatError(
            f"{where}: tensor {quote(tensor)} is used twice; give each layer its own."
        )
    used.add(tensor)
    return tensors[tensor]


def _only(entry: Mapping[str, Any], where: str, keys: tuple[str, ...]) -> None:
    for key in keys:
        if key not in entry:
            raise FormatError(f"{where}: {key!r} is missing.")
    for key in entry:
        if key not in keys and not (where == "header" and key == "readout"):
            raise FormatError(f"{where}: {quote(key)} is unknown.{did_you_mean(key, keys)}")


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"{what} must be an object (got {type(value).__name__}).")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value or len(value) > 200:
        raise FormatError(f"{what} must be a text of 1 to 200 characters (got {quote(value)}).")
    return value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
