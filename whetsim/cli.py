"""The command ``whetsim``. Exit status: 0 as expected, 1 the result says no, 2 bad use or input."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from whetsim.errors import SampleError, UnsupportedError, WhetsimError, did_you_mean

if TYPE_CHECKING:
    from whetsim.model import Model
    from whetsim.recording import Recording

__all__ = ["app", "main"]

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 + SIGINT."""

app = typer.Typer(
    name="whetsim",
    help="Run sharpened (binary-activation) networks as spiking networks, exactly.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Net = Annotated[str, typer.Argument(help="Network file, or the name of a bundled network.")]
Data = Annotated[
    str | None,
    typer.Option(
        help="mnist, fashion-mnist, digits, or an .npz file with x and y. By default the data set "
        "that the network's metadata names."
    ),
]
DataDir = Annotated[
    str | None,
    typer.Option(help="Folder with the data set's original files; else WHETSIM_DATA, else cached."),
]
Split = Annotated[str, typer.Option(help="test or train.")]
Limit = Annotated[int | None, typer.Option(min=0, help="Use the first N samples alone.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON with stable keys.")]
Schedule = Annotated[
    str | None, typer.Option(help="pipelined (a new sample every step) or sequential.")
]
Encoding = Annotated[
    str | None,
    typer.Option(help="graded, bitplane or binary; by default what the backend does best."),
]
Level = Annotated[int | None, typer.Option(help="With binary: a value spikes if >= LEVEL.")]
Levels = Annotated[
    str | None,
    typer.Option(
        help="Cut grey samples into binary planes, 1 where >= a level: 64,128. By default at the "
        "levels that the network's file names."
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="A backend's own option, NAME=VALUE; may be repeated."),
]


def _version(wanted: bool) -> None:
    if wanted:
        from whetsim import __version__

        print(f"whetsim {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def inspect(net: Net, as_json: AsJson = False) -> None:
    """Show layers, shapes, parameters, neurons, synapses, depth, grid and bytes of a network."""
    from whetsim.errors import MappingError
    from whetsim.mapping import map_to_spikes
    from whetsim.report import facts, tables

    model = _load(net)
    about = facts.model_facts(model)
    try:
        spiking, problem = facts.network_facts(map_to_spikes(model)), None
    except MappingError as error:
        spiking, problem = None, str(error)
    if as_json:
        _print_json({"model": about, "network": spiking, "problem": problem})
    else:
        _show(tables.layer_table(about))
        if spiking is not None:
            _show("", tables.population_table(spiking))
        if about["metadata"]:
            _show("", *tables.model_lines(about["metadata"]))
    if problem is not None:
        raise MappingError(problem)


@app.command()
def run(
    net: Net,
    data: Data = None,
    backend: Annotated[str, typer.Option(help="See 'whetsim backends'.")] = "exact",
    limit: Limit = None,
    schedule: Schedule = None,
    encoding: Encoding = None,
    level: Level = None,
    levels: Levels = None,
    option: Options = None,
    data_dir: DataDir = None,
    split: Split = "test",
    as_json: AsJson = False,
) -> None:
    """Run a network on a data set: accuracy, spikes per layer, synops, samples per second."""
    from whetsim.mapping import map_to_spikes
    from whetsim.report import facts, tables

    model = _load(net)
    images, labels = _samples(model, data, data_dir, split, limit, levels)
    network = map_to_spikes(model)
    recording = _run_one(
        network,
        images,
        backend,
        schedule=schedule,
        encoding=encoding,
        level=level,
        **_options(option, backend),
    )
    result = facts.run_facts(recording, labels)
    if as_json:
        _print_json({"network": model.name, "fingerprint": network.fingerprint, **result})
    else:
        _show(tables.runs_table([result]), tables.spikes_table(result))


@app.command()
def compare(
    net: Net,
    data: Data = None,
    backends: Annotated[
        str, typer.Option(help="Names with commas between; the first is taken for the truth.")
    ] = "exact,brian2,nest",
    limit: Limit = None,
    schedule: Schedule = None,
    level: Level = None,
    levels: Levels = None,
    encoding: Encoding = None,
    data_dir: DataDir = None,
    split: Split = "test",
    as_json: AsJson = False,
) -> None:
    """Run a network on several backends: agreement, first difference, ties with the float32 one.

    The exit status is 1 if a spike or a prediction differs between backends, or differs from the
    float32 network by more than float32 rounding explains.
    """
    from whetsim.mapping import map_to_spikes

    names = [name.strip() for name in backends.split(",") if name.strip()]
    if not names:
        raise UnsupportedError("compare: no backend named. Give --backends exact,nest for example.")
    model = _load(net)
    images, labels = _samples(model, data, data_dir, split, limit, levels)
    network = map_to_spikes(model)
    if encoding == "binary":
        raise UnsupportedError(
            "compare: the binary encoding changes what the network reads, so the float32 network "
            "is no measure for it. Use 'whetsim run'."
        )
    _prepare_all(names)
    recordings = {
        name: _run_one(
            network,
            images,
            name,
            record="rasters",
            schedule=schedule,
            encoding=encoding,
            level=level,
        )
        for name in dict.fromkeys(names)
    }
    good = _report_comparison(model, recordings, images, labels, as_json, {})
    if not good:
        raise typer.Exit(1)


@app.command()
def demo(limit: Limit = None, as_json: AsJson = False) -> None:
    """Tell the whole story on real digits: load, map, run on every backend, compare.

    Nothing is downloaded. The first run on Brian2 compiles its code, which takes a minute.
    """
    from whetsim.errors import BackendNotInstalledError
    from whetsim.mapping import map_to_spikes
    from whetsim.registry import backend_names, get_backend
    from whetsim.report import facts, tables

    model = _load("digits_conv")
    images, labels = _samples(model, "digits", None, "test", limit)
    network = map_to_spikes(model)
    if not as_json:
        _show(
            f"A convolutional network, trained on the first 1,437 digits and sharpened until every "
            f"activation is a step; now on the last {len(images)}, which it never saw.",
            "",
            tables.population_table(facts.network_facts(network)),
            "",
        )
    missing = {}
    for name in backend_names():
        try:
            get_backend(name).versions()
        except BackendNotInstalledError as error:
            missing[name] = str(error)
    names = ["exact", *(n for n in backend_names() if n != "exact" and n not in missing)]
    recordings = {name: _run_one(network, images, name, record="rasters") for name in names}
    good = _report_comparison(model, recordings, images, labels, as_json, missing)
    if not as_json:
        for name, advice in missing.items():
            _show(f"{name} did not take part. {advice}")
    if not good:
        raise typer.Exit(1)


@app.command()
def backends(as_json: AsJson = False) -> None:
    """Show which backends are there, their versions, what is missing and how to get it."""
    from whetsim.registry import backend_names, get_backend
    from whetsim.report import tables

    rows = []
    for name in backend_names():
        row: dict[str, Any] = {"name": name, "kind": None, "options": {}, "encodings": []}
        row |= {"schedules": [], "installed": False, "versions": {}, "missing": None}
        try:
            backend = get_backend(name)
            can = backend.capabilities
            row |= {"kind": can.kind, "options": dict(backend.options)}
            row |= {"encodings": list(can.encodings), "schedules": list(can.schedules)}
            row |= {"versions": dict(backend.versions()), "installed": True}
        except WhetsimError as error:
            row["missing"] = str(error)
        rows.append(row)
    if as_json:
        _print_json({"backends": rows})
    else:
        _show(tables.backend_table(rows))
        for row in rows:
            for option, meaning in row["options"].items():
                _show(f"  {row['name']} -o {option}=...: {meaning}")


@app.command()
def diary(
    file: Annotated[str, typer.Argument(help="What whetsim.sharpen.Diary wrote: run.jsonl.")],
    plot: Annotated[
        str | None,
        typer.Option("--plot", "-o", help="Draw it to this .png, .pdf or .svg as well."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how a training went: accuracy as it was and as a spiking network, and the best epoch."""
    from whetsim.report import facts, tables
    from whetsim.report.diary_file import read_diary
    from whetsim.report.diary_plot import draw_diary

    content = read_diary(file)
    if plot is not None:
        draw_diary(content, plot)
    told = facts.diary_facts(content)
    if as_json:
        _print_json({**told, "picture": plot})
    else:
        _show(tables.diary_table(told))
        if plot is not None:
            _show(f"picture: {plot}")


def _load(net: str) -> Model:
    from whetsim.bundled import find_network
    from whetsim.formats import load

    return load(find_network(net))


def _samples(
    model: Model,
    data: str | None,
    data_dir: str | None,
    split: str,
    limit: int | None,
    levels: str | None = None,
) -> tuple[Any, Any]:
    from whetsim import datasets

    name = data or model.metadata.get("dataset")
    if not isinstance(name, str):
        raise SampleError(
            f"data: {model.name!r} names no data set. Give --data mnist, for example; there are: "
            f"{', '.join(datasets.NAMES)}, or an .npz file with x and y."
        )
    images, labels = datasets.load(name, split=split, data_dir=data_dir)  # type: ignore[arg-type]
    images, labels = images[:limit], labels[:limit]
    n_planes = model.input.shape[-1]
    return _cut(images, levels, model.metadata.get("input_levels"), n_planes), labels


def _cut(images: Any, levels: str | None, trained: Any, n_planes: int) -> Any:
    """Return the images as binary planes if asked for, or if the network was trained on them."""
    from whetsim import datasets

    if levels is not None:
        if not re.fullmatch(r" *-?[0-9]{1,9} *(, *-?[0-9]{1,9} *)*", levels):
            raise SampleError(
                f"levels: need whole numbers with commas between (got {levels!r}; for example "
                "64,128)."
            )
        return datasets.threshold_planes(images, [int(n) for n in levels.split(",")])
    # Otherwise they are planes already. The file is hostile: only as many levels as it has planes.
    if isinstance(trained, (list, tuple)) and images.ndim == 3 and len(trained) == n_planes:
        return datasets.threshold_planes(images, trained)
    return images


def _options(given: list[str] | None, backend: str) -> dict[str, Any]:
    from whetsim.registry import get_backend

    result: dict[str, Any] = {}
    known = get_backend(backend).options
    for item in given or ():
        name, sign, value = item.partition("=")
        if not sign or not name:
            raise UnsupportedError(f"option {item!r}: need NAME=VALUE, for example threads=2.")
        if name not in known:
            raise UnsupportedError(
                f"{backend}: no option {name!r}; it has: {', '.join(known) or 'none'}."
                f"{did_you_mean(name, known)}"
            )
        result[name] = int(value) if re.fullmatch(r"-?[0-9]{1,9}", value) else value
    return result


def _prepare_all(names: list[str]) -> None:
    """Refuse an unknown or missing backend before the first one has run."""
    from whetsim.registry import get_backend

    for name in names:
        get_backend(name).versions()


def _run_one(network: Any, images: Any, name: str, **options: Any) -> Recording:
    from whetsim.progress import progress_reporter
    from whetsim.runner import run as run_network

    total = len(images)
    with progress_reporter(True, total, name) as tell:
        _Doing.now = (name, 0, total)

        def note(done: int, _: int) -> None:
            _Doing.now = (name, done, total)
            tell(done)

        return run_network(network, images, backend=name, progress=note, **options)


class _Doing:
    """What is under way, for the message when the user interrupts."""

    now: tuple[str, int, int] | None = None


def _report_comparison(
    model: Model,
    recordings: dict[str, Recording],
    images: Any,
    labels: Any,
    as_json: bool,
    missing: dict[str, str],
) -> bool:
    from whetsim.comparison import agreement
    from whetsim.margin import margins
    from whetsim.model_comparison import compare_with_model
    from whetsim.report import facts, tables

    runs = [facts.run_facts(r, labels) for r in recordings.values()]
    result = agreement(recordings)
    first = next(iter(recordings.values()))
    with_model = compare_with_model(model, first, images, labels if model.readout else None)
    close = margins(first.network, images)
    good = result.agrees and not with_model.faults
    if as_json:
        _print_json(
            {
                "network": model.name,
                "runs": runs,
                "agreement": facts.agreement_facts(result),
                "model": facts.model_comparison_facts(with_model),
                "margins": facts.margin_facts(close),
                "missing": missing,
                "agrees": good,
            }
        )
        return good
    differing = dict(zip(result.names, map(int, result.matrix[0]), strict=True))
    differing[first.backend] = 0
    _show(tables.runs_table(runs, differing))
    _show(tables.spikes_table(runs[0]), tables.agreement_table(facts.agreement_facts(result)))
    for comparison in result.comparisons:
        if comparison.first is not None:
            _show(f"first difference of {comparison.names[1]}: {comparison.first}")
    _show(str(with_model))
    if with_model.accuracy is not None:
        _show(f"accuracy of the float32 network: {with_model.accuracy[0]:.2%} (computed now)")
    trained = model.metadata.get("float_accuracy")
    if isinstance(trained, float):
        _show(f"accuracy with real-valued activations: {trained:.2%} (as the file records)")
    if close.n_samples:
        _show(tables.margin_table(close))
    return good


def _show(*parts: Any) -> None:
    from rich.console import Console

    # In a pipe there is no width to fit; lines are for grep, not for eyes.
    console = Console(width=None if sys.stdout.isatty() else 160, soft_wrap=False)
    for part in parts:
        if isinstance(part, str):
            console.print(part, markup=False, highlight=False)
        else:
            console.print(part)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))


def main() -> NoReturn:
    """Run the command line; every expected failure is one line and an exit status."""
    try:
        result = app(standalone_mode=False)
        code = result if isinstance(result, int) else 0
        if code == INTERRUPTED:  # typer turns Ctrl-C into this status
            _tell_interrupted()
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        _tell_interrupted()
        code = INTERRUPTED
    except WhetsimError as error:
        print(f"whetsim: {error}", file=sys.stderr)
        code = 2
    except MemoryError:
        print("whetsim: not enough memory. Use --limit, or a smaller network.", file=sys.stderr)
        code = 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        shown = getattr(error, "format_message", None)
        if shown is None:
            raise
        print(f"whetsim: {' '.join(shown().split())}", file=sys.stderr)
        code = 2
    sys.exit(code)


def _tell_interrupted() -> None:
    detail = ""
    if _Doing.now is not None:
        name, done, total = _Doing.now
        detail = f" while {name} had done {done:,} of {total:,} samples; nothing was written"
    print(f"whetsim: interrupted{detail}.", file=sys.stderr)


if __name__ == "__main__":
    main()
