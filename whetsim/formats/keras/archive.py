"""The .keras file of Keras 3: a zip archive with configuration and weights."""

from __future__ import annotations

import zipfile
from pathlib import Path

from whetsim.errors import FormatError, quote
from whetsim.formats.damage import DAMAGE, guarded

__all__ = ["CONFIG", "METADATA", "WEIGHTS", "Archive", "is_keras_archive"]

CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"

MAX_EXPANSION = 100
"""Largest size of a member per stored byte; Keras itself does not compress."""


def is_keras_archive(path: Path) -> bool:
    """Return whether a zip archive, perhaps a damaged one, holds the members of a .keras file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {CONFIG, METADATA} <= set(archive.namelist())
    except DAMAGE:
        # The list of members is at the end, but each has its name before it as well.
        with path.open("rb") as file:
            header = file.read(64)
        name = header[30 : 30 + int.from_bytes(header[26:28], "little")]
        return name in (CONFIG.encode(), METADATA.encode())


class Archive:
    """Members of a zip archive by their exact names; nothing is ever unpacked to disk."""

    def __init__(self, path: Path) -> None:
        with guarded("the zip archive"):
            self._size = path.stat().st_size
            self._zip = zipfile.ZipFile(path)
            self._members = self._zip.infolist()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def read(self, name: str, limit: int) -> bytes | None:
        """Return a member of at most `limit` bytes, or None where there is none."""
        found = [member for member in self._members if member.filename == name]
        if not found:
            return None
        if len(found) > 1:
            raise FormatError(f"the archive has {len(found)} members {quote(name)} (need one).")
        (member,) = found
        stored = min(member.compress_size, self._size)
        if member.file_size > min(limit, MAX_EXPANSION * stored):
            raise FormatError(
                f"member {quote(name)} of the archive unpacks to {member.file_size} bytes from "
                f"{stored} (need <= {limit}, and <= {MAX_EXPANSION} for each stored "
                "byte). Save the model once more with Keras."
            )
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(f"member {quote(name)} of the archive is compressed in an odd way.")
        with guarded(f"member {quote(name)} of the archive"), self._zip.open(member) as file:
            # The declared size may lie.
            content = file.read(member.file_size + 1)
            if len(content) != member.file_size:
                raise FormatError(
                    f"member {quote(name)} of the archive has another size than told."
                )
            return content
