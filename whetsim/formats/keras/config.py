"""The configuration of a Keras model, checked: which layers it has, and what each one reads.

A sequential model becomes a functional one whose layers read each other in a row. Two notations of
calls are known: lists ``[layer, call, tensor, options]`` of Keras 2, and objects with arguments in
which ``keras_history`` names the source, of Keras 3.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from whetsim.errors import FormatError, quote
from whetsim.model import MAX_LAYERS

__all__ = ["MODELS", "Call", "LayerConfig", "Network", "Ref", "parse_json", "parse_model"]

MODELS = ("Sequential", "Functional", "Model")
"""Kinds of layers that are networks themselves."""
SAME_NAME_ANYWHERE = ("Spiking_BRelu", "Spiking_Sigmoid", "Softmax_Decode")
"""Kinds that are known whichever package registered them: users copy Whetstone's layers."""
MAX_DEPTH = 16
"""How deep networks may lie inside each other."""

_KERAS = ("keras", "tf_keras", "tensorflow")
_WORD_BEGINS = re.compile(r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True)
class Ref:
    """One of the tensors that come out of one call of a layer."""

    layer: str
    call: int
    tensor: int


@dataclass(frozen=True)
class Call:
    """One use of a layer.

    Parameters
    ----------
    layer : str
    index : int
        How many calls of this layer come before.
    inputs : tuple of Ref
    options : mapping
        Arguments that are no tensors.
    """

    layer: str
    index: int
    inputs: tuple[Ref, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class LayerConfig:
    """A layer as configured.

    Parameters
    ----------
    scope : tuple of str
        Names of the networks around it, without the outermost, and its own.
    kind : str
        Name of its class, with its package if it is not one of Keras' own: ``package>Class``.
    config : mapping
    group : str
        What the group of its weights is called in a .keras file, before it is numbered: its class
        in snake case. Empty for what is no layer of its own there.
    network : Network, optional
        What is inside a layer that is a network.
    """

    scope: tuple[str, ...]
    kind: str
    config: Mapping[str, Any]
    group: str = ""
    network: Network | None = None

    @property
    def name(self) -> str:
        """Its own name."""
        return self.scope[-1]

    @property
    def full_name(self) -> str:
        """Its name behind those of the networks around it."""
        return "/".join(self.scope)

    @property
    def trainable(self) -> bool:
        """Whether its weights are written among the trainable ones."""
        return self.config.get("trainable") is not False


@dataclass(frozen=True, eq=False)
class Network:
    """Layers and their calls.

    Parameters
    ----------
    layers : dict
        By name, in the order of the file.
    calls : tuple of Call
    inputs, outputs : tuple of Ref
    input_shapes : tuple
        Shape of a sample for each input, None where the file does not say it.
    """

    layers: Mapping[str, LayerConfig]
    calls: tuple[Call, ...]
    inputs: tuple[Ref, ...]
    outputs: tuple[Ref, ...]
    input_shapes: tuple[Any, ...]


def parse_json(text: str | bytes, what: str) -> dict[str, Any]:
    """Return a JSON object.

    Raises
    ------
    FormatError
        If it is none, or nested too deep.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise FormatError(f"{what} is nested too deep.") from None
    except ValueError as error:
        reason = " ".join(str(error).split())[:120]
        raise FormatError(f"{what} is not JSON ({reason}). The file is damaged.") from None
    return _object(value, what)


def parse_model(entry: Mapping[str, Any]) -> Network:
    """Return the network of a whole model's configuration."""
    kind = _kind(entry)
    if kind not in MODELS:
        raise FormatError(
            f"the model is of the class {quote(kind)}; need Sequential or Functional, whose "
            "layers the file lists. Build it with keras.Sequential or keras.Model(inputs, outputs)."
        )
    return _network(entry, kind, (), 0)


def plain(value: Any) -> Any:
    """Return lists and numbers without the objects in which Keras wraps tuples and arrays."""
    if isinstance(value, dict):
        for key in ("items", "value", "config"):
            if key in value:
                return plain(value[key])
    return value


def _network(entry: Mapping[str, Any], kind: str, scope: tuple[str, ...], depth: int) -> Network:
    if depth > MAX_DEPTH:
        raise FormatError(f"networks lie inside each other more than {MAX_DEPTH} deep.")
    config = entry.get("config")
    if isinstance(config, list):
        config = {"layers": config}
    config = _object(config, f"the configuration of {_where(scope)}")
    entries = [_object(e, "a layer") for e in _list(config.get("layers"), "layers")]
    if len(entries) > MAX_LAYERS:
        raise FormatError(f"the network has {len(entries)} layers (need <= {MAX_LAYERS}).")
    layers = _layers(entries, scope, depth, sequential=kind == "Sequential")
    if kind == "Sequential":
        return _in_a_row(layers, config, entry)
    return _functional(entries, layers, config)


def _layers(
    entries: Sequence[Mapping[str, Any]], scope: tuple[str, ...], depth: int, *, sequential: bool
) -> dict[str, LayerConfig]:
    layers: dict[str, LayerConfig] = {}
    for entry in entries:
        kind = _kind(entry)
        raw = entry.get("config")
        own = _object({} if isinstance(raw, list) else raw, "a layer's configuration")
        name = own.get("name", entry.get("name"))
        if not isinstance(name, str) or not name:
            raise FormatError(f"a layer of kind {quote(kind)} has no name.")
        if name in layers:
            raise FormatError(f"layer {quote(name)}: the name is used twice. Rename one.")
        inner = (*scope, name)
        group = _WORD_BEGINS.sub("_", re.sub(r"\W+", "", kind.rpartition(">")[2])).lower()
        if _is_operation(entry) or (sequential and kind == "InputLayer"):
            group = ""
        network = _network(entry, kind, inner, depth + 1) if kind in MODELS else None
        layers[name] = LayerConfig(inner, kind, own, group, network)
    return layers


def _in_a_row(
    layers: dict[str, LayerConfig], config: Mapping[str, Any], entry: Mapping[str, Any]
) -> Network:
    first = last = Ref("", 0, 0)
    calls = []
    for name in layers:
        calls.append(Call(name, 0, (last,)))
        last = Ref(name, 0, 0)
    build = entry.get("build_config")
    shapes = [_declared_shape(layer) for layer in list(layers.values())[:1]]
    shapes.append(_sample_shape(config.get("build_input_shape")))
    shapes.append(_sample_shape(build.get("input_shape") if isinstance(build, dict) else None))
    shape = next((s for s in shapes if s is not None), None)
    return Network(layers, tuple(calls), (first,), (last,), (shape,))


def _functional(
    entries: Sequence[Mapping[str, Any]],
    layers: dict[str, LayerConfig],
    config: Mapping[str, Any],
) -> Network:
    calls = []
    objects = False
    for entry, layer in zip(entries, layers.values(), strict=True):
        nodes = _list(entry.get("inbound_nodes", []), f"layer {quote(layer.name)}: inbound_nodes")
        objects |= any(isinstance(node, dict) for node in nodes)
        calls += [_call(layer, i, node) for i, node in enumerate(nodes)]
    outputs = _refs(config.get("output_layers"), "output_layers")
    inputs = _refs(config.get("input_layers"), "input_layers")
    n_calls = Counter(call.layer for call in calls)
    first = _first_calls(layers, calls, outputs, objects)

    def counted(ref: Ref, first_of: Mapping[str, int]) -> Ref:
        if ref.layer not in layers:
            raise FormatError(f"layer {quote(ref.layer)} is read, but it is not in the file.")
        # With a single call there is nothing to choose, and files differ in what they count.
        index = 0 if n_calls[ref.layer] <= 1 else ref.call - first_of.get(ref.layer, 0)
        return Ref(ref.layer, index, ref.tensor)

    in_calls = {} if objects else first
    calls = [
        Call(c.layer, c.index, tuple(counted(r, in_calls) for r in c.inputs), c.options)
        for c in calls
    ]
    shapes = tuple(_declared_shape(layers[r.layer]) if r.layer in layers else None for r in inputs)
    return Network(
        layers,
        tuple(calls),
        tuple(counted(ref, first) for ref in inputs),
        tuple(counted(ref, first) for ref in outputs),
        shapes,
    )


def _first_calls(
    layers: Mapping[str, LayerConfig],
    calls: Sequence[Call],
    outputs: Sequence[Ref],
    objects: bool,
) -> dict[str, int]:
    """Return at which number the calls of inner networks begin to be counted.

    Keras 2 counts a network's own input as call 0, unless it was built without one; every call
    that a file keeps is read, so the smallest number tells. Keras 3 does so for a functional
    network, and only where it names the outputs.
    """
    if objects:
        return {k: 1 for k, layer in layers.items() if layer.kind in ("Functional", "Model")}
    first: dict[str, int] = {}
    for ref in [*outputs, *(r for call in calls for r in call.inputs)]:
        if ref.layer in layers and layers[ref.layer].network is not None:
            first[ref.layer] = min(first.get(ref.layer, ref.call), ref.call)
    return first


def _call(layer: LayerConfig, index: int, node: Any) -> Call:
    where = f"layer {quote(layer.name)}: inbound_nodes"
    if isinstance(node, dict):
        options = dict(_object(node.get("kwargs") or {}, where))
        tensors = list(_tensors(node.get("args"), options))
        if "inputs" in options and not tensors:
            tensors = list(_tensors(options.pop("inputs"), options))
        return Call(layer.name, index, tuple(tensors), options)
    node = _list(node, where)
    if node and isinstance(node[0], str):
        node = [node]
    refs: list[Ref] = []
    given: dict[str, Any] = {}
    for item in node:
        refs.append(_ref(item, where))
        if len(item) > 3:
            given.update(_object(item[3], where))
    return Call(layer.name, index, tuple(refs), given)


def _tensors(value: Any, options: dict[str, Any]) -> Iterator[Ref]:
    """Yield the tensors among arguments; other arguments are added to the options."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item, options)
    elif isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        config = _object(value.get("config"), "a tensor")
        yield _ref(config.get("keras_history"), "a tensor")
    elif value is not None:
        options[f"argument {len(options)}"] = value


def _refs(value: Any, what: str) -> list[Ref]:
    """Return the tensors of a list, a list of lists, or of one alone."""
    value = _list(list(value.values()) if isinstance(value, dict) else value, what)
    if value and isinstance(value[0], str):
        return [_ref(value, what)]
    return [ref for item in value for ref in _refs(item, what)]


def _ref(value: Any, where: str) -> Ref:
    if (
        not isinstance(value, list)
        or len(value) not in (3, 4)
        or not isinstance(value[0], str)
        or any(type(v) is not int or not 0 <= v <= MAX_LAYERS for v in value[1:3])
    ):
        raise FormatError(f"{where}: {quote(value)} names no tensor (need [layer, call, tensor]).")
    return Ref(value[0], value[1], value[2])


def _declared_shape(layer: LayerConfig) -> Any:
    """Return the shape of a sample that the first layer of a network says it reads."""
    if layer.network is not None and layer.network.input_shapes:
        return layer.network.input_shapes[0]
    for key in ("batch_shape", "batch_input_shape"):
        shape = _sample_shape(layer.config.get(key))
        if shape is not None:
            return shape
    return plain(layer.config.get("input_shape"))


def _sample_shape(batch_shape: Any) -> Any:
    shape = plain(batch_shape)
    return shape[1:] if isinstance(shape, list) and shape else None


def _kind(entry: Mapping[str, Any]) -> str:
    name = entry.get("class_name")
    if not isinstance(name, str) or not name or len(name) > 200:
        raise FormatError(f"a layer's class is missing (got {quote(name)}).")
    registered, module = entry.get("registered_name"), entry.get("module")
    if isinstance(registered, str) and ">" in registered:
        name = registered
    elif isinstance(module, str) and module.partition(".")[0] not in _KERAS and ">" not in name:
        # Another's class may have the name of one of Keras' own.
        name = f"{module}>{name}"
    short = name.rpartition(">")[2]
    return short if short in SAME_NAME_ANYWHERE else name


def _is_operation(entry: Mapping[str, Any]) -> bool:
    """Return whether an entry is an operator such as ``x + y``, which is no layer in Keras 3."""
    return str(entry.get("module")).startswith(("keras.src.ops", "keras.ops"))


def _where(scope: tuple[str, ...]) -> str:
    return f"layer {quote('/'.join(scope))}" if scope else "the model"


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"{what} must be an object (got {type(value).__name__}).")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise FormatError(f"{what} must be a list (got {type(value).__name__}).")
    return value
