"""What the functions that read Keras layers have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import FormatError, quote
from whetsim.formats.graph import Graph, Reading, Value
from whetsim.formats.keras.config import LayerConfig
from whetsim.formats.keras.hdf5 import Budget, Hdf5
from whetsim.formats.keras.settings import Settings
from whetsim.formats.keras.weights import Roles, Weights

__all__ = [
    "Build",
    "Context",
    "Floats",
    "Join",
    "Kind",
    "Scores",
    "bias_of",
    "of_shape",
    "roles_with_bias",
]

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Scores:
    """Class scores that a softmax or a decoder would make of a value; the largest one wins.

    Parameters
    ----------
    value : Value
        What it reads.
    layer : str
    decoder : dict
        ``key`` or ``decoder`` of `Graph.decode`; empty for a plain softmax.
    remark : str
        What the user may want to know if this is the network's output.
    """

    value: Value
    layer: str
    decoder: dict[str, Any] = field(default_factory=dict)
    remark: str = ""


@dataclass(eq=False)
class Context:
    """What all layers are read with."""

    graph: Graph
    reading: Reading
    file: Hdf5
    weights: Weights
    budget: Budget
    backend: str = ""

    def array(self, layer: LayerConfig, role: str) -> Floats:
        """Return a weight."""
        found = self.weights.of(layer)
        if role not in found:
            raise FormatError(
                f"layer {quote(layer.full_name)}: the file holds no {role} for it. It is damaged."
            )
        return self.file.floats(found[role], self.budget)


Build = Callable[[Context, LayerConfig, Value], Value | Scores]
Join = Callable[[Context, LayerConfig, Sequence[Value]], Value]


def no_roles(settings: Settings) -> Roles:
    """Return the roles of a layer without weights."""
    return Roles()


@dataclass(frozen=True)
class Kind:
    """How a kind of layer is read: its function, for one input or for several; its weights."""

    build: Build | None = None
    join: Join | None = None
    roles: Callable[[Settings], Roles] = no_roles


def roles_with_bias(*names: str) -> Callable[[Settings], Roles]:
    """Return the roles of a layer whose last weight is a bias that may be switched off."""

    def of(settings: Settings) -> Roles:
        bias = ("bias",) if settings.flag("use_bias", True) else ()
        return Roles(trained=(*names, *bias))

    return of


def bias_of(c: Context, layer: LayerConfig, n: int) -> Floats | None:
    settings = Settings(layer)
    if not settings.flag("use_bias", True):
        return None
    return of_shape(settings, "bias", c.array(layer, "bias"), (n,))


def of_shape(settings: Settings, role: str, array: Floats, shape: tuple[int, ...]) -> Floats:
    if array.shape != shape:
        raise settings.error(
            f"{role} has shape {array.shape}; expected {shape} because of its configuration and "
            "input."
        )
    return array
