"""The nodes and edges that the NIR writer has made so far."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from whetsim.errors import FormatError
from whetsim.formats.nir.file import NirGraph, Node
from whetsim.formats.nir.ops import Op, float32
from whetsim.layers import Shape

__all__ = ["OUTPUT", "NodeList"]

OUTPUT = "output"
"""Name of the node that everything leads to."""


@dataclass(eq=False)
class NodeList:
    """Nodes, each behind those that feed it.

    Parameters
    ----------
    limit : int
        How many weights and thresholds may still be made.
    """

    limit: int
    _nodes: dict[str, Node | NirGraph] = field(default_factory=dict)
    _edges: list[tuple[str, str]] = field(default_factory=list)
    _written: dict[Op, str] = field(default_factory=dict)

    @property
    def graph(self) -> NirGraph:
        """All of them."""
        return NirGraph(self._nodes, tuple(self._edges))

    def write(self, name: str, node: Node, sources: Iterable[str]) -> str:
        """Add a node that reads others, and return its name."""
        self._nodes[name] = node
        self._edges += [(source, name) for source in sources]
        return name

    def write_op(self, op: Op) -> str:
        """Add an Affine or Conv2d, unless it is there, and return its name."""
        if op in self._written:
            return self._written[op]
        self.spend(op.weight.size + op.bias.size)
        values: dict[str, Any] = {"weight": float32(op.weight), "bias": float32(op.bias)}
        if op.is_conv:
            pairs: dict[str, Shape] = {"input_shape": op.input_shape, "stride": op.stride}
            pairs |= {"padding": op.padding, "dilation": op.dilation}
            values |= {key: np.array(pair, np.int64) for key, pair in pairs.items()}
            values["groups"] = 1
        node = Node("Conv2d" if op.is_conv else "Affine", values)
        self._written[op] = self.write(self.fresh(op.name), node, op.sources)
        return self._written[op]

    def fresh(self, name: str) -> str:
        """Return a name that no node has, of letters, digits and underscores alone."""
        clean = re.sub(r"\W", "_", name, flags=re.ASCII)
        unique, count = clean, 1
        while unique in self._nodes or unique == OUTPUT:
            count += 1
            unique = f"{clean}_{count}"
        return unique

    def spend(self, n_values: int) -> None:
        """Take values off the limit, before they are made."""
        self.limit -= n_values
        if self.limit < 0:
            raise FormatError(
                "NIR would need too many weights for it: its convolutions join every channel with "
                "every other. Save the network as a native file or as ONNX."
            )
