"""A convolutional network with everything in it: 200 samples, equal spikes on all backends."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import whetsim
from whetsim import layers as L
from whetsim.errors import BackendNotInstalledError
from whetsim.model import Model
from whetsim.recording import Recording
from whetsim.reference import forward
from whetsim.testing.cases import true_spikes
from whetsim.testing.checks import check_recording
from whetsim.testing.networks import conv_model, random_samples

N_SAMPLES = 200


@cache
def model() -> Model:
    return conv_model(np.random.default_rng(3), size=8, width=4)


@cache
def samples() -> np.ndarray:
    return random_samples(np.random.default_rng(4), model().input, N_SAMPLES)


@cache
def truth() -> Recording:
    return whetsim.run(whetsim.map_to_spikes(model()), samples(), record="rasters")


def test_it_has_everything_in_it() -> None:
    layers = model().layers
    kinds = {layer.kind for layer in layers}
    assert {"batch_norm", "max_pool2d", "average_pool2d", "add", "step"} <= kinds
    convolutions = [layer for layer in layers if isinstance(layer, L.Conv2D)]
    assert any(conv.strides == (2, 2) for conv in convolutions)
    assert any(conv.kernel[0] % 2 == 0 for conv in convolutions)


def test_every_neuron_population_spikes_and_rests() -> None:
    for population in truth().network.populations:
        raster = truth().raster(population.name)
        assert 0.02 < raster.mean() < 0.98, population.name


def test_the_exact_backend_equals_the_oracle_and_the_float32_model() -> None:
    few = samples()[:10]
    network = truth().network
    recording = whetsim.run(network, few, record="rasters")
    check_recording(true_spikes(network, few), recording, "exact")
    for name, values in forward(model(), samples()).items():
        if isinstance(model()[name], L.Step):
            expected = values.reshape(N_SAMPLES, -1).astype(bool)
            assert np.array_equal(truth().raster(name), expected), name


@pytest.mark.simulator
@pytest.mark.parametrize("schedule", ["pipelined", "sequential"])
@pytest.mark.parametrize("backend", ["brian2", "nest", "pynn.brian2", "pynn.nest"])
def test_all_backends_give_equal_spikes(backend: str, schedule: str) -> None:
    try:
        recording = whetsim.run(
            truth().network, samples(), backend=backend, schedule=schedule, record="rasters"
        )
    except BackendNotInstalledError as error:
        pytest.skip(str(error))
    for population in truth().network.populations:
        name = population.name
        assert np.array_equal(recording.raster(name), truth().raster(name)), name
        assert np.array_equal(recording.digests[name], truth().digests[name]), name
        assert np.array_equal(recording.spike_counts[name], truth().spike_counts[name]), name
    assert np.array_equal(recording.scores, truth().scores)
    assert np.array_equal(recording.predictions, truth().predictions)
