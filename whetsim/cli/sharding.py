"""What commands about shards share: their options, origin and progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from whetsim.cli.app import Doing
from whetsim.cli.inputs import data_name
from whetsim.errors import UnsupportedError

if TYPE_CHECKING:
    from whetsim.formats import Reading
    from whetsim.model import Model
    from whetsim.shards import Origin

__all__ = ["check_sharding", "in_shards", "origin_of", "shard_progress"]


def check_sharding(shards: int | None, out: str | None, scheduler: str | None) -> None:
    """Refuse options that need each other and are not all there."""
    if (shards is None) != (out is None):
        given, missing = ("--shards", "--out") if out is None else ("--out", "--shards")
        raise UnsupportedError(f"{given} needs {missing}: --shards 20 --out DIR, for example.")
    if scheduler is not None and shards is None:
        raise UnsupportedError(
            "--scheduler hands out shards: give --shards 20 --out DIR, for example."
        )


def origin_of(
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

    name = data_name(model, data)
    return Origin(net, find_network(net), reading, name, split, limit, levels)


def in_shards(
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

    with shard_progress(len(split(len(images), shards)), out) as progress:
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
def shard_progress(total: int, out: str | None) -> Iterator[Callable[[int, int], None]]:
    """Yield what shows how many shards are done, also when the user interrupts."""
    from whetsim.progress import progress_reporter

    kept = "nothing was kept" if out is None else f"they are in {out}; the same command resumes"
    with progress_reporter(True, total, "shards") as tell:

        def note(done: int, _: int) -> None:
            Doing.now = f": {done:,} of {total:,} shards are done; {kept}"
            tell(done)

        note(0, total)
        yield note
