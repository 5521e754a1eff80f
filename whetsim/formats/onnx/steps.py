"""Tensors of an ONNX graph while it is read, and the recognition of steps.

A tensor that depends on the input is a `Signal`: a sum of curves, each of one layer's values.
Operations on single units only change the curves. Where another operation needs the values, the
curve becomes layers: a step if it is one, whichever way the file writes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from whetsim import layers as L
from whetsim.errors import FormatError, quote
from whetsim.formats.graph import Graph, Reading, Value
from whetsim.formats.onnx.curves import ONE, ZERO, Curve, Jump
from whetsim.formats.onnx.nodes import Label
from whetsim.layers import Shape

__all__ = [
    "Builder",
    "Cells",
    "Last",
    "Refusal",
    "Repeated",
    "Signal",
    "Tensor",
    "Uncut",
    "shifted",
]

MAX_WEIGHTS = 2**24
SHARP_WIDTH = Fraction(1, 2**24)
"""A ramp as narrow as this holds no float32 near 0.5 but its middle."""


Term = tuple[Value, Curve]


@dataclass(frozen=True)
class Signal:
    """A tensor that depends on the input: the sum of ``curve(value)`` over its terms.

    Parameters
    ----------
    terms : tuple of (Value, Curve)
        Values of one shape, without the axis of the samples; no value twice.
    dtype : dtype
        As in the file.
    label : Label
        Of the node that made it.
    step : Label, optional
        Of the node that made it a step, if it is one.
    words : tuple of str
        Operators that made the curve.
    """

    terms: tuple[Term, ...]
    dtype: np.dtype[Any]
    label: Label
    step: Label | None = None
    words: tuple[str, ...] = ()

    @property
    def shape(self) -> Shape:
        """Shape of one sample."""
        return self.terms[0][0].shape

    @property
    def only(self) -> Term | None:
        """The one term, None if there are more."""
        return self.terms[0] if len(self.terms) == 1 else None


class Refusal(NamedTuple):
    """A tensor that cannot be expressed; an error only if the output depends on it."""

    error: FormatError
    shape: Shape | None = None
    """Of one sample, where it is known."""


class Last(NamedTuple):
    """What a final softmax or argmax makes of a signal: nothing may follow."""

    signal: Signal
    remark: str


Tensor = NDArray[Any] | Signal | Refusal | Last


Cells = tuple[int, int]
"""Before and after."""


class Uncut(NamedTuple):
    """A transposed convolution that can still be made smaller.

    Parameters
    ----------
    make : callable
        Of a name, the cells cut off each axis, and those added behind.
    pads, extra : tuple
        What it was made with.
    """

    make: Callable[[str, Sequence[Cells], Sequence[int]], Value]
    pads: tuple[Cells, ...]
    extra: tuple[int, ...]


class Repeated(NamedTuple):
    """An axis of size 1 that was repeated."""

    value: Value
    axis: int
    factor: int


@dataclass(eq=False)
class Builder:
    """Makes layers of signals.

    Parameters
    ----------
    graph : Graph
    reading : Reading
    batch : int
        Samples that constants of the file are made for: 1 where it is left open.
    keep_ramps : bool
        Keep activations that are not sharp yet, as whetsim writes them.
    """

    graph: Graph
    reading: Reading
    batch: int
    keep_ramps: bool = False
    uncut: dict[str, Uncut] = field(default_factory=dict)
    repeated: dict[str, Repeated] = field(default_factory=dict)
    _n_weights: int = 0
    _made: dict[Term, Value] = field(default_factory=dict)
    _sources: dict[str, Value] = field(default_factory=dict)
    _sums: dict[tuple[Term, ...], Value] = field(default_factory=dict)

    def signal(self, value: Value, dtype: np.dtype[Any], label: Label) -> Signal:
        """Return a layer's values as a signal."""
        return Signal(((value, Curve.straight(ONE, ZERO)),), dtype, label)

    def sum_of(
        self, terms: list[Term], dtype: np.dtype[Any], label: Label, word: str
    ) -> Signal | NDArray[Any]:
        """Return the sum of curves; an array if it is constant.

        ``x + (step - x)``, as straight-through gradients are written, is the step.
        """
        curves: dict[Value, Curve] = {}
        for value, curve in terms:
            curves[value] = curves[value] + curve if value in curves else curve
        rest = sum((c.value or ZERO for c in curves.values()), ZERO)
        varying = [(v, c) for v, c in curves.items() if c.value is None]
        shape = terms[0][0].shape
        if not varying:
            number = np.array(float(rest)).astype(dtype)
            return np.broadcast_to(number, (self.batch, *shape))
        return Signal(shifted(varying, rest), dtype, label, None, (word,))

    def plain(self, signal: Signal) -> Value:
        """Return a signal as one layer's values."""
        if signal.only is not None:
            return self._layer(*signal.only, signal)
        key = signal.terms
        if key not in self._sums:
            values = [self._layer(v, c, signal, inner=True) for v, c in signal.terms]
            self._sums[key] = self.graph.add(signal.label.name, values)
        return self._sums[key]

    def reshape(self, name: str, value: Value, shape: Shape) -> Value:
        """Return a value in another shape; of several reshapes in a row one stays."""
        plain = tuple(range(value.rank))
        if value.order == plain and value.name in self._sources:
            value = self._sources[value.name]
        made = self.graph.reshape(name, value, shape)
        if made.name != value.name:
            self._sources[made.name] = value
        return made

    def spend(self, n_weights: int) -> None:
        """Refuse a file that makes many weights of few numbers."""
        self._n_weights += n_weights
        if self._n_weights > MAX_WEIGHTS:
            raise FormatError(
                f"what it cuts out takes {self._n_weights} weights of 0 and 1, all in all (need <= "
                f"{MAX_WEIGHTS}). Cut less, or nearer to the input."
            )

    def lacks_bias(self, signal: Signal) -> bool:
        """Return whether a signal is what an affine layer without a bias makes."""
        if signal.only is None or not signal.only[1].is_identity:
            return False
        layer = self.graph.layers.get(signal.only[0].name)
        kinds = (L.Dense, L.Convolution, L.Conv2DTranspose)
        return isinstance(layer, kinds) and layer.bias is None

    def collapsed(self, signal: Signal) -> Signal:
        """Return the signal as one curve of one value."""
        if signal.only is not None:
            return signal
        return self.signal(self.plain(signal), signal.dtype, signal.label)

    def named(self, signal: Signal, label: Label, word: str, before: Signal | None) -> Signal:
        """Return the signal with the label of its node, and of its step if it is one."""
        words = (*(before.words if before is not None else ()), word)[-8:]
        if before is not None and before.terms == signal.terms:
            words = before.words
        if signal.only is not None and signal.only[1].is_identity:
            words = ()
        if signal.only is None or signal.only[1].jump is None:
            return replace(signal, label=label, words=words)
        step = before.step if before is not None else None
        was_step = before is not None and before.only is not None and before.only[1].jump
        if not was_step or step is None or (label.scope and label.scope == step.scope):
            return replace(signal, label=label, step=label, words=words)
        # What only scales and shifts a finished step leaves its name to it.
        return replace(signal, label=label, step=step, words=before.words if before else words)

    def _layer(self, value: Value, curve: Curve, signal: Signal, inner: bool = False) -> Value:
        """Return ``curve(value)`` as a layer, made once."""
        if curve.is_identity:
            return value
        # A transposed value is the same layer: made once, then seen in the same order.
        stored = Value(
            value.name, tuple(value.shape[a] for a in value.order), tuple(range(value.rank))
        )
        if (stored, curve) not in self._made:
            name = f"{signal.label.name}/{value.name}" if inner else signal.label.name
            self._made[stored, curve] = self._express_by_name(stored, curve, name, signal)
        return Value(self._made[stored, curve].name, value.shape, value.order)

    def _express_by_name(self, value: Value, curve: Curve, name: str, signal: Signal) -> Value:
        """Return ``curve(value)`` as a layer; an error names the node that made the curve."""
        try:
            return self._express(value, curve, name, signal)
        except FormatError as error:
            if str(error).startswith("layer "):
                raise
            made_by = signal.step.name if signal.step is not None else name
            words = " of ".join(dict.fromkeys(reversed(signal.words)))
            raise FormatError(f"node {quote(made_by)} ({words}): {error}") from None

    def _express(self, value: Value, curve: Curve, name: str, signal: Signal) -> Value:
        if curve.is_straight:
            return self._scaled(name, value, *curve.lines[0])
        if curve.jump is not None:
            return self._step(value, curve.jump, name, signal)
        if curve.ramp is not None:
            return self._ramp(value, curve, name, signal)
        rectified = _relu_inside(curve)
        if rectified is not None:
            return self.graph.activation(
                name, self._scaled(f"{name}/in", value, *rectified), "relu"
            )
        if curve.is_flat:
            places = ", ".join(f"{float(x):.6g}" for x in curve.corners[:4])
            raise FormatError(
                f"its value changes at x = {places}{', ...' if len(curve.corners) > 4 else ''}; a "
                "step has one threshold, and another value on each side. Train it with a step."
            )
        raise FormatError(
            "what it does to each unit is no step (need one threshold, and one value on each side "
            "of it). Train it with a step activation."
        )

    def _scaled(self, name: str, value: Value, slope: Fraction, offset: Fraction) -> Value:
        scale = None if slope == ONE else _number(slope)
        shift = None if offset == ZERO else _number(offset)
        if scale is None and shift is None:
            return value
        return self.graph.scale_and_shift(name, value, scale=scale, shift=shift)

    def _step(self, value: Value, jump: Jump, name: str, signal: Signal) -> Value:
        """Return a jump as a step, scaled if its values are not 0 and 1."""
        step_name = signal.step.name if signal.step is not None else name
        words = " of ".join(dict.fromkeys(reversed(signal.words)))
        words = f"{words}, threshold {float(jump.x):.9g}"
        if jump.at not in (jump.left, jump.right):
            self._refuse_soft_tie(jump, step_name)
        falling = (jump.left, jump.right) == (ONE, ZERO)
        strict = jump.at == (jump.right if falling else jump.left)
        step = self._bare_step(value, jump.x, step_name, words, strict, falling)
        if falling or (jump.left, jump.right) == (ZERO, ONE):
            return step
        return self._scaled(
            name if name != step_name else f"{step_name}/levels",
            step,
            jump.right - jump.left,
            jump.left,
        )

    def _bare_step(
        self, value: Value, threshold: Fraction, name: str, words: str, strict: bool, falling: bool
    ) -> Value:
        """Return a step of 0 and 1, made once for all that scale it."""
        one, zero = Curve.constant(ONE), Curve.constant(ZERO)
        key = Curve(
            (zero if not falling else one).lines + (one if not falling else zero).lines,
            (threshold,),
            (ZERO if strict else ONE,),
        )
        if (value, key) not in self._made:
            self._made[value, key] = self.graph.step(
                name,
                value,
                _nearest(threshold),
                strict=strict,
                falling=falling,
                written_as=words,
            )
        return self._made[value, key]

    def _refuse_soft_tie(self, jump: Jump, name: str) -> None:
        if not self.reading.assume_sharp:
            raise FormatError(
                f"its value for a tie (x = {float(jump.x):.9g}) is {float(jump.at):.6g}, neither "
                f"{float(jump.left):.6g} nor {float(jump.right):.6g}, so it is not quite a step. "
                "Write it as x >= threshold, or load with assume_sharp=True; a tie then fires."
            )
        self.graph.remarks.append(
            f"{name}: a tie gives {float(jump.at):.6g} in the file; here it fires (assume_sharp)"
        )

    def _ramp(self, value: Value, curve: Curve, name: str, signal: Signal) -> Value:
        """Return a ramp as a step in its middle, if the caller lets it pass for one."""
        start, end = curve.ramp or (ZERO, ZERO)
        left, right = curve.lines[0].offset, curve.lines[-1].offset
        width = end - start
        if self.keep_ramps and (left, right, start + end) == (ZERO, ONE, ONE) and width <= 1:
            return self.graph.activation(name, value, "bounded_relu", sharpness=1 - float(width))
        if not self.reading.assume_sharp:
            if width <= SHARP_WIDTH:
                middle = float(left + right) / 2
                raise FormatError(
                    f"it is a step but for its tie, where its value is {middle:.6g}. Write it as "
                    "x >= threshold, or load with assume_sharp=True; a tie then fires."
                )
            raise FormatError(
                f"it has sharpness {float(max(ZERO, 1 - width)):.6g} (it rises over a width of "
                f"{float(width):.6g}), so it is not a step function yet. Finish sharpening, or "
                "load with assume_sharp=True."
            )
        self.graph.remarks.append(
            f"{name}: it rises over a width of {float(width):.6g}; taken for a step (assume_sharp)"
        )
        at = max(left, right)
        lines = (curve.lines[0], curve.lines[-1])
        sharp = Curve(lines, ((start + end) / 2,), (at,))
        return self._step(value, Jump(sharp.corners[0], left, at, right), name, signal)


