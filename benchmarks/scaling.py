"""How time and memory grow with samples, synapses and threads.

    python benchmarks/scaling.py [--full] [--axes samples,synapses,threads] [--json]

Every line of a table is a process of its own, so that peak memory is that of this run alone.
Samples come from an iterator, so that they are not counted. Spikes are checked behind the
measurement: against plain integer sums, or on a simulator against `exact`. Exit status 1 if an
answer is wrong or a run failed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.uint8]

BATCH = 1000
"""Samples that the iterator hands over at once."""
FIRING = 0.1
QUANTILE = 1.2815515655446004
"""Of the normal distribution at 1 - FIRING: a bias this far below 0.5 lets that share fire."""
DEPTH = 4
CHANNELS = 8
ROUNDS, ENOUGH_S = 5, 2.0
"""Runs of which the median counts; no more once they took so long in all."""
TITLES = {
    "samples": "samples: 784-256-64-100, MNIST again and again",
    "synapses": f"synapses: {DEPTH} layers, dense or 3 x 3 convolutions",
    "threads": "threads: lenet, MNIST",
}


@dataclass(frozen=True)
class Point:
    """One line of a table.

    Parameters
    ----------
    axis : str
    network : str
        ``mlp`` or ``lenet`` on MNIST; ``dense`` or ``conv`` made for `synapses`.
    samples : int
    backend : str
    threads : int
        0 is the backend's own choice.
    synapses : int
    totals : bool
        One run for each batch of the iterator, added up, instead of one run of all.
    """

    axis: str
    network: str
    samples: int
    backend: str = "exact"
    threads: int = 0
    synapses: int = 0
    totals: bool = False


def points(full: bool) -> list[Point]:
    """Return what is measured."""
    cores = len(os.sched_getaffinity(0))
    result = []
    for totals in (False, True):
        for n in (100, 1_000, 10_000, 100_000, *((1_000_000,) if full else ())):
            result.append(Point("samples", "mlp", n, totals=totals))
    for network in ("dense", "conv"):
        for exponent in (5, 6, 7, *((8,) if full else ())):
            n = 10 ** min(4, 9 - exponent)
            result.append(Point("synapses", network, n, synapses=10**exponent))
    for backend in ("nest", "brian2"):
        for exponent in (5, 6, *((7,) if full else ())):
            result.append(
                Point("synapses", "dense", 10 ** (8 - exponent), backend, 1, 10**exponent)
            )
    for threads in sorted({1, *(2**i for i in range(1, cores.bit_length())), cores}):
        result.append(Point("threads", "lenet", 10_000 if full else 2_000, threads=threads))
    return [point for point in result if point.threads <= cores]


# --- one line, in a process of its own ----------------------------------------------------------


def memory_mb(key: str) -> float:
    """Return ``VmHWM`` (largest resident size so far) or ``VmRSS`` (now) of this process, in MB.

    getrusage would count the process that started this one too.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    return float("nan")


def chain(kind: str, synapses: int, seed: int = 0) -> Any:
    """Return `DEPTH` layers of about so many synapses, of which a tenth of the units fires.

    Inputs are 0/1 and a tenth of them is 1. Weights are normal, scaled so that each sum has a
    variance of 1.
    """
    import whetsim
    from whetsim import layers as L

    rng = np.random.default_rng(seed)
    layers: list[L.Layer] = []
    source = "input"
    if kind == "dense":
        width = round(math.sqrt(synapses / DEPTH))
        shape: tuple[int, ...] = (width,)
        kernel: tuple[int, ...] = (width,)
        n_out = width
    else:
        side = round(math.sqrt(synapses / (DEPTH * 9 * CHANNELS**2)))
        shape, kernel, n_out = (side, side, CHANNELS), (3, 3, CHANNELS), CHANNELS
    for i in range(DEPTH):
        weight = rng.standard_normal((*kernel, n_out), dtype=np.float32)
        weight /= np.float32(math.sqrt(math.prod(kernel) * FIRING))
        bias = np.full(n_out, 0.5 - QUANTILE, np.float32)
        common: dict[str, Any] = {"inputs": source, "weight": weight, "bias": bias}
        if kind == "dense":
            layers.append(L.Dense(name=f"dense_{i}", **common))
        else:
            layers.append(L.Conv2D(name=f"conv_{i}", padding="same", **common))
        source = f"step_{i}"
        layers.append(L.Step(name=source, inputs=layers[-1].name))
    return whetsim.Model(f"{kind}_{synapses}", whetsim.InputSpec(shape, 0, 1, 1.0), tuple(layers))


def prepare(point: Point, data_dir: str | None) -> tuple[Any, Samples]:
    """Return the network and the samples that come again and again."""
    import whetsim

    if point.axis == "synapses":
        model = chain(point.network, point.synapses)
        n = min(point.samples, BATCH)
        draws = np.random.default_rng(1).random((n, *model.input.shape), dtype=np.float32)
        return whetsim.map_to_spikes(model), (draws < FIRING).astype(np.uint8)
    from tuned_networks import tuned_network

    images, _ = whetsim.datasets.load("mnist", split="test", data_dir=data_dir)
    return whetsim.map_to_spikes(tuned_network(point.network, FIRING, images)), images


def batches(samples: Samples, n: int) -> Iterator[Samples]:
    """Yield `n` samples, batch after batch, from the beginning again where there are no more."""
    done = 0
    while done < n:
        begin = done % len(samples)
        batch = samples[begin : begin + min(BATCH, n - done)]
        yield batch
        done += len(batch)


