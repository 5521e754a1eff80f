"""The Loihi emulator equals nengo-loihi's in every spike, current and membrane of every step.

nengo-loihi needs older packages, so it runs in an environment of its own, which the environment
variable ``WHETSIM_NENGO_LOIHI`` names; docs/emulation.md says how to make it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import whetsim
from tests.hardware.clocked import random_network
from whetsim.datasets import threshold_planes
from whetsim.network import SpikingNetwork
from whetsim_hardware.emulate.common import chip_rule
from whetsim_hardware.emulate.loihi import Compartments, compartments_of
from whetsim_hardware.quantize import quantize

PYTHON = os.environ.get("WHETSIM_NENGO_LOIHI", "")
NETWORK = Path(__file__).parents[2] / "benchmarks" / "networks" / "mnist_dense_binary.safetensors"
LONGEST_S = 1200

pytestmark = pytest.mark.skipif(
    not PYTHON,
    reason="WHETSIM_NENGO_LOIHI is not set to the python of an environment with nengo-loihi",
)

Blocks = list[Compartments]
Synapses = list[tuple[int, int, NDArray[np.int64]]]


def write(path: Path, blocks: Blocks, synapses: Synapses, inputs: NDArray[np.bool_]) -> None:
    """Write registers for `nengo_loihi_run.py`."""
    given: dict[str, object] = {"inputs": inputs}
    for i, block in enumerate(blocks):
        n = len(block.vth)
        for key in ("vth", "bias", "decay_u", "decay_v", "refract"):
            given[f"{key}_{i}"] = np.broadcast_to(getattr(block, key), n)
        given[f"vmin_{i}"], given[f"vmax_{i}"] = block.vmin, block.vmax
    for i, (begin, end, weights) in enumerate(synapses):
        given[f"ends_{i}"], given[f"weights_{i}"] = (begin, end), weights
    np.savez(path, **given)


def run_all(folder: Path) -> None:
    script = Path(__file__).with_name("nengo_loihi_run.py")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([PYTHON, script, folder], check=True, timeout=LONGEST_S, env=environment)


def check_steps(
    path: Path, blocks: Blocks, synapses: Synapses, inputs: NDArray[np.bool_]
) -> tuple[list[NDArray[np.bool_]], dict[str, int]]:
    """Check every step against what nengo-loihi wrote; return spikes of the blocks and counts."""
    with np.load(path.with_suffix(".out.npz")) as stored:
        theirs = {key: stored[key] for key in stored.files}
    ends = np.cumsum([0, *(len(block.vth) for block in blocks)])
    states = [block.start((len(block.vth),)) for block in blocks]
    spikes = [np.zeros((len(inputs) + 1, len(block.vth)), bool) for block in blocks]
    counts = {"spikes": 0}
    for step in range(len(inputs) + 1):
        before = [raster[step - 1] for raster in spikes]
        for i, block in enumerate(blocks):
            arriving = np.zeros(len(block.vth), np.int64)
            for begin, end, weights in synapses:
                if end == i and step:
                    sent = inputs[step - 1] if begin < 0 else before[begin]
                    arriving += sent.astype(np.int64) @ weights
            states[i], fired, overflows = block.step(states[i], arriving)
            spikes[i][step] = fired
            part = slice(ends[i], ends[i + 1])
            where = f"{path.name}, block {i}, step {step}"
            assert np.array_equal(theirs["spikes"][step, part], fired), where
            assert np.array_equal(theirs["current"][step, part], states[i].u), where
            assert np.array_equal(theirs["voltage"][step, part], states[i].v), where
            counts["spikes"] += int(fired.sum())
            for effect, who in overflows.items():
                counts[effect] = counts.get(effect, 0) + int(who.sum())
    return spikes, counts


def random_blocks(rng: np.random.Generator, kind: int) -> tuple[Blocks, Synapses]:
    """Return two layers, one feeding the other.

    Registers are those of nengo-loihi's neurons without leak (kind 0), ours (1), or any (2).
    """
    sizes = rng.integers(1, 60, 3) * (1, 2, 1)
    blocks = []
    for n in sizes[1:]:
        vth = 64 * rng.choice([1, 300, 4000, 131_071], n, p=[0.3, 0.3, 0.3, 0.1])
        bias = rng.integers(-4095, 4096, n) << rng.choice([0, 3, 7])
        if kind == 0:
            settings = {"decay_u": 4094, "decay_v": 0, "vmin": 0, "refract": 1}
        elif kind == 1:
            settings = {}
        else:
            settings = {
                "decay_u": rng.choice([0, 1, 1000, 4095], n),
                "decay_v": rng.choice([0, 1, 3000, 4096], n),
                "vmin": -(2 ** int(rng.integers(0, 24))) + 1,
                "vmax": 2 ** (9 + 2 * int(rng.integers(0, 8))) - 1,
                "refract": rng.integers(1, 4, n),
            }
        blocks.append(Compartments(vth, bias, **settings))
    shifts = rng.integers(0, 9, 2)
    synapses = [
        (i - 1, i, 64 * rng.integers(-127, 128, (sizes[i], sizes[i + 1])) << shifts[i])
        for i in range(2)
    ]
    return blocks, synapses


def test_random_two_layer_networks(tmp_path: Path) -> None:
    jobs = []
    for seed in range(240):
        rng = np.random.default_rng([seed, 7])
        blocks, synapses = random_blocks(rng, seed % 3)
        inputs = rng.random((14, len(synapses[0][2]))) < rng.choice([0.1, 0.5, 0.9])
        path = tmp_path / f"network_{seed:03}.npz"
        write(path, blocks, synapses, inputs)
        jobs.append((path, blocks, synapses, inputs))
    run_all(tmp_path)
    counts: dict[str, int] = {}
    for job in jobs:
        for effect, number in check_steps(*job)[1].items():
            counts[effect] = counts.get(effect, 0) + number
    print(counts)
    assert min(counts.values()) > 100
    assert set(counts) == {
        "spikes", "accumulator wraps", "current wraps", "membrane saturations"
    }  # fmt: skip


def registers_of(network: SpikingNetwork) -> tuple[Blocks, Synapses]:
    """Return the registers that the backend runs a network of dense layers with."""
    place = {p.name: i for i, p in enumerate(network.populations)}
    blocks, synapses = [], []
    for population in network.populations:
        rule = chip_rule(network, population.name)
        blocks.append(compartments_of(rule))
        for source, connectivity in rule.weights:
            assert all(p.delay == 1 for p in network.into(population.name))
            weights = 64 * connectivity.weight.astype(np.int64)
            synapses.append((place.get(source, -1), place[population.name], weights))
    return blocks, synapses


@pytest.mark.parametrize("largest", [9, 127])
def test_small_networks_as_the_backend_runs_them(largest: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(largest)
    full = random_network(rng, largest, sizes=(30, 20, 10, 5))
    # A synapse of one step each: no skip.
    network = SpikingNetwork(
        full.name,
        full.input,
        full.populations,
        tuple(p for p in full.projections if p.delay == 1),
        full.output,
    )
    check(network, rng.integers(0, 2, (60, 30)), tmp_path)


def test_500_mnist_images(tmp_path: Path) -> None:
    if not NETWORK.exists():
        pytest.skip(f"{NETWORK.name} is not in this checkout")
    images, labels = whetsim.datasets.load("mnist", split="test")
    calibration, _ = whetsim.datasets.load("mnist", split="train")
    model = whetsim.load(NETWORK)
    levels = model.metadata["input_levels"]
    planes = threshold_planes(images[:500], levels)
    network = quantize(
        whetsim.map_to_spikes(model), "loihi", threshold_planes(calibration[:1000], levels)
    ).network
    recording = check(network, planes, tmp_path)
    assert np.mean(recording.predictions == labels[:500]) > 0.95


def check(network: SpikingNetwork, samples: NDArray[np.integer], folder: Path) -> whetsim.Recording:
    """Check backend and nengo-loihi step by step, a new sample in each."""
    with whetsim.get_backend("loihi").prepare(network) as simulation:
        recording = simulation.run(samples, record="rasters")
    flat = samples.reshape(len(samples), -1)
    # More steps than samples, until the last one has gone through.
    inputs = np.concatenate([flat, np.zeros((network.depth, flat.shape[1]))]).astype(bool)
    blocks, synapses = registers_of(network)
    path = folder / "network.npz"
    write(path, blocks, synapses, inputs)
    run_all(folder)
    spikes, _ = check_steps(path, blocks, synapses, inputs)
    for population, raster in zip(network.populations, spikes, strict=True):
        # Input of step t arrives in step t + 1, where the population of depth 1 decides.
        mine = raster[population.depth : population.depth + len(samples)]
        assert np.array_equal(recording.raster(population.name), mine)
    return recording
