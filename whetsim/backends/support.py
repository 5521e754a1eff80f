"""What several engines need: imports with advice, one owner per simulator kernel, run in pieces."""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.backends.quiet import quiet
from whetsim.connectivity import Convolution, entries
from whetsim.errors import BackendNotInstalledError, WhetsimError, install_line
from whetsim.network import Projection, SpikingNetwork

__all__ = ["Kernel", "advance", "n_threads", "need", "package_version", "real_synapses"]

PIECE_S = 0.2
"""A simulator runs about this long at a time, so that Ctrl-C and progress get through."""


def need(module: str, backend: str, extra: str) -> Any:
    """Import a simulator without its chatter.

    Raises
    ------
    BackendNotInstalledError
        If it is missing or does not start; the text has the install line.
    """
    # Threads that spin while they wait starve each other on a busy machine. NEST reads this once.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Brian2 would report any error of the user's own script as one of its own.
    excepthook = sys.excepthook
    try:
        with quiet():
            return import_module(module)
    except Exception as error:
        # An unfit NumPy shows as AttributeError, a bad library as OSError.
        missing = isinstance(error, ModuleNotFoundError)
        advice = "Install it" if missing else "If the versions do not fit each other, install again"
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BackendNotInstalledError(
            f"{backend}: {module.partition('.')[0]} cannot be imported ({reason}). {advice}: "
            f"{install_line(extra)}"
        ) from error
    finally:
        sys.excepthook = excepthook


def package_version(package: str, backend: str, extra: str) -> str:
    """Return the version of an installed package without importing it.

    Raises
    ------
    BackendNotInstalledError
        If it is not installed.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        raise BackendNotInstalledError(
            f"{backend}: {package} is not installed. Install it: {install_line(extra)}"
        ) from None


def n_threads() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Kernel:
    """The one simulator kernel of a process, which holds the network of the last that built one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._owner: weakref.ref[Any] | None = None

    def claim(self, owner: object) -> None:
        """Make `owner` the one whose network is in the kernel."""
        self._owner = weakref.ref(owner)

    def check(self, owner: object) -> None:
        """Raise `WhetsimError` if another network has been built since."""
        if self._owner is None or self._owner() is not owner:
            raise WhetsimError(
                f"{self._name} holds one network at a time, and another was built since. Prepare "
                "this one again, or run each in a process of its own."
            )


def advance(n_steps: int, run: Callable[[int], None], done: Callable[[int], None]) -> None:
    """Call ``run(steps)`` in pieces of about `PIECE_S` seconds; tell `done` the steps so far."""
    position, piece = 0, 16
    while position < n_steps:
        piece = min(piece, n_steps - position)
        start = time.perf_counter()
        run(piece)
        taken = time.perf_counter() - start
        position += piece
        done(position)
        piece = max(1, int(piece * min(4.0, PIECE_S / max(taken, 1e-6))))


def real_synapses(
    network: SpikingNetwork, projection: Projection
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """Yield blocks ``source, target, weight`` with weights on the scale of threshold 0.5."""
    connectivity = projection.connectivity
    if isinstance(connectivity, Convolution):
        exponent = network[projection.target].exponent
        channels = slice(connectivity.geometry.target[2])
        if (exponent.reshape(-1, channels.stop) == exponent[channels]).all():
            # Once for all places that share a weight.
            kernel = network.real_weight(projection, connectivity.weight, channels)
            yield from entries(kernel, connectivity.geometry)
            return
    for source, target, weight in connectivity.synapses():
        yield source, target, network.real_weight(projection, weight, target)
