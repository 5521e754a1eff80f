"""Facts as tables for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from whetsim.diagnosis import Finding
from whetsim.margin import Margins

__all__ = [
    "agreement_table",
    "backend_table",
    "diary_table",
    "finding_lines",
    "layer_table",
    "margin_table",
    "model_lines",
    "population_table",
    "runs_table",
    "spikes_table",
]


def _table(title: str | None, *columns: str) -> Table:
    """Return a table; a column name that begins with ``#`` is right-aligned."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    for column in columns:
        number = column.startswith("#")
        table.add_column(column.lstrip("#"), justify="right" if number else "left", overflow="fold")
    return table


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _share(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.3%}" if value >= 1e-5 else "< 0.001%"


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def layer_table(facts: Mapping[str, Any]) -> RenderableType:
    """Show the layers of a trained network."""
    spec = facts["input"]
    table = _table(
        f"{facts['name']}: trained network",
        "layer",
        "kind",
        "reads",
        "output",
        "#parameters",
        "weights",
        "#multiply-adds",
    )
    range_ = f"{spec['low']}..{spec['high']} x {spec['scale']:.6g}"
    table.add_row("input", range_, "", _shape(spec["shape"]), "", "", "")
    for layer in facts["layers"]:
        table.add_row(
            Text(layer["name"]),
            layer["kind"],
            Text(", ".join(layer["inputs"])),
            _shape(layer["shape"]),
            f"{layer['parameters']:,}" if layer["parameters"] else "",
            "{:.3g}..{:.3g}".format(*layer["weights"]) if layer["weights"] else "",
            f"{layer['multiply_adds']:,}" if layer["multiply_adds"] else "",
        )
    table.add_section()
    total = f"{facts['parameters']:,}", "", f"{facts['multiply_adds']:,}"
    table.add_row("in all", "", "", "", *total)
    readout = facts["readout"]
    if readout is None:
        line = "readout: none; the result is the output spikes themselves"
    else:
        line = f"readout: {readout['kind']}, {readout['outputs']} outputs, "
        line += f"{readout['classes']} classes"
    return Group(table, line)


def population_table(facts: Mapping[str, Any]) -> RenderableType:
    """Show the populations of a spiking network."""
    table = _table(
        "spiking network: one step per layer, threshold 0.5, no leak",
        "population",
        "#step",
        "shape",
        "#neurons",
        "#synapses",
        "from",
        "#grid k",
        "#sum bits",
    )
    for p in facts["populations"]:
        low, high = p["exponent"]
        table.add_row(
            Text(p["name"]),
            str(p["depth"]),
            _shape(p["shape"]),
            f"{p['neurons']:,}",
            f"{p['synapses']:,}",
            Text(", ".join(p["sources"])),
            str(low) if low == high else f"{low}..{high}",
            str(p["sum_bits"]),
        )
    table.add_section()
    table.add_row(
        "in all", str(facts["depth"]), "", f"{facts['neurons']:,}", f"{facts['synapses']:,}"
    )
    size = f"weights as integers: {facts['weight_bytes']:,} bytes (shared kernels once)"
    return Group(table, size, f"fingerprint: {facts['fingerprint'][:16]}")


def model_lines(metadata: Mapping[str, Any]) -> list[Text]:
    """Show metadata, one line an entry; how a foreign file writes its steps, one line a step."""
    lines = [Text(f"{k}: {_plain(v)}") for k, v in metadata.items() if k != "source"]
    source = metadata.get("source")
    if not isinstance(source, Mapping):
        return lines
    about = {k: v for k, v in source.items() if k not in ("steps", "remarks")}
    lines.append(Text(f"source: {_plain(about)}"))
    steps = source.get("steps")
    if isinstance(steps, Mapping):
        lines += [Text(f"step {name!r}: {_plain(form)}") for name, form in steps.items()]
    return lines


def finding_lines(findings: Sequence[Finding]) -> list[Text]:
    """Show what the diagnosis found, one line each."""
    if not findings:
        return [Text("nothing suspicious found")]
    styles = {"problem": "bold red", "warning": "yellow", "note": "dim"}
    return [
        Text.assemble((finding.level, styles[finding.level]), str(finding)[len(finding.level) :])
        for finding in findings
    ]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{k} {_plain(v)}" for k, v in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def spikes_table(facts: Mapping[str, Any]) -> RenderableType:
    """Show the spikes of one run, population by population."""
    how = "emulated" if facts["kind"] == "emulated" else "counted in the simulation"
    table = _table(
        f"spikes of {facts['backend']} ({how})",
        "population",
        "#spikes / sample",
    )
    for name, spikes in facts["spikes_per_sample"].items():
        table.add_row(Text(name), f"{spikes:,.1f}")
    table.add_section()
    table.add_row("synaptic operations", f"{facts['synops_per_sample']:,.0f}")
    return table


