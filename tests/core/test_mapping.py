"""Mapping: the grid, depths, folding, thresholds, pools, and what it refuses."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetsim import layers as L
from whetsim.connectivity import Convolution, Dense
from whetsim.errors import MappingError
from whetsim.grid import choose_exponents, to_grid
from whetsim.mapping import map_to_spikes
from whetsim.model import INPUT, InputSpec, Model, Readout
from whetsim.network import InputPopulation, Population, Projection, SpikingNetwork
from whetsim.reference import forward
from whetsim.runner import run
from whetsim.testing.networks import all_kinds, conv_model, dense_model, ties_and_biases
from whetsim.testing.networks import random_samples as uniform_samples

from .test_random_networks import check_against_model

seeds = st.integers(0, 2**32 - 1)


def f4(*values: Any) -> np.ndarray:
    return np.array(values, np.float32)


def step(name: str, source: str, threshold: float = 0.5, strict: bool = False) -> L.Step:
    return L.Step(name=name, inputs=source, threshold=threshold, strict=strict)


def dense(name: str, source: str, weight: Any, bias: Any = None) -> L.Dense:
    return L.Dense(name=name, inputs=source, weight=f4(*weight), bias=bias)


def norm(name: str, source: str, gamma: Any, beta: Any = None) -> L.BatchNorm:
    """Return a batch norm with mean 0 and variance 1."""
    n = len(gamma)
    return L.BatchNorm(
        name=name,
        inputs=source,
        mean=np.zeros(n, np.float32),
        variance=np.ones(n, np.float32),
        gamma=f4(*gamma),
        beta=None if beta is None else f4(*beta),
        epsilon=0.0,
    )


def spikes_of(model: Model, samples: Any, name: str | None = None) -> list[list[int]]:
    """Return the spikes of the output (or `name`), after a check against the model."""
    check_against_model(model, np.asarray(samples))
    recording = run(map_to_spikes(model), samples, record="rasters")
    return recording.raster(name or recording.network.output).astype(int).tolist()


def all_inputs(n: int) -> np.ndarray:
    """Return all binary samples of n values."""
    return (np.arange(2**n)[:, None] >> np.arange(n)) & 1


# --- ties, biases, thresholds -------------------------------------------------------------------


def test_ties_fire_and_large_biases_fire_without_input() -> None:
    model = ties_and_biases()
    first = spikes_of(model, all_inputs(4), "a")
    silent = first[0]
    assert silent == [0, 1, 1, 0, 0, 0]
    check_against_model(model, all_inputs(4))


@pytest.mark.parametrize("threshold", [0.5, 0.0, -0.25, 0.125, 1.0, 3.0])
def test_other_thresholds_move_into_the_bias(threshold: float) -> None:
    # Sums in quarters around the threshold: below it, a tie, above it.
    weight = [[threshold - 0.25, threshold, threshold + 0.25]]
    layers = (dense("d", INPUT, weight), step("s", "d", threshold))
    model = Model("m", InputSpec((1,)), layers)
    assert spikes_of(model, [[1]]) == [[0, 1, 1]]
    fires_at_zero = int(threshold <= 0)
    assert spikes_of(model, [[0]]) == [[fires_at_zero] * 3]
    network = map_to_spikes(model)
    assert np.array_equal(network["s"].real_bias, np.full(3, 0.5 - threshold))


@pytest.mark.parametrize("bias", [0.5, 0.75, 4.0])
def test_biases_of_half_and_more(bias: float) -> None:
    layers = (dense("d", INPUT, [[-0.25], [-4]], f4(bias)), step("s", "d"))
    model = Model("m", InputSpec((2,)), layers)
    assert spikes_of(model, [[0, 0]]) == [[1]]
    assert spikes_of(model, [[1, 0]]) == [[int(bias >= 0.75)]]
    assert spikes_of(model, [[0, 1]]) == [[0]]


def test_a_step_on_the_input_itself() -> None:
    model = Model("m", InputSpec((2, 2), 0, 255, 1 / 255), (step("s", INPUT, 0.25),))
    assert spikes_of(model, [[[63, 64], [0, 255]]]) == [[0, 1, 0, 1]]


def test_two_steps_in_a_row() -> None:
    model = Model("m", InputSpec((3,)), (step("a", INPUT), step("b", "a", 1.0)))
    network = map_to_spikes(model)
    assert [(p.name, p.depth) for p in network.populations] == [("a", 1), ("b", 2)]
    assert spikes_of(model, [[1, 0, 1]]) == [[1, 0, 1]]


def test_a_neuron_without_synapses_follows_its_bias() -> None:
    weight = np.zeros((2, 3), np.float32)
    layers = (dense("d", INPUT, weight, f4(0.5, 0.25, -1)), step("s", "d"))
    model = Model("m", InputSpec((2,)), layers)
    assert map_to_spikes(model).n_synapses == 0
    assert spikes_of(model, [[1, 1], [0, 0]]) == [[1, 0, 0]] * 2


# --- depths and delays --------------------------------------------------------------------------


def chain(n: int) -> list[L.Layer]:
    """Return n pairs of a dense layer and a step, two units each."""
    layers: list[L.Layer] = []
    for i in range(n):
        source = f"s{i - 1}" if i else INPUT
        layers += [dense(f"d{i}", source, [[1, 0.25], [0.25, -1]]), step(f"s{i}", f"d{i}")]
    return layers


def delays(network: SpikingNetwork) -> set[tuple[str, str, int]]:
    return {(p.source, p.target, p.delay) for p in network.projections}


def test_skip_connections_get_the_delay_of_the_long_way() -> None:
    layers = chain(3)
    layers.append(L.Add(name="sum", inputs=("d2", "s0", INPUT)))
    layers.append(step("out", "sum"))
    model = Model("m", InputSpec((2,)), tuple(x for x in layers if x.name != "s2"))
    network = map_to_spikes(model)
    assert [(p.name, p.depth) for p in network.populations] == [("s0", 1), ("s1", 2), ("out", 3)]
    assert delays(network) == {
        (INPUT, "s0", 1),
        ("s0", "s1", 1),
        ("s1", "out", 1),
        ("s0", "out", 2),
        (INPUT, "out", 3),
    }
    assert network.depth == 3
    check_against_model(model, all_inputs(2))


def test_concat_of_different_depths() -> None:
    layers = chain(2)
    layers.append(L.Concat(name="both", inputs=("s1", INPUT, "s0")))
    layers += [dense("d", "both", np.full((6, 1), 0.25)), step("out", "d")]
    model = Model("m", InputSpec((2,)), tuple(layers))
    network = map_to_spikes(model)
    assert {d for d in delays(network) if d[1] == "out"} == {
        ("s1", "out", 1),
        (INPUT, "out", 3),
        ("s0", "out", 2),
    }
    check_against_model(model, all_inputs(2))


def test_a_sum_of_spikes_before_a_layer_is_several_projections() -> None:
    layers = chain(2)
    layers.append(L.Add(name="sum", inputs=("s0", "s1", "s1")))
    layers += [dense("d", "sum", [[0.25, 0.5], [0.25, -0.25]]), step("out", "d")]
    model = Model("m", InputSpec((2,)), tuple(layers))
    network = map_to_spikes(model)
    assert sorted(p.source for p in network.into("out")) == ["s0", "s1", "s1"]
    check_against_model(model, all_inputs(2))


def test_populations_are_named_after_the_steps_and_ordered_by_depth() -> None:
    network = map_to_spikes(conv_model(np.random.default_rng(0)))
    names = [p.name for p in network.populations]
    assert names == ["a/before_pool_a", "a", "b", "c", "pool_c", "d", "out"]
    depths = [p.depth for p in network.populations]
    assert depths == sorted(depths) == [1, 2, 3, 4, 5, 6, 7]
    assert all(
        p.delay == network[p.target].depth - (0 if p.source == INPUT else network[p.source].depth)
        for p in network.projections
    )


# --- folding ------------------------------------------------------------------------------------


def test_affine_layers_in_a_row_become_one_projection() -> None:
    layers = (
        dense("a", INPUT, [[1, 0.5, 0], [0, -1, 2]], f4(0.25, 0, -0.5)),
        norm("n", "a", [2, -1, 0.5], [0.25, 0.5, 0]),
        dense("b", "n", [[0.25, 1], [1, -0.5], [0.5, 0.25]]),
        step("s", "b"),
    )
    model = Model("m", InputSpec((2,), 0, 3, 0.25), layers)
    network = map_to_spikes(model)
    assert [p.name for p in network.populations] == ["s"]
    (projection,) = network.projections
    assert isinstance(projection.connectivity, Dense)
    samples = np.array([[i, j] for i in range(4) for j in range(4)])
    check_against_model(model, samples)


def test_convolutions_stay_convolutions() -> None:
    network = map_to_spikes(conv_model(np.random.default_rng(0)))
    kinds = {p.target: type(p.connectivity) for p in network.projections}
    for name in ("a/before_pool_a", "a", "b", "pool_c", "d"):
        assert kinds[name] is Convolution, name


def test_a_shift_of_each_unit_leaves_a_convolution_a_convolution() -> None:
    weight = (np.random.default_rng(1).integers(-4, 5, (2, 2, 2, 3)) / 4).astype(np.float32)
    shift = np.arange(27) / 8 - 2
    layers = (
        L.Conv2D(name="c", inputs=INPUT, weight=weight),
        L.Flatten(name="f", inputs="c"),
        norm("n", "f", [1] * 27, shift),
        L.Reshape(name="r", inputs="n", shape=(3, 3, 3)),
        step("s", "r"),
    )
    model = Model("m", InputSpec((4, 4, 2), 0, 3), layers)
    (projection,) = map_to_spikes(model).projections
    assert isinstance(projection.connectivity, Convolution)
    check_against_model(model, uniform_samples(np.random.default_rng(2), model.input, 30))


def test_weights_on_the_grid_are_the_folded_real_weights() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(5, 4)).astype(np.float32)
    layers = (
        L.Dense(name="d", inputs=INPUT, weight=weight),
        L.BatchNorm(
            name="n",
            inputs="d",
            mean=rng.normal(size=4).astype(np.float32),
            variance=rng.uniform(0.1, 2, 4).astype(np.float32),
            gamma=rng.normal(size=4).astype(np.float32),
            beta=rng.normal(size=4).astype(np.float32),
            epsilon=1e-5,
        ),
        step("s", "n", 0.25),
    )
    network = map_to_spikes(Model("m", InputSpec((5,), 0, 255, 1 / 255), layers))
    scale, shift = layers[1].scale_and_shift()
    real = weight.astype(np.float64) / 255 * scale
    (projection,) = network.projections
    (block,) = projection.connectivity.synapses()
    found = np.zeros((5, 4))
    found[block.source, block.target] = network.real_weight(projection, block.weight, block.target)
    half = network["s"].half_grid_step
    assert (np.abs(found - real) <= half * (1 + 1e-6)).all()
    assert (np.abs(network["s"].real_bias - (shift + 0.25)) <= half * (1 + 1e-6)).all()


# --- max pools ----------------------------------------------------------------------------------


def pooled_model(*after: L.Layer, gamma: Any = (1, -1), **pool: Any) -> Model:
    """Return convolution, max pool, batch norm with these scales, step."""
    rng = np.random.default_rng(3)
    weight = (rng.integers(-4, 5, (2, 2, 1, len(gamma))) / 4).astype(np.float32)
    layers: list[L.Layer] = [
        L.Conv2D(name="c", inputs=INPUT, weight=weight, padding="same"),
        L.MaxPool2D(name="p", inputs="c", **pool),
        norm("n", "p", gamma, [0.25] * len(gamma)),
    ]
    layers += after or (step("s", "n"),)
    return Model("m", InputSpec((5, 4, 1), 0, 3, 0.25), tuple(layers))


@pytest.mark.parametrize("gamma", [(1, 1), (-1, -1), (1, -1), (0, -2), (-0.5, 0)])
@pytest.mark.parametrize(
    "pool",
    [{}, {"pool_size": (3, 2), "strides": (1, 2), "padding": "same"}, {"pool_size": (5, 4)}],
    ids=["plain", "same", "whole"],
)
def test_a_pool_before_a_step_moves_behind_it(gamma: Any, pool: dict[str, Any]) -> None:
    model = pooled_model(gamma=gamma, **pool)
    samples = uniform_samples(np.random.default_rng(4), model.input, 60)
    names = [p.name for p in map_to_spikes(model).populations]
    assert names == ["s/before_p", "s"]
    check_against_model(model, samples)


def test_a_global_pool_before_a_step_moves_behind_it() -> None:
    model = pooled_model(
        L.GlobalMaxPool2D(name="g", inputs="n"), norm("n2", "g", [-1, -1]), step("s", "n2", 0.0)
    )
    samples = uniform_samples(np.random.default_rng(4), model.input, 60)
    names = [p.name for p in map_to_spikes(model).populations]
    assert names == ["s/before_p", "s/after_p", "s"]
    check_against_model(model, samples)


def test_a_flattened_pool_moves_behind_the_step() -> None:
    model = pooled_model(L.Flatten(name="f", inputs="n"), step("s", "f"))
    check_against_model(model, uniform_samples(np.random.default_rng(5), model.input, 60))
    assert map_to_spikes(model)["s"].shape == (2 * 2 * 2,)


@pytest.mark.parametrize("second", ["pool", "global"])
@pytest.mark.parametrize("gamma", [(1, 1), (-1, 1)])
def test_a_reshape_between_two_pools(second: str, gamma: Any) -> None:
    last: L.Layer = L.GlobalMaxPool2D(name="q", inputs="r")
    if second == "pool":
        last = L.MaxPool2D(name="q", inputs="r", pool_size=(2, 1))
    model = pooled_model(
        L.Reshape(name="r", inputs="n", shape=(4, 2, 2)),
        last,
        norm("n2", "q", [1, -1]),
        step("s", "n2"),
        gamma=gamma,
        pool_size=(2, 1),
    )
    check_against_model(model, uniform_samples(np.random.default_rng(6), model.input, 60))


def test_a_pool_of_spikes_is_one_population_with_unit_weights() -> None:
    layers = (step("s", INPUT), L.MaxPool2D(name="p", inputs="s"), step("t", "p"))
    model = Model("m", InputSpec((4, 4, 2)), layers)
    network = map_to_spikes(model)
    assert [p.name for p in network.populations] == ["s", "p", "t"]
    (projection,) = network.into("p")
    for block in projection.connectivity.synapses():
        assert (network.real_weight(projection, block.weight, block.target) == 1).all()
    assert not network["p"].bias.any()
    check_against_model(model, uniform_samples(np.random.default_rng(0), model.input, 50, 0.2))


def test_a_pool_of_binary_input() -> None:
    layers = (L.MaxPool2D(name="p", inputs=INPUT),)
    model = Model("m", InputSpec((2, 2, 1)), layers)
    recording = run(map_to_spikes(model), all_inputs(4), record="rasters")
    assert recording.raster("p").ravel().tolist() == [False] + [True] * 15


def test_a_pool_of_joined_spikes() -> None:
    layers = (
        step("s", INPUT),
        L.Concat(name="both", inputs=("s", INPUT)),
        L.MaxPool2D(name="p", inputs="both"),
        step("t", "p"),
    )
    model = Model("m", InputSpec((2, 2, 1)), layers)
    check_against_model(model, all_inputs(4).reshape(-1, 2, 2, 1))


# --- samples ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [dense_model, conv_model, all_kinds, lambda rng: ties_and_biases()]
)
@pytest.mark.parametrize("n", [0, 1])
def test_no_sample_and_one_sample(make: Any, n: int) -> None:
    model = make(np.random.default_rng(0))
    samples = uniform_samples(np.random.default_rng(1), model.input, n)
    recording = run(map_to_spikes(model), samples, record="rasters")
    assert recording.n_samples == n
    for population in recording.network.populations:
        assert recording.raster(population.name).shape == (n, population.size)
        assert recording.spike_counts[population.name].shape == (n,)
    check_against_model(model, samples)


@pytest.mark.parametrize("make", [dense_model, all_kinds])
def test_no_input_spikes_at_all(make: Any) -> None:
    model = make(np.random.default_rng(7))
    samples = np.zeros((3, *model.input.shape), np.int64)
    recording = run(map_to_spikes(model), samples)
    assert recording.spike_counts[INPUT].tolist() == [0, 0, 0]
    check_against_model(model, samples)


@pytest.mark.parametrize(
    ("low", "high"), [(-8, 7), (-8, -1), (-3, 12), (5, 9), (-1, 1), (-(2**24), 2**24)]
)
def test_ranges_below_zero_and_off_zero(low: int, high: int) -> None:
    rng = np.random.default_rng(0)
    scale = 2.0**-3 if high < 100 else 2.0**-22
    weight = (rng.integers(-4, 5, (6, 5)) / 4).astype(np.float32)
    layers = (L.Dense(name="d", inputs=INPUT, weight=weight), step("s", "d"))
    model = Model("m", InputSpec((6,), low, high, scale), layers)
    samples = rng.integers(low, high + 1, (200, 6))
    samples[0], samples[1] = low, high
    network = map_to_spikes(model)
    sums = samples * scale @ weight.astype(np.float64)
    for encoding in ("graded", "bitplane") if high < 100 else ("graded",):
        recording = run(network, samples, record="rasters", encoding=encoding)
        assert np.array_equal(recording.raster("s"), sums >= 0.5), encoding


@pytest.mark.parametrize(("low", "high"), [(0, 128), (0, 255), (-128, 127)])
def test_bitplanes_of_sums_of_53_bits(low: int, high: int) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 3)) * 5000
    layers = (L.Dense(name="d", inputs=INPUT, weight=weight), step("s", "d"))
    network = map_to_spikes(Model("m", InputSpec((4,), low, high), layers))
    assert network.sum_bits == 53
    samples = rng.integers(low, high + 1, (100, 4))
    graded = run(network, samples, record="rasters")
    planes = run(network, samples, record="rasters", encoding="bitplane")
    assert np.array_equal(graded.raster("s"), planes.raster("s"))


# --- the grid -----------------------------------------------------------------------------------


def total(real: list[float], bias: float, k: int, largest: int) -> int:
    """Return the largest possible sum on the grid with exponent k, in exact arithmetic."""
    return sum(abs(round(Fraction(w) * 2**k)) for w in real) * largest + abs(
        round(Fraction(bias) * 2**k)
    )


def best_exponent(real: list[float], bias: float, largest: int) -> int:
    """Return the exponent by the rule of the contract, by trying."""
    needed = 22 + (largest - 1).bit_length()
    for bits in (31, 38, 53):
        k = max(k for k in range(-60, bits + 1) if total(real, bias, k, largest) < 2**bits)
        if k >= needed:
            break
    return k


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    n=st.integers(1, 6),
    high=st.sampled_from([1, 2, 16, 255]),
    power=st.integers(-6, 8),
    coarse=st.booleans(),
)
def test_k_is_the_largest_that_fits(
    *, seed: int, n: int, high: int, power: int, coarse: bool
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(n, 4)) * 2.0**power
    bias = rng.normal(size=4)
    if coarse:
        weight, bias = np.round(weight * 4) / 4, np.round(bias * 4) / 4
    layers = (L.Dense(name="d", inputs=INPUT, weight=weight, bias=bias), step("s", "d"))
    network = map_to_spikes(Model("m", InputSpec((n,), 0, high, 1.0), layers))
    expected = [best_exponent(weight[:, i].tolist(), bias[i], high) for i in range(4)]
    assert network["s"].exponent.tolist() == expected
    assert network.sum_bits <= 53
    largest = network.largest_sums["s"]
    for i, k in enumerate(expected):
        assert largest[i] == total(weight[:, i].tolist(), bias[i], k, high)


def test_a_sum_that_fits_only_once_rounded() -> None:
    # The real sum needs 2^31 - 3/4 grid steps, the rounded weight 2^31 - 1.
    weight = np.array([[1 - 0.75 * 2.0**-31]])
    layers = (L.Dense(name="d", inputs=INPUT, weight=weight), step("s", "d"))
    network = map_to_spikes(Model("m", InputSpec((1,)), layers))
    assert network["s"].exponent.tolist() == [31]
    assert network.largest_sums["s"].tolist() == [2**31 - 1]


@pytest.mark.parametrize("make", [dense_model, conv_model, all_kinds])
def test_exponents_leave_the_precision_that_the_contract_names(make: Any) -> None:
    network = map_to_spikes(make(np.random.default_rng(0)))
    for population in network.populations:
        sources = {p.source for p in network.into(population.name)}
        largest = network.input.largest if INPUT in sources else 1
        assert population.exponent.min() >= 22 + (largest - 1).bit_length()


def test_exponents_are_shared_along_channels() -> None:
    network = map_to_spikes(conv_model(np.random.default_rng(0)))
    for name in ("a/before_pool_a", "b", "d"):
        population = network[name]
        by_channel = population.exponent.reshape(-1, population.shape[-1])
        assert (by_channel == by_channel[0]).all()


def test_choose_exponents_at_powers_of_two() -> None:
    sums = np.array([0.0, 0.25, 1.0, 255.9, 256.0, 511.0, 600.0, 1.5 * 2.0**40])
    exponent, bits = choose_exponents(sums, 1)
    assert bits.tolist() == [31, 31, 31, 31, 31, 31, 38, 53]
    assert exponent.tolist() == [31, 31, 30, 23, 22, 22, 28, 12]
    _, bits = choose_exponents(np.array([1.0, 1.9, 2.0, 200.0, 1000.0]), 255)
    assert bits.tolist() == [31, 31, 38, 38, 53]


def test_to_grid_rounds_half_to_even_and_refuses_what_is_too_large() -> None:
    values = np.array([0.25, 0.75, 1.25, -0.25, -0.75])
    assert to_grid(values, np.array([1])).tolist() == [0, 2, 2, 0, -2]
    assert to_grid(np.array([[0.5, 0.5]]), np.array([1, 4])).tolist() == [[1, 8]]
    with pytest.raises(MappingError, match="too large for the grid"):
        to_grid(np.array([1.0]), np.array([62]))


def test_float32_weights_are_on_the_grid_without_loss_if_they_fit() -> None:
    model = dense_model(np.random.default_rng(0))
    network = map_to_spikes(model)
    (projection,) = network.into("step_0")
    real = np.zeros((12, 10))
    for block in projection.connectivity.synapses():
        real[block.source, block.target] = network.real_weight(
            projection, block.weight, block.target
        )
    assert np.array_equal(real, model["dense_0"].weight)
    assert np.array_equal(network["step_0"].real_bias, model["dense_0"].bias)


# --- refusals -----------------------------------------------------------------------------------


MAP = InputSpec((4, 4, 2), 0, 3)
CONV = L.Conv2D(name="conv", inputs="pool", weight=np.ones((2, 2, 2, 1), np.float32))
POOL = L.MaxPool2D(name="pool", inputs=INPUT)
REFUSED: dict[str, tuple[InputSpec, tuple[L.Layer, ...], str]] = {
    "relu": (
        InputSpec((2,)),
        (L.Activation(name="act", inputs=INPUT, function="relu"), step("s", "act")),
        "layer 'act': relu is not a step.* Sharpen the activation to a step and export again",
    ),
    "unsharpened": (
        InputSpec((2,)),
        (
            L.Activation(name="act", inputs=INPUT, function="bounded_relu", sharpness=0.75),
            step("s", "act"),
        ),
        "layer 'act': bounded_relu with sharpness 0.75 is not a step",
    ),
    "sigmoid at the end": (
        InputSpec((2,)),
        (L.Activation(name="act", inputs=INPUT, function="sigmoid"),),
        "layer 'act': sigmoid is not a step",
    ),
    "pool before a convolution": (
        MAP,
        (POOL, CONV, step("s", "conv")),
        "layer 'pool': a max pool on values that are no spikes, with conv2d 'conv' behind it."
        ".*Put a step before the pool",
    ),
    "pool before an add": (
        MAP,
        (POOL, L.Add(name="add", inputs=("pool", "pool")), step("s", "add")),
        "layer 'pool': a max pool .* with add 'add' behind it",
    ),
    "pool before a concat": (
        MAP,
        (POOL, L.Concat(name="join", inputs=("pool", "pool")), step("s", "join")),
        "layer 'pool': a max pool .* with concat 'join' behind it",
    ),
    "pool before an average": (
        MAP,
        (POOL, L.GlobalAveragePool2D(name="mean", inputs="pool"), step("s", "mean")),
        "layer 'pool': .* with global_average_pool2d 'mean'",
    ),
    "pool before zeros": (
        MAP,
        (
            POOL,
            L.ZeroPad2D(name="zeros", inputs="pool", padding=((0, 1), (0, 1))),
            step("s", "zeros"),
        ),
        "layer 'pool': .* with zero_pad2d 'zeros'",
    ),
    "pool of a volume before a convolution": (
        InputSpec((2, 2, 2, 2), 0, 3),
        (
            L.MaxPool3D(name="pool", inputs=INPUT),
            L.Conv3D(name="conv", inputs="pool", weight=np.ones((1, 1, 1, 2, 1), np.float32)),
            step("s", "conv"),
        ),
        "layer 'pool': a max pool on values .* with conv3d 'conv' behind it.*Put a step before",
    ),
    "pool before a relu": (
        MAP,
        (POOL, L.Activation(name="act", inputs="pool", function="relu"), step("s", "act")),
        "layer '(pool|act)': ",
    ),
    "norm of a flattened pool": (
        MAP,
        (
            POOL,
            L.Flatten(name="flat", inputs="pool"),
            norm("norm", "flat", [1] * 8),
            step("s", "norm"),
        ),
        "layer 'norm': batch norm over 8 flattened values behind max pool 'pool'",
    ),
    "pool of mixed channels": (
        MAP,
        (
            POOL,
            L.Reshape(name="fold", inputs="pool", shape=(2, 4, 1)),
            L.MaxPool2D(name="again", inputs="fold"),
            step("s", "again"),
        ),
        "layer 'again': a max pool behind max pool 'pool' and a reshape",
    ),
    "dense at the end": (
        InputSpec((2,)),
        (step("s", INPUT), dense("d", "s", [[1], [1]])),
        "layer 'd': the output is a dense, not a step, so it has no spikes. End the network with",
    ),
    "average at the end": (
        MAP,
        (step("s", INPUT), L.AveragePool2D(name="mean", inputs="s")),
        "layer 'mean': the output is a average_pool2d, not a step",
    ),
    "open pool at the end": (MAP, (POOL,), "layer 'pool': the output is a max_pool2d, not a step"),
    "input at the end": (
        InputSpec((2, 2)),
        (L.Flatten(name="flat", inputs=INPUT),),
        "layer 'flat': the output is a flatten, not a step",
    ),
    "permuted at the end": (
        InputSpec((2, 2)),
        (step("s", INPUT), L.Permute(name="turn", inputs="s", axes=(1, 0))),
        "layer 'turn': the output is a permute, not a step",
    ),
    "large weights": (
        InputSpec((2,)),
        (L.Dense(name="d", inputs=INPUT, weight=np.full((2, 1), 1e16)), step("s", "d")),
        "layer 's': sums up to 2e.16 leave no room .* Rescale the layer",
    ),
    "enormous weights": (
        InputSpec((2,)),
        (L.Dense(name="d", inputs=INPUT, weight=np.full((2, 1), 1.5e308)), step("s", "d")),
        "layer 's': .* Rescale",
    ),
    "name of a population": (
        MAP,
        (POOL, step("s", "pool"), step("s/before_pool", "s")),
        "layer 's/before_pool': two populations would have this name. Rename it",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.filterwarnings("error")
def test_refusals_name_the_layer_and_the_reason(what: str) -> None:
    spec, layers, match = REFUSED[what]
    with pytest.raises(MappingError, match=match) as caught:
        map_to_spikes(Model("m", spec, layers))
    assert len(str(caught.value).splitlines()) == 1


def test_reshaped_output_keeps_its_population() -> None:
    layers = (step("s", INPUT), L.Flatten(name="f", inputs="s"))
    network = map_to_spikes(Model("m", InputSpec((2, 2)), layers))
    assert network.output == "s"


def test_input_options_are_checked() -> None:
    model = ties_and_biases()
    with pytest.raises(MappingError, match="input_scale or input_bits, not both"):
        map_to_spikes(model, input_scale=0.5, input_bits=8)
    for bits in (0, 25, -1):
        with pytest.raises(MappingError, match=f"a whole number in 1..24 .got {bits}"):
            map_to_spikes(model, input_bits=bits)


def test_input_scale_replaces_the_scale_of_the_model() -> None:
    layers = (dense("d", INPUT, [[1]]), step("s", "d"))
    model = Model("m", InputSpec((1,), 0, 4, 1.0), layers)
    network = map_to_spikes(model, input_scale=0.125)
    recording = run(network, np.arange(5)[:, None], record="rasters")
    assert recording.raster("s").ravel().tolist() == [False] * 4 + [True]


# --- networks made by hand ----------------------------------------------------------------------


def hand_made(**changes: Any) -> SpikingNetwork:
    """Return a network of one neuron, with changes."""
    source = InputPopulation((2,), 0, 1, "graded", InputSpec((2,)))
    neuron = Population("n", (1,), changes.pop("depth", 1), *changes.pop("numbers", ([0], [4])))
    weight = np.array(changes.pop("weight", [[3], [8]]), np.int64)
    delay = changes.pop("delay", 1)
    projection = Projection(
        changes.pop("source", INPUT), changes.pop("target", "n"), Dense(weight), delay
    )
    values = {"populations": (neuron,), "projections": (projection,), "output": "n", **changes}
    return SpikingNetwork(name="hand", input=source, **values)


def test_a_network_made_by_hand() -> None:
    network = hand_made()
    assert (network.n_neurons, network.n_synapses, network.depth) == (1, 2, 1)
    assert network["n"].threshold.tolist() == [8]
    assert network["n"].half_grid_step.tolist() == [1 / 32]
    assert (network.max_fan_in, network.sum_bits) == (2, 4)
    assert run(network, all_inputs(2), record="rasters").raster("n").ravel().tolist() == [
        False,
        False,
        True,
        True,
    ]
    with pytest.raises(KeyError):
        network[INPUT]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"delay": 2}, "delay is 2; depths 0 and 1 need 1"),
        ({"delay": 0, "depth": 0}, "delay is 0"),
        ({"weight": [[1]]}, r"connects \(1, 1\); need \(2, 1\)"),
        ({"source": "x"}, "source or target is no population"),
        ({"target": INPUT}, "source or target is no population"),
        ({"output": "x"}, "the output 'x' is no population"),
        ({"numbers": ([0, 0], [4])}, r"bias has shape \(2,\); need \(1,\)"),
        ({"numbers": ([0], [0])}, "exponents must be in 1..53"),
        ({"numbers": ([0], [54])}, "exponents must be in 1..53"),
        ({"weight": [[2**53], [0]]}, "a sum may need 54 bits .need <= 53"),
    ],
)
def test_networks_are_checked(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(MappingError, match=match):
        hand_made(**changes)


def test_fingerprints_tell_networks_apart() -> None:
    same = {hand_made().fingerprint, hand_made().fingerprint}
    assert len(same) == 1
    others = [
        hand_made(weight=[[3], [9]]),
        hand_made(numbers=([1], [4])),
        hand_made(numbers=([0], [5])),
        hand_made(depth=2, delay=2),
    ]
    assert len(same | {n.fingerprint for n in others}) == 5


def test_readout_comes_along() -> None:
    readout = Readout(key=np.array([[0, 1], [1, 0]], np.uint8))
    model = Model("m", InputSpec((2,)), (step("s", INPUT),), readout=readout)
    recording = run(map_to_spikes(model), [[1, 0], [0, 1]])
    assert recording.predictions.tolist() == [1, 0]
    values = forward(model, np.array([[1, 0], [0, 1]]))["s"]
    assert readout.scores(values).argmax(axis=1).tolist() == [1, 0]
