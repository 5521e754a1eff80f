"""The layers a trained network may consist of.

Each layer is a frozen value: its name, the names of its inputs, its parameters. A layer knows the
shape it produces and nothing about how it is computed: `reference.py` computes, `mapping.py` maps.
Shapes are those of one sample. Maps are ``(height, width, channels)``; kernels are
``(kernel height, kernel width, input channels / groups, output channels)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.errors import FormatError, did_you_mean, quote

__all__ = [
    "KINDS",
    "Activation",
    "Add",
    "AveragePool2D",
    "BatchNorm",
    "Concat",
    "Conv2D",
    "Conv2DTranspose",
    "Dense",
    "DepthwiseConv2D",
    "Flatten",
    "FloatArray",
    "GlobalAveragePool2D",
    "GlobalMaxPool2D",
    "Layer",
    "MaxPool2D",
    "Padding",
    "Permute",
    "Reshape",
    "Shape",
    "Step",
    "Upsample2D",
    "resolve_padding",
]

Shape = tuple[int, ...]
Pair = tuple[int, int]
ExplicitPadding = tuple[Pair, Pair]
Padding = Literal["valid", "same"] | ExplicitPadding
FloatArray = NDArray[np.floating[Any]]

MAX_EXTENT = 2**31 - 1
"""Largest kernel, stride, padding or axis: indices stay within 32 bits."""


def _integer(value: object, what: str, minimum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise FormatError(f"{what} must be a whole number (got {quote(value)}).")
    if not minimum <= value <= MAX_EXTENT:
        raise FormatError(f"{what} is out of range (got {quote(value)}; need >= {minimum}).")
    return int(value)


def finite(value: object, what: str) -> float:
    """Return a finite real number as float, or raise `FormatError`."""
    try:
        if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number):
                return number
    except OverflowError:
        pass
    raise FormatError(f"{what} must be a finite number (got {quote(value)}).")


def _integers(value: object, what: str, minimum: int, length: int | None = None) -> Shape:
    if not isinstance(value, (tuple, list)):
        raise FormatError(f"{what} must be a list of whole numbers (got {quote(value)}).")
    if length is not None and len(value) != length:
        raise FormatError(f"{what} must have {length} entries (got {len(value)}).")
    if len(value) > 16:
        raise FormatError(f"{what} has too many entries (got {len(value)}; need <= 16).")
    return tuple(_integer(v, what, minimum) for v in value)


def _pair(value: object, what: str, minimum: int = 1) -> Pair:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        value = (value, value)
    first, second = _integers(value, what, minimum, length=2)
    return first, second


def _padding(value: object, what: str) -> Padding:
    if isinstance(value, str):
        if value == "valid":
            return "valid"
        if value == "same":
            return "same"
        raise FormatError(
            f"{what} is unknown (got {quote(value)}; need 'valid', 'same' or "
            f"[[top, bottom], [left, right]]).{did_you_mean(value, ('valid', 'same'))}"
        )
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise FormatError(
            f"{what} must be 'valid', 'same' or [[top, bottom], [left, right]] "
            f"(got {quote(value)})."
        )
    return (_pair(value[0], what, 0), _pair(value[1], what, 0))


def _floats(value: ArrayLike, what: str, rank: int) -> FloatArray:
    array = np.asarray(value)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise FormatError(f"{what} must be float16, float32 or float64 (got {array.dtype}).")
    if array.ndim != rank:
        raise FormatError(f"{what} has shape {array.shape} (got {array.ndim}-D; need {rank}-D).")
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        raise FormatError(f"{what} holds {bad} NaN or infinite values. Train or export it again.")
    array = np.array(array, order="C")
    array.flags.writeable = False
    return array


def resolve_padding(
    padding: Padding, size: Pair, kernel: Pair, strides: Pair, dilation: Pair
) -> ExplicitPadding:
    """Return ``((top, bottom), (left, right))`` for a window that slides over a map.

    'same' is the rule of TensorFlow and Keras: the output has ``ceil(size / stride)`` positions and
    the odd cell of padding goes behind. 'valid' is none.
    """
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        before_after = []
        for n, k, s, d in zip(size, kernel, strides, dilation, strict=True):
            total = max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0)
            before_after.append((total // 2, total - total // 2))
        return before_after[0], before_after[1]
    return padding


def _window_output(
    size: Pair, kernel: Pair, strides: Pair, dilation: Pair, padding: ExplicitPadding
) -> Pair:
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
    return result[0], result[1]


def _map_shape(shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise FormatError(
            f"its input has shape {shape}; need a map (height, width, channels). "
            "Put a reshape before it."
        )
    return shape[0], shape[1], shape[2]


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """What all layers share.

    Parameters
    ----------
    name : str
        Unique in its model.
    inputs : sequence of str
        Names of the layers it reads, or ``"input"``.

    Raises
    ------
    FormatError
        If a parameter has the wrong type, shape or range, or is not finite.
    """

    name: str
    inputs: tuple[str, ...]

    kind: ClassVar[str]
    arrays: ClassVar[dict[str, int]] = {}
    """Array parameters and their number of axes."""
    n_inputs: ClassVar[int | None] = 1
    """How many inputs the layer takes; None means two or more."""

    def __post_init__(self) -> None:
        where = f"layer {quote(self.name)}"
        if not isinstance(self.name, str) or not self.name or len(self.name) > 200:
            raise FormatError(f"{where}: a name must be a text of 1 to 200 characters.")
        if not self.name.isprintable():
            raise FormatError(f"{where}: a name must be printable.")
        inputs = (self.inputs,) if isinstance(self.inputs, str) else self.inputs
        if not isinstance(inputs, (tuple, list)) or not all(isinstance(i, str) for i in inputs):
            raise FormatError(f"{where}: inputs must be layer names (got {quote(inputs)}).")
        object.__setattr__(self, "inputs", tuple(inputs))
        if self.n_inputs is None:
            if len(inputs) < 2:
                raise FormatError(f"{where}: {self.kind} needs 2 or more inputs.")
        elif len(inputs) != self.n_inputs:
            raise FormatError(
                f"{where}: {self.kind} takes {self.n_inputs} input (got {len(inputs)})."
            )
        try:
            optional = {f.name for f in fields(self) if f.default is None}
            for key, rank in self.arrays.items():
                value = getattr(self, key)
                if value is not None or key not in optional:
                    object.__setattr__(self, key, _floats(value, key, rank))
            self._check()
        except FormatError as error:
            raise FormatError(f"{where}: {error}") from None

    def _check(self) -> None:
        """Check and normalize the parameters that are not arrays."""

    def _set(self, **values: object) -> None:
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of one sample after this layer; raise `FormatError` if it cannot be."""
        raise NotImplementedError

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that are not arrays, as plain values."""
        skip = {"name", "inputs", *self.arrays}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skip}

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        present = (getattr(self, key) for key in self.arrays)
        return sum(int(a.size) for a in present if a is not None)

    def _fits(self, key: str, array: FloatArray | None, length: int) -> None:
        if array is not None and array.shape != (length,):
            raise FormatError(f"{key} has shape {array.shape}; expected ({length},).")


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense(Layer):
    """Affine layer ``y = x @ weight + bias``; weight is ``(inputs, outputs)``."""

    weight: FloatArray
    bias: FloatArray | None = None
    kind: ClassVar[str] = "dense"
    arrays: ClassVar[dict[str, int]] = {"weight": 2, "bias": 1}

    def _check(self) -> None:
        self._fits("bias", self.bias, self.weight.shape[1])

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if len(shape) != 1:
            raise FormatError(f"its input has shape {shape}; need a flat one. Add a flatten.")
        if self.weight.shape[0] != shape[0]:
            raise FormatError(
                f"weight has shape {self.weight.shape}; expected ({shape[0]}, n) because "
                f"{self.inputs[0]!r} has {shape[0]} outputs."
            )
        return (int(self.weight.shape[1]),)


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv2D(Layer):
    """Convolution (cross-correlation, as every framework means it)."""

    weight: FloatArray
    bias: FloatArray | None = None
    strides: Pair = (1, 1)
    padding: Padding = "valid"
    dilation: Pair = (1, 1)
    groups: int = 1
    kind: ClassVar[str] = "conv2d"
    arrays: ClassVar[dict[str, int]] = {"weight": 4, "bias": 1}

    def _check(self) -> None:
        self._set(
            strides=_pair(self.strides, "strides"),
            padding=_padding(self.padding, "padding"),
            dilation=_pair(self.dilation, "dilation"),
            groups=_integer(self.groups, "groups", 1),
        )
        if 0 in self.weight.shape:
            raise FormatError(f"weight has shape {self.weight.shape}; need no empty axis.")
        self._fits("bias", self.bias, self.weight.shape[3])
        if self.weight.shape[3] % self.groups:
            raise FormatError(
                f"weight makes {self.weight.shape[3]} channels, not divisible by groups = "
                f"{self.groups}."
            )

    @property
    def kernel(self) -> Pair:
        """Kernel height and width."""
        return int(self.weight.shape[0]), int(self.weight.shape[1])

    def explicit_padding(self, size: Pair) -> ExplicitPadding:
        """Return ``((top, bottom), (left, right))`` for an input of `size`."""
        return resolve_padding(self.padding, size, self.kernel, self.strides, self.dilation)

    def output_shape(self, *shapes: Shape) -> Shape:
        h, w, channels = _map_shape(shapes[0])
        if self.weight.shape[2] * self.groups != channels:
            raise FormatError(
                f"weight has shape {self.weight.shape} with groups = {self.groups}; expected "
                f"{channels} / {self.groups} input channels because {self.inputs[0]!r} has "
                f"{channels} channels."
            )
        padding = self.explicit_padding((h, w))
        size = _window_output((h, w), self.kernel, self.strides, self.dilation, padding)
        return (*size, int(self.weight.shape[3]))


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
            strides=_pair(self.strides, "strides"),
            padding=_padding(self.padding, "padding"),
            dilation=_pair(self.dilation, "dilation"),
            output_padding=_pair(self.output_padding, "output_padding", 0),
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
        h, w, channels = _map_shape(shapes[0])
        if self.weight.shape[3] != channels:
            raise FormatError(
                f"weight has shape {self.weight.shape}; expected (kh, kw, n, {channels}) because "
                f"{self.inputs[0]!r} has {channels} channels."
            )
        padding, extra = self.explicit_padding()
        size = []
        for axis, n in enumerate((h, w)):
            span = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            cells = (n - 1) * self.strides[axis] + span - sum(padding[axis]) + extra[axis]
            if cells < 1:
                raise FormatError(f"padding {padding} leaves no output for a map of {n} cells.")
            size.append(cells)
        return (size[0], size[1], int(self.weight.shape[2]))


@dataclass(frozen=True, eq=False, kw_only=True)
class _Pool2D(Layer):
    pool_size: Pair = (2, 2)
    strides: Pair | None = None
    padding: Padding = "valid"

    def _check(self) -> None:
        size = _pair(self.pool_size, "pool_size")
        self._set(
            pool_size=size,
            strides=size if self.strides is None else _pair(self.strides, "strides"),
            padding=_padding(self.padding, "padding"),
        )

    @property
    def steps(self) -> Pair:
        """The strides; the pool size where none were given."""
        return self.pool_size if self.strides is None else self.strides

    def explicit_padding(self, size: Pair) -> ExplicitPadding:
        """Return ``((top, bottom), (left, right))`` for an input of `size`."""
        return resolve_padding(self.padding, size, self.pool_size, self.steps, (1, 1))

    def output_shape(self, *shapes: Shape) -> Shape:
        h, w, channels = _map_shape(shapes[0])
        padding = self.explicit_padding((h, w))
        if any(p >= k for pad, k in zip(padding, self.pool_size, strict=True) for p in pad):
            raise FormatError(
                f"padding {padding} is not smaller than the pool {self.pool_size}, so a window "
                "could hold padding alone."
            )
        size = _window_output((h, w), self.pool_size, self.steps, (1, 1), padding)
        return (*size, channels)


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool2D(_Pool2D):
    """Largest value under the window; padding never wins."""

    kind: ClassVar[str] = "max_pool2d"


@dataclass(frozen=True, eq=False, kw_only=True)
class AveragePool2D(_Pool2D):
    """Mean under the window; padding cells count as zeros only if `count_padding`."""

    count_padding: bool = False
    kind: ClassVar[str] = "average_pool2d"

    def _check(self) -> None:
        super()._check()
        if not isinstance(self.count_padding, bool):
            raise FormatError(f"count_padding must be true or false (got {self.count_padding!r}).")


@dataclass(frozen=True, eq=False, kw_only=True)
class GlobalMaxPool2D(Layer):
    """Largest value of each channel; output is ``(channels,)``."""

    kind: ClassVar[str] = "global_max_pool2d"

    def output_shape(self, *shapes: Shape) -> Shape:
        return (_map_shape(shapes[0])[2],)


@dataclass(frozen=True, eq=False, kw_only=True)
class GlobalAveragePool2D(Layer):
    """Mean of each channel; output is ``(channels,)``."""

    kind: ClassVar[str] = "global_average_pool2d"

    def output_shape(self, *shapes: Shape) -> Shape:
        return (_map_shape(shapes[0])[2],)


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchNorm(Layer):
    """``y = gamma * (x - mean) / sqrt(variance + epsilon) + beta`` along the last axis."""

    mean: FloatArray
    variance: FloatArray
    gamma: FloatArray | None = None
    beta: FloatArray | None = None
    epsilon: float = 1e-3
    kind: ClassVar[str] = "batch_norm"
    arrays: ClassVar[dict[str, int]] = {"mean": 1, "variance": 1, "gamma": 1, "beta": 1}

    def _check(self) -> None:
        self._set(epsilon=finite(self.epsilon, "epsilon"))
        if self.epsilon < 0:
            raise FormatError(f"epsilon must not be negative (got {self.epsilon}).")
        for key in ("variance", "gamma", "beta"):
            self._fits(key, getattr(self, key), self.mean.shape[0])
        low = float(self.variance.min(initial=1.0))
        if low < 0 or low + self.epsilon == 0:
            raise FormatError(f"variance + epsilon must be positive (smallest variance {low}).")

    def scale_and_shift(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return a, c with ``y = a * x + c``, in float64, one each per channel."""
        scale = 1.0 / np.sqrt(self.variance.astype(np.float64) + self.epsilon)
        if self.gamma is not None:
            scale = scale * self.gamma.astype(np.float64)
        shift = -self.mean.astype(np.float64) * scale
        if self.beta is not None:
            shift = shift + self.beta.astype(np.float64)
        return scale, shift

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if shape[-1] != self.mean.shape[0]:
            raise FormatError(
                f"mean has shape {self.mean.shape}; expected ({shape[-1]},) because "
                f"{self.inputs[0]!r} has {shape[-1]} channels."
            )
        return shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Flatten(Layer):
    """All axes in one, last axis fastest."""

    kind: ClassVar[str] = "flatten"

    def output_shape(self, *shapes: Shape) -> Shape:
        return (math.prod(shapes[0]),)


