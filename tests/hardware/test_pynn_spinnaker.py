"""SpiNNaker's own tool chain takes the networks, on a virtual board.

It needs an environment of its own; docs/spinnaker.md has the command that makes one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import whetsim
from whetsim.errors import SampleError, UnsupportedError
from whetsim.network import SpikingNetwork
from whetsim.testing.cases import case, on_coarsest_grid

pytest.importorskip(
    "spynnaker", reason="sPyNNaker is not installed; docs/spinnaker.md makes an environment for it"
)
from whetsim_hardware.pynn_spinnaker import SpinnakerSimulation

DIGITS = Path(whetsim.__file__).parent / "networks" / "digits_conv.safetensors"
MNIST = Path(__file__).parents[2] / "benchmarks" / "networks" / "mnist_dense_binary.safetensors"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give each test an empty home folder, which must stay empty of configurations."""
    monkeypatch.setenv("HOME", str(tmp_path))
    yield tmp_path
    assert not list(tmp_path.rglob(".spynnaker.cfg"))


def prepared(network: SpikingNetwork) -> SpinnakerSimulation:
    simulation = whetsim.get_backend("pynn.spinnaker").prepare(network)
    assert isinstance(simulation, SpinnakerSimulation)
    return simulation


def test_the_tool_chain_takes_the_mnist_network() -> None:
    network = whetsim.map_to_spikes(whetsim.load(MNIST))
    samples = np.random.default_rng(1).integers(0, 2, (3, network.input.size))
    with prepared(network) as simulation:
        found = simulation.accept(samples)
    assert found.is_virtual
    assert list(found.cores) == ["input", *(p.name for p in network.populations), "bias"]
    # 256 neurons fill a core, and a source with more spikes them from one core.
    assert [found.cores[p.name] for p in network.populations] == [1, 1, 1]
    assert found.n_cores == sum(found.cores.values()) and found.chips >= 1
    assert 0 < found.largest_table <= found.routing_entries
    assert set(found.ring_buffer_shifts) == {p.name for p in network.populations}
    assert all(len(s) == 2 for s in found.ring_buffer_shifts.values())
    assert found.placed == {p.name: 1 for p in network.populations}
    assert "(1 in our placement)" in str(found)
    assert found.to_dict()["n_cores"] == found.n_cores
    assert f"{found.n_cores} cores" in str(found)


def test_populations_are_cut_at_256_neurons() -> None:
    network = whetsim.map_to_spikes(whetsim.load(DIGITS))
    samples = np.zeros((1, network.input.samples.size), np.uint8)
    with prepared(network) as simulation:
        found = simulation.accept(samples)
    for population in network.populations:
        assert found.cores[population.name] >= -(-population.size // 256)


def test_a_virtual_board_gives_no_spikes() -> None:
    busy = case("stored_dense_binary")
    with (
        prepared(on_coarsest_grid(busy.network)) as simulation,
        pytest.raises(UnsupportedError, match="no board is configured"),
    ):
        simulation.run(busy.samples)


def test_bad_samples_are_refused() -> None:
    busy = case("stored_dense_binary")
    with (
        prepared(on_coarsest_grid(busy.network)) as simulation,
        pytest.raises(SampleError, match="the network reads"),
    ):
        simulation.accept(busy.samples + 7)


def test_what_it_has_not_is_refused() -> None:
    engine, network = whetsim.get_backend("pynn.spinnaker"), case("smallest").network
    with pytest.raises(UnsupportedError, match="no board 'spalloc'; it has: auto, virtual"):
        engine.prepare(network, board="spalloc")
    with pytest.raises(UnsupportedError, match="schedule 'sequential' is not supported"):
        engine.prepare(network, schedule="sequential")
