"""What operators on single units share: constants, curves and names."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import FormatError, quote
from whetsim.formats.graph import Value
from whetsim.formats.onnx.call import Call, without_samples
from whetsim.formats.onnx.curves import ONE, ZERO, Curve
from whetsim.formats.onnx.steps import Signal, Tensor, shifted

__all__ = [
    "Rule",
    "aligned",
    "as_floats",
    "at_least",
    "at_most",
    "fraction",
    "named",
    "one_term",
    "picked",
    "recast",
    "refuse_narrow",
    "same_shape",
    "scaled",
    "sum_of",
    "times",
    "with_curve",
]

Rule = Callable[[Fraction, Fraction], bool]


def sum_of(call: Call, first: Tensor, second: Tensor, sign: Fraction) -> Tensor:
    """Return ``first + sign * second``."""
    if isinstance(first, Signal) and isinstance(second, Signal):
        same_shape(first, second)
        refuse_narrow(first)
        terms = [*first.terms, *((v, c.times(sign)) for v, c in second.terms)]
        return call.build.sum_of(terms, first.dtype, call.label, call.op_type)
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        # The first is what is left of signals that cancel: one number for all units.
        number = first.flat[0]
        return np.broadcast_to(number + second if sign > 0 else number - second, first.shape)
    if isinstance(first, Signal) and isinstance(second, np.ndarray):
        return _plus_constant(call, first, second, sign)
    if isinstance(second, Signal) and isinstance(first, np.ndarray):
        signed = tuple((v, c.times(sign)) for v, c in second.terms)
        return _plus_constant(call, replace(second, terms=signed), first, ONE)
    raise FormatError("its inputs are no tensors.")


def _plus_constant(call: Call, signal: Signal, array: NDArray[Any], sign: Fraction) -> Signal:
    refuse_narrow(signal)
    # A bias stays one, even if all its values are equal.
    is_bias = array.size > 1 and call.build.lacks_bias(signal)
    constant = without_samples(call, array, signal.shape, merge=not is_bias)
    if constant.ndim == 0:
        return replace(signal, terms=shifted(signal.terms, fraction(constant) * sign))
    shift_array = constant if sign > 0 else -constant
    return scaled(call, signal, shift=shift_array)


def times(call: Call, tensor: Tensor, factor: Fraction) -> Tensor | Any:
    if not isinstance(tensor, Signal):
        raise FormatError("its inputs are no tensors.")
    if not factor:
        zero = np.zeros((), tensor.dtype)
        return np.broadcast_to(zero, (call.build.batch, *tensor.shape))
    return replace(tensor, terms=tuple((v, c.times(factor)) for v, c in tensor.terms))


def scaled(call: Call, signal: Signal, **constants: NDArray[Any]) -> Signal:
    """Return the signal with a scale or a shift that differs from unit to unit."""
    arrays = {k: a if a.dtype.kind == "f" else a.astype(np.float32) for k, a in constants.items()}
    value = call.build.graph.scale_and_shift(call.name, call.build.plain(signal), **arrays)
    return call.build.signal(value, signal.dtype, call.label)


def aligned(call: Call, first: Signal, second: Tensor) -> tuple[Value, Curve, Curve]:
    """Return two tensors as curves of one value; their difference alone may be right."""
    if isinstance(second, np.ndarray):
        constant = without_samples(call, second, first.shape)
        if constant.ndim == 0:
            value, curve = one_term(call, first)
            return value, curve, Curve.constant(fraction(constant))
        # Thresholds of their own: what is left after subtracting them is compared with 0.
        shifted = scaled(call, first, shift=-as_floats(constant))
        value, curve = one_term(call, shifted)
        return value, curve, Curve.constant(ZERO)
    if not isinstance(second, Signal):
        raise FormatError("its inputs are no tensors.")
    same_shape(first, second)
    if first.only and second.only and first.only[0] == second.only[0]:
        return first.only[0], first.only[1], second.only[1]
    difference = sum_of(call, first, second, -ONE)
    if not isinstance(difference, Signal):
        raise FormatError("it compares two tensors that are equal.")
    value, curve = one_term(call, difference)
    return value, curve, Curve.constant(ZERO)


def recast(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Return an array of another type; one number for all units stays a view."""
    if any(array.strides):
        return array.astype(dtype)
    return np.broadcast_to(array.reshape(-1)[:1].reshape(()).astype(dtype), array.shape)


def with_curve(call: Call, like: Signal, value: Value, curve: Curve) -> Signal | NDArray[Any]:
    """Return a curve of a value, as an array if it is constant."""
    return call.build.sum_of([(value, curve)], like.dtype, like.label, call.op_type)


def named(call: Call, result: Tensor, before: Signal | None = None) -> Tensor:
    """Return the result with the name of its node."""
    if not isinstance(result, Signal):
        return result
    if before is None:
        before = next((t for t in call.inputs if isinstance(t, Signal)), None)
        steps = [t for t in call.inputs if isinstance(t, Signal) and t.step is not None]
        before = steps[0] if steps else before
    return call.build.named(result, call.label, call.op_type, before)


def one_term(call: Call, signal: Signal) -> tuple[Value, Curve]:
    (term,) = call.build.collapsed(signal).terms
    return term


def same_shape(first: Signal, second: Signal) -> None:
    if first.shape != second.shape:
        raise FormatError(
            f"two tensors of shapes {first.shape} and {second.shape} meet (need equal shapes)."
        )


def refuse_narrow(signal: Signal) -> None:
    if signal.dtype.kind == "b" or (signal.dtype.kind in "iu" and signal.dtype.itemsize < 4):
        raise FormatError(f"it computes with type {signal.dtype}. Cast to float32 before it.")


def fraction(number: Any) -> Fraction:
    """Return a constant exactly."""
    value = number.item() if hasattr(number, "item") else number
    if isinstance(value, float) and not math.isfinite(value):
        raise FormatError(f"a constant is {value}; need a finite number.")
    if not isinstance(value, (bool, int, float)):
        raise FormatError(f"a constant is {quote(value)}; need a number.")
    return Fraction(value)


def as_floats(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def at_least(x: Fraction, y: Fraction) -> bool:
    return x >= y


def at_most(x: Fraction, y: Fraction) -> bool:
    return x <= y


def picked(curve: Curve, other: Curve, rule: Rule) -> Curve:
    chosen = curve.where(rule, other)
    return chosen * curve + (Curve.constant(ONE) - chosen) * other
