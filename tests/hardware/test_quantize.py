"""Quantized networks: in range, exact where they can be, with fewer flips than plain rounding."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import whetsim
from tests.core.random_models import random_model, random_samples
from whetsim import layers as L
from whetsim.coding import encode_network
from whetsim.connectivity import Convolution, Dense, Listed
from whetsim.errors import CapacityError, SampleError, UnknownNameError, UnsupportedError
from whetsim.model import INPUT, InputSpec, Model, Readout
from whetsim.network import Population, SpikingNetwork
from whetsim.sums import NetworkSums
from whetsim_hardware.quantize import quantize
from whetsim_hardware.quantize_report import count_flips
from whetsim_hardware.quantize_search import ideal_threshold

Whole = NDArray[np.int64]


def chain(
    *layers: tuple[Any, Any], high: int = 1, readout: Readout | None = None
) -> SpikingNetwork:
    """Return dense layers with these weights and biases, mapped."""
    built: list[L.Layer] = []
    before = INPUT
    for i, (weight, bias) in enumerate(layers):
        arrays = {
            "weight": np.asarray(weight, dtype=np.float32),
            "bias": np.asarray(bias, dtype=np.float32),
        }
        built.append(L.Dense(name=f"dense_{i}", inputs=(before,), **arrays))
        built.append(L.Step(name=f"step_{i}", inputs=(f"dense_{i}",)))
        before = f"step_{i}"
    n_in = len(layers[0][0])
    spec = InputSpec((n_in,), 0, high, 1.0)
    return whetsim.map_to_spikes(Model("chain", spec, tuple(built), readout=readout))


def random_chain(seed: int = 0, sizes: tuple[int, ...] = (30, 20, 10)) -> SpikingNetwork:
    rng = np.random.default_rng(seed)
    layers = [
        (rng.normal(0.1, 1, (m, n)), rng.normal(0, 1, n)) for m, n in itertools.pairwise(sizes)
    ]
    return chain(*layers)


def bits_of(n: int, width: int, seed: int = 0) -> Whole:
    return np.random.default_rng(seed).integers(0, 2, (n, width))


def all_inputs(width: int) -> Whole:
    return np.array(list(itertools.product((0, 1), repeat=width)))


def roughened(network: SpikingNetwork, seed: int) -> SpikingNetwork:
    """Return the same structure with random weights that no few bits can hold."""
    rng = np.random.default_rng(seed)

    def other(p: Population) -> Population:
        bias = rng.integers(-2000, 3000, p.size)
        return replace(p, bias=bias, exponent=np.full(p.size, 12))

    projections = []
    for p in network.projections:
        connectivity: Any = p.connectivity
        old = connectivity.weight
        weight = np.where(old != 0, rng.integers(-5000, 5001, old.shape), 0)
        projections.append(replace(p, connectivity=replace(connectivity, weight=weight)))
    populations = tuple(other(p) for p in network.populations)
    return replace(
        network, populations=populations, projections=tuple(projections), graded_fingerprint=""
    )


def spikes(network: SpikingNetwork, samples: Whole) -> dict[str, NDArray[np.bool_]]:
    recording = whetsim.run(network, samples, record="rasters")
    return {p.name: recording.raster(p.name) for p in network.populations}


def assert_same_decisions(one: SpikingNetwork, other: SpikingNetwork, samples: Whole) -> None:
    before, after = spikes(one, samples), spikes(other, samples)
    for name, raster in before.items():
        np.testing.assert_array_equal(raster, after[name], err_msg=name)


def threshold_of(network: SpikingNetwork, name: str) -> Whole:
    population = network[name]
    return population.threshold - population.bias


# What fits exactly


@pytest.mark.parametrize("method", ["flips", "max"])
def test_weights_that_fit_decide_as_before_on_every_input(method: Any) -> None:
    rng = np.random.default_rng(1)
    first = rng.integers(-7, 8, (8, 12)) * 0.25
    second = rng.integers(-7, 8, (12, 5)) * 0.125
    network = chain((first, rng.integers(-4, 5, 12) / 3), (second, rng.integers(-4, 5, 5) / 3))
    found = quantize(network, None, bits_of(3, 8), bits=4, method=method)
    assert found.flips == 0
    assert all(p.kept and p.saturated == 0 for p in found.populations)
    assert_same_decisions(network, found.network, all_inputs(8))


def test_pools_stay_ors() -> None:
    shape = (4, 4, 2)
    layers = (
        L.Conv2D(
            name="conv",
            inputs=(INPUT,),
            weight=np.random.default_rng(2).normal(0.2, 1, (3, 3, 2, 3)).astype(np.float32),
            padding="same",
        ),
        L.Step(name="step", inputs=("conv",)),
        L.MaxPool2D(name="pool", inputs=("step",), pool_size=(2, 2)),
        L.Flatten(name="flat", inputs=("pool",)),
        L.Dense(name="dense", inputs=("flat",), weight=np.ones((12, 2), dtype=np.float32)),
        L.Step(name="last", inputs=("dense",)),
    )
    network = whetsim.map_to_spikes(Model("pooled", InputSpec(shape, 0, 1, 1.0), layers))
    found = quantize(network, None, bits_of(50, 32), bits=3).network
    pool = next(
        p
        for p in found.projections
        if isinstance(p.connectivity, Convolution) and p.connectivity.geometry.groups == 3
    )
    assert (pool.connectivity.weight == 1).all()
    assert (threshold_of(found, pool.target) == 1).all()


def test_whole_neurons_beside_others_stay_exact() -> None:
    weight = np.array([[1.0, 0.111], [-2.0, 0.777], [3.0, -0.333]])
    network = chain((weight, [0.0, 0.1]))
    found = quantize(network, None, all_inputs(3), bits=3)
    (projection,) = found.network.projections
    assert projection.connectivity.weight[:, 0].tolist() == [1, -2, 3]
    assert threshold_of(found.network, "step_0")[0] == 1
    assert not found["step_0"].kept


# Ranges, steps and thresholds


@pytest.mark.parametrize("method", ["flips", "max"])
@pytest.mark.parametrize("bits", range(1, 17))
def test_weights_are_in_the_range_of_the_width(bits: int, method: Any) -> None:
    found = quantize(random_chain(), None, bits_of(100, 30), bits=bits, method=method).network
    largest = max(1, 2 ** (bits - 1) - 1)
    for projection in found.projections:
        weight = projection.connectivity.weight
        assert np.abs(weight).max() <= largest
        if bits == 1:
            assert set(np.unique(weight)) <= {-1, 1}


def test_sixteen_bits_lose_nothing_on_ordinary_weights() -> None:
    samples = bits_of(200, 30)
    assert quantize(random_chain(), None, samples, bits=16).flips == 0


def test_loihi_weights_are_even_and_thresholds_midway() -> None:
    found = quantize(random_chain(), "loihi", bits_of(200, 30))
    assert found.bits == 8
    for projection in found.network.projections:
        weight = projection.connectivity.weight
        assert (weight % 2 == 0).all()
        assert -256 <= weight.min() <= weight.max() <= 254
        # Sums are even, so an odd threshold is halfway between two of them.
        assert (threshold_of(found.network, projection.target) % 2 == 1).all()


def test_axon_types_hold_as_many_bits_as_the_fan_in_leaves() -> None:
    narrow = quantize(random_chain(sizes=(64, 9)), "truenorth", bits_of(200, 64))
    (projection,) = narrow.network.projections
    assert narrow.bits == 4
    assert projection.connectivity.weight.min() >= -8
    assert projection.connectivity.weight.max() <= 7
    wide = quantize(random_chain(sizes=(100, 9)), "truenorth", bits_of(200, 100))
    (projection,) = wide.network.projections
    assert wide.bits == 2
    assert set(np.unique(projection.connectivity.weight)) == {-1, 0, 1}


def test_odin_has_room_for_threshold_and_inhibition_where_it_says_so() -> None:
    found = quantize(random_chain(sizes=(40, 30)), "odin", bits_of(200, 40))
    (projection,) = found.network.projections
    weight = projection.connectivity.weight.astype(np.int64)
    assert np.abs(weight).max() <= 7
    inhibition = np.maximum(-weight, 0).sum(axis=0)
    over = inhibition + threshold_of(found.network, "step_0") > 255
    assert found["step_0"].exposed == over.sum() == 0


def test_no_sum_overflows_where_that_leaves_enough_levels() -> None:
    weight = np.full((400, 2), 1.0)
    weight[0] = 0.3
    found = quantize(chain((weight, [-100.3, -99.1])), "spinnaker", bits_of(50, 400))
    (projection,) = found.network.projections
    assert projection.connectivity.weight.max() > 127
    assert projection.connectivity.weight.astype(np.int64).sum(axis=0).max() <= 65535
    assert found["step_0"].exposed == 0


def test_else_none_overflows_on_the_calibration_samples() -> None:
    weight = np.full((3000, 2), 1.0)
    weight[0] = 0.3
    samples = bits_of(50, 3000)
    found = quantize(chain((weight, [-1500.3, -1490.1])), "spinnaker", samples)
    (projection,) = found.network.projections
    sums = samples @ projection.connectivity.weight.astype(np.int64)
    assert 65535 / 2 < sums.max() <= 65535
    assert found["step_0"].exposed == 2


def test_exposed_neurons_are_counted() -> None:
    found = quantize(random_chain(sizes=(700, 4)), "loihi", bits_of(50, 700), bits=8, method="max")
    assert found["step_0"].exposed == 0
    wide = np.full((700, 1), 1.0)
    wide[:2] = 0.999
    found = quantize(chain((wide, [0.0])), "loihi", bits_of(50, 700), method="max")
    assert found["step_0"].exposed == 1


@pytest.mark.parametrize("name", ["loihi", "spinnaker", "odin", "truenorth"])
def test_the_emulated_chip_takes_it(name: str) -> None:
    network = random_chain(3, sizes=(30, 24, 8))
    samples = bits_of(300, 30)
    found = quantize(network, name, samples)
    assert sum(p.exposed for p in found.populations) == 0
    with whetsim.get_backend(name).prepare(found.network) as simulation:
        recording = simulation.run(samples, record="rasters")
    for key, raster in spikes(found.network, samples).items():
        np.testing.assert_array_equal(recording.raster(key), raster)


def test_a_layer_may_have_to_share_one_scale() -> None:
    found = quantize(random_chain(), "speck", bits_of(300, 30))
    for report in found.populations:
        assert report.scale_low == pytest.approx(report.scale_high)
    for population in found.network.populations:
        threshold = threshold_of(found.network, population.name)
        assert threshold.max() - threshold.min() <= 255


# Thresholds


@given(st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_ideal_threshold_is_the_best_of_all(random: Random) -> None:
    rng = np.random.default_rng(random.randint(0, 2**32))
    n, m = rng.integers(1, 12), rng.integers(1, 4)
    sums = rng.integers(-9, 10, (n, m)).astype(float)
    fired = rng.random((n, m)) < 0.5
    about = rng.uniform(-6, 6, m)
    best, flips = ideal_threshold(sums, fired, about, reach=8)
    for j in range(m):
        tried = np.rint(about[j]) + np.arange(-8, 9)
        counts = np.array([((sums[:, j] >= t) != fired[:, j]).sum() for t in tried])
        assert flips[j] == counts.min() == ((sums[:, j] >= best[j]) != fired[:, j]).sum()
        equal = tried[counts == counts.min()]
        assert abs(best[j] - about[j]) == np.abs(equal - about[j]).min()


# Fewer flips


@given(st.randoms(use_true_random=False), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_never_more_flips_than_plain_rounding(random: Random, bits: int) -> None:
    model = random_model(random)
    samples = random_samples(random, model.input, 12)
    network = whetsim.map_to_spikes(model)
    if random.random() < 0.7:
        network = roughened(network, random.randint(0, 2**32))
    found = quantize(network, None, samples, bits=bits)
    plain = quantize(network, None, samples, bits=bits, method="max")
    assert found.flips <= plain.flips
    for quantized in (found, plain):
        check_report(network, quantized.network, quantized, samples, bits)


def check_report(
    network: SpikingNetwork, quantized: SpikingNetwork, found: Any, samples: Whole, bits: int
) -> None:
    before, after = spikes(network, samples), spikes(quantized, samples)
    assert [(p.name, p.shape, p.depth) for p in network.populations] == [
        (p.name, p.shape, p.depth) for p in quantized.populations
    ]
    for name, raster in before.items():
        assert found[name].flips == (raster != after[name]).sum()
    for old, new in zip(network.projections, quantized.projections, strict=True):
        assert (old.source, old.target, old.delay) == (new.source, new.target, new.delay)
        weight, given = new.connectivity.weight, old.connectivity.weight
        assert np.abs(weight.astype(np.int64)).max(initial=0) <= max(1, 2 ** (bits - 1) - 1)
        assert not weight[given == 0].any()
    sums = NetworkSums(quantized).of(encoded(samples, quantized))
    for population in quantized.populations:
        fires = sums[population.name] >= population.threshold
        np.testing.assert_array_equal(fires, after[population.name])


def encoded(samples: Whole, network: SpikingNetwork) -> NDArray[np.int32]:
    return samples.reshape(len(samples), network.input.size).astype(np.int32)


def test_random_networks_have_all_kinds_of_synapses() -> None:
    kinds, grouped, several = set(), False, False
    for seed in range(40):
        network = whetsim.map_to_spikes(random_model(Random(seed)))
        for population in network.populations:
            into = list(network.into(population.name))
            several |= len({type(p.connectivity) for p in into}) > 1
        for projection in network.projections:
            connectivity = projection.connectivity
            kinds.add(type(connectivity))
            if isinstance(connectivity, Convolution):
                grouped |= connectivity.geometry.groups > 1
    assert kinds == {Dense, Convolution, Listed}
    assert grouped
    assert several


def test_samples_that_calibration_did_not_see_flip_less_too() -> None:
    network = random_chain(5, sizes=(60, 40, 20))
    seen, unseen = bits_of(1500, 60, 1), bits_of(1500, 60, 2)
    for bits in (8, 6, 4, 3):
        flips, plain = (
            count_flips(
                network, quantize(network, None, seen, bits=bits, method=m).network, unseen
            ).total
            for m in ("flips", "max")
        )
        assert flips < plain


# Special neurons


def test_neurons_without_synapses_and_neurons_that_always_fire() -> None:
    weight = np.array([[0.0, 0.31, 0.0, -0.27], [0.0, 0.17, 0.0, 0.11]])
    network = chain((weight, [0.7, 0.9, 0.2, 0.6]))
    samples = all_inputs(2)
    for chip, bits in ((None, 5), ("loihi", None), ("odin", None)):
        found = quantize(network, chip, samples, bits=bits)
        assert found.flips == 0
        assert_same_decisions(network, found.network, samples)


def test_only_the_populations_named_change() -> None:
    network, samples = random_chain(), bits_of(100, 30)
    found = quantize(network, None, samples, bits=2, only=["step_1"])
    assert found["step_0"].flips == 0
    assert found["step_0"].bits == 0
    assert found.network["step_0"] is network["step_0"]
    assert np.abs(found.network.projections[1].connectivity.weight).max() == 1
    assert found["step_1"].margin_before > 0


def test_bit_planes_count_powers_of_two_of_the_weight_of_the_value() -> None:
    rng = np.random.default_rng(4)
    network = chain((rng.normal(0, 0.01, (6, 5)), rng.normal(0.2, 0.1, 5)), high=255)
    samples = rng.integers(0, 256, (200, 6))
    graded = quantize(network, "loihi", samples)
    planes = quantize(network, "loihi", samples, encoding="bitplane")
    assert planes.network.input.encoding == "bitplane"
    weight = graded.network.projections[0].connectivity.weight
    np.testing.assert_array_equal(
        planes.network.projections[0].connectivity.weight[3::8], weight * 8
    )
    assert np.abs(weight).max() <= 254
    assert_same_decisions(graded.network, planes.network, samples)


def test_binary_encoding_is_what_is_quantized() -> None:
    rng = np.random.default_rng(4)
    network = chain((rng.normal(0, 0.01, (6, 5)), rng.normal(0.2, 0.1, 5)), high=255)
    found = quantize(network, "odin", rng.integers(0, 256, (200, 6)), encoding="binary", level=99)
    assert found.network.input.level == 99
    assert np.abs(found.network.projections[0].connectivity.weight).max() <= 7


# Report


def test_the_report_prints_and_is_json() -> None:
    readout = Readout(key=np.eye(2, 10, dtype=np.uint8))
    network = replace(random_chain(), readout=readout)
    samples = bits_of(60, 30)
    labels = whetsim.run(network, samples).predictions
    found = quantize(network, "loihi", samples, bits=3, labels=labels)
    assert found.accuracy_before == 1.0
    assert found.accuracy_after == whetsim.run(found.network, samples).accuracy(labels)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["flips"] == found.flips == sum(p["flips"] for p in plain["populations"])
    assert plain["chip"] == "loihi"
    assert found["step_0"].flip_rate == found["step_0"].flips / (20 * 60)
    text = str(found)
    assert "step_1" in text
    assert f"3 bits for loihi, method flips: {found.flips:,} flipped spikes on 60 samples" in text
    with pytest.raises(KeyError):
        found["other"]


def test_saturated_weights_are_counted() -> None:
    found = quantize(random_chain(), None, bits_of(300, 30), bits=3)
    for report, projection in zip(found.populations, found.network.projections, strict=True):
        clipped = np.abs(projection.connectivity.weight) == 3
        assert 0 < report.saturated < clipped.size
    plain = quantize(random_chain(), None, bits_of(300, 30), bits=3, method="max")
    assert [p.saturated for p in plain.populations] == [0, 0]


# Refusals


@pytest.mark.parametrize("bits", [0, 17, -1, 2.5, True, "8"])
def test_widths_that_are_none(bits: Any) -> None:
    with pytest.raises(SampleError, match=r"bits is .*; need a whole number in 1\.\.16"):
        quantize(random_chain(), None, bits_of(5, 30), bits=bits)


def test_neither_chip_nor_width() -> None:
    with pytest.raises(SampleError, match="neither a chip nor bits"):
        quantize(random_chain(), None, bits_of(5, 30))


def test_bad_names() -> None:
    network, samples = random_chain(), bits_of(5, 30)
    with pytest.raises(SampleError, match="no method 'flip'; there are: flips, max"):
        quantize(network, None, samples, bits=4, method="flip")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="no chip named 'lohi'"):
        quantize(network, "lohi", samples)
    with pytest.raises(UnknownNameError, match="no population named 'step_9'"):
        quantize(network, None, samples, bits=4, only=["step_9"])


def test_bad_samples() -> None:
    network = random_chain()
    with pytest.raises(SampleError, match="no calibration samples"):
        quantize(network, None, np.zeros((0, 30), dtype=int), bits=4)
    with pytest.raises(SampleError, match="one sample has shape"):
        quantize(network, None, bits_of(5, 29), bits=4)
    with pytest.raises(SampleError, match="labels: shape"):
        readout = Readout(key=np.eye(2, 10, dtype=np.uint8))
        with_readout = replace(network, readout=readout)
        quantize(with_readout, None, bits_of(5, 30), bits=4, labels=np.zeros(4, dtype=int))


def test_what_chips_cannot_hold() -> None:
    network, samples = random_chain(), bits_of(5, 30)
    with pytest.raises(CapacityError, match="at most 8, the sign counted"):
        quantize(network, "loihi", samples, bits=9)
    with pytest.raises(CapacityError, match="at most 4"):
        quantize(network, "truenorth", samples, bits=5)
    with pytest.raises(UnsupportedError, match="analog"):
        quantize(network, "brainscales2", samples)
    with pytest.raises(UnsupportedError, match="says nothing of arithmetic"):
        quantize(network, "akida", samples)
    grey = chain((np.ones((3, 2)) * 0.3, [0.0, 0.1]), high=255)
    with pytest.raises(CapacityError, match="input values of 8 bits"):
        quantize(grey, "odin", np.zeros((3, 3), dtype=int))
    with pytest.raises(SampleError, match="bit planes already"):
        quantize(encode_network(grey, "bitplane"), "loihi", np.zeros((3, 3), dtype=int))
