"""whetsim: exact spiking simulation of sharpened networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whetsim.formats import load, save
from whetsim.model import InputSpec, Model, Readout

if TYPE_CHECKING:
    from whetsim.mapping import map_to_spikes
    from whetsim.network import SpikingNetwork
    from whetsim.registry import backend_names, get_backend
    from whetsim.runner import run

__all__ = [
    "InputSpec",
    "Model",
    "Readout",
    "SpikingNetwork",
    "backend_names",
    "get_backend",
    "load",
    "map_to_spikes",
    "run",
    "save",
]
__version__ = "0.1.0.dev0"

_LATE = {
    "SpikingNetwork": "whetsim.network",
    "backend_names": "whetsim.registry",
    "get_backend": "whetsim.registry",
    "map_to_spikes": "whetsim.mapping",
    "run": "whetsim.runner",
}
"""Where names live whose modules need more than numpy; they are imported on first use."""


def __getattr__(name: str) -> Any:
    if name in _LATE:
        from importlib import import_module

        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module 'whetsim' has no attribute {name!r}")
