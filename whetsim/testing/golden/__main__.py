"""Make the stored networks: ``python -m whetsim.testing.golden [FOLDER]``.

Their spikes come from the integer oracle. They are stored only if the float32 forward pass of the
model, which shares nothing with the mapping, has the same ones.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from whetsim import layers as L
from whetsim.formats import save
from whetsim.mapping import map_to_spikes
from whetsim.model import InputSpec, Model
from whetsim.reference import forward
from whetsim.testing.networks import (
    all_kinds,
    conv_model,
    dense_model,
    random_samples,
    ties_and_biases,
)
from whetsim.testing.oracle import oracle_rasters

N_SAMPLES = 12


def models() -> dict[str, Model]:
    """Return the networks to store."""
    rng = np.random.default_rng(7)
    grey = dense_model(rng, high=255)
    return {
        "all_kinds": all_kinds(rng),
        "conv": conv_model(rng, size=7, width=3),
        "dense_binary": dense_model(rng),
        # With 1/256 for 1/255, float32 sums are exact and ties are ties in both.
        "dense_grey": replace(grey, input=InputSpec(grey.input.shape, 0, 255, 1 / 256)),
        "ties_and_biases": ties_and_biases(),
    }


def make(name: str, model: Model, folder: Path) -> None:
    """Write one network and its spikes to `folder`.

    Raises
    ------
    ValueError
        If the float32 model does not have the spikes of the oracle.
    """
    samples = random_samples(np.random.default_rng(8), model.input, N_SAMPLES)
    network = map_to_spikes(model)
    rasters = oracle_rasters(network, samples.reshape(N_SAMPLES, -1))
    values = forward(model, samples)
    for layer in model.layers:
        if isinstance(layer, L.Step):
            real = values[layer.name].reshape(N_SAMPLES, -1).astype(bool)
            if not np.array_equal(real, rasters[layer.name]):
                raise ValueError(f"{name}: {layer.name!r} differs from the float32 model.")
    save(model, folder / f"{name}.safetensors")
    small = np.int8 if model.input.low < 0 else np.uint8
    np.savez_compressed(
        folder / f"{name}.npz",
        samples=samples.astype(small),
        populations=np.array(list(rasters)),
        sizes=np.array([r.shape[1] for r in rasters.values()]),
        **{f"raster_{i}": np.packbits(r, axis=1) for i, r in enumerate(rasters.values())},
    )


def main() -> None:
    """Write all networks to the folder named on the command line, or to this package's."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, model in models().items():
        make(name, model, folder)


if __name__ == "__main__":
    main()
