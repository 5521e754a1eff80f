"""whetsim: exact spiking simulation of sharpened networks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from whetsim.formats import load, save
from whetsim.model import InputSpec, Model, Readout

if TYPE_CHECKING:
    from whetsim import datasets
    from whetsim.comparison import Comparison, agreement, compare
    from whetsim.diagnosis import Finding, diagnose
    from whetsim.formats.torch_module import from_torch
    from whetsim.mapping import map_to_spikes
    from whetsim.margin import Margins, margins
    from whetsim.model_comparison import ModelComparison, compare_with_model
    from whetsim.network import SpikingNetwork
    from whetsim.recording import Recording
    from whetsim.registry import backend_names, get_backend
    from whetsim.runner import run

__all__ = [
    "Comparison",
    "Finding",
    "InputSpec",
    "Margins",
    "Model",
    "ModelComparison",
    "Readout",
    "Recording",
    "SpikingNetwork",
    "agreement",
    "backend_names",
    "compare",
    "compare_with_model",
    "datasets",
    "diagnose",
    "from_torch",
    "get_backend",
    "load",
    "map_to_spikes",
    "margins",
    "run",
    "save",
]
__version__ = "0.1.0.dev0"

_LATE = {
    "Comparison": "whetsim.comparison",
    "Finding": "whetsim.diagnosis",
    "Margins": "whetsim.margin",
    "ModelComparison": "whetsim.model_comparison",
    "Recording": "whetsim.recording",
    "SpikingNetwork": "whetsim.network",
    "agreement": "whetsim.comparison",
    "backend_names": "whetsim.registry",
    "compare": "whetsim.comparison",
    "compare_with_model": "whetsim.model_comparison",
    "diagnose": "whetsim.diagnosis",
    "from_torch": "whetsim.formats.torch_module",
    "get_backend": "whetsim.registry",
    "map_to_spikes": "whetsim.mapping",
    "margins": "whetsim.margin",
    "run": "whetsim.runner",
}
"""Where names live whose modules need more than numpy; they are imported on first use."""


def __getattr__(name: str) -> Any:
    if name == "datasets":
        return import_module("whetsim.datasets")
    if name in _LATE:
        value = getattr(import_module(_LATE[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'whetsim' has no attribute {name!r}")
