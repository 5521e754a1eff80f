"""Keras callbacks that sharpen a network while it is trained."""

from __future__ import annotations

from typing import Any, final

import keras

from whetsim.sharpen.checks import TrainingError, check_number
from whetsim.sharpen.layers import SpikingActivation
from whetsim.sharpen.state import spiking_layers


def scheduled_sharpness(
    progress: float, index: int, n_layers: int, start: float, stop: float
) -> float:
    """Return the sharpness of one layer at a moment of a bottom-up schedule.

    Parameters
    ----------
    progress : float
        Part of the training that is done, 0 to 1.
    index : int
        Number of the layer, 0 is the one next to the input.
    n_layers : int
        Number of layers that are sharpened.
    start, stop : float
        Parts of the training at which the first layer starts to be sharpened and the last is sharp.

    Returns
    -------
    float
        0 before the layer's turn, growing linearly in it, 1 after it.

    Examples
    --------
    >>> [scheduled_sharpness(p, 1, 2, start=0.0, stop=1.0) for p in (0.5, 0.75, 1.0)]
    [0.0, 0.5, 1.0]
    """
    if progress >= stop:  # said by itself, so that rounding never leaves 0.99999
        return 1.0
    turns = (progress - start) / (stop - start) * n_layers
    return min(max(turns - index, 0.0), 1.0)


@final
class ScheduledSharpener(keras.callbacks.Callback):  # type: ignore[misc]
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
    straight_through : bool
        Fine-tune with straight-through gradients once all layers are sharp. Otherwise only the
        layers above the last step go on learning.

    Raises
    ------
    TrainingError
        If start and stop are not in order between 0 and 1; when training starts, if the model has
        no layer that can be sharpened.

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
        self, start: float = 0.25, stop: float = 0.6, straight_through: bool = True
    ) -> None:
        super().__init__()
        where = type(self).__name__
        self.start = check_number(where, "start", start)
        self.stop = check_number(where, "stop", stop)
        if not 0.0 <= self.start < self.stop <= 1.0:
            raise TrainingError(
                f"{where}: start and stop are not in order (got start={self.start:g}, "
                f"stop={self.stop:g}; need 0 <= start < stop <= 1). "
                "They are parts of the training: 0.25 is after a quarter of all epochs."
            )
        self.straight_through = bool(straight_through)
        self._layers: list[SpikingActivation] = []
        self._epoch = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the layers to sharpen."""
        self._layers = spiking_layers(self.model)
        if not self._layers:
            raise TrainingError(
                f"{type(self).__name__}: model '{self.model.name}' has no layer that can be "
                "sharpened. Use SpikingBReLU as activation."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the epoch."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the sharpness that holds for this batch."""
        steps = self.params.get("steps")
        # Counted to the end of the batch: the last batch of all is trained at progress 1.
        part_of_epoch = min((batch + 1) / steps, 1.0) if steps else 1.0
        self._apply((self._epoch + part_of_epoch) / self.params["epochs"])

    def _apply(self, progress: float) -> None:
        if hasattr(self.model, "jax_state_sync"):
            # With JAX the state is outside the layers during an epoch; get it back before changing.
            self.model.jax_state_sync()
        n_layers = len(self._layers)
        for index, layer in enumerate(self._layers):
            value = scheduled_sharpness(progress, index, n_layers, self.start, self.stop)
            if value != layer.sharpness:
                layer.sharpness = value
            # Only when all are sharp: layers below a soft one still get exact gradients from it.
            passes = self.straight_through and progress >= self.stop
            if passes != layer.straight_through:
                layer.straight_through = passes
