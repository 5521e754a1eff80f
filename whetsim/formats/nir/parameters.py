"""The parameters of NIR nodes, each checked when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import FormatError, quote
from whetsim.formats.graph import Pads, Value
from whetsim.formats.nir.file import Node

__all__ = ["fitting", "floats", "number", "padding_of", "per_axis", "whole_numbers"]


def floats(node: Node, key: str) -> NDArray[Any]:
    value = node.values[key]
    if isinstance(value, str):
        raise FormatError(f"{key} must be numbers (got {quote(value)}).")
    array: NDArray[Any] = np.asarray(value)
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def fitting(node: Node, key: str, x: Value) -> NDArray[Any]:
    """Return a parameter that has one value, or one for each unit."""
    values = floats(node, key)
    if values.size != 1 and values.shape != x.shape:
        raise FormatError(f"{key} has shape {values.shape}; what reaches the node has {x.shape}.")
    if not np.isfinite(values).all():
        raise FormatError(f"{key} holds NaN or infinite values.")
    return values.reshape(()) if values.size == 1 else values


def whole_numbers(node: Node, key: str) -> tuple[int, ...]:
    value = node.values[key]
    if isinstance(value, str) or value.dtype.kind not in "iu" or value.size > 16:
        raise FormatError(f"{key} must be whole numbers (got {quote(value)}).")
    return tuple(int(v) for v in value.ravel())


def number(node: Node, key: str) -> int:
    numbers = whole_numbers(node, key)
    if len(numbers) != 1:
        raise FormatError(f"{key} must be one whole number (got {numbers}).")
    return numbers[0]


def per_axis(node: Node, key: str, n_axes: int) -> tuple[int, ...]:
    """Return a number for each axis; one alone is for all."""
    numbers = whole_numbers(node, key)
    if len(numbers) == 1:
        return numbers * n_axes
    if len(numbers) != n_axes:
        raise FormatError(f"{key} must be {n_axes} whole numbers (got {numbers}).")
    return numbers


def padding_of(node: Node, n_axes: int, strides: Sequence[int]) -> str | Pads:
    value = node.values["padding"]
    if not isinstance(value, str):
        return tuple((p, p) for p in per_axis(node, "padding", n_axes))
    if value == "same" and any(s != 1 for s in strides):
        raise FormatError(
            f"padding 'same' with stride {tuple(strides)} is not defined in NIR (need stride 1, or "
            "numbers)."
        )
    if value not in ("same", "valid"):
        raise FormatError(f"padding is {quote(value)} (need numbers, 'same' or 'valid').")
    return value
