"""ONNX operators on single units: clipping, rounding, activations and casts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import FormatError
from whetsim.formats.graph import Value
from whetsim.formats.onnx.call import Call, Operator, without_samples
from whetsim.formats.onnx.curves import ONE, ZERO, Curve
from whetsim.formats.onnx.steps import Signal, Tensor
from whetsim.formats.onnx.units import (
    Rule,
    at_least,
    at_most,
    fraction,
    named,
    one_term,
    picked,
    recast,
    same_shape,
    with_curve,
)

__all__ = ["ACTIVATIONS", "TYPES"]


def _clip(call: Call) -> Tensor:
    signal = call.signal()
    value, curve = one_term(call, signal)
    for i, rule in ((1, at_least), (2, at_most)):
        if call.has(i):
            limit = _limit(call, signal, value, call.array(i, "the limit"), rule)
            curve = curve if limit is None else picked(curve, limit, rule)
    return named(call, with_curve(call, signal, value, curve), signal)


def _extreme(rule: Rule) -> Operator:
    """Return the reader of Max or Min: an input where rule(it, the other), else the other."""

    def read(call: Call) -> Tensor:
        tensors = [call.tensor(i) for i in range(len(call.inputs))]
        signal = next(t for t in tensors if isinstance(t, Signal))
        value, curve = one_term(call, signal)
        for tensor in tensors:
            limit = None if tensor is signal else _limit(call, signal, value, tensor, rule)
            curve = curve if limit is None else picked(curve, limit, rule)
        return named(call, with_curve(call, signal, value, curve))

    return read


def _limit(
    call: Call, signal: Signal, value: Value, limit: NDArray[Any] | Signal, rule: Rule
) -> Curve | None:
    """Return what a signal is compared with as a curve of the same value, None for no limit."""
    if isinstance(limit, Signal):
        same_shape(signal, limit)
        if limit.only is not None and limit.only[0] == value:
            return limit.only[1]
        raise FormatError("it takes the larger or smaller of two tensors (need a constant).")
    constant = without_samples(call, limit, signal.shape)
    if constant.ndim:
        raise FormatError("its limits differ from unit to unit (need one number).")
    # The largest float32 stands for no limit.
    far = float(np.finfo(np.float32).max)
    number = float(constant)
    if number >= far if rule is at_most else number <= -far:
        return None
    return Curve.constant(fraction(constant))


def _curved(rule: Callable[[Curve, Call], Curve]) -> Operator:
    """Return the reader of an operator with one input."""

    def read(call: Call) -> Tensor:
        signal = call.signal()
        value, curve = one_term(call, signal)
        return named(call, with_curve(call, signal, value, rule(curve, call)))

    return read


def _relu(curve: Curve, call: Call | None = None) -> Curve:
    return picked(curve, Curve.constant(ZERO), at_least)


def _leaky(curve: Curve, call: Call) -> Curve:
    slope = fraction(np.float32(call.attributes.number("alpha", 0.01)))
    return _relu(curve) - _relu(curve.times(-ONE)).times(slope)


def _prelu(call: Call) -> Tensor:
    signal = call.signal()
    slope = without_samples(call, call.floats(1, "the slope"), signal.shape)
    if slope.ndim:
        raise FormatError("its slopes differ from unit to unit (need one number).")
    value, curve = one_term(call, signal)
    negative = _relu(curve.times(-ONE)).times(fraction(slope))
    return named(call, with_curve(call, signal, value, _relu(curve) - negative))


def _thresholded(curve: Curve, call: Call) -> Curve:
    alpha = fraction(np.float32(call.attributes.number("alpha", 1.0)))
    return curve.where(lambda x, t: x > t, Curve.constant(alpha)) * curve


def _sign(curve: Curve, call: Call) -> Curve:
    zero = Curve.constant(ZERO)
    return curve.where(lambda x, t: x > t, zero) - curve.where(lambda x, t: x < t, zero)


def _absolute(curve: Curve, call: Call) -> Curve:
    return _relu(curve) + _relu(curve.times(-ONE))


def _hard_sigmoid(curve: Curve, call: Call) -> Curve:
    alpha = fraction(np.float32(call.attributes.number("alpha", 0.2)))
    beta = fraction(np.float32(call.attributes.number("beta", 0.5)))
    line = curve.times(alpha) + Curve.constant(beta)
    return picked(_relu(line), Curve.constant(ONE), at_most)


def _rounding(rule: Callable[[Fraction], int], *, half: bool = False) -> Operator:
    return _curved(lambda curve, call: curve.rounded(rule, half=half))


def _activation(function: str) -> Operator:
    """Return the reader of an activation that is no step, however steep."""

    def read(call: Call) -> Tensor:
        signal = call.signal()
        only = signal.only
        if only is not None and only[1].is_straight and call.build.reading.assume_sharp:
            slope = only[1].lines[0].slope
            if abs(slope) > 1 and function == "sigmoid":
                call.build.graph.remarks.append(
                    f"{call.name}: a sigmoid of slope {float(slope):.6g}; taken for a step "
                    "(assume_sharp)"
                )
                fires = only[1].where(lambda x, t: x >= t, Curve.constant(ZERO))
                return named(call, with_curve(call, signal, only[0], fires))
        value = call.build.graph.activation(call.name, call.build.plain(signal), function)
        return call.made(value)

    return read


def _cast(call: Call) -> Tensor:
    to = np.dtype(TYPES.get(call.attributes.integer("to"), np.void))
    if to.kind == "V":
        raise FormatError(f"it casts to type {call.attributes.integer('to')}, not supported.")
    return _cast_to(call, to)


def _cast_like(call: Call) -> Tensor:
    return _cast_to(call, call.tensor(1).dtype)


def _cast_to(call: Call, to: np.dtype[Any]) -> Tensor:
    signal = call.signal()
    result: Signal | NDArray[Any]
    if to.kind == "b" and signal.dtype.kind != "b":
        value, curve = one_term(call, signal)
        zero = Curve.constant(ZERO)
        result = with_curve(call, signal, value, curve.where(lambda x, t: x != t, zero))
    elif to.kind in "iu" and signal.dtype.kind == "f":
        value, curve = one_term(call, signal)
        result = with_curve(call, signal, value, curve.rounded(math.trunc, half=False))
    else:
        result = signal
        if to == np.float16 and signal.dtype.kind == "f":
            _remark_once(call, "the file computes in half precision, whetsim in more")
    if isinstance(result, np.ndarray):
        return recast(result, to)
    if to.kind in "iu":
        _refuse_overflow(call, result, to)
    result = replace(result, dtype=to)
    if result.only is None or result.only[1].jump is None:
        return replace(result, label=signal.label)
    return named(call, result, signal)


def _refuse_overflow(call: Call, signal: Signal, to: np.dtype[Any]) -> None:
    """Refuse a cast that would wrap numbers around."""
    if signal.dtype.kind == "b" or (signal.dtype.kind in "iu" and np.can_cast(signal.dtype, to)):
        return
    _, curve = one_term(call, signal)
    limits = np.iinfo(to)
    values = [*(line.offset for line in curve.lines), *curve.points]
    if not curve.is_flat or not all(limits.min <= v <= limits.max for v in values):
        raise FormatError(f"it casts numbers without bounds to {to}. Clip them before it.")


def _remark_once(call: Call, text: str) -> None:
    if text not in call.build.graph.remarks:
        call.build.graph.remarks.append(text)


TYPES: dict[int, Any] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
    12: np.uint32,
    13: np.uint64,
    16: np.float32,
}

ACTIVATIONS: dict[str, Operator] = {
    "Abs": _curved(_absolute),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": _rounding(math.ceil),
    "Clip": _clip,
    "Floor": _rounding(math.floor),
    "HardSigmoid": _curved(_hard_sigmoid),
    "LeakyRelu": _curved(_leaky),
    "Max": _extreme(at_least),
    "Min": _extreme(at_most),
    "PRelu": _prelu,
    "Relu": _curved(_relu),
    "Round": _rounding(round, half=True),
    "Sigmoid": _activation("sigmoid"),
    "Sign": _curved(_sign),
    "Tanh": _activation("tanh"),
    "ThresholdedRelu": _curved(_thresholded),
}
"""Readers of operators of which an input depends on the network's input."""