@dataclass(frozen=True, eq=False, kw_only=True)
class Reshape(Layer):
    """Another shape of the same number of values, last axis fastest."""

    shape: Shape
    kind: ClassVar[str] = "reshape"

    def _check(self) -> None:
        self._set(shape=_integers(self.shape, "shape", 1))
        if not self.shape:
            raise FormatError("shape must have an axis.")

    def output_shape(self, *shapes: Shape) -> Shape:
        if math.prod(self.shape) != math.prod(shapes[0]):
            raise FormatError(
                f"shape {self.shape} holds {math.prod(self.shape)} values; {self.inputs[0]!r} "
                f"has {math.prod(shapes[0])} (shape {shapes[0]})."
            )
        return self.shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Permute(Layer):
    """Axes in another order: output axis i is input axis ``axes[i]`` (axes of one sample)."""

    axes: Shape
    kind: ClassVar[str] = "permute"

    def _check(self) -> None:
        self._set(axes=_integers(self.axes, "axes", 0))

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if sorted(self.axes) != list(range(len(shape))):
            raise FormatError(f"axes {self.axes} do not order the {len(shape)} axes of its input.")
        return tuple(shape[a] for a in self.axes)


@dataclass(frozen=True, eq=False, kw_only=True)
class Upsample2D(Layer):
    """Every cell repeated `size` times (nearest neighbour)."""

    size: Pair = (2, 2)
    kind: ClassVar[str] = "upsample2d"

    def _check(self) -> None:
        self._set(size=_pair(self.size, "size"))

    def output_shape(self, *shapes: Shape) -> Shape:
        h, w, channels = _map_shape(shapes[0])
        return (h * self.size[0], w * self.size[1], channels)


