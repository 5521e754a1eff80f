"""The slow, obvious truth: a plain numpy float32 forward pass of a `Model`.

Nothing here is shared with the mapping or with any engine. Every layer is computed as its textbook
definition says, one kernel position at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from whetsim import layers as L
from whetsim.model import INPUT, Model

__all__ = ["compute", "forward", "forward_with_error"]

Float32 = NDArray[np.float32]
Values = TypeVar("Values", NDArray[np.float32], NDArray[np.float64])

UNIT_ROUNDOFF = 2.0**-24
"""Largest relative error of one rounding to float32 (IEEE 754, round to nearest)."""


def forward(
    model: Model,
    samples: NDArray[Any],
    given: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, Float32]:
    """Return the float32 output of every layer.

    Parameters
    ----------
    model : Model
    samples : integer array (n_samples, ...)
        In the range of ``model.input``; each sample flattens to the input shape.
    given : dict of array, optional
        Values that later layers read in place of the computed output of the layer so named.
        The result still holds the computed output.

    Returns
    -------
    dict
        Layer name to array ``(n_samples, *shape)``.
    """
    x = samples.reshape(len(samples), *model.input.shape).astype(np.float32)
    values: dict[str, Float32] = {INPUT: x * np.float32(model.input.scale)}
    results: dict[str, Float32] = {}
    for layer in model.layers:
        result = compute(layer, [values[i] for i in layer.inputs]).astype(np.float32, copy=False)
        results[layer.name] = result
        if given is not None and layer.name in given:
            result = np.asarray(given[layer.name], dtype=np.float32).reshape(result.shape)
        values[layer.name] = result
    return results


def forward_with_error(
    model: Model, samples: NDArray[Any], given: Mapping[str, NDArray[Any]]
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return for every step layer what reaches it, in float64, and how far float32 may be off.

    The bound is a running error analysis: each operation passes the error of its inputs on by the
    absolute weights, and adds ``n * u * sum |terms|`` for a sum of n terms in any order, with
    u = 2^-24.

    Parameters
    ----------
    model, samples
        As for `forward`.
    given : dict of array
        Output of every step layer, and of others if they are to be fixed; later layers read these.

    Returns
    -------
    dict
        Name of each layer in `given` to ``(x, bound)``, each ``(n_samples, *shape)``: what reaches
        a step, what comes out of any other layer.

    References
    ----------
    Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., sections 3.1 and 4.2.
    """
    x = samples.reshape(len(samples), *model.input.shape).astype(np.float64) * model.input.scale
    values = {INPUT: (x, 2 * UNIT_ROUNDOFF * np.abs(x))}
    results = {}
    for layer in model.layers:
        inputs = [values[i] for i in layer.inputs]
        if isinstance(layer, L.Step):
            result = inputs[0]
        else:
            value = compute(layer, [v for v, _ in inputs])
            passed = _compute_absolute(layer, [e for _, e in inputs], with_constants=False)
            size = _compute_absolute(layer, [np.abs(v) for v, _ in inputs], with_constants=True)
            result = (value, passed + _n_roundings(layer, inputs) * UNIT_ROUNDOFF * size)
        if layer.name in given:
            results[layer.name] = result
            exact = np.asarray(given[layer.name], dtype=np.float64).reshape(result[0].shape)
            result = (exact, np.zeros_like(exact))
        values[layer.name] = result
    return results