def runs_table(
    runs: Sequence[Mapping[str, Any]], differing: Mapping[str, int] | None = None
) -> RenderableType:
    """Show several runs on the same samples, one line each."""
    n = runs[0]["samples"] if runs else 0
    table = _table(
        f"{n:,} samples; spikes that differ from the first, spikes a sample, samples a second",
        "backend",
        "input",
        "#accuracy",
        "#differ",
        "#spikes",
        "#build s",
        "#run s",
        "#per s",
    )
    for run in runs:
        spikes = sum(v for k, v in run["spikes_per_sample"].items() if k != "input")
        speed = run["samples_per_s"]
        wrong = None if differing is None else differing.get(run["backend"])
        style = "" if not wrong else "bold red"
        table.add_row(
            run["backend"],
            run["encoding"],
            _percent(run["accuracy"]),
            Text("-" if wrong is None else f"{wrong:,}", style),
            f"{spikes:,.1f}",
            _seconds(run["build_s"]),
            _seconds(run["run_s"] + run["read_s"]),
            "-" if speed is None else f"{speed:,.0f}",
        )
    return table


def agreement_table(facts: Mapping[str, Any]) -> RenderableType:
    """Show how many spikes differ between each two runs."""
    names = facts["names"]
    table = _table("differing spikes, each with each", "", *(f"#{name}" for name in names))
    for name, row in zip(names, facts["matrix"], strict=True):
        table.add_row(name, *(Text(f"{n:,}", "bold red" if n else "") for n in row))
    return table


def margin_table(result: Margins) -> RenderableType:
    """Show how close decisions come to the threshold."""
    limits = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
    table = _table(
        "margins: distance of v from the threshold 0.5, share of all decisions",
        "population",
        "#smallest",
        *(f"#< {limit:.0e}" for limit in limits),
    )
    for name, smallest in result.smallest.items():
        shares = (result.share_below(name, limit) for limit in limits)
        table.add_row(Text(name), f"{smallest:.3g}", *map(_share, shares))
    return table


def backend_table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Show what is installed and what is missing."""
    table = _table(None, "backend", "state", "versions or what to do", "encodings", "schedules")
    for row in rows:
        ready = row["installed"]
        detail = (
            ", ".join(f"{k} {v}" for k, v in row["versions"].items()) if ready else row["missing"]
        )
        table.add_row(
            row["name"],
            Text("ready", "green") if ready else Text("missing", "yellow"),
            Text(detail),
            ", ".join(row["encodings"]),
            ", ".join(row["schedules"]),
        )
    return table


def diary_table(facts: Mapping[str, Any]) -> RenderableType:
    """Show the entries of a training's diary, and its best fully sharp epoch."""
    name = facts["score_name"]
    is_part = all(
        value is None or 0 <= value <= 1
        for entry in facts["entries"]
        for scores in (entry["validation"], entry["train"] or {})
        for value in scores.values()
    )
    show = _percent if is_part else _number
    has_train = any(entry["train"] is not None for entry in facts["entries"])
    layers = list(facts["layers"])
    table = _table(
        escape(f"{facts['file']}: validation {name} of {facts['samples']:,} samples"),
        "#epoch",
        "#sharpness",
        "#as it is",
        "#as spiking",
        *(["#train", "#as spiking"] if has_train else []),
        "#spikes / sample",
        "#dead outputs",
    )
    best = facts["best"]
    for entry in facts["entries"]:
        sharpness = entry["sharpness"].values()
        low, high = min(sharpness), max(sharpness)
        train = entry["train"] or {"as_is": None, "spiking": None}
        scores = [*entry["validation"].values(), *(train.values() if has_train else ())]
        is_best = best is not None and entry["kind"] == "epoch" and entry["epoch"] == best["epoch"]
        table.add_row(
            f"{entry['epoch']:.2f}".removesuffix(".00"),
            f"{low:.2f}" if low == high else f"{low:.2f}..{high:.2f}",
            *map(show, scores),
            f"{sum(entry['spikes_per_sample'].values()):,.1f}",
            f"{entry['never'][layers[-1]] + entry['always'][layers[-1]]:,}",
            style="bold" if is_best else "",
        )
    lines = [_best_line(name, best, show)]
    if facts["truncated"]:
        lines.append("The last line of the file was cut off and is left out.")
    return Group(table, *map(Text, lines))


def _best_line(name: str, best: Mapping[str, Any] | None, show: Callable[[float], str]) -> str:
    if best is None:
        return "best fully sharp epoch: none; no epoch ended with every layer an exact step"
    return f"best fully sharp epoch: {best['epoch']:g}, validation {name} {show(best['score'])}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
