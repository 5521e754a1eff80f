"""The benchmarks' own checks: wrong answers are found, tables have every line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from whetsim import InputSpec, Model, map_to_spikes
from whetsim import layers as L

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def scripts_can_be_imported() -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path[:] = before


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    import peer_networks

    return peer_networks


def small_model() -> Model:
    """Return a network with every kind of layer that the peers run, and no sum near a tie."""
    rng = np.random.default_rng(0)
    layers: list[L.Layer] = [
        L.Conv2D(
            name="conv",
            inputs="input",
            weight=rng.normal(size=(3, 3, 1, 4)).astype(np.float32),
            bias=rng.normal(size=4).astype(np.float32),
            padding="same",
        ),
        L.Step(name="step_0", inputs="conv"),
        L.MaxPool2D(name="pool", inputs="step_0"),
        L.Flatten(name="flat", inputs="pool"),
        L.Dense(
            name="dense",
            inputs="flat",
            weight=rng.normal(size=(4 * 3 * 4, 5)).astype(np.float32),
            bias=rng.normal(size=5).astype(np.float32),
        ),
        L.Step(name="step_1", inputs="dense"),
    ]
    return Model("small", InputSpec((8, 6, 1), 0, 255, 1 / 255), tuple(layers))


@pytest.fixture(scope="module")
def task(peers: ModuleType) -> Any:
    model = small_model()
    network = map_to_spikes(model)
    images = np.random.default_rng(1).integers(0, 256, (24, 8, 6), dtype=np.uint8)
    return peers.Task(model, network, images, peers._output(network, images))


@pytest.mark.parametrize(
    ("peer", "modules"),
    [
        ("onnxruntime", ("onnx", "onnxruntime")),
        ("torch", ("torch",)),
        ("snntorch", ("torch", "snntorch")),
    ],
)
def test_each_peer_gives_the_exact_spikes(
    peers: ModuleType, task: Any, peer: str, modules: tuple[str, ...]
) -> None:
    for module in modules:
        pytest.importorskip(module)
    networks, _ = peers.PEERS[peer]
    ways = list(networks(task.model, 2))
    assert len({way for way, _ in ways}) == len(ways) >= 2
    for _, runner in ways:
        found = peers.examine(task, peers.Choice(runner, 10, ""))
        assert found["right"] and found["images_that_differ"] == 0
        # Not two networks that never fire.
        assert 0 < peers.in_batches(runner, task.x, 7).mean() < 1


def test_a_wrong_answer_is_no_tie(peers: ModuleType, task: Any) -> None:
    known = peers.truth(task.model, task.network, task.images)
    clean = [raster.copy() for raster in known.spikes]
    assert known.differences(clean) == {"faults": 0, "ties": 0, "largest_margin": 0.0}
    place = np.unravel_index(known.margin[0].argmax(), clean[0].shape)
    clean[0][place] ^= True
    clean[1][place[0]] ^= True  # follows from it, so it is not counted
    found = known.differences(clean)
    assert (found["faults"], found["ties"]) == (1, 0)
    assert found["largest_margin"] == known.margin[0].max()


def test_a_sum_within_rounding_is_a_tie(peers: ModuleType, task: Any) -> None:
    known = peers.truth(task.model, task.network, task.images)
    near = peers.Truth(known.spikes, [m * 1e-9 for m in known.margin], known.bound)
    flipped = [known.spikes[0], ~known.spikes[1]]
    assert near.differences(flipped)["faults"] == 0
    assert near.differences(flipped)["ties"] == flipped[1].size


def test_the_batches_of_a_stream_are_as_many_as_asked_for() -> None:
    import scaling

    found = np.concatenate(list(scaling.batches(np.arange(2_500), 5_700)))
    assert np.array_equal(found, np.arange(5_700) % 2_500)


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("synapses", [10**5, 10**6])
def test_made_networks_have_the_size_asked_for(kind: str, synapses: int) -> None:
    import scaling

    network = map_to_spikes(scaling.chain(kind, synapses))
    assert 0.85 * synapses < network.n_synapses < 1.1 * synapses
    assert network.depth == scaling.DEPTH


@pytest.mark.parametrize("totals", [False, True])
def test_a_line_of_the_scaling_table_comes_from_a_process(totals: bool) -> None:
    point = {"axis": "synapses", "network": "dense", "samples": 300, "synapses": 10_000}
    command = [sys.executable, "scaling.py", "--point", json.dumps(point | {"totals": totals})]
    done = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER, check=True)
    row = json.loads(done.stdout)
    assert row["right"] is True and row["n_synapses"] == 10_000
    assert row["peak_mb"] >= row["before_mb"] > 0
    names = 4
    assert row["results_mb"] * 2**20 == 300 * 8 * (1 + 3 * names)
    assert 0.05 < row["firing"] < 0.2


def test_one_command_knows_its_scripts() -> None:
    import run_all

    for benchmark in run_all.BENCHMARKS:
        assert (FOLDER / f"{benchmark.script}.py").exists()
        for full in (False, True):
            command = [*benchmark.command(full, None), "--help"]
            done = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER, check=True)
            assert all(word in done.stdout for word in command[2:-1] if word.startswith("--"))
    assert [b.script for b in run_all.chosen("scaling,fidelity")] == ["scaling", "fidelity"]
    with pytest.raises(ValueError, match=r"no benchmark 'scale'; there are: fidelity, "):
        run_all.chosen("scale")
