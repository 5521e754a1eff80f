"""Layers that slide a window over a map or a volume, and the arithmetic of windows and padding.

Maps are ``(height, width, channels)``, volumes ``(depth, height, width, channels)``; kernels are
``(*kernel size, input channels / groups, output channels)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from whetsim.errors import FormatError, did_you_mean, quote
from whetsim.layer import FloatArray, Layer, Shape, whole_number, whole_numbers

__all__ = [
    "AveragePool",
    "AveragePool2D",
    "AveragePool3D",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Convolution",
    "DepthwiseConv2D",
    "ExplicitPadding",
    "GlobalAveragePool2D",
    "GlobalMaxPool2D",
    "MaxPool",
    "MaxPool2D",
    "MaxPool3D",
    "Padding",
    "Pool",
    "Upsample2D",
    "ZeroPad2D",
    "checked_padding",
    "resolve_padding",
]

Pair = tuple[int, int]
Triple = tuple[int, int, int]
ExplicitPadding = tuple[Pair, ...]
"""Cells before and after, for each axis that the window slides over."""
Padding = Literal["valid", "same"] | ExplicitPadding

_SIDES = ("[front, back]", "[top, bottom]", "[left, right]")
_MAPS = {2: "a map (height, width, channels)", 3: "a volume (depth, height, width, channels)"}


def _per_axis(value: object, what: str, n_axes: int, minimum: int = 1) -> Shape:
    """Return a number for each axis; one number alone is for all of them."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        value = (value,) * n_axes
    return whole_numbers(value, what, minimum, length=n_axes)


def checked_padding(value: object, n_axes: int, what: str = "padding") -> Padding:
    """Return 'valid', 'same', or cells before and after for each axis; else `FormatError`."""
    explicit = f"[{', '.join(_SIDES[-n_axes:])}]"
    if isinstance(value, str):
        if value == "valid":
            return "valid"
        if value == "same":
            return "same"
        raise FormatError(
            f"{what} is unknown (got {quote(value)}; need 'valid', 'same' or {explicit})."
            f"{did_you_mean(value, ('valid', 'same'))}"
        )
    if not isinstance(value, (tuple, list)) or len(value) != n_axes:
        raise FormatError(f"{what} must be 'valid', 'same' or {explicit} (got {quote(value)}).")
    sides = (_per_axis(side, what, 2, minimum=0) for side in value)
    return tuple((before, after) for before, after in sides)


