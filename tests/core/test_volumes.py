"""Mapping of layers over volumes, and of zeros around maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from whetsim import layers as L
from whetsim.errors import FormatError, MappingError
from whetsim.mapping import map_to_spikes
from whetsim.model import INPUT, InputSpec, Model
from whetsim.report.facts import multiply_adds
from whetsim.testing.networks import random_samples as uniform_samples

from .test_mapping import all_inputs, norm, seeds, step
from .test_random_networks import check_against_model


def volume_model(*layers: L.Layer, high: int = 3) -> Model:
    return Model("m", InputSpec((3, 4, 3, 2), 0, high, 1.0 if high == 1 else 0.25), layers)


def kernel(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.integers(-4, 5, shape) / 4).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    size=st.tuples(*[st.integers(1, 4)] * 3),
    window=st.tuples(*[st.integers(1, 3)] * 3),
    strides=st.tuples(*[st.integers(1, 3)] * 3),
    dilation=st.tuples(*[st.integers(1, 2)] * 3),
    padding=st.one_of(
        st.sampled_from(["valid", "same"]),
        st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 3),
    ),
    kind=st.sampled_from(["conv", "grouped", "max", "or"]),
)
def test_one_layer_over_volumes(
    *,
    seed: int,
    size: L.Shape,
    window: L.Shape,
    strides: L.Shape,
    dilation: L.Shape,
    padding: Any,
    kind: str,
) -> None:
    rng = np.random.default_rng(seed)
    layers: list[L.Layer] = []
    common: dict[str, Any] = {"name": "x", "strides": strides, "padding": padding}
    common["inputs"] = INPUT
    if kind == "or":
        layers.append(step("before", INPUT))
        common["inputs"] = "before"
    if kind in ("max", "or"):
        layers.append(L.MaxPool3D(pool_size=window, **common))
    else:
        groups = 2 if kind == "grouped" else 1
        weight = kernel(rng, *window, 2 // groups, 4)
        bias = kernel(rng, 4)
        layers.append(
            L.Conv3D(weight=weight, bias=bias, groups=groups, dilation=dilation, **common)
        )
    layers.append(step("s", "x", strict=bool(rng.integers(2))))
    try:
        model = Model("m", InputSpec((*size, 2), 0, 3, 0.25), tuple(layers))
    except FormatError:
        assume(False)
    check_against_model(model, uniform_samples(rng, model.input, 4))


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("high", [1, 3])
def test_means_over_volumes(counted: bool, high: int) -> None:
    # Windows of 8, 4 and 2 cells alone: their means are exact.
    pool = L.AveragePool3D(
        name="a", inputs=INPUT, strides=(1, 2, 2), padding="same", count_padding=counted
    )
    rng = np.random.default_rng(2)
    conv = L.Conv3D(name="c", inputs="a", weight=kernel(rng, 2, 1, 2, 2, 3))
    model = volume_model(pool, conv, step("s", "c", 0.25), high=high)
    check_against_model(model, uniform_samples(rng, model.input, 30))


@pytest.mark.parametrize("gamma", [(1, -1), (-1, 0)])
def test_a_pool_of_volumes_moves_behind_the_step(gamma: Any) -> None:
    rng = np.random.default_rng(3)
    model = volume_model(
        L.Conv3D(name="c", inputs=INPUT, weight=kernel(rng, 2, 2, 2, 2, 2), padding="same"),
        L.MaxPool3D(name="p", inputs="c", pool_size=(2, 2, 1), strides=1, padding="same"),
        norm("n", "p", gamma, [0.25, 0.5]),
        step("s", "n", strict=True),
    )
    names = [p.name for p in map_to_spikes(model).populations]
    assert names == ["s/before_p", "s"]
    check_against_model(model, uniform_samples(rng, model.input, 60))


def test_a_pool_of_spiking_volumes_is_one_population_with_unit_weights() -> None:
    model = volume_model(
        step("s", INPUT, 0.25), L.MaxPool3D(name="p", inputs="s", padding="same"), step("t", "p")
    )
    network = map_to_spikes(model)
    assert [p.name for p in network.populations] == ["s", "p", "t"]
    (projection,) = network.into("p")
    (block,) = projection.connectivity.synapses()
    assert (network.real_weight(projection, block.weight, block.target) == 1).all()
    assert len(block.weight) == 3 * 4 * 3 * 2
    check_against_model(model, uniform_samples(np.random.default_rng(0), model.input, 30))


def test_a_global_pool_of_a_folded_volume() -> None:
    rng = np.random.default_rng(4)
    model = volume_model(
        L.Conv3D(name="c", inputs=INPUT, weight=kernel(rng, 1, 2, 2, 2, 2)),
        L.Reshape(name="r", inputs="c", shape=(3, 6, 2)),
        L.GlobalMaxPool2D(name="g", inputs="r"),
        step("s", "g"),
    )
    check_against_model(model, uniform_samples(rng, model.input, 30))


def test_convolutions_over_volumes_that_would_be_huge_are_refused() -> None:
    conv = L.Conv3D(name="c", inputs=INPUT, weight=np.ones((64, 64, 64, 1, 1), "f4"))
    layers = (L.MaxPool3D(name="p", inputs="s", pool_size=64, strides=1), step("t", "p"))
    spec = InputSpec((100, 100, 100, 1))
    for model in (
        Model("m", spec, (conv, step("s", "c"))),
        Model("m", spec, (step("s", INPUT), *layers)),
    ):
        with pytest.raises(MappingError, match=r"would make [0-9,]+ synapses"):
            map_to_spikes(model)


def test_zeros_around_a_map() -> None:
    rng = np.random.default_rng(5)
    pad = L.ZeroPad2D(name="z", inputs="s", padding=((1, 0), (0, 2)))
    conv = L.Conv2D(name="c", inputs="z", weight=kernel(rng, 2, 3, 2, 2), bias=kernel(rng, 2))
    # Zeros around a sum with a bias are zeros, not the bias.
    again = L.ZeroPad2D(name="y", inputs="c", padding=((1, 1), (1, 1)))
    mean = L.AveragePool2D(name="a", inputs="y", strides=(1, 1))
    model = Model(
        "m",
        InputSpec((3, 4, 2), 0, 3, 0.25),
        (step("s", INPUT), pad, conv, again, mean, step("t", "a")),
    )
    check_against_model(model, uniform_samples(rng, model.input, 40))


def test_a_pool_of_zero_padded_spikes_is_still_an_or() -> None:
    layers = (
        step("s", INPUT),
        L.ZeroPad2D(name="z", inputs="s", padding=((1, 1), (1, 1))),
        L.MaxPool2D(name="p", inputs="z"),
        step("t", "p"),
    )
    model = Model("m", InputSpec((2, 2, 1)), layers)
    assert [p.name for p in map_to_spikes(model).populations] == ["s", "p", "t"]
    check_against_model(model, all_inputs(4).reshape(-1, 2, 2, 1))


def test_multiply_adds_of_maps_and_volumes() -> None:
    def ones(*shape: int) -> np.ndarray:
        return np.ones(shape, np.float32)

    layers = (
        L.Conv3D(name="volume", inputs=INPUT, weight=ones(2, 1, 3, 2, 4), groups=2),
        L.Reshape(name="fold", inputs="volume", shape=(6, 4, 4)),
        L.Conv2D(name="map", inputs="fold", weight=ones(3, 2, 4, 5), strides=2),
        L.DepthwiseConv2D(name="each", inputs="map", weight=ones(2, 1, 5, 2)),
        L.Conv2DTranspose(name="large", inputs="each", weight=ones(2, 3, 3, 10)),
        L.Flatten(name="flat", inputs="large"),
        L.Dense(name="dense", inputs="flat", weight=ones(24, 7)),
    )
    model = Model("m", InputSpec((3, 3, 6, 4)), layers)
    assert multiply_adds(model) == {
        "volume": (2 * 3 * 4) * 4 * (2 * 1 * 3) * 2,
        "map": (2 * 2) * 5 * (3 * 2) * 4,
        "each": (1 * 2) * 10 * (2 * 1),
        "large": (1 * 2) * 10 * (2 * 3) * 3,
        "dense": 24 * 7,
    }
