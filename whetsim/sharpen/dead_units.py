"""Units that always give the same answer, and a warning of them where they do harm."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.sharpen.checks import TrainingError
from whetsim.sharpen.observe import LayerActivity, observe


class DeadUnitWarning(UserWarning):
    """Outputs of a trained network never fire, or always do."""


def find_dead_units(model: keras.Model, x: ArrayLike) -> Mapping[str, LayerActivity]:
    """Find the units that never or always fire when the network is fully sharp.

    Parameters
    ----------
    model : keras.Model
        See `observe`; it is left as it is.
    x : array_like, shape (n_samples, ...)
        Samples of every kind, as the model is trained on: a unit is only dead for these.

    Returns
    -------
    mapping of str to LayerActivity
        By name of the layer, in the order of `spiking_layers`; see its `never` and `always`.

    Raises
    ------
    TrainingError
        See `observe`.

    Examples
    --------
    >>> find_dead_units(model, x_train[:1000])["output"].n_never  # doctest: +SKIP
    3
    """
    return observe(model, x, sharp=True).layers


def warn_of_dead_outputs(
    dead: Mapping[str, LayerActivity], targets: ArrayLike | None = None, stacklevel: int = 2
) -> None:
    """Warn if units of the last layer are dead; elsewhere they cost nothing but their place.

    Parameters
    ----------
    dead : mapping of str to LayerActivity
        What `find_dead_units` returned.
    targets : array_like, shape (n_samples, n_units) or the like, optional
        What the outputs should be, where they are a picture and not a key: a pixel that is always
        to be dark is not dead.
    stacklevel : int
        As for `warnings.warn`.

    Raises
    ------
    TrainingError
        If there is no layer, or the targets have another number of units.

    Warns
    -----
    DeadUnitWarning
        Once, with the number of dead outputs, and of dead units elsewhere.
    """
    if not dead:
        raise TrainingError(
            "warn_of_dead_outputs: no layer given. Pass what find_dead_units found."
        )
    *others, (last, outputs) = dead.items()
    n_never, n_always = outputs.n_never, outputs.n_always
    if targets is not None:
        wanted = _wanted(targets, last, outputs.n_units)
        n_never = int(wanted[:, outputs.never].any(axis=0).sum())
        n_always = int((~wanted[:, outputs.always]).any(axis=0).sum())
    if not n_never and not n_always:
        return
    elsewhere = [_counts(name, d.n_never, d.n_always, d) for name, d in others]
    detail = f" In other layers: {'; '.join(elsewhere)}." if elsewhere else ""
    harm, remedy = "help no class", "take a wider key"
    if targets is not None:
        harm, remedy = "miss what they should show", "train for longer"
    warnings.warn(
        f"layer {_counts(last, n_never, n_always, outputs)}; these outputs give the same "
        f"answer to all {outputs.n_samples:,} samples and {harm}.{detail} Lower the learning rate "
        "while sharpening, start sharpening later, put BatchNormalization with beta 0.5 before "
        f"the step, or {remedy}.",
        DeadUnitWarning,
        stacklevel=stacklevel,
    )


def _wanted(targets: ArrayLike, name: str, n_units: int) -> NDArray[np.bool_]:
    wanted = np.asarray(targets)
    wanted = wanted.reshape(len(wanted), -1) if wanted.ndim and len(wanted) else np.empty((0, 0))
    if wanted.shape[1] != n_units:
        raise TrainingError(
            f"warn_of_dead_outputs: the targets do not fit layer '{name}' "
            f"(got {wanted.shape[1]} units; need {n_units})."
        )
    result: NDArray[Any] = wanted >= 0.5
    return result


def _counts(name: str, n_never: int, n_always: int, units: LayerActivity) -> str:
    return f"'{name}': {n_never:,} never fire and {n_always:,} always fire, of {units.n_units:,}"
