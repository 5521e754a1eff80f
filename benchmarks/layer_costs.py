"""Multiply-adds of the artificial network, counted the way papers count them."""

from __future__ import annotations

import math

from whetsim import layers as L
from whetsim.model import Model

__all__ = ["multiply_adds"]


def multiply_adds(model: Model) -> dict[str, int]:
    """Return the dense multiply-adds of one sample that lead to each spiking layer.

    Every weight counts at every place it is used, zeros and padding included; batch norm is folded
    away, and pooling, adding and comparing are no multiply-adds. An affine layer counts for the
    first step that its result reaches.

    Parameters
    ----------
    model : Model

    Returns
    -------
    dict
        Name of the step layer to a count. Affine layers that reach no step are under their own
        name.
    """
    reaches: dict[str, str] = {}
    for layer in reversed(model.layers):
        owner = layer.name if isinstance(layer, L.Step) else reaches.get(layer.name, layer.name)
        for source in layer.inputs:
            # Layers are visited from the back, so the earliest reader is the last to write.
            reaches[source] = owner
    result: dict[str, int] = {}
    for layer in model.layers:
        count = _own(layer, model)
        if count:
            owner = reaches.get(layer.name, layer.name)
            result[owner] = result.get(owner, 0) + count
    return result


def _own(layer: L.Layer, model: Model) -> int:
    source, target = model.shapes[layer.inputs[0]], model.shapes[layer.name]
    match layer:
        case L.Dense():
            return int(layer.weight.size)
        case L.Conv2D():
            return math.prod(target[:2]) * int(layer.weight.size)
        case L.DepthwiseConv2D():
            return math.prod(target[:2]) * int(layer.weight.size)
        case L.Conv2DTranspose():
            return math.prod(source[:2]) * int(layer.weight.size)
    return 0
