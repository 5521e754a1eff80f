"""Whether a network that was written and read back still gives the same spikes."""

from __future__ import annotations

from typing import Any

import numpy as np

from whetsim.mapping import map_to_spikes
from whetsim.model import Model
from whetsim.runner import run

__all__ = ["compare_on_random_samples"]


def compare_on_random_samples(first: Model, second: Model, n_samples: int = 100) -> dict[str, Any]:
    """Return how many output spikes and predictions of two networks differ.

    Samples are drawn over the whole input range and, every other one, from its ends alone.

    Raises
    ------
    MappingError
        If one of them has no spiking counterpart.
    """
    rng = np.random.default_rng(0)
    spec = first.input
    samples = rng.integers(spec.low, spec.high, (n_samples, *spec.shape), endpoint=True)
    samples[::2] = np.where(samples[::2] * 2 > spec.low + spec.high, spec.high, spec.low)
    one, other = (
        run(map_to_spikes(model), samples, backend="exact", record="rasters")
        for model in (first, second)
    )
    spikes = [r.raster(r.network.output).reshape(n_samples, -1) for r in (one, other)]
    differing = 0
    if one.scores is not None and other.scores is not None:
        differing = int((one.predictions != other.predictions).sum())
    return {
        "samples": n_samples,
        "differing_spikes": int((spikes[0] != spikes[1]).sum()),
        "differing_predictions": differing,
    }
