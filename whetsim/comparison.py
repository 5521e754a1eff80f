"""`compare`: two runs side by side, spike by spike; the first difference, and why.

In the first sample that differs, the shallowest population that differs saw the same inputs in both
runs. So its sum can be computed exactly, and says which of the two decided right, and by how much.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.coding import encode_samples
from whetsim.errors import SampleError
from whetsim.recording import Recording
from whetsim.sums import NetworkSums

__all__ = ["Agreement", "Comparison", "Difference", "agreement", "compare"]


@dataclass(frozen=True)
class Difference:
    """One neuron that spiked in one run and not in the other.

    Parameters
    ----------
    sample : int
    population : str
    step : int
        Step after the presentation of the sample in which the population decides.
    neuron : int, optional
        None if the runs kept counts alone.
    coordinates : tuple of int, optional
        Place of the neuron in the shape of its population: (y, x, channel) in a map.
    spikes : (bool, bool), optional
        Whether it spiked in the first and in the second run.
    v : float, optional
        What it had to decide on, exactly: it fires iff v >= 0.5.
    margin : float, optional
        ``|v - 0.5|``.
    cause : str
    """

    sample: int
    population: str
    step: int
    neuron: int | None = None
    coordinates: tuple[int, ...] | None = None
    spikes: tuple[bool, bool] | None = None
    v: float | None = None
    margin: float | None = None
    cause: str = "run with record='rasters' to name the neuron and the cause"

    def __str__(self) -> str:
        text = f"sample {self.sample}, population {self.population!r}, step {self.step}"
        if self.neuron is not None:
            place = ", ".join(map(str, self.coordinates or ()))
            text += f", neuron {self.neuron} at ({place})"
        if self.spikes is not None:
            text += f": {int(self.spikes[0])} and {int(self.spikes[1])}"
        if self.v is not None:
            text += f"; v = {self.v:.9g}, margin {self.margin:.3g}"
        return f"{text}; cause: {self.cause}"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two runs of one network on the same samples.

    Parameters
    ----------
    names : (str, str)
        Backends of the two runs.
    n_samples : int
    differences : mapping
        Population to the number of spikes that differ. If a run kept counts alone, to the number
        of samples whose spikes differ, a lower bound.
    counted : bool
        Whether `differences` counts spikes.
    first : Difference, optional
        In the earliest sample, the shallowest population.
    n_predictions : int
        Samples with different predictions.
    accuracy : (float, float), optional
        Of the two runs, if labels were given.
    """

    names: tuple[str, str]
    n_samples: int
    differences: Mapping[str, int]
    counted: bool
    first: Difference | None
    n_predictions: int
    accuracy: tuple[float, float] | None

    @property
    def n_differences(self) -> int:
        """Number of differing spikes; a lower bound unless `counted`."""
        return sum(self.differences.values())

    def __str__(self) -> str:
        a, b = self.names
        unit = "differing spikes" if self.counted else "samples with differing spikes (at least)"
        lines = [f"{a} and {b}, {self.n_samples} samples: {self.n_differences} {unit}"]
        lines += [f"  {name}: {n}" for name, n in self.differences.items() if n]
        if self.first is not None:
            lines.append(f"  first: {self.first}")
        if self.accuracy is not None:
            lines.append(f"  accuracy {self.accuracy[0]:.2%} and {self.accuracy[1]:.2%}")
        return "\n".join(lines)


def compare(first: Recording, second: Recording, labels: ArrayLike | None = None) -> Comparison:
    """Compare two runs of one network on the same samples, spike by spike.

    Parameters
    ----------
    first, second : Recording
        The first is taken for the truth when a cause is looked for. Without rasters in both, the
        fingerprints of each sample are compared, and neurons cannot be named.
    labels : integer array (n_samples,), optional

    Returns
    -------
    Comparison

    Raises
    ------
    SampleError
        If the runs have different populations or samples.
    """
    populations = first.network.populations
    mine = [(p.name, p.shape) for p in populations]
    if mine != [(p.name, p.shape) for p in second.network.populations]:
        raise SampleError("compare: the runs are of networks with different populations.")
    if first.n_samples != second.n_samples:
        raise SampleError(
            f"compare: {first.n_samples} and {second.n_samples} samples. Run both on the same ones."
        )
    if first.samples_digest != second.samples_digest:
        raise SampleError("compare: the runs are on different samples. Run both on the same ones.")
    counted = first.has_rasters and second.has_rasters
    differences: dict[str, int] = {}
    differing = np.zeros((len(populations), first.n_samples), dtype=bool)
    for i, population in enumerate(populations):
        name = population.name
        if counted:
            bits = first.packed[name] ^ second.packed[name]
            differing[i] = bits.any(axis=1)
            rows = np.unpackbits(bits[differing[i]], axis=1)
            differences[name] = int(rows.sum())
        else:
            differing[i] = first.digests[name] != second.digests[name]
            differences[name] = int(differing[i].sum())
    predictions = 0
    if first.scores is not None and second.scores is not None:
        predictions = int((first.predictions != second.predictions).sum())
    accuracy = None
    if labels is not None:
        truth = np.asarray(labels)
        accuracy = (first.accuracy(truth), second.accuracy(truth))
    return Comparison(
        names=(first.backend, second.backend),
        n_samples=first.n_samples,
        differences=differences,
        counted=counted,
        first=_first(first, second, differing, counted),
        n_predictions=predictions,
        accuracy=accuracy,
    )


