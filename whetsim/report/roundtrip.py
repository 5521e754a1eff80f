"""Whether a network that was written and read back still gives the same spikes."""

from __future__ import annotations

from typing import Any

import numpy as np

from whetsim.network import SpikingNetwork
from whetsim.runner import run

__all__ = ["compare_on_random_samples"]


def compare_on_random_samples(
    first: SpikingNetwork, second: SpikingNetwork, n_samples: int = 100
) -> dict[str, Any]:
    """Return how many output spikes and predictions of two networks differ.

    Samples are drawn over the whole input range and, every other one, from its ends alone. Of
    networks with other outputs, or of which one has no readout, everything differs.
    """
    rng = np.random.default_rng(0)
    spec = first.input.samples
    samples = rng.integers(spec.low, spec.high, (n_samples, *spec.shape), endpoint=True)
    samples[::2] = np.where(samples[::2] * 2 > spec.low + spec.high, spec.high, spec.low)
    one, other = (run(n, samples, backend="exact", record="rasters") for n in (first, second))
    spikes = [r.raster(r.network.output) for r in (one, other)]
    same_size = spikes[0].shape == spikes[1].shape
    differing = 0 if one.scores is None and other.scores is None else n_samples
    if one.scores is not None and other.scores is not None:
        differing = int((one.predictions != other.predictions).sum())
    return {
        "samples": n_samples,
        "differing_spikes": int((spikes[0] != spikes[1]).sum()) if same_size else spikes[0].size,
        "differing_predictions": differing,
    }
