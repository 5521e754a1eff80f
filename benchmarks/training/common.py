"""What the training scripts share: train sharpened, keep a diary, run the result with spikes.

Test data only measure: no epoch and no seed is chosen by them, the weights are the last ones.
"""

from __future__ import annotations

import argparse
import datetime
import math
import platform
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

import whetsim
from whetsim import sharpen
from whetsim.model import Model

import keras  # isort: skip  # after whetsim.sharpen, which finds a backend for it

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = ROOT / "benchmarks" / "networks"

METHOD = (
    "bounded ReLU with batch norm (beta from 0.5, gamma from 0.7) sharpened layer by layer from "
    "the input up, straight-through gradients from then on; Adam, cosine schedule"
)
CLASSES = "sparse_categorical_crossentropy"

Integers = NDArray[np.uint8]
Augment = Callable[[Integers, NDArray[Any], np.random.Generator], tuple[Integers, NDArray[Any]]]
"""Changes a batch of images and targets at random."""


@dataclass(frozen=True)
class Data:
    """A data set in whole numbers, as a simulator sees it; samples are the first axis."""

    name: str
    x_train: Integers
    y_train: NDArray[Any]
    x_test: Integers
    y_test: NDArray[Any]
    high: int = 255
    """Largest value of an input; the network is trained on values divided by it."""
    levels: tuple[int, ...] = ()
    """Grey levels at which images become binary planes; none for grey input."""

    @property
    def input_range(self) -> tuple[int, int]:
        """Smallest and largest value that the network reads."""
        return (0, 1) if self.levels else (0, self.high)

    @property
    def input_scale(self) -> float:
        """What one unit of an input is worth."""
        return 1.0 / self.input_range[1]

    def to_input(self, x: Integers) -> Integers:
        """Return what the spiking network reads: images, or their binary planes."""
        return whetsim.datasets.threshold_planes(x, self.levels) if self.levels else x

    def to_float(self, x: Integers) -> NDArray[np.float32]:
        """Return what the network reads; the same product as in `whetsim.reference`."""
        return self.to_input(x).astype(np.float32) * np.float32(self.input_scale)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; every value ends up in the file's metadata."""

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    start: float = 0.25
    stop: float = 0.6


@dataclass(frozen=True)
class Task:
    """What a script trains."""

    name: str
    """Of the network; names its file."""
    script: str
    """Of the calling script, for the metadata."""
    build: Callable[[], keras.Model]
    """Makes the untrained network, sharpness 0."""
    data: Data
    augment: Augment
    method: str
    """What the recipe's numbers do not say, for the metadata."""
    loss: Any = CLASSES
    score: Callable[[NDArray[Any], NDArray[Any]], float] | None = None
    """From targets and outputs; accuracy of the classes by default."""
    score_name: str = "accuracy"
    facts: Callable[[NDArray[Any]], dict[str, Any]] | None = None
    """From what the spiking network gave, scores or spikes: what else the metadata tell."""

    def measure(self, targets: NDArray[Any], outputs: NDArray[Any]) -> float:
        """Return the score of outputs: class scores, or spikes of the last layer."""
        if self.score is not None:
            return self.score(targets, outputs)
        return float((outputs.argmax(axis=1) == targets).mean())


def keep(
    images: Integers, targets: NDArray[Any], rng: np.random.Generator
) -> tuple[Integers, NDArray[Any]]:
    """Augment nothing."""
    return images, targets


def shift(images: Integers, rng: np.random.Generator, largest: int) -> Integers:
    """Move each image by up to some pixels along both axes; what enters is black.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, rows, columns, ...)
    rng : numpy.random.Generator
    largest : int
        Largest shift in pixels.
    """
    n, height, width = images.shape[:3]
    rest = ((0, 0),) * (images.ndim - 3)
    padded = np.pad(images, ((0, 0), (largest, largest), (largest, largest), *rest))
    row, column = rng.integers(0, 2 * largest + 1, size=(2, n))
    rows, columns = row[:, None] + np.arange(height), column[:, None] + np.arange(width)
    moved: Integers = padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved


