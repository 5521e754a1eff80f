"""How fast exact spikes are beside what runs the same network on the same cores in float32.

    python benchmarks/peer_networks.py [--full] [--networks mlp,lenet,vgg] [--densities 0.05,0.1]

Peers are onnxruntime, PyTorch and snnTorch, each with the best of several batch sizes, numbers of
threads and layouts of maps. All of them and whetsim take turns in one process; medians are
compared. An answer is checked before its time counts: every spike of every layer must be exact
arithmetic's, unless float32 rounding can have decided it. Exit status 1 if an answer is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from children import machine
from exact_speed import check
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tuned_networks import NETWORKS, tuned_network

import whetsim
from whetsim import layers as L
from whetsim.reference import forward_with_error

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Raster = NDArray[np.bool_]

SAMPLES = {"mlp": (5_000, 10_000), "lenet": (1_000, 10_000), "vgg": (100, 2_000)}
"""Images by default and with --full."""
BATCHES = (10, 50, 250, 1000)
CHECKED = 10
"""Images of which every spike of every layer is checked: the first, and as many that differ."""
PAUSE_S = 0.05
"""Between runs: threads of the one before wait busily for a while."""


class Runner(Protocol):
    """A network of a peer."""

    def __call__(self, x: Floats) -> Raster:
        """Return the output spikes of a batch ``(n, height, width, channels)``."""

    def rasters(self, x: Floats) -> list[Raster]:
        """Return the spikes of every step layer, each ``(n, n_units)``."""


class OnnxNetwork:
    """onnxruntime with the file that whetsim writes."""

    def __init__(self, model: whetsim.Model, threads: int) -> None:
        self._model, self._threads = model, threads
        self._session = self._load(model)

    def _load(self, model: whetsim.Model) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            whetsim.save(model, path)
            return onnxruntime.InferenceSession(str(path), options)

    def __call__(self, x: Floats) -> Raster:
        return _spikes(self._session, x)

    def rasters(self, x: Floats) -> list[Raster]:
        # The file names no spikes but the last, so there is a shorter network for each layer.
        layers = self._model.layers
        ends = [i + 1 for i, layer in enumerate(layers) if isinstance(layer, L.Step)]
        shorter = (whetsim.Model("part", self._model.input, layers[:end]) for end in ends)
        return [_spikes(self._load(model), x) for model in shorter]


def _spikes(session: Any, x: Floats) -> Raster:
    (spikes,) = session.run(["spikes"], {"input": x})
    result: Raster = np.asarray(spikes).reshape(len(x), -1) != 0
    return result


def onnx_networks(model: whetsim.Model, threads: int) -> Iterator[tuple[str, Runner]]:
    """Yield what onnxruntime may choose from."""
    for n in sorted({1, threads}):
        yield f"{n} thread{'s' * (n > 1)}", OnnxNetwork(model, n)


def torch_networks(model: whetsim.Model, threads: int) -> Iterator[tuple[str, Runner]]:
    """Yield what PyTorch may choose from."""
    from peers.torch_by_hand import TorchNetwork

    yield from _layouts(TorchNetwork, model, threads)


def snntorch_networks(model: whetsim.Model, threads: int) -> Iterator[tuple[str, Runner]]:
    """Yield what snnTorch may choose from."""
    from peers.snntorch_by_hand import SnnTorchNetwork

    yield from _layouts(SnnTorchNetwork, model, threads)


def _layouts(cls: Any, model: whetsim.Model, threads: int) -> Iterator[tuple[str, Runner]]:
    stages = [_stage(layer) for layer in model.layers]
    has_maps = any(stage.kind == "conv" for stage in stages)
    for channels_last in (False, True) if has_maps else (False,):
        for n in sorted({1, threads}):
            label = f"{n} thread{'s' * (n > 1)}" + ", channels last" * channels_last
            yield label, cls(stages, model.input.scale, n, channels_last)


def _stage(layer: L.Layer) -> Any:
    from peers.torch_by_hand import Stage

    match layer:
        case L.Conv2D():
            return Stage("conv", layer.weight, layer.bias, layer.padding == "same")
        case L.Dense():
            return Stage("dense", layer.weight, layer.bias)
        case L.Step():
            return Stage("step")
        case L.MaxPool2D():
            return Stage("pool")
        case L.Flatten():
            return Stage("flat")
    raise TypeError(type(layer).__name__)


PEERS: dict[str, tuple[Callable[..., Iterator[tuple[str, Runner]]], str]] = {
    "onnxruntime": (onnx_networks, "pip install onnxruntime onnx"),
    "torch": (torch_networks, "pip install torch"),
    "snntorch": (snntorch_networks, "pip install torch snntorch"),
}
"""How each peer is built, and how to get it."""


@dataclass(frozen=True)
class Choice:
    """A peer in the way that suits it best."""

    runner: Runner
    batch: int
    way: str

    def run(self, x: Floats) -> Raster:
        """Return the output spikes of all images."""
        return in_batches(self.runner, x, self.batch)


def in_batches(runner: Runner, x: Floats, batch: int) -> Raster:
    """Return the output spikes of all images, computed batch by batch."""
    return np.concatenate([runner(x[i : i + batch]) for i in range(0, len(x), batch)])


def best_choice(networks: Iterator[tuple[str, Runner]], x: Floats) -> Choice:
    """Return the fastest of all ways and batch sizes."""
    found = []
    for way, runner in networks:
        for batch in sorted({min(batch, len(x)) for batch in BATCHES}):
            few = x[: max(batch, 50)]
            in_batches(runner, few, batch)
            took = min(seconds(partial(in_batches, runner, few, batch)) for _ in range(3))
            found.append((took / len(few), Choice(runner, batch, way)))
    return min(found, key=lambda entry: entry[0])[1]


def seconds(run: Callable[[], object]) -> float:
    """Return how long one run takes."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


