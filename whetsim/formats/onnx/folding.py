"""Operators on constants: the arithmetic on shapes that exporters leave in a graph.

Every result is measured before it is made: a few numbers in a file can ask for any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import FormatError, quote
from whetsim.formats.onnx.activations import TYPES
from whetsim.formats.onnx.call import Call
from whetsim.layers import Shape

__all__ = [
    "FOLDING",
    "MAX_ELEMENTS",
    "broadcast_target",
    "reshape_target",
    "split_sizes",
    "squeezed",
    "unsqueezed",
]

MAX_ELEMENTS = 2**24
"""Largest array that folding may make, unless an input is larger."""

Array = NDArray[Any]
Fold = Callable[[Call], Sequence[Array] | Array]


def _arrays(call: Call) -> list[Array]:
    return [call.array(i, f"input {i}") for i in range(len(call.inputs)) if call.has(i)]


def _allow(call: Call, size: int) -> None:
    largest = max((a.size for a in _arrays(call)), default=0)
    if size > max(MAX_ELEMENTS, largest):
        raise FormatError(f"its result would have {size} numbers (need <= {MAX_ELEMENTS}).")


def _broadcast(function: Callable[..., Any]) -> Fold:
    """Return an operator on numbers that broadcasts, as a function of arrays."""

    def fold(call: Call) -> Array:
        arrays = _arrays(call)
        _allow(call, math.prod(np.broadcast_shapes(*(a.shape for a in arrays))))
        return np.asarray(function(*arrays))

    return fold


def _variadic(function: Callable[[Array, Array], Any]) -> Fold:
    def reduced(first: Array, *others: Array) -> Array:
        for other in others:
            first = function(first, other)
        return first

    return _broadcast(reduced)


def _divide(first: Array, second: Array) -> Array:
    if first.dtype.kind == "f":
        return np.asarray(first / second)
    if not second.all():
        raise FormatError("it divides whole numbers by zero.")
    # Towards zero, as in C; numpy rounds down.
    quotient = np.abs(first) // np.abs(second)
    return np.asarray(np.sign(first) * np.sign(second) * quotient, dtype=first.dtype)


def _modulo(call: Call) -> Array:
    if call.attributes.integer("fmod"):
        return np.asarray(_broadcast(np.fmod)(call))
    if not call.array(1, "the divisor").all():
        raise FormatError("it divides by zero.")
    return np.asarray(_broadcast(np.mod)(call))


def _clip(call: Call) -> Array:
    array = call.array(0, "the input")
    for i, limit in ((1, np.maximum), (2, np.minimum)):
        if call.has(i):
            array = limit(array, call.array(i, "the limit").reshape(()))
    return np.asarray(array)


def _cast(call: Call) -> Array:
    to = TYPES.get(call.attributes.integer("to"))
    if to is None:
        raise FormatError(f"it casts to type {call.attributes.integer('to')}, not supported.")
    return call.array(0, "the input").astype(to)


def _cast_like(call: Call) -> Array:
    return call.array(0, "the input").astype(call.tensor(1).dtype)


def _constant(call: Call) -> Array:
    return call.attributes.constant()


def _shape_of(call: Call) -> Array:
    """Return the shape of a tensor, that may depend on the input."""
    tensor = call.tensor(0)
    full = tensor.shape if isinstance(tensor, np.ndarray) else (call.build.batch, *tensor.shape)
    start = call.attributes.integer("start")
    end = call.attributes.integer("end", len(full))
    return np.array(full[slice(start, end)], np.int64)


def _size_of(call: Call) -> Array:
    return np.array(math.prod(int(n) for n in _shape_of(call)), np.int64)


def _numbers(call: Call, index: int, what: str) -> Shape:
    values = call.integers(index, what)
    if values is None:
        raise FormatError(f"{what} is missing. The file is damaged.")
    return values


def _reshape(call: Call) -> Array:
    array = call.array(0, "the input")
    return array.reshape(reshape_target(call, array.shape))


def reshape_target(call: Call, shape: Shape) -> Shape:
    """Return the shape that a Reshape asks for, of a tensor of a shape."""
    asked = _numbers(call, 1, "the shape")
    if not call.attributes.integer("allowzero"):
        if any(n == 0 and i >= len(shape) for i, n in enumerate(asked)):
            raise FormatError(f"shape {quote(asked)} keeps an axis that {shape} has not.")
        asked = tuple(shape[i] if n == 0 else n for i, n in enumerate(asked))
    if any(n < -1 for n in asked) or asked.count(-1) > 1:
        raise FormatError(f"shape {quote(asked)} is none.")
    total, known = math.prod(shape), math.prod(n for n in asked if n != -1)
    if -1 in asked and known and total % known == 0:
        asked = tuple(total // known if n == -1 else n for n in asked)
    if math.prod(asked) != total or -1 in asked:
        raise FormatError(f"a tensor of shape {shape} cannot have shape {quote(asked)}.")
    return asked


def _flatten(call: Call) -> Array:
    array = call.array(0, "the input")
    axis = call.attributes.integer("axis", 1)
    if not -array.ndim <= axis <= array.ndim:
        raise FormatError(f"axis {axis} is none of {array.ndim}.")
    axis = axis + array.ndim if axis < 0 else axis
    return array.reshape(math.prod(array.shape[:axis]), math.prod(array.shape[axis:]))


def _transpose(call: Call) -> Array:
    array = call.array(0, "the input")
    return array.transpose(call.attributes.integers("perm"))


def _squeeze(call: Call) -> Array:
    array = call.array(0, "the input")
    return array.reshape(squeezed(array.shape, call.integers(1, "the axes")))


def squeezed(shape: Shape, axes: Shape | None) -> Shape:
    """Return a shape without some axes of size 1, without all of them by default."""
    if axes is None:
        return tuple(n for n in shape if n != 1)
    dropped = {_axis(a, len(shape)) for a in axes}
    if any(shape[a] != 1 for a in dropped):
        raise FormatError(f"axes {quote(axes)} of shape {shape} cannot be left out.")
    return tuple(n for a, n in enumerate(shape) if a not in dropped)


def _unsqueeze(call: Call) -> Array:
    array = call.array(0, "the input")
    return array.reshape(unsqueezed(array.shape, _numbers(call, 1, "the axes")))


def unsqueezed(shape: Shape, axes: Shape) -> Shape:
    """Return a shape with axes of size 1 at places counted in the result."""
    rank = len(shape) + len(axes)
    new = {_axis(a, rank) for a in axes}
    if len(new) != len(axes) or rank > 16:
        raise FormatError(f"axes {quote(axes)} cannot be added to shape {shape}.")
    rest = iter(shape)
    return tuple(1 if a in new else next(rest) for a in range(rank))


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise FormatError(f"axis {axis} is none of {rank}.")
    return axis % rank


def _concat(call: Call) -> Array:
    arrays = _arrays(call)
    axis = _axis(call.attributes.integer("axis"), arrays[0].ndim)
    _allow(call, sum(a.size for a in arrays))
    return np.concatenate(arrays, axis)


def _gather(call: Call) -> Array:
    array, indices = call.array(0, "the input"), call.array(1, "the indices")
    if indices.dtype.kind not in "iu":
        raise FormatError("its indices must be whole numbers.")
    axis = _axis(call.attributes.integer("axis"), array.ndim)
    _allow(call, array.size // max(array.shape[axis], 1) * indices.size)
    return np.take(array, indices, axis)


def _slice(call: Call) -> Array:
    array = call.array(0, "the input")
    starts, ends = _numbers(call, 1, "starts"), _numbers(call, 2, "ends")
    axes = call.integers(3, "axes") or tuple(range(len(starts)))
    strides = call.integers(4, "steps") or (1,) * len(starts)
    index = [slice(None)] * array.ndim
    for start, end, axis, stride in zip(starts, ends, axes, strides, strict=True):
        place = _axis(axis, array.ndim)
        size = array.shape[place]
        # Far below 0 with a negative stride means down to the first, which numpy writes None.
        stop = None if stride < 0 and end < -size else end
        index[place] = slice(start, stop, stride)
    return array[tuple(index)]


def _expand(call: Call) -> Array:
    array = call.array(0, "the input")
    shape = broadcast_target(array.shape, _numbers(call, 1, "the shape"))
    _allow(call, math.prod(shape))
    return np.broadcast_to(array, shape)


def broadcast_target(shape: Shape, asked: Shape) -> Shape:
    """Return the shape that an Expand asks for, of a tensor of a shape."""
    if any(n < 0 for n in asked) or len(asked) > 16:
        raise FormatError(f"shape {quote(asked)} is none.")
    return np.broadcast_shapes(shape, asked)


def _tile(call: Call) -> Array:
    array, repeats = call.array(0, "the input"), _numbers(call, 1, "the repeats")
    if len(repeats) != array.ndim or any(n < 0 for n in repeats):
        raise FormatError(f"repeats {quote(repeats)} do not fit shape {array.shape}.")
    _allow(call, array.size * math.prod(repeats))
    return np.tile(array, repeats)


def _constant_of_shape(call: Call) -> Array:
    shape = _numbers(call, 0, "the shape") if call.array(0, "the shape").size else ()
    value = call.attributes.tensor("value")
    filled = np.zeros((), np.float32) if value is None else value.reshape(())
    _allow(call, math.prod(shape))
    return np.broadcast_to(filled, shape)


def _range(call: Call) -> Array:
    start, limit, delta = (a.reshape(()) for a in _arrays(call))
    if not delta or not all(np.isfinite(v) for v in (start, limit, delta)):
        raise FormatError("its numbers make no range.")
    size = max(math.ceil((float(limit) - float(start)) / float(delta)), 0)
    _allow(call, size)
    return np.asarray(start + np.arange(size, dtype=start.dtype) * delta)


def _split(call: Call) -> list[Array]:
    array = call.array(0, "the input")
    axis = _axis(call.attributes.integer("axis"), array.ndim)
    return np.split(array, np.cumsum(split_sizes(call, array.shape[axis]))[:-1], axis)


def split_sizes(call: Call, n: int) -> Shape:
    """Return how many of n each output of a Split gets."""
    sizes = call.integers(1, "the sizes")
    if sizes is None:
        parts = call.attributes.integer("num_outputs", call.n_outputs)
        if not 1 <= parts <= max(n, 1):
            raise FormatError(f"it cannot be split into {parts} parts.")
        each = -(-n // parts)
        sizes = (each,) * (parts - 1) + (n - each * (parts - 1),)
    if any(s < 0 for s in sizes) or sum(sizes) != n:
        raise FormatError(f"sizes {quote(sizes)} do not split {n}.")
    return sizes


def _reduce(function: Callable[..., Any]) -> Fold:
    def fold(call: Call) -> Array:
        array = call.array(0, "the input")
        axes = call.integers(1, "the axes")
        if axes is None:
            axes = call.attributes.integers("axes")
        if not axes and call.attributes.integer("noop_with_empty_axes"):
            return array
        places = tuple({_axis(a, array.ndim) for a in axes}) if axes else None
        keep = bool(call.attributes.integer("keepdims", 1))
        reduced = function(array, axis=places, keepdims=keep)
        return np.asarray(reduced).astype(array.dtype)

    return fold


def _matmul(call: Call) -> Array:
    first, second = call.array(0, "the first factor"), call.array(1, "the second factor")
    if first.ndim > 2 or second.ndim > 2:
        raise FormatError("constants of more than two axes are multiplied.")
    _allow(call, (first.size // max(first.shape[-1], 1)) * (second.size // max(len(second), 1)))
    return np.asarray(first @ second)


def _where(condition: Array, yes: Array, no: Array) -> Array:
    return np.where(condition.astype(bool), yes, no)


FOLDING: dict[str, Fold] = {
    "Abs": _broadcast(np.abs),
    "Add": _broadcast(np.add),
    "And": _broadcast(np.logical_and),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": _broadcast(np.ceil),
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": _broadcast(_divide),
    "Equal": _broadcast(np.equal),
    "Exp": _broadcast(np.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _broadcast(np.floor),
    "Gather": _gather,
    "Greater": _broadcast(np.greater),
    "GreaterOrEqual": _broadcast(np.greater_equal),
    "Identity": _broadcast(lambda x: x),
    "Less": _broadcast(np.less),
    "LessOrEqual": _broadcast(np.less_equal),
    "Log": _broadcast(np.log),
    "MatMul": _matmul,
    "Max": _variadic(np.maximum),
    "Min": _variadic(np.minimum),
    "Mod": _modulo,
    "Mul": _broadcast(np.multiply),
    "Neg": _broadcast(np.negative),
    "Not": _broadcast(np.logical_not),
    "Or": _broadcast(np.logical_or),
    "Pow": _broadcast(lambda x, y: np.power(x, y).astype(x.dtype)),
    "Range": _range,
    "Reciprocal": _broadcast(np.reciprocal),
    "ReduceMax": _reduce(np.max),
    "ReduceMean": _reduce(np.mean),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Relu": _broadcast(lambda x: np.maximum(x, 0)),
    "Reshape": _reshape,
    "Round": _broadcast(np.rint),
    "Shape": _shape_of,
    "Sign": _broadcast(np.sign),
    "Size": _size_of,
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _broadcast(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _broadcast(np.subtract),
    "Sum": _variadic(np.add),
    "Tanh": _broadcast(np.tanh),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _broadcast(_where),
    "Xor": _broadcast(np.logical_xor),
}
"""What may be computed on constants; nothing else is."""
