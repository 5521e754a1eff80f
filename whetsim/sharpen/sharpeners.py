"""Keras callbacks that sharpen a network by a fixed schedule while it is trained."""

from __future__ import annotations

import json
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, final

import keras

from whetsim.errors import did_you_mean
from whetsim.sharpen.checks import (
    TrainingError,
    check_count,
    check_flag,
    check_number,
    check_part,
    not_a_state,
)
from whetsim.sharpen.layers import SpikingActivation
from whetsim.sharpen.schedule import check_intermission, scheduled_sharpness, sharpness_of_layers
from whetsim.sharpen.state import apply_sharpness, find_layers, sync

_MEANING = "a part of the training: 0.25 is after a quarter of all epochs"


class Sharpener(keras.callbacks.Callback):  # type: ignore[misc]
    """Base of the callbacks that sharpen.

    Parameters
    ----------
    bottom_up : bool
        One layer after the other, from the input up. Otherwise all at once.
    straight_through : bool
        Pass straight-through gradients through each layer from the moment it is a step.
        Otherwise, as the method was published, nothing below a step goes on learning.
    """

    def __init__(self, bottom_up: bool, straight_through: bool) -> None:
        super().__init__()
        where = type(self).__name__
        self.bottom_up = check_flag(where, "bottom_up", bottom_up)
        self.straight_through = check_flag(where, "straight_through", straight_through)
        self._layers: list[SpikingActivation] = []
        self._epoch = 0
        self._is_first_batch = True

    def _settings(self) -> dict[str, Any]:
        """Return the arguments, as JSON holds them."""
        of_keras = ("params", "validation_data")
        own = {k: v for k, v in vars(self).items() if k[0] != "_" and k not in of_keras}
        return dict(json.loads(json.dumps(own)))

    def state(self) -> dict[str, Any]:
        """Return what a new sharpener needs to go on from here, as JSON can hold it."""
        return {"settings": self._settings()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises
        ------
        TrainingError
            If it is one of a sharpener with other arguments.
        """
        where, saved, own = type(self).__name__, state.get("settings"), self._settings()
        if not isinstance(saved, Mapping):
            raise not_a_state(where, state, "settings")
        for name, value in own.items():
            if saved.get(name) != value:
                raise TrainingError(
                    f"{where}: the state is one of another schedule: {name} is "
                    f"{saved.get(name)!r} (got {value!r}). Take the same arguments, or begin anew."
                )

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the layers to sharpen."""
        self._layers = find_layers(self.model, type(self).__name__)
        self._is_first_batch = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the epoch."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the sharpness that holds for this batch."""
        sync(self.model)
        values = self._values(batch)
        if self._is_first_batch:
            self._is_first_batch = False
            self._warn_of_softening(values)
        apply_sharpness(self._layers, values, self.straight_through)

    def _warn_of_softening(self, values: Sequence[float]) -> None:
        for layer, value in zip(self._layers, values, strict=True):
            if value < layer.sharpness - 1e-6:
                warnings.warn(
                    f"{type(self).__name__}: layer '{layer.name}' was sharper already (sharpness "
                    f"{layer.sharpness:.3g}, now {value:.3g}): the schedule begins anew. To go on "
                    "with a training, give fit initial_epoch or use Checkpoint.",
                    stacklevel=2,
                )
                return

    def _batches_done(self, batch: int) -> int:
        """Return how many batches of this epoch are done when the next call ends."""
        # Keras may run several batches in one call; all get the sharpness of the last.
        return batch + int(getattr(self.model, "steps_per_execution", 1) or 1)

    @abstractmethod
    def _values(self, batch: int) -> Sequence[float]:
        """Return the sharpness of each layer during a batch of this epoch."""

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Warn if the network is not fully sharp."""
        soft = [layer for layer in self._layers if not layer.is_sharp]
        if soft:
            warnings.warn(
                f"{type(self).__name__}: training ended before layer '{soft[0].name}' was sharp "
                f"(sharpness {soft[0].sharpness:.3g}). Train for more epochs, or sharpen earlier "
                "or faster.",
                stacklevel=2,
            )


@final
class SimpleSharpener(Sharpener):
    """Sharpen in equal increments, one per epoch or per batch, from a given epoch on.

    Parameters
    ----------
    start : int
        Epoch at whose beginning the first increment is made; 0 is the first epoch.
    steps : int
        Increments from soft to sharp, for each layer; at least 1. With `bottom_up` the next layer
        follows when one is sharp, so that n layers take n times as many.
    per : {"epoch", "batch"}
        When an increment is made.
    bottom_up, straight_through
        See `ScheduledSharpener`.

    Raises
    ------
    TrainingError
        If an argument is out of range; when training starts, if the model has no layer that can
        be sharpened, or the number of batches of an epoch is not known with `per="batch"`.

    Warns
    -----
    UserWarning
        If training ends before every layer is sharp, or begins with one that is sharper already.

    Notes
    -----
    The sharpness depends on the numbers of the epoch and the batch alone, so that `fit` with
    `initial_epoch` goes on where it was.

    Examples
    --------
    >>> sharpener = SimpleSharpener(start=5, steps=4)
    >>> model.fit(x, y, epochs=30, callbacks=[sharpener])  # doctest: +SKIP
    """

    def __init__(
        self,
        start: int = 5,
        steps: int = 4,
        per: str = "epoch",
        bottom_up: bool = True,
        straight_through: bool = True,
    ) -> None:
        super().__init__(bottom_up, straight_through)
        where = type(self).__name__
        self.start = check_count(where, "start", start, smallest=0)
        self.steps = check_count(where, "steps", steps, smallest=1)
        if per not in ("epoch", "batch"):
            raise TrainingError(f"{where}: per is unknown (got {per!r}; need 'epoch' or 'batch').")
        self.per = per

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the layers to sharpen."""
        super().on_train_begin(logs)
        if self.per == "batch" and not self.params.get("steps"):
            raise TrainingError(
                f"{type(self).__name__}: the number of batches of an epoch is not known (need it "
                "for per='batch'). Give fit steps_per_epoch, or take per='epoch'."
            )

    def _values(self, batch: int) -> Sequence[float]:
        done = self._epoch - self.start + 1
        if self.per == "batch":
            steps = int(self.params["steps"])
            done = (self._epoch - self.start) * steps + min(self._batches_done(batch), steps)
        n_layers = len(self._layers)
        stop = self.steps * (n_layers if self.bottom_up else 1)
        return sharpness_of_layers(done, n_layers, 0, stop, bottom_up=self.bottom_up)


@final
class ScheduledSharpener(Sharpener):
    """Sharpen layer after layer, from the input up, in a fixed part of the training.

    Each layer has an equal share of the time between `start` and `stop`, in which its sharpness
    grows linearly from 0 to 1, batch by batch. The rest of the training is fine-tuning with fully
    sharp layers.

    Parameters
    ----------
    start : float
        Part of the training before the first layer is sharpened, 0 to 1. Give the network time to
        become good first.
    stop : float
        Part of the training after which all layers are sharp, greater than `start`, at most 1.
    intermission : float
        Part of the training between one layer's turn and the next, in which the network adapts.
    bottom_up : bool
        One layer after the other, from the input up. Otherwise all at once.
    straight_through : bool
        Pass straight-through gradients through each layer from the moment it is a step.
        Otherwise, as the method was published, nothing below a step goes on learning.
    schedule : mapping of str to (float, float), optional
        Start and stop of each layer by its name, in place of start, stop, intermission and
        bottom_up.

    Raises
    ------
    TrainingError
        If the times are not in order between 0 and 1 or leave no time for a layer; when training
        starts, if the model has no layer that can be sharpened, or the schedule names others.

    Notes
    -----
    Progress is counted in batches of the whole `epochs` of `fit`, so that `fit` with
    `initial_epoch` goes on where the schedule was. Where the number of batches is not known
    (a generator without length), sharpness changes at each epoch only.

    References
    ----------
    Severa et al., Nature Machine Intelligence 1, 86-94 (2019): bottom-up sharpening.

    Examples
    --------
    >>> sharpener = ScheduledSharpener(start=0.25, stop=0.6)
    >>> model.fit(x, y, epochs=20, callbacks=[sharpener])  # doctest: +SKIP
    """

    def __init__(
        self,
        start: float = 0.25,
        stop: float = 0.6,
        intermission: float = 0.0,
        bottom_up: bool = True,
        straight_through: bool = True,
        schedule: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        super().__init__(bottom_up, straight_through)
        where = type(self).__name__
        self.start, self.stop = _check_times(where, start, stop)
        self.intermission = check_part(where, "intermission", intermission, _MEANING)
        self.schedule = None
        if schedule is not None:
            if not isinstance(schedule, Mapping):
                raise TrainingError(
                    f"{where}: schedule is no mapping (got {schedule!r}; need "
                    "{name: (start, stop), ...})."
                )
            self.schedule = {
                str(name): _check_times(f"{where}: layer '{name}'", *_pair(where, name, times))
                for name, times in schedule.items()
            }

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the layers to sharpen."""
        super().on_train_begin(logs)
        where, n_layers = type(self).__name__, len(self._layers)
        if self.schedule is not None:
            self._check_names(self.schedule)
        elif self.bottom_up:
            check_intermission(where, n_layers, self.start, self.stop, self.intermission)

    def _check_names(self, schedule: Mapping[str, Any]) -> None:
        where, names = type(self).__name__, [str(layer.name) for layer in self._layers]
        for name in schedule:
            if name not in names:
                raise TrainingError(
                    f"{where}: the schedule names no layer that can be sharpened (got '{name}'; "
                    f"need one of {', '.join(names)}).{did_you_mean(name, names)}"
                )
        for name in names:
            if name not in schedule:
                raise TrainingError(
                    f"{where}: the schedule leaves out layer '{name}' (need all of "
                    f"{', '.join(names)}). Give it a start and a stop."
                )

    def _values(self, batch: int) -> Sequence[float]:
        steps = self.params.get("steps")
        # Counted to the end of the batch: the last batch of all is trained at progress 1.
        part_of_epoch = min(self._batches_done(batch) / steps, 1.0) if steps else 1.0
        progress = (self._epoch + part_of_epoch) / self.params["epochs"]
        if self.schedule is not None:
            times = [self.schedule[str(layer.name)] for layer in self._layers]
            return [scheduled_sharpness(progress, 0, 1, start, stop) for start, stop in times]
        return sharpness_of_layers(
            progress,
            len(self._layers),
            self.start,
            self.stop,
            bottom_up=self.bottom_up,
            intermission=self.intermission,
        )


def _check_times(where: str, start: object, stop: object) -> tuple[float, float]:
    first, last = check_number(where, "start", start), check_number(where, "stop", stop)
    if not 0.0 <= first < last <= 1.0:
        raise TrainingError(
            f"{where}: start and stop are not in order (got start={first:g}, stop={last:g}; "
            "need 0 <= start < stop <= 1). They are parts of the training: 0.25 is after a "
            "quarter of all epochs."
        )
    return first, last


def _pair(where: str, name: str, times: object) -> tuple[object, object]:
    if not isinstance(times, Sequence) or isinstance(times, str) or len(times) != 2:
        raise TrainingError(
            f"{where}: layer '{name}': its times are no pair (got {times!r}; need (start, stop))."
        )
    return times[0], times[1]
