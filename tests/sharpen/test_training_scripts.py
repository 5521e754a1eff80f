"""The training scripts build networks that can be sharpened, exported and mapped."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sharpen = pytest.importorskip(
    "whetsim.sharpen",
    reason="needs keras and torch: pip install 'whetsim[train]'",
    exc_type=ImportError,
)

import keras  # noqa: E402

import whetsim  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "training"
PLANS = ("mnist-dense", "mnist-conv", "fashion-conv", "mnist-dense-binary", "fashion-conv-binary")


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Import scripts as Python does that starts one of them."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)


def builders() -> dict[str, Callable[[], keras.Model]]:
    images = importlib.import_module("train_images")
    plans = {name: lambda plan=images.PLANS[name]: images.build(plan) for name in PLANS}
    scripts = ("train_residual", "train_segmentation", "train_autoencoder", "train_digits")
    return {**plans, **{name: importlib.import_module(name).build for name in scripts}}


@pytest.mark.parametrize(
    "name",
    [*PLANS, "train_residual", "train_segmentation", "train_autoencoder", "train_digits"],
)
def test_what_a_script_builds_runs_with_spikes(name: str) -> None:
    keras.utils.set_random_seed(1)
    model = builders()[name]()
    assert len(sharpen.spiking_layers(model)) >= 3
    assert not any(layer.sharpness for layer in sharpen.spiking_layers(model))
    sharpen.set_sharpness(model, 1.0)
    high = 1 if "binary" in name else 255
    spec = {"input_scale": 1 / high, "input_range": (0, high)}
    network = whetsim.map_to_spikes(sharpen.to_model(model, **spec))
    x = np.random.default_rng(0).integers(0, high + 1, (3, *model.input_shape[1:]))
    recording = whetsim.run(network, x, record="rasters")
    scaled = x.astype(np.float32) * np.float32(1 / high)
    expected = np.asarray(keras.ops.convert_to_numpy(model(scaled)))
    if recording.scores is None:
        found = recording.raster(network.output).reshape(expected.shape)
        assert (found != expected).mean() < 0.01  # untrained: rounding may decide a few units
    else:
        assert recording.predictions.tolist() == expected.argmax(axis=1).tolist()


def data(n: int = 40) -> Any:
    common = importlib.import_module("common")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, 6, 6, 1), dtype=np.uint8)
    y = (x[:, :3].sum(axis=(1, 2, 3)) > x[:, 3:].sum(axis=(1, 2, 3))).astype(np.int64)
    return common.Data("made up", x, y, x, y)


def test_a_script_trains_goes_on_and_tells_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = importlib.import_module("common")

    def build() -> keras.Model:
        parts: list[Any] = [keras.Input((6, 6, 1)), keras.layers.Flatten()]
        for number in (1, 2):
            parts += [keras.layers.Dense(12), common.batch_norm(number, 0.9)]
            parts += [sharpen.SpikingBReLU(name=f"spikes_{number}")]
        key = sharpen.generate_key(2, 12, seed=1)
        return keras.Sequential([*parts, sharpen.SoftmaxDecode(key, 4.0)])

    def augment(x: Any, y: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        return common.shift(x, rng, largest=1), y

    def facts(scores: np.ndarray) -> dict[str, Any]:
        return {"shape_of_scores": scores.shape}

    def train(name: str, *options: str) -> whetsim.Model:
        task = common.Task("made_up", "none", build, data(), augment, "as a test", facts=facts)
        out = str(tmp_path / f"{name}.safetensors")
        monkeypatch.setattr(sys, "argv", ["script", "--out", out, *options])
        parsed = common.parse("A test.", "made_up")
        return common.train_and_export(task, common.Recipe(5, 8, 0.01, seed=1), parsed)

    whole = train("whole")
    folder = str(tmp_path / "saved")

    class Stop(Exception):
        pass

    begin = common.Batches.begin

    def begin_or_stop(self: Any, epoch: int) -> None:
        if epoch == 3:
            raise Stop
        begin(self, epoch)

    with monkeypatch.context() as patched:
        patched.setattr(common.Batches, "begin", begin_or_stop)
        with pytest.raises(Stop):
            train("parts", "--checkpoint", folder)
    parts = train("parts", "--checkpoint", folder)
    for one, other in zip(whole.layers, parts.layers, strict=True):
        for name, value in vars(one).items():
            if isinstance(value, np.ndarray) and keras.backend.backend() == "torch":
                np.testing.assert_array_equal(value, getattr(other, name))
    told: Any = parts.metadata
    again = whetsim.run(whetsim.map_to_spikes(parts), data().x_test)
    assert told["accuracy"] == again.accuracy(data().y_test)
    assert told["shape_of_scores"] == [40, 2]
    assert {"accuracy_before_sharpening", "accuracy_after_sharpening"} <= set(told)
    assert told["spikes_per_sample"]["spikes_1"] == pytest.approx(
        again.spikes_per_sample["spikes_1"], abs=0.01
    )
    assert (tmp_path / "parts.diary.jsonl").read_text().count('"epoch": 5.0') == 1
