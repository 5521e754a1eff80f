"""Keeps simulators' chatter off the terminal: banners, compiler output, notes to nobody."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

__all__ = ["quiet", "without_noise"]

_WARNING = re.compile(r"\s*\[?(WARNING|ERROR|CRITICAL)\b")
"""How a line begins with which Brian2, NEST and PyNN warn."""

_NOISE = (
    # PyNN tries to compile NEST extensions that nothing here uses, and calls NEST the old way.
    "(?s).*(cmake|NEST extensions|build extensions)",
    "(?s).*(future version of NEST|Provided for backward compatibility only)",
)
"""Warnings that users can do nothing about."""


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what native code and subprocesses print; show it if the block raises.

    Simulators print from C++ and from compilers they start, past ``sys.stdout``, so the file
    descriptors themselves are turned aside. Python warnings, and lines with which a simulator
    warns, come through when the block ends.
    """
    _flush()
    with tempfile.TemporaryFile() as held, warnings.catch_warnings(record=True) as warned:
        saved = [os.dup(fd) for fd in (1, 2)]
        failed = False
        _ignore_noise()
        try:
            for fd in (1, 2):
                os.dup2(held.fileno(), fd)
            yield
        except Exception:
            failed = True
            raise
        finally:
            _flush()
            for fd, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, fd)
                os.close(copy)
            for line in _lines(held):
                if failed or _WARNING.match(line):
                    sys.stderr.write(line)
    for warning in warned:
        warnings.showwarning(warning.message, warning.category, warning.filename, warning.lineno)


@contextmanager
def without_noise() -> Iterator[None]:
    """Hold back the warnings that users can do nothing about; nothing else."""
    with warnings.catch_warnings():
        _ignore_noise()
        yield


def _ignore_noise() -> None:
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _lines(held: IO[bytes]) -> Iterator[str]:
    held.seek(0)
    return (line.decode(errors="replace") for line in held)
