"""What the hand-written scripts share: their data, the check of their answer, their report.

The data file holds ``images`` (samples, inputs) as whole numbers, for each layer k the weights
``w<k>`` (inputs, outputs) and biases ``b<k>`` for a threshold of 0.5, and ``decoder`` (outputs,
classes). All are real numbers on a dyadic grid, so a float64 matrix product is exact.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Raster = NDArray[np.bool_]


@dataclass(frozen=True)
class Data:
    """A chain of fully connected layers and the samples to run."""

    images: NDArray[Any]
    weights: list[Floats]
    biases: list[Floats]
    decoder: Floats

    @property
    def sizes(self) -> list[int]:
        """Number of neurons of each layer."""
        return [len(b) for b in self.biases]

    @property
    def offsets(self) -> Ints:
        """Where each layer starts if all neurons are counted through."""
        return np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)

    def take(self, n: int) -> Data:
        """Return the same network with the first `n` samples."""
        return replace(self, images=self.images[:n])


def read(path: str) -> Data:
    """Read a data file."""
    with np.load(path) as file:
        n_layers = sum(name.startswith("w") for name in file.files)
        return Data(
            file["images"],
            [file[f"w{k}"] for k in range(n_layers)],
            [file[f"b{k}"] for k in range(n_layers)],
            file["decoder"],
        )


def parser(text: str | None) -> argparse.ArgumentParser:
    """Return the command line that every script has."""
    result = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    result.add_argument("data", help=".npz with images, w<k>, b<k>, decoder")
    result.add_argument("--samples", type=int, default=1000, metavar="N")
    return result


@dataclass(frozen=True)
class Readout:
    """What is read from a run: spike counts of each layer and the decoded class."""

    counts: list[Ints]
    predictions: Ints
    rasters: list[Raster]


def decode(data: Data, step: Ints, neuron: Ints) -> Readout:
    """Turn spikes of a pipelined run into counts and classes.

    Parameters
    ----------
    data : Data
    step : integer array
        Step of each spike; sample i is presented in step i and layer k decides it in ``i + k + 1``.
    neuron : integer array
        Which neuron, counted through all layers.
    """
    n, offsets = len(data.images), data.offsets
    counts, rasters = [], []
    for k, size in enumerate(data.sizes):
        # Neurons that fire without input also fire in steps that belong to no sample.
        sample = step - (k + 1)
        mine = (neuron >= offsets[k]) & (neuron < offsets[k + 1]) & (sample >= 0) & (sample < n)
        raster = np.zeros((n, size), dtype=bool)
        raster[sample[mine], neuron[mine] - offsets[k]] = True
        counts.append(raster.sum(axis=1))
        rasters.append(raster)
    predictions = ((2.0 * rasters[-1] - 1.0) @ data.decoder).argmax(axis=1)
    return Readout(counts, predictions, rasters)


def truth(data: Data) -> list[Raster]:
    """Return what every layer must do, by plain matrix products."""
    spikes, rasters = data.images.astype(np.float64), []
    for weight, bias in zip(data.weights, data.biases, strict=True):
        fires = spikes @ weight + bias >= 0.5
        rasters.append(fires)
        spikes = fires.astype(np.float64)
    return rasters


class Stopwatch:
    """Wall clock time of build, run and read-out, one after the other, and CPU time in all."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._cpu = time.process_time()
        self.seconds: dict[str, float] = {}
        self.cpu_s = 0.0

    def stop(self, phase: str) -> None:
        """Add the time since the last stop to `phase`."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now
        self.cpu_s = time.process_time() - self._cpu


def peak_mb() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report(
    data: Data, rasters: Sequence[Raster], watch: Stopwatch, peak: float, **more: Any
) -> None:
    """Check the rasters and print the result as one line of JSON."""
    wrong = [int((a != b).sum()) for a, b in zip(rasters, truth(data), strict=True)]
    result = {f"{phase}_s": round(t, 6) for phase, t in watch.seconds.items()}
    result["total_s"] = round(sum(watch.seconds.values()), 6)
    result["cpu_s"] = round(watch.cpu_s, 6)
    print(
        json.dumps(
            result
            | {
                "peak_mb": round(peak, 1),
                "samples": len(data.images),
                "spikes": [int(r.sum()) for r in rasters],
                "n_different": sum(wrong),
                "exact": not any(wrong),
            }
            | more
        )
    )