def measure(point: Point, data_dir: str | None) -> dict[str, Any]:
    """Return time and memory of one line."""
    from exact_speed import check

    import whetsim

    network, samples = prepare(point, data_dir)
    options = {"threads": point.threads} if point.threads and point.backend != "brian2" else {}
    begin = time.perf_counter()
    with whetsim.get_backend(point.backend).prepare(network, **options) as simulation:
        build_s = time.perf_counter() - begin
        before = memory_mb("VmRSS")
        times: list[float] = []
        peak = 0.0
        while len(times) < ROUNDS and sum(times) < ENOUGH_S:
            begin = time.perf_counter()
            spikes, kept = run(simulation, point, samples)
            times.append(time.perf_counter() - begin)
            peak = peak or memory_mb("VmHWM")
        few = samples[: min(10, point.samples)]
        if point.backend == "exact":
            right = check(network, few[:2] if point.synapses > 10**7 else few)
        else:
            digests = simulation.run(few).digests
            exact = whetsim.run(network, few).digests
            right = all(np.array_equal(exact[name], digests[name]) for name in exact)
    return asdict(point) | {
        "n_synapses": network.n_synapses,
        "n_neurons": network.n_neurons,
        "build_s": build_s,
        "run_s": statistics.median(times),
        "us_per_sample": statistics.median(times) / point.samples * 1e6,
        "rounds": len(times),
        "firing": spikes / point.samples / network.n_neurons,
        "before_mb": before,
        "peak_mb": peak,
        "results_mb": kept / 2**20,
        "right": right,
    }


def run(simulation: Any, point: Point, samples: Samples) -> tuple[int, int]:
    """Run all samples; return the number of spikes and how many bytes of results were kept."""
    if point.totals:
        spikes = kept = 0
        for batch in batches(samples, point.samples):
            recording = simulation.run(batch)
            spikes += n_spikes(recording)
            kept = max(kept, n_bytes(recording))
        return spikes, kept
    recording = simulation.run(batches(samples, point.samples))
    return n_spikes(recording), n_bytes(recording)


def n_spikes(recording: Any) -> int:
    """Return the spikes of all populations, input left out."""
    counts = recording.spike_counts
    return sum(int(counts[p.name].sum()) for p in recording.network.populations)


def n_bytes(recording: Any) -> int:
    """Return how much the arrays of a recording take."""
    kinds = (recording.spike_counts, recording.synops, recording.digests)
    arrays = [array for kind in kinds for array in kind.values()]
    if recording.scores is not None:
        arrays.append(recording.scores)
    return sum(int(array.nbytes) for array in arrays)


# --- all lines ----------------------------------------------------------------------------------


def measure_all(wanted: list[Point], data_dir: str | None) -> list[dict[str, Any]]:
    """Return each line, measured in a fresh process; ``error`` where one failed."""
    from children import Contender

    rows = []
    for point in wanted:
        more = ("--data-dir", data_dir) if data_dir else ()
        command = ("scaling.py", "--point", json.dumps(asdict(point)), *more)
        child = Contender(f"{point.backend} {point.network}", command)
        row = child.run()
        rows.append(asdict(point) | {"error": child.error, "right": False} if row is None else row)
        told = child.error or f"{rows[-1]['us_per_sample']:.1f} us, {rows[-1]['peak_mb']:.0f} MB"
        print(f"{point.axis}: {child.name}, {point.samples:,} samples: {told}", file=sys.stderr)
    return rows


def report(rows: list[dict[str, Any]], console: Any) -> None:
    """Print a table for each axis."""
    from rich.table import Table

    for axis, title in TITLES.items():
        lines = [row for row in rows if row["axis"] == axis]
        if not lines:
            continue
        table = Table(title=title, title_justify="left")
        table.add_column("run")
        columns = ("synapses", "samples", "threads", "build s", "us a sample", "ns a synapse")
        for name in (*columns, "before MB", "peak MB", "results MB"):
            table.add_column(name, justify="right")
        table.add_column("spikes")
        for row in lines:
            table.add_row(*cells(row))
        console.print(table)


def cells(row: dict[str, Any]) -> list[str]:
    """Return one line of a table."""
    name = f"{row['backend']} {row['network']}"
    name += ", a run for each 1,000" if row["totals"] else ""
    if "error" in row:
        return [name, f"{row['synapses']:.0e}", f"{row['samples']:,}", row["error"]]
    return [
        name,
        f"{row['n_synapses']:.1e}",
        f"{row['samples']:,}",
        str(row["threads"] or "all"),
        f"{row['build_s']:.2f}",
        f"{row['us_per_sample']:.1f}",
        f"{row['us_per_sample'] * 1e3 / row['n_synapses']:.3f}",
        f"{row['before_mb']:.0f}",
        f"{row['peak_mb']:.0f}",
        f"{row['results_mb']:.2f}",
        "exact" if row["right"] else "WRONG",
    ]


def main() -> int:
    """Measure one line, or all and print them; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--axes", default=",".join(TITLES))
    parser.add_argument("--full", action="store_true", help="larger ones too; several minutes")
    parser.add_argument("--data-dir", help="folder with MNIST's files")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        print(json.dumps(measure(Point(**json.loads(options.point)), options.data_dir)))
        return 0
    from children import machine
    from rich.console import Console

    wanted = [p for p in points(options.full) if p.axis in options.axes.split(",")]
    if not wanted:
        parser.error(f"--axes {options.axes}: need some of {', '.join(TITLES)}")
    rows = measure_all(wanted, options.data_dir)
    if options.json:
        print(json.dumps({"machine": machine(), "rows": rows}))
    else:
        console = Console(width=140)
        report(rows, console)
        console.print(machine())
    return 0 if all(row["right"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
