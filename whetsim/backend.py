"""`Backend` and `Simulation`: what an engine must do, and all that engines need not do themselves.

An engine builds a network once and turns blocks of input events into spikes. Checking samples,
encoding, blocks, counting, decoding and progress are here, once for all engines.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.arithmetic import EmulationEffects, IntegerFormat
from whetsim.coding import encode_network, encode_samples, rounding_of, to_integers
from whetsim.errors import SampleError, UnsupportedError, WhetsimError, did_you_mean
from whetsim.network import Encoding, InputPopulation, SpikingNetwork
from whetsim.recording import Record, Recorder, Recording, Timing
from whetsim.rows import Rows, rows_in_memory

__all__ = [
    "Backend",
    "Capabilities",
    "ClockedSimulation",
    "Events",
    "Schedule",
    "Simulation",
    "samples_digest",
]

Schedule = Literal["pipelined", "sequential"]
Progress = bool | Callable[..., None]


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do. Asking for anything else raises `UnsupportedError`.

    Parameters
    ----------
    encodings : tuple of str
        The first is the default.
    schedules : tuple of str
        The first is the default.
    sum_bits : int
        Sums up to ``2^sum_bits`` are added without error.
    rounds : bool
        Additions may be off by a relative 2^-53 each, so that sums must leave room for as many
        roundings as a neuron has synapses.
    kind : str
        ``reference``, ``simulated``, ``emulated`` or ``hardware``: what its results are.
    integers : IntegerFormat, optional
        Its registers hold such whole numbers alone; other networks are refused.
    """

    encodings: tuple[Encoding, ...] = ("graded", "bitplane", "binary")
    schedules: tuple[Schedule, ...] = ("pipelined", "sequential")
    sum_bits: int = 53
    rounds: bool = False
    kind: str = "simulated"
    integers: IntegerFormat | None = None


