"""How many spikes flip when weights get few bits, and what the choice of scale and threshold saves.

    python benchmarks/quantization.py [--limit N] [--calibration N] [--bits 8,6,4,3] [--json]

Networks are quantized on training images and run on the test images in exact integers, beside the
network as it is: with as few flipped spikes as possible, and with one scale for each layer and
plain rounding. Exit status 1 if plain rounding flips fewer, or if 8 bits on Loihi lose more than
0.2 points of accuracy.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import whetsim
from whetsim import datasets
from whetsim_hardware.quantize import METHODS, quantize
from whetsim_hardware.quantize_report import Flips, count_flips

NETWORKS = ("mnist_dense_binary", "mnist_conv_binary")
FOLDER = Path(__file__).resolve().parent / "networks"
LOST_POINTS = 0.2


def measure(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each width and method of one network."""
    model = whetsim.load(FOLDER / f"{name}.safetensors")
    network = whetsim.map_to_spikes(model)
    levels = model.metadata["input_levels"]
    train, _ = datasets.load("mnist", split="train", data_dir=arguments.data_dir)
    test, labels = datasets.load("mnist", split="test", data_dir=arguments.data_dir)
    seen = datasets.threshold_planes(train[: arguments.calibration], levels)
    unseen = datasets.threshold_planes(test[: arguments.limit], levels)
    labels = labels[: arguments.limit]
    plans: list[tuple[str | None, int | None]] = [("loihi", None)]
    plans += [(None, bits) for bits in arguments.bits]
    rows = []
    for chip, bits in plans:
        for method in METHODS:
            start = time.perf_counter()
            found = quantize(network, chip, seen, bits=bits, method=method)
            seconds = time.perf_counter() - start
            flips = count_flips(network, found.network, unseen, labels)
            rows.append(
                {"network": name, "weights": chip or f"{bits} bits", "method": method}
                | facts(flips)
                | {"calibration_flips": found.flips, "quantize_s": round(seconds, 2)}
            )
    return rows


def facts(flips: Flips) -> dict[str, Any]:
    """Return flips and accuracies as plain values."""
    return {
        "samples": flips.n_samples,
        "flips": flips.total,
        "by_population": dict(flips.by_population),
        "accuracy_before": flips.accuracy_before,
        "accuracy_after": flips.accuracy_after,
    }


def failures(rows: list[dict[str, Any]]) -> list[str]:
    """Return what is not as it should be."""
    found = []
    for ours, plain in zip(rows[::2], rows[1::2], strict=True):
        where = f"{ours['network']}, {ours['weights']}"
        if ours["flips"] >= plain["flips"]:
            found.append(f"{where}: {ours['flips']:,} flips; plain rounding {plain['flips']:,}")
        lost = 100 * (ours["accuracy_before"] - ours["accuracy_after"])
        if ours["weights"] == "loihi" and lost > LOST_POINTS:
            found.append(f"{where}: accuracy {lost:.2f} points lower (need {LOST_POINTS})")
    return found


def table(rows: list[dict[str, Any]]) -> Table:
    """Return the rows of one network as a table."""
    first = rows[0]
    result = Table(
        title=f"{first['network']}: flipped spikes on {first['samples']:,} test images, accuracy "
        f"{first['accuracy_before']:.2%} as it is",
        title_justify="left",
    )
    result.add_column("weights")
    result.add_column("method")
    for name in (*first["by_population"], "all", "plain = 1", "accuracy", "s"):
        result.add_column(name, justify="right")
    for i, row in enumerate(rows):
        plain = rows[i - i % 2 + 1]["flips"]
        result.add_row(
            row["weights"],
            row["method"],
            *(f"{n:,}" for n in row["by_population"].values()),
            f"{row['flips']:,}",
            f"{row['flips'] / max(1, plain):.3f}",
            f"{row['accuracy_after']:.2%}",
            f"{row['quantize_s']:.1f}",
        )
    return result


def main() -> int:
    """Run the benchmark; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=10_000, help="test images")
    parser.add_argument("--calibration", type=int, default=2_000, help="training images")
    parser.add_argument("--bits", default="8,6,4,3", help="widths, with commas between")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--data-dir")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        arguments.bits = [int(b) for b in arguments.bits.split(",")]
    except ValueError:
        parser.error(f"--bits {arguments.bits}: need whole numbers with commas between")
    console = Console(width=160)
    rows = []
    for name in arguments.networks.split(","):
        measured = measure(name, arguments)
        rows += measured
        if not arguments.json:
            console.print(table(measured))
    wrong = failures(rows)
    if arguments.json:
        print(json.dumps({"rows": rows, "failures": wrong}, indent=2))
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
