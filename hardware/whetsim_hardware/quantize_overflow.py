"""How large the sums get that a chip's registers must hold: on any input, and on some samples.

A chip that adds the signs apart sees the bit planes of a value, not the value: in two's complement
-1 is all ones, so a single small value may bring both sums a great deal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.coding import bit_factors
from whetsim.network import InputPopulation, Population, Projection, SpikingNetwork
from whetsim_hardware.quantize_inputs import Grouped, Rows
from whetsim_hardware.quantize_rules import Rules

__all__ = ["n_exposed", "seen_sums", "sign_plane", "worst_sums"]

Floats = NDArray[np.float64]
Singles = NDArray[Any]


def sign_plane(source: InputPopulation) -> int:
    """Return what the sign bit of an input value takes away; 0 if values have none."""
    if not source.is_graded:
        return 0
    return max(0, -int(bit_factors(source).min()))


def worst_sums(
    network: SpikingNetwork,
    population: Population,
    projections: Iterable[Projection],
    rules: Rules,
) -> tuple[Floats, Floats]:
    """Return for each neuron the largest possible sums of what arrives, positive and negative.

    Of a chip that adds the signs apart, each is what its own register has to hold.
    """
    positive = np.zeros(population.size, dtype=np.int64)
    negative = positive.copy()
    for projection in projections:
        plus, minus = (_of_sign(projection.connectivity, sign) for sign in (1, -1))
        upward, downward = 1, 0
        if projection.source == network.input.name:
            upward, downward = _largest_values(network.input, rules)
        positive += plus * upward + minus * downward
        negative += minus * upward + plus * downward
    return positive.astype(np.float64), negative.astype(np.float64)


def _of_sign(connectivity: Any, sign: int) -> NDArray[np.int64]:
    weight = connectivity.weight.astype(np.int64) * sign
    sums: NDArray[np.int64] = replace(connectivity, weight=np.maximum(weight, 0)).absolute_sums()
    return sums


def _largest_values(source: InputPopulation, rules: Rules) -> tuple[int, int]:
    """Return the most that an input value counts upward, and downward."""
    sign = sign_plane(source)
    if rules.signs_apart and sign:
        # Of -1 all planes are set: those below the sign's add up to one less than it.
        return sign - 1, sign
    return max(source.high, 0), max(-source.low, 0)


def seen_sums(
    groups: Grouped, rows: Rows, original: Singles, rules: Rules
) -> tuple[Floats, Floats]:
    """Return the largest sums on some samples that overflow could cut: of each sign, or in all.

    Parameters
    ----------
    groups : Grouped
    rows : Rows
    original : float array (n_rows, n_groups)
        What the original weights add up to.
    rules : Rules
    """
    signed: tuple[Singles, Singles] = (original, -original)
    if rules.signs_apart:
        plus, minus = _signed(groups, 1.0), _signed(groups, -1.0)
        upward, downward = rows.apart()
        signed = (upward.sums(*plus), upward.sums(*minus))
        if downward is not None:
            signed = (signed[0] + downward.sums(*minus), signed[1] + downward.sums(*plus))
    high, low = (s.max(axis=0, initial=0.0).astype(np.float64) for s in signed)
    return high, low


def _signed(groups: Grouped, sign: float) -> tuple[Floats, tuple[Floats, ...]]:
    weight, *sparse = (np.maximum(w * sign, 0.0) for w, _ in groups.parts())
    return weight, tuple(sparse)


def n_exposed(
    network: SpikingNetwork,
    population: Population,
    projections: Iterable[Projection],
    threshold: Floats,
    rules: Rules,
) -> int:
    """Return how many neurons some input could make overflow a register."""
    worst = worst_sums(network, population, projections, rules)
    return int((~rules.holds(*worst, threshold.ravel())).sum())
