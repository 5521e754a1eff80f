"""How fast exact integers are beside onnxruntime's float32 on the same network and cores.

    python benchmarks/exact_speed.py [--full] [--networks mlp,lenet,vgg] [--densities 0.05,0.1]

The networks have random weights, tuned so that a share of the units fires; images are MNIST's test
set. Each answer is checked against plain integer sums before its time counts. The two take turns
(A B A B ...), medians are compared. Exit status 1 if an answer is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from children import machine
from layer_costs import multiply_adds
from numpy.typing import NDArray
from peaks import peaks
from rich.console import Console
from rich.table import Table
from tuned_networks import NETWORKS, tuned_network

import whetsim
from whetsim.sums import NetworkSums

SAMPLES = {"mlp": (10_000, 10_000), "lenet": (2_000, 10_000), "vgg": (200, 10_000)}
"""Images by default and with --full."""
BATCHES = (50, 250, 1000)
"""Batch sizes that onnxruntime may choose from; the best is taken."""
TARGETS = {
    "mlp": {0.05: 1.0, 0.1: 1.0, 0.2: 1.0, 0.3: 1.0},
    "lenet": {0.05: 2.5, 0.1: 1.7, 0.2: 1.2, 0.3: 1.0},
    "vgg": {0.05: 3.0, 0.1: 2.0, 0.2: 1.3, 0.3: 1.0},
}


def check(network: whetsim.SpikingNetwork, images: NDArray[np.uint8]) -> bool:
    """Return whether every spike of some images is that of plain integer sums."""
    recording = whetsim.run(network, images, record="rasters")
    sums = NetworkSums(network).of(images.reshape(len(images), -1).astype(np.int32))
    return all(
        np.array_equal(recording.raster(p.name), sums[p.name] >= p.threshold)
        for p in network.populations
    )


def onnx_runner(
    model: whetsim.Model, images: NDArray[np.uint8], threads: int
) -> tuple[Callable[[], Any], int]:
    """Return what runs all images through onnxruntime, and its batch size."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        whetsim.save(model, path)
        session = onnxruntime.InferenceSession(str(path), options)
    x = images.reshape(-1, *model.input.shape).astype(np.float32)

    def run(batch: int, n: int = len(x)) -> None:
        for start in range(0, n, batch):
            session.run(["spikes"], {"input": x[start : min(n, start + batch)]})

    def time_of(batch: int) -> float:
        few = min(len(x), max(batch, 200))
        run(batch, few)
        begin = time.perf_counter()
        run(batch, few)
        return (time.perf_counter() - begin) / few

    best = min(BATCHES, key=time_of)
    return lambda: run(best), best


def measure(name: str, density: float, images: NDArray[np.uint8], rounds: int) -> dict[str, Any]:
    """Return the times of both on one network, in milliseconds an image."""
    threads = len(os.sched_getaffinity(0))
    model = tuned_network(name, density, images)
    network = whetsim.map_to_spikes(model)
    right = check(network, images[:20])
    peer, batch = onnx_runner(model, images, threads)
    with whetsim.get_backend("exact").prepare(network, threads=threads) as simulation:
        recording = simulation.run(images[:100])
        times: dict[str, list[float]] = {"exact": [], "onnxruntime": []}
        for _ in range(rounds):
            for label, run in (("onnxruntime", peer), ("exact", lambda: simulation.run(images))):
                begin = time.perf_counter()
                run()
                times[label].append((time.perf_counter() - begin) / len(images) * 1e3)
    medians = {label: statistics.median(values) for label, values in times.items()}
    synops = recording.synops_per_sample
    fired = sum(v for k, v in recording.spikes_per_sample.items() if k != "input")
    return {
        "network": name,
        "density": density,
        "images": len(images),
        "right": right,
        "batch_of_onnxruntime": batch,
        "onnxruntime_ms": medians["onnxruntime"],
        "exact_ms": medians["exact"],
        "ratio": medians["onnxruntime"] / medians["exact"],
        "ratio_of_each_round": [
            round(a / b, 2) for a, b in zip(times["onnxruntime"], times["exact"], strict=True)
        ],
        "target": TARGETS[name].get(density),
        "firing": fired / network.n_neurons,
        "synops_per_s": synops / medians["exact"] * 1e3,
        "multiply_adds_replaced_per_s": sum(multiply_adds(model).values()) / medians["exact"] * 1e3,
    }


def table(rows: list[dict[str, Any]], title: str) -> Table:
    """Return the measurements as a table."""
    result = Table(title=title, title_justify="left")
    for name in ("network", "share firing"):
        result.add_column(name)
    columns = ("images", "onnxruntime ms", "exact ms", "times faster", "wanted")
    columns += ("10^9 synops/s", "10^9 replaced multiply-adds/s")
    for name in columns:
        result.add_column(name, justify="right")
    result.add_column("spikes")
    for row in rows:
        result.add_row(
            row["network"],
            f"{row['density']:.0%}",
            f"{row['images']:,}",
            f"{row['onnxruntime_ms']:.4f}",
            f"{row['exact_ms']:.4f}",
            f"{row['ratio']:.2f}",
            "-" if row["target"] is None else f"{row['target']:.1f}",
            f"{row['synops_per_s'] / 1e9:.1f}",
            f"{row['multiply_adds_replaced_per_s'] / 1e9:.0f}",
            "exact" if row["right"] else "WRONG",
        )
    return result


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument(
        "--densities", default="0.05,0.1,0.2,0.3", help="shares of units that fire, 0..1"
    )
    parser.add_argument(
        "--full", action="store_true", help="all 10,000 images; a quarter of an hour"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data-dir", help="folder with MNIST's files")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        densities = [float(text) for text in options.densities.split(",")]
    except ValueError:
        densities = [-1.0]
    if not all(0 < density < 1 for density in densities):
        parser.error(f"--densities: need shares between 0 and 1 (got {options.densities}).")
    images, _ = whetsim.datasets.load("mnist", split="test", data_dir=options.data_dir)
    rows = []
    for name in options.networks.split(","):
        for density in densities:
            part = images[: SAMPLES[name][options.full]]
            rows.append(measure(name, density, part, options.rounds))
            if not options.json:
                print(f"{name} at {density:.0%}: {rows[-1]['ratio']:.2f}", file=sys.stderr)
    peak = peaks()
    if options.json:
        print(json.dumps({"machine": machine(), "rows": rows, "peak_additions_per_s": peak}))
    else:
        Console(width=140).print(
            table(rows, "exact integers and onnxruntime's float32, ms an image")
        )
        told = ", ".join(f"{value / 1e9:.0f} from {where}" for where, value in peak.items())
        print(f"int32 additions a second that this machine reaches, 10^9, operands {told}")
        print(machine())
    return 0 if all(row["right"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
