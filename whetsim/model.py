"""`Model`: the trained network as loaded, a graph of named layers. Floats, unchanged."""

from __future__ import annotations

import graphlib
import heapq
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.errors import FormatError, did_you_mean, quote
from whetsim.layers import Layer, Shape, finite

__all__ = ["INPUT", "InputSpec", "Model", "Readout"]

INPUT = "input"
"""The name by which layers refer to the input of the network."""

MAX_UNITS = 2**24
"""Largest number of values in a sample or of units in a layer."""
MAX_ALL_UNITS = 2**27
"""Largest number of units in all layers together."""
MAX_LAYERS = 10_000


@dataclass(frozen=True)
class InputSpec:
    """What the network reads: whole numbers in ``low..high``, worth ``scale`` each.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample.
    low, high : int
        Smallest and largest value; an 8-bit image is 0..255.
    scale : float
        What the first layer was trained with is ``sample * scale``; for an 8-bit image 1/255.
    """

    shape: Shape
    low: int = 0
    high: int = 1
    scale: float = 1.0

    def __post_init__(self) -> None:
        shape = self.shape
        if not isinstance(shape, (tuple, list)) or not 1 <= len(shape) <= 16:
            raise FormatError(f"input: shape must have 1 to 16 axes (got {quote(shape)}).")
        for value in (*shape, self.low, self.high):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise FormatError(
                    f"input: shape and range must be whole numbers (got {quote(value)})."
                )
        if min(shape) < 1 or math.prod(shape) > MAX_UNITS:
            raise FormatError(f"input: shape {tuple(shape)} is empty or larger than {MAX_UNITS}.")
        if not -(2**24) <= self.low < self.high <= 2**24:
            raise FormatError(
                f"input: range {self.low}..{self.high} must be rising and within +-2^24."
            )
        object.__setattr__(self, "scale", finite(self.scale, "input: scale"))
        if self.scale <= 0:
            raise FormatError(f"input: scale must be positive (got {self.scale}).")
        object.__setattr__(self, "shape", tuple(int(v) for v in shape))
        object.__setattr__(self, "low", int(self.low))
        object.__setattr__(self, "high", int(self.high))

    @property
    def size(self) -> int:
        """Number of values in one sample."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Readout:
    """How output spikes become classes: ``scores = (2 s - 1) @ matrix + bias``, the largest wins.

    Parameters
    ----------
    key : array (classes, outputs) of 0 and 1, optional
        n-hot code of each class; the matrix is then ``(2 key - 1).T``.
    decoder : array (outputs, classes) of float, optional
        A matrix that was trained along; used as it is, in float64.
    bias : array (classes,) of float, optional
        With a decoder alone; none by default.

    Raises
    ------
    FormatError
        Unless exactly one of the two is given, with sensible contents.
    """

    key: NDArray[np.uint8] | None = None
    decoder: NDArray[np.float64] | None = None
    bias: NDArray[np.float64] | None = None
    matrix: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if (self.key is None) == (self.decoder is None):
            raise FormatError("readout: need either a key or a decoder.")
        if self.key is not None:
            key = np.asarray(self.key)
            if key.ndim != 2 or 0 in key.shape:
                raise FormatError(
                    f"readout: key has shape {key.shape}; expected (classes, outputs)."
                )
            if key.dtype.kind not in "buif" or not np.isin(key, (0, 1)).all():
                raise FormatError("readout: key must hold 0 and 1 alone.")
            key = key.astype(np.uint8)
            key.flags.writeable = False
            object.__setattr__(self, "key", key)
            matrix = 2.0 * key.T - 1.0
        else:
            matrix = np.array(self.decoder)
            if matrix.dtype.kind != "f" or matrix.ndim != 2 or 0 in matrix.shape:
                raise FormatError(
                    f"readout: decoder is {matrix.dtype} of shape {matrix.shape}; expected "
                    "floats (outputs, classes)."
                )
            if not np.isfinite(matrix).all():
                raise FormatError("readout: decoder holds NaN or infinite values.")
            decoder = matrix.copy()
            decoder.flags.writeable = False
            object.__setattr__(self, "decoder", decoder)
            matrix = matrix.astype(np.float64)
        matrix.flags.writeable = False
        object.__setattr__(self, "matrix", matrix)
        self._check_bias()

    def _check_bias(self) -> None:
        if self.bias is None:
            return
        bias = np.array(self.bias)
        if self.decoder is None:
            raise FormatError("readout: a bias needs a decoder; a key has none.")
        if bias.dtype.kind != "f" or bias.shape != (self.n_classes,):
            raise FormatError(
                f"readout: bias is {bias.dtype} of shape {bias.shape}; expected floats "
                f"({self.n_classes},)."
            )
        if not np.isfinite(bias).all():
            raise FormatError("readout: bias holds NaN or infinite values.")
        bias.flags.writeable = False
        object.__setattr__(self, "bias", bias)

    @property
    def n_outputs(self) -> int:
        """Number of output neurons that are decoded."""
        return int(self.matrix.shape[0])

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.matrix.shape[1])

    def scores(self, spikes: ArrayLike) -> NDArray[np.float64]:
        """Return the class scores ``(n_samples, n_classes)`` of 0/1 outputs ``(n_samples, n)``."""
        signs: NDArray[np.float64] = 2.0 * np.asarray(spikes, dtype=np.float64) - 1.0
        # einsum without BLAS: the same sum order whatever the number of samples, so a
        # decoder of real numbers cannot score a sample differently in another block.
        scores: NDArray[np.float64] = np.einsum("so,oc->sc", signs, self.matrix, optimize=False)
        return scores if self.bias is None else scores + self.bias.astype(np.float64)


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network: a graph of named layers, its input and its readout.

    Parameters
    ----------
    name : str
        Shown in messages and tables.
    input : InputSpec
        Shape, range and scale of a sample.
    layers : iterable of Layer
        In any order; stored in an order in which every layer follows its inputs.
    output : str, optional
        Name of the layer whose values are the result; the last of `layers` by default.
    readout : Readout, optional
        How the output is decoded into classes.
    metadata : mapping, optional
        Anything that JSON can hold: how it was trained, with what result.

    Raises
    ------
    FormatError
        If names repeat or are unknown, layers form a circle, shapes do not fit, or a layer leads
        nowhere.
    """

    name: str
    input: InputSpec
    layers: tuple[Layer, ...]
    output: str = ""
    readout: Readout | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, Shape] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not 1 <= len(self.name) <= 200:
            raise FormatError("the model's name must be a text of 1 to 200 characters.")
        if not self.name.isprintable():
            raise FormatError(f"the model's name must be printable (got {quote(self.name)}).")
        layers = tuple(self.layers)
        if not layers:
            raise FormatError("the model has no layers.")
        if len(layers) > MAX_LAYERS:
            raise FormatError(f"the model has {len(layers)} layers (need <= {MAX_LAYERS}).")
        by_name = _by_name(layers)
        output = self.output or layers[-1].name
        if output not in by_name:
            raise FormatError(
                f"the output {quote(output)} is no layer of the model."
                f"{did_you_mean(output, by_name)}"
            )
        order = _sorted(layers, by_name)
        shapes = _shapes(order, self.input.shape)
        _refuse_dead_ends(order, output)
        if self.readout is not None and self.readout.n_outputs != math.prod(shapes[output]):
            raise FormatError(
                f"readout: it decodes {self.readout.n_outputs} outputs; the output layer "
                f"{output!r} has {math.prod(shapes[output])}."
            )
        try:
            metadata = json.loads(json.dumps(dict(self.metadata), allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise FormatError(f"metadata: must be plain JSON values ({error}).") from None
        object.__setattr__(self, "layers", order)
        object.__setattr__(self, "output", output)
        object.__setattr__(self, "shapes", MappingProxyType(shapes))
        object.__setattr__(self, "metadata", MappingProxyType(metadata))

    def __repr__(self) -> str:
        spec, size = self.input, f"{len(self.layers)} layers, {self.n_parameters:,} parameters"
        return f"Model({self.name!r}: {size}, reads {spec.shape} of {spec.low}..{spec.high})"

    def __getitem__(self, name: str) -> Layer:
        """Return the layer called `name`."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        return sum(layer.n_parameters for layer in self.layers)


def _by_name(layers: Iterable[Layer]) -> dict[str, Layer]:
    by_name: dict[str, Layer] = {}
    for layer in layers:
        if layer.name == INPUT:
            raise FormatError(f"layer {INPUT!r}: this name is kept for the input. Rename it.")
        if layer.name in by_name:
            raise FormatError(f"layer {layer.name!r}: the name is used twice. Rename one.")
        by_name[layer.name] = layer
    return by_name


def _sorted(layers: tuple[Layer, ...], by_name: Mapping[str, Layer]) -> tuple[Layer, ...]:
    for layer in layers:
        for source in layer.inputs:
            if source != INPUT and source not in by_name:
                raise FormatError(
                    f"layer {layer.name!r}: its input {quote(source)} is no layer of the model."
                    f"{did_you_mean(source, [INPUT, *by_name])}"
                )
    graph = {layer.name: [i for i in layer.inputs if i != INPUT] for layer in layers}
    sorter = graphlib.TopologicalSorter(graph)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        circle = " -> ".join(repr(n) for n in error.args[1][:8])
        raise FormatError(
            f"layers form a circle: {circle}. Recurrent networks cannot be loaded."
        ) from None
    # The earliest layer that is ready comes next, so that a sorted list keeps its order.
    position = {layer.name: i for i, layer in enumerate(layers)}
    ready: list[int] = []
    order: list[Layer] = []
    while sorter.is_active():
        for name in sorter.get_ready():
            heapq.heappush(ready, position[name])
        layer = layers[heapq.heappop(ready)]
        order.append(layer)
        sorter.done(layer.name)
    return tuple(order)


def _shapes(order: tuple[Layer, ...], input_shape: Shape) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {INPUT: input_shape}
    for layer in order:
        try:
            shape = layer.output_shape(*(shapes[i] for i in layer.inputs))
        except FormatError as error:
            raise FormatError(f"layer {layer.name!r}: {error}") from None
        if not 1 <= math.prod(shape) <= MAX_UNITS:
            raise FormatError(
                f"layer {layer.name!r}: its output has shape {shape} (need 1 to {MAX_UNITS} units)."
            )
        shapes[layer.name] = shape
    total = sum(math.prod(shape) for shape in shapes.values())
    if total > MAX_ALL_UNITS:
        raise FormatError(f"the layers have {total} units in all (need <= {MAX_ALL_UNITS}).")
    return shapes


def _refuse_dead_ends(order: tuple[Layer, ...], output: str) -> None:
    needed = {output}
    for layer in reversed(order):
        if layer.name in needed:
            needed.update(layer.inputs)
    for layer in order:
        if layer.name not in needed:
            raise FormatError(
                f"layer {layer.name!r}: it does not lead to the output {output!r}. Remove it, or "
                "make it the output."
            )
