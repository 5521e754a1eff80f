"""How long a simulator takes to build and run a large network, and how much memory.

    python benchmarks/large_network.py [--full] [--network lenet] [--images N] [--json]

By default lenet of `tuned_networks.py` (4 million synapses) with 100 images; `--full` is vgg
(114 million synapses) with 100 images, for which 24 GiB of memory are enough. Each simulator runs
in a process of its own. Its peak memory is read before its spikes, every one of them, are compared
with those of backend `exact`.
Exit status 1 if a spike differs or a simulator failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from children import Contender, machine
from peers.harness import peak_mb
from rich.console import Console
from rich.table import Table
from tuned_networks import NETWORKS, tuned_network

import whetsim
from whetsim import datasets
from whetsim.backends.support import need

SIMULATORS = ("nest", "brian2")
COLUMNS = ("build s", "run s", "read s", "peak GB", "10^6 synops/s", "spikes that differ")


def run_one(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the network on one simulator and compare with exact arithmetic."""
    images, _ = datasets.load("mnist", split="test", data_dir=arguments.data_dir)
    model = tuned_network(arguments.network, arguments.density, images)
    network, images = whetsim.map_to_spikes(model), images[: arguments.images]
    need(arguments.one, arguments.one, arguments.one)
    options = {"threads": arguments.threads} if arguments.threads else {}
    recording = whetsim.run(
        network, images, backend=arguments.one, record="rasters", encoding="graded", **options
    )
    peak_gb = peak_mb() / 1024
    truth = whetsim.run(network, images, backend="exact", record="rasters")
    differ = whetsim.compare(truth, recording).n_differences
    timing, synops = recording.timing, sum(int(s.sum()) for s in recording.synops.values())
    return {
        "neurons": network.n_neurons,
        "synapses": network.n_synapses,
        "samples": recording.n_samples,
        "build_s": round(timing.build_s, 3),
        "run_s": round(timing.run_s, 3),
        "read_s": round(timing.read_s, 3),
        "peak_gb": round(peak_gb, 2),
        "synops": synops,
        "synops_per_s": round(synops / timing.run_s),
        "differing_spikes": differ,
        "exact": differ == 0,
    }


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="vgg, 100 images")
    parser.add_argument("--network", choices=tuple(NETWORKS), help="lenet")
    parser.add_argument("--images", type=int, default=100, metavar="N", help="100")
    parser.add_argument("--density", type=float, default=0.1, help="share that fires; 0.1")
    parser.add_argument("--backends", default=",".join(SIMULATORS), metavar="LIST")
    parser.add_argument("--threads", type=int, metavar="N", help="of NEST; by its own rule")
    parser.add_argument("--one", choices=SIMULATORS, help=argparse.SUPPRESS)
    parser.add_argument("--data-dir", metavar="DIR", help="folder that has the MNIST files")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.network = arguments.network or ("vgg" if arguments.full else "lenet")
    for name in arguments.backends.split(","):
        if name not in SIMULATORS:
            parser.error(f"--backends: no {name!r} here; there are: {', '.join(SIMULATORS)}")
    if not 1 <= arguments.images <= 10_000:
        parser.error(f"--images must be in 1..10000 (got {arguments.images})")
    return arguments


def child(arguments: argparse.Namespace, name: str) -> Contender:
    """Return the run of one simulator in a process of its own."""
    more = ["--data-dir", arguments.data_dir] if arguments.data_dir else []
    if arguments.threads and name == "nest":
        more += ["--threads", str(arguments.threads)]
    command = ("large_network.py", "--one", name, "--network", arguments.network)
    sizes = ("--images", str(arguments.images), "--density", str(arguments.density))
    return Contender(name, (*command, *sizes, *more))


def show(rows: list[Contender], arguments: argparse.Namespace, host: dict[str, Any]) -> None:
    """Print the measurements as a table, and what failed."""
    console = Console()
    console = console if console.is_terminal else Console(width=110)
    done = [row.results[0] for row in rows if row.results]
    size = f"{done[0]['neurons']:,} neurons, {done[0]['synapses']:,} synapses, " if done else ""
    table = Table(
        title=f"{arguments.network}: {size}{arguments.images} images, {arguments.density:.0%} "
        f"fire; {host['cpu']}, {host['cores']} cores",
        title_justify="left",
    )
    table.add_column("")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for row in rows:
        for r in row.results:
            times = (f"{r[key]:.2f}" for key in ("build_s", "run_s", "read_s", "peak_gb"))
            speed = f"{r['synops_per_s'] / 1e6:.1f}"
            table.add_row(row.name, *times, speed, str(r["differing_spikes"]))
    console.print(table)
    for row in rows:
        if row.error:
            console.print(f"{row.name} failed: {row.error}", style="red", markup=False)


def main() -> int:
    """Run the benchmark; return the exit status."""
    arguments = parse()
    if arguments.one:
        print(json.dumps(run_one(arguments)))
        return 0
    host, rows = machine(), [child(arguments, name) for name in arguments.backends.split(",")]
    for row in rows:
        print(f"running {row.name}", file=sys.stderr)
        row.measure()
    if arguments.json:
        plain = [row.as_dict() for row in rows]
        print(json.dumps({"machine": host, "network": arguments.network, "rows": plain}, indent=2))
    else:
        show(rows, arguments, host)
    return 0 if all(row.exact for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