@dataclass(frozen=True)
class Truth:
    """What exact arithmetic computes for some images, and where float32 may differ from it.

    Parameters
    ----------
    spikes : list of bool array (n, n_units)
        Of every step layer.
    margin, bound : list of float64 array (n, n_units)
        How far the sum is from the threshold, and how far rounding may move it.
    """

    spikes: list[Raster]
    margin: list[NDArray[np.float64]]
    bound: list[NDArray[np.float64]]

    def differences(self, rasters: Sequence[Raster]) -> dict[str, Any]:
        """Return how many units differ without a reason and by a tie, and the largest margin.

        Behind a tie that went the other way, what a sample does is no longer compared.
        """
        same = np.ones(len(self.spikes[0]), dtype=bool)
        faults = ties = 0
        largest = 0.0
        layers = zip(rasters, self.spikes, self.margin, self.bound, strict=True)
        for found, expected, margin, bound in layers:
            unequal = (found != expected) & same[:, None]
            faults += int((unequal & (margin > bound)).sum())
            ties += int((unequal & (margin <= bound)).sum())
            largest = max(largest, float(margin[unequal].max(initial=0.0)))
            same &= ~unequal.any(axis=1)
        return {"faults": faults, "ties": ties, "largest_margin": largest}


def truth(model: whetsim.Model, network: whetsim.SpikingNetwork, images: Images) -> Truth:
    """Return the exact spikes of some images and which of them may be ties."""
    recording = whetsim.run(network, images, record="rasters")
    steps = [layer.name for layer in model.layers if isinstance(layer, L.Step)]
    spikes = {name: recording.raster(name) for name in steps}
    values = forward_with_error(model, images, {n: s.astype(np.float32) for n, s in spikes.items()})
    margins, bounds = [], []
    for name in steps:
        x, bound = (part.reshape(len(images), -1) for part in values[name])
        # Weights lie on a grid, so each event may also be off by half a grid step.
        events = 1 + sum(
            network.size_of(p.source) * (network.input.largest if p.source == "input" else 1)
            for p in network.into(name)
        )
        margins.append(np.abs(x - 0.5))
        bounds.append(bound + events * network[name].half_grid_step)
    return Truth(list(spikes.values()), margins, bounds)


@dataclass(frozen=True)
class Task:
    """A network, the images, and the output spikes that are right."""

    model: whetsim.Model
    network: whetsim.SpikingNetwork
    images: Images
    output: Raster

    @property
    def x(self) -> Floats:
        """Images as peers read them."""
        return self.images.reshape(-1, *self.model.input.shape).astype(np.float32)


def examine(task: Task, choice: Choice) -> dict[str, Any]:
    """Return how a peer runs and what its answer is worth."""
    differs = (choice.run(task.x) != task.output).any(axis=1)
    looked_at = np.union1d(np.arange(min(CHECKED, len(differs))), np.nonzero(differs)[0][:CHECKED])
    known = truth(task.model, task.network, task.images[looked_at])
    found = known.differences(choice.runner.rasters(task.x[looked_at]))
    return found | {
        "batch": choice.batch,
        "way": choice.way,
        "right": found["faults"] == 0,
        "images_that_differ": int(differs.sum()),
    }


