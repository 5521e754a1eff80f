"""Operations and energy estimates of runs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import whetsim
from tests.core.random_models import models, random_samples
from whetsim.connectivity import Convolution, Dense, Geometry
from whetsim.errors import SampleError, UnknownNameError, UnsupportedError
from whetsim.model import InputSpec
from whetsim.network import InputPopulation, Population, Projection, SpikingNetwork
from whetsim.recording import Recording
from whetsim_hardware import ann_energy, chip_names, count_operations, estimate_energy, load_chip
from whetsim_hardware.energy_parts import total
from whetsim_hardware.operations import dense_synapses
from whetsim_hardware.place import place

ESTIMATED = [n for n in chip_names() if load_chip(n).status in ("full", "placed")]
REFUSED = [n for n in chip_names() if load_chip(n).energy_refused]
REFERENCES = [n for n in chip_names() if load_chip(n).status == "reference"]


def small_network(high: int = 1) -> SpikingNetwork:
    """Return three populations, one of them behind a skip connection."""
    rng = np.random.default_rng(2)

    def weights(n: int, m: int) -> Dense:
        return Dense(rng.integers(-3, 5, (n, m)))

    def population(name: str, size: int, depth: int) -> Population:
        return Population(name, (size,), depth, rng.integers(-1, 2, size), np.full(size, 2))

    source = InputPopulation((30,), 0, high, "graded", InputSpec((30,), 0, high, 1 / high))
    return SpikingNetwork(
        "small",
        source,
        (population("one", 20, 1), population("two", 12, 2), population("three", 5, 3)),
        (
            Projection("input", "one", weights(30, 20), 1),
            Projection("one", "two", weights(20, 12), 1),
            Projection("two", "three", weights(12, 5), 1),
            Projection("one", "three", weights(20, 5), 2),
        ),
        "three",
    )


@pytest.fixture(scope="module")
def recording() -> Recording:
    samples = np.random.default_rng(4).random((40, 30)) < 0.4
    return whetsim.run(small_network(), samples, record="rasters")


def test_operations_are_those_of_the_rasters(recording: Recording) -> None:
    network, operations = recording.network, count_operations(recording)
    rasters: dict[str, Any] = {n: recording.raster(n) for n in ("one", "two", "three")}
    assert recording.samples is not None
    rasters["input"] = recording.samples.reshape(40, 30) != 0
    synops = dense = zeros = stored = 0
    for projection in network.projections:
        weight = projection.connectivity.weight
        synops += int((rasters[projection.source] @ (weight != 0).astype(int)).sum())
        dense += weight.size
        zeros += int((weight == 0).sum())
        stored += weight.size
    biases = sum(p.size for p in network.populations)
    assert operations.effective_acs == pytest.approx(synops / 40)
    assert operations.effective_macs == 0
    assert operations.dense == dense
    assert operations.connection_sparsity == zeros / stored
    assert operations.footprint == 4 * (stored + biases)
    spikes = sum(int(rasters[n].sum()) for n in ("one", "two", "three"))
    assert operations.spikes == pytest.approx(spikes / 40)
    assert operations.activation_sparsity == pytest.approx(1 - spikes / 40 / 37)
    assert operations.neuron_updates == 37
    assert operations.label == "measured in simulation"
    assert json.loads(operations.to_json())["neurobench"] == operations.neurobench()
    assert "ActivationSparsity" in str(operations)


def test_values_are_multiplied_and_spikes_added() -> None:
    samples = np.random.default_rng(4).integers(0, 8, (40, 30))
    network = small_network(high=7)
    operations = count_operations(whetsim.run(network, samples))
    first = network.projections[0].connectivity
    macs = float(((samples != 0) @ first.fan_out).mean())
    assert operations.effective_macs == pytest.approx(macs)
    assert operations.effective_acs == pytest.approx(operations.synops - macs)
    planes = count_operations(whetsim.run(network, samples, encoding="bitplane"))
    assert planes.effective_macs == 0
    assert planes.effective_acs > operations.effective_acs


def test_values_and_spikes_that_reach_one_population() -> None:
    network = small_network(high=7)
    shortcut = Projection("input", "three", Dense(np.ones((30, 5), dtype=np.int64)), 3)
    network = replace(network, projections=(*network.projections, shortcut), graded_fingerprint="")
    samples = np.random.default_rng(4).integers(0, 8, (40, 30))
    with pytest.raises(SampleError, match=r"both reach 'three'.*Run with record='rasters'"):
        count_operations(whetsim.run(network, samples))
    kept = whetsim.run(network, samples, record="rasters")
    macs = ((samples != 0) @ network.projections[0].connectivity.fan_out).mean()
    macs += (samples != 0).sum(axis=1).mean() * 5
    assert count_operations(kept).effective_macs == pytest.approx(float(macs))


@settings(max_examples=60, deadline=None)
@given(models(), st.randoms(use_true_random=False))
def test_more_is_counted_densely_than_effectively(model: Any, random: Any) -> None:
    network = whetsim.map_to_spikes(model)
    recording = whetsim.run(network, random_samples(random, model.input, 5), record="rasters")
    operations = count_operations(recording)
    for population in operations.populations:
        assert 0 <= population.macs <= population.synops <= population.dense
        assert 0 <= population.spikes <= population.n_neurons
    for projection in network.projections:
        assert dense_synapses(projection.connectivity) >= projection.connectivity.n_synapses


def test_dense_synapses_of_a_convolution() -> None:
    geometry = Geometry((5, 6, 4), (3, 3, 6), (3, 2), (2, 2), before=(1, 0), groups=2)
    weight = np.ones((3, 2, 2, 6), dtype=np.int64)
    full = Convolution(weight, geometry)
    weight[0] = 0
    assert dense_synapses(Convolution(weight, geometry)) == full.n_synapses


@pytest.mark.parametrize("is_or", [True, False])
def test_pools_are_told_from_layers(is_or: bool) -> None:
    geometry = Geometry((4, 4, 3), (2, 2, 3), (2, 2), (2, 2), groups=3)
    weight = np.full((2, 2, 1, 3), 2, dtype=np.int64)
    bias = np.zeros(12, int) if is_or else np.full(12, -6)
    source = InputPopulation((4, 4, 3), 0, 1, "graded", InputSpec((4, 4, 3), 0, 1, 1.0))
    pool = Population("pool", (2, 2, 3), 1, bias, np.ones(12, int))

    def counted(pool: Population, weight: Any) -> Any:
        projection = Projection("input", "pool", Convolution(weight, geometry), 1)
        network = SpikingNetwork("pooling", source, (pool,), (projection,), "pool")
        return count_operations(whetsim.run(network, np.ones((1, 4, 4, 3), int)))

    operations = counted(pool, weight)
    assert operations.populations[0].is_pool
    assert (operations.synops, operations.effective_acs, operations.dense) == (48, 0, 0)
    weight[0, 0, 0, 1] = -2
    assert not counted(pool, weight).populations[0].is_pool
    biased = replace(pool, bias=np.full(12, -3))
    assert not counted(biased, np.abs(weight)).populations[0].is_pool


@pytest.mark.parametrize("name", ESTIMATED)
def test_parts_add_up(name: str, recording: Recording) -> None:
    chip = load_chip(name)
    for energy_set in chip.energy:
        estimate = estimate_energy(recording, chip, energy_set=energy_set)
        known = [p.energy_pj for p in estimate.parts if p.energy_pj is not None]
        assert known
        assert estimate.total_pj == pytest.approx(total(known))
        low, typical, high = estimate.total_pj
        assert 0 <= low <= typical <= high
        across = estimate.across_sets_pj
        assert across.low <= low and high <= across.high
        assert set(estimate.other_sets) == set(chip.energy) - {energy_set}


@pytest.mark.parametrize("name", ESTIMATED)
def test_an_estimate_says_what_it_is(name: str, recording: Recording) -> None:
    estimate = estimate_energy(recording, name)
    text = str(estimate)
    assert "estimated, for one inference" in text
    assert "counts measured in simulation on exact" in text
    assert "not placed" in text
    for part in estimate.missing:
        assert part.note and part.name in text
    content = json.loads(estimate.to_json())
    assert content["labels"] == {"counts": "measured in simulation", "energies": "estimated"}
    assert [p["name"] for p in content["parts"]] == [p.name for p in estimate.parts]
    used = {key for p in estimate.parts for key in p.keys}
    for key in used:
        assert f"{key} = " in estimate.sources()
    assert len(estimate.sources().splitlines()) == len(used | set(estimate.pace.keys))


def test_what_is_not_in_a_count_is_said(recording: Recording) -> None:
    odin, truenorth = (estimate_energy(recording, name) for name in ("odin", "truenorth"))
    assert "shift, bias or clear membranes are in neither energy nor time" in odin["synops"].note
    assert "at least: a weight on lines of several axon types" in truenorth["synops"].note
    for estimate in (odin, truenorth):
        assert f"  synops: {estimate['synops'].note}" in str(estimate).splitlines()


def with_more_spikes(recording: Recording, name: str, more: Any) -> Recording:
    """Return the recording with further spikes of a population, at synapses of the mean."""
    counts, synops = dict(recording.spike_counts), dict(recording.synops)
    size = recording.network.size_of(name)
    added = np.minimum(more, size - counts[name])
    counts[name] = counts[name] + added
    for projection in recording.network.projections:
        if projection.source == name:
            fan_out = int(projection.connectivity.fan_out.min())
            synops[projection.target] = synops[projection.target] + added * fan_out
    return replace(recording, spike_counts=counts, synops=synops)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(ESTIMATED),
    st.sampled_from(["input", "one", "two", "three"]),
    st.integers(0, 20),
    st.sampled_from(["pipelined", "sequential"]),
    st.booleans(),
)
def test_more_spikes_never_cost_less(
    name: str, population: str, more: int, schedule: str, placed: bool
) -> None:
    samples = np.random.default_rng(4).random((10, 30)) < 0.4
    before = replace(whetsim.run(small_network(), samples), schedule=schedule)
    placement = None
    if placed and name in ("loihi", "spinnaker"):
        placement = place(before.network, name)
    after = with_more_spikes(before, population, more)
    for energy_set in load_chip(name).energy:
        few = estimate_energy(before, name, placement, energy_set=energy_set)
        many = estimate_energy(after, name, placement, energy_set=energy_set)
        for less, greater in zip(few.total_pj, many.total_pj, strict=True):
            assert greater >= less * (1 - 1e-12)
        if few.latency_us is not None and many.latency_us is not None:
            assert many.latency_us.typical >= few.latency_us.typical * (1 - 1e-12)


def test_a_placement_adds_messages_and_hops(recording: Recording) -> None:
    placement = place(recording.network, "loihi")
    bare = estimate_energy(recording, "loihi")
    placed = estimate_energy(recording, "loihi", placement)
    assert {"axon messages", "hops"} <= {p.name for p in bare.missing}
    assert not {"axon messages", "hops"} & {p.name for p in placed.missing}
    assert (placed.n_cores, placed.n_chips) == (placement.n_cores, placement.n_chips)
    sent = sum(
        recording.spikes_per_sample[name] * n for name, n in placement.messages_per_spike.items()
    )
    assert placed["axon messages"].count == pytest.approx(sent)
    assert placed["axon messages"].energy_pj == pytest.approx([sent * 1.7] * 3)
    far = replace(placement, hops=dict.fromkeys(placement.hops, 2.0))
    hops = estimate_energy(recording, "loihi", far)["hops"]
    assert hops.count == pytest.approx(2 * sent)
    assert hops.energy_pj == pytest.approx([2 * sent * 3.0, 2 * sent * 3.5, 2 * sent * 4.0])
    assert "not placed" not in str(placed)


def test_inserted_neurons_are_paid_for(recording: Recording) -> None:
    placement = place(recording.network, "loihi")
    bare = estimate_energy(recording, "loihi", placement)
    inserted = replace(
        placement,
        splitters={"one": 50},
        copies={"two": 12},
        extra_steps=1,
        messages_per_spike={**placement.messages_per_spike, "one/splitter": 1.0},
    )
    more = estimate_energy(recording, "loihi", inserted)
    spikes = recording.spikes_per_sample
    assert more["spikes out"].count == pytest.approx(
        sum(spikes[n] for n in ("one", "two", "three")) + spikes["one"] * 50 / 20 + spikes["two"]
    )
    assert more["neuron updates"].count == 37 + 50 + 12
    synops = recording.synops["two"].mean() + spikes["one"] * 50 / 20
    assert bare["synops"].count is not None
    assert more["synops"].count == pytest.approx(bare["synops"].count + synops)
    assert bare["axon messages"].count is not None
    assert more["axon messages"].count == pytest.approx(bare["axon messages"].count + spikes["one"])
    assert bare.latency_us is not None and more.latency_us is not None
    assert more.latency_us.typical == pytest.approx(bare.latency_us.typical * 5 / 4)


@pytest.mark.parametrize("delay", [1, 17])
def test_messages_of_splitters_are_counted_for_what_they_repeat(delay: int) -> None:
    """Two neurons feed eight cores each, by eight splitters each that stand on two cores."""
    source = InputPopulation((3,), 0, 1, "graded", InputSpec((3,), 0, 1, 1.0))
    zeros, ones = np.zeros(30, int), np.ones(30, int)
    network = SpikingNetwork(
        "split",
        source,
        (
            Population("a", (2,), 1, zeros[:2], ones[:2]),
            Population("b", (30,), 1 + delay, zeros, ones),
        ),
        (
            Projection("input", "a", Dense(np.ones((3, 2), int)), 1),
            Projection("a", "b", Dense(np.ones((2, 30), int)), delay),
        ),
        "b",
    )
    recording = whetsim.run(network, [[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 0]])
    assert recording.spikes_per_sample["a"] == 1
    chip = load_chip("truenorth")
    small = {**chip.limits, "neurons_per_core": replace(chip.limits["neurons_per_core"], value=4)}
    chip = replace(chip, limits=small)
    placement = place(network, chip)
    assert placement.splitters == {"a" if delay == 1 else "a/relay_15": 2 * 8}
    of_input = recording.spikes_per_sample["input"] * placement.messages_per_spike["input"]
    sent = of_input + (2 + 8 if delay == 1 else 1 + 2 + 8)
    near = replace(placement, hops=dict.fromkeys(placement.hops, 1.0))
    estimate = estimate_energy(recording, chip, near, energy_set="fit_hops")
    assert estimate["axon messages"].count == pytest.approx(sent)
    assert estimate["hops"].count == pytest.approx(sent)


def test_steps_of_both_schedules(recording: Recording) -> None:
    pipelined = estimate_energy(recording, "truenorth")
    one_by_one = estimate_energy(replace(recording, schedule="sequential"), "truenorth")
    assert pipelined.pace.interval_us == (1000, 1000, 1000)
    assert one_by_one.pace.interval_us == (4000, 4000, 4000)
    assert pipelined.latency_us == one_by_one.latency_us == (4000, 4000, 4000)
    loihi = estimate_energy(replace(recording, schedule="sequential"), "loihi")
    assert loihi["neuron updates"].count == 4 * 37


def test_the_time_of_loihi_is_that_of_its_busiest_core(recording: Recording) -> None:
    latency = estimate_energy(recording, "loihi").latency_us
    assert latency is not None
    busiest = max(
        8.4 * recording.network.size_of(n) + 3.5 * recording.synops[n].mean()
        for n in ("one", "two", "three")
    )
    assert latency.typical == pytest.approx(4 * (465 + busiest) * 1e-3)


def test_a_population_gets_its_spikes_in_one_step_of_a_sequential_run(
    recording: Recording,
) -> None:
    sequential = replace(recording, schedule="sequential")
    names, network = ("one", "two", "three"), recording.network
    steps = [
        465
        + max(
            8.4 * network.size_of(n) + 3.5 * recording.synops[n].mean() * (network[n].depth == at)
            for n in names
        )
        for at in range(4)
    ]
    estimate = estimate_energy(sequential, "loihi")
    assert estimate.latency_us is not None and estimate.pace.interval_us is not None
    assert estimate.latency_us.typical == pytest.approx(sum(steps) * 1e-3)
    assert estimate.pace.interval_us == estimate.latency_us
    # All on one core: its synaptic operations are spread over the steps, not repeated in each.
    placed = estimate_energy(sequential, "loihi", place(network, "loihi")).latency_us
    assert placed is not None
    synops = sum(recording.synops[n].mean() for n in names)
    assert placed.typical == pytest.approx((4 * (465 + 8.4 * 37) + 3.5 * synops) * 1e-3)


def test_a_step_can_be_given(recording: Recording) -> None:
    slow = estimate_energy(recording, "spinnaker2", step_us=500)
    assert slow.latency_us == (2000, 2000, 2000)
    assert estimate_energy(recording, "spinnaker2").latency_us is None
    assert "time: unknown" in str(estimate_energy(recording, "spinnaker2"))
    fast = estimate_energy(recording, "truenorth", step_us=100)
    assert "powers are those at the chip's own 1000 us" in fast.pace.note
    with pytest.raises(UnsupportedError, match=r"'truenorth' was shown to take at least 47\.6 us"):
        estimate_energy(recording, "truenorth", step_us=10)
    with pytest.raises(UnsupportedError, match="'odin' has no step"):
        estimate_energy(recording, "odin", step_us=10)
    same = estimate_energy(recording, "spinnaker2", step_us=np.int64(500))  # type: ignore[arg-type]
    assert same.to_json() == slow.to_json()
    with pytest.raises(UnsupportedError, match=r"step_us is 0\.1; .* at least 0\.113 us"):
        estimate_energy(recording, "loihi", step_us=0.1)
    for wrong in (0, -1, float("nan"), float("inf"), True, "1", [1]):
        with pytest.raises(UnsupportedError, match="need a number of microseconds > 0"):
            estimate_energy(recording, "loihi", step_us=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", REFUSED)
def test_chips_without_energies_are_refused(name: str, recording: Recording) -> None:
    with pytest.raises(UnsupportedError, match=f"'{name}': its energy cannot be .*published"):
        estimate_energy(recording, name)


def test_what_is_asked_for_in_vain(recording: Recording) -> None:
    with pytest.raises(UnsupportedError, match="Use ann_energy"):
        estimate_energy(recording, "cpu")
    with pytest.raises(UnsupportedError, match="Use estimate_energy"):
        ann_energy(recording.network, recording, "loihi")
    with pytest.raises(UnknownNameError, match=r"'tabel2'; there are: .* Did you mean 'table2'"):
        estimate_energy(recording, "loihi", energy_set="tabel2")
    with pytest.raises(UnknownNameError, match=r"no energies named \['x'\]; there are: table2"):
        estimate_energy(recording, "loihi", energy_set=["x"])  # type: ignore[arg-type]
    for wrong in (-1, 0, float("nan"), float("inf"), "4", True):
        with pytest.raises(
            UnsupportedError, match=r"weight_bytes is .*; need a number of bytes > 0"
        ):
            count_operations(recording, weight_bytes=wrong)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="Did you mean 'synops'"):
        _ = estimate_energy(recording, "loihi")["synop"]
    with pytest.raises(SampleError, match="no samples"):
        estimate_energy(whetsim.run(small_network(), np.zeros((0, 30), int)), "loihi")
    graded = whetsim.run(small_network(high=7), np.ones((3, 30), int))
    with pytest.raises(UnsupportedError, match=r"values up to 7.*Run with encoding='bitplane'"):
        estimate_energy(graded, "loihi")
    placement = place(recording.network, "loihi")
    with pytest.raises(UnsupportedError, match=r"for chip 'loihi' \(need 'spinnaker'\)"):
        estimate_energy(recording, "spinnaker", placement)
    other = replace(placement, network="other")
    with pytest.raises(UnsupportedError, match=r"for network 'other' \(need 'small'\)"):
        estimate_energy(recording, "loihi", other)
    weight = recording.network.projections[0].connectivity.weight.copy()
    weight[0, 0] = 0 if weight[0, 0] else 1
    first = replace(recording.network.projections[0], connectivity=Dense(weight))
    projections = (first, *recording.network.projections[1:])
    changed = replace(recording.network, projections=projections, graded_fingerprint="")
    for unlike in (place(changed, "loihi"), replace(placement, fingerprint="")):
        assert unlike.network == recording.network.name
        with pytest.raises(
            UnsupportedError, match=r"of another network named 'small'\. Place this"
        ):
            estimate_energy(recording, "loihi", unlike)
    strange = replace(placement, relays={"four": 3})
    with pytest.raises(UnsupportedError, match="a population 'four' that did not run"):
        estimate_energy(recording, "loihi", strange)


@pytest.mark.parametrize("name", REFERENCES)
def test_the_artificial_network(name: str, recording: Recording) -> None:
    operations = count_operations(recording)
    for energy_set, energies in load_chip(name).energy.items():
        estimate = ann_energy(recording.network, recording, name, energy_set=energy_set)
        assert estimate.dense_macs == operations.dense
        assert estimate.effective_macs == pytest.approx(operations.effective_acs)
        for dense, skipping in zip(estimate.dense_pj, estimate.skipping_pj, strict=True):
            assert 0 < skipping < dense
        assert json.loads(estimate.to_json())["dense_macs"] == operations.dense
        assert "skipping zeros" in str(estimate)
        assert (
            len(estimate.sources().splitlines()) == len(estimate.keys) <= len(energies.quantities)
        )


def test_a_multiplication_of_8_bits_reads_8_bits(recording: Recording) -> None:
    estimate = ann_energy(recording.network, recording, "horowitz45", energy_set="int8")
    assert estimate.each_mac_pj.typical == pytest.approx(0.3 + 8 * 20 / 64)
    wide = ann_energy(recording.network, recording, "horowitz45", energy_set="fp32")
    assert wide.each_mac_pj.typical == pytest.approx(4.6 + 32 * 20 / 64)


def test_bit_planes_are_one_value_for_the_artificial_network() -> None:
    network = small_network(high=7)
    samples = np.random.default_rng(4).integers(0, 8, (40, 30))
    graded = ann_energy(network, whetsim.run(network, samples), "cpu")
    planes = ann_energy(network, whetsim.run(network, samples, encoding="bitplane"), "cpu")
    assert planes.dense_macs == graded.dense_macs
    assert graded.effective_macs <= planes.effective_macs <= planes.dense_macs
    assert "bit planes" in str(planes)
    with pytest.raises(SampleError, match="other populations than"):
        smaller = replace(network, projections=network.projections[:1], graded_fingerprint="")
        smaller = replace(smaller, populations=network.populations[:1], output="one")
        ann_energy(smaller, whetsim.run(network, samples), "cpu")
