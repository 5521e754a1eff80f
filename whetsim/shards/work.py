"""Computing one shard, here or at a worker of a cluster."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from whetsim import registry
from whetsim.backend import Schedule, Simulation
from whetsim.comparison import agreement
from whetsim.errors import WhetsimError
from whetsim.formats import load, save
from whetsim.mapping import map_to_spikes
from whetsim.margin import margins
from whetsim.model import Model
from whetsim.model_comparison import compare_with_model
from whetsim.network import Encoding, SpikingNetwork
from whetsim.recording import Recording
from whetsim.shards.manifest import environment
from whetsim.shards.merging import plain_comparison
from whetsim.shards.packing import Shard, pack

__all__ = ["Job", "Refused", "ShardRunner", "compute_at_worker", "model_bytes"]


@dataclass(frozen=True)
class Job:
    """What is the same for all shards of a run.

    Parameters
    ----------
    key : str
        Digest of the manifest.
    compares : bool
        Whether backends are compared with each other and with the float32 network.
    fingerprint : str
        Of the network.
    backends : tuple of str
    options : mapping
        The backends' own options.
    encoding, schedule : str, optional
    level : int, optional
    """

    key: str
    compares: bool
    fingerprint: str
    backends: tuple[str, ...]
    options: Mapping[str, Any]
    encoding: Encoding | None
    level: int | None
    schedule: Schedule | None


class ShardRunner(AbstractContextManager["ShardRunner"]):
    """Computes shards one after the other, and keeps what it built for the next.

    Parameters
    ----------
    model : Model
    network : SpikingNetwork
        Mapped from `model`.
    job : Job
    """

    def __init__(self, model: Model, network: SpikingNetwork, job: Job) -> None:
        self.job = job
        self._model = model
        self._network = network
        self._environment = environment(job.backends)
        self._built: dict[str, Simulation] = {}
        self._stack = ExitStack()
        # pynn.nest and nest share one kernel, which holds one network.
        engines = {name.rpartition(".")[2] for name in job.backends}
        self._keeps = len(engines) == len(job.backends)

    def run(self, shard: Shard, samples: NDArray[Any], labels: NDArray[Any] | None) -> bytes:
        """Return the file of a shard.

        Parameters
        ----------
        shard : Shard
        samples, labels : array
            Those of the shard alone.

        Raises
        ------
        WhetsimError
            What `Backend.prepare` and `Simulation.run` raise.
        """
        job = self.job
        recordings = {name: self._record(name, samples) for name in job.backends}
        comparison = None
        if job.compares:
            first = next(iter(recordings.values()))
            truth = labels if self._model.readout else None
            comparison = plain_comparison(
                agreement(recordings),
                compare_with_model(self._model, first, samples, truth),
                margins(first.network, samples),
            )
        found = tuple(recordings.values())
        return pack(shard, job.key, self._environment, found, comparison)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._built.clear()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def _record(self, name: str, samples: NDArray[Any]) -> Recording:
        record: Any = "rasters" if self.job.compares else "counts"
        if not self._keeps:
            with self._prepare(name) as simulation:
                return simulation.run(samples, record=record)
        is_new = name not in self._built
        if is_new:
            self._built[name] = self._stack.enter_context(self._prepare(name))
        recording = self._built[name].run(samples, record=record)
        if is_new:
            return recording
        return replace(recording, timing=replace(recording.timing, build_s=0.0))

    def _prepare(self, name: str) -> Simulation:
        job = self.job
        return registry.get_backend(name).prepare(
            self._network,
            encoding=job.encoding,
            level=job.level,
            schedule=job.schedule,
            **job.options,
        )


def model_bytes(model: Model) -> bytes:
    """Return a model as the bytes of a native file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        save(model, path)
        return path.read_bytes()


@dataclass(frozen=True)
class Refused:
    """Why a worker cannot compute a shard, however often it is asked."""

    reason: str


_ONE_AT_A_TIME = threading.Lock()
"""A simulator kernel belongs to the whole process, and a worker may have several threads."""
_runner: ShardRunner | None = None
"""What this worker built for the last shard; the next is likely to be of the same job."""


def compute_at_worker(
    job: Job, network: bytes, shard: Shard, samples: NDArray[Any], labels: NDArray[Any] | None
) -> bytes | Refused:
    """Compute a shard in a process that knows nothing but what it is given here."""
    with _ONE_AT_A_TIME, _signals_left_alone():
        try:
            return _runner_for(job, network).run(shard, samples, labels)
        except WhetsimError as error:
            return Refused(str(error))
        except BaseException:
            # A run that was stopped midway leaves its charge in the simulator.
            _forget()
            raise


@contextmanager
def _signals_left_alone() -> Iterator[None]:
    """Let packages be imported that ask for Ctrl-C, as Brian2 does: only a main thread may.

    A worker computes in another thread, and Ctrl-C is not its business.
    """
    real = signal.signal

    def only_in_the_main_thread(number: Any, handler: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            return real(number, handler)
        return signal.getsignal(number)

    signal.signal = only_in_the_main_thread  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = real


def _runner_for(job: Job, data: bytes) -> ShardRunner:
    global _runner  # noqa: PLW0603
    if _runner is None or _runner.job != job:
        _forget()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.safetensors"
            path.write_bytes(data)
            model = load(path)
        network = map_to_spikes(model)
        if network.fingerprint != job.fingerprint:
            raise WhetsimError("the worker's whetsim maps this network to other weights.")
        _runner = ShardRunner(model, network, job)
    return _runner


def _forget() -> None:
    global _runner  # noqa: PLW0603
    if _runner is not None:
        _runner.__exit__(None, None, None)
        _runner = None