def resolve_padding(
    padding: Padding, size: Shape, kernel: Shape, strides: Shape, dilation: Shape
) -> ExplicitPadding:
    """Return cells before and after, for each axis that a window slides over.

    'same' is the rule of TensorFlow and Keras: the output has ``ceil(size / stride)`` positions and
    the odd cell of padding goes behind. 'valid' is none.
    """
    if padding == "valid":
        return ((0, 0),) * len(size)
    if padding == "same":
        before_after = []
        for n, k, s, d in zip(size, kernel, strides, dilation, strict=True):
            total = max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0)
            before_after.append((total // 2, total - total // 2))
        return tuple(before_after)
    return padding


def _window_output(
    size: Shape, kernel: Shape, strides: Shape, dilation: Shape, padding: ExplicitPadding
) -> Shape:
    result = []
    for n, k, s, d, (before, after) in zip(size, kernel, strides, dilation, padding, strict=True):
        span = (k - 1) * d + 1
        room = n + before + after - span
        if room < 0:
            raise FormatError(
                f"the window spans {span} cells but the padded map has {n + before + after} "
                f"(kernel {k}, dilation {d}, map {n}, padding {before} + {after})."
            )
        result.append(room // s + 1)
    return tuple(result)


def _size_and_channels(shape: Shape, n_axes: int) -> tuple[Shape, int]:
    if len(shape) != n_axes + 1:
        raise FormatError(
            f"its input has shape {shape}; need {_MAPS[n_axes]}. Put a reshape before it."
        )
    return shape[:-1], shape[-1]


@dataclass(frozen=True, eq=False, kw_only=True)
class Convolution(Layer):
    """What convolutions over maps and over volumes share.

    Weight is ``(*kernel size, input channels / groups, output channels)``. They are
    cross-correlations, as every framework means them.
    """

    weight: FloatArray
    bias: FloatArray | None = None
    strides: Shape
    padding: Padding = "valid"
    dilation: Shape
    groups: int = 1
    n_axes: ClassVar[int]
    """How many axes the window slides over."""

    def _check(self) -> None:
        self._set(
            strides=_per_axis(self.strides, "strides", self.n_axes),
            padding=checked_padding(self.padding, self.n_axes),
            dilation=_per_axis(self.dilation, "dilation", self.n_axes),
            groups=whole_number(self.groups, "groups", 1),
        )
        if 0 in self.weight.shape:
            raise FormatError(f"weight has shape {self.weight.shape}; need no empty axis.")
        n_out = self.weight.shape[-1]
        self._fits("bias", self.bias, n_out)
        if n_out % self.groups:
            raise FormatError(
                f"weight makes {n_out} channels, not divisible by groups = {self.groups}."
            )

    @property
    def kernel(self) -> Shape:
        """Size of the kernel along each axis."""
        return tuple(int(n) for n in self.weight.shape[:-2])

    def explicit_padding(self, size: Shape) -> ExplicitPadding:
        """Return cells before and after along each axis, for an input of `size`."""
        return resolve_padding(self.padding, size, self.kernel, self.strides, self.dilation)

    def output_shape(self, *shapes: Shape) -> Shape:
        size, channels = _size_and_channels(shapes[0], self.n_axes)
        if self.weight.shape[-2] * self.groups != channels:
            raise FormatError(
                f"weight has shape {self.weight.shape} with groups = {self.groups}; expected "
                f"{channels} / {self.groups} input channels because {self.inputs[0]!r} has "
                f"{channels} channels."
            )
        padding = self.explicit_padding(size)
        places = _window_output(size, self.kernel, self.strides, self.dilation, padding)
        return (*places, int(self.weight.shape[-1]))


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv2D(Convolution):
    """Convolution over a map."""

    strides: Pair = (1, 1)
    dilation: Pair = (1, 1)
    n_axes: ClassVar[int] = 2
    kind: ClassVar[str] = "conv2d"
    arrays: ClassVar[dict[str, int]] = {"weight": 4, "bias": 1}


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv3D(Convolution):
    """Convolution over a volume."""

    strides: Triple = (1, 1, 1)
    dilation: Triple = (1, 1, 1)
    n_axes: ClassVar[int] = 3
    kind: ClassVar[str] = "conv3d"
    arrays: ClassVar[dict[str, int]] = {"weight": 5, "bias": 1}


@dataclass(frozen=True, eq=False, kw_only=True)
class DepthwiseConv2D(Layer):
    """Convolution of each channel by itself.

    Weight is ``(kernel height, kernel width, channels, multiplier)``; output channel
    ``c * multiplier + m`` belongs to input channel c.
    """

    weight: FloatArray
    bias: FloatArray | None = None
    strides: Pair = (1, 1)
    padding: Padding = "valid"
    dilation: Pair = (1, 1)
    kind: ClassVar[str] = "depthwise_conv2d"
    arrays: ClassVar[dict[str, int]] = {"weight": 4, "bias": 1}

    def _check(self) -> None:
        self.as_conv2d()

    def as_conv2d(self) -> Conv2D:
        """Return the same layer as a `Conv2D` with one group per input channel."""
        kh, kw, channels, multiplier = self.weight.shape
        if 0 in self.weight.shape:
            raise FormatError(f"weight has shape {self.weight.shape}; need no empty axis.")
        conv = Conv2D(
            name=self.name,
            inputs=self.inputs,
            weight=self.weight.reshape(kh, kw, 1, channels * multiplier),
            bias=self.bias,
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation,
            groups=channels,
        )
        self._set(strides=conv.strides, padding=conv.padding, dilation=conv.dilation)
        return conv

    def output_shape(self, *shapes: Shape) -> Shape:
        return self.as_conv2d().output_shape(*shapes)


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv2DTranspose(Layer):
    """Transposed convolution: input cell y adds ``x[y] * weight[i]`` to cell ``y*s + i*d - p``.

    Weight is ``(kernel height, kernel width, output channels, input channels)``, as in Keras.
    An output axis has ``(n - 1) * stride + (kernel - 1) * dilation + 1 - before - after +
    output_padding`` cells; 'valid' and 'same' choose padding so that Keras' sizes result
    (``n * stride + max(kernel - stride, 0)`` and ``n * stride``).
    """

    weight: FloatArray
    bias: FloatArray | None = None
    strides: Pair = (1, 1)
    padding: Padding = "valid"
    dilation: Pair = (1, 1)
    output_padding: Pair = (0, 0)
    kind: ClassVar[str] = "conv2d_transpose"
    arrays: ClassVar[dict[str, int]] = {"weight": 4, "bias": 1}

    def _check(self) -> None:
        self._set(
            strides=_per_axis(self.strides, "strides", 2),
            padding=checked_padding(self.padding, 2),
            dilation=_per_axis(self.dilation, "dilation", 2),
            output_padding=_per_axis(self.output_padding, "output_padding", 2, minimum=0),
        )
        if 0 in self.weight.shape:
            raise FormatError(f"weight has shape {self.weight.shape}; need no empty axis.")
        self._fits("bias", self.bias, self.weight.shape[2])
        if isinstance(self.padding, str) and self.output_padding != (0, 0):
            raise FormatError("output_padding needs explicit padding.")

    @property
    def kernel(self) -> Pair:
        """Kernel height and width."""
        return int(self.weight.shape[0]), int(self.weight.shape[1])

    def explicit_padding(self) -> tuple[ExplicitPadding, Pair]:
        """Return the cropping ``((top, bottom), (left, right))`` and the output padding."""
        if not isinstance(self.padding, str):
            return self.padding, self.output_padding
        crops, extras = [], []
        for k, s, d in zip(self.kernel, self.strides, self.dilation, strict=True):
            excess = (k - 1) * d + 1 - s
            crop = max(excess, 0) if self.padding == "same" else 0
            crops.append((crop // 2, crop - crop // 2))
            extras.append(max(-excess, 0))
        return (crops[0], crops[1]), (extras[0], extras[1])

    def output_shape(self, *shapes: Shape) -> Shape:
        source, channels = _size_and_channels(shapes[0], 2)
        if self.weight.shape[3] != channels:
            raise FormatError(
                f"weight has shape {self.weight.shape}; expected (kh, kw, n, {channels}) because "
                f"{self.inputs[0]!r} has {channels} channels."
            )
        padding, extra = self.explicit_padding()
        size = []
        for axis, n in enumerate(source):
            span = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            cells = (n - 1) * self.strides[axis] + span - sum(padding[axis]) + extra[axis]
            if cells < 1:
                raise FormatError(f"padding {padding} leaves no output for a map of {n} cells.")
            size.append(cells)
        return (size[0], size[1], int(self.weight.shape[2]))


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool(Layer):
    """What pools share: each channel by itself, one value for each place of the window."""

    pool_size: Shape
    strides: Shape | None = None
    padding: Padding = "valid"
    n_axes: ClassVar[int]
    """How many axes the window slides over."""

    def _check(self) -> None:
        size = _per_axis(self.pool_size, "pool_size", self.n_axes)
        strides = size if self.strides is None else self.strides
        self._set(
            pool_size=size,
            strides=_per_axis(strides, "strides", self.n_axes),
            padding=checked_padding(self.padding, self.n_axes),
        )

    @property
    def steps(self) -> Shape:
        """The strides; the pool size where none were given."""
        return self.pool_size if self.strides is None else self.strides

    def explicit_padding(self, size: Shape) -> ExplicitPadding:
        """Return cells before and after along each axis, for an input of `size`."""
        once = (1,) * self.n_axes
        return resolve_padding(self.padding, size, self.pool_size, self.steps, once)

    def output_shape(self, *shapes: Shape) -> Shape:
        size, channels = _size_and_channels(shapes[0], self.n_axes)
        padding = self.explicit_padding(size)
        if any(p >= k for pad, k in zip(padding, self.pool_size, strict=True) for p in pad):
            raise FormatError(
                f"padding {padding} is not smaller than the pool {self.pool_size}, so a window "
                "could hold padding alone."
            )
        once = (1,) * self.n_axes
        return (*_window_output(size, self.pool_size, self.steps, once, padding), channels)


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(Pool):
    """Largest value under the window; padding never wins."""


@dataclass(frozen=True, eq=False, kw_only=True)
class AveragePool(Pool):
    """Mean under the window; padding cells count as zeros only if `count_padding`."""

    count_padding: bool = False

    def _check(self) -> None:
        super()._check()
        if not isinstance(self.count_padding, bool):
            raise FormatError(f"count_padding must be true or false (got {self.count_padding!r}).")


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool2D(MaxPool):
    """Max pool of a map."""

    pool_size: Pair = (2, 2)
    n_axes: ClassVar[int] = 2
    kind: ClassVar[str] = "max_pool2d"


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool3D(MaxPool):
    """Max pool of a volume."""

    pool_size: Triple = (2, 2, 2)
    n_axes: ClassVar[int] = 3
    kind: ClassVar[str] = "max_pool3d"


@dataclass(frozen=True, eq=False, kw_only=True)
class AveragePool2D(AveragePool):
    """Average pool of a map."""

    pool_size: Pair = (2, 2)
    n_axes: ClassVar[int] = 2
    kind: ClassVar[str] = "average_pool2d"


@dataclass(frozen=True, eq=False, kw_only=True)
class AveragePool3D(AveragePool):
    """Average pool of a volume."""

    pool_size: Triple = (2, 2, 2)
    n_axes: ClassVar[int] = 3
    kind: ClassVar[str] = "average_pool3d"


@dataclass(frozen=True, eq=False, kw_only=True)
class GlobalMaxPool2D(Layer):
    """Largest value of each channel; output is ``(channels,)``."""

    kind: ClassVar[str] = "global_max_pool2d"

    def output_shape(self, *shapes: Shape) -> Shape:
        return (_size_and_channels(shapes[0], 2)[1],)


@dataclass(frozen=True, eq=False, kw_only=True)
class GlobalAveragePool2D(Layer):
    """Mean of each channel; output is ``(channels,)``."""

    kind: ClassVar[str] = "global_average_pool2d"

    def output_shape(self, *shapes: Shape) -> Shape:
        return (_size_and_channels(shapes[0], 2)[1],)


@dataclass(frozen=True, eq=False, kw_only=True)
class ZeroPad2D(Layer):
    """A map with zeros around it; `padding` is ``((top, bottom), (left, right))``."""

    padding: ExplicitPadding
    kind: ClassVar[str] = "zero_pad2d"

    def _check(self) -> None:
        padding = checked_padding(self.padding, 2)
        if isinstance(padding, str):
            raise FormatError(f"padding must be numbers of cells (got {padding!r}).")
        self._set(padding=padding)

    def output_shape(self, *shapes: Shape) -> Shape:
        (h, w), channels = _size_and_channels(shapes[0], 2)
        return (h + sum(self.padding[0]), w + sum(self.padding[1]), channels)


@dataclass(frozen=True, eq=False, kw_only=True)
class Upsample2D(Layer):
    """Every cell repeated `size` times (nearest neighbour)."""

    size: Pair = (2, 2)
    kind: ClassVar[str] = "upsample2d"

    def _check(self) -> None:
        self._set(size=_per_axis(self.size, "size", 2))

    def output_shape(self, *shapes: Shape) -> Shape:
        (h, w), channels = _size_and_channels(shapes[0], 2)
        return (h * self.size[0], w * self.size[1], channels)
