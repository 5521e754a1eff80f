"""Is a sharded run that was killed again and again the same as one that was not, byte for byte?

    python benchmarks/kill_and_resume.py [--kills 30] [--samples 10000] [--backends exact,nest]

A `whetsim compare` on MNIST's test images runs once undisturbed. Then it runs again, is killed with
SIGKILL at random moments, and resumed with the same command, until it is finished; that is repeated
in new folders until there were as many kills as wanted. Every result.json must be that of the first
run. Exit status 1 if one is not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from children import machine

HERE = Path(__file__).resolve().parent


def command(arguments: argparse.Namespace, out: Path) -> list[str]:
    """Return the command, which is the same every time but for its folder."""
    return [
        *(sys.executable, "-m", "whetsim.cli", "compare", arguments.network, "--data", "mnist"),
        *("--limit", str(arguments.samples), "--backends", arguments.backends),
        *("--shards", str(arguments.shards), "--out", str(out), "--json"),
    ]


def undisturbed(arguments: argparse.Namespace, out: Path) -> tuple[bytes, float]:
    """Return the result of a run that nobody kills, and how long it took."""
    begin = time.perf_counter()
    done = subprocess.run(
        command(arguments, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
    )
    if done.returncode != 0:
        print(done.stderr.decode().strip(), file=sys.stderr)
        sys.exit(2)
    return (out / "result.json").read_bytes(), time.perf_counter() - begin


def shards_in(out: Path) -> int:
    """Return how many shards are finished."""
    return len(list(out.glob("shard-*.npz")))


def run_with_kills(
    arguments: argparse.Namespace, out: Path, n: int, longest_s: float, rng: random.Random
) -> list[dict[str, Any]]:
    """Start, kill and start again until the run is finished; kill at most `n` times."""
    kills: list[dict[str, Any]] = []
    while True:
        before = shards_in(out)
        process = subprocess.Popen(
            command(arguments, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            wait_s = None if len(kills) == n else rng.uniform(0, longest_s)
            _, error = process.communicate(timeout=wait_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            if process.returncode < 0:
                half = [p.name for p in out.glob(".*.part")]
                kills.append({"after_s": wait_s, "shards": shards_in(out), "half_written": half})
                kills[-1]["new_shards"] = kills[-1]["shards"] - before
            continue
        if process.returncode != 0:
            print(error.decode().strip(), file=sys.stderr)
            sys.exit(1)
        return kills


def main() -> None:
    """Kill, resume, compare, and print a line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    network = HERE / "networks" / "mnist_dense.safetensors"
    parser.add_argument("--network", default=str(network), metavar="FILE")
    parser.add_argument("--kills", type=int, default=30, metavar="N")
    parser.add_argument("--samples", type=int, default=10_000, metavar="N")
    parser.add_argument("--shards", type=int, default=40, metavar="N")
    parser.add_argument("--backends", default="exact", metavar="NAMES")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--data-dir", metavar="DIR")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.data_dir is not None:
        os.environ["WHETSIM_DATA"] = arguments.data_dir
    rng = random.Random(arguments.seed)
    kills: list[dict[str, Any]] = []
    same: list[bool] = []
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        expected, whole_s = undisturbed(arguments, Path(folder) / "undisturbed")
        while len(kills) < arguments.kills:
            out = Path(folder) / f"killed-{len(same)}"
            kills += run_with_kills(arguments, out, arguments.kills - len(kills), whole_s, rng)
            same.append((out / "result.json").read_bytes() == expected)
            if not arguments.json:
                print(
                    f"run {len(same)}: {len(kills)} kills so far, result.json "
                    f"{'the same' if same[-1] else 'DIFFERS'}",
                    flush=True,
                )
    told = {
        "machine": machine(),
        "network": Path(arguments.network).name,
        "backends": arguments.backends,
        "samples": arguments.samples,
        "shards": arguments.shards,
        "undisturbed_s": round(whole_s, 3),
        "kills": kills,
        "while_writing": sum(bool(kill["half_written"]) for kill in kills),
        "runs": len(same),
        "same": sum(same),
        "total_s": round(time.perf_counter() - begin, 3),
    }
    if arguments.json:
        print(json.dumps(told, indent=2))
    else:
        print(
            f"{len(kills)} kills in {len(same)} runs of {arguments.samples:,} samples in "
            f"{arguments.shards} shards on {arguments.backends} "
            f"({sum(0 < kill['shards'] < arguments.shards for kill in kills)} with some shards "
            f"done, {told['while_writing']} while a file was written): {sum(same)} of {len(same)} "
            f"results the same byte for byte; undisturbed {whole_s:.1f} s, in all "
            f"{told['total_s']:.0f} s"
        )
    sys.exit(0 if all(same) else 1)


if __name__ == "__main__":
    main()
