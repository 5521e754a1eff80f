"""Which samples may differ between two float32 programs that compute the same network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim import layers as L
from whetsim.model import Model
from whetsim.reference import forward, forward_with_error


def near_ties(model: Model, samples: NDArray[Any], bounds: float = 1) -> NDArray[np.bool_]:
    """Return the samples in which rounding to float32 may decide whether some unit fires.

    Those are the ones with a unit within so many `bounds` of its threshold: one for the sums
    themselves, more where the weights were rounded too. A sum that is exactly the threshold is
    none of them: it is one on a coarse grid, where nothing is rounded.
    """
    near = np.zeros(len(samples), dtype=bool)
    if not len(samples):
        return near
    fired = forward(model, samples)
    steps = {name: v for name, v in fired.items() if isinstance(model[name], L.Step)}
    for name, (x, bound) in forward_with_error(model, samples, steps).items():
        margin = np.abs(x - model[name].threshold)
        near |= ((margin <= bounds * bound) & (margin > 0)).reshape(len(x), -1).any(axis=1)
    return near
