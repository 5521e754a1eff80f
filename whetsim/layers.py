"""The layers a trained network may consist of.

Each layer is a frozen value: its name, the names of its inputs, its parameters. A layer knows the
shape it produces and nothing about how it is computed: `reference.py` computes, `mapping.py` maps.
Shapes are those of one sample. Layers with a sliding window stand in `windows.py`, all others here;
this module has the names of all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import FormatError, did_you_mean, quote
from whetsim.layer import (
    MAX_EXTENT,
    FloatArray,
    Layer,
    Shape,
    finite,
    whole_number,
    whole_numbers,
)
from whetsim.windows import (
    AveragePool,
    AveragePool2D,
    AveragePool3D,
    Conv2D,
    Conv2DTranspose,
    Conv3D,
    Convolution,
    DepthwiseConv2D,
    ExplicitPadding,
    GlobalAveragePool2D,
    GlobalMaxPool2D,
    MaxPool,
    MaxPool2D,
    MaxPool3D,
    Padding,
    Pool,
    Upsample2D,
    ZeroPad2D,
    checked_padding,
    resolve_padding,
)

__all__ = [
    "KINDS",
    "MAX_EXTENT",
    "Activation",
    "Add",
    "AveragePool",
    "AveragePool2D",
    "AveragePool3D",
    "BatchNorm",
    "Concat",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Convolution",
    "Dense",
    "DepthwiseConv2D",
    "ExplicitPadding",
    "Flatten",
    "FloatArray",
    "GlobalAveragePool2D",
    "GlobalMaxPool2D",
    "Layer",
    "MaxPool",
    "MaxPool2D",
    "MaxPool3D",
    "Padding",
    "Permute",
    "Pool",
    "Reshape",
    "Shape",
    "Step",
    "Upsample2D",
    "ZeroPad2D",
    "checked_padding",
    "finite",
    "resolve_padding",
]


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
        self._set(shape=whole_numbers(self.shape, "shape", 1))
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
        self._set(axes=whole_numbers(self.axes, "axes", 0))

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if sorted(self.axes) != list(range(len(shape))):
            raise FormatError(f"axes {self.axes} do not order the {len(shape)} axes of its input.")
        return tuple(shape[a] for a in self.axes)


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
        self._set(axis=whole_number(self.axis, "axis", -16))

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
    """The sharpened activation: 1 if ``x >= threshold`` else 0; a tie is 1, unless `strict`."""

    threshold: float = 0.5
    strict: bool = False
    """Whether a tie is 0: 1 if ``x > threshold``."""
    kind: ClassVar[str] = "step"

    def _check(self) -> None:
        if not isinstance(self.strict, bool):
            raise FormatError(f"strict must be true or false (got {quote(self.strict)}).")
        self._set(threshold=finite(self.threshold, "threshold"))

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters; `strict` only where it is set, so that other files stay as they were."""
        return {k: v for k, v in super().parameters.items() if k != "strict" or v}

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
        Conv3D,
        DepthwiseConv2D,
        Conv2DTranspose,
        MaxPool2D,
        MaxPool3D,
        AveragePool2D,
        AveragePool3D,
        GlobalMaxPool2D,
        GlobalAveragePool2D,
        BatchNorm,
        Flatten,
        Reshape,
        Permute,
        ZeroPad2D,
        Upsample2D,
        Add,
        Concat,
        Step,
        Activation,
    )
}
"""Every kind of layer by the word that names it in a file."""
