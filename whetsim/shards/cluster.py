"""Shards as tasks on a Dask cluster. Nothing else here knows of Dask.

Each task gets arrays and bytes, no paths, so workers need no file of the user's. A scheduler and
its workers are trusted: Dask sends pickles.
"""

from __future__ import annotations

import logging
import signal
import sys
import uuid
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from typing import Any

from numpy.typing import NDArray

from whetsim.backends.support import n_threads
from whetsim.errors import BackendNotInstalledError, WhetsimError, install_line
from whetsim.shards.packing import Shard
from whetsim.shards.work import Job, Refused, compute_at_worker

__all__ = ["LOCAL", "compute_on_cluster", "need_dask"]

LOCAL = "local"
"""The address that stands for a cluster of processes on this machine, one a core."""
EXAMPLE = "tcp://host:8786"
CONNECT_S = 6.0
WAITING_AT_LEAST = 4
"""Shards handed out even if there is no worker yet; a cluster that grows by need must see some."""
TRIES = 4
"""How often a shard is begun again after workers died with it, beyond what the scheduler does."""


def need_dask() -> Any:
    """Return the module ``distributed``.

    Raises
    ------
    BackendNotInstalledError
        If it is missing.
    """
    try:
        return import_module("distributed")
    except ImportError as error:
        raise BackendNotInstalledError(
            f"scheduler: dask.distributed cannot be imported ({error}). Install it: "
            f"{install_line('dask')}"
        ) from None


def compute_on_cluster(
    address: str,
    job: Job,
    network: bytes,
    shards: Sequence[Shard],
    samples: NDArray[Any],
    labels: NDArray[Any] | None,
) -> Iterator[tuple[Shard, bytes]]:
    """Yield the file of each shard as it is finished, in any order.

    Parameters
    ----------
    address : str
        Of the scheduler, ``tcp://host:8786``; or ``local``.
    job : Job
    network : bytes
        The model as `model_bytes` returns it.
    shards : sequence of Shard
    samples, labels : array
        All of the run; each task gets its own part.

    Raises
    ------
    BackendNotInstalledError
        If dask.distributed is missing.
    WhetsimError
        If the scheduler cannot be reached or is lost, or a worker refuses.
    """
    distributed = need_dask()
    with _quiet(), ExitStack() as stack:
        client = _connect(distributed, address, stack)
        try:
            yield from _Dispatcher(distributed, client, job, network, samples, labels).run(shards)
        except (CancelledError, OSError, RuntimeError) as error:
            raise WhetsimError(
                f"scheduler {address}: the connection was lost ({_reason(error)}). What is "
                "finished is kept: the same command resumes."
            ) from None


class _Dispatcher:
    """Keeps a cluster busy with shards, a few ahead of what it works on."""

    def __init__(
        self,
        distributed: Any,
        client: Any,
        job: Job,
        network: bytes,
        samples: NDArray[Any],
        labels: NDArray[Any] | None,
    ) -> None:
        self._distributed = distributed
        self._client = client
        self._job = job
        self._samples = samples
        self._labels = labels
        # A task, not scattered data: if the worker that holds it dies, another makes it again.
        self._network = self._task(_same, network, name="network")
        self._running: dict[Any, Shard] = {}

    def run(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, bytes]]:
        waiting, tries = deque(shards), dict.fromkeys(shards, 0)
        finished = self._distributed.as_completed(loop=self._client.loop)
        self._tell_if_there_are_no_workers()
        while waiting or self._running:
            while waiting and len(self._running) < self._room():
                finished.add(self._submit(waiting.popleft()))
            future = next(finished)
            shard = self._running.pop(future)
            if future.status == "error":
                error = future.exception()
                # Only the death of workers may be chance; anything else would come again.
                if isinstance(error, self._distributed.KilledWorker) and tries[shard] < TRIES:
                    tries[shard] += 1
                    waiting.append(shard)
                    continue
                raise WhetsimError(
                    f"shard {shard.number}: failed at the workers ({_reason(error)}). What is "
                    "finished is kept: the same command resumes."
                ) from None
            result = future.result()
            if isinstance(result, Refused):
                raise WhetsimError(f"shard {shard.number}, at a worker: {result.reason}")
            yield shard, result

    def _submit(self, shard: Shard) -> Any:
        labels = None if self._labels is None else self._labels[shard.samples]
        samples = self._samples[shard.samples]
        arguments = (self._job, self._network, shard, samples, labels)
        future = self._task(compute_at_worker, *arguments, name=str(shard.number))
        self._running[future] = shard
        return future

    def _task(self, function: Any, *arguments: Any, name: str) -> Any:
        key = f"whetsim-{self._job.key[:12]}-{name}-{uuid.uuid4().hex[:8]}"
        with warnings.catch_warnings():
            # Networks and samples are as large as they are.
            warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
            return self._client.submit(function, *arguments, key=key, pure=False)

    def _room(self) -> int:
        """Return how many shards may be on their way: what workers do now, and as many ahead."""
        threads: int = sum(self._client.nthreads().values())
        return max(WAITING_AT_LEAST, 2 * threads)

    def _tell_if_there_are_no_workers(self) -> None:
        if not self._client.nthreads():
            print("whetsim: the scheduler has no worker yet; waiting for one.", file=sys.stderr)


def _connect(distributed: Any, address: str, stack: ExitStack) -> Any:
    if address == LOCAL:
        address = _start_workers(distributed, stack)
    else:
        _check_address(address)
    try:
        client = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise WhetsimError(
            f"scheduler {address}: cannot be reached ({_reason(error)}). Is it running? Its log "
            f"shows the address, {EXAMPLE} for example; --scheduler {LOCAL} starts workers here."
        ) from None
    stack.callback(_close, client)
    return client


def _start_workers(distributed: Any, stack: ExitStack) -> str:
    try:
        cluster = distributed.LocalCluster(
            n_workers=n_threads(),
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
            preload=[__name__],
        )
    except (OSError, RuntimeError) as error:
        raise WhetsimError(
            f"scheduler {LOCAL}: workers do not start ({_reason(error)}). A script must do its "
            'work under if __name__ == "__main__".'
        ) from None
    stack.callback(_close, cluster)
    address: str = cluster.scheduler_address
    return address


def dask_setup(worker: object) -> None:
    """Set up a worker on this machine; Dask calls it by this name.

    A terminal sends Ctrl-C to workers too, which would say so with tracebacks.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _check_address(address: str) -> None:
    # Given no address, a client later tries to close what it never opened, and waits for it.
    try:
        _, port = import_module("distributed.comm").get_address_host_port(address)
        if not 0 < port < 2**16:
            raise ValueError(f"no port {port}")
    except (ValueError, TypeError) as error:
        raise WhetsimError(
            f"scheduler {address!r}: is no address ({_reason(error)}). Need {EXAMPLE} for example, "
            f"or {LOCAL}."
        ) from None


def _close(what: Any) -> None:
    # It goes away in any case; what was lost before must not hide why.
    with suppress(Exception):
        what.close(timeout=3)


def _reason(error: object) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def _same(data: bytes) -> bytes:
    return data


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's log lines off the terminal: what they mean is said once, in one line."""
    before = {}
    for name in ("distributed", *logging.root.manager.loggerDict):
        if name.split(".")[0] == "distributed":
            logger = logging.getLogger(name)
            before[logger] = logger.level
            logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)
