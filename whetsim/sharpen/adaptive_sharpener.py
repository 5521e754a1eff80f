"""A Keras callback that sharpens as fast as the loss allows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, final

from whetsim.sharpen.checks import (
    TrainingError,
    check_count,
    check_not_negative,
    check_part,
    check_positive,
    logged,
    not_a_state,
)
from whetsim.sharpen.sharpeners import Sharpener

WAITING, SHARPENING = "waiting", "sharpening"


@final
class AdaptiveSharpener(Sharpener):
    """Sharpen while the loss stays low, wait while it recovers, and be done in time.

    The sharpener waits until the loss has stopped falling. Then it sharpens, batch by batch, until
    the loss at the end of an epoch has risen too far; it waits again until the loss has stopped
    falling, and goes on. Near 1 the network changes most, so it is slower there (critical zone).
    What is not sharp near the deadline is sharpened without further waiting.

    Parameters
    ----------
    monitor : str
        Entry of the epoch's logs that is watched; smaller is better.
    rate : float
        Sharpness gained in an epoch below the critical zone, greater than 0.
    critical : float
        Sharpness at which the critical zone begins, 0 to 1.
    critical_rate : float
        Sharpness gained in an epoch within the critical zone, greater than 0.
    increase : float
        Part by which the loss may rise above its value when sharpening was taken up; 0.15 is 15 %.
    decrease : float
        A loss that falls by less than this part has stopped falling.
    patience : int
        Epochs without a fall after which waiting is over, at least 1.
    min_epochs : int
        Epochs before the first sharpening, at least 0.
    deadline : float
        Part of the training after which all layers are sharp, 0 to 1. The rest is fine-tuning.
    bottom_up, straight_through
        See `ScheduledSharpener`.

    Raises
    ------
    TrainingError
        If an argument is out of range; when training starts, if the model has no layer that can
        be sharpened; at the end of an epoch, if its logs have no such entry or it is not finite.

    Notes
    -----
    `state` and `restore` carry what was seen of the loss; `Checkpoint` calls them. The sharpness
    itself is saved with the model.

    References
    ----------
    Severa et al., Nature Machine Intelligence 1, 86-94 (2019): sharpening that follows the loss.

    Examples
    --------
    >>> sharpener = AdaptiveSharpener(min_epochs=5, deadline=0.7)
    >>> model.fit(x, y, epochs=40, callbacks=[sharpener])  # doctest: +SKIP
    """

    def __init__(
        self,
        monitor: str = "loss",
        *,
        rate: float = 0.5,
        critical: float = 0.75,
        critical_rate: float = 0.25,
        increase: float = 0.15,
        decrease: float = 0.05,
        patience: int = 1,
        min_epochs: int = 1,
        deadline: float = 0.75,
        bottom_up: bool = True,
        straight_through: bool = True,
    ) -> None:
        super().__init__(bottom_up, straight_through)
        where = type(self).__name__
        self.monitor = monitor
        self.rate = check_positive(where, "rate", rate)
        self.critical = check_part(where, "critical", critical, "a sharpness")
        self.critical_rate = check_positive(where, "critical_rate", critical_rate)
        self.increase = check_not_negative(where, "increase", increase)
        self.decrease = check_part(where, "decrease", decrease, "a part of the loss")
        self.patience = check_count(where, "patience", patience, smallest=1)
        self.min_epochs = check_count(where, "min_epochs", min_epochs, smallest=0)
        self.deadline = check_part(where, "deadline", deadline, "a part of the training")
        self._begin()

    def _begin(self) -> None:
        self._phase = WAITING
        self._best = math.inf  # lowest loss of this wait
        self._waited = 0  # epochs since then
        self._reference = math.inf  # loss when sharpening was taken up
        self._pace = 0.0  # multiple of the rates at which this epoch sharpens
        self._is_last_chance = False  # the deadline is in this epoch, or over

    def state(self) -> dict[str, Any]:
        """Return what was seen of the loss, as JSON can hold it."""
        numbers = {"best": self._best, "reference": self._reference}
        seen = {name: None if math.isinf(value) else value for name, value in numbers.items()}
        return {**super().state(), "phase": self._phase, "waited": self._waited, **seen}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        where = type(self).__name__
        if not {"phase", "waited", "best", "reference"} <= set(state):
            raise not_a_state(where, state, "best", "phase", "reference", "waited")
        if state["phase"] not in (WAITING, SHARPENING):
            raise TrainingError(
                f"{where}: no such phase (got {state['phase']!r}; need '{WAITING}' or "
                f"'{SHARPENING}')."
            )
        super().restore(state)
        self._phase = state["phase"]
        self._waited = check_count(where, "waited", state["waited"], smallest=0)
        best, reference = state["best"], state["reference"]
        self._best = math.inf if best is None else float(best)
        self._reference = math.inf if reference is None else float(reference)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Decide how fast to sharpen in this epoch."""
        super().on_epoch_begin(epoch, logs)
        if epoch == 0:  # another training than the one before
            self._begin()
        left = self.deadline * self.params["epochs"] - epoch
        needed = self._epochs_needed()
        self._is_last_chance = left <= 1
        self._pace = float(self._phase == SHARPENING)
        if needed > left - 1:  # too late to wait for one more epoch
            self._pace = max(needed / left if left > 0 else math.inf, self._pace)

    def _epochs_needed(self) -> float:
        """Return how long it takes to sharpen what is left, at the usual rates."""
        times = [
            max(self.critical - layer.sharpness, 0.0) / self.rate
            + (1.0 - max(self.critical, layer.sharpness)) / self.critical_rate
            for layer in self._layers
        ]
        return sum(times) if self.bottom_up else max(times)

    def _values(self, batch: int) -> Sequence[float]:
        values = [layer.sharpness for layer in self._layers]
        steps, done = self.params.get("steps") or 1, self._batches_done(batch)
        if self._is_last_chance and done >= steps:
            return [1.0] * len(values)  # said by itself, so that rounding never leaves 0.99999
        if not self.params.get("steps") and batch > 0:
            return values  # length of the epoch unknown: all of it was done at its first batch
        time = self._pace * min(done - batch, steps) / steps
        for index, value in enumerate(values):
            if time > 0 and value < 1.0:
                values[index], left = self._advance(value, time)
                time = left if self.bottom_up else time
        return values

    def _advance(self, value: float, time: float) -> tuple[float, float]:
        """Return the sharpness after a time (in epochs), and the time that is left at 1."""
        for limit, rate in ((self.critical, self.rate), (1.0, self.critical_rate)):
            if value < limit:
                needed = (limit - value) / rate
                if time < needed:
                    return value + time * rate, 0.0
                value, time = limit, time - needed
        return 1.0, time

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the loss: wait, go on or go on waiting."""
        where = type(self).__name__
        value = logged(where, self.monitor, logs)
        if not math.isfinite(value):
            raise TrainingError(
                f"{where}: '{self.monitor}' is not finite (got {value}). "
                "Training has diverged; lower the learning rate."
            )
        risen = value > self._reference + abs(self._reference) * self.increase
        fallen = math.isinf(self._best) or self._best - value > abs(self._best) * self.decrease
        if self._phase == SHARPENING and risen:
            self._phase, self._best, self._waited = WAITING, value, 0
        elif self._phase == WAITING:
            if fallen:
                self._best, self._waited = value, 0
            else:
                self._waited += 1
            if self._waited >= self.patience and epoch + 1 >= self.min_epochs:
                self._phase, self._reference = SHARPENING, value
