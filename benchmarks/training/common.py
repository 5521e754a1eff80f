"""What the training scripts share: train a network softly and sharpened, measure, export.

Test data only measure: no epoch and no seed is chosen by them, the weights are the last ones.
"""

from __future__ import annotations

import datetime
import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim import reference, sharpen
from whetsim.layers import Step
from whetsim.model import Model

import keras  # isort: skip  # after whetsim.sharpen, which finds a backend for it

ROOT = Path(__file__).resolve().parents[2]

METHOD = (
    "bounded ReLU with batch norm (beta from 0.5, gamma from 0.7) sharpened layer by layer from "
    "the input up, then straight-through fine-tuning; Adam, cosine schedule"
)

Augment = Callable[[NDArray[np.uint8], np.random.Generator], NDArray[np.uint8]]


@dataclass(frozen=True)
class Data:
    """A data set in whole numbers, as a simulator sees it."""

    name: str
    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]
    high: int
    """Largest value of an input; the network is trained on values divided by it."""

    def to_float(self, x: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return what the network reads; the same product as in `whetsim.reference`."""
        return x.astype(np.float32) * np.float32(1 / self.high)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; every value ends up in the file's metadata."""

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    start: float = 0.25
    stop: float = 0.6


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Shuffled and augmented batches, the same for the same seed."""

    def __init__(self, data: Data, recipe: Recipe, augment: Augment) -> None:
        super().__init__()
        self._data, self._recipe, self._augment = data, recipe, augment
        self._rng = np.random.default_rng(recipe.seed)
        self._order = self._rng.permutation(len(data.x_train))

    def __len__(self) -> int:
        return math.ceil(len(self._data.x_train) / self._recipe.batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        size = self._recipe.batch_size
        chosen = self._order[index * size : (index + 1) * size]
        images = self._augment(self._data.x_train[chosen], self._rng)
        return self._data.to_float(images), self._data.y_train[chosen]

    def on_epoch_end(self) -> None:
        self._order = self._rng.permutation(len(self._data.x_train))


class Milestones(keras.callbacks.Callback):  # type: ignore[misc]
    """Measure test accuracy when sharpening starts and when it has ended; print progress."""

    def __init__(self, data: Data, recipe: Recipe, sharpened: bool) -> None:
        super().__init__()
        self._data, self._recipe = data, recipe
        self._moments = {"before": recipe.start, "after": recipe.stop} if sharpened else {}
        self._began = time.perf_counter()
        self.accuracy: dict[str, float] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        done = (epoch + 1) / self._recipe.epochs
        sharpness = " ".join(f"{s.sharpness:.2f}" for s in sharpen.spiking_layers(self.model))
        text = f"epoch {epoch + 1:3d}  train accuracy {(logs or {})['accuracy']:.4f}"
        seconds = time.perf_counter() - self._began
        print(f"{text}  sharpness {sharpness}  {seconds:.0f} s", flush=True)
        for name, moment in self._moments.items():
            if done >= moment and name not in self.accuracy:
                self.accuracy[name] = test_accuracy(self.model, self._data)
                print(f"test accuracy {name} sharpening: {self.accuracy[name]:.4f}", flush=True)


def batch_norm(number: int, momentum: float) -> keras.layers.Layer:
    """Return a batch norm that starts with most pre-activations in 0..1.

    That is where the activation, and later the straight-through step, has a gradient.
    """
    return keras.layers.BatchNormalization(
        momentum=momentum,
        beta_initializer=keras.initializers.Constant(0.5),
        gamma_initializer=keras.initializers.Constant(0.7),
        name=f"norm_{number}",
    )


def test_accuracy(model: keras.Model, data: Data) -> float:
    """Return the part of the test samples that a Keras model classifies correctly."""
    scores = model.predict(data.to_float(data.x_test), batch_size=1000, verbose=0)
    return float((scores.argmax(axis=1) == data.y_test).mean())


def train_and_export(
    build: Callable[[], keras.Model],
    data: Data,
    recipe: Recipe,
    augment: Augment,
    *,
    path: Path,
    script: str,
    method: str,
) -> Model:
    """Train a network without and with sharpening, write the sharp one, print what was measured.

    Parameters
    ----------
    build : callable
        Makes the untrained network, sharpness 0.
    data, recipe
        What it learns from and how.
    augment : callable
        Changes a batch of integer images at random.
    path : Path
        File to write; its stem is the network's name.
    script : str
        Name of the calling script, for the metadata.
    method : str
        What the recipe's numbers do not say, for the metadata.

    Returns
    -------
    Model
        What was written.
    """
    print("float network: the same training, never sharpened")
    soft, _ = _train(build, data, recipe, augment, sharpened=False)
    float_accuracy = test_accuracy(soft, data)
    print(f"sharpened network (float accuracy to compare with: {float_accuracy:.4f})")
    began = time.perf_counter()
    sharp, milestones = _train(build, data, recipe, augment, sharpened=True)
    seconds = time.perf_counter() - began
    scale, limits = 1 / data.high, (0, data.high)
    model = sharpen.to_model(sharp, input_scale=scale, input_range=limits)
    metadata = {
        "dataset": data.name,
        "test_samples": len(data.x_test),
        "float_accuracy": float_accuracy,
        "accuracy_before_sharpening": milestones["before"],
        "accuracy_after_sharpening": milestones["after"],
        **_measure(model, data),
        "training": {
            "script": script,
            "method": method,
            **asdict(recipe),
            "train_samples": len(data.x_train),
            "seconds": round(seconds),
            "date": datetime.date.today().isoformat(),
            "versions": _versions(),
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    model = sharpen.export(
        sharp, path, input_scale=scale, input_range=limits, name=path.stem, metadata=metadata
    )
    for key, value in metadata.items():
        print(f"{key}: {value}")
    print(f"wrote {path.name}, {path.stat().st_size} bytes")
    return model


def _train(
    build: Callable[[], keras.Model],
    data: Data,
    recipe: Recipe,
    augment: Augment,
    sharpened: bool,
) -> tuple[keras.Model, dict[str, float]]:
    keras.utils.set_random_seed(recipe.seed)
    model = build()
    batches = Batches(data, recipe, augment)
    schedule = keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate, recipe.epochs * len(batches)
    )
    model.compile(
        optimizer=keras.optimizers.Adam(schedule),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    milestones = Milestones(data, recipe, sharpened)
    callbacks = [milestones]
    if sharpened:
        callbacks.insert(0, sharpen.ScheduledSharpener(recipe.start, recipe.stop))
    model.fit(batches, epochs=recipe.epochs, verbose=0, callbacks=callbacks)
    return model, milestones.accuracy


def _measure(model: Model, data: Data) -> dict[str, Any]:
    """Return accuracy and spikes of the exported network, by the plain numpy forward pass."""
    n, correct = len(data.x_test), 0
    spikes = {layer.name: 0.0 for layer in model.layers if isinstance(layer, Step)}
    assert model.readout is not None
    for first in range(0, n, 1000):
        values = reference.forward(model, data.x_test[first : first + 1000])
        scores = model.readout.scores(values[model.output])
        correct += int((scores.argmax(axis=1) == data.y_test[first : first + 1000]).sum())
        for name in spikes:
            spikes[name] += float(values[name].sum(dtype=np.float64)) / n
    return {
        "accuracy": correct / n,
        "spikes_per_sample": {name: round(count, 2) for name, count in spikes.items()},
    }


def _versions() -> dict[str, str]:
    backend = keras.backend.backend()
    versions = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "keras": keras.__version__,
        "keras_backend": backend,
    }
    if backend == "torch":
        import torch

        versions["torch"] = torch.__version__
    return versions
