"""Text attributes of an HDF5 file, read from its bytes.

A text is stored as a reference: a length and a place in a heap. The HDF5 library allocates the
length before it looks at the place, and walks a heap without end if a size in it is 0. So one wrong
byte costs gigabytes or hangs, and there is no question to ask first. Here each step is bounded.

References
----------
HDF5 File Format Specification Version 3.0: III.E (global heap), IV.A.1 (object headers),
IV.A.2.b, d, m, q (dataspace, datatype, attribute, continuation messages), VIII (references).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

from whetsim.errors import FormatError, quote

__all__ = ["Content", "TextAttributes"]

Content = bytes | mmap.mmap

MAX_TEXT = 2**26
"""Largest size of all texts of an attribute together."""
MAX_TEXTS = 100_000
MAX_MESSAGES = 100_000
MAX_HEAP_OBJECTS = 1_000_000
"""How many heap objects are looked at in all; heaps may overlap in a hostile file."""

_ATTRIBUTE, _CONTINUATION, _ATTRIBUTE_INFO = 0x0C, 0x10, 0x15
_FIXED_TEXT, _VARIABLE_LENGTH = 3, 9
_NOWHERE = 2**64 - 1


@dataclass(frozen=True)
class _Attribute:
    name: str
    datatype: bytes
    dataspace: bytes
    data: bytes

    @property
    def kind(self) -> int:
        """The class of the datatype."""
        return self.datatype[0] & 15

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of entries along each axis; () for a single value."""
        at = 8 if self.dataspace[0] == 1 else 4
        return tuple(_number(self.dataspace, at + 8 * i, 8) for i in range(self.dataspace[1]))


