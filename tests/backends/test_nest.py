"""The NEST backend passes the suite, with one thread and with two."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

import whetsim
from whetsim import layers as L
from whetsim.backends import nest as native
from whetsim.errors import UnsupportedError
from whetsim.testing.cases import case
from whetsim.testing.conformance import BackendConformance

pytestmark = pytest.mark.simulator


class TestNest(BackendConformance):
    backend = "nest"


class TestNestOnTwoThreads(BackendConformance):
    backend = "nest"
    options: ClassVar = {"threads": 2}
    max_examples = 10


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "2", 257])
def test_threads_that_make_no_sense(threads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nest = whetsim.get_backend("nest")
    monkeypatch.setattr(nest, "versions", dict)  # no NEST needed
    text = rf"^nest: threads must be a whole number in 1..256 \(got {threads!r}\)"
    with pytest.raises(UnsupportedError, match=text):
        nest.prepare(case("smallest").network, threads=threads)


def test_more_mpi_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    nest = whetsim.get_backend("nest")
    monkeypatch.setattr(nest, "versions", dict)
    monkeypatch.setattr(native, "need", lambda *_: SimpleNamespace(num_processes=4))
    text = r"^nest: NEST runs in 4 MPI processes, .* \(need 1\)\. Start it without mpirun.*--shards"
    with pytest.raises(UnsupportedError, match=text):
        nest.prepare(case("smallest").network)


def dense_network(n_outputs: int) -> whetsim.SpikingNetwork:
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.2, (30, n_outputs)).astype(np.float32)
    layers = (
        L.Dense(name="dense", inputs="input", weight=weight),
        L.Step(name="wide", inputs="dense"),
        L.Dense(name="last", inputs="wide", weight=weight.T / np.float32(n_outputs) ** 0.5),
        L.Step(name="narrow", inputs="last"),
    )
    return whetsim.map_to_spikes(
        whetsim.Model("dense", whetsim.InputSpec((30,), 0, 255, 1 / 255), layers)
    )


def threads_of(network: whetsim.SpikingNetwork, schedule: str) -> int:
    with whetsim.get_backend("nest").prepare(network, schedule=schedule) as simulation:
        simulation.run(np.zeros((1, 30), dtype=np.uint8))
        return int(simulation._nest.local_num_threads)


def test_more_threads_for_larger_networks_and_never_more_than_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small, large = dense_network(20), dense_network(5000)
    monkeypatch.setattr(native, "n_threads", lambda: 2)
    assert threads_of(small, "pipelined") == 1
    assert threads_of(large, "pipelined") == 2
    assert threads_of(large, "sequential") == 1
    monkeypatch.setattr(native, "n_threads", lambda: 1)
    assert threads_of(large, "pipelined") == 1


@pytest.mark.parametrize("threads", [1, 3])
def test_without_compact_synapses(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = dense_network(300)
    samples = np.random.default_rng(1).integers(0, 256, (40, 30), dtype=np.uint8)
    expected = whetsim.run(network, samples, backend="exact", record="rasters")
    for nodes, model in ((native.COMPACT_NODES, native.COMPACT), (100, native.PLAIN)):
        monkeypatch.setattr(native, "COMPACT_NODES", nodes)
        with whetsim.get_backend("nest").prepare(network, threads=threads) as simulation:
            recording = simulation.run(samples, record="rasters")
            assert simulation._synapse == model
        assert whetsim.compare(expected, recording).n_differences == 0


def test_more_neurons_on_a_thread_than_compact_synapses_can_count() -> None:
    network = dense_network(native.COMPACT_NODES)
    samples = np.random.default_rng(1).integers(0, 256, (3, 30), dtype=np.uint8)
    expected = whetsim.run(network, samples, backend="exact", record="rasters")
    recording = whetsim.run(network, samples, backend="nest", threads=1, record="rasters")
    assert expected.spike_counts["wide"].min() > 0
    assert whetsim.compare(expected, recording).n_differences == 0
