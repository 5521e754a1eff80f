"""Hardware targets: does it fit, does it still compute the same, what does it cost.

A chip is one TOML file in ``chips/``. Everything here takes and returns values of the core, so a
quantized network is a `whetsim.network.SpikingNetwork` and an emulated chip is a backend.
"""

from __future__ import annotations

from whetsim_hardware.chip import Chip, EnergySet, Quantity, chip_names, load_chip
from whetsim_hardware.energy import EnergyEstimate, estimate_energy
from whetsim_hardware.energy_ann import AnnEstimate, ann_energy
from whetsim_hardware.operations import Operations, count_operations

__all__ = [
    "AnnEstimate",
    "Chip",
    "EnergyEstimate",
    "EnergySet",
    "Operations",
    "Quantity",
    "ann_energy",
    "chip_names",
    "count_operations",
    "estimate_energy",
    "load_chip",
]
