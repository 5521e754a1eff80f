"""Operations of a run, under the names of NeuroBench and as a chip counts them.

References
----------
J. Yik et al.: The NeuroBench framework for benchmarking neuromorphic computing algorithms and
systems. Nature Communications 16, 1545 (2025). What each name counts is that of the package
neurobench 2.3; ``docs/chips.md`` lists where the two differ.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.connectivity import Connectivity, Convolution, Listed
from whetsim.errors import SampleError, UnsupportedError, WhetsimError, quote
from whetsim.network import Projection, SpikingNetwork
from whetsim.recording import Recording
from whetsim.registry import get_backend

__all__ = ["Operations", "PopulationOperations", "count_operations", "label_of"]

MAX_INTEGER = np.iinfo(np.int64).max

LABELS = {
    "reference": "measured in simulation",
    "simulated": "measured in simulation",
    "emulated": "emulated",
    "hardware": "measured on hardware",
}


@dataclass(frozen=True)
class PopulationOperations:
    """Operations of one population, mean of a sample.

    Parameters
    ----------
    name : str
    n_neurons : int
    spikes : float
    synops : float
        Spikes times synapses that reached it.
    macs : float
        Those of them that multiply, because the input carried a value.
    dense : int
        Synapses onto it, those of weight 0 too.
    n_weights, n_zero_weights, n_biases : int
        Parameters that it stores; a kernel counts once.
    is_pool : bool
        Whether it stands for a max pool, which NeuroBench does not count.
    """

    name: str
    n_neurons: int
    spikes: float
    synops: float
    macs: float
    dense: int
    n_weights: int
    n_zero_weights: int
    n_biases: int
    is_pool: bool


@dataclass(frozen=True)
class Operations:
    """Operations of a run, mean of a sample.

    Parameters
    ----------
    network, backend, encoding, label : str
        What ran where, and whether that makes the counts simulated or emulated ones.
    n_samples, depth : int
    input_spikes : float
        Input events.
    populations : tuple of PopulationOperations
    weight_bytes : float
        Bytes of a stored weight or bias.
    """

    network: str
    backend: str
    encoding: str
    label: str
    n_samples: int
    depth: int
    input_spikes: float
    populations: tuple[PopulationOperations, ...]
    weight_bytes: float

    @property
    def effective_acs(self) -> float:
        """Additions: synops of spikes, pools left out."""
        return sum(p.synops - p.macs for p in self._layers)

    @property
    def effective_macs(self) -> float:
        """Multiply-additions: synops of events that carry a value."""
        return sum(p.macs for p in self._layers)

    @property
    def dense(self) -> int:
        """Multiply-additions of the artificial network that skips nothing."""
        return sum(p.dense for p in self._layers)

    @property
    def activation_sparsity(self) -> float:
        """Fraction of neurons that do not spike, input and pools left out."""
        n_neurons = sum(p.n_neurons for p in self._layers)
        return 1 - sum(p.spikes for p in self._layers) / n_neurons if n_neurons else 0.0

    @property
    def connection_sparsity(self) -> float:
        """Fraction of stored weights that are 0."""
        n_weights = sum(p.n_weights for p in self._layers)
        return sum(p.n_zero_weights for p in self._layers) / n_weights if n_weights else 0.0

    @property
    def footprint(self) -> float:
        """Bytes of weights and biases."""
        return self.weight_bytes * sum(p.n_weights + p.n_biases for p in self._layers)

    @property
    def synops(self) -> float:
        """Synaptic operations, those of pools too."""
        return sum(p.synops for p in self.populations)

    @property
    def spikes(self) -> float:
        """Spikes, input not counted."""
        return sum(p.spikes for p in self.populations)

    @property
    def neuron_updates(self) -> int:
        """Neuron updates of one step: every neuron once, input not counted."""
        return sum(p.n_neurons for p in self.populations)

    @property
    def _layers(self) -> tuple[PopulationOperations, ...]:
        return tuple(p for p in self.populations if not p.is_pool)

    def neurobench(self) -> dict[str, Any]:
        """Return the figures under NeuroBench's names."""
        return {
            "Footprint": self.footprint,
            "ConnectionSparsity": self.connection_sparsity,
            "ActivationSparsity": self.activation_sparsity,
            "SynapticOperations": {
                "Effective_MACs": self.effective_macs,
                "Effective_ACs": self.effective_acs,
                "Dense": self.dense,
            },
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            "network": self.network,
            "backend": self.backend,
            "encoding": self.encoding,
            "label": self.label,
            "n_samples": self.n_samples,
            "neurobench": self.neurobench(),
            "synops": self.synops,
            "neuron_updates_per_step": self.neuron_updates,
            "spikes": self.spikes,
            "input_spikes": self.input_spikes,
            "populations": [vars(p) for p in self.populations],
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        head = (
            f"{self.network}: {self.label} on {self.backend}, {self.encoding} input, mean of "
            f"{self.n_samples:,} samples"
        )
        rows = [
            f"  {p.name:<20} {p.n_neurons:>10,} neurons {p.spikes:>12,.1f} spikes "
            f"{p.synops:>16,.1f} synops{' (pool)' if p.is_pool else ''}"
            for p in self.populations
        ]
        figures = [
            f"  Effective_ACs {self.effective_acs:,.1f}, Effective_MACs "
            f"{self.effective_macs:,.1f}, Dense {self.dense:,}",
            f"  ActivationSparsity {self.activation_sparsity:.4f}, ConnectionSparsity "
            f"{self.connection_sparsity:.4f}, Footprint {self.footprint:,.0f} bytes",
        ]
        return "\n".join([head, *rows, *figures])


def count_operations(recording: Recording, *, weight_bytes: float = 4) -> Operations:
    """Count the operations of a run.

    Parameters
    ----------
    recording : Recording
    weight_bytes : float
        Bytes of a stored weight or bias; 4 for float32, as NeuroBench finds them.

    Raises
    ------
    UnsupportedError
        If `weight_bytes` is no number > 0.
    SampleError
        If the run had no samples, or if events with values and spikes reach one population and
        only rasters could tell them apart.
    """
    is_number = isinstance(weight_bytes, Real) and not isinstance(weight_bytes, bool)
    if not is_number or not 0 < weight_bytes < math.inf:
        raise UnsupportedError(
            f"operations: weight_bytes is {quote(weight_bytes)}; need a number of bytes > 0."
        )
    if not recording.n_samples:
        raise SampleError("operations: the run had no samples. Run at least one.")
    network = recording.network
    return Operations(
        network=network.name,
        backend=recording.backend,
        encoding=recording.encoding,
        label=label_of(recording),
        n_samples=recording.n_samples,
        depth=network.depth,
        input_spikes=float(recording.spike_counts[network.input.name].mean()),
        populations=tuple(_of_population(recording, p.name) for p in network.populations),
        weight_bytes=float(weight_bytes),
    )


def label_of(recording: Recording) -> str:
    """Return what the counts of a recording are: measured in simulation, emulated, ..."""
    try:
        kind = get_backend(recording.backend).capabilities.kind
    except WhetsimError:
        return "recorded"
    return LABELS.get(kind, "recorded")


def dense_synapses(connectivity: Connectivity) -> int:
    """Return the number of synapses, those of weight 0 too."""
    if not isinstance(connectivity, Convolution):
        return int(connectivity.weight.size)
    channels = int(np.prod(connectivity.weight.shape[2:]))
    positions = connectivity.geometry.positions()
    return channels * sum(len(out_y) * len(out_x) for _, _, out_y, out_x, _, _ in positions)


def _of_population(recording: Recording, name: str) -> PopulationOperations:
    network = recording.network
    population = network[name]
    projections = list(network.into(name))
    weights = [p.connectivity.weight for p in projections]
    is_pool = _is_pool(network, name, projections)
    return PopulationOperations(
        name=name,
        n_neurons=population.size,
        spikes=float(recording.spike_counts[name].mean()),
        synops=float(recording.synops[name].mean()),
        macs=_macs(recording, name, projections),
        dense=sum(dense_synapses(p.connectivity) for p in projections),
        n_weights=sum(w.size for w in weights),
        n_zero_weights=sum(int((w == 0).sum()) for w in weights),
        n_biases=0 if is_pool else _n_biases(population.bias, projections),
        is_pool=is_pool,
    )


def _n_biases(bias: NDArray[np.int64], projections: list[Projection]) -> int:
    """Return how many biases are stored: one a channel if all projections share kernels."""
    if not bias.any():
        return 0
    geometries = [
        p.connectivity.geometry for p in projections if isinstance(p.connectivity, Convolution)
    ]
    if geometries and len(geometries) == len(projections):
        channels = geometries[0].target[2]
        if (bias.reshape(-1, channels) == bias[:channels]).all():
            return channels
    return len(bias)


def _is_pool(network: SpikingNetwork, name: str, projections: list[Projection]) -> bool:
    """Whether a population is an OR or an AND over windows of single channels: a max pool."""
    if len(projections) != 1:
        return False
    connectivity, population = projections[0].connectivity, network[name]
    smallest = _smallest_weights(connectivity)
    if smallest is None or (smallest <= 0).any():
        return False
    missing = population.threshold - population.bias
    is_or = (missing > 0) & (smallest >= missing)
    sums = connectivity.absolute_sums()
    is_and = (sums >= missing) & (sums - smallest < missing)
    return bool((is_or | is_and).all())


def _smallest_weights(connectivity: Connectivity) -> NDArray[np.int64] | None:
    """Return the smallest weight onto each target; None if channels may mix."""
    weight = connectivity.weight.astype(np.int64)
    if isinstance(connectivity, Convolution):
        height, width, channels = connectivity.geometry.target
        one_to_one = connectivity.geometry.groups == connectivity.geometry.source[2] == channels
        kernels = weight.reshape(-1, channels).min(axis=0, initial=MAX_INTEGER)
        return np.tile(kernels, height * width) if one_to_one else None
    if not isinstance(connectivity, Listed):
        return None
    smallest = np.full(connectivity.n_targets, MAX_INTEGER)
    np.minimum.at(smallest, connectivity.target, weight)
    return smallest


def _macs(recording: Recording, name: str, projections: list[Projection]) -> float:
    """Return the mean synops of events that carry a value other than -1 and 1."""
    source = recording.network.input
    graded = [p for p in projections if p.source == source.name and source.largest > 1]
    if not graded:
        return 0.0
    total = float(recording.synops[name].mean())
    return total - sum(_synops_of(recording, p) for p in projections if p not in graded)


def _synops_of(recording: Recording, projection: Projection) -> float:
    fan_out = projection.connectivity.fan_out
    if fan_out.min() == fan_out.max():
        return float(recording.spike_counts[projection.source].mean() * fan_out[0])
    if projection.source not in recording.packed:
        raise SampleError(
            f"operations: values and spikes of {projection.source!r} both reach "
            f"{projection.target!r}, and counts cannot tell them apart. Run with record='rasters'."
        )
    return float((recording.raster(projection.source) @ fan_out.astype(np.float64)).mean())
