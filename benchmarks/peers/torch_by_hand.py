"""A network of steps in PyTorch, float32: what one writes who knows it well and nothing of whetsim.

Layers come as plain arrays, maps as height, width, channels. A whole batch goes through at once,
in inference mode.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Floats = NDArray[np.float32]
Raster = NDArray[np.bool_]


@dataclass(frozen=True)
class Stage:
    """One layer: ``conv``, ``dense``, ``step``, ``pool`` (maxima of 2 x 2) or ``flat``.

    Parameters
    ----------
    kind : str
    weight : float32 array (height, width, channels, n) or (n_inputs, n), optional
    bias : float32 array (n,), optional
    same : bool
        Whether a convolution pads its input to keep the size.
    """

    kind: str
    weight: Floats | None = None
    bias: Floats | None = None
    same: bool = False


class Step(nn.Module):
    """1 where the value is at least 0.5, else 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the spikes."""
        return (x >= 0.5).float()


class Flatten(nn.Module):
    """Maps as rows, channels fastest; with channels last no number moves."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rows."""
        return x.permute(0, 2, 3, 1).flatten(1)


class TorchNetwork:
    """The network, ready to run batches.

    Parameters
    ----------
    stages : iterable of Stage
    scale : float
        What inputs are multiplied by.
    threads : int
    channels_last : bool
        How maps lie in memory.
    """

    def __init__(
        self, stages: Iterable[Stage], scale: float, threads: int, channels_last: bool
    ) -> None:
        self._threads = threads
        self._scale = scale
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        modules = [self._module(stage) for stage in stages]
        self._network = nn.Sequential(*modules).eval().to(memory_format=self._format)

    def _module(self, stage: Stage) -> nn.Module:
        if stage.weight is None or stage.bias is None:
            return {"step": self.step, "pool": lambda: nn.MaxPool2d(2), "flat": Flatten}[
                stage.kind
            ]()
        *window, n_in, n_out = stage.weight.shape
        module: Any
        if stage.kind == "conv":
            padding = window[0] // 2 if stage.same else 0
            module = nn.Conv2d(n_in, n_out, tuple(window), padding=padding)
            weight = stage.weight.transpose(3, 2, 0, 1)
        else:
            module = nn.Linear(n_in, n_out)
            weight = stage.weight.T
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
            module.bias.copy_(torch.from_numpy(stage.bias.copy()))
        return module

    def step(self) -> nn.Module:
        """Return a layer of units that fire."""
        return Step()

    def _input(self, x: Floats) -> torch.Tensor:
        maps = torch.from_numpy(x).permute(0, 3, 1, 2) * self._scale
        return maps.contiguous(memory_format=self._format)

    def __call__(self, x: Floats) -> Raster:
        """Return the output spikes ``(n, n_outputs)`` of a batch ``(n, height, width, channels)``.

        float32 in, so that no conversion is timed.
        """
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            spikes: Raster = self._network(self._input(x)).numpy() != 0
        return spikes

    def rasters(self, x: Floats) -> list[Raster]:
        """Return the spikes of every step, each ``(n, n_units)`` with channels fastest."""
        result = []
        with torch.inference_mode():
            y = self._input(x)
            for module in self._network:
                y = module(y)
                if isinstance(module, type(self.step())):
                    maps = y.permute(0, 2, 3, 1) if y.ndim == 4 else y
                    result.append(maps.reshape(len(x), -1).numpy() != 0)
        return result
