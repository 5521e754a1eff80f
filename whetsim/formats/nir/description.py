"""What a NIR file says about a whetsim network beside its nodes, and the network read from it.

The metadata of the graph holds a group ``whetsim``: how whole numbers go in and how spikes become
classes, for whoever runs the nodes elsewhere; and the network as it was before anything was folded
or rounded. The latter counts only if writing it gives the very nodes of the file: nobody has
changed them since, and nobody can hide another network behind them.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import FormatError, quote
from whetsim.formats import native
from whetsim.formats.nir.file import NirFile, NirGraph, Node
from whetsim.formats.nir.writer import Expressed, express
from whetsim.layers import Shape
from whetsim.model import InputSpec, Model

__all__ = ["ENTRY", "described_input", "described_readout", "description", "restored"]

ENTRY = "whetsim"
_READOUT = ("key", "decoder", "bias")


def description(model: Model, expressed: Expressed) -> dict[str, Any]:
    """Return the entry ``whetsim`` of a graph's metadata.

    The readout's outputs are those of the node ``output``, flattened.
    """
    header, tensors = native.describe(model)
    stored: dict[str, NDArray[Any]] = {}
    where: dict[str, Any] = {}
    for name, array in tensors.items():
        if name in expressed.places:
            where[name] = expressed.places[name]
        else:
            where[name] = str(len(stored))
            stored[where[name]] = array
    graph = json.dumps(header, separators=(",", ":"), allow_nan=False)
    if len(graph) > native.MAX_HEADER:
        raise FormatError(
            f"graph and metadata take {len(graph)} bytes (need <= {native.MAX_HEADER}). Shorten "
            "the metadata."
        )
    spec = model.input
    entry: dict[str, Any] = {
        "name": model.name,
        "input_low": spec.low,
        "input_high": spec.high,
        "input_scale": spec.scale,
        "graph": graph,
        "where": json.dumps(where, separators=(",", ":")),
        "tensors": stored,
    }
    if model.readout is not None and model.readout.key is not None:
        entry["key"] = model.readout.key[:, expressed.output_index]
    elif model.readout is not None and model.readout.decoder is not None:
        entry["decoder"] = model.readout.decoder[expressed.output_index]
        if model.readout.bias is not None:
            entry["bias"] = model.readout.bias
    return entry


def restored(file: NirFile, entry: Any, graph: NirGraph) -> Model | None:
    """Return the network that was written, or None if its nodes are not those of the file."""
    try:
        header = native.parse_graph(file.text(entry, "graph").encode())
        model = native.assemble(header, _tensors(file, entry, graph))
        n_values = sum(np.size(v) for n in graph.nodes.values() for v in _values(n).values())
        # A description may claim more than the file holds: it is never written out in full.
        again = express(model, limit=4 * n_values + 1000).graph
    except (FormatError, RecursionError, OverflowError, ValueError):
        return None
    return model if _same(again, graph) else None


def described_input(file: NirFile, entry: Any, shape: Shape) -> InputSpec:
    """Return what the file says about the whole numbers that it reads."""
    low, high = (_number(file, entry, key) for key in ("input_low", "input_high"))
    return InputSpec(shape, int(low), int(high), float(_number(file, entry, "input_scale")))


def described_readout(file: NirFile, entry: Any) -> dict[str, Any]:
    """Return the readout that the file gives for its outputs; empty if it gives none."""
    return {key: file.array(entry, key) for key in _READOUT if file.child(entry, key) is not None}


def _tensors(file: NirFile, entry: Any, graph: NirGraph) -> dict[str, NDArray[Any]]:
    """Return the tensors of the description, from the metadata or from the nodes."""
    where = json.loads(file.text(entry, "where"))
    if not isinstance(where, dict) or len(where) > 10 * native.MAX_HEADER:
        raise FormatError("metadata: 'where' must be an object.")
    group = file.group(entry, "tensors")
    tensors = {}
    for name, place in where.items():
        if isinstance(place, str) and group is not None:
            tensors[name] = file.array(group, place)
        else:
            tensors[name] = _from_node(name, place, graph)
    return tensors


def _from_node(name: str, place: Any, graph: NirGraph) -> NDArray[Any]:
    if not isinstance(place, list) or len(place) != 2 or not isinstance(place[0], str):
        raise FormatError(f"metadata: tensor {quote(name)} is nowhere.")
    node, rows = graph.nodes.get(place[0]), place[1]
    key = name.rpartition("/")[2]
    array = node.values.get(key) if isinstance(node, Node) else None
    if not isinstance(array, np.ndarray):
        raise FormatError(f"metadata: tensor {quote(name)} is not in node {quote(place[0])}.")
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 2:
        columns = array.T
        if rows is not None:
            h, w, channels = rows
            columns = columns.reshape(channels, h, w, -1).transpose(1, 2, 0, 3)
        return columns.reshape(len(array.T), -1)
    return array


def _same(expected: NirGraph, found: NirGraph) -> bool:
    if expected.nodes.keys() != found.nodes.keys() or set(expected.edges) != set(found.edges):
        return False
    return all(_same_node(node, found.nodes[name]) for name, node in expected.nodes.items())


def _same_node(expected: Node | NirGraph, found: Node | NirGraph) -> bool:
    if isinstance(expected, NirGraph) or isinstance(found, NirGraph):
        return False
    if expected.type != found.type:
        return False
    # The package nir adds a reset of 0 where none is given.
    more = {key: v for key, v in found.values.items() if key not in expected.values}
    if not all(key == "v_reset" and not np.any(v) for key, v in more.items()):
        return False
    return all(
        key in found.values and np.array_equal(value, found.values[key])
        for key, value in expected.values.items()
    )


def _values(node: Node | NirGraph) -> Any:
    return node.values if isinstance(node, Node) else {}


def _number(file: NirFile, entry: Any, key: str) -> Any:
    value = file.array(entry, key)
    if value.shape != ():
        raise FormatError(f"metadata: {key!r} must be one number.")
    return value.item()
