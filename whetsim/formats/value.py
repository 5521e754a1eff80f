"""A tensor of a foreign file, which may store its axes in another order than whetsim does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import FormatError, quote
from whetsim.layers import Shape

__all__ = ["Order", "Value", "channels_last"]

Order = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """A tensor of the file, without the axis of the samples.

    Parameters
    ----------
    name : str
        The layer that makes it.
    shape : tuple of int
        As the file has it.
    order : tuple of int
        Axis i of what the layer makes is axis ``order[i]`` of the file's tensor.
    """

    name: str
    shape: Shape
    order: Order

    @classmethod
    def of_stored(cls, name: str, stored: Shape, order: Order) -> Value:
        """Return what a layer makes, a shape whose axes are stored in an order."""
        return cls(name, tuple(stored[order.index(a)] for a in range(len(stored))), order)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of units."""
        return math.prod(self.shape)

    @property
    def stored_shape(self) -> Shape:
        """Shape of what the layer makes."""
        return tuple(self.shape[a] for a in self.order)

    @property
    def is_in_file_order(self) -> bool:
        """Whether units follow each other as in the file; axes of length 1 move nothing."""
        real = [a for a in self.order if self.shape[a] > 1]
        return real == sorted(real)

    def axes_for(self, order: Order) -> Order:
        """Return how to permute what the layer makes so that its axes are in `order`."""
        return tuple(self.order.index(a) for a in order)

    def transposed(self, axes: Sequence[int]) -> Value:
        """Return the same units, seen with the file's axes in another order."""
        if sorted(axes) != list(range(self.rank)):
            raise FormatError(
                f"axes {tuple(axes)} do not order the {self.rank} axes of {self.name!r}."
            )
        place = {axis: i for i, axis in enumerate(axes)}
        return Value(
            self.name, tuple(self.shape[a] for a in axes), tuple(place[a] for a in self.order)
        )

    def units(self) -> NDArray[np.int64]:
        """Return which unit of the layer each unit of the file's tensor is, both flattened."""
        places = np.arange(self.size).reshape(self.stored_shape)
        return places.transpose(self.axes_for(tuple(range(self.rank)))).ravel()


def channels_last(name: str, rank: int, channel_axis: int) -> Order:
    """Return the order of axes in which the channels are last; `name` is for the message."""
    if not -rank <= channel_axis < rank:
        raise FormatError(f"layer {quote(name)}: axis {channel_axis} is none of {rank}.")
    channel_axis %= rank
    return (*(a for a in range(rank) if a != channel_axis), channel_axis)
