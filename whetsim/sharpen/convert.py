"""One function per kind of Keras layer: what it is in a whetsim model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from whetsim import layers as L
from whetsim.sharpen.checks import TrainingError
from whetsim.sharpen.layers import SpikingActivation

Converter = Callable[[Any, dict[str, Any], tuple[int, ...]], L.Layer]
"""From Keras layer, name and inputs as keywords, and output shape of one sample."""


def is_passive(layer: keras.layers.Layer) -> bool:
    """Return whether a layer does nothing once training is over."""
    return type(layer) in _PASSIVE or (
        type(layer) is keras.layers.Activation and layer.activation is keras.activations.linear
    )


def convert(
    layer: keras.layers.Layer, name: str, inputs: list[str], shape: tuple[int, ...]
) -> L.Layer:
    """Return the whetsim layer that computes what a trained Keras layer computes.

    Parameters
    ----------
    layer : keras.layers.Layer
        The layer, built.
    name : str
        The new layer's name.
    inputs : list of str
        Names of the layers it reads.
    shape : tuple of int
        Its output shape, without the sample axis.

    Returns
    -------
    whetsim.layers.Layer
        With copies of the weights, float32.

    Raises
    ------
    TrainingError
        If the kind, an activation, the sharpness or another setting cannot be expressed.
    """
    if isinstance(layer, SpikingActivation):
        if not layer.is_sharp:
            raise TrainingError(
                f"layer '{name}': it has sharpness {layer.sharpness:.6g}, so it is not a step "
                "function yet (need 1). Finish sharpening; ScheduledSharpener ends at 1 when "
                "fit runs all its epochs."
            )
        return L.Step(name=name, inputs=tuple(inputs), threshold=layer.threshold)
    converter = _CONVERTERS.get(type(layer))
    if converter is None:
        known = ", ".join(sorted(kind.__name__ for kind in _CONVERTERS))
        raise TrainingError(
            f"layer '{name}': no export for this kind of layer (got {type(layer).__name__}; need "
            f"SpikingBReLU or one of {known}). Replace it before training."
        )
    _refuse_other_settings(layer, name)
    return converter(layer, {"name": name, "inputs": tuple(inputs)}, shape)


def _refuse_other_settings(layer: Any, name: str) -> None:
    activation = getattr(layer, "activation", keras.activations.linear)
    if activation is not keras.activations.linear:
        got = getattr(activation, "__name__", type(activation).__name__)
        raise TrainingError(
            f"layer '{name}': it has an activation of its own (got {got}; need none). "
            "Put a SpikingBReLU layer behind it instead."
        )
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise TrainingError(
            f"layer '{name}': data_format is {layer.data_format!r} (need 'channels_last'). "
            "Train with channels last."
        )


def _weights(layer: Any, kernel: str = "kernel") -> dict[str, Any]:
    return {
        "weight": _array(getattr(layer, kernel)),
        "bias": _array(layer.bias) if layer.use_bias else None,
    }


def _array(variable: Any) -> NDArray[np.float32]:
    return np.array(ops.convert_to_numpy(variable), dtype=np.float32)


def _window(layer: Any) -> dict[str, Any]:
    return {"strides": tuple(layer.strides), "padding": layer.padding}


def _dense(layer: Any, common: dict[str, Any], shape: tuple[int, ...]) -> L.Layer:
    return L.Dense(**common, **_weights(layer))


def _conv(layer: Any, common: dict[str, Any], shape: tuple[int, ...]) -> L.Layer:
    dilation = tuple(layer.dilation_rate)
    return L.Conv2D(
        **common, **_weights(layer), **_window(layer), dilation=dilation, groups=layer.groups
    )


def _depthwise(layer: Any, common: dict[str, Any], shape: tuple[int, ...]) -> L.Layer:
    dilation = tuple(layer.dilation_rate)
    return L.DepthwiseConv2D(**common, **_weights(layer), **_window(layer), dilation=dilation)


def _transposed(layer: Any, common: dict[str, Any], shape: tuple[int, ...]) -> L.Layer:
    if layer.output_padding is not None:
        raise TrainingError(
            f"layer '{common['name']}': output_padding is set (got {layer.output_padding}; need "
            "None). Leave it out; padding='same' gives strides times the input's size."
        )
    dilation = tuple(layer.dilation_rate)
    return L.Conv2DTranspose(**common, **_weights(layer), **_window(layer), dilation=dilation)


def _max_pool(layer: Any, common: dict[str, Any], shape: tuple[int, ...]) -> L.Layer:
    return L.MaxPool2D(**common, **_window(layer), pool_size=tuple(layer.pool_size))


def _average_pool(layer: Any, common: dict[str, Any], shape: tuple[int, ...]) -> L.Layer:
    return L.AveragePool2D(**common, **_window(layer), pool_size=tuple(layer.pool_size))


def _global_pool(kind: type[L.Layer]) -> Converter:
    def build(layer: Any, common: dict[str, Any], shape: tuple[int, ...]) -> L.Layer:
        if layer.keepdims:
            raise TrainingError(f"layer '{common['name']}': keepdims is set (need False).")
        return kind(**common)

    return build


def _batch_norm(layer: Any, common: dict[str, Any], shape: tuple[int, ...]) -> L.Layer:
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    if axis not in (-1, len(shape)):
        raise TrainingError(
            f"layer '{common['name']}': it normalizes axis {axis} (need the last, -1)."
        )
    return L.BatchNorm(
        **common,
        mean=_array(layer.moving_mean),
        variance=_array(layer.moving_variance),
        gamma=_array(layer.gamma) if layer.scale else None,
        beta=_array(layer.beta) if layer.center else None,
        epsilon=float(layer.epsilon),
    )


def _flatten(layer: Any, common: dict[str, Any], shape: tuple[int, ...]) -> L.Layer:
    return L.Flatten(**common)


def _reshape(layer: Any, common: dict[str, Any], shape: tuple[int, ...]) -> L.Layer:
    return L.Reshape(**common, shape=shape)  # target_shape may hold a -1


def _permute(layer: Any, common: dict[str, Any], shape: tuple[int, ...]) -> L.Layer:
    return L.Permute(**common, axes=tuple(d - 1 for d in layer.dims))


def _upsample(layer: Any, common: dict[str, Any], shape: tuple[int, ...]) -> L.Layer:
    if layer.interpolation != "nearest":
        raise TrainingError(
            f"layer '{common['name']}': interpolation is {layer.interpolation!r} (need 'nearest'). "
            "Others blur spikes."
        )
    return L.Upsample2D(**common, size=tuple(layer.size))


def _add(layer: Any, common: dict[str, Any], shape: tuple[int, ...]) -> L.Layer:
    return L.Add(**common)


def _concat(layer: Any, common: dict[str, Any], shape: tuple[int, ...]) -> L.Layer:
    if layer.axis == 0:
        raise TrainingError(f"layer '{common['name']}': axis is 0, the samples (need another).")
    # Keras counts the sample axis, whetsim does not.
    return L.Concat(**common, axis=layer.axis - 1 if layer.axis > 0 else layer.axis)


_PASSIVE = {
    keras.layers.InputLayer,
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.ActivityRegularization,
}

_CONVERTERS: dict[type, Converter] = {
    keras.layers.Dense: _dense,
    keras.layers.Conv2D: _conv,
    keras.layers.DepthwiseConv2D: _depthwise,
    keras.layers.Conv2DTranspose: _transposed,
    keras.layers.MaxPooling2D: _max_pool,
    keras.layers.AveragePooling2D: _average_pool,
    keras.layers.GlobalMaxPooling2D: _global_pool(L.GlobalMaxPool2D),
    keras.layers.GlobalAveragePooling2D: _global_pool(L.GlobalAveragePool2D),
    keras.layers.BatchNormalization: _batch_norm,
    keras.layers.Flatten: _flatten,
    keras.layers.Reshape: _reshape,
    keras.layers.Permute: _permute,
    keras.layers.UpSampling2D: _upsample,
    keras.layers.Add: _add,
    keras.layers.Concatenate: _concat,
}
