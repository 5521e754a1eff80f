"""`Recording`: what a run leaves behind, per population and sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import SampleError, UnknownNameError, did_you_mean
from whetsim.network import SpikingNetwork
from whetsim.rows import Rows, rows_in_memory

__all__ = ["Record", "Recorder", "Recording", "Timing"]

Record = Literal["counts", "rasters"]


@dataclass(frozen=True)
class Timing:
    """Where the time of a run went, in seconds of wall clock."""

    build_s: float
    run_s: float
    read_s: float

    @property
    def total_s(self) -> float:
        """Build, run and read-out together."""
        return self.build_s + self.run_s + self.read_s


@dataclass(frozen=True, eq=False)
class Recording:
    """Spikes of one run, of every population, for every sample.

    Parameters
    ----------
    network : SpikingNetwork
        What ran, in the encoding it ran with.
    backend, schedule : str
    versions : mapping
        Versions of whetsim and of the simulator.
    n_samples : int
    spike_counts : mapping
        Population (and ``"input"``) to int64 array ``(n_samples,)``.
    synops : mapping
        Population to int64 array ``(n_samples,)``: spikes times synapses that reached it.
    digests : mapping
        Population to uint64 array ``(n_samples,)``, a fingerprint of each sample's spikes, so that
        two runs can be compared without their rasters.
    packed : mapping
        Population to its bit-packed raster ``(n_samples, ceil(n / 8))``; empty unless recorded.
    scores : array (n_samples, n_classes), optional
    samples : integer array, optional
        The samples, kept with the rasters.
    samples_digest : str
        BLAKE2 hash of the samples, so that runs on different ones are not compared.
    input_rounding : float
        By how much float samples were moved to the input grid at most.
    timing : Timing
    """

    network: SpikingNetwork
    backend: str
    schedule: str
    versions: Mapping[str, str]
    n_samples: int
    spike_counts: Mapping[str, NDArray[np.int64]]
    synops: Mapping[str, NDArray[np.int64]]
    digests: Mapping[str, NDArray[np.uint64]]
    packed: Mapping[str, NDArray[np.uint8]]
    scores: NDArray[np.float64] | None
    samples: NDArray[Any] | None
    samples_digest: str
    input_rounding: float
    timing: Timing

    def __repr__(self) -> str:
        kept = "rasters" if self.has_rasters else "counts"
        name = self.network.name
        return f"Recording({name!r} on {self.backend!r}, {self.n_samples} samples, {kept})"

    @property
    def encoding(self) -> str:
        """How samples became events; ``spikes`` if they were 0/1 spikes already."""
        source = self.network.input
        plain = source.encoding == "graded" and not source.is_graded
        return "spikes" if plain else source.encoding

    @property
    def has_rasters(self) -> bool:
        """Whether single spikes were kept."""
        return bool(self.packed)

    def raster(self, name: str) -> NDArray[np.bool_]:
        """Return the spikes of a population, bool ``(n_samples, n_neurons)``.

        Raises
        ------
        SampleError
            If the run kept counts alone.
        """
        if not self.has_rasters:
            raise SampleError("raster: this run kept counts alone. Run with record='rasters'.")
        if name not in self.packed:
            raise UnknownNameError(
                f"raster: no population named {name!r}; there are: {', '.join(self.packed)}."
                f"{did_you_mean(name, self.packed)}"
            )
        size = self.network[name].size
        bits = np.unpackbits(self.packed[name], axis=1, count=size, bitorder="little")
        return bits.astype(bool)

    @property
    def predictions(self) -> NDArray[np.int64]:
        """Class of each sample after key decoding, ``(n_samples,)``; the lowest of tied ones."""
        return np.asarray(self._scores.argmax(axis=1), dtype=np.int64)

    @property
    def tied(self) -> NDArray[np.bool_]:
        """Whether two or more classes share the best score, ``(n_samples,)``."""
        scores = self._scores
        result: NDArray[np.bool_] = (scores == scores.max(axis=1, keepdims=True)).sum(axis=1) > 1
        return result

    def accuracy(self, labels: NDArray[Any]) -> float:
        """Return the fraction of predictions that equal `labels`, nan for no samples."""
        labels = np.asarray(labels)
        if labels.shape != (self.n_samples,):
            raise SampleError(
                f"labels: shape {labels.shape}; need ({self.n_samples},), one a sample."
            )
        return float((self.predictions == labels).mean()) if self.n_samples else float("nan")

    @property
    def _scores(self) -> NDArray[np.float64]:
        if self.scores is None:
            raise SampleError(
                "predictions: the network has no readout key. Use the output spikes: "
                f"recording.raster({self.network.output!r})."
            )
        return self.scores

    @property
    def spikes_per_sample(self) -> dict[str, float]:
        """Mean number of spikes a sample, for each population."""
        return {
            name: float(counts.mean()) if self.n_samples else 0.0
            for name, counts in self.spike_counts.items()
        }

    @property
    def synops_per_sample(self) -> float:
        """Mean number of synaptic operations a sample."""
        return sum(float(s.sum()) for s in self.synops.values()) / max(self.n_samples, 1)


class Recorder:
    """Collects blocks of a run and makes a `Recording` of them.

    Parameters
    ----------
    network : SpikingNetwork
    record : str
        ``counts`` or ``rasters``.
    expected : int
        Number of samples to make room for, if it is known.
    """

    def __init__(self, network: SpikingNetwork, record: Record, expected: int = 0) -> None:
        self.network = network
        self.n_samples = 0
        names = [p.name for p in network.populations]
        n_classes = 0 if network.readout is None else network.readout.n_classes
        n_bytes = {p.name: -(-p.size // 8) for p in network.populations}
        one = dict.fromkeys(names, 1)
        figures: dict[str, tuple[dict[str, int], Any]] = {
            "counts": ({network.input.name: 1} | one, np.int64),
            "synops": (one, np.int64),
            "digests": (one, np.uint64),
            "scores": ({"scores": n_classes} if n_classes else {}, np.float64),
            "packed": (n_bytes if record == "rasters" else {}, np.uint8),
        }
        a_sample = sum(
            sum(columns.values()) * np.dtype(kind).itemsize for columns, kind in figures.values()
        )
        self._rows = {
            name: Rows(columns, kind, rows_in_memory(a_sample), expected)
            for name, (columns, kind) in figures.items()
            if columns
        }

    def add(self, values: NDArray[Any], rasters: Mapping[str, NDArray[np.bool_]]) -> None:
        """Add one block: input event values and the rasters of all populations."""
        network, source = self.network, self.network.input.name
        spikes: dict[str, NDArray[Any]] = {source: values != 0, **rasters}
        counted = {
            name: np.asarray(np.count_nonzero(raster, axis=1), dtype=np.int64)
            for name, raster in spikes.items()
        }
        synops = {p.name: np.zeros(len(values), dtype=np.int64) for p in network.populations}
        for projection in network.projections:
            fan_out = projection.connectivity.fan_out
            if fan_out.min() == fan_out.max():
                synops[projection.target] += counted[projection.source] * fan_out[0]
                continue
            # float64 counts are exact here and let BLAS add them up.
            sums = spikes[projection.source] @ fan_out.astype(np.float64)
            synops[projection.target] += np.rint(sums).astype(np.int64)
        words = {name: _words(raster) for name, raster in rasters.items()}
        digests = {name: _digests(array) for name, array in words.items()}
        self.add_counted(counted, synops, digests, words, rasters[network.output])

    def add_counted(
        self,
        counts: Mapping[str, NDArray[np.int64]],
        synops: Mapping[str, NDArray[np.int64]],
        digests: Mapping[str, NDArray[np.uint64]],
        words: Mapping[str, NDArray[np.uint64]],
        output: NDArray[np.bool_],
    ) -> None:
        """Add one block of which everything was counted already.

        `words` are the rasters, 64 neurons in one; `output` is the raster that the readout decodes.
        """
        blocks: dict[str, Mapping[str, NDArray[Any]]] = {
            "counts": counts,
            "synops": synops,
            "digests": digests,
        }
        if "scores" in self._rows and self.network.readout is not None:
            blocks["scores"] = {"scores": self.network.readout.scores(output)}
        if "packed" in self._rows:
            sizes = {p.name: p.size for p in self.network.populations}
            blocks["packed"] = {name: _bytes(words[name], size) for name, size in sizes.items()}
        for kind, rows in self._rows.items():
            rows.add(blocks[kind])
        self.n_samples += len(output)

    def finish(self, **details: Any) -> Recording:
        """Return the recording of all blocks; the recorder is used up."""
        found = {kind: rows.finish() for kind, rows in self._rows.items()}

        def one_each(kind: str) -> Mapping[str, NDArray[Any]]:
            return MappingProxyType({name: column[:, 0] for name, column in found[kind].items()})

        return Recording(
            network=self.network,
            n_samples=self.n_samples,
            spike_counts=one_each("counts"),
            synops=one_each("synops"),
            digests=one_each("digests"),
            packed=MappingProxyType(found.get("packed", {})),
            scores=found["scores"]["scores"] if "scores" in found else None,
            **details,
        )


def _words(raster: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Return rasters (n, n_neurons) as words: bit i % 64 of word i // 64 is neuron i."""
    n, size = raster.shape
    packed = np.zeros((n, -(-size // 64) * 8), np.uint8)
    packed[:, : -(-size // 8)] = np.packbits(raster, axis=1, bitorder="little")
    return packed.view("<u8").astype(np.uint64, copy=False)


def _bytes(words: NDArray[np.uint64], n_neurons: int) -> NDArray[np.uint8]:
    """Return words as the bytes that a recording keeps."""
    whole = words.astype("<u8", copy=False).view(np.uint8)
    return np.ascontiguousarray(whole[:, : -(-n_neurons // 8)])


def _digests(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a fingerprint of each row: the sum of every word and its number, mixed.

    The mixing is that of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
    generators, OOPSLA 2014).
    """
    with np.errstate(over="ignore"):
        place = np.arange(1, words.shape[1] + 1, dtype=np.uint64)
        z = words + place * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        result: NDArray[np.uint64] = (z ^ (z >> np.uint64(31))).sum(axis=1, dtype=np.uint64)
    return result
