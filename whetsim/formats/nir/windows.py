"""Windows that add up the spikes under them: sum pools, average pools, and such convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.formats.graph import Pads
from whetsim.formats.nir.file import Node
from whetsim.formats.nir.parameters import floats, padding_of, per_axis

__all__ = ["Window", "window_of"]


@dataclass(frozen=True)
class Window:
    """A window that adds up its cells, each channel by itself, each cell times `value`."""

    size: tuple[int, int]
    strides: tuple[int, ...]
    padding: Pads
    value: float


def window_of(node: Node) -> Window | None:
    """Return the window of a pool, or of a convolution that is nothing else."""
    if node.type in ("SumPool2d", "AvgPool2d"):
        kh, kw = per_axis(node, "kernel_size", 2)
        strides = per_axis(node, "stride", 2)
        padding = padding_of(node, 2, strides)
        value = 1.0 if node.type == "SumPool2d" else 1 / (kh * kw)
        return None if isinstance(padding, str) else Window((kh, kw), strides, padding, value)
    if node.type != "Conv2d" or np.any(node.values["bias"]):
        return None
    weight = floats(node, "weight")
    strides = per_axis(node, "stride", 2)
    padding = padding_of(node, 2, strides)
    plain = per_axis(node, "dilation", 2) == (1, 1) and per_axis(node, "groups", 1) == (1,)
    if isinstance(padding, str) or not plain or weight.ndim != 4:
        return None
    return _diagonal_window(weight, strides, padding)


def _diagonal_window(
    weight: NDArray[Any], strides: tuple[int, ...], padding: Pads
) -> Window | None:
    """Return the window of a kernel that has one value in a rectangle, for equal channels alone."""
    n_out, n_in, height, width = weight.shape
    if n_out != n_in or not weight.size:
        return None
    value = weight[0, 0].max()
    ys, xs = (np.nonzero((weight[0, 0] != 0).any(axis=axis))[0] for axis in (1, 0))
    if value <= 0 or not ys.size:
        return None
    (top, bottom), (left, right) = (ys[0], ys[-1] + 1), (xs[0], xs[-1] + 1)
    kernel = np.zeros((height, width))
    kernel[top:bottom, left:right] = value
    channels = np.arange(n_out)
    diagonal = weight[channels, channels]
    if not (diagonal == kernel).all() or np.count_nonzero(weight) != np.count_nonzero(diagonal):
        return None
    (before_y, after_y), (before_x, after_x) = padding
    # Rows of zeros around the rectangle take back as much of the padding.
    pads = (
        (before_y - int(top), after_y - int(height - bottom)),
        (before_x - int(left), after_x - int(width - right)),
    )
    if min(min(pair) for pair in pads) < 0:
        return None
    return Window((int(bottom - top), int(right - left)), strides, pads, float(value))
