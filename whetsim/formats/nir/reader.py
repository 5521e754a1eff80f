"""The NIR reader: the nodes of a graph made into a `Model`.

A sample is presented for one timestep and every neuron starts at v = 0, so that an IF node has
``v = r * x`` and fires if ``v > v_threshold``; a Threshold node fires if ``x > threshold``.
"""

from __future__ import annotations

import graphlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import FormatError, quote
from whetsim.formats.graph import Graph, Value
from whetsim.formats.nir.description import (
    ENTRY,
    described_input,
    described_readout,
    restored,
)
from whetsim.formats.nir.file import MAX_DEPTH, NirFile, NirGraph, Node
from whetsim.formats.nir.parameters import (
    fitting,
    floats,
    number,
    padding_of,
    per_axis,
    whole_numbers,
)
from whetsim.formats.nir.windows import window_of
from whetsim.formats.nir.writer import FIRES_AT
from whetsim.formats.reading import Reading
from whetsim.model import MAX_UNITS, Model

__all__ = ["to_model"]

_CONV = ("weight", "bias", "stride", "padding", "dilation", "groups")
_POOL = ("kernel_size", "stride", "padding")
_FIELDS: dict[str, tuple[str, ...]] = {
    "Input": ("shape",),
    "Output": ("shape",),
    "Affine": ("weight", "bias"),
    "Linear": ("weight",),
    "Scale": ("scale",),
    "Conv1d": _CONV,
    "Conv2d": _CONV,
    "SumPool2d": _POOL,
    "AvgPool2d": _POOL,
    "Flatten": ("start_dim", "end_dim"),
    "Threshold": ("threshold",),
    "IF": ("r", "v_threshold"),
}
_OPTIONAL = {"IF": ("v_reset",), "Conv1d": ("input_shape",), "Conv2d": ("input_shape",)}
_OPTIONAL["Flatten"] = ("input_type",)
_LEAKS = "its neurons leak, so that what they do depends on time; need IF or Threshold"
_NO_COUNTERPART = {
    "LIF": _LEAKS,
    "LI": _LEAKS,
    "CubaLIF": _LEAKS,
    "CubaLI": _LEAKS,
    "I": "it adds up over time and never fires; need IF or Threshold",
    "Delay": "it delays, and every layer here takes one timestep",
}


def to_model(file: NirFile, name: str, reading: Reading) -> Model:
    """Return the network in a NIR file."""
    root = file.root
    if root is None:
        raise FormatError("the HDF5 file has no NIR graph (need a group 'node' with a 'type').")
    if file.text(root, "type") != "NIRGraph":
        raise FormatError(f"its node is a {quote(file.text(root, 'type'))} (need a NIRGraph).")
    graph = _read_graph(file, root, MAX_DEPTH)
    metadata = file.group(root, "metadata")
    entry = None if metadata is None else file.group(metadata, ENTRY)
    told = {"format": "NIR", "version": file.version}
    if entry is None:
        return _Reader(graph).to_model(name, reading, told)
    if not reading.says_nothing:
        raise FormatError(
            "the file says itself what the network reads, and its steps are exact. Leave "
            "input_scale, input_range and assume_sharp out."
        )
    model = restored(file, entry, graph)
    if model is not None:
        return model
    reader = _Reader(graph)
    reader.builder.remarks.append(
        "the nodes are not those that the file's description gives: read from the nodes alone"
    )
    spec = described_input(file, entry, reader.builder.input_shape)
    readout = described_readout(file, entry)
    return reader.to_model(file.text(entry, "name"), reading, told, spec, readout)


def _read_graph(file: NirFile, group: Any, depth: int) -> NirGraph:
    if not depth:
        raise FormatError(f"graphs stand in graphs more than {MAX_DEPTH} deep.")
    nodes = file.group(group, "nodes")
    if nodes is None:
        raise FormatError("a graph has no 'nodes'.")
    found: dict[str, Node | NirGraph] = {}
    for name in file.names(nodes):
        try:
            found[name] = _read_node(file, file.group(nodes, name), depth)
        except FormatError as error:
            raise FormatError(f"node {quote(name)}: {error}") from None
    return NirGraph(found, file.pairs(group, "edges"))


