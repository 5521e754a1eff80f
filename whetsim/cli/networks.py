"""Commands about network files: inspect and convert."""

from __future__ import annotations

from typing import Annotated

import typer

from whetsim.cli.app import app, print_json, show
from whetsim.cli.inputs import load_network
from whetsim.cli.options import AsJson, AssumeSharp, InputRange, InputScale, Net


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

    model = load_network(net, input_scale, input_range, assume_sharp, guess_input=True)
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
        print_json({"model": about, "network": spiking, "findings": listed, "problem": problem})
    else:
        show(tables.layer_table(about))
        if spiking is not None:
            show("", tables.population_table(spiking))
        if about["metadata"]:
            show("", *tables.model_lines(about["metadata"]))
        show("", *tables.finding_lines(findings))
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
    model = load_network(net, input_scale, input_range, assume_sharp)
    network = map_to_spikes(model)  # refused before anything is written
    try:
        save(model, out)
    except OSError as error:
        reason = error.strerror or error
        raise FormatError(f"{out}: cannot be written ({reason}).") from None
    told = {"wrote": out, "bytes": os.path.getsize(out)}
    told |= compare_on_random_samples(network, map_to_spikes(load(out)))
    if as_json:
        print_json(told)
    else:
        show(
            f"wrote {out}: {told['bytes']:,} bytes. Read back: {told['differing_spikes']:,} "
            f"differing output spikes and {told['differing_predictions']:,} differing predictions "
            f"on {told['samples']} random samples."
        )
    if told["differing_spikes"] or told["differing_predictions"]:
        raise typer.Exit(1)
