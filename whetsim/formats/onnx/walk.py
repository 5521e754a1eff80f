"""Walks an ONNX graph backwards from its output: only what the output needs is read.

Constants are folded, branches with a constant condition and functions are followed, and what
depends on the input goes to the function that reads its operator. What cannot be expressed becomes
an error when the output depends on it, and not before: exporters leave remains of training behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from whetsim.errors import FormatError, quote
from whetsim.formats.onnx.activations import ACTIVATIONS
from whetsim.formats.onnx.arithmetic import ARITHMETIC
from whetsim.formats.onnx.call import Call, Operator
from whetsim.formats.onnx.comparisons import COMPARISONS
from whetsim.formats.onnx.crops import CROPS
from whetsim.formats.onnx.file import Tensors
from whetsim.formats.onnx.folding import FOLDING, MAX_ELEMENTS
from whetsim.formats.onnx.layers import LAYERS
from whetsim.formats.onnx.nodes import Attributes, Label, labels
from whetsim.formats.onnx.pools import POOLS
from whetsim.formats.onnx.shapes import SHAPES
from whetsim.formats.onnx.steps import Builder, Last, Refusal, Signal, Tensor

__all__ = ["Walk"]

ELEMENTWISE = {**ARITHMETIC, **COMPARISONS, **ACTIVATIONS}
OPERATORS: Mapping[str, Operator] = {**ELEMENTWISE, **LAYERS, **POOLS, **SHAPES, **CROPS}

MAX_NODES = 50_000
"""Largest number of nodes read, those in functions counted at every call."""
MAX_GROWTH = 16
"""How many times constants may be used or made anew, all in all, for each number in the file."""
MAX_DEPTH = 24
"""Deepest nesting of branches and functions."""

_ON_FINAL = ("ArgMax", "Cast", "Identity", "Squeeze")
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger")


@dataclass(eq=False)
class Scope:
    """A graph, a branch or the body of a function: names that mean a tensor.

    Parameters
    ----------
    nodes : sequence of NodeProto
    node_labels : list of Label
    values : dict
        Tensors known from the start, and those read so far.
    initializers : dict
        TensorProtos by name.
    parent : Scope, optional
        Where names are looked up that are not here.
    bound : mapping
        Attributes of a function's call.
    makers : dict
        Which node makes a tensor.
    """

    nodes: list[Any]
    node_labels: list[Label]
    values: dict[str, Tensor]
    initializers: Mapping[str, Any] = field(default_factory=dict)
    parent: Scope | None = None
    bound: Mapping[str, Any] = field(default_factory=dict)
    makers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for i, node in enumerate(self.nodes):
            for name in node.output:
                if name and self.makers.setdefault(name, i) != i:
                    raise FormatError(f"tensor {quote(name)} is made twice. The file is damaged.")


@dataclass(eq=False)
class Walk:
    """Reads what an output needs.

    Parameters
    ----------
    build : Builder
    tensors : Tensors
    functions : mapping
        FunctionProtos by domain and name.
    opset : int
    literal : bool
        Take the nodes' names as they are.
    """

    build: Builder
    tensors: Tensors
    functions: Mapping[tuple[str, str, str], Any]
    opset: int
    literal: bool = False
    _n_nodes: int = 0
    _n_given: int = 0
    _n_used: int = 0
    _depth: int = 0

    def scope_of(self, graph: Any, values: dict[str, Tensor], parent: Scope | None = None) -> Scope:
        """Return a GraphProto as a scope."""
        if graph.sparse_initializer:
            raise FormatError("sparse tensors are not supported. Export dense weights.")
        nodes = list(graph.node)
        initializers = {t.name: t for t in graph.initializer}
        bound = parent.bound if parent is not None else {}
        made = labels(nodes, literal=self.literal)
        return Scope(nodes, made, values, initializers, parent, bound)

    def tensor(self, scope: Scope, name: str) -> Tensor:
        """Return a tensor by its name, reading the nodes that make it."""
        found = self._known(scope, name)
        if found is not None:
            return found
        owner = _owner(scope, name)
        for index in self._needed(owner, name):
            self._read(owner, index)
        return owner.values[name]

    def _needed(self, scope: Scope, name: str) -> list[int]:
        """Return the nodes of a scope that must still be read for a tensor, in their order."""
        needed: set[int] = set()
        waiting = [scope.makers[name]]
        while waiting:
            index = waiting.pop()
            if index in needed:
                continue
            needed.add(index)
            makers = (scope.makers.get(n) for n in scope.nodes[index].input if n)
            new = [
                m
                for m in makers
                if m is not None and not any(o in scope.values for o in scope.nodes[m].output)
            ]
            if any(m >= index for m in new):
                raise FormatError(
                    f"node {quote(scope.node_labels[index].name)}: it needs what it makes itself, "
                    "or a later node. Recurrent networks cannot be loaded."
                )
            waiting.extend(new)
        return sorted(needed)

    def _known(self, scope: Scope, name: str) -> Tensor | None:
        here: Scope | None = scope
        while here is not None:
            if name in here.values:
                return here.values[name]
            if name in here.makers:
                return None
            if name in here.initializers:
                array = self.tensors.array(here.initializers[name])
                self._n_given += array.size
                here.values[name] = array
                return array
            here = here.parent
        raise FormatError(f"tensor {quote(name)} is made by no node. The file is damaged.")

    def _read(self, scope: Scope, index: int) -> None:
        """Read one node, whose inputs in its own scope are known."""
        node, label = scope.nodes[index], scope.node_labels[index]
        self._n_nodes += 1
        if self._n_nodes > MAX_NODES:
            raise FormatError(f"it takes more than {MAX_NODES} nodes. It is damaged or no network.")
        inputs = [self.tensor(scope, name) if name else None for name in node.input]
        for tensor in inputs:
            self._count(tensor)
        try:
            outputs = self._outputs(scope, node, label, inputs)
        except FormatError as error:
            text = str(error)
            if not text.startswith(("node ", "layer ")):
                text = f"node {quote(label.name)} ({quote(node.op_type)[1:-1]}): {text}"
            shape = next((t.shape for t in inputs if isinstance(t, Signal | Refusal)), None)
            known = shape if node.op_type in ELEMENTWISE else None
            outputs = [Refusal(FormatError(text), known)] * len(node.output)
        for name, tensor in zip(node.output, outputs, strict=False):
            if node.op_type == "Constant" and isinstance(tensor, np.ndarray):
                self._n_given += tensor.size
            self._count(tensor)
            scope.values[name] = tensor
        for name in node.output[len(outputs) :]:
            scope.values[name] = Refusal(
                FormatError(f"node {quote(label.name)}: output {quote(name)} is not supported.")
            )

    def _count(self, tensor: Tensor | None) -> None:
        """Refuse a file that makes much more of its constants than it holds."""
        if not isinstance(tensor, np.ndarray) or not any(tensor.strides):
            return
        self._n_used += tensor.size
        if self._n_used > MAX_GROWTH * self._n_given + MAX_ELEMENTS:
            raise FormatError(
                f"the constants of the file grow to more than {self._n_used} numbers. Export it "
                "with constants folded."
            )

    def _outputs(
        self, scope: Scope, node: Any, label: Label, inputs: list[Tensor | None]
    ) -> list[Tensor]:
        if not isinstance(node.op_type, str):
            # What is no Unicode comes out of the message as bytes.
            raise FormatError(f"operator {quote(node.op_type)} is no text. The file is damaged.")
        attributes = Attributes(node, self.tensors, scope.bound)
        key = (_domain(node), node.op_type, node.overload)
        if key in self.functions:
            return self._call_function(self.functions[key], label, inputs, attributes)
        if key[0]:
            raise FormatError(
                f"operator {quote(node.op_type)} of domain {quote(node.domain)} is not supported "
                "(need operators of ONNX itself). Export the network without custom operators."
            )
        if node.op_type == "If":
            return self._branch(scope, attributes, inputs)
        _check_arity(node, self.opset)
        call = Call(self.build, node.op_type, label, inputs, attributes, len(node.output))
        return _as_list(_perform(call))

    def _branch(
        self, scope: Scope, attributes: Attributes, inputs: list[Tensor | None]
    ) -> list[Tensor]:
        condition = inputs[0] if inputs else None
        if not isinstance(condition, np.ndarray) or condition.size != 1:
            raise FormatError("its condition depends on the input (need a constant one).")
        graph = attributes.graph("then_branch" if condition.reshape(()) else "else_branch")
        inner = self.scope_of(graph, {}, scope)
        return self._inside(inner, [output.name for output in graph.output])

    def _call_function(
        self,
        function: Any,
        label: Label,
        inputs: list[Tensor | None],
        attributes: Attributes,
    ) -> list[Tensor]:
        if len(inputs) > len(function.input):
            raise FormatError(f"function {quote(function.name)} takes fewer inputs.")
        bound = {proto.name: proto for proto in function.attribute_proto}
        bound.update(attributes.protos)
        values: dict[str, Tensor] = {
            name: tensor
            for name, tensor in zip(function.input, inputs, strict=False)
            if tensor is not None
        }
        missing = FormatError(f"function {quote(function.name)}: an input is missing.")
        for name in function.input:
            values.setdefault(name, Refusal(missing))
        nodes = list(function.node)
        inner = Scope(nodes, _inner_labels(nodes, label), values, bound=bound)
        return self._inside(inner, list(function.output))

    def _inside(self, scope: Scope, names: Iterable[str]) -> list[Tensor]:
        if self._depth >= MAX_DEPTH:
            raise FormatError(f"branches and functions are nested deeper than {MAX_DEPTH}.")
        self._depth += 1
        try:
            return [self.tensor(scope, name) for name in names]
        finally:
            self._depth -= 1


def _perform(call: Call) -> Any:
    """Return what an operator makes of its inputs."""
    op_type = call.op_type
    if op_type in ("Shape", "Size") or not any(
        isinstance(t, Signal | Refusal | Last) for t in call.inputs
    ):
        if op_type not in FOLDING:
            raise _unknown(op_type)
        return _guarded(FOLDING[op_type], call)
    if isinstance(call.inputs[0], Last) and op_type in _ON_FINAL[1:]:
        return call.inputs[0]
    if op_type not in OPERATORS:
        raise _unknown(op_type)
    return _guarded(OPERATORS[op_type], call)


def _check_arity(node: Any, opset: int) -> None:
    """Refuse a node with more or fewer inputs than its operator has."""
    from onnx.defs import SchemaError, get_schema

    try:
        schema = get_schema(node.op_type, opset, "")
    except SchemaError:
        raise _unknown(node.op_type) from None
    if not schema.min_input <= len(node.input) <= schema.max_input:
        raise FormatError(
            f"it has {len(node.input)} inputs (need {schema.min_input} to {schema.max_input}). "
            "The file is damaged."
        )


def _guarded(function: Any, call: Call) -> Any:
    """Call a function on what a file says; what numpy cannot do with it is the file's fault."""
    try:
        return function(call)
    except FormatError:
        raise
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise FormatError(f"its inputs do not fit together ({quote(str(error))}).") from None