class TextAttributes:
    """The text attributes of the objects of a file.

    Parameters
    ----------
    content : bytes or mmap
        The whole file.

    Raises
    ------
    FormatError
        By every method, if the bytes are not what the format says.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}
        self._n_objects = 0

    def has(self, address: int, name: str) -> bool:
        """Return whether the object at an address has an attribute."""
        return self._find(address, name) is not None

    def text(self, address: int, name: str) -> str | None:
        """Return the attribute of the object at an address, one text, or None."""
        found = self._find(address, name)
        if found is None:
            return None
        if found.shape not in ((), (1,)):
            raise FormatError(f"attribute {quote(name)} must be a single text.")
        (text,) = self._texts(found)
        return text

    def texts(self, address: int, name: str) -> list[str] | None:
        """Return the attribute of the object at an address, a list of texts, or None."""
        found = self._find(address, name)
        if found is None:
            return None
        if len(found.shape) != 1:
            raise FormatError(f"attribute {quote(name)} must be a list of texts.")
        return self._texts(found)

    def _find(self, address: int, name: str) -> _Attribute | None:
        for kind, message in self._messages(address):
            if kind == _ATTRIBUTE_INFO and _are_elsewhere(message):
                raise FormatError(
                    "attributes are stored in a way that Keras does not use. Save the model once "
                    "more with Keras."
                )
            if kind == _ATTRIBUTE:
                attribute = _attribute(message)
                if attribute.name == name:
                    return attribute
        return None

    def _messages(self, address: int) -> Iterator[tuple[int, bytes]]:
        """Yield kind and content of the messages that describe an object."""
        content, old = self._content, self._content[address : address + 4] != b"OHDR"
        if old:
            if content[address : address + 1] != b"\x01":
                raise FormatError("an object of the HDF5 file has no header. The file is damaged.")
            order = 0
            blocks = [(address + 16, _number(content, address + 8, 4))]
        else:
            flags = content[address + 5]
            order = 2 if flags & 4 else 0
            start = address + 6 + (16 if flags & 32 else 0) + (4 if flags & 16 else 0)
            width = 1 << (flags & 3)
            blocks = [(start + width, _number(content, start, width))]
        n_messages = 0
        while blocks:
            at, size = blocks.pop(0)
            end = min(at + size, len(content))
            while at + (8 if old else 4 + order) <= end:
                n_messages += 1
                if n_messages > MAX_MESSAGES:
                    raise FormatError("an object of the HDF5 file is described without end.")
                kind = _number(content, at, 2 if old else 1)
                length = _number(content, at + (2 if old else 1), 2)
                flags = content[at + (4 if old else 3)]
                at += 8 if old else 4 + order
                message = content[at : min(at + length, end)]
                at += length
                if kind == _CONTINUATION:
                    start, size = _number(message, 0, 8), _number(message, 8, 8)
                    # Newer blocks have a signature before and a checksum behind.
                    blocks.append((start, size) if old else (start + 4, size - 8))
                elif not flags & 2:
                    yield kind, message

    def _texts(self, attribute: _Attribute) -> list[str]:
        n = 1
        for length in attribute.shape:
            n *= length
        if n > MAX_TEXTS:
            raise FormatError(f"attribute {quote(attribute.name)} has {n} texts.")
        if n == 0:
            return []
        size = _number(attribute.datatype, 4, 4)
        if size * n > len(attribute.data):
            raise FormatError(f"attribute {quote(attribute.name)} is cut off.")
        parts = [attribute.data[size * i : size * (i + 1)] for i in range(n)]
        if attribute.kind == _FIXED_TEXT:
            values = [part.partition(b"\0")[0] for part in parts]
        elif attribute.kind == _VARIABLE_LENGTH and size == 16:
            values = self._referenced(parts)
        else:
            raise FormatError(f"attribute {quote(attribute.name)} must be text.")
        try:
            return [value.decode() for value in values]
        except UnicodeDecodeError:
            raise FormatError(f"attribute {quote(attribute.name)} is no UTF-8 text.") from None

    def _referenced(self, references: list[bytes]) -> list[bytes]:
        total = sum(_number(reference, 0, 4) for reference in references)
        if total > MAX_TEXT:
            raise FormatError(
                f"an attribute claims texts of {total} bytes (need <= {MAX_TEXT}). The file is "
                "damaged."
            )
        values = []
        for reference in references:
            length, address = _number(reference, 0, 4), _number(reference, 4, 8)
            if length == 0:
                values.append(b"")
                continue
            start, size = self._heap(address).get(_number(reference, 12, 4), (0, 0))
            if length > size:
                raise FormatError("a text of the HDF5 file is not where it should be.")
            values.append(self._content[start : start + length].partition(b"\0")[0])
        return values

    def _heap(self, address: int) -> dict[int, tuple[int, int]]:
        """Return where the objects of a heap are and how long, by their numbers."""
        if address in self._heaps:
            return self._heaps[address]
        content, objects = self._content, {}
        if content[address : address + 5] != b"GCOL\x01":
            raise FormatError("a text of the HDF5 file is in no heap. The file is damaged.")
        end = min(address + _number(content, address + 8, 8), len(content))
        at = address + 16
        while at + 16 <= end:
            number, size = _number(content, at, 2), _number(content, at + 8, 8)
            self._n_objects += 1
            if number == 0 or at + 16 + size > end:
                break
            if self._n_objects > MAX_HEAP_OBJECTS:
                raise FormatError("the HDF5 file has texts without end. It is damaged.")
            objects[number] = (at + 16, size)
            at += 16 + _padded(size)
        self._heaps[address] = objects
        return objects


def _are_elsewhere(message: bytes) -> bool:
    """Return whether the message about attributes names a place apart from the object."""
    return _number(message, 4 if message[1] & 1 else 2, 8) != _NOWHERE


def _attribute(message: bytes) -> _Attribute:
    version = message[0]
    if version not in (1, 2, 3):
        raise FormatError("an attribute of the HDF5 file has an unknown version.")
    padded = _padded if version == 1 else int
    at = 9 if version == 3 else 8
    parts = []
    for field in (2, 4, 6):
        size = _number(message, field, 2)
        parts.append(message[at : at + size])
        at += padded(size)
    name, datatype, dataspace = parts
    shared = version > 1 and message[1] & 3
    if shared or len(datatype) < 8 or len(dataspace) < 4:
        # A type that is stored elsewhere: nothing that Keras writes, so it is no text.
        datatype, dataspace = bytes(8), bytes(4)
    return _Attribute(
        name.partition(b"\0")[0].decode("utf-8", "replace"), datatype, dataspace, message[at:]
    )


def _number(content: Content, at: int, size: int) -> int:
    return int.from_bytes(content[max(at, 0) : max(at, 0) + size], "little")


def _padded(size: int) -> int:
    return (size + 7) // 8 * 8