@dataclass(frozen=True, eq=False, kw_only=True)
class Add(Layer):
    """Sum of two or more inputs of one shape."""

    kind: ClassVar[str] = "add"
    n_inputs: ClassVar[int | None] = None

    def output_shape(self, *shapes: Shape) -> Shape:
        if any(s != shapes[0] for s in shapes):
            raise FormatError(
                f"inputs have shapes {', '.join(map(str, shapes))}; add needs equal ones."
            )
        return shapes[0]


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Layer):
    """Inputs side by side along `axis` (the sample axis not counted; -1 is the last)."""

    axis: int = -1
    kind: ClassVar[str] = "concat"
    n_inputs: ClassVar[int | None] = None

    def _check(self) -> None:
        self._set(axis=_integer(self.axis, "axis", -16))

    def output_shape(self, *shapes: Shape) -> Shape:
        rank = len(shapes[0])
        if not -rank <= self.axis < rank:
            raise FormatError(f"axis {self.axis} does not exist in shape {shapes[0]}.")
        axis = self.axis % rank
        rest = {s[:axis] + s[axis + 1 :] for s in shapes if len(s) == rank}
        if any(len(s) != rank for s in shapes) or len(rest) != 1:
            raise FormatError(
                f"inputs have shapes {', '.join(map(str, shapes))}; they may differ in axis "
                f"{axis} alone."
            )
        return (*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])


