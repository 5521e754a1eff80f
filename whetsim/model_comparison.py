"""`compare_with_model`: a run against the float32 network it came from.

The only differences that may be are ties: units so close to their threshold that float32 rounding
decides. Each is listed with its margin; what a tie causes in later layers is told apart, and so is
a real fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim import layers as L
from whetsim.coding import to_integers
from whetsim.errors import SampleError
from whetsim.model import INPUT, Model
from whetsim.network import Population
from whetsim.recording import Recording
from whetsim.reference import forward, forward_with_error

__all__ = ["ModelComparison", "UnitDifference", "compare_with_model"]

BLOCK_VALUES = 2**23


@dataclass(frozen=True)
class UnitDifference:
    """One unit where the spiking network and the float32 network differ by themselves.

    Parameters
    ----------
    sample : int
    population : str
    neuron : int
    coordinates : tuple of int
        Place in the shape of the population.
    spike : bool
        Whether the spiking network fired.
    x : float
        What reaches the step, computed in float64 from the spikes that really arrived.
    margin : float
        ``|x - threshold|``.
    bound : float
        How far float32 arithmetic and the grid may be off here. A tie has a margin within it.
    """

    sample: int
    population: str
    neuron: int
    coordinates: tuple[int, ...]
    spike: bool
    x: float
    margin: float
    bound: float

    def __str__(self) -> str:
        place = ", ".join(map(str, self.coordinates))
        return (
            f"sample {self.sample}, {self.population!r} neuron {self.neuron} at ({place}): spike "
            f"{int(self.spike)}, float32 network {int(not self.spike)}; x = {self.x:.9g}, margin "
            f"{self.margin:.3g}, rounding bound {self.bound:.3g}"
        )


@dataclass(frozen=True, eq=False)
class ModelComparison:
    """A run against its float32 network.

    Parameters
    ----------
    backend : str
    n_samples, n_units : int
        Samples, and units compared in each.
    differences : mapping
        Population to the number of units that differ.
    ties : tuple of UnitDifference
        Differences that float32 rounding explains.
    faults : tuple of UnitDifference
        Differences that nothing explains.
    n_predictions : int
        Samples with different predictions.
    accuracy : (float, float), optional
        Of the float32 network and of the run, if labels were given.
    """

    backend: str
    n_samples: int
    n_units: int
    differences: Mapping[str, int]
    ties: tuple[UnitDifference, ...]
    faults: tuple[UnitDifference, ...]
    n_predictions: int
    accuracy: tuple[float, float] | None

    @property
    def n_differences(self) -> int:
        """Units that differ, ties, their consequences and faults together."""
        return sum(self.differences.values())

    def __str__(self) -> str:
        total = self.n_samples * self.n_units
        lines = [
            f"{self.backend} and the float32 network, {self.n_samples:,} samples: "
            f"{self.n_differences:,} of {total:,} units differ"
            + (
                f": {len(self.ties)} ties, {len(self.faults)} faults, the rest follow from them"
                if self.n_differences
                else ""
            )
        ]
        lines += [f"  tie: {tie}" for tie in self.ties[:10]]
        lines += [f"  fault: {fault}" for fault in self.faults[:10]]
        more = max(len(self.ties) - 10, 0) + max(len(self.faults) - 10, 0)
        if more:
            lines.append(f"  and {more} more")
        return "\n".join(lines)


def compare_with_model(
    model: Model,
    recording: Recording,
    samples: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> ModelComparison:
    """Compare every unit of a run with the float32 forward pass of its model.

    A unit that differs is looked at again with the spikes that really reached it. If float32 then
    agrees, the difference follows from an earlier one. If not, it is a tie when the distance to
    the threshold is within the rounding bound of `whetsim.reference.forward_with_error` plus that
    of the grid, and a fault otherwise. Populations that stand for no layer (a step that was moved
    in front of its max pool) are covered by the population behind them.

    Parameters
    ----------
    model : Model
    recording : Recording
        With rasters.
    samples : integer array (n_samples, ...), optional
        The samples of the run; those kept in the recording by default.
    labels : integer array (n_samples,), optional

    Returns
    -------
    ModelComparison

    Raises
    ------
    SampleError
        If the recording has no rasters, or the number of samples does not fit.
    """
    if not recording.has_rasters:
        raise SampleError("compare_with_model: needs spikes. Run with record='rasters'.")
    network = recording.network
    if network.input.encoding == "binary":
        raise SampleError(
            "compare_with_model: the binary encoding lost the grey levels that the float32 network "
            "reads. Run graded or with bit planes, or compare with a run of backend 'exact'."
        )
    sizes = {p.name: p.size for p in network.populations}
    steps = {layer.name for layer in model.layers if isinstance(layer, L.Step)}
    shared = sizes.keys() & model.shapes.keys()
    if not steps <= shared or any(math.prod(model.shapes[n]) != sizes[n] for n in shared):
        raise SampleError("compare_with_model: the run is of another network than this model.")
    given = recording.samples if samples is None else samples
    assert given is not None
    # Samples are compared as the network reads them, whatever encoding carried them.
    integers = to_integers(given, network.input) if samples is not None else np.asarray(given)
    if len(integers) != recording.n_samples:
        raise SampleError(
            f"compare_with_model: {len(integers)} samples for a run of {recording.n_samples}."
        )
    # Integers are worth here what they were worth when the network was mapped.
    model = replace(model, input=network.input.samples)
    populations = [p for p in network.populations if p.name in model.shapes]
    differences = {p.name: 0 for p in populations}
    found: list[UnitDifference] = []
    scores = []
    rasters = {p.name: recording.raster(p.name) for p in populations}
    units = sum(int(np.prod(shape)) for shape in model.shapes.values())
    size = max(1, BLOCK_VALUES // units)
    for start in range(0, len(integers), size):
        part = slice(start, start + size)
        values = forward(model, integers[part])
        block = {name: raster[part] for name, raster in rasters.items()}
        wrong = np.zeros(len(integers[part]), dtype=bool)
        for name, raster in block.items():
            unequal = values[name].reshape(raster.shape).astype(bool) != raster
            differences[name] += int(unequal.sum())
            wrong |= unequal.any(axis=1)
        if wrong.any():
            rows = np.nonzero(wrong)[0]
            spikes = {n: r[rows].astype(np.float32) for n, r in block.items()}
            found += _look_again(model, recording, integers[part][rows], spikes, rows + start)
        if model.readout is not None:
            scores.append(model.readout.scores(values[model.output].reshape(len(wrong), -1)))
    # The same order whatever the size of a block.
    found.sort(key=lambda difference: difference.sample)
    n_predictions, accuracy = _decoded(model, recording, scores, labels)
    return ModelComparison(
        backend=recording.backend,
        n_samples=recording.n_samples,
        n_units=sum(p.size for p in populations),
        differences=differences,
        ties=tuple(d for d in found if d.margin <= d.bound),
        faults=tuple(d for d in found if not d.margin <= d.bound),
        n_predictions=n_predictions,
        accuracy=accuracy,
    )


def _look_again(
    model: Model,
    recording: Recording,
    samples: NDArray[Any],
    spikes: Mapping[str, NDArray[Any]],
    numbers: NDArray[np.int64],
) -> Iterator[UnitDifference]:
    """Yield the units that differ although the float32 network reads the same spikes."""
    forced = forward(model, samples, given=spikes)
    bounds = forward_with_error(model, samples, given=spikes)
    for name, raster in spikes.items():
        layer = model[name]
        # A pool of 0/1 maps is exact, so there is no bound that would excuse a difference.
        threshold = layer.threshold if isinstance(layer, L.Step) else 0.5
        population = recording.network[name]
        unequal = forced[name].reshape(raster.shape) != raster
        x, bound = (part.reshape(raster.shape) for part in bounds[name])
        if isinstance(layer, L.Step):
            bound = bound + _grid_bound(recording, population, samples, spikes)
        for row, neuron in np.argwhere(unequal):
            yield UnitDifference(
                sample=int(numbers[row]),
                population=name,
                neuron=int(neuron),
                coordinates=population.coordinates(int(neuron)),
                spike=bool(raster[row, neuron]),
                x=float(x[row, neuron]),
                margin=abs(float(x[row, neuron]) - threshold),
                bound=float(bound[row, neuron]),
            )


def _grid_bound(
    recording: Recording,
    population: Population,
    samples: NDArray[Any],
    spikes: Mapping[str, NDArray[Any]],
) -> NDArray[np.float64]:
    """Return how far rounding to the grid may move each sum: half a grid step an event value."""
    events = np.ones((len(samples), 1))
    for projection in recording.network.into(population.name):
        if projection.source == INPUT:
            events += np.abs(samples.astype(np.float64)).sum(axis=1, keepdims=True)
        else:
            events += recording.network.size_of(projection.source)
    return events * population.half_grid_step


def _decoded(
    model: Model, recording: Recording, scores: list[NDArray[np.float64]], labels: ArrayLike | None
) -> tuple[int, tuple[float, float] | None]:
    if model.readout is None or not scores:
        return 0, None
    predictions = np.concatenate(scores).argmax(axis=1)
    accuracy = None
    if labels is not None:
        truth = np.asarray(labels)
        of_run = recording.accuracy(truth)
        accuracy = (float((predictions == truth).mean()), of_run)
    return int((predictions != recording.predictions).sum()), accuracy
