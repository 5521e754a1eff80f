"""One node of an ONNX graph with its inputs: what the functions that read operators are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import FormatError, quote
from whetsim.formats.graph import Value
from whetsim.formats.onnx.nodes import Attributes, Label
from whetsim.formats.onnx.steps import Builder, Last, Refusal, Signal, Tensor
from whetsim.layers import Shape

__all__ = ["Call", "Operator", "without_samples"]


@dataclass(eq=False)
class Call:
    """A node and its inputs.

    Parameters
    ----------
    build : Builder
    op_type : str
    label : Label
    inputs : list
        None for one that is left out.
    attributes : Attributes
    n_outputs : int
    """

    build: Builder
    op_type: str
    label: Label
    inputs: list[Tensor | None]
    attributes: Attributes
    n_outputs: int = 1

    @property
    def name(self) -> str:
        """Name for a layer."""
        return self.label.name

    def has(self, index: int) -> bool:
        """Return whether an input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def tensor(self, index: int) -> NDArray[Any] | Signal:
        """Return an input."""
        if not self.has(index):
            raise FormatError(f"input {index} is missing. The file is damaged.")
        value = self.inputs[index]
        if isinstance(value, Refusal):
            raise value.error
        if isinstance(value, Last):
            raise FormatError(f"it follows a final layer ({value.remark}). Cut the network there.")
        if not isinstance(value, np.ndarray | Signal):
            raise FormatError(f"input {index} is no tensor. The file is damaged.")
        return value

    def signal(self, index: int = 0) -> Signal:
        """Return an input that must depend on the network's input."""
        value = self.tensor(index)
        if not isinstance(value, Signal):
            raise FormatError(f"input {index} must depend on the network's input; it is constant.")
        return value

    def array(self, index: int, what: str) -> NDArray[Any]:
        """Return an input that must be constant."""
        value = self.tensor(index)
        if isinstance(value, Signal):
            raise FormatError(
                f"{what} depends on the network's input (need a constant). Such a layer has no "
                "fixed weights, so it cannot become spikes."
            )
        return value

    def floats(self, index: int, what: str) -> NDArray[np.floating[Any]]:
        """Return an input that must be a constant of floating-point numbers."""
        array = self.array(index, what)
        if array.dtype.kind != "f":
            raise FormatError(f"{what} has type {array.dtype} (need floating-point numbers).")
        return array

    def integers(self, index: int, what: str) -> tuple[int, ...] | None:
        """Return an input that must be a constant list of whole numbers, None if left out."""
        if not self.has(index):
            return None
        array = self.array(index, what)
        if array.dtype.kind not in "iu" or array.ndim > 1 or array.size > 64:
            raise FormatError(f"{what} must be a list of whole numbers.")
        return tuple(int(v) for v in array.ravel())

    def plain(self, index: int = 0) -> Value:
        """Return an input as one layer's values."""
        return self.build.plain(self.signal(index))

    def made(self, value: Value, like: int = 0) -> Signal:
        """Return what a layer made, of the type of an input."""
        return self.build.signal(value, self.signal(like).dtype, self.label)


Operator = Callable[[Call], Sequence[Tensor] | Tensor]
"""Returns the outputs of a node, or its only one."""


def without_samples(
    call: Call, array: NDArray[Any], shape: Shape, *, merge: bool = True
) -> NDArray[Any]:
    """Return a constant that meets a signal, without the axis of the samples.

    Parameters
    ----------
    call : Call
    array : array
        Broadcasts against ``(samples, *shape)``.
    shape : tuple of int
        Of one sample.
    merge : bool
        Return one number if all agree.
    """
    full = (call.build.batch, *shape)
    try:
        fits = np.broadcast_shapes(array.shape, full) == full
    except ValueError:
        fits = False
    if not fits:
        raise FormatError(
            f"a constant of shape {quote(array.shape)} meets a tensor of shape {quote(full)} "
            "(need one that broadcasts to it)."
        )
    if array.size and merge and _uniform(array):
        return array.reshape(-1)[:1].reshape(())
    if array.ndim == len(full):
        if not (array == array[:1]).all():
            raise FormatError("a constant differs from sample to sample.")
        array = array[0]
    return array


def _uniform(array: NDArray[Any]) -> bool:
    # A view of one number needs no look at every place.
    return not any(array.strides) or bool((array == array.flat[0]).all())
