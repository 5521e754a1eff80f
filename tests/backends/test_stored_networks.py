"""The stored networks are what they claim to be, and the mapping still gives their spikes."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from whetsim import layers as L
from whetsim.mapping import map_to_spikes
from whetsim.model import InputSpec, Model
from whetsim.reference import forward
from whetsim.testing import golden
from whetsim.testing.cases import CASES, case, true_spikes
from whetsim.testing.golden.__main__ import make as make_golden
from whetsim.testing.golden.__main__ import models


def test_there_is_one_of_each_sort() -> None:
    assert set(golden.names()) == set(models())
    assert {f"stored_{name}" for name in golden.names()} <= set(CASES)


def test_they_are_small() -> None:
    sizes = [len(entry.read_bytes()) for entry in files(golden).iterdir() if entry.is_file()]
    assert sum(sizes) < 60_000


@pytest.mark.parametrize("name", golden.names())
def test_the_oracle_gives_the_stored_spikes(name: str) -> None:
    stored = case(f"stored_{name}")
    assert stored.golden is not None
    assert true_spikes(stored.network, stored.samples) == stored.golden


@pytest.mark.parametrize("name", golden.names())
def test_populations_spike_and_rest(name: str) -> None:
    for population, raster in golden.load(name).rasters.items():
        assert 0.05 < raster.mean() < 0.95, population


@pytest.mark.parametrize("name", golden.names())
def test_populations_are_those_stored(name: str) -> None:
    stored = golden.load(name)
    network = map_to_spikes(stored.model)
    assert [p.name for p in network.populations] == list(stored.rasters)
    for population in network.populations:
        assert stored.rasters[population.name].shape == (len(stored.samples), population.size)


@pytest.mark.parametrize("name", golden.names())
def test_the_float32_model_gives_the_stored_spikes(name: str) -> None:
    stored = golden.load(name)
    for layer, values in forward(stored.model, stored.samples).items():
        if isinstance(stored.model[layer], L.Step):
            expected = values.reshape(len(values), -1).astype(bool)
            assert np.array_equal(stored.rasters[layer], expected), layer


def test_the_script_refuses_what_float32_decides_otherwise(tmp_path: Path) -> None:
    below = L.Dense(name="below", inputs=("input",), weight=np.full((1, 1), 0.5 - 2.0**-28))
    step = L.Step(name="step", inputs=("below",))
    with pytest.raises(ValueError, match="'step' differs from the float32 model"):
        make_golden("tied", Model("tied", InputSpec((1,), 0, 1), (below, step)), tmp_path)


def test_the_script_writes_what_is_stored(tmp_path: Path) -> None:
    make_golden("ties_and_biases", models()["ties_and_biases"], tmp_path)
    for suffix in ("npz", "safetensors"):
        name = f"ties_and_biases.{suffix}"
        assert (tmp_path / name).read_bytes() == files(golden).joinpath(name).read_bytes()