def shifted(terms: Iterable[Term], number: Fraction) -> tuple[Term, ...]:
    """Return terms whose sum is larger by a number; a step among them stays one if it can."""
    terms = list(terms)
    if number:
        i = next((i for i, (_, curve) in enumerate(terms) if curve.is_straight), 0)
        terms[i] = terms[i][0], terms[i][1] + Curve.constant(number)
    return tuple(terms)


def _relu_inside(curve: Curve) -> tuple[Fraction, Fraction] | None:
    """Return slope and offset of the line that is rectified, if the curve is one."""
    if len(curve.corners) != 1:
        return None
    x, point = curve.corners[0], curve.points[0]
    for flat, line in (curve.lines, curve.lines[::-1]):
        rises = (line.slope > 0) == (line is curve.lines[1])
        if flat == (ZERO, ZERO) and line.slope and rises and point == line.at(x) == ZERO:
            return line.slope, line.offset
    return None


def _nearest(number: Fraction) -> float:
    try:
        return float(number)
    except OverflowError:
        raise FormatError("its threshold is larger than any number.") from None


def _number(number: Fraction) -> np.floating[Any]:
    """Return a constant as float32 if that holds it, else as float64."""
    wide = _nearest(number)
    narrow = np.float32(wide)
    exact = math.isfinite(narrow) and Fraction(float(narrow)) == number
    return narrow if exact else np.float64(wide)
