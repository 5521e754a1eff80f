"""ONNX operators that move values and change none, and those that may end a network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from whetsim.errors import FormatError, quote
from whetsim.formats.onnx.call import Call, Operator
from whetsim.formats.onnx.crops import merged_repeat
from whetsim.formats.onnx.folding import reshape_target, squeezed, unsqueezed
from whetsim.formats.onnx.steps import Last, Refusal, Signal, Tensor
from whetsim.layers import Shape

__all__ = ["SHAPES"]


def _identity(call: Call) -> Tensor:
    tensor = call.inputs[0] if call.inputs else None
    if tensor is None:
        raise FormatError("its input is missing. The file is damaged.")
    return tensor


def _dropout(call: Call) -> list[Tensor]:
    if call.has(2) and call.array(2, "the training mode").any():
        raise FormatError("it drops units at random (training mode). Export for inference.")
    mask = Refusal(FormatError(f"node {quote(call.name)}: the mask of a dropout is not supported."))
    return [_identity(call), mask]


def _reshape(call: Call) -> Tensor:
    tensor = call.signal()
    full = (call.build.batch, *tensor.shape)
    return _shaped(call, tensor, reshape_target(call, full))


def _flatten(call: Call) -> Tensor:
    tensor = call.signal()
    rank = len(tensor.shape) + 1
    axis = call.attributes.integer("axis", 1)
    if axis not in (1, 1 - rank):
        raise FormatError(f"axis {axis} mixes samples and units (need 1).")
    return _shaped(call, tensor, (call.build.batch, int(np.prod(tensor.shape, dtype=np.int64))))


def _squeeze(call: Call) -> Tensor:
    tensor = call.signal()
    axes = call.integers(1, "the axes")
    if axes is None:
        return _shaped(call, tensor, (call.build.batch, *squeezed(tensor.shape, None)))
    rank = len(tensor.shape) + 1
    if any(a in (0, -rank) for a in axes):
        raise FormatError("it takes away the axis of the samples.")
    return _shaped(call, tensor, squeezed((call.build.batch, *tensor.shape), axes))


def _unsqueeze(call: Call) -> Tensor:
    tensor = call.signal()
    axes = call.integers(1, "the axes") or ()
    rank = len(tensor.shape) + 1 + len(axes)
    if any(a in (0, -rank) for a in axes):
        raise FormatError("it puts an axis before that of the samples.")
    return _shaped(call, tensor, unsqueezed((call.build.batch, *tensor.shape), axes))


def _shaped(call: Call, signal: Signal, full: Shape) -> Signal:
    """Return the signal with another shape, that counts the samples."""
    first, *rest = full
    shape = tuple(rest)
    if first != call.build.batch or not shape:
        raise FormatError(
            f"it makes shape {full} of {(call.build.batch, *signal.shape)} (need the samples "
            "first and as many as before, and another axis). Export the network for one sample."
        )
    if shape == signal.shape:
        return signal
    moved = _moved_ones(signal.shape, shape)
    if moved is not None:
        return _transposed(call, signal, moved)
    plain = call.build.plain(signal)
    value = merged_repeat(call, plain, shape) or call.build.reshape(call.name, plain, shape)
    return call.build.signal(value, signal.dtype, call.label)


def _moved_ones(shape: Shape, target: Shape) -> Shape | None:
    """Return the order of axes that does what a reshape does, if it only moves axes of size 1."""
    if len(shape) != len(target):
        return None
    others = [(a, n) for a, n in enumerate(shape) if n != 1]
    if [n for _, n in others] != [n for n in target if n != 1]:
        return None
    ones = iter(a for a, n in enumerate(shape) if n == 1)
    wide = iter(a for a, _ in others)
    return tuple(next(ones) if n == 1 else next(wide) for n in target)


def _transpose(call: Call) -> Tensor:
    signal = call.signal()
    rank = len(signal.shape) + 1
    perm = call.attributes.integers("perm") or tuple(reversed(range(rank)))
    if sorted(perm) != list(range(rank)) or perm[0] != 0:
        raise FormatError(f"perm {quote(perm)} must order {rank} axes and keep the samples first.")
    return _transposed(call, signal, tuple(a - 1 for a in perm[1:]))


def _transposed(call: Call, signal: Signal, axes: Shape) -> Signal:
    """Return the signal with its axes in another order: nothing is computed."""
    graph = call.build.graph
    return replace(signal, terms=tuple((graph.transpose(v, axes), c) for v, c in signal.terms))


def _concat(call: Call) -> Tensor:
    values = [call.plain(i) for i in range(len(call.inputs))]
    rank = values[0].rank + 1
    axis = call.attributes.integer("axis")
    if not -rank <= axis < rank or axis % rank == 0:
        raise FormatError(f"axis {axis} of {rank} puts samples side by side.")
    return call.made(call.build.graph.concat(call.name, values, axis % rank - 1))


def _softmax(call: Call) -> Tensor:
    signal = call.signal()
    rank = len(signal.shape) + 1
    if rank != 2 or call.attributes.integer("axis", -1) not in (1, -1):
        raise FormatError(
            f"it works along axis {call.attributes.integer('axis', -1)} of shape {signal.shape} "
            "(need class scores, one axis): it is not affine."
        )
    return Last(signal, f"the final {call.op_type} is left out: the largest score stays the same")


def _arg_max(call: Call) -> Tensor:
    source = call.inputs[0] if call.inputs else None
    signal = source.signal if isinstance(source, Last) else call.signal()
    axis = call.attributes.integer("axis")
    if len(signal.shape) != 1 or axis not in (1, -1):
        raise FormatError(f"it looks for the largest along axis {axis} of {signal.shape}.")
    return Last(signal, "the final ArgMax is left out: the readout gives the scores it reads")


SHAPES: dict[str, Operator] = {
    "ArgMax": _arg_max,
    "Concat": _concat,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Identity": _identity,
    "LogSoftmax": _softmax,
    "Reshape": _reshape,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
