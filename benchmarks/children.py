"""Timed runs in processes of their own, and what they run on."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from whetsim.connectivity import Convolution, Dense
from whetsim.model import INPUT
from whetsim.network import Population, Projection, SpikingNetwork

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE / "peers"))

from harness import Data, Layer, write  # noqa: E402

PHASES = ("build_s", "run_s", "read_s", "total_s", "cpu_s", "peak_mb")


@dataclass
class Contender:
    """One way of running the network, as a command that prints its result as JSON."""

    name: str
    command: Sequence[str]
    note: str = ""
    once: bool = False
    """Measured a single time, because it is there to be looked at and not for a ratio."""
    results: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    def run(self, *more: str) -> dict[str, Any] | None:
        """Run the command in a fresh process; keep the reason where it gives no result."""
        command = [sys.executable, *self.command, *more]
        done = subprocess.run(command, capture_output=True, text=True, cwd=HERE, check=False)
        lines = done.stdout.strip().splitlines()
        if done.returncode == 0 and lines:
            result: dict[str, Any] = json.loads(lines[-1])
            return result
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        self.error = said[-1]
        return None

    def measure(self) -> None:
        """Run once more and keep the result."""
        if not self.error:
            result = self.run()
            if result is not None:
                self.results.append(result)

    @property
    def median(self) -> dict[str, float]:
        """Median of each measured quantity."""
        return {
            key: statistics.median(r[key] for r in self.results)
            for key in (*PHASES, "s_per_sample")
            if self.results and all(key in r for r in self.results)
        }

    @property
    def samples(self) -> int:
        """How many samples each run had."""
        return int(self.results[0]["samples"]) if self.results else 0

    @property
    def seconds_per_sample(self) -> float:
        """Total time by number of samples, or what the run itself says it is."""
        median = self.median
        if not median:
            return float("nan")
        return median.get("s_per_sample", median["total_s"] / max(1, self.samples))

    @property
    def exact(self) -> bool:
        """Whether every run gave the right spikes."""
        return bool(self.results) and all(r["exact"] for r in self.results)

    def as_dict(self) -> dict[str, Any]:
        """Return all there is to know as plain values."""
        return {
            "name": self.name,
            "note": self.note,
            "error": self.error or None,
            "exact": self.exact,
            "samples": self.samples,
            "median": self.median,
            "runs": self.results,
        }


def write_data(path: Path, network: SpikingNetwork, images: np.ndarray[Any, Any]) -> None:
    """Write weights and samples for scripts that know nothing of whetsim.

    Raises
    ------
    ValueError
        If the network is no chain of dense layers, plain convolutions and max pools.
    """
    layers: list[Layer] = []
    source, shape = INPUT, network.input.shape
    for population in network.populations:
        projections = list(network.into(population.name))
        layer = None
        if len(projections) == 1 and projections[0].source == source:
            layer = _layer(network, population, projections[0], shape)
        if layer is None:
            raise ValueError(
                f"{network.name}: population {population.name!r} is no dense layer, convolution in "
                "steps of 1 or max pool of the one before; the hand-written scripts run those."
            )
        layers.append(layer)
        source, shape = population.name, layer.shape
    readout = network.readout
    decoder = np.eye(network.populations[-1].size) if readout is None else readout.matrix
    write(path, Data(images.reshape(len(images), -1), layers, decoder))


def _layer(
    network: SpikingNetwork, population: Population, projection: Projection, source: tuple[int, ...]
) -> Layer | None:
    bias, connectivity = population.real_bias, projection.connectivity
    if isinstance(connectivity, Dense):
        weight = network.real_weight(projection, connectivity.weight, slice(None))
        return Layer("dense", weight, bias, source, population.shape)
    if not isinstance(connectivity, Convolution):
        return None
    g = connectivity.geometry
    channels = slice(g.target[2])
    weight = network.real_weight(projection, connectivity.weight, channels)
    if g.groups == g.source[2] == g.target[2] and g.strides == g.kernel and (weight == 1).all():
        none = np.zeros((0, 0)), np.zeros(1)
        return None if bias.any() else Layer("pool", *none, g.source, g.target)
    plain = (g.groups, g.strides, g.dilation, g.input_dilation) == (1, (1, 1), (1, 1), (1, 1))
    return Layer("conv", weight, bias[channels], g.source, g.target) if plain else None


def machine() -> dict[str, Any]:
    """Return what the numbers were measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0].partition(":")[2].strip() if models else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cpu": cpu, "cores": cores, "python": platform.python_version(), "load_before": load}
