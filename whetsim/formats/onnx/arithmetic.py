"""ONNX operators on single units: sums and products."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from whetsim.errors import FormatError
from whetsim.formats.onnx.call import Call, Operator, without_samples
from whetsim.formats.onnx.curves import ONE
from whetsim.formats.onnx.steps import Refusal, Signal, Tensor
from whetsim.formats.onnx.units import (
    fraction,
    named,
    refuse_narrow,
    same_shape,
    scaled,
    sum_of,
    times,
    with_curve,
)

__all__ = ["ARITHMETIC"]


def _add(call: Call) -> Tensor:
    tensors = [call.tensor(i) for i in range(len(call.inputs))]
    result: Tensor
    result, *others = sorted(tensors, key=lambda t: isinstance(t, np.ndarray))
    for other in others:
        result = sum_of(call, result, other, ONE)
    return named(call, result)


def _subtract(call: Call) -> Tensor:
    return named(call, sum_of(call, call.tensor(0), call.tensor(1), -ONE))


def _mean(call: Call) -> Tensor:
    return named(call, times(call, _add(call), Fraction(1, len(call.inputs))))


def _multiply(call: Call) -> Tensor:
    zero = _zero_times_anything(call)
    if zero is not None:
        return zero
    first, second = call.tensor(0), call.tensor(1)
    if isinstance(first, Signal) and isinstance(second, Signal):
        same_shape(first, second)
        if first.only is not None and second.only is not None:
            (value, curve), (other, factor) = first.only, second.only
            if value == other:
                return named(call, with_curve(call, first, value, curve * factor))
        raise FormatError(
            "it multiplies two tensors that both depend on the input (need one constant): "
            "gates and attention are not affine."
        )
    signal, array = (first, second) if isinstance(first, Signal) else (second, first)
    if not isinstance(signal, Signal) or not isinstance(array, np.ndarray):
        raise FormatError("its inputs are no tensors.")
    refuse_narrow(signal)
    constant = without_samples(call, array, signal.shape)
    if constant.ndim == 0:
        return named(call, times(call, signal, fraction(constant)))
    return named(call, scaled(call, signal, scale=constant))


def _zero_times_anything(call: Call) -> Tensor | None:
    """Return 0 if a factor is 0, even if the other cannot be expressed.

    The gradient of a step is written so: ``step + slope * (x - x)``.
    """
    for factor, other in (call.inputs[:2], call.inputs[1::-1]):
        if isinstance(factor, np.ndarray) and isinstance(other, Refusal) and not factor.any():
            if other.shape is None:
                return None
            zero = np.zeros((), factor.dtype)
            return np.broadcast_to(zero, (call.build.batch, *other.shape))
    return None


def _divide(call: Call) -> Tensor:
    signal, divisor = call.tensor(0), call.tensor(1)
    if isinstance(divisor, Signal):
        if isinstance(signal, Signal) and signal.only and divisor.only:
            (value, curve), (other, by) = signal.only, divisor.only
            if value == other and signal.dtype.kind == "f":
                return named(call, with_curve(call, signal, value, curve * by.reciprocal()))
        raise FormatError("it divides by a tensor that depends on the input (need a constant).")
    if not isinstance(signal, Signal):
        raise FormatError("its inputs are no tensors.")
    if signal.dtype.kind != "f":
        raise FormatError("it divides whole numbers, which rounds. Cast to float32 before it.")
    constant = without_samples(call, divisor, signal.shape)
    if not constant.all():
        raise FormatError("it divides by zero.")
    if constant.ndim == 0:
        return named(call, times(call, signal, 1 / fraction(constant)))
    return named(call, scaled(call, signal, scale=1.0 / constant.astype(np.float64)))


def _negate(call: Call) -> Tensor:
    return named(call, times(call, call.signal(), -ONE))


ARITHMETIC: dict[str, Operator] = {
    "Add": _add,
    "Div": _divide,
    "Mean": _mean,
    "Mul": _multiply,
    "Neg": _negate,
    "Sub": _subtract,
    "Sum": _add,
}
"""Readers of operators of which an input depends on the network's input."""
