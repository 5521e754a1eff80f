"""The command ``whetsim`` itself: how it prints, fails and is interrupted."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from whetsim.errors import WhetsimError

__all__ = ["Doing", "app", "main", "print_json", "show"]

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


class Doing:
    """What is under way, for the message when the user interrupts."""

    now = ""


def show(*parts: Any) -> None:
    from rich.console import Console

    # In a pipe there is no width to fit; lines are for grep, not for eyes.
    console = Console(width=None if sys.stdout.isatty() else 160, soft_wrap=False)
    for part in parts:
        if isinstance(part, str):
            console.print(part, markup=False, highlight=False)
        else:
            console.print(part)


def print_json(value: object) -> None:
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
    print(f"whetsim: interrupted{Doing.now}.", file=sys.stderr)
