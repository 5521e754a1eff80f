"""Commands about sharded runs: rerun and diff."""

from __future__ import annotations

from typing import Annotated

import typer

from whetsim.cli.app import app, print_json, show
from whetsim.cli.inputs import read_network, samples_of
from whetsim.cli.options import AsJson, DataDir
from whetsim.cli.sharding import origin_of, shard_progress
from whetsim.errors import SampleError


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
    model = read_network(net, reading)
    images, labels = samples_of(model, data, data_dir, split or "test", limit, levels)
    origin = origin_of(net, reading, model, data, split, limit, levels)
    with shard_progress(stored["shards"], out) as progress:
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
        print_json(found.as_dict())
    else:
        for setting in found.settings:
            show(f"{setting.label}: {setting.shown[0]} now, {setting.shown[1]} then")
        if found.same_result:
            show("result.json: the same byte for byte")
        else:
            show(*(found.difference.lines() if found.difference else ["result.json: differs"]))
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
        print_json(found.as_dict())
    else:
        show(*found.lines())
    if not (found.results_agree if results_only else found.agrees):
        raise typer.Exit(1)
