"""Backend ``exact``: the network in integer arithmetic; the definition of what others must compute.

Event-driven and layer by layer: a neuron that fired adds its row of weights to the sums of its
targets. Every sum is a whole number that int32 or float64 holds, so the order of addition changes
nothing. The loops are compiled (`exact_kernels`); threads share the samples.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numba
import numpy as np
from numpy.typing import NDArray

from whetsim import __version__
from whetsim.backend import Backend, Capabilities, Schedule, Simulation
from whetsim.backends import exact_kernels as kernels
from whetsim.backends.exact_arrays import Events, Layout, Scratch
from whetsim.backends.exact_layers import layer_of, layout_of
from whetsim.coding import encode_samples
from whetsim.errors import UnsupportedError
from whetsim.network import Projection, SpikingNetwork
from whetsim.recording import Recorder

__all__ = ["ExactBackend"]

PART_UNITS = 2**21
"""Neurons times samples that a thread takes at once: their sums stay in its cache."""


class ExactBackend(Backend):
    """Integer arithmetic, event-driven, compiled."""

    name = "exact"
    capabilities = Capabilities(kind="reference")
    options: ClassVar[Mapping[str, str]] = {
        "threads": "number of threads; by default all cores that the process may use"
    }

    def versions(self) -> Mapping[str, str]:
        return {"whetsim": __version__, "numpy": np.__version__, "numba": numba.__version__}

    def build(self, network: SpikingNetwork, schedule: Schedule, **options: Any) -> Simulation:
        threads = options.get("threads", _cores())
        whole = isinstance(threads, (int, np.integer)) and not isinstance(threads, bool)
        if not whole or not 1 <= threads <= 4096:
            raise UnsupportedError(
                f"exact: threads must be a whole number in 1..4096 (got {threads!r})."
            )
        return ExactSimulation(network, schedule, int(threads))


@dataclass(frozen=True, eq=False)
class _Part:
    """What some samples did: figures for each sample, spikes as words."""

    counts: Mapping[str, NDArray[np.int64]]
    synops: Mapping[str, NDArray[np.int64]]
    digests: Mapping[str, NDArray[np.uint64]]
    words: Mapping[str, NDArray[np.uint64]]


class ExactSimulation(Simulation):
    """Layer after layer. Both schedules are one: no state passes from sample to sample."""

    def __init__(self, network: SpikingNetwork, schedule: Schedule, threads: int) -> None:
        super().__init__(network, schedule)
        self._layouts = {p.name: layout_of(network, p) for p in network.populations}
        self._layers = [layer_of(network, p, self._layouts) for p in network.populations]
        # What reads bits alone needs no lists of events.
        self._listed = {
            projection.source for layer in self._layers for projection in layer.projections
        }
        self._fan_out = [_fan_out_of_places(p, self._layouts) for p in network.projections]
        self._n_threads = threads
        self._start_threads()
        units = max(1, network.input.size + network.n_neurons)
        self._part_size = int(np.clip(PART_UNITS // units, 1, 256))
        # What is compiled, or loaded from the cache, belongs to building: few events and many take
        # other loops.
        for value in (0, network.input.high):
            self._run_part(np.full((1, network.input.size), value, np.int32))

    def _start_threads(self) -> None:
        self._threads = ThreadPoolExecutor(self._n_threads)
        self._local = threading.local()
        self._process = os.getpid()

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        super().close()

    def record(self, samples: NDArray[Any], recorder: Recorder) -> None:
        for part in self._parts(samples, encoded=False):
            output = self._raster(self.network.output, part)
            recorder.add_counted(part.counts, part.synops, part.digests, part.words, output)

    def rasters(self, values: NDArray[np.int32]) -> dict[str, NDArray[np.bool_]]:
        parts = list(self._parts(values, encoded=True))
        return {
            p.name: np.concatenate(
                [np.zeros((0, p.size), bool), *(self._raster(p.name, part) for part in parts)]
            )
            for p in self.network.populations
        }

    def _raster(self, name: str, part: _Part) -> NDArray[np.bool_]:
        words = part.words[name].astype("<u8", copy=False).view(np.uint8)
        size = self.network[name].size
        return np.unpackbits(words, axis=1, count=size, bitorder="little").view(np.bool_)

    def _parts(self, samples: NDArray[Any], *, encoded: bool) -> Iterator[_Part]:
        """Yield what happened, part after part in the order of the samples."""
        if self._process != os.getpid():  # a fork has the executor, but not its threads
            self._start_threads()
        size = self._part_size
        blocks = [samples[i : i + size] for i in range(0, len(samples), size)]
        run = self._run_part if encoded else self._encode_and_run
        waiting = [self._threads.submit(run, block) for block in blocks]
        done = 0
        try:
            for block, future in zip(blocks, waiting, strict=True):
                yield future.result()
                done += len(block)
                if done < len(samples):  # the end of the block is reported behind it
                    self.report(done)
        finally:
            for future in waiting:
                future.cancel()

    def _encode_and_run(self, samples: NDArray[Any]) -> _Part:
        return self._run_part(encode_samples(samples, self.network.input))

    def _run_part(self, values: NDArray[np.int32]) -> _Part:
        """Run some samples through all layers, on one thread."""
        scratch = self._local.__dict__.setdefault("scratch", Scratch())
        n, source = len(values), self.network.input.name
        room = kernels.EVENT_ROOM
        events = {source: self._input_events(values, scratch)}
        counts = {source: events[source].counts}
        bits: dict[str, NDArray[np.uint64]] = {}
        words, digests = {}, {}
        ones = np.zeros((n, 1), np.uint8)
        for layer in self._layers:
            found = bits[layer.name] = layer.bits(events, bits, n, scratch)
            channels, size = layer.layout.channels, self.network[layer.name].size
            packed = words[layer.name] = np.empty((n, -(-size // 64)), np.uint64)
            mixed = digests[layer.name] = np.empty(n, np.uint64)
            spikes = counts[layer.name] = np.empty(n, np.int64)
            kernels.pack(found, channels, packed, mixed, spikes)
            if layer.name in self._listed:
                numbers = scratch.array(("events", layer.name), (n, size + room), np.int32)
                shape = (n, layer.layout.n_places + 1)
                first = scratch.array(("first of", layer.name), shape, np.int64)
                kernels.list_events(found, channels, numbers, first)
                events[layer.name] = Events(numbers, spikes, ones, channels, first)
        return _Part(counts, self._synops(events, bits, counts, n), digests, words)

    def _input_events(self, values: NDArray[np.int32], scratch: Scratch) -> Events:
        n, source = len(values), self.network.input
        if source.name not in self._listed:
            counts = np.empty(n, np.int64)
            kernels.count_values(values, counts)
            return Events.unlisted(counts, values)
        shape = (n, source.size + kernels.EVENT_ROOM)
        numbers = scratch.array("input events", shape, np.int32)
        carried = scratch.array("input values", shape, np.float64)
        counts = np.empty(n, np.int64)
        kernels.list_values(values, numbers, carried, counts)
        # As one place of all inputs; a convolution counts them by its own places.
        first = np.stack([np.zeros(n, np.int64), counts], axis=1)
        if source.is_graded:
            return Events(numbers, counts, carried, source.size, first, values)
        return Events(numbers, counts, np.zeros((n, 1), np.uint8), source.size, first)

    def _synops(
        self,
        events: Mapping[str, Events],
        bits: Mapping[str, NDArray[np.uint64]],
        counts: Mapping[str, NDArray[np.int64]],
        n: int,
    ) -> dict[str, NDArray[np.int64]]:
        """Return how many synapses of each population spikes went through."""
        synops = {p.name: np.zeros(n, np.int64) for p in self.network.populations}
        for projection, fan_out in zip(self.network.projections, self._fan_out, strict=True):
            sums = np.empty(n, np.int64)
            if fan_out is None:
                found, table = events[projection.source], projection.connectivity.fan_out
                if found.every is not None:
                    kernels.tally_values(found.every, table, sums)
                else:
                    kernels.tally(found.numbers, found.counts, table, sums)
            elif fan_out.ndim == 0:
                sums = counts[projection.source] * fan_out
            else:
                kernels.tally_places(bits[projection.source], fan_out, sums)
            synops[projection.target] += sums
        return synops


def _fan_out_of_places(
    projection: Projection, layouts: Mapping[str, Layout]
) -> NDArray[np.int64] | None:
    """Return the fan-out as one number, one for each place, or None where neurons differ."""
    fan_out = projection.connectivity.fan_out
    if fan_out.min() == fan_out.max():
        return np.asarray(fan_out[0])
    if projection.source not in layouts:
        return None
    by_place = fan_out.reshape(layouts[projection.source].n_places, -1)
    if not (by_place == by_place[:, :1]).all():
        return None
    return np.ascontiguousarray(by_place[:, 0])


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
