"""One function per kind of Keras layer: what it adds to the graph."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from whetsim.formats.graph import Value
from whetsim.formats.keras.config import LayerConfig
from whetsim.formats.keras.context import Context, Kind, bias_of, of_shape, roles_with_bias
from whetsim.formats.keras.maps import sliding
from whetsim.formats.keras.settings import Settings
from whetsim.formats.keras.weights import Roles

__all__ = ["AFFINE"]


def _dense(c: Context, layer: LayerConfig, x: Value) -> Value:
    settings = Settings(layer)
    settings.unset("quantization_config")
    units = settings.whole("units")
    kernel = of_shape(settings, "kernel", c.array(layer, "kernel"), (x.shape[-1], units))
    return c.graph.dense(layer.full_name, x, kernel, bias_of(c, layer, units))


def _batch_norm_roles(settings: Settings) -> Roles:
    settings.unset("renorm", False)
    gamma = ("gamma",) if settings.flag("scale", True) else ()
    beta = ("beta",) if settings.flag("center", True) else ()
    return Roles((*gamma, *beta), ("moving_mean", "moving_variance"))


def _batch_norm(c: Context, layer: LayerConfig, x: Value) -> Value:
    settings = Settings(layer)
    roles = _batch_norm_roles(settings)
    axis = settings.axis("axis", x.rank)
    found = {
        role: of_shape(settings, role, c.array(layer, role), (x.shape[axis],))
        for role in (*roles.trained, *roles.fixed)
    }
    return c.graph.batch_norm(
        layer.full_name,
        x,
        found["moving_mean"],
        found["moving_variance"],
        found.get("gamma"),
        found.get("beta"),
        epsilon=settings.number("epsilon", 1e-3),
        axis=axis,
    )


def _flatten(c: Context, layer: LayerConfig, x: Value) -> Value:
    # Keras puts the channels last before it flattens, so that weights behind fit both layouts.
    if Settings(layer).channel_axis(x.rank - 1) == 0 and x.rank > 1:
        x = c.graph.transpose(x, (*range(1, x.rank), 0))
    return c.graph.flatten(layer.full_name, x)


def _reshape(c: Context, layer: LayerConfig, x: Value) -> Value:
    settings = Settings(layer)
    shape = settings.shape("target_shape")
    known = math.prod(n for n in shape if n != -1)
    if shape.count(-1) > 1 or known == 0 or x.size % known or (-1 not in shape and known != x.size):
        raise settings.error(f"its input of shape {x.shape} has no shape {shape}.")
    shape = tuple(x.size // known if n == -1 else n for n in shape)
    return c.graph.reshape(layer.full_name, x, shape)


def _permute(c: Context, layer: LayerConfig, x: Value) -> Value:
    settings = Settings(layer)
    dims = settings.shape("dims")
    if sorted(dims) != list(range(1, x.rank + 1)):
        raise settings.error(f"dims {dims} do not order the {x.rank} axes of its input.")
    return c.graph.transpose(x, [d - 1 for d in dims])


def _add(c: Context, layer: LayerConfig, values: Sequence[Value]) -> Value:
    return c.graph.add(layer.full_name, values)


def _subtract(c: Context, layer: LayerConfig, values: Sequence[Value]) -> Value:
    if len(values) != 2:
        raise Settings(layer).error(f"it has {len(values)} inputs (need 2).")
    negative = c.graph.scale_and_shift(f"{layer.full_name}/negative", values[1], np.float32(-1))
    return c.graph.add(layer.full_name, [values[0], negative])


def _average(c: Context, layer: LayerConfig, values: Sequence[Value]) -> Value:
    total = c.graph.add(f"{layer.full_name}/sum", values)
    return c.graph.scale_and_shift(layer.full_name, total, np.float32(1 / len(values)))


def _concatenate(c: Context, layer: LayerConfig, values: Sequence[Value]) -> Value:
    settings = Settings(layer)
    return c.graph.concat(layer.full_name, values, settings.axis("axis", values[0].rank))


def _rescaling(c: Context, layer: LayerConfig, x: Value) -> Value:
    settings = Settings(layer)
    offset = settings.numbers("offset") if "offset" in layer.config else None
    return c.graph.scale_and_shift(layer.full_name, x, settings.numbers("scale"), offset)


def _normalization_roles(settings: Settings) -> Roles:
    return Roles(fixed=() if settings.has("mean") else ("mean", "variance", "count"))


def _normalization(c: Context, layer: LayerConfig, x: Value) -> Value:
    """Add ``(x - mean) / max(sqrt(variance), 1e-7)``."""
    settings = Settings(layer)
    settings.unset("invert", False)
    kept = sorted(settings.axes("axis", x.rank)) if settings.has("axis") else []
    if settings.has("mean"):
        mean, variance = settings.numbers("mean"), settings.numbers("variance")
    else:
        mean, variance = c.array(layer, "mean"), c.array(layer, "variance")
    if mean.shape != variance.shape or mean.ndim > len(kept):
        raise settings.error(
            f"mean has shape {mean.shape}, variance {variance.shape} (need the same, and "
            f"{len(kept)} axes)."
        )
    if not (variance >= 0).all():
        raise settings.error("variance must not be negative.")
    shape = [1] * x.rank
    for axis, n in zip(reversed(kept), reversed(mean.shape), strict=False):
        shape[axis] = n
    scale = 1.0 / np.maximum(np.sqrt(variance.astype(np.float64)), 1e-7)
    shift = -mean.astype(np.float64) * scale
    scale, shift = (v.reshape(shape).astype(np.float32) for v in (scale, shift))
    return c.graph.scale_and_shift(layer.full_name, x, scale, shift)


_BATCH_NORM = Kind(_batch_norm, roles=_batch_norm_roles)

AFFINE: dict[str, Kind] = {
    **sliding(1),
    **sliding(2),
    **sliding(3),
    "BatchNormalization": _BATCH_NORM,
    "BatchNormalizationV1": _BATCH_NORM,
    "BatchNormalizationV2": _BATCH_NORM,
    "SyncBatchNormalization": _BATCH_NORM,
    "Dense": Kind(_dense, roles=roles_with_bias("kernel")),
    "Flatten": Kind(_flatten),
    "Reshape": Kind(_reshape),
    "Permute": Kind(_permute),
    "Rescaling": Kind(_rescaling),
    "Normalization": Kind(_normalization, roles=_normalization_roles),
    "Add": Kind(join=_add),
    "Subtract": Kind(join=_subtract),
    "Average": Kind(join=_average),
    "Concatenate": Kind(join=_concatenate),
}
"""Kinds of layers without an activation, by the name of their class."""