def compute(layer: L.Layer, inputs: list[Any]) -> Any:
    """Return the output of `layer` for `inputs`, computed in their precision."""
    x = inputs[0]
    match layer:
        case L.Dense():
            return _plus(x @ layer.weight.astype(x.dtype), layer.bias)
        case L.Conv2D() | L.Conv3D():
            return _plus(_convolve(x, layer), layer.bias)
        case L.DepthwiseConv2D():
            return _plus(_convolve(x, layer.as_conv2d()), layer.bias)
        case L.Conv2DTranspose():
            return _plus(_convolve_transposed(x, layer), layer.bias)
        case L.MaxPool():
            return _pool(x, layer, np.maximum, -np.inf)
        case L.AveragePool():
            return _pool(x, layer, np.add, 0.0) / _window_sizes(layer, x)
        case L.GlobalMaxPool2D():
            return x.max(axis=(1, 2))
        case L.GlobalAveragePool2D():
            return x.mean(axis=(1, 2), dtype=x.dtype)
        case L.BatchNorm():
            root = np.sqrt(layer.variance.astype(x.dtype) + x.dtype.type(layer.epsilon))
            y = (x - layer.mean.astype(x.dtype)) / root
            if layer.gamma is not None:
                y = y * layer.gamma.astype(x.dtype)
            return _plus(y, layer.beta)
        case L.Flatten() | L.Reshape():
            return x.reshape(len(x), *layer.output_shape(x.shape[1:]))
        case L.Permute():
            return x.transpose(0, *(a + 1 for a in layer.axes))
        case L.ZeroPad2D():
            return np.pad(x, ((0, 0), *layer.padding, (0, 0)))
        case L.Upsample2D():
            return x.repeat(layer.size[0], axis=1).repeat(layer.size[1], axis=2)
        case L.Add():
            return sum(inputs[1:], start=x)
        case L.Concat():
            axis = layer.axis if layer.axis < 0 else layer.axis + 1
            return np.concatenate(inputs, axis=axis)
        case L.Step():
            fires = x > layer.threshold if layer.strict else x >= layer.threshold
            return fires.astype(x.dtype)
        case L.Activation():
            return _activate(x, layer)
    raise NotImplementedError(layer.kind)


def _plus(x: Values, bias: L.FloatArray | None) -> Values:
    return x if bias is None else x + bias.astype(x.dtype)


def _convolve(x: Values, conv: L.Convolution) -> Values:
    padded = np.pad(x, ((0, 0), *conv.explicit_padding(x.shape[1:-1]), (0, 0)))
    target: L.Shape = conv.output_shape(x.shape[1:])
    weight = conv.weight.astype(x.dtype)
    per_in, per_out = weight.shape[-2], weight.shape[-1] // conv.groups
    y = np.zeros((len(x), *target), dtype=x.dtype)
    for position in np.ndindex(conv.kernel):
        seen = _seen(padded, position, target[:-1], conv.strides, conv.dilation)
        for g in range(conv.groups):
            part = slice(g * per_out, (g + 1) * per_out)
            group = seen[..., g * per_in : (g + 1) * per_in]
            y[..., part] += group @ weight[position][:, part]
    return y


def _seen(
    padded: Values,
    position: Sequence[int],
    places: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
) -> Values:
    """Return what one position of the kernel sees of a padded map, at all places of the window."""
    cells = [slice(None)]
    for i, n, s, d in zip(position, places, strides, dilation, strict=True):
        cells.append(slice(i * d, i * d + s * (n - 1) + 1, s))
    return padded[tuple(cells)]


def _convolve_transposed(x: Values, conv: L.Conv2DTranspose) -> Values:
    n, h, w, channels = x.shape
    out_h, out_w, out_channels = conv.output_shape((h, w, channels))
    ((top, bottom), (left, right)), (extra_h, extra_w) = conv.explicit_padding()
    (sy, sx), (dy, dx) = conv.strides, conv.dilation
    weight = conv.weight.astype(x.dtype)
    full = np.zeros(
        (n, out_h + top + bottom + extra_h, out_w + left + right + extra_w, out_channels), x.dtype
    )
    for i in range(conv.kernel[0]):
        for j in range(conv.kernel[1]):
            rows = slice(i * dy, i * dy + sy * (h - 1) + 1, sy)
            columns = slice(j * dx, j * dx + sx * (w - 1) + 1, sx)
            full[:, rows, columns, :] += x @ weight[i, j].T
    return full[:, top : top + out_h, left : left + out_w, :]


