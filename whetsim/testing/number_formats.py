"""What a declared `IntegerFormat` says of a network, found out synapse by synapse.

Backends have their own, faster way to find it out; this one must not share code with it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from whetsim.arithmetic import IntegerFormat
from whetsim.connectivity import Convolution, Dense
from whetsim.model import INPUT, InputSpec
from whetsim.network import InputPopulation, Population, Projection, SpikingNetwork
from whetsim.testing.cases import Case

MOST_SYNAPSES = 400
"""Onto one neuron of a case."""

__all__ = ["Fate", "at_the_limits", "beyond_the_limits", "fate_of"]

Fate = Literal["exact", "inexact", "refused"]
"""It must run without a wrong spike, or run and say what happened to sums, or be refused."""


def fate_of(numbers: IntegerFormat, network: SpikingNetwork) -> Fate:
    """Return what a backend with such registers must do with a network, encoded as it runs."""
    return _worst(_fate_of(numbers, network, p) for p in network.populations)


def _fate_of(numbers: IntegerFormat, network: SpikingNetwork, population: Population) -> Fate:
    """Return what must become of one population."""
    stored: list[list[int]] = [[] for _ in range(population.size)]
    rows: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    arriving: list[list[int]] = [[] for _ in range(population.size)]
    for i, projection in enumerate(network.into(population.name)):
        for row, neurons, weight in _stored(projection):
            rows[i, row].append((neurons[0], weight))
            for neuron in neurons:
                stored[neuron].append(weight)
        for block in projection.connectivity.synapses():
            for target, weight in zip(block.target.tolist(), block.weight.tolist(), strict=True):
                arriving[target].append(weight)
    divisors = [math.gcd(*weights) for weights in stored]
    if any(isinstance(p.connectivity, Convolution) for p in network.into(population.name)):
        channels = population.shape[-1]
        divisors = [math.gcd(*divisors[j % channels :: channels]) for j in range(population.size)]
    divisors = [divisor or 1 for divisor in divisors]

    fates = [_fate_of_row(numbers, [w // divisors[j] for j, w in row]) for row in rows.values()]
    lines = 1
    if numbers.weight_values is not None:
        kinds = zip(stored, divisors, strict=True)
        lines = max([1, *(_types([w // d for w in weights]) for weights, d in kinds)])
        if lines > numbers.weight_values:
            return "refused"
    for j, weights in enumerate(arriving):
        least = int(population.threshold[j]) - int(population.bias[j])
        threshold = -(-least // divisors[j])
        fates.append(
            _fate_of_neuron(numbers, [w // divisors[j] for w in weights], threshold, lines)
        )
    return _worst(fates)


def _worst(fates: Iterable[Fate]) -> Fate:
    found = set(fates)
    return "refused" if "refused" in found else "inexact" if "inexact" in found else "exact"


def _stored(projection: Projection) -> Iterator[tuple[int, Sequence[int], int]]:
    """Yield every weight that is stored: its row, the neurons that it belongs to, and itself.

    A row is a source, or an input channel of a convolution, whose weights belong to all neurons of
    a channel, even where padding keeps them from some.
    """
    connectivity = projection.connectivity
    if isinstance(connectivity, Convolution):
        g = connectivity.geometry
        _, _, per_in, n_out = connectivity.weight.shape
        for index in np.ndindex(connectivity.weight.shape):
            _, _, c_in, c_out = index
            weight = int(connectivity.weight[index])
            if weight:
                group = c_out // (n_out // g.groups)
                neurons = range(c_out, connectivity.n_targets, n_out)
                yield group * per_in + c_in, neurons, weight
        return
    for block in connectivity.synapses():
        for source, target, weight in zip(*(part.tolist() for part in block), strict=True):
            yield source, (target,), weight


def _fate_of_row(numbers: IntegerFormat, weights: list[int]) -> Fate:
    """Return what must become of the weights that leave one source."""
    for shift in range(numbers.weight_shift + 1):
        shifted = [w // 2**shift for w in weights]
        if all(
            numbers.weight_min <= s <= numbers.weight_max and s * 2**shift == w
            for s, w in zip(shifted, weights, strict=True)
        ):
            return "exact"
    return "refused"


def _fate_of_neuron(numbers: IntegerFormat, weights: list[int], threshold: int, lines: int) -> Fate:
    positive = sum(w for w in weights if w > 0)
    negative = -sum(w for w in weights if w < 0)
    threshold = max(-negative, min(threshold, positive + 1))
    if not numbers.threshold_min <= threshold <= numbers.threshold_max:
        return "refused"
    if numbers.fan_in is not None and len(weights) * lines > numbers.fan_in:
        return "refused"
    limits = (
        (positive, numbers.positive_sum),
        (negative, numbers.negative_sum),
        (max(threshold, 1) + negative, numbers.membrane_max),
    )
    fits = all(limit is None or value <= limit for value, limit in limits)
    return "exact" if fits else "inexact"


def _types(weights: list[int]) -> int:
    """Return how many weights of its own a neuron needs: them all, or powers of two."""
    bits = 1
    while not all(-(2 ** (bits - 1)) <= w < 2 ** (bits - 1) for w in weights):
        bits += 1
    return min(len(set(weights)), bits)


def at_the_limits(numbers: IntegerFormat) -> dict[str, Case]:
    """Return cases that take registers to their ends and must be exact.

    Neurons tie with the largest sum that fits, and miss it by one; others fire unless all their
    inhibition arrives.
    """
    columns = [_column(numbers, sign, miss) for sign in (1, -1) for miss in (0, 1)]
    cases = {"sums": _one_layer([*columns, ([1], 1), ([1], 0)])}
    if numbers.fan_in is not None:
        cases["fan-in"] = _one_layer([([1] * numbers.fan_in, numbers.threshold_max % 200)])
    return cases


def _column(numbers: IntegerFormat, sign: int, miss: int) -> tuple[list[int], int]:
    """Return weights onto a neuron, of one sign and as large as fits, and their sum plus `miss`.

    A weight of 1 is among them, or they would have a divisor.
    """
    largest = numbers.weight_max if sign > 0 else -numbers.weight_min
    lines = 1 if numbers.weight_values is None else 2
    room = [
        numbers.positive_sum if sign > 0 else numbers.negative_sum,
        numbers.threshold_max - 1 if sign > 0 else -numbers.threshold_min,
        None if numbers.membrane_max is None else numbers.membrane_max - 1,
        None if numbers.fan_in is None else (numbers.fan_in // lines - 1) * largest,
        MOST_SYNAPSES * largest,
    ]
    total = min(r for r in room if r is not None) - 1
    weights = [1] + [largest] * (total // largest)
    if numbers.weight_values is None and total % largest:
        weights.append(total % largest)
    weights = [sign * w for w in weights]
    return weights, sum(weights) + miss


def beyond_the_limits(numbers: IntegerFormat) -> dict[str, Case]:
    """Return cases that each ask for one more than a register holds, by what is too much."""
    high, low = (numbers.weight_max << numbers.weight_shift), -numbers.weight_min
    low <<= numbers.weight_shift
    cases = {
        "weight": _one_layer([([high + 1, 1], 1)]),
        "negative weight": _one_layer([([-low - 1, 1], 1)]),
    }
    if numbers.fan_in is not None:
        cases["fan-in"] = _one_layer([([1] * (numbers.fan_in + 1), 1)])
    if numbers.weight_values is not None:
        n = numbers.weight_values
        cases["values"] = _one_layer([([1, *(2 ** (n - 1) + i for i in range(n))], 1)])
    copies = numbers.threshold_max // high + 1
    if copies < (numbers.fan_in or MOST_SYNAPSES):
        cases["threshold"] = _one_layer([([1] + [high] * copies, numbers.threshold_max + 1)])
    copies = -numbers.threshold_min // low + 1
    if copies < (numbers.fan_in or MOST_SYNAPSES):
        cases["low threshold"] = _one_layer([([-1] + [-low] * copies, numbers.threshold_min - 1)])
    return cases


def _one_layer(columns: list[tuple[list[int], int]]) -> Case:
    """Return a case of one population, a neuron for each column: its weights and its threshold."""
    n_inputs = max(len(weights) for weights, _ in columns)
    weight = np.zeros((n_inputs, len(columns)), dtype=np.int64)
    for j, (column, _) in enumerate(columns):
        weight[: len(column), j] = column
    threshold = np.array([t for _, t in columns])
    exponent = int(np.abs(weight).sum(axis=0).max() + np.abs(threshold).max()).bit_length() + 1
    bias = 2 ** (exponent - 1) - threshold
    source = InputPopulation((n_inputs,), 0, 1, "graded", InputSpec((n_inputs,), 0, 1))
    population = Population("a", (len(columns),), 1, bias, np.full(len(columns), exponent))
    network = SpikingNetwork(
        "limits", source, (population,), (Projection(INPUT, "a", Dense(weight), 1),), "a"
    )
    samples = np.tri(4, n_inputs, n_inputs - 3, dtype=np.int64)
    return Case(network, np.concatenate([samples, 0 * samples[:1], samples[-1:]]))
