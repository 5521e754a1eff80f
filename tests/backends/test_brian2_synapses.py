"""The flat arrays hold every synapse once, those of a neuron one behind the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from whetsim.backends.brian2_synapses import MOST, FlatSynapses, Part
from whetsim.connectivity import Connectivity, Convolution, Dense, Geometry
from whetsim.errors import UnsupportedError
from whetsim.network import Population


def target_of(connectivity: Connectivity, rng: np.random.Generator) -> Population:
    n = connectivity.n_targets
    return Population("target", (n,), 1, np.zeros(n, int), rng.integers(1, 30, n))


def filled(flat: FlatSynapses) -> tuple[Any, Any, Any]:
    n = len(flat)
    arrays = np.full(n, -1, np.int32), np.full(n, -1, np.int32), np.full(n, np.nan)
    flat.fill(*arrays)
    return arrays


def random_convolution(rng: np.random.Generator) -> Convolution:
    def pair(low: int, high: int) -> tuple[int, int]:
        return int(rng.integers(low, high)), int(rng.integers(low, high))

    groups = int(rng.integers(1, 3))
    source = (*pair(1, 9), groups * int(rng.integers(1, 4)))
    target = (*pair(1, 9), groups * int(rng.integers(1, 4)))
    g = Geometry(
        *(source, target, pair(1, 5), pair(1, 4), pair(1, 3), pair(1, 3), pair(0, 3), groups)
    )
    return Convolution(rng.integers(-2, 3, g.weight_shape), g)


@pytest.mark.parametrize("seed", range(40))
def test_convolution(seed: int) -> None:
    rng = np.random.default_rng(seed)
    connectivity = random_convolution(rng)
    population = target_of(connectivity, rng)
    source, target, weight = filled(FlatSynapses([Part(connectivity, population, 100, 1000, 0)]))
    expected = [
        (100 + i, 1000 + j, w * 2.0 ** -int(population.exponent[j]))
        for block in connectivity.synapses()
        for i, j, w in zip(*block, strict=True)
    ]
    assert sorted(zip(source, target, weight, strict=True)) == sorted(expected)
    assert np.count_nonzero(np.diff(source)) + 1 == len(set(source)) or not len(source)


def test_several_parts_and_their_delays() -> None:
    rng = np.random.default_rng(1)
    one, other = Dense(np.array([[1, 0], [2, 3]])), Dense(np.array([[2**40 + 1]]))
    parts = [
        Part(one, target_of(one, rng), 0, 5, 0),
        Part(other, Population("p", (1,), 1, np.zeros(1, int), np.array([53])), 7, 9, 2),
    ]
    source, target, weight = filled(FlatSynapses(parts))
    assert source.tolist() == [0, 1, 1, 7]
    assert target.tolist() == [5, 5, 6, 9]
    assert weight[3] == (2**40 + 1) * 2.0**-53
    assert FlatSynapses(parts).delays.tolist() == [0, 0, 0, 2]
    assert FlatSynapses(parts[1:]).delays.tolist() == [2]
    assert FlatSynapses([]).delays.tolist() == []


def test_more_than_brian2_can_count() -> None:
    """One kernel, so that nothing of the size is in memory."""
    g = Geometry((300, 300, 8), (300, 300, 8), (20, 20))
    connectivity = Convolution(np.ones(g.weight_shape, int), g)
    assert connectivity.n_synapses > MOST // 2
    part = Part(connectivity, target_of(connectivity, np.random.default_rng(0)), 0, 0, 0)
    with pytest.raises(UnsupportedError, match=r"^brian2: holds at most 2,147,483,647 synapses"):
        FlatSynapses([part, part])
