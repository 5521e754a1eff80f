"""Which layers of a model are sharpened, and how far they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras

from whetsim.sharpen.checks import TrainingError, check_sharpness
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


def find_layers(model: keras.Model, where: str) -> list[SpikingActivation]:
    """Return the layers that can be sharpened; a model without any is an error.

    Raises
    ------
    TrainingError
        If there is none, or one is hidden inside of another layer; `where` is named.
    """
    layers = spiking_layers(model)
    for layer in model._flatten_layers():
        if isinstance(layer, SpikingActivation) and layer not in layers:
            raise TrainingError(
                f"{where}: layer '{layer.name}' is inside of another layer, where it would not be "
                "sharpened (need a layer of the model itself). Put it behind that layer."
            )
    if not layers:
        raise TrainingError(
            f"{where}: model '{model.name}' has no layer that can be sharpened. "
            "Use SpikingBReLU as activation."
        )
    return layers


def sync(model: keras.Model) -> None:
    """Bring the state of a model that is being trained into its layers.

    With JAX it is outside them during an epoch; what is set without this is lost.
    """
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def apply_sharpness(
    layers: Sequence[SpikingActivation], values: Sequence[float], straight_through: bool
) -> None:
    """Give each layer its sharpness, and straight-through gradients once it is a step.

    Parameters
    ----------
    layers : sequence of SpikingActivation
        The layers, changed in place.
    values : sequence of float
        Sharpness of each.
    straight_through : bool
        Whether to switch straight-through gradients on at all.
    """
    for layer, value in zip(layers, values, strict=True):
        if value != layer.sharpness:
            layer.sharpness = value
        # At once, not when all are sharp: what lies below a step would not learn until then.
        passes = straight_through and layer.is_sharp
        if passes != layer.straight_through:
            layer.straight_through = passes


def is_fully_sharp(model: keras.Model) -> bool:
    """Return whether every layer that can be sharpened is an exact step, and there is one."""
    layers = spiking_layers(model)
    return bool(layers) and all(layer.is_sharp for layer in layers)


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