def measure(name: str, density: float, images: Images, rounds: int) -> dict[str, Any]:
    """Return the times of all on one network, in milliseconds an image."""
    threads = len(os.sched_getaffinity(0))
    model = tuned_network(name, density, images)
    network = whetsim.map_to_spikes(model)
    task = Task(model, network, images, _output(network, images))
    peers: dict[str, dict[str, Any]] = {}
    choices: dict[str, Choice] = {}
    for peer, (networks, install) in PEERS.items():
        try:
            choices[peer] = best_choice(networks(model, threads), task.x)
        except ImportError:
            peers[peer] = {"missing": f"not installed: {install}"}
        else:
            peers[peer] = examine(task, choices[peer])
    with whetsim.get_backend("exact").prepare(network, threads=threads) as simulation:
        turns = {peer: partial(choice.run, task.x) for peer, choice in choices.items()}
        times = take_turns(turns | {"exact": partial(simulation.run, images)}, rounds)
    ms = {who: statistics.median(t) / len(images) * 1e3 for who, t in times.items()}
    for peer in choices:
        each = zip(times[peer], times["exact"], strict=True)
        peers[peer] |= {
            "ms": ms[peer],
            "ratio": ms[peer] / ms["exact"],
            "ratio_of_each_round": [round(a / b, 2) for a, b in each],
        }
    return {
        "network": name,
        "density": density,
        "images": len(images),
        "right": check(network, images[:CHECKED]),
        "exact_ms": ms["exact"],
        "peers": peers,
    }


def _output(network: whetsim.SpikingNetwork, images: Images) -> Raster:
    with whetsim.get_backend("exact").prepare(network) as simulation:
        parts = [
            simulation.run(images[i : i + 500], record="rasters").raster(network.output)
            for i in range(0, len(images), 500)
        ]
    return np.concatenate(parts)


def take_turns(turns: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each run; all take turns (A B C A B C ...)."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    for run in turns.values():
        run()
    for _ in range(rounds):
        for name, run in turns.items():
            time.sleep(PAUSE_S)
            times[name].append(seconds(run))
    return times


def table(rows: list[dict[str, Any]]) -> Table:
    """Return the measurements as a table."""
    result = Table(
        title="ms an image, and how many times whetsim's exact spikes are faster",
        title_justify="left",
        caption="images: how many differ in an output spike, float32's ties and what follows them",
        caption_justify="left",
    )
    result.add_column("network")
    for name in ("share firing", "images", "exact ms"):
        result.add_column(name, justify="right")
    for peer in PEERS:
        for name in (f"{peer} ms", "times", "images"):
            result.add_column(name, justify="right")
    result.add_column("answers")
    for row in rows:
        cells = []
        for peer in row["peers"].values():
            if "missing" in peer:
                cells += ["-", "-", "-"]
            else:
                cells += [f"{peer['ms']:.4f}", f"{peer['ratio']:.2f}"]
                cells.append(str(peer["images_that_differ"]))
        result.add_row(
            row["network"],
            f"{row['density']:.0%}",
            f"{row['images']:,}",
            f"{row['exact_ms']:.4f}",
            *cells,
            "right" if right(row) else "WRONG",
        )
    return result


def right(row: dict[str, Any]) -> bool:
    """Return whether all answers were right."""
    return bool(row["right"]) and all(peer.get("right", True) for peer in row["peers"].values())


def missing(rows: list[dict[str, Any]]) -> list[str]:
    """Return what has to be installed for the rest of the table."""
    peers = {name: peer for row in rows for name, peer in row["peers"].items()}
    return [f"{name} {peer['missing']}" for name, peer in peers.items() if "missing" in peer]


def report(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the table and what is missing."""
    console.print(table(rows))
    for line in missing(rows):
        console.print(line)


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--densities", default="0.05,0.1,0.2,0.3")
    parser.add_argument("--full", action="store_true", help="more images; half an hour")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data-dir", help="folder with MNIST's files")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    images, _ = whetsim.datasets.load("mnist", split="test", data_dir=options.data_dir)
    rows = []
    for name in options.networks.split(","):
        for density in map(float, options.densities.split(",")):
            part = images[: SAMPLES[name][options.full]]
            rows.append(measure(name, density, part, options.rounds))
            told = {k: round(p["ratio"], 2) for k, p in rows[-1]["peers"].items() if "ratio" in p}
            print(f"{name} at {density:.0%}: {told}", file=sys.stderr)
    if options.json:
        print(json.dumps({"machine": machine(), "rows": rows}))
    else:
        console = Console(width=150)
        report(rows, console)
        console.print(machine())
    return 0 if all(right(row) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
