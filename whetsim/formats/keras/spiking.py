"""Activations of Keras files: steps of Whetstone and of whetsim, and those that are no steps.

Whetstone's two activations are steps once their sharpness is 1: `Spiking_BRelu` is 1 where
x >= 0.5, and `Spiking_Sigmoid` where x >= 0, so that a tie fires. (Method: Severa, Vineyard,
Dellana, Verzi, Aimone, Nature Machine Intelligence 1, 86-94, 2019. The comparisons `greater_equal`
with 0.5 and 0.0 are those of the package's layers, which Fugu repeats in the tests of its
Whetstone networks.) Below 1 they are roughly ``clip((x - 0.5) / (1 - sharpness) + 0.5, 0, 1)``
and a sigmoid around 0. `whetsim.sharpen` has the same two under other names.

`Softmax_Decode` scores ``(2 s - 1) @ matrix``. Keras 2.4 and later trained the matrix along and
saved it; older versions save none, and the matrix is ``2 key - 1`` with the key of the
configuration.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import FormatError, quote
from whetsim.formats.graph import Value
from whetsim.formats.keras.config import LayerConfig
from whetsim.formats.keras.context import Build, Context, Kind, Scores
from whetsim.formats.keras.settings import Settings
from whetsim.formats.keras.weights import Roles

__all__ = ["ACTIVATIONS", "activated"]

STEPS = {"Spiking_BRelu", "Spiking_Sigmoid", "whetsim>SpikingBReLU", "whetsim>SpikingSigmoid"}
_PLAIN = ("relu", "sigmoid", "tanh")
_KNOWN = ("linear", *_PLAIN, "softmax")


def activated(c: Context, layer: LayerConfig, x: Value, name: str | None = None) -> Value | Scores:
    """Add the activation that a layer's configuration names."""
    function = _function_name(layer)
    if function in ("linear", None):
        return x
    if function == "softmax":
        return _softmax(x, layer)
    if function in _PLAIN:
        return c.graph.activation(name or f"{layer.full_name}/{function}", x, function)
    raise FormatError(
        f"layer {quote(layer.full_name)}: activation {quote(function)} is unknown (known: "
        f"{', '.join(_KNOWN)}). For steps, put a layer Spiking_BRelu of Whetstone or SpikingBReLU "
        "of whetsim behind it, or write the comparison in ONNX."
    )


def _function_name(layer: LayerConfig) -> str | None:
    value = layer.config.get("activation")
    if isinstance(value, dict):
        # A function with its module, or a layer in the place of a function.
        own = value.get("config")
        if value.get("class_name") == "function" and isinstance(own, str):
            module = value.get("module")
            return own if module in (None, "keras.activations") else f"{module}.{own}"
        value = value.get("registered_name") or value.get("class_name")
    if value is not None and not isinstance(value, str):
        raise FormatError(
            f"layer {quote(layer.full_name)}: activation must be a name (got {quote(value)})."
        )
    return value


def _softmax(x: Value, layer: LayerConfig) -> Scores:
    remark = f"the softmax of layer {layer.full_name!r} is left out: the largest score is the same"
    return Scores(x, layer.full_name, remark=remark)


def _activation(c: Context, layer: LayerConfig, x: Value) -> Value | Scores:
    if "activation" not in layer.config:
        raise Settings(layer).error("its configuration has no activation. The file is damaged.")
    return activated(c, layer, x, layer.full_name)


def _relu(c: Context, layer: LayerConfig, x: Value) -> Value:
    settings = Settings(layer)
    settings.unset("negative_slope", 0)
    settings.unset("threshold", 0)
    settings.unset("max_value", 1)
    # Cut off at 1 it is a bounded ReLU that nobody has sharpened yet.
    function = "bounded_relu" if settings.has("max_value") else "relu"
    return c.graph.activation(layer.full_name, x, function)


def _final_softmax(c: Context, layer: LayerConfig, x: Value) -> Scores:
    return _softmax(x, layer)