def _read_node(file: NirFile, group: Any, depth: int) -> Node | NirGraph:
    kind = file.text(group, "type")
    if kind == "NIRGraph":
        return _read_graph(file, group, depth - 1)
    if kind in _NO_COUNTERPART:
        raise FormatError(f"a {kind} cannot be read: {_NO_COUNTERPART[kind]}.")
    if kind not in _FIELDS:
        raise FormatError(f"type {quote(kind)} is unknown; known: {', '.join(_FIELDS)}.")
    optional = [k for k in _OPTIONAL.get(kind, ()) if file.child(group, k) is not None]
    values = {key: file.value(group, key) for key in (*_FIELDS[kind], *optional)}
    metadata = file.group(group, "metadata") if kind == "IF" else None
    if metadata is not None and file.child(metadata, FIRES_AT) is not None:
        return Node(kind, values, {FIRES_AT: file.array(metadata, FIRES_AT)})
    return Node(kind, values)


@dataclass(eq=False)
class _Reader:
    """Adds the nodes to a `Graph`, each after those that feed it."""

    graph: NirGraph
    builder: Graph = field(init=False)
    _nodes: dict[str, Node] = field(default_factory=dict)
    _edges: list[tuple[str, str]] = field(default_factory=list)
    _feeds: dict[str, list[str]] = field(default_factory=dict)
    _values: dict[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self._input, self._output) = self._unfold(self.graph, "")
        self._feeds = {name: [] for name in self._nodes}
        for source, target in self._edges:
            if source in self._feeds[target]:
                raise FormatError(
                    f"the edge {quote(source)} -> {quote(target)} stands there twice."
                )
            self._feeds[target].append(source)
        shape = whole_numbers(self._nodes[self._input], "shape")
        self.builder = Graph(shape)

    def to_model(
        self,
        name: str,
        reading: Reading,
        told: dict[str, Any],
        spec: Any = None,
        readout: Mapping[str, Any] | None = None,
    ) -> Model:
        for node in self._order():
            try:
                self._values[node] = self._add(node, self._nodes[node])
            except FormatError as error:
                where = f"node {quote(node)}"
                text = str(error) if str(error).startswith(where) else f"{where}: {error}"
                raise FormatError(text) from None
        output = self._values[self._output]
        if readout:
            output = self.builder.decode(output, **readout)
        return self.builder.to_model(name, output, reading, input_spec=spec, metadata=told)

    def _unfold(self, graph: NirGraph, prefix: str) -> tuple[str, str]:
        """Add the nodes of a graph and of those in it; return its Input and Output."""
        ends: dict[str, tuple[str, str]] = {}
        for name, node in graph.nodes.items():
            if isinstance(node, NirGraph):
                ends[name] = self._unfold(node, f"{prefix}{name}/")
            else:
                self._nodes[prefix + name] = node
                ends[name] = (prefix + name, prefix + name)
        for source, target in graph.edges:
            for name in (source, target):
                if name not in ends:
                    raise FormatError(f"an edge names {quote(name)}, which is no node.")
            self._edges.append((ends[source][1], ends[target][0]))
        of_type = {
            kind: [n for n, v in graph.nodes.items() if isinstance(v, Node) and v.type == kind]
            for kind in ("Input", "Output")
        }
        for kind, names in of_type.items():
            if len(names) != 1:
                where = f"graph {quote(prefix[:-1])}: it" if prefix else "the graph"
                raise FormatError(f"{where} has {len(names)} nodes of type {kind} (need 1).")
        return prefix + of_type["Input"][0], prefix + of_type["Output"][0]

    def _order(self) -> list[str]:
        """Return the nodes that lead to the output, each after those that feed it."""
        needed, waiting = {self._output}, [self._output]
        while waiting:
            for source in self._feeds[waiting.pop()]:
                if source not in needed:
                    needed.add(source)
                    waiting.append(source)
        position = {name: i for i, name in enumerate(self._nodes)}
        ordered = sorted(needed, key=position.__getitem__)
        sorter = graphlib.TopologicalSorter({n: self._feeds[n] for n in ordered})
        try:
            return list(sorter.static_order())
        except graphlib.CycleError as error:
            circle = " -> ".join(map(repr, error.args[1][:8]))
            raise FormatError(
                f"nodes form a circle: {circle}. Recurrent networks cannot be loaded."
            ) from None

    def _add(self, name: str, node: Node) -> Value:
        """Add what a node computes."""
        build, values = self.builder, node.values
        if name == self._input:
            if self._feeds[name]:
                raise FormatError("the Input of the whole graph reads another node.")
            return build.input
        x = self._sum(name)
        match node.type:
            case "Input" | "Output":
                return self._checked(x, node)
            case "Affine" | "Linear":
                return self._affine(name, x, node)
            case "Scale":
                return build.scale_and_shift(name, x, scale=fitting(node, "scale", x))
            case "Conv1d" | "Conv2d":
                return self._conv(name, x, node)
            case "SumPool2d" | "AvgPool2d":
                return self._pool(name, x, node)
            case "Flatten":
                return self._flatten(name, x, node)
            case "Threshold":
                threshold, one = fitting(node, "threshold", x), np.ones((), np.float32)
                return self._fires(name, x, one, threshold, True, "NIR Threshold: x > threshold")
            case _:
                return self._integrate_and_fire(name, x, node, values)

    def _sum(self, name: str) -> Value:
        """Return what reaches a node: the sum over its edges."""
        sources = [self._values[source] for source in self._feeds[name]]
        if not sources:
            raise FormatError("no edge leads to it.")
        return self.builder.add(f"{name}_sum", sources)

    def _checked(self, x: Value, node: Node) -> Value:
        shape = whole_numbers(node, "shape")
        if shape != x.shape:
            raise FormatError(f"it has shape {shape}; what reaches it has {x.shape}.")
        return x

    def _affine(self, name: str, x: Value, node: Node) -> Value:
        weight = floats(node, "weight")
        bias = floats(node, "bias") if "bias" in node.values else None
        if weight.ndim != 2 or x.rank != 1:
            raise FormatError(
                f"weight has shape {weight.shape} and what reaches it {x.shape} (need two axes and "
                "one). Put a Flatten before it."
            )
        return self.builder.dense(name, x, np.ascontiguousarray(weight.T), bias)

    def _conv(self, name: str, x: Value, node: Node) -> Value:
        n_axes = 1 if node.type == "Conv1d" else 2
        weight = floats(node, "weight")
        if weight.ndim != n_axes + 2 or x.rank != n_axes + 1:
            raise FormatError(
                f"weight has shape {weight.shape} and what reaches it {x.shape} (need "
                f"{n_axes + 2} and {n_axes + 1} axes, channels first)."
            )
        strides = per_axis(node, "stride", n_axes)
        (groups,) = per_axis(node, "groups", 1)
        return self.builder.conv(
            name,
            x,
            np.ascontiguousarray(np.moveaxis(weight, (0, 1), (-1, -2))),
            floats(node, "bias"),
            channel_axis=0,
            strides=strides,
            padding=padding_of(node, n_axes, strides),
            dilation=per_axis(node, "dilation", n_axes),
            groups=groups,
        )

    def _pool(self, name: str, x: Value, node: Node) -> Value:
        if x.rank != 3:
            raise FormatError(f"what reaches it has shape {x.shape} (need channels and two axes).")
        size = per_axis(node, "kernel_size", 2)
        strides = per_axis(node, "stride", 2)
        padding = padding_of(node, 2, strides)
        if node.type == "AvgPool2d":
            return self.builder.average_pool(
                name, x, size, strides, padding, channel_axis=0, count_padding=True
            )
        if x.shape[0] * math.prod(size) > MAX_UNITS:
            raise FormatError(f"its window {size} is too large for {x.shape[0]} channels.")
        ones = np.ones((*size, x.shape[0], 1), np.float32)
        return self.builder.depthwise(
            name, x, ones, channel_axis=0, strides=strides, padding=padding
        )

    def _flatten(self, name: str, x: Value, node: Node) -> Value:
        start, end = (number(node, key) for key in ("start_dim", "end_dim"))
        first, last = (v + x.rank if v < 0 else v for v in (start, end))
        if not 0 <= first <= last < x.rank:
            raise FormatError(
                f"it flattens axes {start} to {end} of shape {x.shape} (axes of one sample, "
                "counted from 0)."
            )
        middle = math.prod(x.shape[first : last + 1])
        return self.builder.reshape(name, x, (*x.shape[:first], middle, *x.shape[last + 1 :]))

    def _integrate_and_fire(
        self, name: str, x: Value, node: Node, values: Mapping[str, Any]
    ) -> Value:
        if "v_reset" in values and np.any(floats(node, "v_reset")):
            raise FormatError(
                "v_reset is not 0, so that a sample depends on the one before it (need 0)."
            )
        resistance = fitting(node, "r", x)
        threshold, strict = fitting(node, "v_threshold", x), True
        written_as = "NIR IF: r * x > v_threshold"
        fires_at = node.metadata.get(FIRES_AT)
        if fires_at is not None and _is_below(threshold, fires_at):
            threshold, strict = np.asarray(fires_at), False
            written_as = f"NIR IF just below {fires_at}, so that a tie fires"
        return self._fires(name, x, resistance, threshold, strict, written_as)

    def _fires(
        self,
        name: str,
        x: Value,
        resistance: NDArray[Any],
        threshold: NDArray[Any],
        strict: bool,
        written_as: str,
    ) -> Value:
        """Add a step at ``resistance * x``, or a max pool if it is one."""
        pooled = self._as_max_pool(name, resistance, threshold, strict)
        if pooled is not None:
            return pooled
        if (resistance != 1).any():
            self.builder.remarks.append(
                f"node {quote(name)}: r is not 1; v = r * x after one timestep of length 1"
            )
            x = self.builder.scale_and_shift(f"{name}_r", x, scale=resistance)
        return self._step(name, x, threshold, strict, written_as)

    def _step(
        self, name: str, x: Value, threshold: NDArray[Any], strict: bool, written_as: str
    ) -> Value:
        """Add a step whose threshold may differ from unit to unit."""
        first = threshold.ravel()[0]
        if (threshold != first).any():
            x = self.builder.scale_and_shift(f"{name}_threshold", x, shift=-threshold)
            first = 0.0
        return self.builder.step(name, x, float(first), strict=strict, written_as=written_as)

    def _as_max_pool(
        self, name: str, resistance: NDArray[Any], threshold: NDArray[Any], strict: bool
    ) -> Value | None:
        """Return a max pool, if the node fires for one spike or more under a window."""
        source = self._feeds[name][0]
        window = window_of(self._nodes[source])
        if window is None or len(self._feeds[name]) + len(self._feeds[source]) != 2:
            return None
        x = self._values[self._feeds[source][0]]
        if x.rank != 3 or not self.builder.holds_spikes(x.name):
            return None
        one = window.value * resistance
        fires_for_one = (one > threshold) if strict else (one >= threshold)
        rests_for_none = (threshold >= 0) if strict else (threshold > 0)
        is_inside = all(max(p) < k for p, k in zip(window.padding, window.size, strict=True))
        if not (fires_for_one.all() and rests_for_none.all() and is_inside):
            return None
        return self.builder.max_pool(
            name, x, window.size, window.strides, window.padding, channel_axis=0
        )


def _is_below(threshold: NDArray[Any], fires_at: NDArray[Any]) -> bool:
    """Return whether a threshold is the float32 below the one that fires."""
    if fires_at.dtype != np.float32 or fires_at.shape != ():
        return False
    return bool((threshold == np.nextafter(fires_at, np.float32(-np.inf))).all())
