"""What the hand-written scripts share: their data, the check of their answer, their report.

A data file (`.npz`) holds a chain of layers and the samples to run. All are real numbers on a
dyadic grid, so that float64 sums are exact in any order. A unit fires at 0.5 or above.

=================  =================================================================
``images``         (samples, inputs), whole numbers
``input_shape``    shape of one sample, channels last
``kind_<i>``       ``dense``, ``conv`` or ``pool`` (a max pool: fires if any input does)
``weight_<i>``     dense (inputs, outputs); conv (height, width, channels in, channels out);
                   a pool has none
``bias_<i>``       one for each output, or for each output channel of a conv; a pool has none
``shape_<i>``      shape of the layer's output, channels last
``decoder``        (outputs, classes)
=================  =================================================================

A conv slides in steps of 1; the difference of its two shapes says how many zeros were put around
its input. A pool's windows do not overlap; the quotient of its two shapes is their size.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Raster = NDArray[np.bool_]
CHECKED_AT_ONCE = 250
"""Samples whose answer is computed together."""


@dataclass(frozen=True)
class Layer:
    """One layer of the chain; see the top of this file."""

    kind: str
    weight: Floats
    bias: Floats
    source: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of neurons."""
        return int(np.prod(self.shape))

    @property
    def biases(self) -> Floats:
        """Bias of each neuron."""
        return np.tile(self.bias, self.size // len(self.bias))

    def windows(self) -> Iterator[tuple[int, int, Any, Any, Any, Any]]:
        """Yield ``i, j, out_y, out_x, in_y, in_x`` for each place of a window of a conv or pool.

        The output cells ``out_y`` by ``out_x`` read there the input cells ``in_y`` by ``in_x``.
        """
        if self.kind == "pool":
            height, width = (a // b for a, b in zip(self.source[:2], self.shape[:2], strict=True))
            stride, before = (height, width), (0, 0)
        else:
            height, width = self.weight.shape[:2]
            stride = (1, 1)
            padding = [
                out + k - 1 - n
                for out, k, n in zip(self.shape[:2], (height, width), self.source[:2], strict=True)
            ]
            before = (padding[0] // 2, padding[1] // 2)
        for i in range(height):
            y = np.arange(self.shape[0])
            in_y = y * stride[0] + i - before[0]
            y_ok = (in_y >= 0) & (in_y < self.source[0])
            for j in range(width):
                x = np.arange(self.shape[1])
                in_x = x * stride[1] + j - before[1]
                x_ok = (in_x >= 0) & (in_x < self.source[1])
                yield i, j, y[y_ok], x[x_ok], in_y[y_ok], in_x[x_ok]


@dataclass(frozen=True)
class Data:
    """A chain of layers and the samples to run."""

    images: NDArray[Any]
    layers: list[Layer]
    decoder: Floats

    @property
    def sizes(self) -> list[int]:
        """Number of neurons of each layer."""
        return [layer.size for layer in self.layers]

    @property
    def offsets(self) -> Ints:
        """Where each layer starts if all neurons are counted through."""
        return np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)

    def take(self, n: int) -> Data:
        """Return the same network with the first `n` samples."""
        return replace(self, images=self.images[:n])


def write(path: str | Path, data: Data) -> None:
    """Write a data file."""
    arrays: dict[str, Any] = {"images": data.images, "input_shape": data.layers[0].source}
    for i, layer in enumerate(data.layers):
        arrays |= {f"kind_{i}": layer.kind, f"shape_{i}": layer.shape}
        if layer.kind != "pool":
            arrays |= {f"weight_{i}": layer.weight, f"bias_{i}": layer.bias}
    np.savez(path, **arrays, decoder=data.decoder)


def read(path: str) -> Data:
    """Read a data file."""
    with np.load(path) as file:
        layers = []
        source = tuple(int(n) for n in file["input_shape"])
        for i in range(sum(name.startswith("kind_") for name in file.files)):
            shape = tuple(int(n) for n in file[f"shape_{i}"])
            kind = str(file[f"kind_{i}"])
            none = np.zeros((0, 0)), np.zeros(1)
            pool = kind == "pool"
            weight, bias = none if pool else (file[f"weight_{i}"], file[f"bias_{i}"])
            layers.append(Layer(kind, weight, bias, source, shape))
            source = shape
        return Data(file["images"], layers, file["decoder"])


def parser(text: str | None) -> argparse.ArgumentParser:
    """Return the command line that every script has."""
    result = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    result.add_argument("data", help=".npz; harness.py says what is in it")
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
    n = len(data.images)
    depth = np.repeat(np.arange(len(data.layers)) + 1, data.sizes)
    # Neurons that fire without input also fire in steps that belong to no sample.
    sample = step - depth[neuron]
    mine = (sample >= 0) & (sample < n)
    fired = np.zeros((n, len(depth)), dtype=bool)
    fired[sample[mine], neuron[mine]] = True
    rasters = np.split(fired, data.offsets[1:-1], axis=1)
    counts = [np.count_nonzero(raster, axis=1) for raster in rasters]
    predictions = ((2.0 * rasters[-1] - 1.0) @ data.decoder).argmax(axis=1)
    return Readout(counts, predictions, rasters)


def truth(data: Data) -> list[Raster]:
    """Return what every layer must do, by plain sums."""
    blocks: list[list[Raster]] = []
    for first in range(0, len(data.images), CHECKED_AT_ONCE):
        spikes, rasters = data.images[first : first + CHECKED_AT_ONCE], []
        for layer in data.layers:
            spikes = _fires(layer, spikes.astype(np.float64))
            rasters.append(spikes)
        blocks.append(rasters)
    return [np.concatenate(rasters) for rasters in zip(*blocks, strict=True)]


def _fires(layer: Layer, spikes: Floats) -> Raster:
    if layer.kind == "dense":
        return np.asarray(spikes @ layer.weight + layer.bias >= 0.5)
    maps = spikes.reshape(-1, *layer.source)
    sums = np.zeros((len(maps), *layer.shape))
    for i, j, out_y, out_x, in_y, in_x in layer.windows():
        seen = maps[:, in_y[:, None], in_x]
        part = seen if layer.kind == "pool" else seen @ layer.weight[i, j]
        sums[:, out_y[:, None], out_x] += part
    return np.asarray((sums + layer.bias >= 0.5).reshape(len(maps), -1))


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
