"""Which stored array is which weight of which layer.

Two layouts are known. HDF5 files of whole models have a group for each layer of the outermost
network; what lies in inner networks stands in one row, first all that was trained, then the rest.
The .keras file has a group for each layer, named after classes: ``layers/conv2d_1/vars/0``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from whetsim.errors import FormatError, quote
from whetsim.formats.keras.config import LayerConfig, Network
from whetsim.formats.keras.hdf5 import Hdf5

__all__ = ["LayerWeights", "PathWeights", "Roles", "Weights"]

Found = dict[str, Any]
"""Role of a weight to the array in the file."""


@dataclass(frozen=True)
class Roles:
    """The weights of a layer, in the order of the file.

    Parameters
    ----------
    trained, fixed : tuple of str
        Written among the trained weights unless the layer is frozen; never so.
    optional_rank : int, optional
        For layers whose weight was saved by some versions alone: its number of axes.
    """

    trained: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    optional_rank: int | None = None


RolesOf = Callable[[LayerConfig], Roles]
Slot = tuple[LayerConfig, str, int | None]
"""A place for a weight: layer, role, and number of axes if it may be missing."""


class Weights(Protocol):
    """Where weights are found."""

    def of(self, layer: LayerConfig) -> Found:
        """Return the arrays of a layer by role, not read yet."""
        ...


class LayerWeights:
    """The layout of whole models in HDF5: a group and a list of names for each outer layer."""

    def __init__(self, file: Hdf5, group: Any, network: Network, roles_of: RolesOf) -> None:
        self._file = file
        self._group = group
        self._network = network
        self._roles_of = roles_of
        self._found: dict[tuple[str, ...], Found] = {}
        self._done: set[str] = set()

    def of(self, layer: LayerConfig) -> Found:
        """Return the arrays of a layer by role, not read yet."""
        outer = layer.scope[0]
        if outer not in self._done:
            self._done.add(outer)
            self._assign(self._network.layers[outer])
        return self._found.get(layer.scope, {})

    def _assign(self, outer: LayerConfig) -> None:
        group = self._file.group(self._group, outer.name)
        names = [] if group is None else self._file.texts(group, "weight_names")
        stored = [(name, self._file.dataset(group, name)) for name in names]
        trained, fixed = _slots(outer, self._roles_of)
        for slot, array in _matched(outer, [*trained, *fixed], stored):
            self._found.setdefault(slot[0].scope, {})[slot[1]] = array


class PathWeights:
    """The layout of the .keras file: a group for each layer, arrays numbered.

    Layers of one class are numbered: dense, dense_1, dense_2. Up to Keras 2.13 the groups stood
    under another name, and a layer with weights took two numbers.
    """

    def __init__(self, file: Hdf5, network: Network, roles_of: RolesOf) -> None:
        self._file = file
        self._roles_of = roles_of
        early = "_layer_checkpoint_dependencies"
        self._early = not file.has(file.root, "layers") and file.has(file.root, early)
        self._top = early if self._early else "layers"
        self._paths: dict[tuple[str, ...], str] = {}
        self._place(network, "")

    def of(self, layer: LayerConfig) -> Found:
        """Return the arrays of a layer by role, not read yet."""
        path = self._paths.get(layer.scope, "")
        group = self._file.group(self._file.root, path) if path else None
        stored: list[tuple[str, Any]] = []
        if group is not None:
            name = self._file.text(group, "name")
            if name is not None and name != layer.name:
                raise FormatError(
                    f"layer {quote(layer.full_name)}: its weights should be at {quote(path)}, "
                    f"where those of {quote(name)} are. The file is damaged."
                )
            while self._file.has(group, str(len(stored))):
                number = str(len(stored))
                stored.append((number, self._file.dataset(group, number)))
        roles = self._roles_of(layer)
        slots = [(layer, role, roles.optional_rank) for role in (*roles.trained, *roles.fixed)]
        return {slot[1]: array for slot, array in _matched(layer, slots, stored)}

    def _place(self, network: Network, prefix: str) -> bool:
        """Find the groups of all layers; return whether any has weights, in early files alone."""
        numbers: Counter[str] = Counter()
        any_weights = False
        for layer in network.layers.values():
            if not layer.group:
                continue
            number = numbers[layer.group]
            numbers[layer.group] += 1
            name = f"{layer.group}_{number}" if number else layer.group
            path = f"{prefix}{self._top}/{name}"
            self._paths[layer.scope] = f"{path}/vars"
            has_weights = self._early and self._has_weights(f"{path}/vars")
            if layer.network is not None:
                has_weights |= self._place(layer.network, f"{path}/")
            numbers[layer.group] += has_weights
            any_weights |= has_weights
        return any_weights

    def _has_weights(self, path: str) -> bool:
        group = self._file.group(self._file.root, path)
        return group is not None and self._file.has(group, "0")


def _slots(layer: LayerConfig, roles_of: RolesOf) -> tuple[list[Slot], list[Slot]]:
    """Return the places of what was trained, and of the rest, in the order of the file."""
    trained: list[Slot] = []
    fixed: list[Slot] = []
    if layer.network is None:
        roles = roles_of(layer)
        trained = [(layer, role, roles.optional_rank) for role in roles.trained]
        fixed = [(layer, role, roles.optional_rank) for role in roles.fixed]
        return (trained, fixed) if layer.trainable else ([], [*trained, *fixed])
    for inner in layer.network.layers.values():
        inner_trained, inner_fixed = _slots(inner, roles_of)
        if layer.trainable:
            trained += inner_trained
            fixed += inner_fixed
        else:
            fixed += [*inner_trained, *inner_fixed]
    return trained, fixed


def _matched(
    layer: LayerConfig, slots: Sequence[Slot], stored: Sequence[tuple[str, Any]]
) -> Iterator[tuple[Slot, Any]]:
    """Yield each place with its array; refuse where number or names do not agree."""
    at = 0
    for slot in slots:
        owner, role, optional_rank = slot
        name, array = stored[at] if at < len(stored) else ("", None)
        if optional_rank is not None and (
            array is None or array.ndim != optional_rank or not _may_be(name, role)
        ):
            continue
        if array is None or not _may_be(name, role):
            got = "no array is left" if array is None else f"{quote(name)} is there"
            raise FormatError(
                f"layer {quote(owner.full_name)}: its {role} is not in the file where it should be "
                f"({got}). The file is damaged, or not written by Keras."
            )
        at += 1
        yield slot, array
    if at < len(stored):
        raise FormatError(
            f"layer {quote(layer.full_name)}: the file has {len(stored)} weights for it (need "
            f"{at}; {quote(stored[at][0])} is unknown)."
        )


_ALSO_CALLED = {
    "depthwise_kernel": ("kernel",),
    "sharpness": ("variable",),
    "decoder": ("variable",),
}
_KNOWN = {
    "kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance", "depthwise_kernel",
    "pointwise_kernel", "mean", "variance", "count", "sharpness", "straight_through", "variable",
}  # fmt: skip


def _may_be(name: str, role: str) -> bool:
    """Return whether a name such as ``block/conv_2/kernel:0`` agrees with a role."""
    last = re.sub(r"(_\d+)?(:\d+)?$", "", name.rpartition("/")[2].lower())
    return last not in _KNOWN or last == role or last in _ALSO_CALLED.get(role, ())
