"""The networks that come with the project: size, what their metadata say, and that it is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import whetsim
from whetsim import reference

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "whetsim" / "networks" / "digits_conv.safetensors"
MNIST = ROOT / "benchmarks" / "networks" / "mnist_mlp.safetensors"


@pytest.mark.parametrize(
    ("path", "largest", "needed"), [(DIGITS, 300_000, 0.96), (MNIST, 1_200_000, 0.97)]
)
def test_small_and_described(path: Path, largest: int, needed: float) -> None:
    assert path.stat().st_size < largest
    model = whetsim.load(path)
    metadata = model.metadata
    assert model.name == path.stem
    assert (ROOT / metadata["training"]["script"]).is_file()
    assert {"method", "epochs", "seed", "versions", "date"} <= set(metadata["training"])
    assert needed <= metadata["accuracy"] <= metadata["float_accuracy"] <= 1
    assert 0 < metadata["accuracy_after_sharpening"] <= 1
    assert 0 < metadata["accuracy_before_sharpening"] <= 1


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
