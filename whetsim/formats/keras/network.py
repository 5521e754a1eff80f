"""From the configuration of a Keras network to a graph: each call in turn, networks in networks."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TypeVar

from whetsim.errors import FormatError, did_you_mean, quote
from whetsim.formats.graph import Value
from whetsim.formats.keras.config import Call, LayerConfig, Network, Ref
from whetsim.formats.keras.context import Context, Kind, Scores
from whetsim.formats.keras.layers import AFFINE
from whetsim.formats.keras.settings import Settings
from whetsim.formats.keras.spiking import ACTIVATIONS, activated
from whetsim.formats.keras.weights import Roles
from whetsim.model import MAX_LAYERS

__all__ = ["NetworkReader", "roles_of"]

Result = Value | Scores
T = TypeVar("T")

KINDS: dict[str, Kind] = {**AFFINE, **ACTIVATIONS}
PASSIVE = (
    "InputLayer",
    "Dropout",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "AlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "ActivityRegularization",
    "Identity",
)
"""Kinds that do nothing once training is over."""

_ADVICE = {
    "Lambda": "it holds code, which whetsim never runs. Put layers of Keras in its place.",
    "TFOpLambda": "it is an operator on tensors. Use a layer such as Add or Rescaling.",
    "SlicingOpLambda": "it is an operator on tensors. Use layers of Keras in its place.",
    "TimeDistributed": "it wraps a layer for each time step. Use the layer on the whole input.",
    "Bidirectional": "it is recurrent, and one sample is one pass here.",
    "RNN": "it is recurrent, and one sample is one pass here.",
    "LSTM": "it is recurrent, and one sample is one pass here.",
    "GRU": "it is recurrent, and one sample is one pass here.",
    "SimpleRNN": "it is recurrent, and one sample is one pass here.",
    "ConvLSTM2D": "it is recurrent, and one sample is one pass here.",
    "LayerNormalization": "it depends on the sample. Train with BatchNormalization.",
    "GroupNormalization": "it depends on the sample. Train with BatchNormalization.",
    "UnitNormalization": "it depends on the sample. Train with BatchNormalization.",
    "Multiply": "a product of two values has no exact form as spikes.",
    "Dot": "a product of two values has no exact form as spikes.",
    "Maximum": "use MaxPooling, or Add before a step.",
    "Minimum": "use Add before a step.",
}


def roles_of(layer: LayerConfig) -> Roles:
    """Return which weights a layer has."""
    if layer.kind in PASSIVE:
        return Roles()
    return _kind_of(layer).roles(Settings(layer))


class NetworkReader:
    """Adds the calls of a network to a graph.

    Parameters
    ----------
    context : Context
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._n_calls = 0
        self._precisions: set[str] = set()

    def run(self, network: Network, inputs: Sequence[Result]) -> list[Result]:
        """Add all calls of a network on given inputs; return its outputs.

        Raises
        ------
        FormatError
            If a call reads what nobody makes, or a layer cannot be expressed; the text names it.
        """
        values: dict[Ref, Result] = dict(zip(network.inputs, inputs, strict=True))
        readers: dict[tuple[str, int], list[int]] = {}
        missing = []
        for i, call in enumerate(network.calls):
            sources = {(ref.layer, ref.call) for ref in call.inputs if ref not in values}
            missing.append(len(sources))
            for source in sources:
                readers.setdefault(source, []).append(i)
        # Of those that are ready, the first in the file comes next.
        ready = [i for i, n in enumerate(missing) if not n]
        while ready:
            call = network.calls[heapq.heappop(ready)]
            for number, result in enumerate(self._results(network, call, values)):
                values[Ref(call.layer, call.index, number)] = result
            for i in readers.get((call.layer, call.index), ()):
                missing[i] -= 1
                if not missing[i]:
                    heapq.heappush(ready, i)
        return [_value(ref, values) for ref in network.outputs]

    def _results(self, network: Network, call: Call, values: dict[Ref, Result]) -> list[Result]:
        """Return what one call makes."""
        self._n_calls += 1
        if self._n_calls > MAX_LAYERS:
            raise FormatError(f"the network uses its layers more than {MAX_LAYERS} times.")
        layer = network.layers[call.layer]
        inputs = [_value(ref, values) for ref in call.inputs]
        if layer.network is not None:
            _refuse_options(layer, call)
            return self._inner(layer, layer.network, inputs)
        if layer.kind in PASSIVE:
            _refuse_options(layer, call)
            return [_single(layer, inputs)]
        kind = _kind_of(layer)
        _refuse_options(layer, call)
        self._note_precision(layer)
        for value in inputs:
            if isinstance(value, Scores):
                raise FormatError(
                    f"layer {quote(layer.full_name)}: it reads the softmax of "
                    f"{quote(value.layer)}, which has no form as spikes except as the last layer."
                )
        plain = [value for value in inputs if isinstance(value, Value)]
        if kind.join is not None:
            if len(plain) < 2:
                raise FormatError(
                    f"layer {quote(layer.full_name)}: it has {len(plain)} inputs (need 2 or more)."
                )
            return [kind.join(self._context, layer, plain)]
        return [self._built(layer, kind, _single(layer, plain))]

    def _note_precision(self, layer: LayerConfig) -> None:
        """Say once if layers computed with numbers other than those of here."""
        name = layer.config.get("dtype")
        while isinstance(name, dict):
            name = name.get("config") if "config" in name else name.get("name")
        if isinstance(name, str) and name != "float32" and name not in self._precisions:
            self._precisions.add(name)
            self._context.graph.remarks.append(
                f"layer {layer.full_name!r} was trained in {name[:40]!r}; it is computed here from "
                "its saved weights in float32 and more, so that units near their threshold may "
                "differ"
            )

    def _built(self, layer: LayerConfig, kind: Kind, x: Value) -> Result:
        assert kind.build is not None
        result = kind.build(self._context, layer, x)
        if layer.kind in AFFINE and isinstance(result, Value):
            return activated(self._context, layer, result)
        return result

    def _inner(
        self, layer: LayerConfig, network: Network, inputs: Sequence[Result]
    ) -> list[Result]:
        if len(inputs) != len(network.inputs):
            raise FormatError(
                f"layer {quote(layer.full_name)}: it is called with {len(inputs)} inputs (need "
                f"{len(network.inputs)})."
            )
        for value, shape in zip(inputs, network.input_shapes, strict=True):
            given = value.shape if isinstance(value, Value) else value.value.shape
            if shape is not None and None not in shape and tuple(shape) != given:
                raise FormatError(
                    f"layer {quote(layer.full_name)}: its input has shape {given} (need "
                    f"{tuple(shape)})."
                )
        return self.run(network, inputs)


