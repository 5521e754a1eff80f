"""`SpikingNetwork`: populations and projections on the integer grid; all a backend ever sees."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from whetsim.connectivity import Connectivity, Convolution, Dense, Listed
from whetsim.errors import MappingError
from whetsim.layers import Shape
from whetsim.model import INPUT, InputSpec, Readout

__all__ = ["InputPopulation", "Population", "Projection", "SpikingNetwork"]

Encoding = Literal["graded", "bitplane", "binary"]
ENCODINGS: tuple[Encoding, ...] = ("graded", "bitplane", "binary")

MAX_SUM_BITS = 53
"""Sums below 2^53 are exact in double precision, in any order."""


@dataclass(frozen=True)
class InputPopulation:
    """The neurons that carry a sample into the network.

    Parameters
    ----------
    shape : tuple of int
        Shape of the spikes of one sample.
    low, high : int
        Range of the values that input events carry; 0 and 1 for plain spikes.
    encoding : str
        How samples become events: ``graded``, ``bitplane`` or ``binary``.
    samples : InputSpec
        What a sample is before it is encoded.
    level : int, optional
        With ``binary``: a value spikes if it is >= level.
    rounds : bool
        Whether float samples may be rounded to the grid of `samples`.
    """

    shape: Shape
    low: int
    high: int
    encoding: Encoding
    samples: InputSpec
    level: int | None = None
    rounds: bool = False
    name: str = INPUT
    depth: int = 0

    @property
    def size(self) -> int:
        """Number of input neurons."""
        return math.prod(self.shape)

    @property
    def largest(self) -> int:
        """Largest absolute value that an event can carry."""
        return max(abs(self.low), abs(self.high))

    def bound(self, absolute_sums: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the largest sums that events can cause through weights of these absolute sums."""
        low, high = self.samples.low, self.samples.high
        if self.encoding != "bitplane":
            weight, together = 1, self.largest
        elif low >= 0:
            # A value spreads over its bits, and any of its bits add up to no more than it.
            weight, together = 2 ** high.bit_length() - 1, high
        else:
            # Two's complement: any bits add up to no more than the sign bit counts.
            together = 2 ** max(high, -low - 1, 1).bit_length()
            weight = 2 * together - 1
        result: NDArray[np.int64] = absolute_sums // weight * together
        return result

    @property
    def is_graded(self) -> bool:
        """Whether events carry values other than 1."""
        return (self.low, self.high) != (0, 1)


@dataclass(frozen=True, eq=False)
class Population:
    """Integrate-and-fire neurons that decide in one step.

    Neuron i fires iff ``sum(weight * spike) + bias[i] >= 2^(exponent[i] - 1)``, which is
    ``v >= 0.5`` for real weights ``weight * 2^-exponent[i]``.

    Parameters
    ----------
    name : str
    shape : tuple of int
        Shape of its spikes; neurons count with the last axis fastest.
    depth : int
        Step in which it decides, counted from the step of the sample.
    bias, exponent : integer array (n_neurons,)
    """

    name: str
    shape: Shape
    depth: int
    bias: NDArray[np.int64]
    exponent: NDArray[np.int64]

    def __post_init__(self) -> None:
        for key in ("bias", "exponent"):
            given = np.asarray(getattr(self, key))
            if not (given == np.rint(given)).all():
                raise MappingError(f"population {self.name!r}: {key} must be whole numbers.")
            array = given.astype(np.int64)
            if array.shape != (self.size,):
                raise MappingError(
                    f"population {self.name!r}: {key} has shape {array.shape}; need ({self.size},)."
                )
            array.flags.writeable = False
            object.__setattr__(self, key, array)
        if self.size and not 1 <= int(self.exponent.min()) <= int(self.exponent.max()) <= 53:
            raise MappingError(f"population {self.name!r}: exponents must be in 1..53.")

    @property
    def size(self) -> int:
        """Number of neurons."""
        return math.prod(self.shape)

    @property
    def threshold(self) -> NDArray[np.int64]:
        """Integer threshold of each neuron, ``2^(exponent - 1)``."""
        result: NDArray[np.int64] = np.left_shift(np.int64(1), self.exponent - 1)
        return result

    @property
    def real_bias(self) -> NDArray[np.float64]:
        """Bias on the scale where the threshold is 0.5; exact."""
        return np.ldexp(self.bias.astype(np.float64), -self.exponent.astype(np.int32))

    @property
    def half_grid_step(self) -> NDArray[np.float64]:
        """Half a grid step of each neuron on the scale where the threshold is 0.5."""
        return np.ldexp(1.0, -(self.exponent + 1).astype(np.int32))

    def coordinates(self, neuron: int) -> tuple[int, ...]:
        """Return the place of `neuron` in ``shape``."""
        return tuple(int(i) for i in np.unravel_index(neuron, self.shape))


@dataclass(frozen=True, eq=False)
class Projection:
    """Synapses from one population to another; a spike arrives `delay` steps later."""

    source: str
    target: str
    connectivity: Connectivity
    delay: int


