"""Running and recording: counts, rasters, synops, predictions, blocks, and what is refused."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whetsim
from whetsim import layers as L
from whetsim.backend import Capabilities
from whetsim.backends.exact import ExactBackend
from whetsim.coding import encode_network, encode_samples, to_integers
from whetsim.errors import SampleError, UnknownNameError, UnsupportedError, WhetsimError
from whetsim.mapping import map_to_spikes
from whetsim.model import INPUT, InputSpec, Model, Readout
from whetsim.network import SpikingNetwork
from whetsim.registry import backend_names, get_backend
from whetsim.runner import run
from whetsim.sums import NetworkSums
from whetsim.testing.networks import (
    all_kinds,
    conv_model,
    dense_model,
    random_samples,
    ties_and_biases,
)


@pytest.fixture(scope="module", params=[dense_model, conv_model, all_kinds])
def network(request: pytest.FixtureRequest) -> SpikingNetwork:
    """Return one of the shipped networks."""
    return map_to_spikes(request.param(np.random.default_rng(0)))


def samples_for(network: SpikingNetwork, n: int = 12) -> np.ndarray:
    return random_samples(np.random.default_rng(1), network.input.samples, n)


# --- counts, rasters, synops --------------------------------------------------------------------


def test_counts_are_the_sums_of_rasters(network: SpikingNetwork) -> None:
    samples = samples_for(network)
    counts = run(network, samples)
    rasters = run(network, samples, record="rasters")
    assert not counts.has_rasters and rasters.has_rasters
    assert set(counts.spike_counts) == {INPUT, *(p.name for p in network.populations)}
    for population in network.populations:
        raster = rasters.raster(population.name)
        assert raster.dtype == bool and raster.shape == (len(samples), population.size)
        expected = raster.sum(axis=1)
        for recording in (counts, rasters):
            found = recording.spike_counts[population.name]
            assert found.dtype == np.int64
            assert np.array_equal(found, expected)
            assert recording.spikes_per_sample[population.name] == expected.mean()
    events = (samples.reshape(len(samples), -1) != 0).sum(axis=1)
    assert np.array_equal(counts.spike_counts[INPUT], events)
    assert np.array_equal(rasters.samples, samples.reshape(len(samples), -1))
    assert counts.samples is None


@pytest.mark.parametrize("encoding", ["graded", "bitplane", "binary"])
def test_synops_are_spikes_times_synapses(network: SpikingNetwork, encoding: Any) -> None:
    samples = samples_for(network, 4)
    recording = run(network, samples, record="rasters", encoding=encoding)
    encoded = encode_network(network, encoding)
    values = encode_samples(to_integers(samples, encoded.input), encoded.input)
    spikes = {INPUT: values != 0} | {p.name: recording.raster(p.name) for p in network.populations}
    expected = {p.name: np.zeros(len(samples), np.int64) for p in network.populations}
    for projection in encoded.projections:
        for block in projection.connectivity.synapses():
            for sample in range(len(samples)):
                active = spikes[projection.source][sample][block.source]
                expected[projection.target][sample] += int(active.sum())
    assert set(recording.synops) == set(expected)
    for name, counts in expected.items():
        assert np.array_equal(recording.synops[name], counts), name
    total = sum(int(c.sum()) for c in expected.values())
    assert recording.synops_per_sample == total / len(samples)


def test_digests_tell_samples_apart_as_rasters_do(network: SpikingNetwork) -> None:
    recording = run(network, samples_for(network, 30), record="rasters")
    for population in network.populations:
        rows = [row.tobytes() for row in recording.raster(population.name)]
        digests = recording.digests[population.name].tolist()
        assert len(set(rows)) == len(set(digests)) == len(set(zip(rows, digests, strict=True)))


@pytest.mark.parametrize("block_values", [1, 300, 2000])
def test_blocks_do_not_matter(network: SpikingNetwork, block_values: int) -> None:
    samples = samples_for(network, 23)
    whole = run(network, samples, record="rasters")
    with get_backend("exact").prepare(network) as simulation:
        simulation.block_values = block_values
        done: list[tuple[int, int]] = []
        parts = simulation.run(
            samples, record="rasters", progress=lambda *report: done.append(report)
        )
    assert done[-1] == (23, 23)
    assert [d for d, _ in done] == sorted({d for d, _ in done})
    for name in whole.packed:
        assert np.array_equal(whole.packed[name], parts.packed[name])
        assert np.array_equal(whole.synops[name], parts.synops[name])
        assert np.array_equal(whole.digests[name], parts.digests[name])
    if whole.scores is not None:
        assert np.array_equal(whole.scores, parts.scores)


def test_recorded_arrays_are_read_only(network: SpikingNetwork) -> None:
    recording = run(network, samples_for(network, 2), record="rasters")
    for kind in (recording.spike_counts, recording.synops, recording.digests, recording.packed):
        for array in kind.values():
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0
        with pytest.raises(TypeError):
            kind["new"] = None  # type: ignore[index]


def test_rasters_are_packed_bits(network: SpikingNetwork) -> None:
    recording = run(network, samples_for(network, 3), record="rasters")
    for population in network.populations:
        assert recording.packed[population.name].shape == (3, -(-population.size // 8))
        assert recording.packed[population.name].dtype == np.uint8


def test_a_simulation_runs_again(network: SpikingNetwork) -> None:
    samples = samples_for(network)
    with get_backend("exact").prepare(network) as simulation:
        first = simulation.run(samples)
        second = simulation.run(samples[::-1])
    for name, digests in first.digests.items():
        assert np.array_equal(digests, second.digests[name][::-1])
    with pytest.raises(WhetsimError, match=r"simulation is closed. Prepare the network again"):
        simulation.run(samples)


def test_what_a_recording_says_about_its_run(network: SpikingNetwork) -> None:
    recording = run(network, samples_for(network, 2), schedule="sequential")
    assert (recording.backend, recording.schedule) == ("exact", "sequential")
    assert recording.versions["whetsim"] == whetsim.__version__
    assert recording.n_samples == 2
    assert recording.network.fingerprint == network.fingerprint
    timing = recording.timing
    assert timing.total_s == timing.build_s + timing.run_s + timing.read_s
    assert min(timing.build_s, timing.run_s, timing.read_s) >= 0


def test_sums_are_whole_numbers(network: SpikingNetwork) -> None:
    samples = samples_for(network, 5)
    values = encode_samples(to_integers(samples, network.input), network.input)
    for n in (5, 0):
        sums = NetworkSums(network).of(values[:n])
        for population in network.populations:
            assert sums[population.name].shape == (n, population.size)
            assert np.array_equal(sums[population.name], np.rint(sums[population.name]))


def wide_network() -> SpikingNetwork:
    """Return a network of 4,096 neurons behind 16 binary inputs."""
    weight = np.random.default_rng(0).normal(size=(16, 4096)).astype(np.float32)
    layers = (L.Dense(name="d", inputs=INPUT, weight=weight), L.Step(name="s", inputs="d"))
    return map_to_spikes(Model("wide", InputSpec((16,)), layers))


def peak_of(n_samples: int, record: Any) -> int:
    """Return the memory that a run of `n_samples` takes at most, in bytes."""
    samples = np.random.default_rng(1).integers(0, 2, (n_samples, 16)).astype(np.uint8)
    with get_backend("exact").prepare(wide_network()) as simulation:
        simulation.block_values = 2**19
        simulation.run(samples[:200])
        tracemalloc.start()
        simulation.run(samples, record=record)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak


def test_counts_take_no_memory_per_neuron() -> None:
    few, many = peak_of(500, "counts"), peak_of(3000, "counts")
    assert many - few < 2500 * 200, "a few numbers a sample"
    bits = peak_of(3000, "rasters") - peak_of(500, "rasters")
    assert bits > 2500 * 4096 / 8, "a bit a neuron and sample"


# --- predictions --------------------------------------------------------------------------------


def decoded(readout: Readout | None, n: int, samples: Any) -> Any:
    """Run binary samples through one step that hands them on."""
    model = Model("m", InputSpec((n,)), (L.Step(name="s", inputs=INPUT),), readout=readout)
    return run(map_to_spikes(model), samples)


def test_predictions_and_ties() -> None:
    readout = Readout(key=np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0]], np.uint8))
    samples = [[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 0, 0]]
    recording = decoded(readout, 4, samples)
    assert recording.scores.tolist() == [
        [4, -4, 0],
        [-4, 4, 0],
        [0, 0, 4],
        [0, 0, 0],
        [0, 0, 0],
        [2, -2, 2],
    ]
    assert recording.predictions.tolist() == [0, 1, 2, 0, 0, 0]
    assert recording.tied.tolist() == [False, False, False, True, True, True]
    assert recording.accuracy(np.array([0, 1, 2, 1, 2, 0])) == pytest.approx(4 / 6)


def test_a_decoder_predicts() -> None:
    readout = Readout(decoder=np.array([[0.5, -0.5], [-0.25, 0.25]]))
    recording = decoded(readout, 2, [[1, 0], [0, 1], [1, 1]])
    assert recording.scores.tolist() == [[0.75, -0.75], [-0.75, 0.75], [0.25, -0.25]]
    assert recording.predictions.tolist() == [0, 1, 0]


def test_predictions_without_samples() -> None:
    recording = decoded(Readout(key=np.eye(2, dtype=np.uint8)), 2, np.zeros((0, 2), int))
    assert recording.predictions.tolist() == recording.tied.tolist() == []
    assert np.isnan(recording.accuracy(np.zeros(0, int)))
    assert recording.spikes_per_sample == {INPUT: 0.0, "s": 0.0}
    assert recording.synops_per_sample == 0.0
    assert recording.scores.shape == (0, 2)


def test_no_readout_says_what_to_use() -> None:
    recording = decoded(None, 2, [[1, 0]])
    for read in (lambda: recording.predictions, lambda: recording.tied):
        with pytest.raises(SampleError, match=r"no readout key. Use the output spikes: .*'s'"):
            read()


@pytest.mark.parametrize("labels", [[0], [0, 1, 2], [[0, 1]], 0])
def test_labels_of_the_wrong_shape(labels: Any) -> None:
    recording = decoded(Readout(key=np.eye(2, dtype=np.uint8)), 2, [[1, 0], [0, 1]])
    with pytest.raises(SampleError, match=r"labels: shape .*; need \(2,\), one a sample"):
        recording.accuracy(labels)


# --- what is refused ----------------------------------------------------------------------------


TIES = map_to_spikes(ties_and_biases())


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        (
            {"record": "raster"},
            SampleError,
            r"record is 'raster'; need 'counts' or 'rasters'. Did you mean 'rasters'\?",
        ),
        ({"record": None}, SampleError, "record is None"),
        (
            {"backend": "exat"},
            UnknownNameError,
            r"no backend named 'exat'; registered: .*exact.*"
            r"Did you mean 'exact'\?",
        ),
        ({"backend": ""}, UnknownNameError, "no backend named ''; registered: "),
        ({"speed": 3}, UnsupportedError, "exact: no option 'speed'; it has: threads"),
        ({"threads": 0}, UnsupportedError, "exact: threads must be a whole number in 1..4096"),
        ({"threads": "2"}, UnsupportedError, r"exact: threads must be .* \(got '2'\)"),
        (
            {"encoding": "bitplan"},
            UnsupportedError,
            r"exact: encoding 'bitplan' is not supported; it has: graded, bitplane, binary. Did",
        ),
        (
            {"schedule": "sequentially"},
            UnsupportedError,
            "exact: schedule 'sequentially' is not supported; it has: pipelined, sequential. Did",
        ),
        ({"level": 3}, SampleError, "level is for the binary encoding"),
        ({"input_scale": 0.5}, SampleError, "input_scale is for floats"),
    ],
)
def test_refused_options(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        run(TIES, np.zeros((1, 4), int), **options)
    assert isinstance(caught.value, WhetsimError)
    assert len(str(caught.value).splitlines()) == 1


def test_refused_rasters() -> None:
    with pytest.raises(SampleError, match=r"counts alone. Run with record='rasters'"):
        run(TIES, np.zeros((1, 4), int)).raster("a")
    recording = run(TIES, np.zeros((1, 4), int), record="rasters")
    there = "there are: a, b"
    for name in ("c", INPUT):
        with pytest.raises(UnknownNameError, match=f"no population named '{name}'; {there}"):
            recording.raster(name)


def test_wrong_samples_are_refused_by_run() -> None:
    with pytest.raises(SampleError, match="one sample has shape"):
        run(TIES, np.zeros((1, 5), int))
    with pytest.raises(SampleError, match="floats"):
        run(TIES, np.zeros((1, 4)))


class Limited(ExactBackend):
    """A backend that can do less."""

    name = "limited"
    capabilities = Capabilities(encodings=("bitplane",), schedules=("sequential",), sum_bits=31)


class Rounding(ExactBackend):
    """A backend whose additions round."""

    name = "rounding"
    capabilities = Capabilities(rounds=True)


def test_a_backend_is_held_to_its_capabilities() -> None:
    backend = Limited()
    simulation = backend.prepare(TIES)
    assert simulation.schedule == "sequential"
    assert simulation.run(np.zeros((1, 4), int)).backend == "limited"
    with pytest.raises(UnsupportedError, match="limited: schedule 'pipelined' is not supported"):
        backend.prepare(TIES, schedule="pipelined")
    with pytest.raises(UnsupportedError, match="limited: encoding 'graded' is not supported"):
        backend.prepare(TIES, encoding="graded")
    assert issubclass(UnsupportedError, NotImplementedError)


def test_sums_beyond_a_backend_are_refused() -> None:
    weight = np.full((2, 1), 1e4)
    layers = (L.Dense(name="d", inputs=INPUT, weight=weight), L.Step(name="s", inputs="d"))
    network = map_to_spikes(Model("m", InputSpec((2,), 0, 255, 1.0), layers))
    assert network.sum_bits == 53
    with pytest.raises(UnsupportedError, match=r"limited: sums .* 53 bits; .* 31 bits exactly"):
        Limited().prepare(network)
    with pytest.raises(UnsupportedError, match="rounding: sums of this network may take 53 bits"):
        Rounding().prepare(network)
    assert Rounding().prepare(TIES).run(np.zeros((1, 4), int)).n_samples == 1


# --- the registry -------------------------------------------------------------------------------


def test_the_registry_names_all_backends() -> None:
    names = backend_names()
    assert names == tuple(sorted(names))
    assert {"exact", "brian2", "nest", "pynn.brian2", "pynn.nest"} <= set(names)


def test_a_backend_is_made_once() -> None:
    assert get_backend("exact") is get_backend("exact")
    assert isinstance(get_backend("exact"), ExactBackend)


def test_an_unknown_backend_lists_the_others() -> None:
    with pytest.raises(
        UnknownNameError,
        match=r"no backend named 'nset'; registered: .*exact, .*nest, .* Did you mean 'nest'\?",
    ):
        get_backend("nset")
    assert issubclass(UnknownNameError, LookupError)


def test_an_iterator_of_batches_is_the_whole_array(network: SpikingNetwork) -> None:
    samples = samples_for(network, 23)
    cuts = [samples[:5], samples[5:5], samples[5:6], samples[6:]]
    told: list[Any] = []
    for record in ("counts", "rasters"):
        whole = whetsim.run(network, samples, record=record)
        parts = whetsim.run(
            network, iter(cuts), record=record, progress=lambda *report: told.append(report)
        )
        assert parts.n_samples == 23
        assert parts.samples_digest == whole.samples_digest
        for kind in ("spike_counts", "synops", "digests", "packed"):
            for name, array in getattr(whole, kind).items():
                assert np.array_equal(getattr(parts, kind)[name], array)
    assert told[-1] == (23, None)
    assert np.array_equal(parts.samples, whole.samples)
    assert whetsim.compare(whole, parts).n_differences == 0


def test_an_iterator_without_samples(network: SpikingNetwork) -> None:
    recording = whetsim.run(network, iter([]), record="rasters")
    assert recording.n_samples == 0
    assert recording.samples is not None
    assert recording.samples.shape == (0, network.input.size)


def test_a_bad_batch_is_named(network: SpikingNetwork) -> None:
    samples = samples_for(network, 6)
    bad = samples[3:].astype(np.int64)
    bad[1] += 10_000
    with pytest.raises(SampleError, match=r"batch that begins with sample 3: samples: sample 1, "):
        whetsim.run(network, iter([samples[:3], bad]))


def test_samples_mapped_from_a_file(network: SpikingNetwork, tmp_path: Path) -> None:
    samples = samples_for(network, 9)
    np.save(tmp_path / "samples.npy", samples)
    mapped = np.load(tmp_path / "samples.npy", mmap_mode="r")
    result = whetsim.compare(whetsim.run(network, samples), whetsim.run(network, mapped))
    assert result.n_differences == 0
