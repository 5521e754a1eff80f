"""Steps that a tie does not pass, on simulators whose neurons a tie does pass."""

from __future__ import annotations

import numpy as np
import pytest

import whetsim
from whetsim import layers as L
from whetsim.errors import BackendNotInstalledError
from whetsim.model import INPUT, InputSpec, Model
from whetsim.testing.cases import true_spikes
from whetsim.testing.checks import check_recording


def tied_model() -> Model:
    """Return a network of two values in quarters; each neuron of `a` ties in some sample."""
    weight = np.array([[0.25, 0.5, -0.25, 0.25], [0.25, -0.25, 0.5, 0.0]], np.float32)
    back = np.array([[0.5, -0.5], [0.5, 0.25], [-0.5, 0.25], [0.0, 0.25]], np.float32)
    layers = (
        L.Dense(name="first", inputs=INPUT, weight=weight),
        L.Step(name="a", inputs="first", strict=True),
        L.Dense(name="second", inputs="a", weight=back),
        L.Step(name="b", inputs="second", threshold=0.25, strict=True),
    )
    return Model("strict", InputSpec((2,), 0, 3), layers)


SAMPLES = np.array([[i, j] for i in range(4) for j in range(4)])


def test_what_a_tie_decides() -> None:
    model = tied_model()
    recording = whetsim.run(whetsim.map_to_spikes(model), SAMPLES, record="rasters")
    x = SAMPLES @ model["first"].weight
    assert ((x == 0.5).any(axis=0)).all()
    assert np.array_equal(recording.raster("a"), x > 0.5)
    y = (x > 0.5) @ model["second"].weight
    assert (y == 0.25).any()
    assert np.array_equal(recording.raster("b"), y > 0.25)


@pytest.mark.simulator
@pytest.mark.parametrize("backend", ["brian2", "nest"])
def test_simulators_agree(backend: str) -> None:
    network = whetsim.map_to_spikes(tied_model())
    try:
        recording = whetsim.run(network, SAMPLES, backend=backend, record="rasters")
    except BackendNotInstalledError as error:
        pytest.skip(str(error))
    check_recording(true_spikes(network, SAMPLES), recording, backend)