@dataclass(frozen=True, eq=False)
class SpikingNetwork:
    """A network of integrate-and-fire neurons, one step per layer.

    Parameters
    ----------
    name : str
    input : InputPopulation
    populations : tuple of Population
        In the order of their depths.
    projections : tuple of Projection
    output : str
        Population whose spikes are the result.
    readout : Readout, optional
    graded_fingerprint : str, optional
        Fingerprint of the network before its input was encoded; its own by default.

    Raises
    ------
    MappingError
        If sizes, depths or delays do not fit, or a possible sum exceeds 53 bits.
    """

    name: str
    input: InputPopulation
    populations: tuple[Population, ...]
    projections: tuple[Projection, ...]
    output: str
    readout: Readout | None = None
    graded_fingerprint: str = ""
    _by_name: Mapping[str, Population | InputPopulation] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        by_name: dict[str, Population | InputPopulation] = {self.input.name: self.input}
        for population in self.populations:
            if population.name in by_name:
                raise MappingError(f"population {population.name!r}: the name is used twice.")
            by_name[population.name] = population
        object.__setattr__(self, "_by_name", MappingProxyType(by_name))
        if self.output not in by_name or self.output == self.input.name:
            raise MappingError(f"the output {self.output!r} is no population.")
        n_outputs = by_name[self.output].size
        if self.readout is not None and self.readout.n_outputs != n_outputs:
            raise MappingError(
                f"the readout decodes {self.readout.n_outputs} outputs; {self.output!r} has "
                f"{n_outputs} neurons."
            )
        if list(self.populations) != sorted(self.populations, key=lambda p: p.depth):
            raise MappingError("populations must be in the order of their depths.")
        for projection in self.projections:
            self._check(projection)
        if self.sum_bits > MAX_SUM_BITS:
            raise MappingError(
                f"a sum may need {self.sum_bits} bits (need <= {MAX_SUM_BITS}); weights are too "
                "large for the exponents."
            )
        if not self.graded_fingerprint:
            object.__setattr__(self, "graded_fingerprint", self.fingerprint)

    def __repr__(self) -> str:
        return (
            f"SpikingNetwork({self.name!r}: {len(self.populations)} populations, "
            f"{self.n_neurons:,} neurons, {self.n_synapses:,} synapses, depth {self.depth})"
        )

    def _check(self, projection: Projection) -> None:
        where = f"projection {projection.source!r} -> {projection.target!r}"
        source, target = self._by_name.get(projection.source), self._by_name.get(projection.target)
        if source is None or target is None or target is self.input:
            raise MappingError(f"{where}: source or target is no population.")
        shape = (projection.connectivity.n_sources, projection.connectivity.n_targets)
        if shape != (source.size, target.size):
            raise MappingError(f"{where}: connects {shape}; need {(source.size, target.size)}.")
        if projection.delay != target.depth - source.depth or projection.delay < 1:
            raise MappingError(
                f"{where}: delay is {projection.delay}; depths {source.depth} and {target.depth} "
                f"need {target.depth - source.depth}, at least 1."
            )

    def __getitem__(self, name: str) -> Population:
        """Return the population called `name`; the input has no spikes of its own to compute."""
        population = self._by_name[name]
        if not isinstance(population, Population):
            raise KeyError(name)
        return population

    def size_of(self, name: str) -> int:
        """Return the number of neurons of a population or of the input."""
        return self._by_name[name].size

    def into(self, name: str) -> Iterator[Projection]:
        """Yield the projections that reach population `name`."""
        return (p for p in self.projections if p.target == name)

    def real_weight(self, projection: Projection, weight: Any, target: Any) -> Any:
        """Return integer weights onto neurons `target` on the scale with threshold 0.5; exact."""
        exponent = self[projection.target].exponent[target]
        return np.ldexp(np.asarray(weight, dtype=np.float64), -exponent.astype(np.int32))

    @property
    def depth(self) -> int:
        """Largest depth: steps from a sample to its last decision."""
        return max((p.depth for p in self.populations), default=0)

    @property
    def n_neurons(self) -> int:
        """Number of neurons, input not counted."""
        return sum(p.size for p in self.populations)

    @cached_property
    def n_synapses(self) -> int:
        """Number of synapses."""
        return sum(p.connectivity.n_synapses for p in self.projections)

    @cached_property
    def largest_sums(self) -> Mapping[str, NDArray[np.int64]]:
        """For each population the largest |sum + bias| that any input could cause, per neuron."""
        result = {p.name: np.abs(p.bias) for p in self.populations}
        for p in self.projections:
            sums = p.connectivity.absolute_sums()
            if p.source == self.input.name:
                sums = self.input.bound(sums)
            result[p.target] = result[p.target] + sums
        return MappingProxyType(result)

    @cached_property
    def sum_bits(self) -> int:
        """Bits that the largest possible sum (or threshold) needs, sign not counted."""
        largest = max((int(s.max(initial=0)) for s in self.largest_sums.values()), default=0)
        threshold = max((int(p.threshold.max(initial=1)) for p in self.populations), default=1)
        return max(largest, threshold).bit_length()

    @cached_property
    def max_fan_in(self) -> int:
        """Largest number of synapses onto one neuron."""
        total = {p.name: np.zeros(p.size, dtype=np.int64) for p in self.populations}
        for p in self.projections:
            total[p.target] += p.connectivity.fan_in
        return max((int(t.max(initial=0)) for t in total.values()), default=0)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over everything that decides which neuron fires, as 64 hexadecimal digits."""
        digest = hashlib.sha256()

        def add(*values: Any) -> None:
            for value in values:
                if isinstance(value, np.ndarray):
                    digest.update(f"{value.shape}".encode())
                    digest.update(np.ascontiguousarray(value, dtype="<i8").data)
                else:
                    digest.update(f"{value!r};".encode())

        add(self.input)
        for population in self.populations:
            add(population.name, population.shape, population.depth)
            add(population.bias, population.exponent)
        for projection in self.projections:
            add(projection.source, projection.target, projection.delay)
            match projection.connectivity:
                case Dense(weight):
                    add("dense", weight)
                case Listed(start, target, weight, n_targets):
                    add("listed", start, target, weight, n_targets)
                case Convolution(weight, geometry):
                    add("convolution", weight, geometry)
        return digest.hexdigest()
