"""Look inside a Keras model while it runs: spikes and margins of its layers on a probe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, final

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from whetsim.sharpen.checks import TrainingError, check_count
from whetsim.sharpen.layers import SpikingActivation
from whetsim.sharpen.state import find_layers, sync

QUANTILES = (0.01, 0.05, 0.25, 0.5)
"""Quantiles of the margins that are computed."""
MOST_MARGINS = 2**18
"""So many margins of a layer are kept at most."""


@final
@dataclass(frozen=True, eq=False)
class LayerActivity:
    """What one layer did on a probe.

    Parameters
    ----------
    name : str
    n_samples : int
    fired : int64 array (n_units,), read-only
        In how many samples each unit's output was at least 0.5. A unit is a position in the
        layer's flattened output; the uses of a layer that is used several times follow each other.
    margins : mapping of float to float
        Quantile to margin `|x - threshold|` of the pre-activations.
    """

    name: str
    n_samples: int
    fired: NDArray[np.int64]
    margins: Mapping[float, float]

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.fired)

    @property
    def spikes_per_sample(self) -> float:
        """Mean number of units that fire in a sample."""
        return int(self.fired.sum()) / self.n_samples

    @property
    def never(self) -> NDArray[np.intp]:
        """Indices of the units that never fired, read-only."""
        return _indices(self.fired == 0)

    @property
    def always(self) -> NDArray[np.intp]:
        """Indices of the units that fired in every sample, read-only."""
        return _indices(self.fired == self.n_samples)

    @property
    def n_never(self) -> int:
        """How many units never fired."""
        return len(self.never)

    @property
    def n_always(self) -> int:
        """How many units fired in every sample."""
        return len(self.always)


def _indices(chosen: NDArray[np.bool_]) -> NDArray[np.intp]:
    result = np.flatnonzero(chosen)
    result.flags.writeable = False
    return result


@final
@dataclass(frozen=True, eq=False)
class Observation:
    """What a model did on a probe.

    Parameters
    ----------
    outputs : array (n_samples, ...), read-only
        Outputs of the model.
    layers : mapping of str to LayerActivity
        In the order of `spiking_layers`.
    sharp : bool
        Whether every layer that can be sharpened was an exact step for the observation.
    """

    outputs: NDArray[Any]
    layers: Mapping[str, LayerActivity]
    sharp: bool


def observe(
    model: keras.Model, x: ArrayLike, batch_size: int = 500, sharp: bool = False
) -> Observation:
    """Run a model on a probe and look at the layers that can be sharpened.

    Weights, sharpness, statistics of batch norm, random seeds, metrics and the optimizer stay as
    they are, in the middle of a training too: the model runs in a `keras.StatelessScope`, which
    throws changes away.

    Parameters
    ----------
    model : keras.Model
        Sequential, functional or subclassed, built, with one input and one output; models used as
        layers are looked into.
    x : array_like, shape (n_samples, ...)
        What the model is trained on.
    batch_size : int
        Samples that run at a time.
    sharp : bool
        Run with every layer an exact step; spikes are then those of the spiking network.

    Returns
    -------
    Observation

    Raises
    ------
    TrainingError
        If there is no sample, the model does not run on these, has no layer that can be sharpened,
        or two of one name.

    Notes
    -----
    Memory does not grow with the number of samples, the outputs apart. So that it does not for the
    margins either, of a layer with more than 2**18 of them only every k-th is kept, for the
    smallest k that leaves no more and shares no factor with the number of units: all units take
    part equally, and the same probe always gives the same margins.

    Examples
    --------
    >>> observe(model, x_val[:1000], sharp=True).layers["hidden"].never  # doctest: +SKIP
    array([17, 92])
    """
    samples = check_samples("observe", x)
    size = check_count("observe", "batch_size", batch_size, smallest=1)
    layers = find_layers(model, "observe")
    if not model.built:
        raise TrainingError(
            f"observe: model '{model.name}' is not built, so it has no weights. "
            "Start it with keras.Input(shape)."
        )
    sync(model)
    tallies = {layer.name: _Tally(layer, len(samples)) for layer in layers}
    if len(tallies) < len(layers):
        names = [layer.name for layer in layers]
        twice = next(name for name in names if names.count(name) > 1)
        raise TrainingError(
            f"observe: two layers are named '{twice}'. Give each a name of its own."
        )
    steps = [(layer._sharpness, 1.0) for layer in layers] if sharp else []
    outputs = []
    with _observers(layers, tallies), _no_gradients():
        for first in range(0, len(samples), size):
            batch = samples[first : first + size]
            for tally in tallies.values():
                tally.begin(len(batch))
            with keras.StatelessScope(state_mapping=steps):
                outputs.append(_run(model, batch))
            for tally in tallies.values():
                tally.check()
    joined = np.concatenate(outputs)
    joined.flags.writeable = False
    activities = {name: tally.finish() for name, tally in tallies.items()}
    is_sharp = sharp or all(layer.is_sharp for layer in layers)
    return Observation(joined, MappingProxyType(activities), is_sharp)


def check_samples(where: str, x: ArrayLike, name: str = "x") -> NDArray[Any]:
    """Return samples as an array of numbers, shape (n_samples, ...), at least one.

    Raises
    ------
    TrainingError
        If they are anything else.
    """
    try:
        samples = np.asarray(x)
    except (TypeError, ValueError):
        samples = np.empty((), dtype=object)
    if samples.dtype.kind not in "biuf" or samples.ndim == 0:
        raise TrainingError(
            f"{where}: {name} is not an array of numbers (got {type(x).__name__}; "
            "need shape (n_samples, ...))."
        )
    if samples.size == 0:
        raise TrainingError(
            f"{where}: {name} is empty (got shape {samples.shape}; need at least one sample)."
        )
    return samples


def _run(model: keras.Model, batch: NDArray[Any]) -> NDArray[Any]:
    if batch.dtype.kind == "f":
        batch = batch.astype(keras.config.floatx(), copy=False)  # as `fit` does
    if not batch.flags.writeable:
        batch = batch.copy()  # torch warns of read-only arrays
    try:
        outputs = model(batch, training=False)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise TrainingError(
            f"observe: model '{model.name}' does not run on these samples (one has shape "
            f"{batch.shape[1:]}; its input is {getattr(model, 'input_shape', 'unknown')}): "
            f"{reason}. Pass what it is trained on."
        ) from error
    if isinstance(outputs, (list, tuple, dict)):
        raise TrainingError(f"observe: model '{model.name}' has {len(outputs)} outputs (need one).")
    return np.asarray(ops.convert_to_numpy(outputs))


@contextmanager
def _observers(layers: list[SpikingActivation], tallies: Mapping[str, _Tally]) -> Iterator[None]:
    before = [layer.observer for layer in layers]
    try:
        for layer in layers:
            layer.observer = tallies[layer.name].add
        yield
    finally:
        for layer, observer in zip(layers, before, strict=True):
            layer.observer = observer


def _no_gradients() -> AbstractContextManager[Any]:
    if keras.backend.backend() != "torch":
        return nullcontext()
    import torch

    result: AbstractContextManager[Any] = torch.no_grad()
    return result


class _Tally:
    """What one layer did so far; one part for each use of it in the model."""

    def __init__(self, layer: SpikingActivation, n_samples: int) -> None:
        self._layer = layer
        self._n_samples = n_samples
        self._parts: list[_Part] = []
        self._batch = self._use = 0
        self._wrong: int | None = None

    def begin(self, batch: int) -> None:
        """Begin a batch of so many samples."""
        self._batch, self._use = batch, 0

    def add(self, x: Any, value: Any) -> None:
        """Take a use of the layer in."""
        if x.shape[0] != self._batch:
            self._wrong = int(x.shape[0])  # raised later: Keras rewrites errors of a call
            return
        if self._use == len(self._parts):
            self._parts.append(_Part(math.prod(x.shape[1:]), self._n_samples))
        part = self._parts[self._use]
        self._use += 1
        part.count(np.asarray(ops.convert_to_numpy(value)))
        part.keep(np.asarray(ops.convert_to_numpy(x)), self._layer.threshold)

    def check(self) -> None:
        """Raise if the layer did not run as it must."""
        if self._wrong is not None:
            raise TrainingError(
                f"observe: layer '{self._layer.name}': its first axis is not the samples "
                f"(got {self._wrong}; need {self._batch}). Keep them first."
            )
        if not self._use:
            raise TrainingError(
                f"observe: layer '{self._layer.name}' did not run, though the model holds it. "
                "Take it out."
            )

    def finish(self) -> LayerActivity:
        """Return what the layer did on all samples."""
        fired = np.concatenate([part.fired for part in self._parts])
        fired.flags.writeable = False
        margins = np.concatenate([kept for part in self._parts for kept in part.kept])
        levels = np.quantile(margins.astype(np.float64), QUANTILES)
        quantiles = dict(zip(QUANTILES, map(float, levels), strict=True))
        return LayerActivity(self._layer.name, self._n_samples, fired, MappingProxyType(quantiles))


class _Part:
    """Counts and margins of one use of a layer."""

    def __init__(self, n_units: int, n_samples: int) -> None:
        self.fired = np.zeros(n_units, dtype=np.int64)
        self.kept: list[NDArray[np.floating[Any]]] = []
        self._seen = 0
        self._every = max(-(-n_units * n_samples // MOST_MARGINS), 1)
        while math.gcd(self._every, n_units) > 1:
            self._every += 1

    def count(self, value: NDArray[Any]) -> None:
        self.fired += np.count_nonzero(value.reshape(len(value), -1) >= 0.5, axis=0)

    def keep(self, x: NDArray[Any], threshold: float) -> None:
        chosen = x.reshape(-1)[-self._seen % self._every :: self._every]
        self._seen += x.size
        wide = chosen.astype(np.promote_types(np.float32, chosen.dtype))
        self.kept.append(np.abs(wide - threshold))