def _unknown(op_type: str) -> FormatError:
    if op_type in _QUANTIZED or op_type.startswith("QLinear") or op_type.endswith("Integer"):
        return FormatError(
            "quantized operators are not supported. Export the network in floating point; "
            "whetsim quantizes for a chip by itself."
        )
    return FormatError(
        f"operator {quote(op_type)} is not supported: whetsim needs affine layers, pools and steps."
    )


def _as_list(result: Any) -> list[Tensor]:
    # Refusal and Last are tuples themselves.
    one = isinstance(result, Refusal | Last) or not isinstance(result, list | tuple)
    tensors = [result] if one else list(result)
    return [np.asarray(t) if isinstance(t, np.generic) else t for t in tensors]


def _owner(scope: Scope, name: str) -> Scope:
    here: Scope | None = scope
    while here is not None:
        if name in here.makers:
            return here
        here = here.parent
    raise FormatError(f"tensor {quote(name)} is made by no node. The file is damaged.")


def _domain(node: Any) -> str:
    return "" if node.domain == "ai.onnx" else str(node.domain)


def _inner_labels(nodes: list[Any], label: Label) -> list[Label]:
    """Return labels in a function, that stand in the module of its call."""
    scope = label.scope or label.name
    return [
        Label(label.name if i == len(nodes) - 1 else f"{label.name}.{own.name}", scope)
        for i, own in enumerate(labels(nodes))
    ]
