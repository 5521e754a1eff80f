"""Commands that run networks: run, compare and demo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whetsim.cli.app import app, print_json, show
from whetsim.cli.inputs import (
    load_network,
    options_of,
    prepare_all,
    read_network,
    reading_of,
    run_one,
    samples_of,
)
from whetsim.cli.on_chips import for_chip, is_emulated
from whetsim.cli.options import (
    AsJson,
    AssumeSharp,
    Data,
    DataDir,
    Encoding,
    InputRange,
    InputScale,
    Level,
    Levels,
    Limit,
    Net,
    Options,
    Out,
    Schedule,
    Scheduler,
    Shards,
    Split,
)
from whetsim.cli.sharding import check_sharding, in_shards, origin_of
from whetsim.errors import UnsupportedError

if TYPE_CHECKING:
    from whetsim.comparison import Agreement
    from whetsim.margin import Margins
    from whetsim.model import Model
    from whetsim.model_comparison import ModelComparison
    from whetsim.recording import Recording


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
    bits: Annotated[
        int | None,
        typer.Option(help="On a chip: round weights to so many bits; what it holds by default."),
    ] = None,
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
    """Run a network on a data set: accuracy, spikes per layer, synops, samples per second.

    On an emulated chip the network is quantized first, with training samples.
    """
    from whetsim.mapping import map_to_spikes
    from whetsim.report import facts, tables
    from whetsim.shards import run_sharded

    check_sharding(shards, out, scheduler)
    reading = reading_of(input_scale, input_range, assume_sharp)
    model = read_network(net, reading)
    images, labels = samples_of(model, data, data_dir, split, limit, levels)
    how: dict[str, Any] = {"schedule": schedule, "encoding": encoding, "level": level}
    how |= options_of(option, backend)
    quantized: dict[str, Any] = {}
    if shards is None:
        network = map_to_spikes(model)
        if is_emulated(backend):
            network, quantized = for_chip(model, backend, bits, data, data_dir, levels)
        recording = run_one(network, images, backend, **how)
    elif is_emulated(backend):
        raise UnsupportedError(f"--shards: {backend} takes quantized networks, whole runs alone.")
    else:
        origin = origin_of(net, reading, model, data, split, limit, levels)
        recording = in_shards(
            *(run_sharded, model, images, labels, shards, out, scheduler, origin),
            backend=backend,
            **how,
        )
    result = facts.run_facts(recording, labels)
    if as_json:
        fingerprint = recording.network.graded_fingerprint
        told = {"network": model.name, "fingerprint": fingerprint, **result}
        print_json(told | ({"quantization": quantized} if quantized else {}))
    else:
        if quantized:
            show(
                f"weights rounded to {quantized['bits']} bits for {backend}: "
                f"{quantized['flips']:,} flipped spikes on {quantized['samples']:,} samples "
                "that the quantizer saw"
            )
        show(tables.runs_table([result]), tables.spikes_table(result))


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
    check_sharding(shards, out, scheduler)
    reading = reading_of(input_scale, input_range, assume_sharp)
    model = read_network(net, reading)
    images, labels = samples_of(model, data, data_dir, split, limit, levels)
    if encoding == "binary":
        raise UnsupportedError(
            "compare: the binary encoding changes what the network reads, so the float32 network "
            "is no measure for it. Use 'whetsim run'."
        )
    prepare_all(names)
    how: dict[str, Any] = {"schedule": schedule, "encoding": encoding, "level": level}
    if shards is None:
        network = map_to_spikes(model)
        recordings = {
            name: run_one(network, images, name, record="rasters", **how)
            for name in dict.fromkeys(names)
        }
        good = _report_comparison(model, recordings, images, labels, as_json, {})
    else:
        origin = origin_of(net, reading, model, data, split, limit, levels)
        found = in_shards(
            *(compare_sharded, model, images, labels, shards, out, scheduler, origin),
            backends=names,
            **how,
        )
        parts = (found.agreement, found.model, found.margins)
        good = _tell_comparison(model, found.recordings, *parts, labels, as_json, {})
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

    model = load_network("digits_conv")
    images, labels = samples_of(model, "digits", None, "test", limit)
    network = map_to_spikes(model)
    if not as_json:
        show(
            f"A convolutional network, trained on the first 1,437 digits and sharpened until every "
            f"activation is a step; now on the last {len(images)}, which it never saw.",
            "",
            tables.population_table(facts.network_facts(network)),
            "",
        )
    names, missing = ["exact"], {}
    for name in backend_names():
        engine = get_backend(name)
        if engine.capabilities.kind != "simulated":
            continue  # chips take quantized networks alone
        try:
            engine.versions()
            names.append(name)
        except BackendNotInstalledError as error:
            missing[name] = str(error)
    recordings = {name: run_one(network, images, name, record="rasters") for name in names}
    good = _report_comparison(model, recordings, images, labels, as_json, missing)
    if not as_json:
        for name, advice in missing.items():
            show(f"{name} did not take part. {advice}")
    if not good:
        raise typer.Exit(1)


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
        print_json(
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
    show(tables.runs_table(runs, differing))
    show(tables.spikes_table(runs[0]), tables.agreement_table(facts.agreement_facts(result)))
    for comparison in result.comparisons:
        if comparison.first is not None:
            show(f"first difference of {comparison.names[1]}: {comparison.first}")
    show(str(with_model))
    if with_model.accuracy is not None:
        show(f"accuracy of the float32 network: {with_model.accuracy[0]:.2%} (computed now)")
    trained = model.metadata.get("float_accuracy")
    if isinstance(trained, float):
        show(f"accuracy with real-valued activations: {trained:.2%} (as the file records)")
    if close.n_samples:
        show(tables.margin_table(close))
    return good
