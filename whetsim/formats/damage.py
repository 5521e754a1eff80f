"""What tells a damaged file: how each kind of container begins, and what reading one raises."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from whetsim.errors import FormatError

__all__ = ["DAMAGE", "HDF5_MAGIC", "ZIP_MAGIC", "guarded"]

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ZIP_MAGIC = b"PK\x03\x04"

DAMAGE = (
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    KeyError,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    SystemError,
    struct.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What h5py and zipfile raise, depending on which byte is damaged."""


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Turn what a damaged container raises into one line that says what could not be read."""
    try:
        yield
    except FormatError:
        raise
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise FormatError(f"{what} cannot be read ({reason}). The file is damaged.") from None
