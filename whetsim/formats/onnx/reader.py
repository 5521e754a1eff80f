"""Reader of ONNX files (https://onnx.ai), as PyTorch, Keras and tf2onnx export them."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from whetsim.errors import FormatError, quote
from whetsim.formats.graph import Graph, Reading
from whetsim.formats.onnx.activations import TYPES
from whetsim.formats.onnx.curves import Curve
from whetsim.formats.onnx.file import Tensors, is_onnx, parse
from whetsim.formats.onnx.nodes import Label
from whetsim.formats.onnx.steps import Builder, Last, Refusal, Signal, Tensor
from whetsim.formats.onnx.walk import Walk
from whetsim.layers import Shape
from whetsim.model import InputSpec, Model

__all__ = ["read", "read_message", "recognizes"]

OLDEST_OPSET = 13
ENTRY = "whetsim"
"""Entry of a model's metadata that says what ONNX has no place for."""
SPIKES = "spikes"
"""Name of the output, in a file with that entry."""
MAX_ENTRY = 2**26

_DAMAGE = (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
"""What malformed content raises in numpy and protobuf."""

_INPUT_TYPES = {code: kind for code, kind in TYPES.items() if code not in (12, 13)}
"""Samples are no larger than int64, which the unsigned types would exceed."""


def recognizes(path: Path, head: bytes) -> bool:
    """Return whether a file is laid out as an ONNX model."""
    return is_onnx(path, head)


def read(path: Path, reading: Reading) -> Model:
    """Read an ONNX file.

    Raises
    ------
    FormatError
        If the file is damaged, or does what layers and steps cannot express exactly; the text
        names the file and the node.
    BackendNotInstalledError
        If the package `onnx` is missing.
    """
    try:
        return read_message(parse(path), reading, name=path.stem, folder=path.parent)
    except FormatError as error:
        raise FormatError(f"{path.name}: {error}") from None


def read_message(message: Any, reading: Reading, *, name: str, folder: Path | None = None) -> Model:
    """Return the network in a ModelProto.

    Parameters
    ----------
    message : ModelProto
    reading : Reading
    name : str
        What the model is called unless the message says it.
    folder : path, optional
        Where weights outside the message may be.
    """
    try:
        # NaN and infinity are refused by the layers that would use them.
        with np.errstate(all="ignore"):
            return _read(message, reading, name, folder)
    except FormatError:
        raise
    except _DAMAGE as error:
        raise FormatError(
            f"the file holds values that no network has ({quote(str(error))}). It is damaged."
        ) from None


def _read(message: Any, reading: Reading, name: str, folder: Path | None) -> Model:
    opset = _opset(message)
    entry = _entry(message)
    tensors = Tensors(folder)
    source, batch, shape, dtype = _input(message.graph)
    spec = None
    if entry is not None:
        if not reading.says_nothing:
            raise FormatError(
                "the file says itself what the network reads, and its steps are exact. Leave "
                "input_scale, input_range and assume_sharp out."
            )
        spec = _input_spec(entry, shape)
    graph = Graph(shape)
    builder = Builder(graph, reading, batch, keep_ramps=entry is not None)
    functions = {(f.domain, f.name, f.overload): f for f in message.functions}
    walk = Walk(builder, tensors, functions, opset, literal=entry is not None)
    samples = builder.signal(graph.input, dtype, Label("input"))
    if spec is not None:
        # Such a graph scales whole numbers itself; a model's input stands behind that.
        scale = Fraction(float(np.float32(spec.scale)))
        unscaled = Curve.straight(1 / scale, Fraction(0))
        samples = dataclasses.replace(samples, terms=((graph.input, unscaled),))
    scope = walk.scope_of(message.graph, {source: samples})
    output = _output(graph, walk.tensor(scope, _output_name(message.graph, entry)))
    value = builder.plain(output)
    if entry is not None:
        _decode(graph, value, entry)
        if graph.readout is None:
            value = graph.in_file_order(value)
    told = {
        "format": "onnx",
        "opset": opset,
        "producer": f"{message.producer_name} {message.producer_version}".strip()[:200],
    }
    model = graph.to_model(_name(entry, name), value, reading, input_spec=spec, metadata=told)
    if entry is not None and isinstance(entry.get("metadata"), dict):
        return dataclasses.replace(model, metadata=entry["metadata"])
    return model


def _opset(message: Any) -> int:
    from onnx.defs import onnx_opset_version

    versions = [int(o.version) for o in message.opset_import if o.domain in ("", "ai.onnx")]
    if not message.graph.node or not versions:
        raise FormatError("it holds no graph of ONNX operators. The file is damaged.")
    newest = onnx_opset_version()
    if not OLDEST_OPSET <= versions[0] <= newest:
        raise FormatError(
            f"it is written in opset {versions[0]} (need {OLDEST_OPSET} to {newest}). Export it "
            "with another opset_version, or update the package onnx."
        )
    return versions[0]


def _input(graph: Any) -> tuple[str, int, Shape, np.dtype[Any]]:
    """Return name, number of samples, shape of one and type of what the graph reads."""
    constants = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(quote(i.name) for i in inputs[:5]) or "none"
        raise FormatError(f"the graph has {len(inputs)} inputs, {names} (need one).")
    (source,) = inputs
    where = f"input {quote(source.name)}"
    kind = source.type.tensor_type
    if not source.type.HasField("tensor_type") or int(kind.elem_type) not in _INPUT_TYPES:
        raise FormatError(f"{where}: it must be a tensor of numbers.")
    if not kind.HasField("shape") or len(kind.shape.dim) < 2:
        raise FormatError(
            f"{where}: it must have an axis for samples and at least one more. Export the network "
            "with an example input of that shape."
        )
    first, *rest = kind.shape.dim
    open_axes = [i for i, dim in enumerate(rest, 1) if not dim.HasField("dim_value")]
    if open_axes or any(dim.dim_value < 1 for dim in rest):
        raise FormatError(
            f"{where}: axis {open_axes[0] if open_axes else 1} has no fixed size (only the first, "
            "of the samples, may be left open). Export the network with a fixed input shape."
        )
    batch = int(first.dim_value) if first.HasField("dim_value") else 1
    if not 0 <= batch <= 2**16:
        raise FormatError(f"{where}: it takes {batch} samples at once.")
    shape = tuple(int(dim.dim_value) for dim in rest)
    return source.name, max(batch, 1), shape, np.dtype(_INPUT_TYPES[int(kind.elem_type)])


def _output_name(graph: Any, entry: dict[str, Any] | None) -> str:
    names = [str(output.name) for output in graph.output]
    if entry is not None and SPIKES in names:
        return SPIKES
    if len(names) != 1:
        shown = ", ".join(map(quote, names[:5])) or "none"
        raise FormatError(
            f"the graph has {len(names)} outputs, {shown} (need one). Export the network with its "
            "last output alone."
        )
    return names[0]


def _output(graph: Graph, tensor: Tensor) -> Signal:
    if isinstance(tensor, Refusal):
        raise tensor.error
    if isinstance(tensor, Last):
        graph.remarks.append(tensor.remark)
        return tensor.signal
    if not isinstance(tensor, Signal):
        raise FormatError("the output does not depend on the input.")
    return tensor


def _entry(message: Any) -> dict[str, Any] | None:
    """Return what whetsim wrote beside the graph, if it did."""
    texts = [p.value for p in message.metadata_props if p.key == ENTRY]
    if not texts:
        return None
    try:
        if len(texts) > 1 or len(texts[0]) > MAX_ENTRY:
            raise ValueError("it is there twice, or too long")
        entry = json.loads(texts[0])
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"metadata {ENTRY!r} cannot be read ({quote(str(error))}). The file is damaged."
        ) from None
    if not isinstance(entry, dict):
        raise FormatError(f"metadata {ENTRY!r} must be a JSON object. The file is damaged.")
    return entry


