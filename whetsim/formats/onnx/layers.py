"""ONNX operators with weights: products, convolutions, batch norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import FormatError, quote
from whetsim.formats.graph import Value
from whetsim.formats.onnx.call import Call, Operator
from whetsim.formats.onnx.steps import Cells, Signal, Tensor, Uncut

__all__ = ["LAYERS", "Window", "window_of"]

Floats = NDArray[np.floating[Any]]
Pads = list[tuple[int, int]]


class Window:
    """The attributes of a window that slides over a map, one entry for each axis.

    Parameters
    ----------
    call : Call
    size : tuple of int
        Of the map.
    kernel : tuple of int
    """

    def __init__(self, call: Call, size: tuple[int, ...], kernel: tuple[int, ...]) -> None:
        n = len(size)
        self.size, self.kernel = size, kernel
        self.strides = _entries(call, "strides", n, 1)
        self.dilation = _entries(call, "dilations", n, 1)
        pads = _entries(call, "pads", 2 * n, 0)
        if len(kernel) != n or min(*kernel, *self.strides, *self.dilation) < 1 or min(pads) < 0:
            raise FormatError(
                f"kernel {quote(kernel)}, strides {quote(self.strides)}, dilations "
                f"{quote(self.dilation)} and pads {quote(pads)} make no window over {n} axes."
            )
        self.spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, self.dilation, strict=True))
        self.auto = call.attributes.text("auto_pad", "NOTSET")
        if self.auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
            raise FormatError(f"auto_pad {quote(self.auto)} is unknown.")
        self.pads: Pads = list(zip(pads[:n], pads[n:], strict=True))
        if self.auto == "VALID":
            self.pads = [(0, 0)] * n
        elif self.auto != "NOTSET":
            self.pads = [
                halves(max((-(-m // s) - 1) * s + span - m, 0), upper=self.auto == "SAME_UPPER")
                for m, s, span in zip(size, self.strides, self.spans, strict=True)
            ]


def halves(total: int, *, upper: bool) -> tuple[int, int]:
    """Return cells before and after; the odd one goes behind if `upper`."""
    return (total // 2, total - total // 2) if upper else (total - total // 2, total // 2)


def _entries(call: Call, name: str, n: int, missing: int) -> tuple[int, ...]:
    values = call.attributes.integers(name)
    if values is None:
        return (missing,) * n
    if len(values) != n:
        raise FormatError(f"{name} must have {n} entries (got {len(values)}).")
    return values


def window_of(call: Call, x: Value) -> Window:
    """Return the window of a pool over a map whose channels come first."""
    kernel = call.attributes.integers("kernel_shape")
    if kernel is None or x.rank < 2:
        raise FormatError(
            f"it needs kernel_shape and a map of channels and cells (got shape {x.shape})."
        )
    return Window(call, x.shape[1:], kernel)


def _gemm(call: Call) -> Tensor:
    at = call.attributes
    if at.integer("transA"):
        raise FormatError("it transposes its input, so samples would mix. Set transA to 0.")
    x = call.plain()
    weight = call.floats(1, "the weight")
    if weight.ndim != 2 or x.rank != 1:
        raise FormatError(
            f"it multiplies shapes {x.shape} and {weight.shape} (need a flat input and a matrix)."
        )
    weight = _times(weight.T if at.integer("transB") else weight, at.number("alpha", 1.0))
    bias = None
    if call.has(2) and at.number("beta", 1.0):
        bias = _times(_bias(call, weight.shape[1]), at.number("beta", 1.0))
    return call.made(call.build.graph.dense(call.name, x, np.ascontiguousarray(weight), bias))


def _times(array: Floats, factor: float) -> Floats:
    return array if factor == 1.0 else array.astype(np.float64) * factor


def _bias(call: Call, n: int) -> Floats:
    array = call.floats(2, "the bias")
    full = (call.build.batch, n)
    if array.ndim > 2 or np.broadcast_shapes(array.shape, full) != full:
        raise FormatError(f"the bias has shape {quote(array.shape)}; expected ({n},).")
    rows = np.broadcast_to(array, full)
    if not (rows == rows[:1]).all():
        raise FormatError("the bias differs from sample to sample.")
    first: Floats = rows[0]
    return first


def _matmul(call: Call) -> Tensor:
    first, second = call.tensor(0), call.tensor(1)
    if isinstance(first, Signal) and isinstance(second, Signal):
        raise FormatError(
            "it multiplies two tensors that both depend on the input (need one constant): "
            "attention is not affine."
        )
    graph = call.build.graph
    if isinstance(first, Signal):
        weight = _matrix(call.floats(1, "the weight"))
        return call.made(graph.dense(call.name, call.plain(), weight))
    weight = _matrix(call.floats(0, "the weight"))
    x = call.plain(1)
    if x.rank < 2:
        raise FormatError("its weight stands on the left, so samples would mix.")
    # weight @ x works along the last axis but one: turn that to the end and back.
    swap = (*range(x.rank - 2), x.rank - 1, x.rank - 2)
    turned = graph.transpose(x, swap)
    product = graph.dense(call.name, turned, np.ascontiguousarray(weight.T))
    return call.made(graph.transpose(product, swap), like=1)


def _matrix(array: Floats) -> Floats:
    while array.ndim > 2 and len(array) == 1:
        array = array[0]
    if array.ndim != 2:
        raise FormatError(f"its weight has shape {array.shape} (need a matrix).")
    return array


def _kernel(call: Call, x: Value) -> Floats:
    """Return a weight ``(a, b, *kernel)``, whose shape fits the map and the attributes."""
    weight = call.floats(1, "the weight")
    if weight.ndim < 3 or weight.ndim != x.rank + 1 or 0 in weight.shape:
        raise FormatError(
            f"its weight has shape {weight.shape}; that does not fit an input of shape {x.shape} "
            "(channels, cells...)."
        )
    kernel = call.attributes.integers("kernel_shape")
    if kernel is not None and kernel != weight.shape[2:]:
        raise FormatError(
            f"kernel_shape is {quote(kernel)}; its weight has shape {weight.shape}. The file is "
            "damaged."
        )
    return weight


def _conv(call: Call) -> Tensor:
    x = call.plain()
    weight = _kernel(call, x)
    window = Window(call, x.shape[1:], weight.shape[2:])
    value = call.build.graph.conv(
        call.name,
        x,
        np.ascontiguousarray(np.moveaxis(weight, (1, 0), (-2, -1))),
        call.floats(2, "the bias") if call.has(2) else None,
        channel_axis=0,
        strides=window.strides,
        padding=window.pads,
        dilation=window.dilation,
        groups=call.attributes.integer("group", 1),
    )
    return call.made(value)


def _conv_transpose(call: Call) -> Tensor:
    x = call.plain()
    weight = _kernel(call, x)
    groups = call.attributes.integer("group", 1)
    if groups != 1:
        raise FormatError(f"a transposed convolution in {groups} groups is not supported.")
    window = Window(call, x.shape[1:], weight.shape[2:])
    n = len(window.size)
    extra = _entries(call, "output_padding", n, 0)
    asked = call.attributes.integers("output_shape")
    pads = window.pads
    if asked is not None and len(asked) in (n, n + 2):
        pads = _pads_for(window, extra, asked[-n:])
    elif window.auto.startswith("SAME"):
        sizes = tuple(m * s for m, s in zip(window.size, window.strides, strict=True))
        pads = _pads_for(window, extra, sizes)
    elif asked is not None:
        raise FormatError(f"output_shape must have {n} entries (got {len(asked)}).")
    bias = call.floats(2, "the bias") if call.has(2) else None
    kernel = np.ascontiguousarray(np.moveaxis(weight, (1, 0), (-2, -1)))

    def make(name: str, pads: Sequence[Cells], extra: Sequence[int]) -> Value:
        made = call.build.graph.conv_transpose(
            name,
            x,
            kernel,
            bias,
            channel_axis=0,
            strides=window.strides,
            padding=pads,
            dilation=window.dilation,
            output_padding=extra,
        )
        call.build.uncut[made.name] = Uncut(make, tuple(pads), tuple(extra))
        return made

    return call.made(make(call.name, pads, extra))


def _pads_for(window: Window, extra: tuple[int, ...], asked: tuple[int, ...]) -> Pads:
    """Return the cropping that gives an output of a size (ONNX, ConvTranspose, output_shape)."""
    pads = []
    for m, s, span, e, out in zip(
        window.size, window.strides, window.spans, extra, asked, strict=True
    ):
        total = s * (m - 1) + e + span - out
        if total < 0:
            raise FormatError(f"an output of {out} cells needs cells that no input reaches.")
        pads.append(halves(total, upper=window.auto == "SAME_UPPER"))
    return pads


def _batch_norm(call: Call) -> Tensor:
    if call.attributes.integer("training_mode"):
        raise FormatError(
            "it normalizes with the statistics of the batch (training_mode = 1). Export the "
            "network for inference."
        )
    x = call.plain()
    names = ("the scale", "the shift", "the mean", "the variance")
    gamma, beta, mean, variance = (call.floats(i + 1, what) for i, what in enumerate(names))
    epsilon = call.attributes.number("epsilon", 1e-5)
    if not math.isfinite(epsilon):
        raise FormatError(f"epsilon is {epsilon}.")
    value = call.build.graph.batch_norm(
        call.name, x, mean, variance, gamma, beta, epsilon=epsilon, axis=0
    )
    return call.made(value)


LAYERS: dict[str, Operator] = {
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
