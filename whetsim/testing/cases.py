"""The networks and samples that every backend must run without one wrong spike.

What is expected comes from the integer oracle alone, run on the network and samples as they were
before any encoding, so that a mistake in an encoding shows too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from whetsim import layers as L
from whetsim.connectivity import Dense
from whetsim.mapping import map_to_spikes
from whetsim.model import INPUT, InputSpec, Model, Readout
from whetsim.network import Encoding, InputPopulation, Population, Projection, SpikingNetwork
from whetsim.testing import golden
from whetsim.testing.networks import dense_model, random_samples
from whetsim.testing.oracle import oracle_spikes

__all__ = ["CASES", "Case", "Spikes", "case", "on_coarsest_grid", "true_spikes", "widest_sums"]

Spikes = dict[str, list[tuple[int, int, int]]]
"""Population to sorted ``(sample, step, neuron)``, steps counted from that of the sample."""


@dataclass(frozen=True, eq=False)
class Case:
    """A network, samples, and the spikes that they must cause.

    Parameters
    ----------
    network : SpikingNetwork
    samples : integer array (n_samples, ...)
    is_coarse : bool
        Its weights lie on so coarse a grid that a few bits hold every sum.
    golden : dict, optional
        Spikes that were stored; computed by the oracle otherwise.
    """

    network: SpikingNetwork
    samples: NDArray[np.int64]
    is_coarse: bool = False
    golden: Spikes | None = None

    def __repr__(self) -> str:
        """Return enough to build the case by hand; hypothesis prints it."""
        lines = [f"input {self.network.input.low}..{self.network.input.high}"]
        for p in self.network.populations:
            lines.append(f"{p.name}: depth {p.depth}, bias {p.bias}, exponent {p.exponent}")
        for c in self.network.projections:
            lines.append(f"{c.source} -> {c.target}, delay {c.delay}, (source, target, weight):")
            lines += [
                f"  {np.stack(block, axis=1).tolist()}" for block in c.connectivity.synapses()
            ]
        return "\n".join([*lines, f"samples {self.samples.tolist()}"])

    def expected(self, encoding: Encoding) -> Spikes:
        """Return the spikes that this case must cause in an encoding."""
        if self.golden is not None and not (encoding == "binary" and self.network.input.is_graded):
            return self.golden
        return _expected(self, encoding)


@cache
def _expected(case: Case, encoding: Encoding) -> Spikes:
    return true_spikes(case.network, case.samples, encoding)


def true_spikes(
    network: SpikingNetwork, samples: NDArray[np.int64], encoding: Encoding = "graded"
) -> Spikes:
    """Return what the oracle says of samples, ``(n_samples, ...)``, in an encoding.

    Bit planes lose nothing, so the spikes are those of graded input. The binary encoding replaces
    a value of at least the middle of the range by the largest one, and any other by 0.
    """
    source = network.input
    values = samples.reshape(len(samples), source.size)
    if encoding == "binary" and source.is_graded:
        values = np.where(values >= (source.low + source.high + 1) // 2, source.high, 0)
    return oracle_spikes(network, values)


def on_coarsest_grid(network: SpikingNetwork) -> SpikingNetwork:
    """Return a network of equal spikes whose integers are as small as halving makes them."""
    shifts = {p.name: _spare_bits(network, p) for p in network.populations}
    populations = tuple(
        replace(p, bias=p.bias >> shifts[p.name], exponent=p.exponent - shifts[p.name])
        for p in network.populations
    )
    projections = tuple(
        replace(
            p,
            connectivity=replace(  # type: ignore[type-var]
                p.connectivity, weight=p.connectivity.weight >> shifts[p.target]
            ),
        )
        for p in network.projections
    )
    return replace(network, populations=populations, projections=projections)


def _spare_bits(network: SpikingNetwork, population: Population) -> int:
    """Return by how many bits all integers of a population can be shifted without loss."""
    together = int(np.bitwise_or.reduce(population.bias, initial=0))
    for projection in network.into(population.name):
        weight = projection.connectivity.weight.astype(np.int64)
        together |= int(np.bitwise_or.reduce(weight, axis=None, initial=0))
    spare = int(population.exponent.min(initial=53)) - 1
    return spare if together == 0 else min(spare, (together & -together).bit_length() - 1)


def _rng() -> np.random.Generator:
    return np.random.default_rng(20)


def _of_model(model: Model, n_samples: int, *, coarse: bool = False) -> Case:
    samples = random_samples(_rng(), model.input, n_samples)
    return Case(map_to_spikes(model), samples, is_coarse=coarse)


def _stored(name: str) -> Case:
    stored = golden.load(name)
    network = map_to_spikes(stored.model)
    spikes = {
        population: list(_spikes(raster, network[population].depth))
        for population, raster in stored.rasters.items()
    }
    return Case(network, stored.samples, golden=spikes)


def _spikes(raster: NDArray[np.bool_], depth: int) -> Iterator[tuple[int, int, int]]:
    for sample, neuron in np.argwhere(raster):
        yield int(sample), depth, int(neuron)


def _negative_inputs() -> Case:
    # The scale is a power of two, so that sums of grey values tie too.
    model = dense_model(_rng(), high=127)
    return _of_model(
        replace(model, input=InputSpec(model.input.shape, -128, 127, 1 / 64)), 8, coarse=True
    )


def _large_biases() -> Case:
    """Every neuron fires unless its inputs keep it from firing."""
    model = dense_model(_rng(), (6, 5, 4, 4))
    layers = tuple(
        replace(layer, bias=np.abs(layer.bias) + np.float32(0.5))
        if isinstance(layer, L.Dense) and layer.bias is not None
        else layer
        for layer in model.layers
    )
    return _of_model(replace(model, layers=layers), 6, coarse=True)


def _pool_before_step() -> Case:
    """Max pools in front of a step; behind them scales that are negative for every other channel.

    The pool then becomes an AND (its neurons have large negative biases) instead of an OR.
    """
    rng = _rng()
    channels = 4
    ones = np.ones(channels, np.float32)
    layers = (
        L.Conv2D(
            name="conv",
            inputs=(INPUT,),
            weight=rng.choice([-0.5, 0.25, 0.5], (2, 2, 1, channels)).astype(np.float32),
            padding="same",
        ),
        L.MaxPool2D(name="first", inputs=("conv",), pool_size=(2, 2), strides=(1, 1)),
        L.MaxPool2D(name="second", inputs=("first",), pool_size=(2, 2)),
        L.BatchNorm(
            name="norm",
            inputs=("second",),
            mean=0 * ones,
            variance=ones,
            gamma=np.array([1, -1, 1, -1], np.float32),
            beta=np.array([0, 1, 0.25, 0.5], np.float32),
            epsilon=0.0,
        ),
        L.Step(name="pooled", inputs=("norm",)),
        L.Flatten(name="flat", inputs=("pooled",)),
        L.Dense(
            name="dense", inputs=("flat",), weight=rng.choice([-0.25, 0.5], (16, 4)).astype("f4")
        ),
        L.Step(name="out", inputs=("dense",)),
    )
    model = Model(
        "pools", InputSpec((5, 5, 1), 0, 1), layers, readout=Readout(key=np.eye(4, dtype="u1"))
    )
    return _of_model(model, 8, coarse=True)


def _every_delay() -> Case:
    """Populations of depth 1 to 4, each fed by all before it: spikes travel 1 to 4 steps.

    Input values differ from sample to sample, and must not change on their way.
    """
    rng = _rng()
    sizes = {INPUT: 3, "a": 3, "b": 3, "c": 3, "d": 4}
    names = list(sizes)
    populations = tuple(
        Population(n, (sizes[n],), d, rng.integers(-2, 3, sizes[n]), np.full(sizes[n], 2))
        for d, n in enumerate(names[1:], start=1)
    )
    projections = tuple(
        Projection(s, t, Dense(rng.integers(-2, 4, (sizes[s], sizes[t]))), names.index(t) - i)
        for i, s in enumerate(names)
        for t in names[i + 1 :]
    )
    source = InputPopulation((3,), 0, 3, "graded", InputSpec((3,), 0, 3))
    network = SpikingNetwork("delays", source, populations, projections, "d")
    return Case(network, rng.integers(0, 4, (9, 3)), is_coarse=True)


def _smallest() -> Case:
    """One input, one neuron, one synapse."""
    source = InputPopulation((1,), 0, 1, "graded", InputSpec((1,), 0, 1))
    neuron = Population("only", (1,), 1, np.zeros(1, np.int64), np.ones(1, np.int64))
    synapse = Projection(INPUT, "only", Dense(np.ones((1, 1), np.int64)), 1)
    network = SpikingNetwork("smallest", source, (neuron,), (synapse,), "only")
    return Case(network, np.array([[1], [0], [1], [1]]), is_coarse=True)


def _ternary_weights() -> Case:
    """Weights of -1, 0 and 1, many onto a neuron, a convolution in front: what few bits hold."""
    rng = _rng()

    def values(*shape: int) -> NDArray[np.float32]:
        return rng.choice([-1, 0, 1], shape).astype(np.float32)

    layers = (
        L.Conv2D(
            name="conv",
            inputs=(INPUT,),
            weight=values(3, 2, 2, 4),
            bias=values(4) - np.float32(0.5),
            strides=(2, 1),
            padding="same",
        ),
        L.Step(name="maps", inputs=("conv",)),
        L.Flatten(name="flat", inputs=("maps",)),
        L.Dense(name="dense", inputs=("flat",), weight=values(40, 12), bias=values(12)),
        L.Step(name="hidden", inputs=("dense",)),
        L.Dense(name="last", inputs=("hidden",), weight=values(12, 4)),
        L.Step(name="out", inputs=("last",)),
    )
    model = Model(
        "ternary", InputSpec((4, 5, 2), 0, 1), layers, readout=Readout(key=np.eye(4, dtype="u1"))
    )
    return _of_model(model, 8, coarse=True)


def _no_synapses() -> Case:
    """Weights of zero are no synapses: the input leads nowhere, biases alone decide."""
    source = InputPopulation((2,), 0, 1, "graded", InputSpec((2,), 0, 1))
    two = np.full(3, 2)
    populations = (
        Population("a", (3,), 1, np.array([0, 1, 2]), two),
        Population("b", (3,), 2, np.array([1, 2, -1]), two),
    )
    projections = (
        Projection(INPUT, "a", Dense(np.zeros((2, 3), np.int64)), 1),
        Projection("a", "b", Dense(np.array([[0, 0, 0], [0, 0, 0], [1, -1, 2]])), 1),
    )
    network = SpikingNetwork("no synapses", source, populations, projections, "b")
    return Case(network, np.ones((4, 2), np.int64), is_coarse=True)


def _no_input_spikes() -> Case:
    busy = case("stored_dense_binary")
    return Case(busy.network, np.zeros_like(busy.samples[:4]))


def _one_sample() -> Case:
    busy = case("stored_dense_binary")
    return Case(busy.network, busy.samples[:1])


def _no_samples() -> Case:
    busy = case("stored_dense_binary")
    return Case(busy.network, busy.samples[:0])


CASES: dict[str, Callable[[], Case]] = {
    **{f"stored_{name}": partial(_stored, name) for name in golden.names()},
    "negative_inputs": _negative_inputs,
    "large_biases": _large_biases,
    "pool_before_step": _pool_before_step,
    "every_delay": _every_delay,
    "ternary_weights": _ternary_weights,
    "smallest": _smallest,
    "no_synapses": _no_synapses,
    "no_input_spikes": _no_input_spikes,
    "one_sample": _one_sample,
    "no_samples": _no_samples,
}
"""Name of each case to what makes it."""


@cache
def case(name: str) -> Case:
    """Return a case of `CASES`; each is made once."""
    return CASES[name]()


def widest_sums(bits: int, n_inputs: int = 100) -> Case:
    """Return a case whose sums take `bits` bits and meet the threshold or miss it by one step.

    Half of the neurons tie in one of the samples, the other half stay one grid step below the
    threshold, after adding up large weights of both signs.
    """
    rng = _rng()
    n_neurons, threshold = 24, 2 ** (bits - 1)
    largest = 2 ** (bits - 2) // n_inputs
    weight = rng.integers(-largest, largest, (n_inputs, n_neurons), endpoint=True)
    samples = rng.integers(0, 2, (4, n_inputs))
    sums = samples @ weight
    neuron = np.arange(n_neurons)
    bias = threshold - sums[neuron % len(samples), neuron] - neuron % 2
    source = InputPopulation((n_inputs,), 0, 1, "graded", InputSpec((n_inputs,), 0, 1))
    population = Population("a", (n_neurons,), 1, bias, np.full(n_neurons, bits))
    synapses = Projection(INPUT, "a", Dense(weight), 1)
    network = SpikingNetwork("widest sums", source, (population,), (synapses,), "a")
    assert network.sum_bits == bits
    return Case(network, samples)
