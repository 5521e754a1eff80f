"""All tables of ratios in one command, each measured in its own run.

    python benchmarks/run_all.py [--full] [--only peer_networks,scaling] [--data-dir DIR]

Takes under three minutes; --full takes hours. Every benchmark is a process of its own that prints
its tables. Exit status 1 if an answer is wrong or one of them failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Benchmark:
    """A script, and its arguments for a short and for the full run."""

    script: str
    question: str
    short: tuple[str, ...]
    full: tuple[str, ...]

    def command(self, full: bool, data_dir: str | None) -> list[str]:
        """Return what runs it."""
        more = ("--data-dir", data_dir) if data_dir else ()
        arguments = self.full if full else self.short
        return [sys.executable, str(HERE / f"{self.script}.py"), *arguments, *more]


BENCHMARKS = (
    Benchmark(
        "fidelity",
        "does every backend compute what was trained?",
        ("networks/mnist_dense.safetensors", "--limit", "200", "--backends", "exact,nest,brian2"),
        (),
    ),
    Benchmark(
        "peer_networks",
        "how fast are exact spikes beside float32 on the same cores?",
        ("--densities", "0.1", "--rounds", "3"),
        ("--full",),
    ),
    Benchmark(
        "throughput",
        "how fast is it beside scripts written by hand?",
        ("--networks", "mlp", "--samples", "1000", "--tutorial-samples", "0", "--no-pynn"),
        ("--full",),
    ),
    Benchmark("large_network", "do the simulators take large networks?", (), ("--full",)),
    Benchmark(
        "quantization",
        "how many spikes does a chip's number format flip?",
        ("--networks", "mnist_dense_binary", "--limit", "1000"),
        (),
    ),
    Benchmark("scaling", "how do time and memory grow?", (), ("--full",)),
    Benchmark(
        "kill_and_resume",
        "is a run that was killed again and again the same?",
        ("--kills", "3", "--samples", "1000", "--shards", "8"),
        (),
    ),
)


def chosen(names: str | None) -> list[Benchmark]:
    """Return the benchmarks of a list of names with commas between, all for None.

    Raises
    ------
    ValueError
        If there is no such benchmark.
    """
    known = {benchmark.script: benchmark for benchmark in BENCHMARKS}
    wanted = list(known) if names is None else names.split(",")
    for name in wanted:
        if name not in known:
            raise ValueError(f"no benchmark {name!r}; there are: {', '.join(known)}.")
    return [known[name] for name in wanted]


def main() -> int:
    """Run one after the other; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="all networks and sizes; hours")
    parser.add_argument("--only", metavar="A,B", help="some of them")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with MNIST's files")
    options = parser.parse_args()
    try:
        benchmarks = chosen(options.only)
    except ValueError as error:
        parser.error(str(error))
    data_dir = str(Path(options.data_dir).resolve()) if options.data_dir else None
    summary, failed = [], False
    for benchmark in benchmarks:
        print(f"\n== {benchmark.script}: {benchmark.question}\n", flush=True)
        begin = time.perf_counter()
        done = subprocess.run(benchmark.command(options.full, data_dir), cwd=HERE, check=False)
        failed |= done.returncode != 0
        said = "as expected" if done.returncode == 0 else f"exit status {done.returncode}"
        summary.append(f"{benchmark.script}: {said}, {time.perf_counter() - begin:.0f} s")
    print("\n" + "\n".join(summary))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