@dataclass(frozen=True, eq=False, kw_only=True)
class Step(Layer):
    """The sharpened activation: 1 if ``x >= threshold`` else 0; a tie is 1."""

    threshold: float = 0.5
    kind: ClassVar[str] = "step"

    def _check(self) -> None:
        self._set(threshold=finite(self.threshold, "threshold"))

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]


@dataclass(frozen=True, eq=False, kw_only=True)
class Activation(Layer):
    """An activation that is not a step: it loads and computes, but cannot become spikes.

    `function` is ``relu``, ``sigmoid``, ``tanh`` or ``bounded_relu``; the last is
    ``clip((x - 0.5) / (1 - sharpness) + 0.5, 0, 1)`` with `sharpness` below 1.
    """

    function: str
    sharpness: float = 0.0
    kind: ClassVar[str] = "activation"
    functions: ClassVar[tuple[str, ...]] = ("relu", "sigmoid", "tanh", "bounded_relu")

    def _check(self) -> None:
        if self.function not in self.functions:
            raise FormatError(
                f"function {quote(self.function)} is unknown; need one of "
                f"{', '.join(self.functions)}.{did_you_mean(self.function, self.functions)}"
            )
        self._set(sharpness=finite(self.sharpness, "sharpness"))
        if not 0 <= self.sharpness < 1:
            raise FormatError(
                f"sharpness must be in [0, 1) (got {self.sharpness}). A fully sharp activation is "
                "a step."
            )

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]


KINDS: dict[str, type[Layer]] = {
    cls.kind: cls
    for cls in (
        Dense,
        Conv2D,
        DepthwiseConv2D,
        Conv2DTranspose,
        MaxPool2D,
        AveragePool2D,
        GlobalMaxPool2D,
        GlobalAveragePool2D,
        BatchNorm,
        Flatten,
        Reshape,
        Permute,
        Upsample2D,
        Add,
        Concat,
        Step,
        Activation,
    )
}
"""Every kind of layer by the word that names it in a file."""