def distort(
    images: Integers, rng: np.random.Generator, largest_shift: float, high: int = 255
) -> Integers:
    """Rotate, shear, scale and shift each image a little; whole numbers stay whole.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, rows, columns, 1)
    rng : numpy.random.Generator
    largest_shift : float
        In pixels, along both axes.
    high : int
        Largest value of an image.
    """
    result = np.empty_like(images)
    centre = (np.array(images.shape[1:3]) - 1) / 2
    for index, image in enumerate(images):
        angle, shear = rng.uniform(-0.2, 0.2), rng.uniform(-0.15, 0.15)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = turn @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag(rng.uniform(0.88, 1.12, 2))
        offset = centre - matrix @ centre + rng.uniform(-largest_shift, largest_shift, 2)
        moved = affine_transform(image[..., 0].astype(np.float32), matrix, offset, order=1)
        result[index, ..., 0] = np.clip(np.rint(moved), 0, high)
    return result


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Shuffled and augmented batches; a batch depends on seed, epoch and number alone."""

    def __init__(self, task: Task, recipe: Recipe) -> None:
        super().__init__()
        self._task, self._recipe = task, recipe
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Shuffle for an epoch."""
        self._epoch = epoch
        rng = np.random.default_rng((self._recipe.seed, epoch))
        self._order = rng.permutation(len(self._task.data.x_train))

    def __len__(self) -> int:
        return math.ceil(len(self._task.data.x_train) / self._recipe.batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
        size, data = self._recipe.batch_size, self._task.data
        chosen = self._order[index * size : (index + 1) * size]
        rng = np.random.default_rng((self._recipe.seed, self._epoch, index))
        x, y = self._task.augment(data.x_train[chosen], data.y_train[chosen], rng)
        return data.to_float(x), y


class Milestones(keras.callbacks.Callback):  # type: ignore[misc]
    """Begin each epoch's batches; measure the test score around sharpening; print progress."""

    def __init__(self, task: Task, recipe: Recipe, batches: Batches, sharpened: bool) -> None:
        super().__init__()
        self._task, self._recipe, self._batches = task, recipe, batches
        self._sharpened = sharpened
        self._began = time.perf_counter()
        self._seconds_before = 0.0
        self.scores: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """Time of the training so far, interruptions left out."""
        return self._seconds_before + time.perf_counter() - self._began

    def state(self) -> dict[str, Any]:
        """Return what an interrupted training has measured."""
        return {"scores": self.scores, "seconds": self.seconds}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.scores = dict(state["scores"])
        self._began, self._seconds_before = time.perf_counter(), float(state["seconds"])

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._batches.begin(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        done = (epoch + 1) / self._recipe.epochs
        sharpness = " ".join(f"{s.sharpness:.2f}" for s in sharpen.spiking_layers(self.model))
        seen = "  ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
        text = f"epoch {epoch + 1:3d}  {seen}  sharpness {sharpness}"
        print(f"{text}  {self.seconds:.0f} s", flush=True)
        if not self._sharpened:
            return
        # Before: the last epoch without any sharpening. After: the first that ends fully sharp.
        if done + 1 / self._recipe.epochs > self._recipe.start + 1e-9:
            self._measure("before")
        if sharpen.is_fully_sharp(self.model):
            self._measure("after")

    def _measure(self, name: str) -> None:
        if name not in self.scores:
            self.scores[name] = test_score(self.model, self._task)
            print(f"test score {name} sharpening: {self.scores[name]:.4f}", flush=True)


def batch_norm(name: str | int, momentum: float) -> keras.layers.Layer:
    """Return a batch norm that starts with most pre-activations in 0..1.

    That is where the activation, and later the straight-through step, has a gradient.
    """
    return keras.layers.BatchNormalization(
        momentum=momentum,
        beta_initializer=keras.initializers.Constant(0.5),
        gamma_initializer=keras.initializers.Constant(0.7),
        name=f"norm_{name}",
    )


def test_score(model: keras.Model, task: Task) -> float:
    """Return the score of a Keras model on the test data."""
    outputs = model.predict(task.data.to_float(task.data.x_test), batch_size=500, verbose=0)
    return task.measure(task.data.y_test, np.asarray(outputs))


def parse(
    description: str | None, name: str | Collection[str], out: Path | None = None
) -> argparse.Namespace:
    """Return the options that all scripts have; torch is set to the number of threads asked for.

    Parameters
    ----------
    description : str
        The script's docstring.
    name : str or collection of str
        Name of the network, or those of which the first argument takes one: the file is written
        to benchmarks/networks.
    out : Path, optional
        Where to write instead.
    """
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    if not isinstance(name, str):
        parser.add_argument("network", choices=name)
    parser.add_argument("--out", type=Path, default=out, help="file to write")
    parser.add_argument("--epochs", type=int, help="for a quick look; the schedule is scaled")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, help="of torch; all cores by default")
    parser.add_argument("--checkpoint", type=Path, help="folder to save to and to go on from")
    parser.add_argument(
        "--float", action="store_true", help="train once more without sharpening, to compare"
    )
    options = parser.parse_args()
    if options.epochs is not None and options.epochs < 1:
        parser.error(f"--epochs: need at least 1 (got {options.epochs})")
    if options.out is None:
        chosen = name if isinstance(name, str) else options.network.replace("-", "_")
        options.out = NETWORKS / f"{chosen}.safetensors"
    if options.threads is not None and keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(options.threads)
    return options


def train_and_export(task: Task, recipe: Recipe, options: argparse.Namespace) -> Model:
    """Train a network, write it and its diary, run it with spikes, print what was measured.

    Parameters
    ----------
    task, recipe
        What is trained and how.
    options : argparse.Namespace
        From `parse`.

    Returns
    -------
    Model
        What was written.
    """
    recipe = replace(recipe, epochs=options.epochs or recipe.epochs, seed=options.seed)
    measured: dict[str, Any] = {}
    if options.float:
        print("float network: the same training, never sharpened")
        soft, _ = _train(task, recipe, sharpened=False)
        measured[f"float_{task.score_name}"] = test_score(soft, task)
        print(measured)
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    diary = out.with_suffix(".diary.jsonl")
    sharp, milestones = _train(task, recipe, True, diary, options.checkpoint)
    measured[f"{task.score_name}_before_sharpening"] = milestones.scores["before"]
    measured[f"{task.score_name}_after_sharpening"] = milestones.scores["after"]
    data = task.data
    model = sharpen.to_model(
        sharp, input_scale=data.input_scale, input_range=data.input_range, name=task.name
    )
    metadata = {
        "dataset": data.name,
        "test_samples": len(data.x_test),
        "input_levels": list(data.levels),
        **measured,
        **run_spiking(whetsim.map_to_spikes(model), task),
        "training": {
            "script": task.script,
            "method": task.method,
            **asdict(recipe),
            "train_samples": len(data.x_train),
            "seconds": round(milestones.seconds),
            "date": datetime.date.today().isoformat(),
            "threads": options.threads,
            "versions": versions(),
        },
    }
    model = replace(model, metadata=metadata)
    whetsim.save(model, out)
    for key, value in metadata.items():
        print(f"{key}: {value}")
    print(f"wrote {out.name}, {out.stat().st_size} bytes")
    return model


def run_spiking(network: whetsim.SpikingNetwork, task: Task) -> dict[str, Any]:
    """Return what the spiking network does on all test samples, by exact integers."""
    samples = task.data.to_input(task.data.x_test)
    recording = whetsim.run(network, samples, record="rasters")
    outputs = recording.scores
    if outputs is None:
        outputs = recording.raster(network.output).reshape(task.data.y_test.shape).astype(np.uint8)
    return {
        task.score_name: task.measure(task.data.y_test, outputs),
        "spikes_per_sample": {k: round(v, 2) for k, v in recording.spikes_per_sample.items()},
        **(task.facts(outputs) if task.facts is not None else {}),
    }


def _train(
    task: Task,
    recipe: Recipe,
    sharpened: bool,
    diary: Path | None = None,
    checkpoint: Path | None = None,
) -> tuple[keras.Model, Milestones]:
    keras.utils.set_random_seed(recipe.seed)
    model = task.build()
    batches = Batches(task, recipe)
    schedule = keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate, recipe.epochs * len(batches)
    )
    metrics = ["accuracy"] if task.loss == CLASSES else []
    model.compile(optimizer=keras.optimizers.Adam(schedule), loss=task.loss, metrics=metrics)
    milestones = Milestones(task, recipe, batches, sharpened)
    callbacks: list[Any] = [milestones]
    if sharpened:
        sharpener = sharpen.ScheduledSharpener(recipe.start, recipe.stop)
        callbacks.insert(0, sharpener)
        if diary is not None:
            probe = task.data.to_float(task.data.x_test[:1000]), task.data.y_test[:1000]
            watch = {"score": task.measure, "score_name": task.score_name}
            callbacks.append(sharpen.Diary(diary, probe, n_samples=1000, **watch))
        if checkpoint is not None:
            run = {"network": task.name, "data": task.data.name, **asdict(recipe)}
            callbacks.append(sharpen.Checkpoint(checkpoint, sharpener, milestones, run=run))
    model.fit(batches, epochs=recipe.epochs, verbose=0, callbacks=callbacks)
    return model, milestones


def versions() -> dict[str, str]:
    """Return the versions of what a training depends on."""
    backend = keras.backend.backend()
    found = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "keras": keras.__version__,
        "keras_backend": backend,
    }
    if backend == "torch":
        import torch

        found["torch"] = torch.__version__
    return found
