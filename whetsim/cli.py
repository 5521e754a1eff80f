"""The command ``whetsim``. Exit status: 0 as expected, 1 the result says no, 2 bad use or input."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from whetsim.errors import SampleError, UnsupportedError, WhetsimError, did_you_mean

if TYPE_CHECKING:
    from whetsim.comparison import Agreement
    from whetsim.formats import Reading
    from whetsim.margin import Margins
    from whetsim.model import Model
    from whetsim.model_comparison import ModelComparison
    from whetsim.recording import Recording
    from whetsim.shards import Origin

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
InputScale = Annotated[
    str | None,
    typer.Option(
        help="For files that do not say it: what one unit of a sample is worth, 1/255 for 8-bit "
        "images that were divided by 255."
    ),
]
InputRange = Annotated[
    str | None,
    typer.Option(help="Smallest and largest value of a sample: 0,255. By default 0,1/SCALE."),
]
AssumeSharp = Annotated[
    bool,
    typer.Option("--assume-sharp", help="Take activations that are nearly steps for steps."),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="A backend's own option, NAME=VALUE; may be repeated."),
]
Shards = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Cut the samples into N parts and write each when it is done, so that the same "
        "command resumes after any interruption. Needs --out.",
    ),
]
Out = Annotated[
    str | None,
    typer.Option(help="With --shards: folder for manifest.json, the shards and result.json."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help="With --shards: Dask scheduler whose workers compute them, tcp://host:8786; or local."
    ),
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
def inspect(
    net: Net,
    input_scale: InputScale = None,
    input_range: InputRange = None,
    assume_sharp: AssumeSharp = False,
    as_json: AsJson = False,
) -> None:
    """Show what a file holds, what is wrong or suspicious about it, and what to do.

    Layers, shapes, value ranges, how the file writes its steps; neurons, synapses, depth and grid;
    then findings: activations that are no steps, dead neurons, ties, weights that are all zero.
    """
    from whetsim.diagnosis import diagnose
    from whetsim.errors import MappingError
    from whetsim.mapping import map_to_spikes
    from whetsim.report import facts, tables

    model = _load(net, input_scale, input_range, assume_sharp, guess_input=True)
    about = facts.model_facts(model)
    network, spiking, problem = None, None, None
    try:
        network = map_to_spikes(model)
        spiking = facts.network_facts(network)
    except MappingError as error:
        problem = str(error)
    findings = diagnose(model, network)
    if as_json:
        listed = [facts.finding_facts(finding) for finding in findings]
        _print_json({"model": about, "network": spiking, "findings": listed, "problem": problem})
    else:
        _show(tables.layer_table(about))
        if spiking is not None:
            _show("", tables.population_table(spiking))
        if about["metadata"]:
            _show("", *tables.model_lines(about["metadata"]))
        _show("", *tables.finding_lines(findings))
    if problem is not None:
        raise MappingError(problem)


@app.command()
def convert(
    net: Net,
    out: Annotated[str, typer.Argument(help="File to write: .safetensors, .onnx or .nir.")],
    input_scale: InputScale = None,
    input_range: InputRange = None,
    assume_sharp: AssumeSharp = False,
    as_json: AsJson = False,
) -> None:
    """Write a network to another format, and check that what was written gives the same spikes.

    Reads Keras .h5 and .keras, ONNX, NIR and native files; the suffix of OUT says what to write.
    The exit status is 1 if a spike differs on 100 random samples.
    """
    import os.path

    from whetsim.errors import FormatError
    from whetsim.formats import load, save
    from whetsim.mapping import map_to_spikes
    from whetsim.report.roundtrip import compare_on_random_samples

    suffix = os.path.splitext(out)[1].lower()
    if suffix not in (".safetensors", ".onnx", ".nir"):
        raise FormatError(
            f"{out}: whetsim writes .safetensors, .onnx and .nir (got {suffix!r}). Name it so."
        )
    if os.path.exists(out) and os.path.exists(net) and os.path.samefile(out, net):
        raise FormatError(f"{out}: this is the file to read. Write to another one.")
    model = _load(net, input_scale, input_range, assume_sharp)
    network = map_to_spikes(model)  # refused before anything is written
    try:
        save(model, out)
    except OSError as error:
        reason = error.strerror or error
        raise FormatError(f"{out}: cannot be written ({reason}).") from None
    told = {"wrote": out, "bytes": os.path.getsize(out)}
    told |= compare_on_random_samples(network, map_to_spikes(load(out)))
    if as_json:
        _print_json(told)
    else:
        _show(
            f"wrote {out}: {told['bytes']:,} bytes. Read back: {told['differing_spikes']:,} "
            f"differing output spikes and {told['differing_predictions']:,} differing predictions "
            f"on {told['samples']} random samples."
        )
    if told["differing_spikes"] or told["differing_predictions"]:
        raise typer.Exit(1)


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
    input_scale: InputScale = None,
    input_range: InputRange = None,
    assume_sharp: AssumeSharp = False,
    shards: Shards = None,
    out: Out = None,
    scheduler: Scheduler = None,
    as_json: AsJson = False,
) -> None:
    """Run a network on a data set: accuracy, spikes per layer, synops, samples per second."""
    from whetsim.mapping import map_to_spikes
    from whetsim.report import facts, tables
    from whetsim.shards import run_sharded

    _check_sharding(shards, out, scheduler)
    reading = _reading(input_scale, input_range, assume_sharp)
    model = _read(net, reading)
    images, labels = _samples(model, data, data_dir, split, limit, levels)
    how: dict[str, Any] = {"schedule": schedule, "encoding": encoding, "level": level}
    how |= _options(option, backend)
    if shards is None:
        recording = _run_one(map_to_spikes(model), images, backend, **how)
    else:
        origin = _origin(net, reading, model, data, split, limit, levels)
        recording = _in_shards(
            *(run_sharded, model, images, labels, shards, out, scheduler, origin),
            backend=backend,
            **how,
        )
    result = facts.run_facts(recording, labels)
    if as_json:
        fingerprint = recording.network.graded_fingerprint
        _print_json({"network": model.name, "fingerprint": fingerprint, **result})
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
    input_scale: InputScale = None,
    input_range: InputRange = None,
    assume_sharp: AssumeSharp = False,
    shards: Shards = None,
    out: Out = None,
    scheduler: Scheduler = None,
    as_json: AsJson = False,
) -> None:
    """Run a network on several backends: agreement, first difference, ties with the float32 one.

    The exit status is 1 if a spike or a prediction differs between backends, or differs from the
    float32 network by more than float32 rounding explains.
    """
    from whetsim.mapping import map_to_spikes
    from whetsim.shards import compare_sharded

    names = [name.strip() for name in backends.split(",") if name.strip()]
    if not names:
        raise UnsupportedError("compare: no backend named. Give --backends exact,nest for example.")
    _check_sharding(shards, out, scheduler)
    reading = _reading(input_scale, input_range, assume_sharp)
    model = _read(net, reading)
    images, labels = _samples(model, data, data_dir, split, limit, levels)
    if encoding == "binary":
        raise UnsupportedError(
            "compare: the binary encoding changes what the network reads, so the float32 network "
            "is no measure for it. Use 'whetsim run'."
        )
    _prepare_all(names)
    how: dict[str, Any] = {"schedule": schedule, "encoding": encoding, "level": level}
    if shards is None:
        network = map_to_spikes(model)
        recordings = {
            name: _run_one(network, images, name, record="rasters", **how)
            for name in dict.fromkeys(names)
        }
        good = _report_comparison(model, recordings, images, labels, as_json, {})
    else:
        origin = _origin(net, reading, model, data, split, limit, levels)
        found = _in_shards(
            *(compare_sharded, model, images, labels, shards, out, scheduler, origin),
            backends=names,
            **how,
        )
        parts = (found.agreement, found.model, found.margins)
        good = _tell_comparison(model, found.recordings, *parts, labels, as_json, {})
    if not good:
        raise typer.Exit(1)


@app.command()
def rerun(
    folder: Annotated[str, typer.Argument(help="Folder of a sharded run, or its manifest.json.")],
    network: Annotated[
        str | None, typer.Option(help="The network file, if it is not where it was.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="The data, if they are not where they were.")] = (
        None
    ),
    data_dir: DataDir = None,
    out: Annotated[
        str | None, typer.Option(help="Keep the new run in this folder; by default none is left.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Dask scheduler, tcp://host:8786; or local.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Do a sharded run again, as its manifest says, and compare the results byte for byte.

    The exit status is 1 if result.json is not the same.
    """
    from whetsim.formats import Reading
    from whetsim.shards import read_manifest
    from whetsim.shards import rerun as run_again

    _, stored = read_manifest(folder)
    net = network or stored["network"]["given"]
    data = data or stored["data"]["given"]
    if net is None or data is None:
        missing = "--network" if net is None else "--data"
        raise SampleError(f"{folder}: the manifest does not name it. Give {missing}.")
    limits = stored["reading"]["input_range"]
    reading = Reading(
        stored["reading"]["input_scale"],
        None if limits is None else tuple(limits),
        stored["reading"]["assume_sharp"],
    )
    split, limit, levels = (stored["data"][key] for key in ("split", "limit", "levels"))
    model = _read(net, reading)
    images, labels = _samples(model, data, data_dir, split or "test", limit, levels)
    origin = _origin(net, reading, model, data, split, limit, levels)
    with _shard_progress(stored["shards"], out) as progress:
        found = run_again(
            folder,
            model,
            images,
            labels,
            out=out,
            scheduler=scheduler,
            progress=progress,
            origin=origin,
        )
    if as_json:
        _print_json(found.as_dict())
    else:
        for setting in found.settings:
            _show(f"{setting.label}: {setting.shown[0]} now, {setting.shown[1]} then")
        if found.same_result:
            _show("result.json: the same byte for byte")
        else:
            _show(*(found.difference.lines() if found.difference else ["result.json: differs"]))
    if not found.same_result:
        raise typer.Exit(1)


