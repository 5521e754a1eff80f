"""Make the stored networks: ``python -m whetsim.testing.golden [FOLDER]``.

Their spikes come from the integer oracle. They are stored only if the float32 forward pass of the
model, which shares nothing with the mapping, has the same ones.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim import layers as L
from whetsim.formats import save
from whetsim.mapping import map_to_spikes
from whetsim.model import Model
from whetsim.reference import forward
from whetsim.testing.networks import (
    all_kinds,
    conv_model,
    dense_model,
    random_samples,
    ties_and_biases,
)
from whetsim.testing.oracle import oracle_rasters

N_SAMPLES = 10


def models() -> dict[str, Model]:
    """Return the networks to store."""
    rng = np.random.default_rng(32)  # with it no population is silent or fires always
    return {
        "all_kinds": all_kinds(rng),
        "conv": conv_model(rng, size=7, width=2),
        "dense_binary": dense_model(rng),
        "dense_grey": off_the_grid(rng, dense_model(rng, high=255)),
        "ties_and_biases": ties_and_biases(),
    }


def off_the_grid(rng: np.random.Generator, model: Model) -> Model:
    """Return a dense model with weights moved a little, so that no sum ties."""
    layers = tuple(
        replace(layer, weight=layer.weight + rng.normal(0, 0.1, layer.weight.shape).astype("f4"))
        if isinstance(layer, L.Dense)
        else layer
        for layer in model.layers
    )
    return replace(model, layers=layers)


def samples_of(model: Model) -> NDArray[np.int64]:
    """Return all samples of a model with a few binary inputs, else random ones."""
    spec = model.input
    if (spec.low, spec.high) == (0, 1) and spec.size <= 4:
        bits: NDArray[np.int64] = (np.arange(2**spec.size)[:, None] >> np.arange(spec.size)) & 1
        return bits.reshape(-1, *spec.shape)
    samples: NDArray[np.int64] = random_samples(np.random.default_rng(8), spec, N_SAMPLES)
    return samples


def make(name: str, model: Model, folder: Path) -> None:
    """Write one network and its spikes to `folder`.

    Raises
    ------
    ValueError
        If the float32 model does not have the spikes of the oracle.
    """
    samples = samples_of(model)
    network = map_to_spikes(model)
    rasters = oracle_rasters(network, samples.reshape(len(samples), -1))
    values = forward(model, samples)
    for layer in model.layers:
        if isinstance(layer, L.Step):
            real = values[layer.name].reshape(len(samples), -1).astype(bool)
            if not np.array_equal(real, rasters[layer.name]):
                raise ValueError(f"{name}: {layer.name!r} differs from the float32 model.")
    save(model, folder / f"{name}.safetensors")
    small = np.int8 if model.input.low < 0 else np.uint8
    arrays: dict[str, Any] = {
        "samples": samples.astype(small),
        "populations": np.array(list(rasters)),
        "sizes": np.array([raster.shape[1] for raster in rasters.values()]),
    }
    for i, raster in enumerate(rasters.values()):
        arrays[f"raster_{i}"] = np.packbits(raster, axis=1)
    np.savez_compressed(folder / f"{name}.npz", **arrays)


def main() -> None:
    """Write all networks to the folder named on the command line, or to this package's."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, model in models().items():
        make(name, model, folder)


if __name__ == "__main__":
    main()
