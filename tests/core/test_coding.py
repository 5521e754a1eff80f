"""Samples to integers, integers to input events, and networks in other encodings."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetsim import layers as L
from whetsim.coding import encode_network, encode_samples, to_integers
from whetsim.errors import SampleError
from whetsim.mapping import map_to_spikes
from whetsim.model import INPUT, InputSpec, Model
from whetsim.network import InputPopulation, SpikingNetwork
from whetsim.runner import run
from whetsim.testing.networks import all_kinds, conv_model, dense_model
from whetsim.testing.networks import random_samples as uniform_samples

SPEC = InputSpec((2, 3), 0, 255, 1 / 255)


def source_of(spec: InputSpec = SPEC, rounds: bool = False) -> InputPopulation:
    return InputPopulation(spec.shape, spec.low, spec.high, "graded", spec, rounds=rounds)


def network_of(spec: InputSpec, **options: Any) -> SpikingNetwork:
    """Return the network of one dense layer whose weights tell its inputs apart."""
    weight = (np.arange(spec.size * 2).reshape(spec.size, 2) % 7 - 3) / np.float32(4)
    layers = (
        L.Flatten(name="f", inputs=INPUT),
        L.Dense(name="d", inputs="f", weight=weight.astype(np.float32)),
        L.Step(name="s", inputs="d"),
    )
    return map_to_spikes(Model("m", spec, layers), **options)


# --- whole numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "i8", "u8", ">i4"])
@pytest.mark.parametrize("shape", [(2, 3), (6,), (3, 2), (1, 6, 1)])
def test_integers_of_any_type_and_shape(dtype: str, shape: tuple[int, ...]) -> None:
    samples = np.arange(12).reshape(2, *shape).astype(dtype)
    result = to_integers(samples, source_of())
    assert result.shape == (2, 6)
    assert result.tolist() == np.arange(12).reshape(2, 6).tolist()


def test_booleans_and_lists() -> None:
    spec = InputSpec((2,))
    assert to_integers([[True, False]], source_of(spec)).tolist() == [[1, 0]]
    assert to_integers([[1, 0], [0, 0]], source_of(spec)).tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("shape", [(0, 2, 3), (0, 6)])
def test_no_samples(shape: tuple[int, ...]) -> None:
    assert to_integers(np.zeros(shape, np.uint8), source_of()).shape == (0, 6)


BAD: list[tuple[Any, str]] = [
    (np.zeros((2, 5), int), r"one sample has shape \(5,\); the network reads \(2, 3\), 6 values"),
    (np.zeros((2, 3), int), "Give one sample as samples.None."),
    (np.zeros(6, int), "Give one sample as samples.None."),
    (np.int64(3), "need numbers, samples along the first axis"),
    (np.zeros((1, 6), complex), "complex128 of shape .*need numbers"),
    (np.full((1, 6), "1"), "need numbers"),
    (np.full((1, 6), None), "object of shape .*need numbers"),
    (np.zeros((1, 6), "datetime64[s]"), "need numbers"),
    ([[0, 0, 0, 256, 0, 0]], "sample 0, value 3 is 256; the network reads 0..255"),
    ([[0] * 6, [0, -1, 300, 0, 0, 0]], "sample 1, value 1 is -1; the network reads 0..255"),
    (np.full((1, 6), 2**63 + 5, np.uint64), "value 0 is 9223372036854775813"),
    (np.zeros((1, 6)), r"floats .float64.. Give whole numbers 0..255, or say input_scale=0.00392"),
    (np.full((1, 6), np.nan), "some are NaN or infinite"),
    (np.full((1, 6), -np.inf), "some are NaN or infinite"),
]


@pytest.mark.parametrize(("samples", "match"), BAD, ids=[m for _, m in BAD])
@pytest.mark.filterwarnings("error")
def test_refused_samples(samples: Any, match: str) -> None:
    with pytest.raises(SampleError, match=f"samples: .*{match}") as caught:
        to_integers(samples, source_of())
    assert len(str(caught.value).splitlines()) == 1


# --- floats on the grid -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [lambda i, t: i / t(255), lambda i, t: i * t(1 / 255)])
def test_floats_that_are_whole_multiples(dtype: Any, make: Any) -> None:
    integers = np.arange(256, dtype=dtype)
    samples = np.resize(make(integers, dtype), (43, 6))
    result = to_integers(samples, source_of(), input_scale=1 / 255)
    assert result.dtype == np.int64
    assert result.ravel().tolist() == np.resize(np.arange(256), 258).tolist()


@pytest.mark.parametrize(
    ("samples", "scale", "match"),
    [
        (
            np.full((1, 6), 0.5),
            1 / 255,
            "value 0 is .*0.5.*no whole multiple of 0.0039.*_bits",
        ),
        (np.full((1, 6), 1.0001, np.float32), 1 / 255, "no whole multiple"),
        (np.full((1, 6), 256 / 255), 1 / 255, "value 0 is 256; the network reads 0..255"),
        (np.zeros((1, 6)), 1 / 256, "input_scale is 0.00390625, but the network was trained with"),
        (np.zeros((1, 6), int), 1 / 255, "input_scale is for floats .got int64"),
        (np.full((1, 6), 1e300), 1 / 255, "1e.300|multiple"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_refused_floats(samples: Any, scale: float, match: str) -> None:
    with pytest.raises(SampleError, match=f"samples: .*{match}"):
        to_integers(samples, source_of(), input_scale=scale)


def test_run_with_floats_equals_run_with_integers() -> None:
    network = network_of(SPEC)
    integers = uniform_samples(np.random.default_rng(0), SPEC, 20)
    a = run(network, integers, record="rasters")
    b = run(network, integers / 255, record="rasters", input_scale=1 / 255)
    c = run(network, (integers / 255).astype(np.float32), record="rasters", input_scale=1 / 255)
    assert np.array_equal(a.raster("s"), b.raster("s"))
    assert np.array_equal(a.raster("s"), c.raster("s"))
    assert a.input_rounding == b.input_rounding == 0.0


# --- rounding -----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(0, 1, 1.0), (0, 255, 1 / 255), (-1, 1, 1.0), (-3, 5, 0.25), (2, 9, 1.0)]),
    st.integers(1, 16),
    st.integers(0, 2**32 - 1),
)
def test_rounding_is_at_most_half_a_level(
    spec: tuple[int, int, float], bits: int, seed: int
) -> None:
    low, high, scale = spec
    network = network_of(InputSpec((4,), low, high, scale), input_bits=bits)
    samples = np.random.default_rng(seed).uniform(low * scale, high * scale, (10, 4))
    level = (high - low) * scale / (2**bits - 1)
    grid = network.input.samples
    assert grid.high - grid.low == 2**bits - 1
    assert grid.scale == pytest.approx(level, rel=1e-12)
    inside = np.clip(samples, grid.low * level, grid.high * level)
    recording = run(network, inside, record="rasters")
    assert recording.input_rounding <= level / 2 * (1 + 1e-9)
    assert recording.input_rounding == np.abs(recording.samples * grid.scale - inside).max()


@pytest.mark.parametrize("spec", [(0, 1, 1.0), (-1, 1, 1.0), (-3, 5, 0.25), (0, 255, 1 / 255)])
@pytest.mark.parametrize("bits", [1, 2, 8, 16])
def test_both_ends_of_the_range_can_be_rounded(spec: tuple[int, int, float], bits: int) -> None:
    low, high, scale = spec
    network = network_of(InputSpec((4,), low, high, scale), input_bits=bits)
    ends = np.array([[low * scale] * 4, [high * scale] * 4])
    recording = run(network, ends)
    level = (high - low) * scale / (2**bits - 1)
    assert recording.input_rounding <= level / 2 * (1 + 1e-9)


def test_rounding_takes_integers_too() -> None:
    network = network_of(SPEC, input_bits=8)
    integers = uniform_samples(np.random.default_rng(0), SPEC, 20)
    plain = run(network_of(SPEC), integers, record="rasters")
    assert np.array_equal(run(network, integers, record="rasters").raster("s"), plain.raster("s"))
    rounded = run(network, integers / 255, record="rasters")
    assert np.array_equal(rounded.raster("s"), plain.raster("s"))
    assert rounded.input_rounding < 1e-15


@pytest.mark.parametrize("value", [1e300, -1e300, 1e19, 2.0])
def test_floats_out_of_range_are_refused_without_a_warning(value: float) -> None:
    network = network_of(SPEC, input_bits=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SampleError, match=r"samples: .*the network reads"):
            run(network, np.full((1, 6), value))


# --- encodings ----------------------------------------------------------------------------------


RANGES = [(0, 255), (0, 7), (0, 8), (-8, 7), (-3, 12), (-255, -1), (5, 9), (-1, 1)]


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_bits_add_up_to_the_value(low: int, high: int) -> None:
    spec = InputSpec((1,), low, high)
    network = encode_network(network_of(spec), "bitplane")
    values = np.arange(low, high + 1)[:, None]
    events = encode_samples(values, network.input)
    assert set(np.unique(events)) <= {0, 1}
    assert events.shape == (len(values), network.input.size)
    n_bits = network.input.size
    worth = [2**b for b in range(n_bits)]
    if low < 0:
        worth[-1] *= -1
    assert (events @ worth).tolist() == values.ravel().tolist()
    assert 2 ** (n_bits - 1) <= 2 * max(abs(low), abs(high)), "no bit too many"


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-8, 7), (0, 5)])
@pytest.mark.parametrize("make", [dense_model, conv_model, all_kinds])
def test_bitplanes_give_the_same_spikes(make: Any, low: int, high: int) -> None:
    model = make(np.random.default_rng(0))
    spec = InputSpec(model.input.shape, low, high, 1 / 8)
    model = Model("m", spec, model.layers, output=model.output)
    network = map_to_spikes(model)
    samples = uniform_samples(np.random.default_rng(1), spec, 30)
    graded = run(network, samples, record="rasters")
    planes = run(network, samples, record="rasters", encoding="bitplane")
    assert planes.network.input.encoding == "bitplane"
    assert not planes.network.input.is_graded
    for population in network.populations:
        name = population.name
        assert np.array_equal(graded.raster(name), planes.raster(name)), name


def test_graded_spikes_count_events_and_bitplanes_count_bits() -> None:
    network = network_of(InputSpec((4,), 0, 255, 1 / 255))
    samples = np.array([[0, 1, 3, 255], [0, 0, 0, 0]])
    assert run(network, samples).spike_counts[INPUT].tolist() == [3, 0]
    planes = run(network, samples, encoding="bitplane")
    assert planes.spike_counts[INPUT].tolist() == [0 + 1 + 2 + 8, 0]


@pytest.mark.parametrize("level", [None, 1, 100, 255])
def test_binary_encoding(level: int | None) -> None:
    spec = InputSpec((6,), 0, 255, 1 / 255)
    network = network_of(spec)
    samples = uniform_samples(np.random.default_rng(0), spec, 50)
    used = 128 if level is None else level
    binary = run(network, samples, record="rasters", encoding="binary", level=level)
    full = run(network, np.where(samples >= used, 255, 0), record="rasters")
    assert np.array_equal(binary.raster("s"), full.raster("s"))
    assert binary.network.input.level == used
    assert binary.spike_counts[INPUT].tolist() == (samples >= used).sum(axis=1).tolist()


@pytest.mark.parametrize("encoding", ["graded", "bitplane", "binary"])
def test_binary_data_needs_no_encoding(encoding: Any) -> None:
    network = network_of(InputSpec((4,)))
    assert encode_network(network, encoding) is network


def test_refused_encodings() -> None:
    network = network_of(SPEC)
    with pytest.raises(
        SampleError,
        match=r"no encoding named 'bitplanes'; there are: graded, bitp"
        r"lane, binary. Did you mean 'bitplane'\?",
    ):
        encode_network(network, "bitplanes")  # type: ignore[arg-type]
    with pytest.raises(SampleError, match=r"level is for the binary encoding .got .*'graded'"):
        encode_network(network, "graded", 3)


def test_encoding_leaves_the_network_alone() -> None:
    network = map_to_spikes(all_kinds(np.random.default_rng(0)))
    before = network.fingerprint
    other = encode_network(network, "bitplane")
    assert network.fingerprint == before != other.fingerprint
    assert other.n_neurons == network.n_neurons
    assert other.input.size == network.input.size * 4