@app.command()
def diff(
    first: Annotated[str, typer.Argument(help="Folder of a sharded run.")],
    second: Annotated[str, typer.Argument(help="Folder of another one.")],
    results_only: Annotated[
        bool,
        typer.Option(
            "--results-only", help="Let the exit status depend on what was found alone, not on how."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show how two sharded runs differ: network, data, versions, options, spikes, predictions.

    The exit status is 1 if they do. Into how many shards they were cut does not count.
    """
    from whetsim.shards import diff_runs

    found = diff_runs(first, second)
    if as_json:
        _print_json(found.as_dict())
    else:
        _show(*found.lines())
    if not (found.results_agree if results_only else found.agrees):
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


def _load(
    net: str,
    input_scale: str | None = None,
    input_range: str | None = None,
    assume_sharp: bool = False,
    guess_input: bool = False,
) -> Model:
    return _read(net, _reading(input_scale, input_range, assume_sharp, guess_input))


def _read(net: str, reading: Reading) -> Model:
    from whetsim.bundled import find_network
    from whetsim.formats import read

    return read(find_network(net), reading)


def _reading(
    input_scale: str | None,
    input_range: str | None,
    assume_sharp: bool,
    guess_input: bool = False,
) -> Reading:
    from whetsim.formats import Reading

    return Reading(_scale(input_scale), _range(input_range), assume_sharp, guess_input)


def _scale(text: str | None) -> float | None:
    """Return the number that '1/255' or '0.5' means."""
    if text is None:
        return None
    over, _, under = text.partition("/")
    try:
        return float(over) / float(under or 1)
    except (ValueError, ZeroDivisionError):
        raise SampleError(
            f"input-scale: need a number or a fraction (got {text!r}; for example 1/255)."
        ) from None


def _range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    if not re.fullmatch(r" *-?[0-9]{1,9} *, *-?[0-9]{1,9} *", text):
        raise SampleError(
            f"input-range: need two whole numbers with a comma between (got {text!r}; for example "
            "0,255)."
        )
    low, high = text.split(",")
    return int(low), int(high)


def _samples(
    model: Model,
    data: str | None,
    data_dir: str | None,
    split: str,
    limit: int | None,
    levels: str | None = None,
) -> tuple[Any, Any]:
    from whetsim import datasets

    name = _data_name(model, data)
    images, labels = datasets.load(name, split=split, data_dir=data_dir)  # type: ignore[arg-type]
    images, labels = images[:limit], labels[:limit]
    n_planes = model.input.shape[-1]
    return _cut(images, levels, model.metadata.get("input_levels"), n_planes), labels


def _data_name(model: Model, data: str | None) -> str:
    from whetsim import datasets

    name = data or model.metadata.get("dataset")
    if not isinstance(name, str):
        raise SampleError(
            f"data: {model.name!r} names no data set. Give --data mnist, for example; there are: "
            f"{', '.join(datasets.NAMES)}, or an .npz file with x and y."
        )
    return name


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

        def note(done: int, _: int) -> None:
            _Doing.now = (
                f" while {name} had done {done:,} of {total:,} samples; nothing was written"
            )
            tell(done)

        note(0, total)
        return run_network(network, images, backend=name, progress=note, **options)


def _check_sharding(shards: int | None, out: str | None, scheduler: str | None) -> None:
    """Refuse options that need each other and are not all there."""
    if (shards is None) != (out is None):
        given, missing = ("--shards", "--out") if out is None else ("--out", "--shards")
        raise UnsupportedError(f"{given} needs {missing}: --shards 20 --out DIR, for example.")
    if scheduler is not None and shards is None:
        raise UnsupportedError(
            "--scheduler hands out shards: give --shards 20 --out DIR, for example."
        )


def _origin(
    net: str,
    reading: Reading,
    model: Model,
    data: str | None,
    split: str | None,
    limit: int | None,
    levels: str | None,
) -> Origin:
    from whetsim.bundled import find_network
    from whetsim.shards import Origin

    name = _data_name(model, data)
    return Origin(net, find_network(net), reading, name, split, limit, levels)


def _in_shards(
    function: Callable[..., Any],
    model: Model,
    images: Any,
    labels: Any,
    shards: int,
    out: str | None,
    scheduler: str | None,
    origin: Origin,
    **how: Any,
) -> Any:
    """Call `run_sharded` or `compare_sharded`, and show how far it is."""
    from whetsim.shards.packing import split

    with _shard_progress(len(split(len(images), shards)), out) as progress:
        return function(
            model,
            images,
            labels,
            out=out,
            shards=shards,
            scheduler=scheduler,
            progress=progress,
            origin=origin,
            **how,
        )


@contextmanager
def _shard_progress(total: int, out: str | None) -> Iterator[Callable[[int, int], None]]:
    """Yield what shows how many shards are done, also when the user interrupts."""
    from whetsim.progress import progress_reporter

    kept = "nothing was kept" if out is None else f"they are in {out}; the same command resumes"
    with progress_reporter(True, total, "shards") as tell:

        def note(done: int, _: int) -> None:
            _Doing.now = f": {done:,} of {total:,} shards are done; {kept}"
            tell(done)

        note(0, total)
        yield note


class _Doing:
    """What is under way, for the message when the user interrupts."""

    now = ""


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

    result = agreement(recordings)
    first = next(iter(recordings.values()))
    with_model = compare_with_model(model, first, images, labels if model.readout else None)
    close = margins(first.network, images)
    return _tell_comparison(model, recordings, result, with_model, close, labels, as_json, missing)


def _tell_comparison(
    model: Model,
    recordings: Mapping[str, Recording],
    result: Agreement,
    with_model: ModelComparison,
    close: Margins,
    labels: Any,
    as_json: bool,
    missing: dict[str, str],
) -> bool:
    from whetsim.report import facts, tables

    runs = [facts.run_facts(r, labels) for r in recordings.values()]
    first = next(iter(recordings.values()))
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
    print(f"whetsim: interrupted{_Doing.now}.", file=sys.stderr)


if __name__ == "__main__":
    main()
