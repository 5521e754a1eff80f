"""Commands that tell what is there: backends and diary."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from whetsim.cli.app import app, print_json, show
from whetsim.cli.options import AsJson
from whetsim.errors import WhetsimError


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
        print_json({"backends": rows})
    else:
        show(tables.backend_table(rows))
        for row in rows:
            for option, meaning in row["options"].items():
                show(f"  {row['name']} -o {option}=...: {meaning}")


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
        print_json({**told, "picture": plot})
    else:
        show(tables.diary_table(told))
        if plot is not None:
            show(f"picture: {plot}")
