"""What every layer is: a name, the names of its inputs, and parameters that were checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.errors import FormatError, quote

__all__ = [
    "MAX_EXTENT",
    "FloatArray",
    "Layer",
    "Shape",
    "finite",
    "whole_number",
    "whole_numbers",
]

Shape = tuple[int, ...]
FloatArray = NDArray[np.floating[Any]]

MAX_EXTENT = 2**31 - 1
"""Largest kernel, stride, padding or axis: indices stay within 32 bits."""


def whole_number(value: object, what: str, minimum: int) -> int:
    """Return a whole number from `minimum` up, or raise `FormatError`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise FormatError(f"{what} must be a whole number (got {quote(value)}).")
    if not minimum <= value <= MAX_EXTENT:
        raise FormatError(f"{what} is out of range (got {quote(value)}; need >= {minimum}).")
    return int(value)


def whole_numbers(value: object, what: str, minimum: int, length: int | None = None) -> Shape:
    """Return a list of whole numbers as a tuple, or raise `FormatError`."""
    if not isinstance(value, (tuple, list)):
        raise FormatError(f"{what} must be a list of whole numbers (got {quote(value)}).")
    if length is not None and len(value) != length:
        raise FormatError(f"{what} must have {length} entries (got {len(value)}).")
    if len(value) > 16:
        raise FormatError(f"{what} has too many entries (got {len(value)}; need <= 16).")
    return tuple(whole_number(v, what, minimum) for v in value)


def finite(value: object, what: str) -> float:
    """Return a finite real number as float, or raise `FormatError`."""
    try:
        if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number):
                return number
    except OverflowError:
        pass
    raise FormatError(f"{what} must be a finite number (got {quote(value)}).")


def _floats(value: ArrayLike, what: str, rank: int) -> FloatArray:
    array = np.asarray(value)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise FormatError(f"{what} must be float16, float32 or float64 (got {array.dtype}).")
    if array.ndim != rank:
        raise FormatError(f"{what} has shape {array.shape} (got {array.ndim}-D; need {rank}-D).")
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        raise FormatError(f"{what} holds {bad} NaN or infinite values. Train or export it again.")
    if not (array.flags.c_contiguous and _is_frozen(array)):
        array = np.array(array, order="C")
        array.flags.writeable = False
    return array


def _is_frozen(array: NDArray[Any]) -> bool:
    """Return whether nobody can write to an array, nor to what it is a view of."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        if owner.flags.writeable:
            return False
        owner = owner.base
    return owner is None or isinstance(owner, bytes)


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """What all layers share.

    Parameters
    ----------
    name : str
        Unique in its model.
    inputs : sequence of str
        Names of the layers it reads, or ``"input"``.

    Raises
    ------
    FormatError
        If a parameter has the wrong type, shape or range, or is not finite.
    """

    name: str
    inputs: tuple[str, ...]

    kind: ClassVar[str]
    arrays: ClassVar[dict[str, int]] = {}
    """Array parameters and their number of axes."""
    n_inputs: ClassVar[int | None] = 1
    """How many inputs the layer takes; None means two or more."""

    def __post_init__(self) -> None:
        where = f"layer {quote(self.name)}"
        if not isinstance(self.name, str) or not self.name or len(self.name) > 200:
            raise FormatError(f"{where}: a name must be a text of 1 to 200 characters.")
        if not self.name.isprintable():
            raise FormatError(f"{where}: a name must be printable.")
        inputs = (self.inputs,) if isinstance(self.inputs, str) else self.inputs
        if not isinstance(inputs, (tuple, list)) or not all(isinstance(i, str) for i in inputs):
            raise FormatError(f"{where}: inputs must be layer names (got {quote(inputs)}).")
        object.__setattr__(self, "inputs", tuple(inputs))
        if self.n_inputs is None:
            if len(inputs) < 2:
                raise FormatError(f"{where}: {self.kind} needs 2 or more inputs.")
        elif len(inputs) != self.n_inputs:
            raise FormatError(
                f"{where}: {self.kind} takes {self.n_inputs} input (got {len(inputs)})."
            )
        try:
            optional = {f.name for f in fields(self) if f.default is None}
            for key, rank in self.arrays.items():
                value = getattr(self, key)
                if value is not None or key not in optional:
                    object.__setattr__(self, key, _floats(value, key, rank))
            self._check()
        except FormatError as error:
            raise FormatError(f"{where}: {error}") from None

    def _check(self) -> None:
        """Check and normalize the parameters that are not arrays."""

    def _set(self, **values: object) -> None:
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of one sample after this layer; raise `FormatError` if it cannot be."""
        raise NotImplementedError

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that are not arrays, as plain values."""
        skip = {"name", "inputs", *self.arrays}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skip}

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        present = (getattr(self, key) for key in self.arrays)
        return sum(int(a.size) for a in present if a is not None)

    def _fits(self, key: str, array: FloatArray | None, length: int) -> None:
        if array is not None and array.shape != (length,):
            raise FormatError(f"{key} has shape {array.shape}; expected ({length},).")
