"""Keeps simulators' chatter off the terminal: banners, compiler output, notes to nobody."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what native code and subprocesses print; show it if the block raises.

    Simulators print from C++ and from compilers they start, past ``sys.stdout``, so the file
    descriptors themselves are turned aside. Python warnings are not touched.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with tempfile.TemporaryFile() as held:
        saved = [os.dup(fd) for fd in (1, 2)]
        try:
            for fd in (1, 2):
                os.dup2(held.fileno(), fd)
            yield
        except Exception:
            _restore(saved)
            held.seek(0)
            sys.stderr.write(held.read().decode(errors="replace"))
            raise
        finally:
            if saved:
                _restore(saved)


def _restore(saved: list[int]) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for fd, copy in zip((1, 2), saved, strict=True):
        os.dup2(copy, fd)
        os.close(copy)
    saved.clear()