def _kind_of(layer: LayerConfig) -> Kind:
    if layer.kind in KINDS:
        return KINDS[layer.kind]
    package, _, name = layer.kind.rpartition(">")
    if package:
        advice = (
            "it is a class of its author, whose code is not in the file. For steps, use "
            "Spiking_BRelu of Whetstone or SpikingBReLU of whetsim, or write the network as ONNX."
        )
    else:
        advice = _ADVICE.get(name) or (
            f"it has no exact form here.{did_you_mean(name, KINDS)} Replace it, or write the "
            "network as ONNX."
        )
    raise FormatError(
        f"layer {quote(layer.full_name)}: a layer of kind {quote(layer.kind)} cannot be loaded: "
        f"{advice}"
    )


def _refuse_options(layer: LayerConfig, call: Call) -> None:
    for key, value in call.options.items():
        if value is None or value is False:
            continue
        advice = (
            "Call it without, so that it does in use what it did when it was tested."
            if key == "training"
            else "Use layers alone, such as Rescaling for a constant."
        )
        raise FormatError(
            f"layer {quote(layer.full_name)}: it is called with {key} = {quote(value)} (need "
            f"none). {advice}"
        )


def _value(ref: Ref, values: dict[Ref, Result]) -> Result:
    if ref not in values:
        raise FormatError(
            f"nothing makes output {ref.tensor} of call {ref.call} of layer {quote(ref.layer)}, "
            "which is read. The file is damaged, or layers form a circle."
        )
    return values[ref]


def _single(layer: LayerConfig, inputs: Sequence[T]) -> T:
    if len(inputs) != 1:
        raise FormatError(
            f"layer {quote(layer.full_name)}: it is called with {len(inputs)} inputs (need 1)."
        )
    return inputs[0]
