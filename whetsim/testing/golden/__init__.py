"""Stored networks with the spikes they cause; a backend or a mapping that changes them is wrong.

Each network is a native file beside a ``.npz`` with its samples and, for every population, its
raster, one bit a spike. ``python -m whetsim.testing.golden`` made them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

from whetsim.formats import load as load_model
from whetsim.model import Model

__all__ = ["Golden", "load", "names"]


@dataclass(frozen=True, eq=False)
class Golden:
    """A stored network.

    Parameters
    ----------
    model : Model
    samples : integer array (n_samples, ...)
    rasters : dict
        Population to bool array ``(n_samples, n_neurons)``, in the order of their depths.
    """

    model: Model
    samples: NDArray[np.int64]
    rasters: dict[str, NDArray[np.bool_]]


def names() -> tuple[str, ...]:
    """Return the names of all stored networks."""
    found = (entry.name for entry in files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(".npz") for name in found if name.endswith(".npz")))


def load(name: str) -> Golden:
    """Return a stored network."""
    folder = files(__name__)
    with as_file(folder / f"{name}.safetensors") as path:
        model = load_model(path)
    with as_file(folder / f"{name}.npz") as path, np.load(path) as stored:
        samples = stored["samples"].astype(np.int64)
        rasters = {
            population: np.unpackbits(stored[f"raster_{i}"], axis=1, count=int(size)).astype(bool)
            for i, (population, size) in enumerate(
                zip(stored["populations"].tolist(), stored["sizes"], strict=True)
            )
        }
    return Golden(model, samples, rasters)
