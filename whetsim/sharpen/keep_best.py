"""A Keras callback that keeps the best weights among the fully sharp ones."""

from __future__ import annotations

import warnings
from typing import Any, final

import keras

from whetsim.sharpen.checks import TrainingError
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

    Raises
    ------
    TrainingError
        If the mode is neither of the two; at the end of a fully sharp epoch, if the logs have no
        such entry.

    Warns
    -----
    UserWarning
        If no epoch ended fully sharp; the weights are then left as they are.
    """

    def __init__(self, monitor: str = "val_accuracy", mode: str = "max") -> None:
        super().__init__()
        if mode not in ("max", "min"):
            raise TrainingError(f"KeepBestSharp: no such mode (got {mode!r}; need 'max' or 'min').")
        self.monitor = monitor
        self.mode = mode
        self.best: float | None = None
        self.best_epoch: int | None = None
        self._weights: list[Any] | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forget an earlier training."""
        self.best = self.best_epoch = self._weights = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep the weights if they are fully sharp and the best so far."""
        if not is_fully_sharp(self.model):
            return
        logs = logs or {}
        if self.monitor not in logs:
            raise TrainingError(
                f"KeepBestSharp: the logs have no '{self.monitor}' "
                f"(got {', '.join(sorted(logs))}). "
                "Pass validation data to fit, or monitor one of these."
            )
        value = float(logs[self.monitor])
        if self.best is None or (value > self.best if self.mode == "max" else value < self.best):
            self.best, self.best_epoch = value, epoch
            self._weights = self.model.get_weights()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Put the best weights back."""
        if self._weights is None:
            warnings.warn(
                "KeepBestSharp: no epoch ended fully sharp, so the last weights are kept. "
                "Train longer, or let the sharpener stop earlier.",
                stacklevel=2,
            )
            return
        self.model.set_weights(self._weights)