def _pool(
    x: Values,
    pool: L.Pool,
    combine: Callable[[Values, Values], Values],
    empty: float,
) -> Values:
    around = ((0, 0), *pool.explicit_padding(x.shape[1:-1]), (0, 0))
    padded = np.pad(x, around, constant_values=empty)
    target: L.Shape = pool.output_shape(x.shape[1:])
    y = np.full((len(x), *target), empty, dtype=x.dtype)
    once = (1,) * pool.n_axes
    for position in np.ndindex(pool.pool_size):
        y = combine(y, _seen(padded, position, target[:-1], pool.steps, once))
    return y


def _window_sizes(pool: L.AveragePool, x: Values) -> Values:
    if pool.count_padding:
        return np.full((1,) * x.ndim, math.prod(pool.pool_size), dtype=x.dtype)
    one = np.ones((1, *x.shape[1:]), dtype=x.dtype)
    return _pool(one, pool, np.add, 0.0)


def _activate(x: Values, layer: L.Activation) -> Values:
    if layer.function == "relu":
        return np.maximum(x, x.dtype.type(0))
    if layer.function == "tanh":
        return np.tanh(x)
    if layer.function == "sigmoid":
        return (1 / (1 + np.exp(-x))).astype(x.dtype)
    width = x.dtype.type(1 - layer.sharpness)
    half = x.dtype.type(0.5)
    return np.clip((x - half) / width + half, x.dtype.type(0), x.dtype.type(1))


def _compute_absolute(layer: L.Layer, inputs: list[Any], with_constants: bool) -> Any:
    """Return ``|weight| @ x``, and ``+ |constants|`` if asked, for non-negative x."""

    def size(array: L.FloatArray | None) -> Any:
        return np.abs(array.astype(np.float64)) if array is not None and with_constants else 0.0

    x = inputs[0]
    match layer:
        case L.Dense():
            return x @ np.abs(layer.weight.astype(np.float64)) + size(layer.bias)
        case L.Conv2D() | L.Conv3D():
            return _convolve(x, _with_absolute_weight(layer)) + size(layer.bias)
        case L.DepthwiseConv2D():
            return _convolve(x, _with_absolute_weight(layer.as_conv2d())) + size(layer.bias)
        case L.Conv2DTranspose():
            return _convolve_transposed(x, _with_absolute_weight(layer)) + size(layer.bias)
        case L.BatchNorm():
            scale, _ = layer.scale_and_shift()
            return (x + size(layer.mean)) * np.abs(scale) + size(layer.beta)
    return compute(layer, inputs)


AnyConvolution = TypeVar("AnyConvolution", bound=L.Convolution | L.Conv2DTranspose)


def _with_absolute_weight(conv: AnyConvolution) -> AnyConvolution:
    parameters = {"weight": np.abs(conv.weight), **conv.parameters}
    return type(conv)(name=conv.name, inputs=conv.inputs, **parameters)


def _n_roundings(layer: L.Layer, inputs: list[tuple[NDArray[np.float64], Any]]) -> int:
    """Return how many float32 roundings one output value of `layer` goes through at most."""
    match layer:
        case L.Dense():
            return int(layer.weight.shape[0]) + 1
        case L.Conv2D() | L.Conv3D() | L.DepthwiseConv2D():
            return math.prod(layer.weight.shape[:-1]) + 1
        case L.Conv2DTranspose():
            return int(np.prod(layer.weight.shape) // layer.weight.shape[2]) + 1
        case L.AveragePool():
            return math.prod(layer.pool_size) + 1
        case L.GlobalAveragePool2D():
            return int(np.prod(inputs[0][0].shape[1:3])) + 1
        case L.BatchNorm():
            return 6
        case L.Add():
            return len(inputs)
    return 0