def _input_spec(entry: dict[str, Any], shape: Shape) -> InputSpec:
    told = entry.get("input")
    if not isinstance(told, dict) or set(told) != {"low", "high", "scale"}:
        raise FormatError(f"metadata {ENTRY!r}: 'input' needs low, high and scale.")
    return InputSpec(shape, told["low"], told["high"], told["scale"])


def _name(entry: dict[str, Any] | None, name: str) -> str:
    told = entry.get("name") if entry is not None else None
    return told if isinstance(told, str) and told else name


def _decode(graph: Graph, output: Any, entry: dict[str, Any]) -> None:
    """Set the readout that the entry tells."""
    told = entry.get("readout")
    if told is None:
        return
    if not isinstance(told, dict) or ("key" in told) == ("decoder" in told):
        raise FormatError(f"metadata {ENTRY!r}: 'readout' needs a key or a decoder.")
    if "key" in told:
        graph.decode(output, key=_matrix(told["key"]))
    else:
        bias = told.get("bias")
        graph.decode(
            output,
            decoder=_matrix(told["decoder"]),
            bias=None if bias is None else np.asarray(bias, np.float64),
        )


def _matrix(rows: Any) -> Any:
    matrix = np.asarray(rows, np.float64)
    if matrix.ndim != 2:
        raise FormatError(f"metadata {ENTRY!r}: a readout is a list of rows of equal length.")
    return matrix
