"""NeuroBench's own package counts the same operations for the same network and samples."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import whetsim
from whetsim_hardware.operations import count_operations

pytest.importorskip("neurobench", reason="needs the package neurobench")
pytest.importorskip("onnx", reason="needs the package onnx, which reads torch modules")
torch = pytest.importorskip("torch", reason="needs the package torch")

from neurobench.benchmarks import Benchmark  # type: ignore[import-not-found]  # noqa: E402
from neurobench.metrics.static import (  # type: ignore[import-not-found]  # noqa: E402
    ConnectionSparsity,
    Footprint,
)
from neurobench.metrics.workload import (  # type: ignore[import-not-found]  # noqa: E402
    ActivationSparsity,
    SynapticOperations,
)
from neurobench.models import TorchModel  # type: ignore[import-not-found]  # noqa: E402
from torch import nn  # noqa: E402


class Spike(nn.Module):  # type: ignore[misc]
    """Fires where its input is at least 0.5."""

    def forward(self, x: Any) -> Any:
        return (x >= 0.5).to(x.dtype)


def dense() -> Any:
    widths = (36, 20, 11, 6)
    layers = [
        module for n_in, n_out in pairwise(widths) for module in (nn.Linear(n_in, n_out), Spike())
    ]
    return nn.Sequential(nn.Flatten(), *layers)


def convolutional() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.MaxPool2d(2),
        Spike(),
        nn.Conv2d(4, 6, 2, stride=1, bias=False),
        Spike(),
        nn.Flatten(),
        nn.Linear(24, 5),
        Spike(),
    )


def coarse(module: Any, pruned: float) -> Any:
    """Put weights on a coarse grid, so that no rounding decides, and some of them to 0."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randint(-40, 41, weight.shape, generator=generator) / 64)
            if weight.dim() > 1:
                weight[torch.rand(weight.shape, generator=generator) < pruned] = 0
    return module.eval()


@pytest.mark.parametrize("pruned", [0.0, 0.6])
@pytest.mark.parametrize("largest", [1, 8])
@pytest.mark.parametrize("make", [dense, convolutional])
def test_the_same_counts(make: Any, largest: int, pruned: float) -> None:
    module = coarse(make(), pruned)
    rng = np.random.default_rng(3)
    samples = rng.integers(0, largest + 1, (60, 1, 6, 6)) * (rng.random((60, 1, 6, 6)) < 0.5)
    scale = 1 / largest

    model = whetsim.from_torch(module, torch.zeros(1, 1, 6, 6), input_scale=scale)
    recording = whetsim.run(whetsim.map_to_spikes(model), samples)
    ours = count_operations(recording).neurobench()

    wrapped = TorchModel(module)
    wrapped.add_activation_module(Spike)
    x = torch.tensor(samples, dtype=torch.float32) * scale
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, torch.zeros(len(x))), batch_size=60
    )
    metrics = [[Footprint, ConnectionSparsity], [ActivationSparsity, SynapticOperations]]
    theirs = Benchmark(wrapped, loader, [], [], metrics).run(quiet=True)

    assert ours["SynapticOperations"] == pytest.approx(theirs["SynapticOperations"], rel=1e-12)
    assert ours["Footprint"] == theirs["Footprint"]
    # NeuroBench rounds this one to four decimals.
    assert round(ours["ConnectionSparsity"], 4) == theirs["ConnectionSparsity"]
    if make is dense:
        assert ours["ActivationSparsity"] == pytest.approx(theirs["ActivationSparsity"], rel=1e-12)
    assert ours["SynapticOperations"]["Effective_ACs"] > 0
    assert (ours["SynapticOperations"]["Effective_MACs"] > 0) == (largest > 1)
