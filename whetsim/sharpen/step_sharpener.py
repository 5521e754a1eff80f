"""Sharpening by counted steps, for training loops that do not call fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import keras

from whetsim.sharpen.checks import check_count, check_flag
from whetsim.sharpen.schedule import check_intermission, sharpness_of_layers
from whetsim.sharpen.state import apply_sharpness, find_layers, sync


@final
class StepSharpener:
    """Sharpen a model by counted steps: of an environment, of updates, of anything.

    Reinforcement learning has no epochs; its loop calls `step` and the model becomes sharper. A new
    sharpener begins at count 0 and makes the model as soft as that; `restore` goes on.

    Parameters
    ----------
    model : keras.Model
        The model to sharpen.
    start, stop : int
        Counts at which the first layer starts to be sharpened and at which the last is sharp.
    intermission : int
        Steps between one layer's turn and the next.
    bottom_up : bool
        One layer after the other, from the input up. Otherwise all at once.
    straight_through : bool
        Pass straight-through gradients through each layer from the moment it is a step.

    Raises
    ------
    TrainingError
        If the counts are not in order or leave no time for a layer, or the model has no layer
        that can be sharpened.

    Examples
    --------
    >>> sharpener = StepSharpener(model, start=50_000, stop=150_000)  # doctest: +SKIP
    >>> while playing:  # doctest: +SKIP
    ...     act_and_learn(model)
    ...     sharpener.step()
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        start: int,
        stop: int,
        intermission: int = 0,
        bottom_up: bool = True,
        straight_through: bool = True,
    ) -> None:
        where = type(self).__name__
        self.start = check_count(where, "start", start, smallest=0)
        self.stop = check_count(where, "stop", stop, smallest=self.start + 1)
        self.intermission = check_count(where, "intermission", intermission, smallest=0)
        self.bottom_up = check_flag(where, "bottom_up", bottom_up)
        self.straight_through = check_flag(where, "straight_through", straight_through)
        self._model = model
        self._layers = find_layers(model, where)
        if self.bottom_up:
            check_intermission(where, len(self._layers), self.start, self.stop, self.intermission)
        self._count = 0
        self._apply()

    @property
    def count(self) -> int:
        """Steps counted so far."""
        return self._count

    @property
    def sharpness(self) -> tuple[float, ...]:
        """Sharpness of each layer, from input to output."""
        return tuple(layer.sharpness for layer in self._layers)

    @property
    def done(self) -> bool:
        """Whether all layers are steps."""
        return all(layer.is_sharp for layer in self._layers)

    def step(self, n: int = 1) -> None:
        """Count steps and set the sharpness that belongs to the count.

        Parameters
        ----------
        n : int
            How many, at least 0.
        """
        self._count += check_count(f"{type(self).__name__}.step", "n", n, smallest=0)
        self._apply()

    def state(self) -> dict[str, Any]:
        """Return what a new sharpener needs to go on from here, as JSON can hold it."""
        return {"count": self._count}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._count = check_count(
            type(self).__name__, "count of the state", state.get("count"), smallest=0
        )
        self._apply()

    def _apply(self) -> None:
        sync(self._model)
        values = sharpness_of_layers(
            self._count,
            len(self._layers),
            self.start,
            self.stop,
            bottom_up=self.bottom_up,
            intermission=self.intermission,
        )
        apply_sharpness(self._layers, values, self.straight_through)
