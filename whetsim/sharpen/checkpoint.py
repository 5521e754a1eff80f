"""A Keras callback that saves a training after each epoch and takes it up again."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, final

import keras
import numpy as np

from whetsim.sharpen.checks import TrainingError

_VERSION = 1
_LARGEST_MANIFEST = 1 << 20


class Part(Protocol):
    """What has a state of its own beside the model's: a sharpener, a source of batches."""

    def state(self) -> dict[str, Any]:
        """Return the state, as JSON can hold it."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""


@final
class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """Save a training after each epoch; run the same program again to go on.

    A folder holds the last finished epoch: weights, sharpness, optimizer, the states of the parts
    and of the random generators of Python, NumPy and torch. When training starts and the folder
    has a checkpoint, it is restored and `fit` goes on behind it, so that the result is that of a
    training that was never interrupted, bit for bit with the torch backend on a CPU.

    Parameters
    ----------
    folder : path-like
        Where to save; made if it is missing. One folder for one training.
    *parts
        The sharpener, `KeepBestSharp`, and whatever else has `state()` and `restore(state)`; always
        in the same order.
    run : mapping, optional
        What else tells this training from others, as JSON can hold it: seed, data set. A
        checkpoint with another one is refused.

    Raises
    ------
    TrainingError
        If a part has no state or `run` is not for JSON; when training starts, if the checkpoint is
        damaged or belongs to another model, other parts, another run or number of epochs.

    Notes
    -----
    Put it last in the list of callbacks: it saves what the others did at the end of the epoch.
    A new file replaces the old one only when it is complete, so that a crash loses one epoch at
    most. A training that is finished is not repeated: `fit` then only restores it.

    Examples
    --------
    >>> sharpener = ScheduledSharpener()
    >>> model.fit(x, y, epochs=40, callbacks=[sharpener, Checkpoint("run_1", sharpener)])
    ... # doctest: +SKIP
    """

    def __init__(
        self, folder: str | os.PathLike[str], *parts: Part, run: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.folder = Path(folder)
        try:
            self._run = json.loads(json.dumps(dict(run or {}), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise TrainingError(
                f"Checkpoint: run cannot be written as JSON ({error}). Take numbers and texts."
            ) from None
        for part in parts:
            if not callable(getattr(part, "state", None)) or not callable(
                getattr(part, "restore", None)
            ):
                raise TrainingError(
                    f"Checkpoint: a part has no state (got {type(part).__name__}; need methods "
                    "state and restore). Leave it out."
                )
        self._parts = parts
        self._weights: Path | None = None  # of the last checkpoint; no other file is removed

    @property
    def _manifest(self) -> Path:
        return self.folder / "checkpoint.json"

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Restore the checkpoint, if there is one."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(
                f"Checkpoint: {self.folder}: cannot be made ({error.strerror}). "
                "Take another folder."
            ) from None
        self._weights = None
        # `fit` reads it behind this call, and nowhere else.
        self.model._initial_epoch = self._restore() if self._manifest.exists() else None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Let a later `fit` begin where it wants to, even if this one is interrupted."""
        self.model._initial_epoch = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save."""
        weights = self.folder / f"checkpoint_epoch_{epoch + 1}.weights.h5"
        self.model.save_weights(weights, overwrite=True)
        content = {
            "whetsim_checkpoint": _VERSION,
            "epoch": epoch + 1,
            "epochs": self.params["epochs"],
            "steps": self.params.get("steps"),
            "run": self._run,
            "model": _shapes(self.model),
            "weights": weights.name,
            "sha256": _digest(weights),
            "parts": [{"kind": type(p).__name__, "state": p.state()} for p in self._parts],
            "random": _random_state(),
        }
        fresh = self._manifest.with_suffix(".new")
        fresh.write_text(json.dumps(content), encoding="utf-8")
        os.replace(fresh, self._manifest)
        if self._weights is not None and self._weights != weights:
            self._weights.unlink(missing_ok=True)
        self._weights = weights

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Let a later `fit` begin where it wants to."""
        self.model._initial_epoch = None

    def _restore(self) -> int:
        content = self._read()
        self._check(content)
        self._weights = self.folder / str(content["weights"])
        optimizer = self.model.optimizer
        if optimizer is not None and not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        self.model.load_weights(self._weights)
        for part, saved in zip(self._parts, content["parts"], strict=True):
            part.restore(saved["state"])
        try:
            _restore_random_state(content["random"])
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise self._damaged(f"random: {error}") from error
        return int(content["epoch"])

    def _damaged(self, reason: object) -> TrainingError:
        return TrainingError(
            f"{self._manifest}: the checkpoint is damaged ({reason}). "
            "Remove the folder to begin anew."
        )

    def _read(self) -> dict[str, Any]:
        try:
            if self._manifest.stat().st_size > _LARGEST_MANIFEST:
                raise ValueError("larger than any that is written")
            content = json.loads(self._manifest.read_text(encoding="utf-8"))
            if content["whetsim_checkpoint"] != _VERSION:
                raise ValueError(f"version {content['whetsim_checkpoint']!r}, need {_VERSION}")
            name = str(content["weights"])
            if name != Path(name).name:
                raise ValueError("weights outside of the folder")
            if _digest(self.folder / name) != content["sha256"]:
                raise ValueError(f"{name} has another checksum")
            for key in ("epochs", "steps", "run", "model", "random"):
                content[key]
            epoch = content["epoch"]
            if type(epoch) is not int or not 0 < epoch <= content["epochs"]:
                raise ValueError(f"epoch {epoch!r}")
            if not all(isinstance(part["state"], dict) for part in content["parts"]):
                raise ValueError("a part without a state")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise self._damaged(reason) from error
        return dict(content)

    def _check(self, content: Mapping[str, Any]) -> None:
        where, anew = str(self.folder), "Take another folder, or remove this one to begin anew."
        shapes = _shapes(self.model)
        if content["model"] != shapes:
            raise TrainingError(f"{where}: the checkpoint is one of another model. {anew}")
        if content["epochs"] != self.params["epochs"]:
            raise TrainingError(
                f"{where}: the checkpoint is one of a training over {content['epochs']} epochs "
                f"(got {self.params['epochs']}), whose schedule differs. {anew}"
            )
        if content["steps"] != self.params.get("steps"):
            raise TrainingError(
                f"{where}: the checkpoint is one of a training with {content['steps']} batches an "
                f"epoch (got {self.params.get('steps')}), so with other data. {anew}"
            )
        for key in sorted({*content["run"], *self._run}):
            saved, wanted = content["run"].get(key), self._run.get(key)
            if saved != wanted:
                raise TrainingError(
                    f"{where}: the checkpoint is one of another training: {key} is {saved!r} "
                    f"(got {wanted!r}). {anew}"
                )
        kinds = [str(saved.get("kind")) for saved in content["parts"]]
        present = [type(part).__name__ for part in self._parts]
        if kinds != present:
            raise TrainingError(
                f"{where}: the checkpoint has other parts (got {', '.join(present) or 'none'}; "
                f"need {', '.join(kinds) or 'none'}). {anew}"
            )


def _shapes(model: keras.Model) -> list[list[Any]]:
    """Return name and shape of every weight: equal for equal models."""
    return [[str(w.name), [int(n) for n in w.shape]] for w in model.weights]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _random_state() -> dict[str, Any]:
    version, numbers, gauss = random.getstate()
    # The generator that Keras and its users seed with keras.utils.set_random_seed.
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    state: dict[str, Any] = {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, cached],
    }
    if keras.backend.backend() == "torch":
        import torch

        state["torch"] = bytes(torch.get_rng_state().tolist()).hex()
    return state


def _restore_random_state(state: Mapping[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    if keras.backend.backend() == "torch" and "torch" in state:
        import torch

        numbers = list(bytes.fromhex(state["torch"]))
        torch.set_rng_state(torch.tensor(numbers, dtype=torch.uint8))
