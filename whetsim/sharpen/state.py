"""Which layers of a model are sharpened, and how far they are."""

from __future__ import annotations

from collections.abc import Iterator

import keras

from whetsim.sharpen.checks import check_sharpness
from whetsim.sharpen.layers import SpikingActivation


def spiking_layers(model: keras.Model) -> list[SpikingActivation]:
    """Return the layers that can be sharpened, from input to output.

    Parameters
    ----------
    model : keras.Model
        Sequential or functional; models used as layers are searched too.

    Returns
    -------
    list of SpikingActivation
        In the order of `model.layers`; each layer once.
    """
    return list(dict.fromkeys(_walk(model)))


def _walk(model: keras.Model) -> Iterator[SpikingActivation]:
    for layer in model.layers:
        if isinstance(layer, SpikingActivation):
            yield layer
        elif isinstance(layer, keras.Model):
            yield from _walk(layer)


def is_fully_sharp(model: keras.Model) -> bool:
    """Return whether every layer that can be sharpened is an exact step."""
    return all(layer.is_sharp for layer in spiking_layers(model))


def set_sharpness(model: keras.Model, sharpness: float) -> None:
    """Give every layer that can be sharpened the same sharpness.

    Parameters
    ----------
    model : keras.Model
        The model, changed in place.
    sharpness : float
        0 (soft) to 1 (step).

    Raises
    ------
    TrainingError
        If the sharpness is not a number between 0 and 1.
    """
    value = check_sharpness(str(model.name), sharpness)
    for layer in spiking_layers(model):
        layer.sharpness = value
