"""What a spiking network computes beside the network it was trained as, on every backend.

    python benchmarks/fidelity.py [--limit N] [--backends exact,nest,...] [--json] [FILES]

For every network there is (the bundled ones and those in benchmarks/networks): accuracy of the
float network (as recorded when trained), of the sharp network (computed now) and of each backend;
spikes that differ from exact arithmetic; ties and faults against the float32 network; for each
layer spikes beside the active units and multiply-adds of the artificial network.
Exit status 1 if a spike differs, or anything but a tie separates a backend from the network.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from layer_costs import multiply_adds
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import whetsim
from whetsim import datasets, reference
from whetsim.errors import WhetsimError
from whetsim.model import Model
from whetsim.recording import Recording

HERE = Path(__file__).resolve().parent
FOLDERS = (HERE.parent / "whetsim" / "networks", HERE / "networks")
DATA_BY_SIZE = {64: "digits", 784: "mnist"}
BLOCK = 500
LISTED = 20
"""How many ties and faults are named at most."""
KEY_NAMED = "first_ties_and_faults"


def sharp_network(
    model: Model, images: NDArray[Any], labels: NDArray[Any]
) -> tuple[float | None, dict[str, float]]:
    """Return accuracy and active units per image of each layer, by the plain forward pass."""
    correct, active = 0, dict.fromkeys((layer.name for layer in model.layers), 0)
    for first in range(0, len(images), BLOCK):
        part = slice(first, first + BLOCK)
        values = reference.forward(model, images[part])
        for name, value in values.items():
            active[name] += int(np.count_nonzero(value))
        if model.readout is not None:
            outputs = values[model.output].reshape(len(labels[part]), -1)
            scores = model.readout.scores(outputs)
            correct += int((scores.argmax(axis=1) == labels[part]).sum())
    accuracy = None if model.readout is None else correct / len(images)
    return accuracy, {name: n / len(images) for name, n in active.items()}


def backend_row(
    model: Model,
    truth: Recording,
    recording: Recording,
    images: NDArray[Any],
    labels: NDArray[Any],
) -> dict[str, Any]:
    """Return what one backend made of the images."""
    difference = whetsim.compare(truth, recording)
    against_model = whetsim.compare_with_model(model, recording, images)
    has_readout = recording.network.readout is not None
    return {
        "accuracy": recording.accuracy(labels) if has_readout else None,
        "encoding": recording.network.input.encoding,
        "differing_spikes": int(difference.n_differences),
        "ties": len(against_model.ties),
        "faults": len(against_model.faults),
        KEY_NAMED: [str(unit) for unit in (*against_model.faults, *against_model.ties)[:LISTED]],
        "spikes_per_image": sum(
            n for name, n in recording.spikes_per_sample.items() if name != "input"
        ),
        "synops_per_image": recording.synops_per_sample,
    }


def layer_rows(model: Model, truth: Recording, active: dict[str, float]) -> list[dict[str, Any]]:
    """Return spikes, active units, synops and multiply-adds of each population."""
    macs = multiply_adds(model)
    spikes, n = truth.spikes_per_sample, max(1, truth.n_samples)
    network = truth.network
    rows: list[dict[str, Any]] = [
        {
            "population": network.input.name,
            "neurons": network.input.size,
            "spikes_per_image": spikes[network.input.name],
        }
    ]
    for population in network.populations:
        # Where max pools have moved behind a step, the weights lead to "<step>/before_<pool>".
        step = population.name.partition("/before_")[0]
        rows.append(
            {
                "population": population.name,
                "neurons": population.size,
                "spikes_per_image": spikes[population.name],
                "active_units": active.get(population.name),
                "synops_per_image": float(truth.synops[population.name].sum()) / n,
                "multiply_adds": macs.pop(step, 0),
            }
        )
    return rows


def examine(path: Path, arguments: argparse.Namespace, status: Console) -> dict[str, Any] | None:
    """Return everything about one network, None if there are no data for its input."""
    model = whetsim.load(path)
    data = DATA_BY_SIZE.get(model.input.size)
    if data is None:
        status.print(f"{path.name}: no data for inputs of shape {model.input.shape}; left out")
        return None
    images, labels = datasets.load(data, split="test", data_dir=arguments.data_dir)
    images, labels = images[: arguments.limit], labels[: arguments.limit]
    accuracy, active = sharp_network(model, images, labels)
    network = whetsim.map_to_spikes(model)
    truth = whetsim.run(network, images, backend="exact", record="rasters")
    backends: dict[str, Any] = {}
    for name in arguments.backends:
        status.print(f"{path.stem}: {name}", style="dim")
        try:
            recording = (
                truth
                if name == "exact"
                else whetsim.run(network, images, backend=name, record="rasters")
            )
        except WhetsimError as error:
            backends[name] = {"error": str(error)}
            continue
        backends[name] = backend_row(model, truth, recording, images, labels)
    layers = layer_rows(model, truth, active)
    return {
        "network": path.stem,
        "data": data,
        "images": len(images),
        "float_accuracy_as_recorded": model.metadata.get("float_accuracy"),
        "sharp_accuracy": accuracy,
        "multiply_adds": sum(row.get("multiply_adds", 0) for row in layers),
        "backends": backends,
        "layers": layers,
    }


def percent(value: float | None) -> str:
    """Return an accuracy for people."""
    return "-" if value is None else f"{value:.2%}"


def number(value: float | None) -> str:
    """Return a count or a mean for people."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def show(result: dict[str, Any], console: Console) -> None:
    """Print two tables: the backends, and the layers."""
    title = (
        f"{result['network']} on {result['images']:,} test images of {result['data']}; spikes and "
        "synops per image"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("input")
    for name in ("accuracy", "differing spikes", "ties", "faults", "spikes", "synops"):
        table.add_column(name, justify="right")
    nothing = [""] * 5
    recorded = percent(result["float_accuracy_as_recorded"])
    table.add_row("float network, as recorded when trained", "", recorded, *nothing)
    table.add_row("sharp network, plain float32", "", percent(result["sharp_accuracy"]), *nothing)
    for name, row in result["backends"].items():
        if "error" in row:
            table.add_row(name, "", "-", "not run", *nothing[1:])
            continue
        values = (row[key] for key in ("differing_spikes", "ties", "faults"))
        means = (row[key] for key in ("spikes_per_image", "synops_per_image"))
        accuracy = percent(row["accuracy"])
        table.add_row(name, row["encoding"], accuracy, *map(number, values), *map(number, means))
    console.print(table)
    for name, row in result["backends"].items():
        if "error" in row:
            console.print(f"{name}: {row['error']}", style="red", markup=False)
    named = [text for row in result["backends"].values() for text in row.get(KEY_NAMED, ())]
    for text in dict.fromkeys(named):  # the same on every backend, so each is printed once
        console.print(text, style="dim", markup=False)
    layers = Table(title="each layer, per image", title_justify="left")
    layers.add_column("population", no_wrap=True)
    keys = {
        "neurons": "neurons",
        "spikes_per_image": "spikes",
        "active_units": "active units (ANN)",
        "synops_per_image": "synops",
        "multiply_adds": "multiply-adds (ANN)",
    }
    for name in keys.values():
        layers.add_column(name, justify="right")
    for row in result["layers"]:
        layers.add_row(row["population"], *(number(row.get(key)) for key in keys))
    computed = result["layers"][1:]  # the input computes nothing
    totals = (sum(row[key] or 0 for row in computed) for key in keys)
    layers.add_section()
    layers.add_row("all but the input", *map(number, totals))
    console.print(layers)


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="network files; all there are")
    parser.add_argument("--backends", metavar="A,B", help="all that are registered")
    parser.add_argument("--limit", type=int, metavar="N", help="first N test images")
    parser.add_argument("--data-dir", metavar="DIR", help="folder that has the MNIST files")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    registered = sorted(whetsim.backend_names(), key=lambda name: (name != "exact", name))
    arguments.backends = arguments.backends.split(",") if arguments.backends else registered
    arguments.files = arguments.files or [
        path for folder in FOLDERS for path in sorted(folder.glob("*.safetensors"))
    ]
    return arguments


def main() -> int:
    """Run the benchmark; return the exit status."""
    arguments = parse()
    status = Console(stderr=True)
    if not arguments.files:
        status.print(f"no networks in {' or '.join(str(f) for f in FOLDERS)}", style="red")
        return 2
    try:
        for name in arguments.backends:
            whetsim.get_backend(name)
        results = [examine(path, arguments, status) for path in arguments.files]
    except (OSError, WhetsimError) as error:
        status.print(str(error), style="red", markup=False, soft_wrap=True)
        return 2
    found = [result for result in results if result is not None]
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        console = Console()
        # In a pipe or a file the tables keep their width.
        console = console if console.is_terminal else Console(width=120)
        for result in found:
            show(result, console)
    rows = [row for result in found for row in result["backends"].values()]
    wrong = any("error" in row or row["differing_spikes"] or row["faults"] for row in rows)
    return 1 if wrong or not found else 0


if __name__ == "__main__":
    sys.exit(main())
