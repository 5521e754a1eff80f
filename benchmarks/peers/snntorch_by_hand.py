"""The same network in snnTorch: neurons without memory, every layer's step taken once a sample.

snnTorch passes a spike on to the next layer within a step, so one pass over all layers decides a
sample; its usual loop over many steps is left out, and so is all but the forward pass.
"""

from __future__ import annotations

import numpy as np
import snntorch
from peers.torch_by_hand import TorchNetwork
from torch import nn

BELOW_HALF = float(np.nextafter(np.float32(0.5), np.float32(0)))
"""snnTorch fires above its threshold, not on it."""


class SnnTorchNetwork(TorchNetwork):
    """A `TorchNetwork` whose units are leaky neurons of snnTorch that leak everything."""

    def step(self) -> nn.Module:
        """Return a layer of neurons."""
        neuron: nn.Module = snntorch.Leaky(
            beta=0.0, threshold=BELOW_HALF, reset_mechanism="none", init_hidden=True
        )
        return neuron
