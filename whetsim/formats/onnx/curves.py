"""Exact functions of one number that are straight between corners.

What a file does to every unit of a tensor by itself (compare, clip, sign, round, add a constant)
is such a function, however it is written. Once the whole chain is one `Curve`, it is plain to see
whether that curve is a step, at which threshold, and what it gives for a tie.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from whetsim.errors import FormatError

__all__ = ["Curve", "Jump"]

MAX_CORNERS = 64
MAX_CANCELLED = 2**10
"""Largest numbers that may cancel in a sum: float32 then keeps four digits of what is left."""
MAX_BITS = 8192
"""Longest numerator or denominator: chains of products must not grow without end."""

ZERO, ONE = Fraction(0), Fraction(1)


class Line(NamedTuple):
    """``slope * x + offset``."""

    slope: Fraction
    offset: Fraction

    def at(self, x: Fraction) -> Fraction:
        """Return the value at x."""
        return self.slope * x + self.offset


class Jump(NamedTuple):
    """One corner at `x`, flat on both sides of it."""

    x: Fraction
    left: Fraction
    at: Fraction
    right: Fraction


@dataclass(frozen=True)
class Curve:
    """A function of one number, made of lines that hold between corners.

    Parameters
    ----------
    lines : tuple of Line
        One more than there are corners.
    corners : tuple of Fraction
        Rising.
    points : tuple of Fraction
        The value at each corner, which may be on neither line.
    """

    lines: tuple[Line, ...]
    corners: tuple[Fraction, ...] = ()
    points: tuple[Fraction, ...] = ()

    @classmethod
    def straight(cls, slope: Fraction, offset: Fraction) -> Curve:
        """Return ``slope * x + offset``."""
        return cls((Line(slope, offset),))

    @classmethod
    def constant(cls, value: Fraction) -> Curve:
        """Return the curve that has one value everywhere."""
        return cls.straight(ZERO, value)

    @property
    def is_identity(self) -> bool:
        """Whether the curve gives back what it gets."""
        return self == IDENTITY

    @property
    def is_straight(self) -> bool:
        """Whether the curve has no corner."""
        return not self.corners

    @property
    def value(self) -> Fraction | None:
        """The one value of a constant curve, None for any other."""
        return self.lines[0].offset if self.is_straight and not self.lines[0].slope else None

    @property
    def is_flat(self) -> bool:
        """Whether the curve is constant between its corners."""
        return not any(line.slope for line in self.lines)

    @property
    def jump(self) -> Jump | None:
        """The curve as a jump, if it is one."""
        if len(self.corners) != 1 or not self.is_flat:
            return None
        left, right = (line.offset for line in self.lines)
        return None if left == right else Jump(self.corners[0], left, self.points[0], right)

    @property
    def ramp(self) -> tuple[Fraction, Fraction] | None:
        """Where the curve begins and ends to go from one constant to another without a jump."""
        if len(self.corners) != 2:
            return None
        (first, middle, last), (start, end) = self.lines, self.corners
        joined = self.points == (first.offset, last.offset) == (middle.at(start), middle.at(end))
        return (start, end) if joined and not first.slope and not last.slope else None

    def __add__(self, other: Curve) -> Curve:
        _refuse_cancellation(self, other)
        return _merged(self, other, lambda f, g: Line(f.slope + g.slope, f.offset + g.offset))

    def __sub__(self, other: Curve) -> Curve:
        return self + other.times(-ONE)

    def times(self, factor: Fraction) -> Curve:
        """Return the curve times a number."""
        lines = tuple(Line(a * factor, b * factor) for a, b in self.lines)
        return _checked(lines, self.corners, tuple(p * factor for p in self.points))

    def __mul__(self, other: Curve) -> Curve:
        """Return the product, where one of the two is constant between all corners."""

        def product(f: Line, g: Line) -> Line:
            if f.slope and g.slope:
                raise FormatError("it multiplies a tensor with itself, which is not affine.")
            return Line(f.slope * g.offset + g.slope * f.offset, f.offset * g.offset)

        return _merged(self, other, product)

    def reciprocal(self) -> Curve:
        """Return 1 over a curve that is constant between its corners and never 0."""
        if not self.is_flat:
            raise FormatError("it divides by a tensor, which is not affine.")
        values = [*(line.offset for line in self.lines), *self.points]
        if not all(values):
            raise FormatError("it divides by zero.")
        lines = tuple(Line(ZERO, 1 / line.offset) for line in self.lines)
        return Curve(lines, self.corners, tuple(1 / p for p in self.points))

    def where(self, rule: Callable[[Fraction, Fraction], bool], other: Curve) -> Curve:
        """Return 1 where ``rule(self, other)``, else 0; rule depends on which is larger alone."""
        difference = self - other
        split = difference.split(lambda low, high: [ZERO] if low < 0 < high else [])
        return split.flat_values(lambda v: ONE if rule(v, ZERO) else ZERO)

    def rounded(self, rule: Callable[[Fraction], Fraction | int], *, half: bool) -> Curve:
        """Return ``rule(self)``, that is constant between whole numbers (`half`: and a half)."""
        shift = Fraction(1, 2) if half else ZERO

        def kinks(low: Fraction | None, high: Fraction | None) -> list[Fraction]:
            if low is None or high is None:
                raise FormatError("it rounds numbers that have no bounds.")
            first, last = math.floor(low - shift) + 1, math.ceil(high - shift) - 1
            if last - first >= MAX_CORNERS:
                raise FormatError(f"it rounds to more than {MAX_CORNERS} numbers.")
            return [Fraction(k) + shift for k in range(first, last + 1)]

        return self._split(kinks).flat_values(lambda v: Fraction(rule(v)))

    def split(self, kinks: Callable[[Fraction, Fraction], list[Fraction]]) -> Curve:
        """Return the same curve with corners where a line takes one of the values `kinks`."""
        far = Fraction(2) ** 2000

        def bounded(low: Fraction | None, high: Fraction | None) -> list[Fraction]:
            return kinks(-far if low is None else low, far if high is None else high)

        return self._split(bounded)

    def _split(self, kinks: Callable[[Fraction | None, Fraction | None], list[Fraction]]) -> Curve:
        """As `split`; a line without end has None for its largest or smallest value."""
        corners: list[Fraction] = []
        points: list[Fraction] = []
        lines: list[Line] = []
        for i, line in enumerate(self.lines):
            start = self.corners[i - 1] if i else None
            end = self.corners[i] if i < len(self.corners) else None
            if line.slope:
                ends = [None if x is None else line.at(x) for x in (start, end)]
                low, high = ends if line.slope > 0 else reversed(ends)
                places = sorted((v - line.offset) / line.slope for v in kinks(low, high))
                for place in places:
                    lines.append(line)
                    corners.append(place)
                    points.append(line.at(place))
            lines.append(line)
            if end is not None:
                corners.append(end)
                points.append(self.points[i])
        _refuse_many(corners)
        return Curve(tuple(lines), tuple(corners), tuple(points))

    def flat_values(self, rule: Callable[[Fraction], Fraction]) -> Curve:
        """Return the curve with ``rule`` of its values, which is constant between the corners."""
        lines = tuple(
            Line(ZERO, rule(line.at(inside)))
            for line, inside in zip(self.lines, _between(self.corners), strict=True)
        )
        return _checked(lines, self.corners, tuple(rule(p) for p in self.points))

    def _on(self, corners: tuple[Fraction, ...]) -> tuple[list[Line], list[Fraction]]:
        """Return lines and points for more corners."""
        lines = [self.lines[bisect.bisect(self.corners, x)] for x in _between(corners)]
        own = dict(zip(self.corners, self.points, strict=True))
        points = [
            own[x] if x in own else self.lines[bisect.bisect(self.corners, x)].at(x)
            for x in corners
        ]
        return lines, points


IDENTITY = Curve.straight(ONE, ZERO)


def _merged(first: Curve, second: Curve, rule: Callable[[Line, Line], Line]) -> Curve:
    corners = tuple(sorted({*first.corners, *second.corners}))
    _refuse_many(corners)
    (lines, points), (other_lines, other_points) = first._on(corners), second._on(corners)
    merged = tuple(rule(f, g) for f, g in zip(lines, other_lines, strict=True))
    # A point is a line of slope 0 in both curves.
    values = (
        rule(Line(ZERO, v), Line(ZERO, w)).offset for v, w in zip(points, other_points, strict=True)
    )
    return _checked(merged, corners, tuple(values))


def _refuse_cancellation(first: Curve, second: Curve) -> None:
    """Refuse a sum in which numbers so large cancel that float32 leaves nothing but rounding."""
    corners = tuple(sorted({*first.corners, *second.corners}))
    ends = (None, *corners, None)
    lines = zip(first._on(corners)[0], second._on(corners)[0], strict=True)
    for (f, g), start, end in zip(lines, ends, ends[1:], strict=False):
        steeper = max(abs(f.slope), abs(g.slope))
        total = Line(f.slope + g.slope, f.offset + g.offset)
        if abs(total.slope) * 2 >= steeper or total == (ZERO, ZERO):
            continue
        sizes = [steeper if x is None else abs(f.at(x)) for x in (start, end)]
        if max(sizes) > MAX_CANCELLED:
            raise FormatError(
                f"it subtracts numbers as large as {float(max(sizes)):.3g} from each other, so "
                "float32 rounds away what is left. Write it as x >= threshold."
            )


def _checked(
    lines: tuple[Line, ...], corners: tuple[Fraction, ...], points: tuple[Fraction, ...]
) -> Curve:
    """Return the curve without the corners that are none."""
    kept_lines, kept_corners, kept_points = [lines[0]], [], []
    for x, point, line in zip(corners, points, lines[1:], strict=True):
        if line == kept_lines[-1] and line.at(x) == point:
            continue
        kept_lines.append(line)
        kept_corners.append(x)
        kept_points.append(point)
    for number in (*kept_points, *(n for line in kept_lines for n in line)):
        if max(number.numerator.bit_length(), number.denominator.bit_length()) > MAX_BITS:
            raise FormatError("its constants multiply to numbers that no network has.")
    return Curve(tuple(kept_lines), tuple(kept_corners), tuple(kept_points))


def _between(corners: tuple[Fraction, ...]) -> list[Fraction]:
    """Return a place inside each stretch between corners."""
    if not corners:
        return [ZERO]
    middles = [(a + b) / 2 for a, b in itertools.pairwise(corners)]
    return [corners[0] - 1, *middles, corners[-1] + 1]


def _refuse_many(corners: list[Fraction] | tuple[Fraction, ...]) -> None:
    if len(corners) > MAX_CORNERS:
        raise FormatError(f"what it does to each unit has more than {MAX_CORNERS} corners.")
