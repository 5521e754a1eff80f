"""Random small networks whose sums often tie with the threshold, as a hypothesis strategy."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from whetsim.connectivity import Connectivity, Dense, Listed
from whetsim.model import INPUT, InputSpec
from whetsim.network import InputPopulation, Population, Projection, SpikingNetwork
from whetsim.testing.cases import Case

__all__ = ["random_cases"]

RANGES = ((0, 1), (0, 1), (0, 3), (-3, 4), (0, 255))
LARGEST_SIZE = 5
LARGEST_SAMPLES = 5
FINE_BITS = 20


@st.composite
def random_cases(draw: st.DrawFn, *, fine: bool = True) -> Case:
    """Draw a network of one to five populations, fed by any before them, and up to five samples.

    Weights are multiples of a quarter of the threshold. Half of the networks have each of them
    moved by up to one step of a grid that is 2^20 times finer, so that what tied is next to a tie.

    Parameters
    ----------
    fine : bool
        Draw such networks too; their sums take 34 bits and more.
    """
    low, high = draw(st.sampled_from(RANGES))
    shift = draw(st.sampled_from([0, FINE_BITS])) if fine else 0
    sizes = {INPUT: draw(st.integers(1, LARGEST_SIZE))}
    depths = {INPUT: 0}
    populations: list[Population] = []
    projections: list[Projection] = []
    for i in range(draw(st.integers(1, 5))):
        name = f"p{i}"
        # A source may be drawn twice: two projections between the same populations.
        sources = draw(st.lists(st.sampled_from(list(sizes)), min_size=1, max_size=3))
        size = sizes[name] = draw(st.integers(1, LARGEST_SIZE))
        depth = depths[name] = 1 + max(depths[s] for s in sources)
        bias = draw(_grid((size,), shift))
        exponent = shift + draw(arrays(np.int64, size, elements=st.integers(1, 3)))
        populations.append(Population(name, (size,), depth, bias, exponent))
        for source in sources:
            connectivity: Connectivity = Dense(draw(_grid((sizes[source], size), shift)))
            if draw(st.booleans()):
                connectivity = _listed(connectivity)
            projections.append(Projection(source, name, connectivity, depth - depths[source]))
    populations.sort(key=lambda p: p.depth)
    spec = InputSpec((sizes[INPUT],), low, high, 1.0)
    network = SpikingNetwork(
        name="random",
        input=InputPopulation(spec.shape, low, high, "graded", spec),
        populations=tuple(populations),
        projections=tuple(projections),
        output=populations[-1].name,
    )
    n_samples = draw(st.integers(0, LARGEST_SAMPLES))
    value = st.one_of(st.just(0), st.integers(low, high))
    samples = draw(arrays(np.int64, (n_samples, sizes[INPUT]), elements=value, fill=st.nothing()))
    return Case(network, samples, is_coarse=shift == 0)


def _grid(shape: tuple[int, ...], shift: int) -> st.SearchStrategy[NDArray[np.int64]]:
    def coarse(elements: st.SearchStrategy[int]) -> st.SearchStrategy[NDArray[np.int64]]:
        return arrays(np.int64, shape, elements=elements, fill=st.nothing())

    whole = coarse(st.integers(-4, 4))
    if not shift:
        return whole
    return st.builds(_moved, whole, coarse(st.integers(-1, 1)), st.just(shift))


def _moved(whole: NDArray[Any], offset: NDArray[Any], shift: int) -> NDArray[np.int64]:
    result: NDArray[np.int64] = (whole << shift) + offset
    return result


def _listed(dense: Dense | Connectivity) -> Listed:
    source, target = np.nonzero(dense.weight)
    start = np.searchsorted(source, np.arange(dense.n_sources + 1))
    weight = dense.weight[source, target]
    return Listed(start.astype(np.int64), target.astype(np.int64), weight, dense.n_targets)
