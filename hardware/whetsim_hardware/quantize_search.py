"""Weights and thresholds with which fewest spikes flip.

Near the threshold, the sum of the rounded weights differs from the original sum by an error that is
about the same for all samples: a shift, which the threshold takes up, and a spread, which flips
spikes. Of several scales the one with the smallest spread is taken; then the threshold with fewest
flips.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim_hardware.quantize_inputs import Grouped, Rows
from whetsim_hardware.quantize_overflow import seen_sums
from whetsim_hardware.quantize_rules import Rules

__all__ = ["Solution", "by_flips", "by_largest", "fitting", "ideal_threshold"]

Floats = NDArray[np.float64]
Singles = NDArray[Any]

FACTORS = np.geomspace(1.0, 0.3, 12)
"""Scales that are tried, times the one at which no weight is clipped."""

FEEDBACK_COLUMNS = 2048
"""More columns are rounded one by one: error feedback takes the cube of their number."""

FEEDBACK_BLOCK = 64
DAMPING = 0.01
NEAR = 0.3
"""Standard deviation of the weights of samples near the threshold, in those of the sums."""

HEADROOM = 1.5
"""By how much sums on other samples may exceed those on the calibration samples."""

ROUNDED = 1.02
"""By how much rounding may raise the largest possible sum."""

SAFE_LEVELS = 127
"""Weights up to this are wide enough not to trade room for sums against them."""

MAX_BINS = 2**24


@dataclass(frozen=True, eq=False)
class Solution:
    """Whole numbers for one population.

    Parameters
    ----------
    weight : float array (n_columns, n_groups)
    sparse : tuple of float array
    threshold : float array (n_places, n_groups)
    scale : float array (n_groups,)
        An original weight is about this times the new one, on the network's grid.
    """

    weight: Floats
    sparse: tuple[Floats, ...]
    threshold: Floats
    scale: Floats

    def choose(self, other: Solution, which: NDArray[np.bool_], groups: Grouped) -> Solution:
        """Return this solution, with the groups `which` from another."""
        return Solution(
            np.where(which, other.weight, self.weight),
            tuple(
                np.where(which[part.group], theirs, mine)
                for part, mine, theirs in zip(groups.sparse, self.sparse, other.sparse, strict=True)
            ),
            np.where(which, other.threshold, self.threshold),
            np.where(which, other.scale, self.scale),
        )


def fitting(
    groups: Grouped, exponent: NDArray[np.int64], rules: Rules, worst: tuple[Floats, Floats]
) -> tuple[NDArray[np.bool_], Solution]:
    """Return which groups are whole numbers in range as they are, and these numbers.

    Groups that must share a scale fit all together or not at all. `worst` are the largest possible
    sums of the positive and of the negative weights of each group; none of them may overflow.
    """
    whole, scale = _divided_by_one(groups, exponent) if rules.one_scale else _divided(groups)
    scale = scale / rules.step
    weights = [w / scale[i] for w, i in groups.parts()]
    # Sums are whole steps: half a step lower is midway between the two that count.
    threshold = whole * rules.step - rules.step // 2
    inside = (threshold >= rules.threshold_low) & (threshold <= rules.threshold_high)
    fits = inside.all(axis=0)
    high, low = (groups.largest(of) / scale for of in (np.positive, np.negative))
    fits &= (high <= rules.high) & (low <= -rules.low)
    if rules.refusal:
        fits &= (high == 0) | (low == 0)
    fits &= rules.holds(worst[0] / scale, worst[1] / scale, threshold.max(axis=0))
    if rules.threshold_spread is not None and threshold.size:
        fits &= threshold.max() - threshold.min() <= rules.threshold_spread
    if rules.one_scale:
        fits[:] = fits.all()
    return fits, Solution(weights[0], tuple(weights[1:]), threshold, scale)


def _divided(groups: Grouped) -> tuple[Floats, Floats]:
    """Return thresholds in units of the weights' common divisor, and that divisor."""
    divisor = groups.divisor
    threshold = -((-groups.threshold.astype(np.int64)) // divisor)
    return threshold.astype(np.float64), divisor.astype(np.float64)


def _divided_by_one(groups: Grouped, exponent: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return thresholds and divisors as `_divided`, by one real number for all groups."""
    highest = int(exponent.max(initial=1))
    factors = [1 << (highest - int(e)) for e in exponent[0]]
    weighted = groups.largest(np.abs) > 0
    each = zip(groups.divisor, factors, weighted, strict=True)
    # On the grid of the highest exponent, in whole numbers that may be wide.
    divisor = math.gcd(*(int(d) * f for d, f, has in each if has)) or 1
    threshold = [
        [-((-int(t) * f) // divisor) for t, f in zip(place, factors, strict=True)]
        for place in groups.threshold
    ]
    return (
        np.array(threshold, dtype=np.float64).reshape(groups.threshold.shape),
        np.array([divisor / f for f in factors], dtype=np.float64),
    )


def by_largest(groups: Grouped, exponent: NDArray[np.int64], rules: Rules) -> Solution:
    """Round with one scale for all, at which the largest weight just fits.

    The threshold 0.5 and the bias are rounded likewise, each alone.
    """
    unit = np.ldexp(1.0, exponent[0].astype(np.int32))
    largest = max((_largest(w / unit[i]) for w, i in groups.parts()), default=0.0)
    scale = unit * (largest / rules.high or 1.0)
    weights = [rules.rounded(w / scale[i]) for w, i in groups.parts()]
    half = np.ldexp(0.5, exponent.astype(np.int32))
    threshold = np.floor(half / scale + 0.5) - np.rint((half - groups.threshold) / scale)
    threshold = _within(threshold, rules)
    return Solution(weights[0], tuple(weights[1:]), threshold, scale)


def by_flips(
    groups: Grouped,
    rows: Rows,
    original: Singles,
    fired: NDArray[np.bool_],
    rules: Rules,
    worst: tuple[Floats, Floats],
    unit: Floats,
) -> Solution:
    """Choose scale, weights and threshold of each group so that few spikes flip.

    Parameters
    ----------
    groups : Grouped
    rows : Rows
        What reaches the population now.
    original : float array (n_rows, n_groups)
        What the original weights add up to on the original spikes.
    fired : bool array (n_rows, n_groups)
        The original spikes.
    rules : Rules
    worst : pair of float array (n_groups,)
        Largest possible sums of the positive and of the negative weights.
    unit : float array (n_groups,)
        The number on the network's grid that stands for 1.
    """
    centre = np.median(groups.threshold, axis=0)
    shift = groups.threshold - centre
    largest = np.maximum(
        groups.largest(np.positive) / rules.high, groups.largest(np.negative) / -rules.low
    )
    smallest = _smallest_scale(groups, rows, original, rules, worst)
    start = np.where(largest > 0, np.maximum(largest, smallest), 1.0)
    if rules.one_scale:
        start = unit * (start / unit).max()
        smallest = unit * (smallest / unit).max()
    near = _nearness(original - _over_rows(groups.threshold, len(original)))
    rounding = _Rounding(groups, rows, rules)
    best: Solution | None = None
    cost = np.full(groups.n_groups, np.inf)
    for factor in FACTORS:
        scale = np.maximum(start * factor, smallest)
        weight, sparse = rounding.at(scale)
        error = rows.sums(weight, sparse) * scale.astype(original.dtype) - original
        mean = np.einsum("ij,ij->j", error, near, dtype=np.float64)
        spread = np.einsum("ij,ij,ij->j", error, error, near, dtype=np.float64) - mean**2
        threshold = np.rint((centre + mean) / scale) + np.rint(shift / scale)
        found = Solution(weight, sparse, threshold, scale)
        better = spread < cost
        if rules.one_scale:
            better[:] = (spread / unit**2).sum() < (cost / unit**2).sum()
        best = found if best is None else best.choose(found, better, groups)
        cost = np.where(better, spread, cost)
    assert best is not None
    sums = rows.sums(best.weight, best.sparse)
    return _with_fewest_flips(best, sums, fired, np.sqrt(np.maximum(cost, 0)), rules)


def ideal_threshold(
    sums: NDArray[Any], fired: NDArray[np.bool_], about: Floats, reach: int
) -> tuple[Floats, NDArray[np.int64]]:
    """Return for each column the threshold with fewest flips, and how many remain.

    Parameters
    ----------
    sums : array (n, m)
        Whole numbers.
    fired : bool array (n, m)
        What should fire.
    about : float array (m,)
        Where to look, and which to take of several that are equally good: the nearest.
    reach : int
        How far from there.
    """
    n_columns, bins = sums.shape[1], 2 * reach + 2
    first = np.rint(about) - reach
    # Bin b holds sums of first + b - 1; the outer ones whatever lies beyond.
    place = np.clip(sums - first + 1, 0, bins - 1).astype(np.int64)
    place += np.arange(n_columns) * bins
    up = np.bincount(place[fired], minlength=n_columns * bins).reshape(n_columns, bins)
    down = np.bincount(place[~fired], minlength=n_columns * bins).reshape(n_columns, bins)
    # At threshold first + t the spikes in bins up to t are lost, the silences above t are wrong.
    flips = np.cumsum(up, axis=1) + down.sum(axis=1, keepdims=True) - np.cumsum(down, axis=1)
    flips = flips[:, : bins - 1]
    distance = np.abs(np.arange(bins - 1) + first[:, None] - about[:, None])
    fewest = flips.min(axis=1)
    distance[flips > fewest[:, None]] = np.inf
    return first + distance.argmin(axis=1), fewest


def _with_fewest_flips(
    solution: Solution, sums: Singles, fired: NDArray[np.bool_], spread: Floats, rules: Rules
) -> Solution:
    about = np.median(solution.threshold, axis=0)
    sums = sums - _over_rows(solution.threshold - about, len(sums)).astype(sums.dtype)
    widest = float((spread / solution.scale).max(initial=0.0))
    reach = int(min(6 * widest + 4 * rules.step, MAX_BINS // max(1, 2 * sums.shape[1])))
    best, _ = ideal_threshold(sums, fired, about, reach)
    threshold = _within(solution.threshold + (best - about), rules)
    return Solution(solution.weight, solution.sparse, threshold, solution.scale)


def _within(threshold: Floats, rules: Rules) -> Floats:
    """Return thresholds midway between sums that weights of this step can make, and in range."""
    threshold = np.ceil(threshold / rules.step) * rules.step - rules.step // 2
    low, high = float(rules.threshold_low), float(rules.threshold_high)
    if rules.threshold_spread is not None and threshold.size:
        middle = np.rint(np.median(threshold))
        low = max(low, middle - rules.threshold_spread // 2)
        high = min(high, low + rules.threshold_spread)
    return np.clip(threshold, low, high)


def _smallest_scale(
    groups: Grouped, rows: Rows, original: Singles, rules: Rules, worst: tuple[Floats, Floats]
) -> Floats:
    """Return the scale of each group below which registers may overflow.

    No sum overflows on any sample where that leaves weights of `SAFE_LEVELS`; else none does on
    the calibration samples, with some headroom.
    """
    threshold = groups.threshold.max(axis=0)
    rounded = (worst[0] * ROUNDED, worst[1] * ROUNDED)
    always = rules.smallest_scale(*rounded, threshold)
    high, low = seen_sums(groups, rows, original, rules)
    here = rules.smallest_scale(
        np.minimum(high * HEADROOM, rounded[0]), np.minimum(low * HEADROOM, rounded[1]), threshold
    )
    enough = groups.largest(np.abs) / min(SAFE_LEVELS, rules.high)
    return np.where(always <= enough, always, here)


def _nearness(distance: Singles) -> Singles:
    """Return the weight of each sample for the error near the threshold; columns add up to 1."""
    width = NEAR * distance.std(axis=0) + np.finfo(distance.dtype).tiny
    # The nearest sample counts even where all are far away.
    nearest = np.abs(distance).min(axis=0, initial=np.inf)
    near = np.exp(-0.5 * ((np.abs(distance) - nearest) / width) ** 2)
    result: Singles = near / near.sum(axis=0)
    return result


def _over_rows(by_place: Floats, n_rows: int) -> Floats:
    if len(by_place) == 1:
        return by_place
    return np.tile(by_place, (n_rows // len(by_place), 1))


def _largest(values: Floats) -> float:
    return float(np.abs(values).max(initial=0.0))


class _Rounding:
    """Rounds the weights of a population at any scale."""

    def __init__(self, groups: Grouped, rows: Rows, rules: Rules) -> None:
        self._groups = groups
        self._rules = rules
        self._spill: Floats | None = None
        n = len(groups.weight)
        if 1 < n <= FEEDBACK_COLUMNS and len(rows.columns):
            together = (rows.columns.T @ rows.columns).astype(np.float64) / len(rows.columns)
            # The busiest inputs first: what later ones take up is best known.
            self._order = np.argsort(-np.diag(together), kind="stable")
            together = together[np.ix_(self._order, self._order)]
            mean = np.trace(together) / n
            together[np.diag_indices(n)] += DAMPING * mean if mean > 0 else 1.0
            self._spill = np.linalg.cholesky(np.linalg.inv(together)).T

    def at(self, scale: Floats) -> tuple[Floats, tuple[Floats, ...]]:
        groups, rules = self._groups, self._rules
        weight, *sparse = (
            np.where(w == 0, 0.0, rules.rounded(w / scale[i])) for w, i in groups.parts()
        )
        if self._spill is not None:
            weight = self._with_feedback(groups.weight / scale)
        return weight, tuple(sparse)

    def _with_feedback(self, given: Floats) -> Floats:
        """Round input by input; those that follow take up the error as far as they fire along.

        The change of the others that makes up best, in the mean square over the samples, for an
        error of one weight, is a row of the Cholesky factor of the inverse of the inputs' second
        moments (Hassibi and Stork 1993, Optimal Brain Surgeon; used one by one in this order by
        Frantar et al. 2022, arXiv 2210.17323).
        """
        spill = self._spill
        assert spill is not None
        weight = given[self._order]
        absent = weight == 0
        n = len(weight)
        rounded = np.empty_like(weight)
        for start in range(0, n, FEEDBACK_BLOCK):
            end = min(start + FEEDBACK_BLOCK, n)
            errors = np.empty((end - start, weight.shape[1]))
            for i in range(start, end):
                rounded[i] = np.where(absent[i], 0.0, self._rules.rounded(weight[i]))
                errors[i - start] = (weight[i] - rounded[i]) / spill[i, i]
                weight[i + 1 : end] -= spill[i, i + 1 : end, None] * errors[i - start]
            weight[end:] -= spill[start:end, end:].T @ errors
        result = np.empty_like(rounded)
        result[self._order] = rounded
        return result
