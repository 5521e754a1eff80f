"""How fast whetsim is beside hand-written scripts and beside the tutorial way.

    python benchmarks/throughput.py [--full] [--samples N] [--networks mlp,lenet] [--json]

Every run is a process of its own and is checked before its time counts: its spikes must be those
of exact arithmetic. Contenders take turns (A B A B ...), medians are compared. Build, run and
read-out are timed, on both sides without importing the simulator and with Brian2's code already
compiled.
Exit status 1 if an answer is wrong or a contender failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from children import PHASES, Contender, machine, write_data
from rich.console import Console
from rich.table import Table
from tuned_networks import NETWORKS, tuned_network

import whetsim
from whetsim import datasets
from whetsim.connectivity import Dense
from whetsim.network import SpikingNetwork

PAIRS = {"nest": "NEST by hand", "brian2": "Brian2 by hand"}
TUTORIALS = {"nest": "PyNN tutorial way, NEST", "brian2": "PyNN tutorial way, Brian2"}
TARGETS = {"by_hand": 1.15, "tutorial": 50.0}
DENSITY = 0.1
"""Share of units that fire in the networks of `tuned_networks.py`."""
WARM_UP = ("--samples", "10")


def contenders(
    arguments: argparse.Namespace, network: Path, data: str, dense: bool
) -> dict[str, Contender]:
    """Return everything that takes turns, in the order of a round."""
    n, threads = ("--samples", str(arguments.samples)), ("--threads", str(arguments.threads))

    def ours(backend: str, **more: Any) -> Contender:
        command = ("whetsim_run.py", str(network), data, "--backend", backend, *n)
        return Contender(f"whetsim {backend}", (*command, *threads), **more)

    result = {
        "nest": ours("nest"),
        PAIRS["nest"]: Contender(PAIRS["nest"], ("peers/nest_by_hand.py", data, *n, *threads)),
        "brian2": ours("brian2"),
        PAIRS["brian2"]: Contender(PAIRS["brian2"], ("peers/brian2_by_hand.py", data, *n)),
        "exact": ours("exact", note="no simulator: integer sums by events, compiled"),
    }
    if dense and not arguments.no_pynn:
        result["pynn.nest"] = ours("pynn.nest", once=True, note="PyNN's own objects; one run")
        result["pynn.brian2"] = ours("pynn.brian2", once=True, note="PyNN's own objects; one run")
    return result


def tutorials(arguments: argparse.Namespace, data: str, dense: bool) -> dict[str, Contender]:
    """Return the tutorial way on each simulator, for a few samples."""
    return {
        simulator: Contender(
            name,
            (
                *("peers/pynn_tutorial.py", data, "--simulator", simulator),
                *("--samples", str(arguments.tutorial_samples)),
            ),
            note=f"{arguments.tutorial_samples} samples, pixels black or white; ms/sample without "
            "the build",
            once=True,
        )
        for simulator, name in TUTORIALS.items()
        if dense and arguments.tutorial_samples > 0
    }


def ratio(a: float | None, b: float | None) -> float | None:
    """Return a / b rounded for people, None where something is missing."""
    return round(a / b, 3) if a is not None and b else None


def compare(rows: dict[str, Contender], slow: dict[str, Contender]) -> dict[str, dict[str, Any]]:
    """Return for each simulator whetsim by the hand-written script, and the tutorial way by it."""
    result: dict[str, dict[str, Any]] = {}
    for simulator, peer in PAIRS.items():
        ours, theirs = rows[simulator], rows[peer]
        pairs = zip(ours.results, theirs.results, strict=False)
        mine, other = ours.median, theirs.median
        same = bool(ours.results and theirs.results) and (
            ours.results[0]["spikes"] == theirs.results[0]["spikes"]
        )
        tutorial = slow.get(simulator)
        factor = None
        if tutorial is not None and tutorial.results and ours.results:
            factor = ratio(tutorial.seconds_per_sample, ours.seconds_per_sample)
        result[simulator] = {
            "time": ratio(mine.get("total_s"), other.get("total_s")),
            "time_of_each_round": [ratio(a["total_s"], b["total_s"]) for a, b in pairs],
            "cpu_time": ratio(mine.get("cpu_s"), other.get("cpu_s")),
            "peak_memory": ratio(mine.get("peak_mb"), other.get("peak_mb")),
            "equal_spike_counts": same,
            "times_faster_than_tutorial": factor,
        }
    return result


def table(rows: list[Contender], ratios: dict[str, Any], title: str) -> Table:
    """Return the measurements as a table."""
    result = Table(title=title, title_justify="left")
    result.add_column("", no_wrap=True)
    for name in ("build s", "run s", "read s", "total s", "CPU s", "peak MB", "ms/sample"):
        result.add_column(name, justify="right")
    result.add_column("by hand = 1", justify="right")
    result.add_column("spikes")
    for row in rows:
        median = row.median
        values = [f"{median[k]:.2f}" if k in median else "-" for k in PHASES[:-1]]
        peak = f"{median['peak_mb']:.0f}" if median else "-"
        by_hand = ratios.get(row.name.removeprefix("whetsim "), {}).get("time")
        answer = "failed" if row.error else "exact" if row.exact else "WRONG"
        result.add_row(
            row.name,
            *values,
            peak,
            f"{row.seconds_per_sample * 1e3:.3f}",
            "1" if row.name in PAIRS.values() else "-" if by_hand is None else f"{by_hand:.2f}",
            answer,
        )
    return result


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--networks",
        default="mlp,lenet",
        metavar="LIST",
        help=f"of {', '.join(NETWORKS)} (random weights, a share of {DENSITY} fires), or "
        "files; mlp,lenet",
    )
    parser.add_argument("--samples", type=int, metavar="N", help="MNIST test images; 500")
    parser.add_argument("--full", action="store_true", help="all 10,000 images, medians of 5, all")
    parser.add_argument("--repeats", type=int, metavar="N", help="runs of each; 3")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of NEST, both sides")
    parser.add_argument(
        "--tutorial-samples", type=int, metavar="N", help="with --full 5, else 0: leave it out"
    )
    parser.add_argument("--no-pynn", action="store_true", help="leave pynn.nest, pynn.brian2 out")
    parser.add_argument("--data-dir", metavar="DIR", help="folder that has the MNIST files")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.samples = arguments.samples or (10_000 if arguments.full else 500)
    arguments.repeats = arguments.repeats or (5 if arguments.full else 3)
    if arguments.tutorial_samples is None:
        arguments.tutorial_samples = 5 if arguments.full else 0
    arguments.no_pynn = arguments.no_pynn or not arguments.full
    return arguments


def network_file(name: str, images: Any, folder: Path) -> Path:
    """Return the file of a network: a tuned one, which is written to `folder`, or one given."""
    if name not in NETWORKS:
        return Path(name).resolve()
    path = folder / f"{name}.safetensors"
    whetsim.save(tuned_network(name, DENSITY, images), path)
    return path


def read_network(path: Path, n_values: int) -> SpikingNetwork:
    """Map a network file; `ValueError` if it does not read images of `n_values` pixels."""
    network = whetsim.map_to_spikes(whetsim.load(path))
    if network.input.size != n_values:
        raise ValueError(
            f"{path.name}: reads {network.input.size} values; need {n_values}, the pixels of an "
            "MNIST image."
        )
    return network


def measure(
    arguments: argparse.Namespace, path: Path, data: str, dense: bool, status: Console
) -> dict[str, Any]:
    """Run everything on one network and return the results."""
    host = machine()
    rows, slow = contenders(arguments, path, data, dense), tutorials(arguments, data, dense)
    for row in rows.values():
        status.print(f"warming up: {row.name}", style="dim")
        row.run(*WARM_UP)
    for round_ in range(arguments.repeats):
        for row in rows.values():
            if not (row.once and round_):
                row.measure()
                seconds = f"{row.results[-1]['total_s']:.2f} s" if row.results else row.error
                status.print(f"round {round_ + 1}: {row.name}: {seconds}", style="dim")
    for row in slow.values():
        status.print(f"{row.name} (Brian2's build takes a minute or two)", style="dim")
        row.measure()
    return {
        "machine": host,
        "network": path.stem,
        "samples": arguments.samples,
        "repeats": arguments.repeats,
        "threads": arguments.threads,
        "targets": TARGETS,
        "ratios": compare(rows, slow),
        "rows": [*rows.values(), *slow.values()],
    }


def show(result: dict[str, Any], console: Console) -> None:
    """Print the table, the ratios and what failed."""
    host = result["machine"]
    title = (
        f"{result['network']}, {result['samples']:,} MNIST images, medians of {result['repeats']}; "
        f"{host['cpu']}, {host['cores']} cores, NEST with {result['threads']} thread(s)"
    )
    console.print(table(result["rows"], result["ratios"], title))
    for simulator, ratios in result["ratios"].items():
        if not ratios["equal_spike_counts"]:
            console.print(f"{simulator}: whetsim and {PAIRS[simulator]} differ", style="red")
        console.print(
            f"whetsim {simulator} / {PAIRS[simulator]}: time {ratios['time']} (wanted: at most "
            f"{TARGETS['by_hand']}; each round {ratios['time_of_each_round']}), CPU time "
            f"{ratios['cpu_time']}, peak memory {ratios['peak_memory']}",
            highlight=False,
        )
        factor = ratios["times_faster_than_tutorial"]
        if factor is not None:
            console.print(
                f"{TUTORIALS[simulator]} / whetsim {simulator}, per sample: {factor:,.0f} (wanted: "
                f"at least {TARGETS['tutorial']:.0f})",
                highlight=False,
            )
    for row in result["rows"]:
        if row.error:
            console.print(f"{row.name} failed: {row.error}", style="red", markup=False)
        elif row.note:
            console.print(f"{row.name}: {row.note}", style="dim")


def main() -> int:
    """Run the benchmark; return the exit status."""
    arguments = parse()
    status = Console(stderr=True)
    console = Console()
    # In a pipe or a file the table keeps its width.
    console = console if console.is_terminal else Console(width=120)
    results = []
    try:
        images, _ = datasets.load("mnist", split="test", data_dir=arguments.data_dir)
        with tempfile.TemporaryDirectory() as folder:
            for name in arguments.networks.split(","):
                path, data = network_file(name, images, Path(folder)), Path(folder) / "data.npz"
                network = read_network(path, images[0].size)
                write_data(data, network, images[: arguments.samples])
                dense = all(isinstance(p.connectivity, Dense) for p in network.projections)
                results.append(measure(arguments, path, str(data), dense, status))
                if not arguments.json:
                    show(results[-1], console)
    except (OSError, ValueError) as error:
        status.print(str(error), style="red", markup=False, soft_wrap=True)
        return 2
    if arguments.json:
        plain = [r | {"rows": [row.as_dict() for row in r["rows"]]} for r in results]
        print(json.dumps(plain, indent=2))
    same = all(r["equal_spike_counts"] for result in results for r in result["ratios"].values())
    return 0 if same and all(row.exact for result in results for row in result["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main())
