"""What stands behind the last step of a network: reordered spikes, or affine class scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim import layers as L
from whetsim.formats.value import Value
from whetsim.layers import Shape
from whetsim.model import Readout
from whetsim.reference import compute

__all__ = ["affine_tail", "behind_moves", "holds_spikes"]

BLOCK_VALUES = 2**22
MAX_VALUES = 2**31
"""Values that are computed to find a readout at most, some seconds' work."""

_MOVES = (
    L.Flatten,
    L.Reshape,
    L.Permute,
    L.Upsample2D,
    L.ZeroPad2D,
    L.Concat,
)
_KEEPS_SPIKES = (*_MOVES, L.MaxPool, L.GlobalMaxPool2D)
_AFFINE = (
    *_MOVES,
    L.Dense,
    L.Convolution,
    L.DepthwiseConv2D,
    L.Conv2DTranspose,
    L.AveragePool,
    L.GlobalAveragePool2D,
    L.BatchNorm,
    L.Add,
)


def holds_spikes(layers: Mapping[str, L.Layer], name: str) -> bool:
    """Return whether nothing but zeros and ones come out of a layer."""
    waiting, seen = [name], {name}
    while waiting:
        layer = layers.get(waiting.pop())
        if isinstance(layer, L.Step):
            continue
        if not isinstance(layer, _KEEPS_SPIKES):
            return False
        waiting.extend(i for i in layer.inputs if i not in seen)
        seen.update(layer.inputs)
    return True


def behind_moves(
    layers: Mapping[str, L.Layer], shapes: Mapping[str, Shape], x: Value
) -> tuple[str, NDArray[np.int64]]:
    """Return the layer whose units x only reorders, and which of them each unit of x is."""
    name, units = x.name, x.units()
    while isinstance(layer := layers.get(name), (L.Flatten, L.Reshape, L.Permute)):
        name = layer.inputs[0]
        if isinstance(layer, L.Permute):
            places = np.arange(x.size).reshape(1, *shapes[name])
            units = compute(layer, [places]).ravel()[units]
    return name, units


def affine_tail(
    layers: Mapping[str, L.Layer], shapes: Mapping[str, Shape], output: str, remarks: list[str]
) -> tuple[Readout, str] | None:
    """Return the affine layers behind the last spikes as a readout, and the layer that it reads.

    None if other layers stand there. If they are affine and still make no readout, a remark says
    why.

    Parameters
    ----------
    layers : mapping
        Each layer follows its inputs.
    shapes : mapping
        Shapes of what they make, and of the input.
    output : str
        The layer that makes the scores.
    remarks : list of str
        Where a remark goes.
    """
    found = _tail_and_ends(layers, output)
    if found is None:
        return None
    tail, ends = found
    shape = shapes[output]
    if max(shape) != math.prod(shape):
        remarks.append(f"{output!r} makes numbers of shape {shape}, which are no class scores")
        return None
    if len(ends) > 1:
        remarks.append(
            f"{output!r} reads {len(ends)} layers of spikes: {', '.join(map(repr, sorted(ends)))}; "
            "class scores are read from one"
        )
        return None
    (end,) = ends
    n = math.prod(shapes[end])
    per_sample = n + sum(math.prod(shapes[layer.name]) for layer in tail)
    if n * per_sample > MAX_VALUES:
        remarks.append(f"what makes {output!r} of {end!r} is too large for a readout")
        return None
    n_rows = max(1, BLOCK_VALUES // per_sample)
    # Sums that overflow make a readout that is refused by name.
    with np.errstate(over="ignore", invalid="ignore"):
        offset = _run(tail, end, output, np.zeros((1, *shapes[end])))[0]
        weight = np.empty((n, len(offset)))
        # Unit by unit, from the definition of each layer: no second way to fold them.
        for start in range(0, n, n_rows):
            rows = np.arange(start, min(start + n_rows, n))
            units = np.zeros((len(rows), n))
            units[np.arange(len(rows)), rows] = 1.0
            weight[rows] = _run(tail, end, output, units.reshape(-1, *shapes[end])) - offset
        # scores = s @ weight + offset, written with 2 s - 1 as readouts are.
        return Readout(decoder=weight / 2, bias=offset + weight.sum(axis=0) / 2), end


def _tail_and_ends(
    layers: Mapping[str, L.Layer], output: str
) -> tuple[list[L.Layer], set[str]] | None:
    """Return the affine layers in front of `output`, in order, and the spikes that they read."""
    tail: set[str] = set()
    ends: set[str] = set()
    waiting, seen = [output], {output}
    while waiting:
        name = waiting.pop()
        layer = layers.get(name)
        if isinstance(layer, _AFFINE):
            tail.add(name)
            waiting.extend(i for i in layer.inputs if i not in seen)
            seen.update(layer.inputs)
        elif holds_spikes(layers, name):
            ends.add(name)
        else:
            return None
    return [layer for name, layer in layers.items() if name in tail], ends


def _run(tail: list[L.Layer], end: str, output: str, spikes: NDArray[Any]) -> NDArray[np.float64]:
    """Return what `output` makes of the spikes of `end`, flattened."""
    values = {end: spikes}
    for layer in tail:
        values[layer.name] = compute(layer, [values[i] for i in layer.inputs])
    result: NDArray[np.float64] = values[output].reshape(len(spikes), -1)
    return result
