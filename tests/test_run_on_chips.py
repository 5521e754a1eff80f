"""`whetsim run` on every emulated chip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whetsim
from whetsim.testing.networks import dense_model, random_samples


def command(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "whetsim.cli", *args],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "COLUMNS": "200"},
        check=False,
    )


def as_json(*args: str) -> Any:
    result = command(*args, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return the files of a small network with a hostile name, and of samples for it."""
    folder = tmp_path_factory.mktemp("net")
    model = replace(dense_model(np.random.default_rng(3)), name="<script>alert(1)</script>")
    whetsim.save(model, folder / "net.safetensors")
    x = random_samples(np.random.default_rng(4), model.input, 30)
    np.savez(folder / "data.npz", x=x, y=np.zeros(30, dtype=int))
    return str(folder / "net.safetensors"), str(folder / "data.npz")


@pytest.mark.parametrize("chip", ["loihi", "truenorth", "spinnaker", "odin"])
def test_a_network_runs_on_an_emulated_chip(files: tuple[str, str], chip: str) -> None:
    net, data = files
    told = as_json("run", net, "--data", data, "--backend", chip)
    assert told["kind"] == "emulated" and told["backend"] == chip
    assert told["quantization"]["flips"] == 0  # its weights are small whole numbers already
    exact = as_json("run", net, "--data", data)
    assert exact["kind"] == "reference"
    assert told["spikes_per_sample"] == exact["spikes_per_sample"]


def test_shards_take_no_chips(files: tuple[str, str], tmp_path: Path) -> None:
    net, data = files
    more = ("--shards", "2", "--out", str(tmp_path / "out"))
    result = command("run", net, "--data", data, "--backend", "loihi", *more)
    assert result.returncode == 2 and "quantized" in result.stderr
