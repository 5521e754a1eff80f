"""What the NIR writer is made of: values, nodes not written yet, and the geometry of windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim import layers as L
from whetsim.errors import FormatError
from whetsim.layers import Shape

__all__ = [
    "Floats",
    "Index",
    "Op",
    "Value",
    "channels_first",
    "float32",
    "geometry",
    "map_index",
    "map_value",
    "n_cells",
    "per_unit",
    "ungrouped",
    "wide",
    "wide_bias",
    "with_padding",
]

Floats = NDArray[np.float64]
Index = NDArray[np.int64]

_SQUARES = 8
"""How many sizes of a square kernel are tried."""


@dataclass(frozen=True, eq=False)
class Op:
    """An Affine or Conv2d that is not written yet, so that a batch norm can still be folded in.

    Parameters
    ----------
    name : str
    sources : tuple of str
        Nodes whose sum it reads.
    weight : float64 array (outputs, inputs) or (outputs, inputs, kernel height, kernel width)
    bias : float64 array (outputs,)
    stride, dilation : (int, int)
    padding : (int, int)
        The same before and behind.
    input_shape : tuple of int
        Of the map that it reads.
    """

    name: str
    sources: tuple[str, ...]
    weight: Floats
    bias: Floats
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    input_shape: Shape = ()

    @property
    def is_conv(self) -> bool:
        return self.weight.ndim == 4


@dataclass(frozen=True, eq=False)
class Value:
    """What a layer makes: a sum of nodes and of what is not written yet.

    Parameters
    ----------
    parts : tuple of str or Op
    shape : tuple of int
        In whetsim, channels last.
    nir_shape : tuple of int
        In NIR, channels first, or flat.
    index : int array
        Unit ``index[i]`` of whetsim is unit i of NIR.
    is_binary : bool
        Whether every unit is 0 or 1.
    """

    parts: tuple[str | Op, ...]
    shape: Shape
    nir_shape: Shape
    index: Index
    is_binary: bool = False


def per_unit(layer: L.BatchNorm, x: Value) -> tuple[Floats, Floats]:
    """Return scale and shift of a batch norm in x's shape in NIR."""
    scale, shift = layer.scale_and_shift()
    channel = x.index % len(scale)
    return scale[channel].reshape(x.nir_shape), shift[channel].reshape(x.nir_shape)


def channels_first(shape: Shape) -> Shape:
    h, w, channels = shape
    return channels, h, w


def map_index(shape: Shape) -> Index:
    """Return which unit of a map is unit i of it with its channels first."""
    h, w, channels = shape
    return np.arange(h * w * channels).reshape(shape).transpose(2, 0, 1).ravel()


def map_value(op: Op, shape: Shape) -> Value:
    return Value((op,), shape, channels_first(shape), map_index(shape))


def ungrouped(layer: L.Conv2D) -> Floats:
    """Return the kernel as (outputs, inputs, height, width), with zeros between groups."""
    grouped = wide(layer.weight.transpose(3, 2, 0, 1))
    n_out, per_in, *kernel = grouped.shape
    if layer.groups == 1:
        return grouped
    weight = np.zeros((n_out, per_in * layer.groups, *kernel))
    per_out = n_out // layer.groups
    for g in range(layer.groups):
        part = slice(g * per_out, (g + 1) * per_out)
        weight[part, g * per_in : (g + 1) * per_in] = grouped[part]
    return weight


def geometry(
    layer: L.Pool | L.GlobalMaxPool2D, shape: Shape
) -> tuple[tuple[int, int], tuple[int, int], L.ExplicitPadding]:
    """Return size, stride and padding of the window of a pool."""
    h, w, _ = shape
    if isinstance(layer, L.GlobalMaxPool2D):
        return (h, w), (1, 1), ((0, 0), (0, 0))
    (kh, kw), (sh, sw) = layer.pool_size, layer.steps
    return (kh, kw), (sh, sw), layer.explicit_padding((h, w))


def n_cells(layer: L.Pool | L.GlobalMaxPool2D, shape: Shape) -> Index:
    """Return how many cells of the map each place of the window sees."""
    size, stride, padding = geometry(layer, shape)
    counts = []
    for n, k, s, (before, after) in zip(shape[:2], size, stride, padding, strict=True):
        start = np.arange((n + before + after - k) // s + 1) * s - before
        counts.append(np.minimum(start + k, n) - np.maximum(start, 0))
    cells: Index = counts[0][:, None] * counts[1]
    return cells


def with_padding(
    op: Op, padding: L.ExplicitPadding, spend: Callable[[int], None]
) -> tuple[Op, bool]:
    """Return a convolution with this padding, and whether its kernel stayed as it was.

    NIR pads both sides alike, and the package nir takes every kernel for a square. Where that does
    not fit, zeros around the kernel make it larger so that its places see the same cells.
    """
    n_out, n_in, kh, kw = op.weight.shape
    if kh == kw and all(before == after for before, after in padding):
        return replace(op, padding=(padding[0][0], padding[1][0])), True
    dh, dw = op.dilation
    span = ((kh - 1) * dh + 1, (kw - 1) * dw + 1)
    axes = list(zip(op.input_shape, span, op.stride, padding, strict=True))
    smallest = max(span)
    ways = [[_zeros(k, *axis) for axis in axes] for k in range(smallest, smallest + _SQUARES)]
    # Not every pair of axes can have the same size: least zeros then.
    least = [_zeros(k + abs(p[0] - p[1]), n, k, s, p) for n, k, s, p in axes]
    rows, columns = next((way for way in ways if None not in way), least)
    assert rows is not None and columns is not None
    spend(n_out * n_in * (span[0] + sum(rows[:2])) * (span[1] + sum(columns[:2])))
    spread = np.zeros((n_out, n_in, *span))
    spread[:, :, ::dh, ::dw] = op.weight
    weight = np.pad(spread, ((0, 0), (0, 0), rows[:2], columns[:2]))
    return replace(op, weight=weight, dilation=(1, 1), padding=(rows[2], columns[2])), False


def _zeros(
    size: int, n: int, span: int, stride: int, padding: tuple[int, int]
) -> tuple[int, int, int] | None:
    """Return zeros before and behind a kernel, and the padding of both sides, if there are any.

    They make a kernel of `span` cells one of `size`, with as many places on a map of n cells.
    """
    places = (n + sum(padding) - span) // stride
    for before in range(size - span + 1):
        both = padding[0] + before
        room = n + 2 * both - size
        if room >= 0 and room // stride == places:
            return before, size - span - before, both
    return None


def wide(array: NDArray[Any]) -> Floats:
    return np.ascontiguousarray(array, dtype=np.float64)


def wide_bias(bias: L.FloatArray | None, n: int) -> Floats:
    return np.zeros(n) if bias is None else wide(bias)


def float32(array: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(array, dtype=np.float32).reshape(array.shape)
    if not np.isfinite(narrow).all():
        raise FormatError("it has a value that is too large for float32, which NIR files hold.")
    return narrow
