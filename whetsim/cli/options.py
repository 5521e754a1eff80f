"""Arguments and options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "AsJson",
    "AssumeSharp",
    "Data",
    "DataDir",
    "Encoding",
    "InputRange",
    "InputScale",
    "Level",
    "Levels",
    "Limit",
    "Net",
    "Options",
    "Out",
    "Schedule",
    "Scheduler",
    "Shards",
    "Split",
]

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