class Backend(ABC):
    """An engine that runs a `SpikingNetwork`.

    To add one, write a class with ``name``, ``capabilities``, ``versions`` and ``build``, and name
    it in the entry point group ``whetsim.backends``. `whetsim.testing` checks the rest.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    options: ClassVar[Mapping[str, str]] = {}
    """Options that `prepare` takes beyond the common ones, each with a line that explains it."""

    @abstractmethod
    def versions(self) -> Mapping[str, str]:
        """Return the versions of the packages it needs.

        Raises
        ------
        BackendNotInstalledError
            If one is missing; the text says how to get it.
        """

    @abstractmethod
    def build(self, network: SpikingNetwork, schedule: Schedule, **options: Any) -> Simulation:
        """Return a simulation of `network`, which is encoded and within the capabilities."""

    def prepare(
        self,
        network: SpikingNetwork,
        *,
        encoding: Encoding | None = None,
        level: int | None = None,
        schedule: Schedule | None = None,
        **options: Any,
    ) -> Simulation:
        """Build `network` on this engine.

        Parameters
        ----------
        network : SpikingNetwork
        encoding : str, optional
            How samples become events (`whetsim.coding.encode_network`); the backend's first by
            default: graded where events can carry values, else bitplane.
        level : int, optional
            For the binary encoding.
        schedule : str, optional
            ``pipelined``: a new sample every step. ``sequential``: one sample runs through all
            steps before the next.
        **options
            See ``options`` of the backend.

        Returns
        -------
        Simulation
            To be used as a context manager, or closed.

        Raises
        ------
        UnsupportedError
            If the backend cannot do what is asked; the text says what it can.
        BackendNotInstalledError
            If a package is missing.
        """
        if not isinstance(network, SpikingNetwork):
            raise UnsupportedError(
                f"{self.name}: needs a SpikingNetwork (got {type(network).__name__}). Map a model "
                "first: whetsim.map_to_spikes(model)."
            )
        can = self.capabilities
        self.versions()
        for name in options:
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise UnsupportedError(
                    f"{self.name}: no option {name!r}; it has: {known}."
                    f"{did_you_mean(name, self.options)}"
                )
        chosen = self._choose("encoding", encoding, can.encodings)
        planned = self._choose("schedule", schedule, can.schedules)
        network = encode_network(network, chosen, level)
        if network.input.is_graded and "graded" not in can.encodings:
            raise UnsupportedError(f"{self.name}: its input spikes carry no values.")
        room = can.sum_bits
        if can.rounds:
            room = min(room, 52 - int(network.max_fan_in + 1).bit_length())
        if network.sum_bits > room:
            raise UnsupportedError(
                f"{self.name}: sums of this network may take {network.sum_bits} bits; this backend "
                f"decides {room} bits exactly. Use backend 'exact', 'nest' or 'brian2'."
            )
        start = time.perf_counter()
        with _named_failures(self.name):
            simulation = self.build(network, planned, **options)
        simulation.backend = self
        simulation.build_s = time.perf_counter() - start
        return simulation

    def _choose(self, what: str, value: Any, legal: tuple[Any, ...]) -> Any:
        if value is None:
            return legal[0]
        if value not in legal:
            raise UnsupportedError(
                f"{self.name}: {what} {value!r} is not supported; it has: {', '.join(legal)}."
                f"{did_you_mean(value, legal)}"
            )
        return value


class Simulation(AbstractContextManager["Simulation"], ABC):
    """A network built on an engine; the only object here that has state.

    Parameters
    ----------
    network : SpikingNetwork
        As it runs, in its encoding.
    schedule : str
    """

    backend: Backend
    build_s: float = 0.0
    block_values: int = 2**24
    """Input values and spikes handled in one block, about one byte each."""
    effects: EmulationEffects | None = None
    """What the last run's arithmetic did beside adding up; None where it can do nothing else."""

    def __init__(self, network: SpikingNetwork, schedule: Schedule) -> None:
        self.network = network
        self.schedule = schedule
        self.read_s = 0.0
        self.report: Callable[[int], None] = lambda done: None
        """Called by an engine with the number of samples of the block that are done."""
        self._closed = False

    @abstractmethod
    def rasters(self, values: NDArray[np.int32]) -> dict[str, NDArray[np.bool_]]:
        """Run a block of samples.

        Parameters
        ----------
        values : int32 array (n_samples, n_input_neurons)
            The value that each input event carries; 0 is no event.

        Returns
        -------
        dict
            Population to bool array ``(n_samples, n_neurons)``.
        """

    def record(self, samples: NDArray[Any], recorder: Recorder) -> None:
        """Run a block of samples and hand what happened to a recorder.

        Samples are whole numbers in the input range, not yet encoded. The time that reading out
        takes is added to `read_s`.
        """
        values = encode_samples(samples, self.network.input)
        rasters = self.rasters(values)
        start = time.perf_counter()
        recorder.add(values, rasters)
        self.read_s += time.perf_counter() - start

    def run(
        self,
        samples: ArrayLike | Iterator[ArrayLike],
        *,
        record: Record = "counts",
        input_scale: float | None = None,
        progress: Progress = False,
    ) -> Recording:
        """Run samples through the network.

        Parameters
        ----------
        samples : array (n_samples, ...), or iterator of such arrays
            Integers in the input range. See `whetsim.coding.to_integers` for floats. An array may
            be mapped from a file (``np.load(..., mmap_mode="r")``); of an iterator, one array at a
            time is in memory.
        record : str
            ``counts`` keeps spike counts, synops, scores and a fingerprint of each sample;
            ``rasters`` keeps every spike as one bit, and the samples. Beyond 2 MiB results lie in
            a temporary file, of which the arrays of the recording are maps.
        input_scale : float, optional
            Samples are floats that are whole multiples of this.
        progress : bool or callable
            True shows a bar on a terminal; a callable gets (samples done, samples in all), the
            latter None for an iterator.

        Returns
        -------
        Recording

        Raises
        ------
        SampleError
            If the samples do not fit the network.
        """
        if self._closed:
            raise WhetsimError("this simulation is closed. Prepare the network again.")
        if record not in ("counts", "rasters"):
            raise SampleError(
                f"record is {record!r}; need 'counts' or 'rasters'."
                f"{did_you_mean(record, ('counts', 'rasters'))}"
            )
        source = self.network.input
        total: int | None = None
        if isinstance(samples, Iterator):
            batches = _checked_batches(samples, source, input_scale)
        else:
            integers = to_integers(samples, source, input_scale)
            batches, total = iter([(integers, samples)]), len(integers)
        recorder = Recorder(self.network, record, expected=total or 0)
        digest, narrow = _new_digest(), _narrow_type(source)
        rounding, run_s, read_s = 0.0, 0.0, 0.0
        limit = rows_in_memory(source.samples.size * narrow.itemsize)
        kept = Rows({"samples": source.samples.size}, narrow, limit)
        size = max(1, self.block_values // max(1, source.size + self.network.n_neurons))
        with _progress(progress, total) as report:
            for batch, given in batches:
                for start in range(0, len(batch), size):
                    begin = time.perf_counter()
                    block = batch[start : start + size]
                    if source.rounds:
                        floats = np.asarray(given)[start : start + size]
                        rounding = max(rounding, rounding_of(floats, block, source))
                    block = np.ascontiguousarray(block, dtype=narrow)
                    digest.update(block.data)
                    if record == "rasters":
                        kept.add({"samples": block})
                    self.read_s = 0.0
                    self.report = partial(_report_from, report, recorder.n_samples)
                    with _named_failures(self.backend.name):
                        self.record(block, recorder)
                    run_s += time.perf_counter() - begin - self.read_s
                    read_s += self.read_s
                    report(recorder.n_samples)
        return recorder.finish(
            backend=self.backend.name,
            schedule=self.schedule,
            versions=dict(self.backend.versions()),
            samples=kept.finish()["samples"] if record == "rasters" else None,
            samples_digest=digest.hexdigest(),
            input_rounding=rounding,
            timing=Timing(self.build_s, run_s, read_s),
        )

    def close(self) -> None:
        """Give the engine's memory back; the simulation cannot run any more."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, eq=False)
class Events:
    """Spikes of one population as a simulator recorded them, in any order.

    Parameters
    ----------
    step : integer array
        Step of each spike; the first sample is presented in step 0.
    neuron : integer array
        Which neuron, from 0 in its population.
    """

    step: NDArray[np.int64]
    neuron: NDArray[np.int64]


class ClockedSimulation(Simulation):
    """A simulation on an engine with a clock: samples go in by steps, spikes come with steps."""

    _under_way = False

    def check_kernel(self) -> None:
        """Raise `WhetsimError` if the simulator no longer holds this network."""

    @abstractmethod
    def events(self, values: NDArray[np.int32]) -> dict[str, Events]:
        """Run a block of samples and return the spikes of every population.

        Sample i is presented in step ``i * period``. The state of all neurons must be as at the
        start when the block ends. Spikes of steps that belong to no sample may be among them.
        """

    @property
    def period(self) -> int:
        """Steps from one sample to the next: 1 if pipelined, else as many as the network needs."""
        return 1 if self.schedule == "pipelined" else self.network.depth + 1

    def n_steps(self, n_samples: int) -> int:
        """Return how many steps `n_samples` take until the last decision."""
        return (n_samples - 1) * self.period + self.network.depth + 1 if n_samples else 0

    def rasters(self, values: NDArray[np.int32]) -> dict[str, NDArray[np.bool_]]:
        self.check_kernel()
        if self._under_way:
            raise WhetsimError(
                "the last run was stopped before its end, and charge and spikes of it are still "
                "in the simulator. Prepare the network again."
            )
        self._under_way = True
        events = self.events(values) if len(values) else {}
        self._under_way = False
        start = time.perf_counter()
        result = {}
        for population in self.network.populations:
            raster = np.zeros((len(values), population.size), dtype=bool)
            if len(values):
                spikes = events[population.name]
                # The population of depth d decides sample i in step i * period + d; neurons that
                # fire without input also fire in steps that belong to no sample.
                sample, rest = np.divmod(spikes.step - population.depth, self.period)
                mine = (rest == 0) & (sample >= 0) & (sample < len(values))
                raster[sample[mine], spikes.neuron[mine]] = True
            result[population.name] = raster
        self.read_s += time.perf_counter() - start
        return result


def samples_digest(integers: NDArray[Any], source: InputPopulation) -> str:
    """Return the hash of samples that a `Recording` of them carries, whatever type they have."""
    digest, narrow = _new_digest(), _narrow_type(source)
    size = max(1, Simulation.block_values // max(1, source.size))
    for start in range(0, len(integers), size):
        digest.update(np.ascontiguousarray(integers[start : start + size], dtype=narrow).data)
    return digest.hexdigest()


def _new_digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


def _narrow_type(source: InputPopulation) -> np.dtype[Any]:
    low, high = source.samples.low, source.samples.high
    return np.result_type(np.min_scalar_type(low), np.min_scalar_type(high)).newbyteorder("<")


def _checked_batches(
    batches: Iterator[ArrayLike], source: InputPopulation, input_scale: float | None
) -> Iterator[tuple[NDArray[Any], ArrayLike]]:
    """Yield integers, and what they were made of, batch after batch."""
    first = 0
    for batch in batches:
        try:
            integers = to_integers(batch, source, input_scale)
        except SampleError as error:
            raise SampleError(f"batch that begins with sample {first}: {error}") from None
        yield integers, batch
        first += len(integers)


@contextmanager
def _named_failures(name: str) -> Iterator[None]:
    """Turn what a simulator raises into one line that names the backend."""
    try:
        yield
    except (WhetsimError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise WhetsimError(
            f"{name}: the simulator failed ({type(error).__name__}: {reason}). 'whetsim backends' "
            "shows its versions and options."
        ) from error


def _report_from(report: Callable[[int], None], start: int, done: int) -> None:
    report(start + done)


def _progress(
    progress: Progress, total: int | None
) -> AbstractContextManager[Callable[[int], None]]:
    from whetsim.progress import progress_reporter

    return progress_reporter(progress, total)
