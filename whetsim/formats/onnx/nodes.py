"""Nodes of an ONNX graph: their attributes, and short stable names for what they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import FormatError, quote
from whetsim.formats.onnx.file import Tensors

__all__ = ["Attributes", "Label", "labels"]

MAX_INTS = 64
"""Longest list of numbers in an attribute: no operator has more axes."""


class Attributes:
    """The attributes of one node, each checked for its type when it is asked for.

    Parameters
    ----------
    node : NodeProto
    tensors : Tensors
        Makes arrays of those that are tensors.
    bound : mapping
        Attributes of the function the node is in, by name.
    """

    def __init__(self, node: Any, tensors: Tensors, bound: Mapping[str, Any]) -> None:
        self._tensors = tensors
        self._protos: dict[str, Any] = {}
        for proto in node.attribute:
            if proto.ref_attr_name:
                if proto.ref_attr_name in bound:
                    self._protos[proto.name] = bound[proto.ref_attr_name]
            else:
                self._protos[proto.name] = proto

    def __contains__(self, name: str) -> bool:
        return name in self._protos

    @property
    def protos(self) -> Mapping[str, Any]:
        """The attributes as they are in the file."""
        return self._protos

    def _of_type(self, name: str, kind: int) -> Any:
        proto = self._protos.get(name)
        if proto is not None and proto.type != kind:
            raise FormatError(f"attribute {quote(name)} has the wrong type. The file is damaged.")
        return proto

    def integer(self, name: str, default: int = 0) -> int:
        """Return a whole number."""
        proto = self._of_type(name, 2)
        return default if proto is None else int(proto.i)

    def number(self, name: str, default: float) -> float:
        """Return a float32."""
        proto = self._of_type(name, 1)
        return default if proto is None else float(np.float32(proto.f))

    def text(self, name: str, default: str = "") -> str:
        """Return a text."""
        proto = self._of_type(name, 3)
        return default if proto is None else bytes(proto.s).decode("utf-8", "replace")

    def integers(self, name: str) -> tuple[int, ...] | None:
        """Return a list of whole numbers, or None."""
        proto = self._of_type(name, 7)
        if proto is None:
            return None
        if len(proto.ints) > MAX_INTS:
            raise FormatError(f"attribute {quote(name)} has {len(proto.ints)} numbers.")
        return tuple(int(v) for v in proto.ints)

    def tensor(self, name: str) -> NDArray[Any] | None:
        """Return a tensor, or None."""
        proto = self._of_type(name, 4)
        return None if proto is None else self._tensors.array(proto.t)

    def graph(self, name: str) -> Any:
        """Return a subgraph."""
        proto = self._of_type(name, 5)
        if proto is None:
            raise FormatError(f"attribute {quote(name)} is missing. The file is damaged.")
        return proto.g

    def constant(self) -> NDArray[Any]:
        """Return what a Constant holds."""
        tensor = self.tensor("value")
        if tensor is not None:
            return tensor
        for name, kind, key, dtype in _CONSTANTS:
            proto = self._of_type(name, kind)
            if proto is not None:
                return np.array(getattr(proto, key), dtype)
        raise FormatError("it holds neither a tensor nor numbers.")


_CONSTANTS = (
    ("value_float", 1, "f", np.float32),
    ("value_floats", 6, "floats", np.float32),
    ("value_int", 2, "i", np.int64),
    ("value_ints", 7, "ints", np.int64),
)


class Label(NamedTuple):
    """What layers made by a node are called.

    Parameters
    ----------
    name : str
        Of the layer.
    scope : str
        The module it stands in, empty for none.
    """

    name: str
    scope: str = ""


def labels(nodes: Iterable[Any], *, literal: bool = False) -> list[Label]:
    """Return a label for every node.

    Exporters call nodes '/block/conv/Conv' or 'model/conv/BiasAdd', or add the modules a node
    stands in. The last node of a module gets the module's name, other nodes that and their own.

    Parameters
    ----------
    nodes : iterable of NodeProto
    literal : bool
        Take the nodes' names as they are.
    """
    nodes = list(nodes)
    plain = [str(n.name or next(iter(n.output), "") or n.op_type) for n in nodes]
    if literal:
        return [_as_written(node, name) for node, name in zip(nodes, plain, strict=True)]
    split = [_split(node, name) for node, name in zip(nodes, plain, strict=True)]
    scopes = _without_common_start([scope for scope, _ in split])
    last = {scope: i for i, scope in enumerate(scopes) if scope}
    result = []
    for i, (scope, (_, own)) in enumerate(zip(scopes, split, strict=True)):
        name = scope if last.get(scope) == i else ".".join(part for part in (scope, own) if part)
        result.append(Label(name, scope))
    return result


def _as_written(node: Any, name: str) -> Label:
    """Return the label of a node in a file of whetsim, which writes some layers as two nodes."""
    if node.op_type.startswith("Global"):
        return Label(name.removesuffix("/map"))
    # The comparison "x/fires" and its cast "x" are one step.
    return Label(name, name.removesuffix("/fires"))


def _split(node: Any, name: str) -> tuple[str, str]:
    """Return the modules a node stands in, joined by dots, and its own name."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            scopes = [part.strip(" '\"") for part in entry.value.strip("[] ").split(",")]
            # The last is the node itself, each other holds the one before it.
            inner = scopes[-2] if len(scopes) > 1 else ""
            return inner, name.removeprefix("node_")
    *scope, own = name.split(":", maxsplit=1)[0].strip("/").split("/")
    return ".".join(scope), own


_SCOPES = "pkg.torch.onnx.name_scopes"


def _without_common_start(scopes: list[str]) -> list[str]:
    """Leave out the model's own name, if every scope begins with it."""
    while True:
        used = [scope.split(".") for scope in scopes if scope]
        first = {parts[0] for parts in used}
        if len(first) != 1 or any(len(parts) == 1 for parts in used):
            return scopes
        start = first.pop() + "."
        scopes = [scope.removeprefix(start) for scope in scopes]
