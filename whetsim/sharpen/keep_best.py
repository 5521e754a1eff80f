"""A Keras callback that keeps the best weights among the fully sharp ones."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import keras

from whetsim.sharpen.checks import TrainingError, logged, not_a_state
from whetsim.sharpen.state import is_fully_sharp


@final
class KeepBestSharp(keras.callbacks.Callback):  # type: ignore[misc]
    """Give the model, after training, the weights of its best fully sharp epoch.

    Parameters
    ----------
    monitor : str
        Entry of the epoch's logs that is compared. Take one of a validation part of the training
        data, never of the test data: choosing by it would make the test result too good.
    mode : {"max", "min"}
        Whether large or small values are good.
    path : path-like, optional
        Keep the weights in this file, by custom `*.weights.h5`, in place of memory; needed to go
        on after an interruption with `Checkpoint`.

    Raises
    ------
    TrainingError
        If the mode is neither of the two or the file's name does not end so; at the end of a fully
        sharp epoch, if the logs have no such entry.

    Warns
    -----
    UserWarning
        If no epoch ended fully sharp; the weights are then left as they are.
    """

    def __init__(
        self,
        monitor: str = "val_accuracy",
        mode: str = "max",
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        if path is not None and not str(path).endswith(".weights.h5"):
            raise TrainingError(
                f"KeepBestSharp: path has another ending (got '{path}'; need '*.weights.h5')."
            )
        if mode not in ("max", "min"):
            raise TrainingError(f"KeepBestSharp: no such mode (got {mode!r}; need 'max' or 'min').")
        self.monitor = monitor
        self.mode = mode
        self.path = None if path is None else Path(path)
        self.best: float | None = None
        self.best_epoch: int | None = None
        self._weights: list[Any] | None = None

    def state(self) -> dict[str, Any]:
        """Return the best value and its epoch; the weights are in the file."""
        if self.path is None:
            raise TrainingError(
                "KeepBestSharp: its weights are in memory, so it has no state to save (need path). "
                "Give it path='best.weights.h5'."
            )
        return {"best": self.best, "best_epoch": self.best_epoch}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        if not {"best", "best_epoch"} <= set(state):
            raise not_a_state("KeepBestSharp", state, "best", "best_epoch")
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        if self.best is not None and (self.path is None or not self.path.is_file()):
            raise TrainingError(
                f"KeepBestSharp: the best weights are missing (no file '{self.path}'). "
                "Put it back, or begin anew."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Forget an earlier training."""
        if epoch == 0:
            self.best = self.best_epoch = self._weights = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep the weights if they are fully sharp and the best so far."""
        if not is_fully_sharp(self.model):
            return
        value = logged("KeepBestSharp", self.monitor, logs)
        if not math.isfinite(value):
            return
        if self.best is None or (value > self.best if self.mode == "max" else value < self.best):
            self.best, self.best_epoch = value, epoch
            if self.path is None:
                self._weights = self.model.get_weights()
            else:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.model.save_weights(self.path, overwrite=True)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Put the best weights back."""
        if self.best is None:
            warnings.warn(
                "KeepBestSharp: no epoch ended fully sharp, so the last weights are kept. "
                "Train longer, or let the sharpener stop earlier.",
                stacklevel=2,
            )
            return
        if self.path is None:
            self.model.set_weights(self._weights)
        else:
            self.model.load_weights(self.path)