def _step(threshold: float, words: str) -> Build:
    def build(c: Context, layer: LayerConfig, x: Value) -> Value:
        name, sharpness = layer.full_name, _sharpness(c, layer)
        if sharpness != 1:
            # As many digits as tell it from 1.
            shown = str(np.float32(sharpness))
            if not c.reading.assume_sharp or not math.isfinite(sharpness):
                raise FormatError(
                    f"layer {quote(name)} has sharpness {shown}, so it is not a step function yet; "
                    "finish sharpening, or load with assume_sharp=True."
                )
            c.graph.remarks.append(f"layer {name!r} has sharpness {shown} and was taken for a step")
        return c.graph.step(name, x, threshold, written_as=words)

    return build


def _sharpness(c: Context, layer: LayerConfig) -> float:
    """Return the saved sharpness, or that of the configuration where none was saved."""
    if "sharpness" in c.weights.of(layer):
        saved = c.array(layer, "sharpness")
        if saved.shape != ():
            raise Settings(layer).error(f"sharpness has shape {saved.shape} (need one number).")
        return float(saved)
    return Settings(layer).number("sharpness")


def _decode(c: Context, layer: LayerConfig, x: Value) -> Scores:
    """Return scores of Whetstone's readout; a saved matrix wins over the key."""
    settings = Settings(layer)
    if "decoder" not in c.weights.of(layer):
        return Scores(x, layer.full_name, {"key": _key(settings, x)})
    matrix = c.array(layer, "decoder")
    if matrix.ndim != 2 or matrix.shape[0] != x.size:
        raise settings.error(
            f"its matrix has shape {matrix.shape} (need ({x.size}, classes) because its input has "
            f"shape {x.shape})."
        )
    if np.isin(matrix, (-1, 1)).all():
        return Scores(x, layer.full_name, {"key": (matrix.T > 0).astype(np.uint8)})
    remark = (
        f"the matrix of layer {layer.full_name!r} was trained along: it decodes, not the key that "
        "it began with"
    )
    return Scores(x, layer.full_name, {"decoder": matrix}, remark)


def _decode_key(c: Context, layer: LayerConfig, x: Value) -> Scores:
    return Scores(x, layer.full_name, {"key": _key(Settings(layer), x)})


def _key(settings: Settings, x: Value) -> NDArray[Any]:
    key = settings.numbers("key")
    if key.ndim != 2 or key.shape[1] != x.size or x.rank != 1:
        raise settings.error(
            f"its key has shape {key.shape}; expected (classes, {x.size}) because its input has "
            f"shape {x.shape}."
        )
    return key


def _one(role: str, rank: int) -> Callable[[Settings], Roles]:
    """Return the role of a single weight that some versions of Keras do not save."""
    return lambda settings: Roles(trained=(role,), optional_rank=rank)


def _whetsim_roles(settings: Settings) -> Roles:
    return Roles(fixed=("sharpness", "straight_through"))


ACTIVATIONS: dict[str, Kind] = {
    "Activation": Kind(_activation),
    "ReLU": Kind(_relu),
    "Softmax": Kind(_final_softmax),
    "Spiking_BRelu": Kind(
        _step(0.5, "Whetstone's Spiking_BRelu: x >= 0.5"), roles=_one("sharpness", 0)
    ),
    "Spiking_Sigmoid": Kind(
        _step(0.0, "Whetstone's Spiking_Sigmoid: x >= 0"), roles=_one("sharpness", 0)
    ),
    "Softmax_Decode": Kind(_decode, roles=_one("decoder", 2)),
    "whetsim>SpikingBReLU": Kind(
        _step(0.5, "whetsim's SpikingBReLU: x >= 0.5"), roles=_whetsim_roles
    ),
    "whetsim>SpikingSigmoid": Kind(
        _step(0.0, "whetsim's SpikingSigmoid: x >= 0"), roles=_whetsim_roles
    ),
    "whetsim>SoftmaxDecode": Kind(_decode_key),
}
"""Kinds of layers that are activations or readouts, by the name of their class."""
