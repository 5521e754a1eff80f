"""Networks of three sizes with random weights, tuned so that a given share of units fires."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim import InputSpec, Model
from whetsim import layers as L
from whetsim.reference import compute

Stage = tuple[str, int, int, str] | tuple[str, int] | tuple[str]

NETWORKS: dict[str, tuple[Stage, ...]] = {
    "mlp": (("flat",), ("dense", 256), ("dense", 64), ("dense", 100)),
    "lenet": (
        *(("conv", 32, 5, "valid"), ("pool",), ("conv", 64, 5, "valid"), ("pool",)),
        *(("flat",), ("dense", 512), ("dense", 100)),
    ),
    # The original package's largest MNIST example: about 130 million multiply-adds an image.
    "vgg": (
        *(("conv", 32, 7, "same"), ("conv", 64, 7, "same"), ("pool",)),
        *(("conv", 64, 5, "same"), ("conv", 64, 5, "same"), ("pool",)),
        *(("conv", 128, 3, "same"), ("conv", 128, 3, "same")),
        *(("flat",), ("dense", 256), ("dense", 40)),
    ),
}
TUNED_ON = 16
"""Images that the biases are tuned on."""


def tuned_network(name: str, density: float, images: NDArray[np.uint8], seed: int = 0) -> Model:
    """Return a network of which a share of `density` of each weighted layer's inputs are spikes.

    Weights are normal; each channel's bias puts its quantile of the first images on the threshold.
    Where a pool follows, the spikes behind it are tuned: they are what the next layer reads.

    Parameters
    ----------
    name : str
        Of `NETWORKS`.
    density : float
        Share of units that fire, input left out.
    images : uint8 array (n, 28, 28)
    seed : int
    """
    rng = np.random.default_rng(seed)
    spec = InputSpec((28, 28, 1), 0, 255, 1 / 255)
    layers: list[L.Layer] = []
    x = images[:TUNED_ON].reshape(-1, *spec.shape) * spec.scale
    source = "input"

    def add(layer: L.Layer) -> None:
        nonlocal x, source
        layers.append(layer)
        x, source = compute(layer, [x]), layer.name

    stages = NETWORKS[name]
    for i, stage in enumerate(stages):
        common: dict[str, Any] = {"name": f"{stage[0]}_{i}", "inputs": source}
        if stage[0] == "flat":
            add(L.Flatten(**common))
        elif stage[0] == "pool":
            add(L.MaxPool2D(**common))
        else:
            pooled = i + 1 < len(stages) and stages[i + 1][0] == "pool"
            add(_weighted(stage, common, x, density, pooled, rng))
            add(L.Step(name=f"step_{i}", inputs=source))
    return Model(f"{name}_{density:g}", spec, tuple(layers))


def _weighted(
    stage: Any,
    common: dict[str, Any],
    x: NDArray[np.float64],
    density: float,
    pooled: bool,
    rng: np.random.Generator,
) -> L.Layer:
    kind, n_out, *window = stage
    kernel = (window[0], window[0], x.shape[-1]) if kind == "conv" else x.shape[-1:]
    scale = 1 / np.sqrt(np.prod(kernel) * max(float((x**2).mean()), 1e-3))
    common["weight"] = rng.normal(0, scale, (*kernel, n_out)).astype(np.float32)
    if kind == "conv":
        common["padding"] = window[1]
    cls = L.Conv2D if kind == "conv" else L.Dense
    y = compute(cls(**common), [x])
    if pooled:
        y = compute(L.MaxPool2D(name="pool", inputs="y"), [y])
    limit = np.quantile(y.reshape(-1, n_out), 1 - density, axis=0)
    return cls(**common, bias=(0.5 - limit).astype(np.float32))
