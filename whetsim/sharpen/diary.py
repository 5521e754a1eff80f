"""A Keras callback that writes down how a training goes, and what the spiking network would do."""

from __future__ import annotations

import json
import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

import keras
from numpy.typing import ArrayLike, NDArray

from whetsim.errors import quote
from whetsim.report.diary_file import (
    DiaryEntry,
    Scores,
    entry_line,
    header_line,
    looks_like_diary,
    read_lines_before,
)
from whetsim.sharpen.checks import TrainingError, check_count, check_number, check_positive
from whetsim.sharpen.dead_units import warn_of_dead_outputs
from whetsim.sharpen.layers import SpikingActivation
from whetsim.sharpen.observe import QUANTILES, Observation, check_samples, observe
from whetsim.sharpen.state import find_layers, is_fully_sharp, sync

Score = Callable[[NDArray[Any], NDArray[Any]], float]


class _Probe(NamedTuple):
    x: NDArray[Any]
    y: NDArray[Any]


@final
class Diary(keras.callbacks.Callback):  # type: ignore[misc]
    """Keep a diary of a training: how good the network is, soft and as a spiking network.

    The file has a line of JSON for the end of every epoch, and for every moment within one at
    which a layer has become sharper by `sharpness_step` since the line before. `whetsim diary`
    shows and draws it; `whetsim.report.diary_file` says what a line holds. The training runs as
    it would without the diary, bit for bit.

    Parameters
    ----------
    path : path
        File to write, by custom `*.jsonl`; its folder is made. With `fit(initial_epoch=...)` a
        diary that is there is continued after that epoch, otherwise it is begun anew; a file that
        is no diary is never overwritten.
    validation : tuple of array_like
        `(x, y)`: samples as the model is trained on, shape (n_samples, ...), and their labels or
        target maps. Take a part of the training data if anything is chosen by what the diary says.
    train : tuple of array_like, optional
        The same of the training data, to see overfitting; it costs as much again.
    n_samples : int
        The first so many samples of each are the probe.
    sharpness_step : float
        Greater than 0.
    score : callable, optional
        `score(y, outputs) -> float`, larger is better. By default the part of the samples whose
        largest output is that of their class, for integer labels or one-hot ones; otherwise, where
        y has the shape of the outputs, the part of the outputs that are on the right side of 0.5.
    score_name : str
        Its name in tables and pictures.
    batch_size : int
        Samples of a probe that run at a time.

    Raises
    ------
    TrainingError
        If an argument is not as above; when training starts, if the model has no layer that can be
        sharpened, the samples or labels do not fit it, the file there is no diary or one of
        another training, or it cannot be written.
    FormatError
        When a training goes on, if the diary there is damaged.

    Warns
    -----
    UserWarning
        If an entry cannot be written.
    DeadUnitWarning
        At the end of a training that ends fully sharp, if outputs never fire or always do; for
        target maps only those that should do otherwise.

    Notes
    -----
    Runs with equal seeds write equal lines but for their `seconds`. With JAX, looking after every
    batch brings the state of the model into its layers, as the sharpeners do.

    Examples
    --------
    >>> diary = Diary("run.jsonl", validation=(x_val, y_val))
    >>> model.fit(x, y, epochs=40, callbacks=[sharpener, diary])  # doctest: +SKIP
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        validation: tuple[ArrayLike, ArrayLike],
        train: tuple[ArrayLike, ArrayLike] | None = None,
        *,
        n_samples: int = 1000,
        sharpness_step: float = 0.25,
        score: Score | None = None,
        score_name: str = "accuracy",
        batch_size: int = 500,
    ) -> None:
        super().__init__()
        self.path = _check_path(path)
        n = check_count("Diary", "n_samples", n_samples, smallest=1)
        self._validation = _check_probe("validation", validation, n)
        self._train = None if train is None else _check_probe("train", train, n)
        self.sharpness_step = check_positive("Diary", "sharpness_step", sharpness_step)
        if score is not None and not callable(score):
            raise TrainingError(
                f"Diary: score is no function (got {score!r}; need score(y, outputs) -> float)."
            )
        self._score: Score = _default_score if score is None else score
        if not (
            isinstance(score_name, str) and 0 < len(score_name) <= 100 and score_name.isprintable()
        ):
            raise TrainingError(
                f"Diary: score_name is no name (got {score_name!r}; need 1 to 100 characters, all "
                "printable)."
            )
        self.score_name = score_name
        self.batch_size = check_count("Diary", "batch_size", batch_size, smallest=1)
        self._layers: list[SpikingActivation] = []
        self._header = ""
        self._noted: list[float] = []  # sharpness at the last entry
        self._open = False
        self._epoch = self._batches = self._steps = 0
        self._began = 0.0
        self._thread = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Check that everything fits the model, before time is spent."""
        self._layers = find_layers(self.model, "Diary")
        first = observe(self.model, self._validation.x[:1], sharp=True)
        for name, probe in (("validation", self._validation), ("train", self._train)):
            if self._score is _default_score and probe is not None:
                _check_labels(name, probe.y, first.outputs)
        self._header = header_line(
            list(first.layers),
            [layer.n_units for layer in first.layers.values()],
            self.score_name,
            len(self._validation.x),
            QUANTILES,
        )
        self._open = False
        self._batches = self._steps = 0
        self._thread = threading.get_ident()
        self._began = time.perf_counter()
        if self._is_there() and not looks_like_diary(self.path):
            raise TrainingError(
                f"Diary: {self.path} is there and is no diary, so it is not overwritten. "
                "Give another path, or remove it."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin or continue the file, once it is known which epoch is the first."""
        self._epoch = epoch
        if not self._open:
            self._begin_file(epoch)
            self._noted = [layer.sharpness for layer in self._layers]
            self._open = True

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Write an entry if a layer has become sharper."""
        if threading.get_ident() != self._thread:
            raise TrainingError(
                "Diary: Keras calls it from another thread. Give `fit` a list: callbacks=[diary]."
            )
        done = self._batches = batch + 1
        # Of a generator without length, the first epoch tells how long one is.
        steps = self.params.get("steps") or self._steps
        if done >= steps:
            return  # the end of the epoch tells the same
        sync(self.model)
        now = [layer.sharpness for layer in self._layers]
        moved = max(abs(a - b) for a, b in zip(now, self._noted, strict=True))
        if moved >= self.sharpness_step - 1e-6:
            self._note("step", self._epoch + done / steps, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write an entry."""
        self._steps = self._batches
        self._note("epoch", epoch + 1.0, logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Warn of dead outputs, if the network is fully sharp."""
        if not is_fully_sharp(self.model):
            return
        seen, y = self._observe(self._validation, sharp=True), self._validation.y
        *_, last = seen.layers.values()
        is_map = y[0].size == seen.outputs[0].size == last.n_units and not _is_one_hot(y)
        warn_of_dead_outputs(seen.layers, y if is_map else None)

    def _is_there(self) -> bool:
        return self.path.is_file() and self.path.stat().st_size > 0

    def _begin_file(self, epoch: int) -> None:
        lines = [self._header.encode().rstrip(b"\n")]
        try:
            if epoch > 0 and self._is_there():
                before, lines = read_lines_before(self.path, epoch)
                self._check_header(json.loads(lines[0]))
                kept = before.entries[: len(lines) - 1]
                self._began -= kept[-1].seconds if kept else 0.0
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_name(f"{self.path.name}.part")
            part.write_bytes(b"".join(line + b"\n" for line in lines))
            part.replace(self.path)
        except OSError as error:
            raise TrainingError(
                f"Diary: {self.path}: cannot be written ({error.strerror}). Give another path."
            ) from None

    def _check_header(self, found: dict[str, Any]) -> None:
        for key, wanted in json.loads(self._header).items():
            if found[key] != wanted:
                raise TrainingError(
                    f"Diary: {self.path.name} is of another training: {key} differ (got "
                    f"{quote(found[key])}; need {quote(wanted)}). Give another file, or begin with "
                    "initial_epoch=0."
                )

    def _note(self, kind: Literal["epoch", "step"], epoch: float, logs: Any) -> None:
        validation, seen = self._scores(self._validation)
        train = None if self._train is None else self._scores(self._train)[0]
        layers = seen.layers
        self._noted = [layer.sharpness for layer in self._layers]
        entry = DiaryEntry(
            epoch=epoch,
            kind=kind,
            sharpness=dict(zip(layers, self._noted, strict=True)),
            straight_through=all(layer.straight_through for layer in self._layers),
            logs=_numbers(logs or {}),
            validation=validation,
            train=train,
            spikes_per_sample={name: layer.spikes_per_sample for name, layer in layers.items()},
            never={name: layer.n_never for name, layer in layers.items()},
            always={name: layer.n_always for name, layer in layers.items()},
            margins={
                name: tuple(map(_finite, layer.margins.values())) for name, layer in layers.items()
            },
            seconds=round(time.perf_counter() - self._began, 3),
        )
        # Opened for every line: nothing waits in a buffer when the training is interrupted.
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(entry_line(entry))
        except OSError as error:  # a full disk is no reason to lose the training
            warnings.warn(
                f"Diary: {self.path}: an entry could not be written ({error.strerror}).",
                stacklevel=2,
            )

    def _scores(self, probe: _Probe) -> tuple[Scores, Observation]:
        """Return the scores, and what the layers did as exact steps."""
        spiking = self._observe(probe, sharp=True)
        soft = spiking if is_fully_sharp(self.model) else self._observe(probe, sharp=False)
        as_is, sharp = (self._rate(probe.y, seen.outputs) for seen in (soft, spiking))
        return Scores(as_is, sharp), spiking

    def _observe(self, probe: _Probe, sharp: bool) -> Observation:
        return observe(self.model, probe.x, self.batch_size, sharp)

    def _rate(self, y: NDArray[Any], outputs: NDArray[Any]) -> float | None:
        value: Any = self._score(y, outputs)
        try:
            return _finite(float(value))
        except (TypeError, ValueError):
            raise TrainingError(
                f"Diary: score returned no number (got {value!r}; need a float)."
            ) from None


def _check_path(path: object) -> Path:
    try:
        result = Path(path)  # type: ignore[arg-type]
    except TypeError:
        raise TrainingError(f"Diary: path is no path (got {path!r}; need 'run.jsonl').") from None
    if result.is_dir() or not result.name:
        raise TrainingError(f"Diary: path is a folder (got '{result}'; need a file's name).")
    return result


def _check_probe(name: str, pair: object, n_samples: int) -> _Probe:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TrainingError(
            f"Diary: {name} is no pair (got {type(pair).__name__}; need (x, y)). "
            "y are labels or target maps."
        )
    x = check_samples("Diary", pair[0], f"x of {name}")
    y = check_samples("Diary", pair[1], f"y of {name}")
    if len(x) != len(y):
        raise TrainingError(
            f"Diary: x and y of {name} differ in length (got {len(x)} and {len(y)}; need as many)."
        )
    # Copies: a probe that changes under a diary, or holds a large array in memory, helps nobody.
    return _Probe(x[:n_samples].copy(), y[:n_samples].copy())


def _check_labels(name: str, y: NDArray[Any], outputs: NDArray[Any]) -> None:
    """Refuse what the default score cannot work with; `outputs` are those of one sample or more."""
    if y[0].size == outputs[0].size:
        return
    shape = outputs.shape[1:]
    if y[0].size != 1 or y.dtype.kind not in "biu" or len(shape) != 1:
        raise TrainingError(
            f"Diary: y of {name} does not fit the model's outputs (got shape {y.shape[1:]} and "
            f"{y.dtype} for a sample; need integer labels or shape {shape}). Or pass score=."
        )
    if y.min() < 0 or y.max() >= shape[0]:
        raise TrainingError(
            f"Diary: labels of {name} are out of range (got {y.min()} to {y.max()}; "
            f"need 0 to {shape[0] - 1}, as the model has {shape[0]} outputs)."
        )


def _default_score(y: NDArray[Any], outputs: NDArray[Any]) -> float:
    if y[0].size != outputs[0].size:
        labels = y.reshape(len(y))
    elif _is_one_hot(y):
        labels = y.argmax(axis=1)
    else:
        return float(((outputs >= 0.5) == (y.reshape(outputs.shape) >= 0.5)).mean())
    return float((outputs.argmax(axis=1) == labels).mean())


def _is_one_hot(y: NDArray[Any]) -> bool:
    """Return whether each row is 1 at one place and 0 elsewhere."""
    if y.ndim != 2 or y.shape[1] < 2:
        return False
    return bool(((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all())


def _numbers(logs: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the entries of Keras' logs; what is no finite number is None."""
    result: dict[str, float | None] = {}
    for name, value in logs.items():
        try:
            result[str(name)] = check_number("Diary", name, value)
        except TrainingError:
            result[str(name)] = None
    return result


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
