"""Keras layers that slide over maps: convolutions, pools, padding, enlargement.

Sizes and padding are those of TensorFlow, which defined them for Keras; Keras' own text says that
its other backends cannot always follow for transposed convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from whetsim.formats.graph import Value
from whetsim.formats.keras.config import LayerConfig
from whetsim.formats.keras.context import (
    Build,
    Context,
    Floats,
    Kind,
    bias_of,
    of_shape,
    roles_with_bias,
)
from whetsim.formats.keras.settings import Settings

__all__ = ["sliding"]


def sliding(n: int) -> dict[str, Kind]:
    """Return the kinds of layers that work on maps of n axes and channels."""
    separable = roles_with_bias("depthwise_kernel", "pointwise_kernel")
    each = {
        f"DepthwiseConv{n}D": Kind(_depthwise(n), roles=roles_with_bias("depthwise_kernel")),
        f"SeparableConv{n}D": Kind(_separable(n), roles=separable),
    }
    return {
        **(each if n < 3 else {}),
        f"Conv{n}D": Kind(_conv(n), roles=roles_with_bias("kernel")),
        f"Conv{n}DTranspose": Kind(_conv_transpose(n), roles=roles_with_bias("kernel")),
        f"MaxPooling{n}D": Kind(_pool(n, maximum=True)),
        f"AveragePooling{n}D": Kind(_pool(n, maximum=False)),
        f"GlobalMaxPooling{n}D": Kind(_global_pool(n, maximum=True)),
        f"GlobalAveragePooling{n}D": Kind(_global_pool(n, maximum=False)),
        f"UpSampling{n}D": Kind(_upsample(n)),
        f"ZeroPadding{n}D": Kind(_zero_pad(n)),
    }


@dataclass(frozen=True)
class _Window:
    """What layers that slide a kernel over a map have in common."""

    kernel: tuple[int, ...]
    channel_axis: int
    channels: int
    options: dict[str, Any]


def _window(c: Context, layer: LayerConfig, x: Value, n_axes: int) -> _Window:
    settings = Settings(layer)
    if x.rank != n_axes + 1:
        raise settings.error(
            f"its input has shape {x.shape} (need {n_axes} axes and one of channels)."
        )
    if c.backend == "theano":
        raise settings.error(
            "the file was written with the Theano backend, which turns kernels around. Load it "
            "with Keras 2 on TensorFlow and save it again."
        )
    settings.unset("quantization_config")
    axis = settings.channel_axis(n_axes)
    kernel = settings.sizes("kernel_size", n_axes)
    dilation = settings.sizes("dilation_rate", n_axes, 1)
    padding: Any = settings.word("padding", ("valid", "same", "causal"), "valid")
    if padding == "causal":
        if n_axes != 1:
            raise settings.error("padding is 'causal' (need 'valid' or 'same').")
        padding = [((kernel[0] - 1) * dilation[0], 0)]
    options = {
        "channel_axis": axis,
        "strides": settings.sizes("strides", n_axes, 1),
        "padding": padding,
        "dilation": dilation,
    }
    return _Window(kernel, axis, x.shape[axis], options)


def _conv(n_axes: int) -> Build:
    def build(c: Context, layer: LayerConfig, x: Value) -> Value:
        settings, window = Settings(layer), _window(c, layer, x, n_axes)
        groups, filters = settings.whole("groups", 1), settings.whole("filters")
        shape = (*window.kernel, window.channels // groups, filters)
        kernel = of_shape(settings, "kernel", c.array(layer, "kernel"), shape)
        bias = bias_of(c, layer, filters)
        return c.graph.conv(layer.full_name, x, kernel, bias, groups=groups, **window.options)

    return build


def _depthwise(n_axes: int) -> Build:
    def build(c: Context, layer: LayerConfig, x: Value) -> Value:
        window = _window(c, layer, x, n_axes)
        kernel = _depthwise_kernel(c, layer, window)
        bias = bias_of(c, layer, kernel.shape[-1] * window.channels)
        return c.graph.depthwise(layer.full_name, x, kernel, bias, **window.options)

    return build


def _separable(n_axes: int) -> Build:
    """Return the function for a convolution of each channel, and one of all with kernel 1."""

    def build(c: Context, layer: LayerConfig, x: Value) -> Value:
        settings, window = Settings(layer), _window(c, layer, x, n_axes)
        kernel = _depthwise_kernel(c, layer, window)
        filters = settings.whole("filters")
        shape = (*(1,) * n_axes, window.channels * kernel.shape[-1], filters)
        point = of_shape(settings, "pointwise_kernel", c.array(layer, "pointwise_kernel"), shape)
        bias = bias_of(c, layer, filters)
        name, axis = layer.full_name, window.channel_axis
        y = c.graph.depthwise(f"{name}/depthwise", x, kernel, **window.options)
        return c.graph.conv(name, y, point, bias, channel_axis=axis)

    return build


def _depthwise_kernel(c: Context, layer: LayerConfig, window: _Window) -> Floats:
    settings = Settings(layer)
    shape = (*window.kernel, window.channels, settings.whole("depth_multiplier", 1))
    return of_shape(settings, "kernel", c.array(layer, "depthwise_kernel"), shape)


def _conv_transpose(n_axes: int) -> Build:
    def build(c: Context, layer: LayerConfig, x: Value) -> Value:
        settings, window = Settings(layer), _window(c, layer, x, n_axes)
        filters = settings.whole("filters")
        shape = (*window.kernel, filters, window.channels)
        kernel = of_shape(settings, "kernel", c.array(layer, "kernel"), shape)
        bias = bias_of(c, layer, filters)
        settings.unset("groups", 1)
        options = dict(window.options)
        if layer.config.get("output_padding") is not None:
            options |= _transposed_padding(settings, window, x)
        return c.graph.conv_transpose(layer.full_name, x, kernel, bias, **options)

    return build


def _transposed_padding(settings: Settings, window: _Window, x: Value) -> dict[str, Any]:
    """Return the padding for a given output padding.

    An axis has ``(n - 1) * stride + span - 2 * pad + output_padding`` cells, with pad half the span
    where the padding is 'same' (Keras). What TensorFlow then cuts of the full result is what makes
    it that long; the odd cell goes behind.
    """
    n_axes = len(window.kernel)
    extra = settings.sizes("output_padding", n_axes, low=0)
    sizes = [n for axis, n in enumerate(x.shape) if axis != window.channel_axis]
    pads, behind = [], []
    for n, k, stride, dilation, more in zip(
        sizes,
        window.kernel,
        window.options["strides"],
        window.options["dilation"],
        extra,
        strict=True,
    ):
        if more >= stride:
            raise settings.error(f"output_padding is {more} (need less than the stride {stride}).")
        span = (k - 1) * dilation + 1
        cut = 2 * (span // 2) - more if window.options["padding"] == "same" else -more
        pads.append((max(cut, 0) // 2, max(cut, 0) - max(cut, 0) // 2))
        behind.append(max(-cut, 0))
        if (n - 1) * stride + span - cut < 1:
            raise settings.error(f"its output would be empty for a map of {n} cells.")
    return {"padding": pads, "output_padding": behind}


def _pool(n_axes: int, *, maximum: bool) -> Build:
    def build(c: Context, layer: LayerConfig, x: Value) -> Value:
        settings = Settings(layer)
        size = settings.sizes("pool_size", n_axes)
        given = layer.config.get("strides") is not None
        strides = settings.sizes("strides", n_axes) if given else size
        padding = settings.word("padding", ("valid", "same"), "valid")
        axis = settings.channel_axis(n_axes)
        if not maximum and padding == "same" and c.backend not in ("tensorflow", "jax"):
            c.graph.remarks.append(
                f"layer {layer.full_name!r}: the mean leaves padding out, as TensorFlow and JAX "
                "do; Keras on torch counts it where padding is uneven"
            )
        pool = c.graph.max_pool if maximum else c.graph.average_pool
        return pool(layer.full_name, x, size, strides, padding, channel_axis=axis)

    return build


def _global_pool(n_axes: int, *, maximum: bool) -> Build:
    def build(c: Context, layer: LayerConfig, x: Value) -> Value:
        settings = Settings(layer)
        if x.rank != n_axes + 1:
            raise settings.error(f"its input has shape {x.shape} (need {n_axes + 1} axes).")
        return c.graph.global_pool(
            layer.full_name,
            x,
            maximum=maximum,
            channel_axis=settings.channel_axis(n_axes),
            keep_axes=settings.flag("keepdims", False),
        )

    return build


def _upsample(n_axes: int) -> Build:
    def build(c: Context, layer: LayerConfig, x: Value) -> Value:
        settings = Settings(layer)
        settings.unset("interpolation", "nearest")
        size = settings.sizes("size", n_axes)
        return c.graph.upsample(
            layer.full_name, x, size, channel_axis=settings.channel_axis(n_axes)
        )

    return build


def _zero_pad(n_axes: int) -> Build:
    def build(c: Context, layer: LayerConfig, x: Value) -> Value:
        settings = Settings(layer)
        pads = settings.pads("padding", n_axes)
        return c.graph.zero_pad(
            layer.full_name, x, pads, channel_axis=settings.channel_axis(n_axes)
        )

    return build
