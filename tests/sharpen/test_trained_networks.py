"""The networks that come with the project: size, what their metadata say, and that it is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whetsim
from tests.scripts import load_script
from whetsim import reference
from whetsim.report.diary_file import read_diary

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "whetsim" / "networks" / "digits_conv.safetensors"
FILES = [DIGITS, *sorted((ROOT / "benchmarks" / "networks").glob("*.safetensors"))]
CLASSIFIERS = {
    "digits_conv": 0.96,
    "mnist_dense": 0.98,
    "mnist_conv": 0.994,
    "mnist_residual": 0.985,
    "fashion_dense": 0.89,
    "fashion_conv": 0.918,
}
LARGEST = 3_500_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_small_and_described(path: Path) -> None:
    assert path.stat().st_size < LARGEST
    model = whetsim.load(path)
    assert model.name == path.stem
    training: Any = model.metadata["training"]
    script, _, commit = training["script"].partition(" as of commit ")
    assert (ROOT / script).is_file() != bool(commit)
    assert {"method", "seed", "seconds", "versions", "date"} <= set(training)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_as_good_as_is_wanted(name: str) -> None:
    (path,) = (path for path in FILES if path.stem == name)
    metadata: Any = whetsim.load(path).metadata
    assert CLASSIFIERS[name] <= metadata["accuracy"] <= 1
    assert 0 < metadata["accuracy_after_sharpening"] <= 1
    assert 0 < metadata["accuracy_before_sharpening"] <= 1


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks" / "networks").glob("*.diary.jsonl")), ids=lambda p: p.stem
)
def test_diaries_end_fully_sharp(path: Path) -> None:
    diary = read_diary(path)
    model = whetsim.load(path.with_name(path.name.removesuffix(".diary.jsonl") + ".safetensors"))
    last = diary.entries[-1]
    assert last.epoch == model.metadata["training"]["epochs"]
    assert set(last.sharpness.values()) == {1.0}
    assert last.validation.as_is == last.validation.spiking


def test_the_table_of_the_docs_is_what_the_files_say() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    results = load_script("results")
    assert results.table(results.networks()) in page


def test_the_digits_network_is_as_good_as_it_says() -> None:
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'whetsim[digits]'")
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = digits.images[1437:].astype(np.uint8), digits.target[1437:]
    model = whetsim.load(DIGITS)
    values = reference.forward(model, x)
    assert model.readout is not None
    predictions = model.readout.scores(values[model.output]).argmax(axis=1)
    assert len(y) == model.metadata["test_samples"] == 360
    assert (predictions == y).mean() == pytest.approx(model.metadata["accuracy"])
    for name, spikes in model.metadata["spikes_per_sample"].items():
        # A tie may fall the other way where a matrix product sums in another order.
        assert values[name].sum(dtype=float) / 360 == pytest.approx(spikes, abs=0.05)
