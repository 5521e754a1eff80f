"""From a trained, fully sharp Keras model to a whetsim `Model` and its native file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, final

import keras

from whetsim import layers as L
from whetsim.formats import save
from whetsim.model import INPUT, InputSpec, Model, Readout
from whetsim.sharpen.checks import TrainingError
from whetsim.sharpen.convert import convert, is_passive
from whetsim.sharpen.layers import SoftmaxDecode


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    input_scale: float,
    input_range: tuple[int, int] = (0, 255),
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Model:
    """Write a fully sharp Keras model to a native whetsim file.

    Parameters
    ----------
    model : keras.Model
        Sequential or functional, channels last, with one input and one output, that ends with a
        sharp activation, or with one and `SoftmaxDecode`.
    path : path-like
        File to write, by custom `*.safetensors`.
    input_scale : float
        What one unit of an integer sample is worth: 1/255 for a model that was trained on 8-bit
        images divided by 255.
    input_range : tuple of int
        Smallest and largest value of an integer sample.
    name : str, optional
        Name of the model; by default the Keras model's.
    metadata : mapping, optional
        Anything that JSON can hold; say how the network was trained and with what result.

    Returns
    -------
    whetsim.model.Model
        What was written. Layers keep their names, so the name of an activation becomes the name
        of its population of neurons.

    Raises
    ------
    TrainingError
        If an activation is not an exact step yet, or a layer has no counterpart; the text names
        the layer.
    FormatError
        If the scale, the range or the metadata cannot be written.

    Examples
    --------
    >>> export(model, "mnist.safetensors", input_scale=1 / 255)  # doctest: +SKIP
    """
    result = to_model(
        model, input_scale=input_scale, input_range=input_range, name=name, metadata=metadata
    )
    save(result, path)
    return result


def to_model(
    model: keras.Model,
    *,
    input_scale: float,
    input_range: tuple[int, int] = (0, 255),
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Model:
    """Return a fully sharp Keras model as a whetsim `Model`; see `export` for the parameters."""
    where = f"model '{model.name}'"
    if not model.built or not getattr(model, "outputs", None):
        raise TrainingError(
            f"{where}: it has no graph to export (need a Sequential or functional model). "
            "Start it with keras.Input(shape)."
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise TrainingError(
            f"{where}: it has {len(model.inputs)} inputs and {len(model.outputs)} outputs "
            "(need one of each)."
        )
    graph = _Graph()
    graph.names[id(model.inputs[0])] = INPUT
    output, readout = graph.add(model.outputs[0])
    if not _holds_spikes(graph, output):
        raise TrainingError(
            f"{where}: its output comes from '{output}', which has no spikes. End the model with "
            "SpikingBReLU, and SoftmaxDecode(key) behind it for classes."
        )
    low, high = input_range
    spec = InputSpec(_sample_shape(model.inputs[0], where), low, high, input_scale)
    return Model(
        name=name or str(model.name),
        input=spec,
        layers=tuple(graph.layers.values()),
        output=output,
        readout=readout,
        metadata=dict(metadata or {}),
    )


@final
class _Graph:
    """The layers found so far, and which of them makes which tensor."""

    def __init__(self) -> None:
        self.layers: dict[str, L.Layer] = {}
        self.names: dict[int, str] = {}
        self._readout: Readout | None = None

    def add(self, output: Any) -> tuple[str, Readout | None]:
        """Add all layers that a tensor needs; return the name of the one that makes it."""
        source, _, _ = output._keras_history
        if isinstance(source, SoftmaxDecode):
            self._readout = Readout(key=source.key)
            (output,) = _inputs(output)
        return self._add(output, prefix=""), self._readout

    def _add(self, output: Any, prefix: str) -> str:
        # A stack in place of recursion: networks may be deeper than Python's call stack.
        stack = [output]
        while stack:
            tensor = stack[-1]
            if id(tensor) in self.names:
                stack.pop()
                continue
            waiting = [t for t in _inputs(tensor) if id(t) not in self.names]
            if waiting:
                stack.extend(reversed(waiting))
                continue
            self.names[id(tensor)] = self._add_layer(tensor, prefix)
            stack.pop()
        return self.names[id(output)]

    def _add_layer(self, tensor: Any, prefix: str) -> str:
        layer, _, tensor_index = tensor._keras_history
        inputs = [self.names[id(t)] for t in _inputs(tensor)]
        name = prefix + str(layer.name)
        if isinstance(layer, keras.Model):
            return self._add_inner(layer, inputs, tensor_index, f"{name}/")
        if not isinstance(layer, keras.layers.Layer):
            raise TrainingError(
                f"operation '{name}': it is no layer (got {type(layer).__name__}; need layers "
                "alone). Use a layer for it: keras.layers.Add for +, Concatenate for joining."
            )
        if isinstance(layer, SoftmaxDecode):
            raise TrainingError(f"layer '{name}': SoftmaxDecode can only be the last layer.")
        if is_passive(layer) and len(inputs) == 1:
            return inputs[0]
        name = self._unused(name)
        shape = _sample_shape(tensor, f"layer '{name}'")
        self.layers[name] = convert(layer, name, inputs, shape)
        return name

    def _add_inner(self, inner: Any, inputs: list[str], index: int, prefix: str) -> str:
        """Add the layers of a model that is used as a layer."""
        if not getattr(inner, "outputs", None):
            raise TrainingError(
                f"layer '{prefix[:-1]}': it is a model without a graph. Make it functional."
            )
        outside = self.names
        # Its tensors exist once, however often it is used: each use has its own names for them.
        self.names = {id(t): n for t, n in zip(inner.inputs, inputs, strict=True)}
        try:
            return self._add(inner.outputs[index], prefix)
        finally:
            self.names = outside

    def _unused(self, name: str) -> str:
        """A layer that is used twice is two layers with equal weights."""
        new, count = name, 1
        while new in self.layers:
            count += 1
            new = f"{name}_use{count}"
        return new


def _inputs(tensor: Any) -> list[Any]:
    operation, node_index, _ = tensor._keras_history
    return list(operation._inbound_nodes[node_index].input_tensors)


def _sample_shape(tensor: Any, where: str) -> tuple[int, ...]:
    shape = tuple(tensor.shape[1:])
    if None in shape:
        raise TrainingError(
            f"{where}: its shape is not fixed (got {shape}). Give keras.Input all sizes."
        )
    return tuple(int(n) for n in shape)


def _holds_spikes(graph: _Graph, name: str) -> bool:
    """Return whether a layer passes spikes on unchanged: only zeros and ones reach the output."""
    layer = graph.layers.get(name)
    if isinstance(layer, L.Step):
        return True
    if isinstance(layer, _KEEP_SPIKES):
        return all(_holds_spikes(graph, source) for source in layer.inputs)
    return False


_KEEP_SPIKES = (
    L.MaxPool2D,
    L.GlobalMaxPool2D,
    L.Flatten,
    L.Reshape,
    L.Permute,
    L.Upsample2D,
    L.Concat,
)
