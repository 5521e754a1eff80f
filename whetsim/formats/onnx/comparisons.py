"""ONNX operators on single units: comparisons, choices and logic."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import FormatError
from whetsim.formats.onnx.call import Call, Operator, without_samples
from whetsim.formats.onnx.curves import ONE, ZERO, Curve
from whetsim.formats.onnx.steps import Signal, Tensor
from whetsim.formats.onnx.units import (
    Rule,
    aligned,
    as_floats,
    fraction,
    named,
    one_term,
    recast,
    same_shape,
    with_curve,
)

__all__ = ["COMPARISONS"]


def _compare(rule: Rule) -> Operator:
    def read(call: Call) -> Tensor:
        first, second = call.tensor(0), call.tensor(1)
        if not isinstance(first, Signal):
            # A constant on the left: c > x is x < c.
            return _compared(call, call.signal(1), first, lambda x, c: rule(c, x))
        return _compared(call, first, second, rule)

    return read


def _compared(call: Call, first: Signal, second: Tensor, rule: Rule) -> Tensor:
    value, curve, other = aligned(call, first, second)
    result = with_curve(call, first, value, curve.where(rule, other))
    if isinstance(result, np.ndarray):
        return recast(result, np.bool_)
    return named(call, replace(result, dtype=np.dtype(np.bool_)))


def _where(call: Call) -> Tensor:
    condition = call.tensor(0)
    if isinstance(condition, np.ndarray):
        return _choose(call, condition)
    value, chosen = one_term(call, condition)
    curves = []
    for i in (1, 2):
        tensor = call.tensor(i)
        if isinstance(tensor, np.ndarray):
            constant = without_samples(call, tensor, condition.shape)
            if constant.ndim:
                return _switched(call, condition)
            curves.append(Curve.constant(fraction(constant)))
        else:
            same_shape(condition, tensor)
            if tensor.only is None or tensor.only[0] != value:
                raise FormatError(
                    "it chooses between tensors by another tensor (need constants): gates are "
                    "not affine."
                )
            curves.append(tensor.only[1])
    yes, no = curves
    curve = chosen * yes + (Curve.constant(ONE) - chosen) * no
    dtype = next(t.dtype for t in call.inputs[1:] if isinstance(t, np.ndarray | Signal))
    # Of the type of what is chosen: the condition's would make every constant true or false.
    like = replace(condition, dtype=dtype)
    return named(call, with_curve(call, like, value, curve), condition)


def _choose(call: Call, condition: NDArray[Any]) -> Tensor:
    """Return what a constant condition chooses; the other may be anything."""
    if condition.dtype != np.bool_ or condition.size == 0:
        raise FormatError("its condition must be true or false.")
    first = bool(condition.flat[0])
    if (condition != first).any():
        raise FormatError("its condition chooses for each unit another tensor.")
    result = call.inputs[1 if first else 2]
    if result is None:
        raise FormatError("an input is missing. The file is damaged.")
    shapes = [t.shape for t in call.inputs[1:3] if isinstance(t, Signal)]
    if isinstance(result, np.ndarray) and shapes:
        return np.broadcast_to(result, (call.build.batch, *shapes[0]))
    return result


def _switched(call: Call, condition: Signal) -> Tensor:
    """Return a choice between two constants that differ from unit to unit."""
    arrays = [as_floats(call.array(i, f"choice {i}")) for i in (1, 2)]
    shape = np.broadcast_shapes(*(a.shape for a in arrays), (call.build.batch, *condition.shape))
    yes, no = (np.broadcast_to(a, shape) for a in arrays)
    scale = without_samples(call, yes.astype(np.float64) - no, condition.shape)
    shift = without_samples(call, no, condition.shape)
    dtype = np.result_type(*(a.dtype for a in arrays))
    spikes = replace(condition, dtype=dtype)
    value = call.build.graph.scale_and_shift(
        call.name, call.build.plain(spikes), scale=scale, shift=shift
    )
    return call.build.signal(value, dtype, call.label)


def _not(call: Call) -> Tensor:
    signal = call.signal()
    value, curve = one_term(call, signal)
    return named(call, with_curve(call, signal, value, Curve.constant(ONE) - curve))


def _logical(rule: Rule) -> Operator:
    def read(call: Call) -> Tensor:
        first, second = call.tensor(0), call.tensor(1)
        signal, other = (first, second) if isinstance(first, Signal) else (second, first)
        if not isinstance(signal, Signal):
            raise FormatError("its inputs are no tensors.")
        if isinstance(other, Signal) and not (
            signal.only and other.only and signal.only[0] == other.only[0]
        ):
            raise FormatError("it joins two tensors that both depend on the input.")
        value, curve, second_curve = aligned(call, signal, other)
        # Both are 0 or 1, so their sum tells them apart.
        both = (curve + second_curve).flat_values(lambda v: ONE if rule(v, ONE) else ZERO)
        return named(call, with_curve(call, signal, value, both))

    return read


COMPARISONS: dict[str, Operator] = {
    "And": _logical(lambda both, one: both > one),
    "Equal": _compare(lambda x, y: x == y),
    "Greater": _compare(lambda x, y: x > y),
    "GreaterOrEqual": _compare(lambda x, y: x >= y),
    "Less": _compare(lambda x, y: x < y),
    "LessOrEqual": _compare(lambda x, y: x <= y),
    "Not": _not,
    "Or": _logical(lambda both, one: both >= one),
    "Where": _where,
    "Xor": _logical(lambda both, one: both == one),
}
"""Readers of operators of which an input depends on the network's input."""
