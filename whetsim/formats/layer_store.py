"""Layers read so far from a foreign file: under names of their own, and within the limits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any, final

from whetsim import layers as L
from whetsim.errors import FormatError, quote
from whetsim.layers import Shape
from whetsim.model import INPUT, MAX_ALL_UNITS, MAX_LAYERS, MAX_UNITS

__all__ = ["LayerStore", "clean_name"]


@final
class LayerStore:
    """Layers, each behind its inputs, and the shapes of what they make.

    Parameters
    ----------
    input_shape : tuple of int
    """

    def __init__(self, input_shape: Shape) -> None:
        self.layers: dict[str, L.Layer] = {}
        self.shapes: dict[str, Shape] = {INPUT: input_shape}
        self._counts: Counter[str] = Counter()
        self._moves: dict[tuple[Hashable, ...], str] = {}
        self._n_units = 0

    def add(self, kind: type[L.Layer], name: str, inputs: tuple[str, ...], **values: Any) -> str:
        """Add a layer and return its name, made unique."""
        if len(self.layers) >= MAX_LAYERS:
            raise FormatError(f"the network has more than {MAX_LAYERS} layers.")
        unique = self._unique(clean_name(name))
        layer = _with_zeros_before(kind(name=unique, inputs=inputs, **values), self.layers)
        try:
            shape = layer.output_shape(*(self.shapes[i] for i in layer.inputs))
        except FormatError as error:
            raise FormatError(f"layer {quote(unique)}: {error}") from None
        size = math.prod(shape)
        if not 1 <= size <= MAX_UNITS:
            raise FormatError(
                f"layer {quote(unique)}: its output has shape {shape} (need 1 to {MAX_UNITS} "
                "units)."
            )
        self._n_units += size
        if self._n_units > MAX_ALL_UNITS:
            raise FormatError(f"the layers have more than {MAX_ALL_UNITS} units in all.")
        self.layers[unique] = layer
        self.shapes[unique] = shape
        return unique

    def move(self, kind: type[L.Layer], source: str, what: str, **values: Any) -> str:
        """Return a layer that only moves the units of another, made once."""
        key = (kind, source, *values.values())
        if key not in self._moves:
            self._moves[key] = self.add(kind, f"{source}/{what}", (source,), **values)
        return self._moves[key]

    def leading_to(self, output: str) -> tuple[L.Layer, ...]:
        """Return the layers that lead to one, itself included."""
        needed = {output}
        for name in reversed(self.layers):
            if name in needed:
                needed.update(self.layers[name].inputs)
        return tuple(layer for name, layer in self.layers.items() if name in needed)

    def _unique(self, name: str) -> str:
        unique = name
        while unique == INPUT or unique in self.layers:
            self._counts[name] += 1
            unique = f"{name}_{self._counts[name] + 1}"
        return unique


def clean_name(name: str) -> str:
    """Return a name that a layer may have."""
    text = "".join(c if c.isprintable() else "_" for c in str(name))[:180]
    return text or "layer"


def _with_zeros_before(layer: L.Layer, layers: Mapping[str, L.Layer]) -> L.Layer:
    """Return a convolution whose own padding stands for the zeros that it reads, if it can."""
    while isinstance(layer, L.Conv2D) and layer.padding != "same":
        zeros = layers.get(layer.inputs[0])
        if not isinstance(zeros, L.ZeroPad2D):
            break
        own = ((0, 0), (0, 0)) if layer.padding == "valid" else layer.padding
        both = tuple((a + c, b + d) for (a, b), (c, d) in zip(own, zeros.padding, strict=True))
        layer = replace(layer, inputs=zeros.inputs, padding=both)
    return layer
