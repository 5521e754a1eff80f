"""`run`: a network, samples and the name of a backend in one call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import ArrayLike

from whetsim.backend import Progress, Schedule
from whetsim.network import Encoding, SpikingNetwork
from whetsim.recording import Record, Recording
from whetsim.registry import get_backend

__all__ = ["run"]


def run(
    network: SpikingNetwork,
    samples: ArrayLike | Iterator[ArrayLike],
    *,
    backend: str = "exact",
    record: Record = "counts",
    encoding: Encoding | None = None,
    level: int | None = None,
    schedule: Schedule | None = None,
    input_scale: float | None = None,
    progress: Progress = False,
    **options: Any,
) -> Recording:
    """Run samples through a network: ``get_backend(backend).prepare(network).run(samples)``.

    Parameters
    ----------
    network : SpikingNetwork
    samples : array (n_samples, ...), or iterator of such arrays
        Integers in the input range of the network, samples along the first axis.
    backend : str
        A name that ``whetsim.backend_names()`` lists.
    record, input_scale, progress
        See `whetsim.backend.Simulation.run`.
    encoding, level, schedule, **options
        See `whetsim.backend.Backend.prepare`.

    Returns
    -------
    Recording

    Raises
    ------
    WhetsimError
        What `prepare` and `run` raise.
    """
    prepared = get_backend(backend).prepare(
        network, encoding=encoding, level=level, schedule=schedule, **options
    )
    with prepared as simulation:
        return simulation.run(samples, record=record, input_scale=input_scale, progress=progress)
