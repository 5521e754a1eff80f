"""Progress of long work: a bar on a terminal, nothing in a pipe, or the caller's own function."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress_reporter"]


@contextmanager
def progress_reporter(
    progress: bool | Callable[..., None], total: int | None, label: str = "samples"
) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the number of samples done so far."""
    if callable(progress):
        told = progress
        yield lambda done: told(done, total)
        return
    notebook = "ipykernel" in sys.modules
    if not progress or not (notebook or sys.stderr.isatty()):
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=not notebook), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)
