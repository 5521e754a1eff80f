"""Random networks: the exact backend, the slow oracle and the float32 model give equal spikes."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import whetsim
from whetsim import layers as L
from whetsim.coding import encode_network, encode_samples, to_integers
from whetsim.errors import FormatError
from whetsim.mapping import map_to_spikes
from whetsim.model import InputSpec, Model
from whetsim.reference import forward
from whetsim.runner import run
from whetsim.testing.networks import all_kinds, conv_model, dense_model
from whetsim.testing.networks import random_samples as uniform_samples
from whetsim.testing.oracle import oracle_rasters, oracle_spikes

from .random_models import models, random_model, random_samples

seeds = st.integers(0, 2**32 - 1)


def check_against_model(model: Model, samples: np.ndarray) -> None:
    """Check that every step of `model` fires as in its float32 forward pass."""
    recording = run(map_to_spikes(model), samples, record="rasters")
    values = forward(model, samples)
    for layer in model.layers:
        if isinstance(layer, L.Step):
            raster = recording.raster(layer.name)
            assert np.array_equal(raster, values[layer.name].reshape(raster.shape)), layer.name


@settings(max_examples=150, deadline=None)
@given(models(), seeds)
def test_exact_equals_model_where_float32_is_exact(model: Model, seed: int) -> None:
    check_against_model(model, random_samples(Random(seed), model.input, 5))


sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))
kernels = st.tuples(st.integers(1, 5), st.integers(1, 5))
threes = st.tuples(st.integers(1, 3), st.integers(1, 3))
sides = st.tuples(st.integers(0, 2), st.integers(0, 2))


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from([L.Conv2D, L.DepthwiseConv2D, L.Conv2DTranspose, L.MaxPool2D]),
    seed=seeds,
    size=sizes,
    kernel=kernels,
    strides=threes,
    dilation=threes,
    padding=st.one_of(st.sampled_from(["valid", "same"]), st.tuples(sides, sides)),
    extra=sides,
)
def test_one_layer_of_any_geometry(
    *,
    kind: type[L.Layer],
    seed: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
    padding: Any,
    extra: tuple[int, int],
) -> None:
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {"strides": strides, "padding": padding}
    if kind is L.MaxPool2D:
        values["pool_size"] = kernel
    else:
        values["dilation"] = dilation
        values["weight"] = (rng.integers(-4, 5, (*kernel, 2, 2)) / 4).astype(np.float32)
        n_out = 4 if kind is L.DepthwiseConv2D else 2
        values["bias"] = (rng.integers(-2, 5, n_out) / 4).astype(np.float32)
    if kind is L.Conv2DTranspose and not isinstance(padding, str):
        values["output_padding"] = extra
    try:
        layers = (kind(name="x", inputs="input", **values), L.Step(name="s", inputs="x"))
        model = Model("m", InputSpec((*size, 2), 0, 3, 0.25), layers)
    except FormatError:
        assume(False)
    check_against_model(model, random_samples(Random(seed), model.input, 4))


@settings(max_examples=40, deadline=None)
@given(models(), seeds, st.sampled_from(["graded", "bitplane", "binary"]))
def test_exact_equals_oracle(model: Model, seed: int, encoding: str) -> None:
    network = map_to_spikes(model)
    samples = random_samples(Random(seed), model.input, 2)
    recording = run(network, samples, record="rasters", encoding=encoding)
    encoded = encode_network(network, encoding)
    values = encode_samples(to_integers(samples, encoded.input), encoded.input)
    for name, raster in oracle_rasters(encoded, values).items():
        assert np.array_equal(recording.raster(name), raster), name


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [dense_model, conv_model, all_kinds])
def test_shipped_networks_equal_the_oracle(make: object, seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = map_to_spikes(make(rng))
    samples = uniform_samples(rng, network.input.samples, 3)
    recording = run(network, samples, record="rasters")
    values = encode_samples(to_integers(samples, network.input), network.input)
    rasters = oracle_rasters(network, values)
    assert set(rasters) == {p.name for p in network.populations}
    for name, raster in rasters.items():
        assert np.array_equal(recording.raster(name), raster), name
    assert sum(int(r.sum()) for r in rasters.values()) > 0


@pytest.mark.parametrize("seed", range(5))
def test_each_population_fires_in_the_step_of_its_depth(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = map_to_spikes(all_kinds(rng))
    samples = uniform_samples(rng, network.input.samples, 2)
    values = encode_samples(to_integers(samples, network.input), network.input)
    for name, spikes in oracle_spikes(network, values).items():
        assert {step for _, step, _ in spikes} <= {network[name].depth}


def test_random_models_hold_every_kind_that_can_be_mapped() -> None:
    kinds = {layer.kind for i in range(400) for layer in random_model(Random(i)).layers}
    assert set(L.KINDS) - kinds == {"activation"}


def test_ties_are_frequent_in_random_models() -> None:
    tied = decided = 0
    for i in range(60):
        model = random_model(Random(i))
        values = forward(model, random_samples(Random(i), model.input, 4))
        for layer in model.layers:
            if isinstance(layer, L.Step) and layer.inputs[0] in values:
                x = values[layer.inputs[0]]
                tied += int((x == np.float32(layer.threshold)).sum())
                decided += x.size
    assert tied > 0.02 * decided


@settings(max_examples=30, deadline=None)
@given(models(), seeds)
def test_samples_do_not_depend_on_their_neighbours(model: Model, seed: int) -> None:
    network = map_to_spikes(model)
    samples = random_samples(Random(seed), model.input, 4)
    together = whetsim.run(network, samples)
    for i in range(4):
        alone = whetsim.run(network, samples[i : i + 1])
        for name, digest in together.digests.items():
            assert alone.digests[name][0] == digest[i]


@settings(max_examples=30, deadline=None)
@given(models())
def test_mapping_is_reproducible(model: Model) -> None:
    assert map_to_spikes(model).fingerprint == map_to_spikes(model).fingerprint