def _first(
    a: Recording, b: Recording, differing: NDArray[np.bool_], counted: bool
) -> Difference | None:
    samples = np.nonzero(differing.any(axis=0))[0]
    if not samples.size:
        return None
    sample = int(samples[0])
    population = a.network.populations[int(np.nonzero(differing[:, sample])[0][0])]
    name = population.name
    if not counted:
        return Difference(sample, name, population.depth)
    mine, other = a.raster(name), b.raster(name)
    neuron = int(np.nonzero(mine[sample] != other[sample])[0][0])
    spikes = bool(mine[sample, neuron]), bool(other[sample, neuron])
    place = population.coordinates(neuron)
    if a.samples is None:
        return Difference(sample, name, population.depth, neuron, place, spikes, cause="unknown")
    threshold = int(population.threshold[neuron])
    total = _sum(a, sample, name, neuron)
    v = float(np.ldexp(total, -int(population.exponent[neuron])))
    right = total >= threshold
    if a.network.graded_fingerprint != b.network.graded_fingerprint:
        cause = "different networks: weights, biases or thresholds of the two runs are not the same"
    elif spikes[1] == right:
        cause = f"{a.backend} decided wrong; take the other run for the truth"
    else:
        cause = _cause(a, mine, other, sample, name, neuron, total, threshold)
    margin = abs(v - 0.5)
    return Difference(sample, name, population.depth, neuron, place, spikes, v, margin, cause)


def _sum(a: Recording, sample: int, name: str, neuron: int) -> int:
    assert a.samples is not None
    values = encode_samples(a.samples[sample : sample + 1], a.network.input)
    return int(NetworkSums(a.network).of(values)[name][0, neuron])


def _cause(
    a: Recording,
    mine: NDArray[np.bool_],
    other: NDArray[np.bool_],
    sample: int,
    name: str,
    neuron: int,
    total: int,
    threshold: int,
) -> str:
    """Return what would explain that the second run decided wrong, most telling first."""
    got = bool(other[sample, neuron])
    if total == threshold:
        return "tie: the sum equals the threshold, and the second run fires on > instead of >="
    for bits in (8, 16, 24, 32):
        half = 1 << (bits - 1)
        wrapped = (total + half) % (2 * half) - half
        if wrapped != total and (wrapped >= threshold) == got and threshold < half:
            return f"overflow: the sum {total} does not fit {bits} bits"
    largest = int(a.network.largest_sums[name][neuron])
    if abs(total - threshold) <= largest * 2.0**-22:
        return "rounding: the sum is closer to the threshold than float32 can tell"
    for shift, word in ((1, "late"), (-1, "early")):
        moved = np.roll(mine, shift, axis=0)
        inside = slice(1, None) if shift == 1 else slice(None, -1)
        if len(mine) > 2 and np.array_equal(moved[inside], other[inside]):
            return f"wrong step: the second run's spikes come one sample {word}"
    if sample > 0 and not mine[sample - 1, neuron]:
        before = _sum(a, sample - 1, name, neuron)
        if (total + before >= threshold) == got:
            return "leaked state: charge of the sample before was still there"
    return "unexplained: neither tie, overflow, rounding, wrong step nor leaked state"


@dataclass(frozen=True, eq=False)
class Agreement:
    """How many spikes differ between each two of several runs.

    Parameters
    ----------
    names : tuple of str
    matrix : int array (n_runs, n_runs)
        Symmetric, zero on the diagonal.
    comparisons : tuple of Comparison
        The first run against each other one.
    """

    names: tuple[str, ...]
    matrix: NDArray[np.int64]
    comparisons: tuple[Comparison, ...]

    @property
    def agrees(self) -> bool:
        """Whether not one spike and not one prediction differs."""
        return not self.matrix.any() and not any(c.n_predictions for c in self.comparisons)


def agreement(recordings: Mapping[str, Recording]) -> Agreement:
    """Compare several runs of one network, each with each.

    Parameters
    ----------
    recordings : mapping
        Name to recording; the first is taken for the truth.

    Raises
    ------
    SampleError
        If the runs do not fit each other.
    """
    names = tuple(recordings)
    matrix = np.zeros((len(names), len(names)), dtype=np.int64)
    against_first = []
    for i, a in enumerate(names):
        for j in range(i + 1, len(names)):
            result = compare(recordings[a], recordings[names[j]])
            matrix[i, j] = matrix[j, i] = result.n_differences
            if i == 0:
                against_first.append(result)
    return Agreement(names, matrix, tuple(against_first))
