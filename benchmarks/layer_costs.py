"""Multiply-adds of the artificial network, counted the way papers count them."""

from __future__ import annotations

from whetsim import layers as L
from whetsim.model import Model
from whetsim.report import facts

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
    for name, count in facts.multiply_adds(model).items():
        owner = reaches.get(name, name)
        result[owner] = result.get(owner, 0) + count
    return result
