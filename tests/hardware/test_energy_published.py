"""Published figures come out of the chip files alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from whetsim.connectivity import Convolution, Dense, Geometry
from whetsim.model import InputSpec
from whetsim.network import InputPopulation, Population, Projection, SpikingNetwork
from whetsim.recording import Recording, Timing
from whetsim_hardware import ann_energy, estimate_energy, load_chip
from whetsim_hardware.energy_parts import price_of


def one_layer(connectivity: Any, shape: tuple[int, ...], target: tuple[int, ...]) -> SpikingNetwork:
    size = int(np.prod(target))
    source = InputPopulation(shape, 0, 1, "graded", InputSpec(shape, 0, 1, 1.0))
    layer = Population("layer", target, 1, np.zeros(size, int), np.ones(size, int))
    return SpikingNetwork(
        "one layer", source, (layer,), (Projection("input", "layer", connectivity, 1),), "layer"
    )


def ran(network: SpikingNetwork, input_spikes: Any, spikes: Any = 0) -> Recording:
    """Return a recording with given counts; every input spike reaches as many synapses."""
    events = np.atleast_1d(np.asarray(input_spikes, dtype=np.int64))
    fan_out = network.projections[0].connectivity.fan_out
    assert fan_out.min() == fan_out.max()
    counts = np.broadcast_to(np.asarray(spikes, dtype=np.int64), events.shape)
    return Recording(
        network=network,
        backend="exact",
        schedule="pipelined",
        versions={},
        n_samples=len(events),
        spike_counts={"input": events, "layer": counts},
        synops={"layer": events * int(fan_out[0])},
        digests={},
        packed={},
        scores=None,
        samples=None,
        samples_digest="",
        input_rounding=0.0,
        timing=Timing(0, 0, 0),
    )


@pytest.fixture(scope="module")
def full_truenorth() -> SpikingNetwork:
    """Return 2^20 neurons with 128 synapses each."""
    shape = (64, 64, 256)
    kernel = np.ones((1, 1, 128, 256), dtype=np.int64)
    connectivity = Convolution(kernel, Geometry(shape, shape, (1, 1), groups=2))
    assert connectivity.n_synapses == 2**20 * 128
    return one_layer(connectivity, shape, shape)


def truenorth_mw(network: SpikingNetwork, rate_hz: float, energy_set: str) -> float:
    """Return the power at a mean rate: spikes of one tick, over the tick."""
    spikes = np.full(100, int(2**20 * rate_hz * 1e-3))
    spikes[: round((2**20 * rate_hz * 1e-3 % 1) * 100)] += 1
    estimate = estimate_energy(ran(network, spikes), "truenorth", energy_set=energy_set)
    assert (estimate.n_cores, estimate.n_chips) == (4096, 1)
    assert estimate.pace.interval_us == (1000, 1000, 1000)
    return estimate.total_pj.typical / 1000 * 1e-3  # pJ / us = uW


@pytest.mark.parametrize(
    ("rate_hz", "power_mw", "off"), [(11.58, 68, 0.001), (20.07, 71, 0.006), (95.93, 94, 0.001)]
)
def test_the_sweep_of_truenorth_at_08_v(
    full_truenorth: SpikingNetwork, rate_hz: float, power_mw: float, off: float
) -> None:
    """The line goes through the outer points; the middle one was held out."""
    assert truenorth_mw(full_truenorth, rate_hz, "fit") == pytest.approx(power_mw, rel=off)


def test_truenorth_at_20_hz(full_truenorth: SpikingNetwork) -> None:
    """26 pJ an event, all in: 69.8 mW at 2^20 neurons, 3.1 % below the 72 mW it comes from."""
    power = truenorth_mw(full_truenorth, 20, "all_in")
    assert power == pytest.approx(72, rel=0.035)
    assert power == pytest.approx(2**20 * 20 * 128 * 26e-12 * 1e3, rel=1e-6)


def test_nothing_is_added_to_what_is_all_in(full_truenorth: SpikingNetwork) -> None:
    estimate = estimate_energy(ran(full_truenorth, 20_000), "truenorth", energy_set="all_in")
    assert [part.name for part in estimate.parts] == ["synops"]
    assert estimate.static_pj == (0, 0, 0)


def test_routing_apart_is_the_same_line() -> None:
    sets = load_chip("truenorth").energy
    fit, apart = (price_of(sets[name], "synop") for name in ("fit", "fit_hops"))
    hop = price_of(sets["fit_hops"], "hop")
    assert fit and apart and hop
    hops = sets["fit_hops"].quantities["hops_per_spike"].value
    assert apart.range.typical + hops * hop.range.typical / 128 == pytest.approx(
        fit.range.typical, rel=0.003
    )


def test_the_operations_of_loihi() -> None:
    """Table 2 of Davies 2018."""
    quantities = load_chip("loihi").energy["table2"].quantities
    published = {
        "synop_pj": 23.6,
        "neuron_active_pj": 81,
        "neuron_inactive_pj": 52,
        "spike_in_tile_pj": 1.7,
        "hop_ew_pj": 3.0,
        "hop_ns_pj": 4.0,
        "learning_pj": 120,
    }
    assert {key: quantities[key].value for key in published} == published
    timing = load_chip("loihi").timing
    times = {"synop_ns": 3.5, "neuron_active_ns": 8.4, "neuron_inactive_ns": 5.3}
    assert {key: timing[key].value for key in times} == times


def test_loihi_counts_each_operation_once() -> None:
    network = one_layer(Dense(np.ones((30, 20), dtype=np.int64)), (30,), (20,))
    estimate = estimate_energy(ran(network, 7, 5), "loihi", step_us=10)
    assert estimate["synops"].energy_pj == pytest.approx([7 * 20 * 23.6] * 3)
    assert estimate["neuron updates"].energy_pj == pytest.approx(
        [20 * 52, 5 * 81 + 15 * 52, 20 * 81]
    )
    assert estimate["static"].energy_pj == pytest.approx([0.227e4, 104e4, 104e4])
    assert estimate.latency_us == (20, 20, 20)
    assert estimate.throughput_hz == (1e5, 1e5, 1e5)


@pytest.fixture(scope="module")
def dense_layer() -> SpikingNetwork:
    return one_layer(Dense(np.ones((784, 128), dtype=np.int64)), (784,), (128,))


def test_the_dense_layer_that_keras_spiking_prints(dense_layer: SpikingNetwork) -> None:
    """Its documentation prints 8.64e-04 J for 784 to 128 on the CPU."""
    estimate = ann_energy(dense_layer, ran(dense_layer, 100), "cpu")
    assert estimate.dense_macs == 100_352
    assert f"{estimate.dense_pj.typical * 1e-12:.2e}" == "8.64e-04"


KERAS_SPIKING = {
    # J an operation, J a neuron (keras_spiking/model_energy.py), and what keras-spiking 0.3.0
    # itself returned for this layer with 90, 110 and 121 input spikes in one step.
    "cpu": (8.6e-9, 8.6e-9, 0.0008641279999999999),
    "gpu": (0.3e-9, 0.3e-9, 3.0144e-05),
    "arm": (0.9e-9, 0.9e-9, 9.043199999999999e-05),
    "loihi": (27.1e-12, 81e-12, 3.8152961947812506e-07),
    "spinnaker": (13.3e-9, 26e-9, 0.00018548480955937502),
    "spinnaker2": (0.45e-9, 2.19e-9, 6.4435203234375e-06),
}


@pytest.mark.parametrize("device", KERAS_SPIKING)
def test_keras_spiking_on_all_its_devices(dense_layer: SpikingNetwork, device: str) -> None:
    """Its formula: energy a synop * connections * mean input, and energy a neuron * neurons."""
    per_synop, per_neuron, returned = KERAS_SPIKING[device]
    recording = ran(dense_layer, [90, 110, 121])
    if device in ("cpu", "gpu", "arm"):
        ours = ann_energy(dense_layer, recording, device).dense_pj.typical
        formula = per_synop * 784 * 128 + per_neuron * 128
    else:
        chosen = "keras_spiking" if device == "loihi" else None
        estimate = estimate_energy(recording, device, energy_set=chosen)
        ours = estimate.dynamic_pj.typical
        formula = per_synop * 784 * 128 * (107 / 784) + per_neuron * 128
    assert ours * 1e-12 == pytest.approx(formula, rel=1e-12)
    # It takes the mean of the input in float32.
    assert ours * 1e-12 == pytest.approx(returned, rel=1e-6)


def test_the_power_of_odin() -> None:
    """477 uW at 75 MHz and 37.5 million synaptic operations a second."""
    network = one_layer(Dense(np.ones((256, 10), dtype=np.int64)), (256,), (10,))
    estimate = estimate_energy(ran(network, 100), "odin")
    interval = estimate.pace.interval_us
    assert interval is not None
    assert estimate["synops"].count == 25_600
    assert 25_600 / interval.typical == pytest.approx(37.5)
    power_uw = estimate.total_pj.typical / interval.typical
    assert power_uw == pytest.approx(477, abs=0.5)
    assert power_uw / 37.5 == pytest.approx(12.7, abs=0.05)


def test_reference_processors() -> None:
    """40 W over 46e12 multiply-additions a second; 278 mW over 35 images of 666 million."""
    tpu, eyeriss = (load_chip(name) for name in ("tpu_v1", "eyeriss"))
    assert tpu.energy["peak"].quantities["mac_pj"].value == pytest.approx(40 / 46, abs=0.005)
    assert eyeriss.energy["alexnet"].quantities["mac_pj"].value == pytest.approx(
        278e9 / (35 * 666e6), abs=0.05
    )
