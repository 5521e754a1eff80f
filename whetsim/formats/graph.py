"""What the readers of foreign files share: a graph in the file's layout, made into a `Model`.

A file may keep channels first or last, and transpose at will. whetsim's maps are channels last. So
a `Value` remembers in which order its axes are stored, a transpose costs nothing, and a `Permute`
layer appears only where an operation needs the file's own order (flatten, reshape).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim import layers as L
from whetsim.errors import FormatError, quote
from whetsim.formats.layer_store import LayerStore, clean_name
from whetsim.formats.reading import GUESSED, Reading
from whetsim.formats.tail import affine_tail, behind_moves, holds_spikes
from whetsim.formats.value import Order, Value, channels_last
from whetsim.layers import Shape
from whetsim.model import INPUT, MAX_UNITS, InputSpec, Model, Readout

__all__ = ["Graph", "Reading", "Value"]

Pads = Sequence[tuple[int, int]]
"""Cells before and after, for each spatial axis."""
Floats = NDArray[np.floating[Any]]

_OVER_VOLUMES: dict[type[L.Layer], type[L.Layer]] = {
    L.Conv2D: L.Conv3D,
    L.MaxPool2D: L.MaxPool3D,
    L.AveragePool2D: L.AveragePool3D,
}
_OF_HEIGHT_1 = {
    "strides": 1,
    "dilation": 1,
    "pool_size": 1,
    "size": 1,
    "output_padding": 0,
    "padding": (0, 0),
}
"""What a line, seen as a plane of height 1, has for its height."""


@dataclass(eq=False)
class Graph:
    """Layers read so far. Every method adds what one operation needs and returns its value.

    Axes are counted without the samples and are those of the file; names are made unique.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of one sample, as the file has it.
    """

    input_shape: Shape
    steps: dict[str, str] = field(default_factory=dict)
    """Step layers, and how the file writes each."""
    remarks: list[str] = field(default_factory=list)
    """What the reader did that the user may want to know."""
    readout: Readout | None = None
    _store: LayerStore = field(init=False, repr=False)
    _n_expanded: int = 0

    def __post_init__(self) -> None:
        # Checked first: all shapes that follow grow from this one.
        self.input_shape = InputSpec(tuple(self.input_shape)).shape
        self._store = LayerStore(self.input_shape)

    @property
    def layers(self) -> Mapping[str, L.Layer]:
        """The layers, each behind its inputs."""
        return self._store.layers

    @property
    def input(self) -> Value:
        """The network's input."""
        return Value(INPUT, self.input_shape, tuple(range(len(self.input_shape))))

    def dense(self, name: str, x: Value, weight: Floats, bias: Floats | None = None) -> Value:
        """Add ``x @ weight + bias`` along the last axis; weight is ``(inputs, outputs)``."""
        if x.rank > 1:
            kernel = weight.reshape(*(1,) * (x.rank - 1), *weight.shape)
            return self.conv(name, x, kernel, bias, channel_axis=x.rank - 1)
        return self._value(
            self._store.add(L.Dense, name, (x.name,), weight=weight, bias=bias), (0,)
        )

    def conv(
        self,
        name: str,
        x: Value,
        weight: Floats,
        bias: Floats | None = None,
        *,
        channel_axis: int,
        strides: Sequence[int] | None = None,
        padding: str | Pads = "valid",
        dilation: Sequence[int] | None = None,
        groups: int = 1,
    ) -> Value:
        """Add a convolution over 1 to 3 axes; weight is ``(*kernel, inputs / groups, outputs)``."""
        return self._slide(
            L.Conv2D,
            name,
            x,
            weight.ndim - 2,
            channel_axis,
            weight=weight,
            bias=bias,
            strides=strides,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )

    def conv_transpose(
        self,
        name: str,
        x: Value,
        weight: Floats,
        bias: Floats | None = None,
        *,
        channel_axis: int,
        strides: Sequence[int] | None = None,
        padding: str | Pads = "valid",
        dilation: Sequence[int] | None = None,
        output_padding: Sequence[int] | None = None,
    ) -> Value:
        """Add a transposed convolution; weight is ``(*kernel, outputs, inputs)``."""
        return self._slide(
            L.Conv2DTranspose,
            name,
            x,
            weight.ndim - 2,
            channel_axis,
            weight=weight,
            bias=bias,
            strides=strides,
            padding=padding,
            dilation=dilation,
            output_padding=output_padding,
        )

    def depthwise(
        self,
        name: str,
        x: Value,
        weight: Floats,
        bias: Floats | None = None,
        *,
        channel_axis: int,
        strides: Sequence[int] | None = None,
        padding: str | Pads = "valid",
        dilation: Sequence[int] | None = None,
    ) -> Value:
        """Add a convolution of each channel; weight is ``(*kernel, channels, multiplier)``."""
        if weight.ndim < 3:
            raise FormatError(f"layer {quote(name)}: weight has shape {weight.shape}.")
        *kernel, channels, multiplier = weight.shape
        return self.conv(
            name,
            x,
            weight.reshape(*kernel, 1, channels * multiplier),
            bias,
            channel_axis=channel_axis,
            strides=strides,
            padding=padding,
            dilation=dilation,
            groups=channels,
        )

    def max_pool(
        self,
        name: str,
        x: Value,
        size: Sequence[int],
        strides: Sequence[int] | None = None,
        padding: str | Pads = "valid",
        *,
        channel_axis: int,
    ) -> Value:
        """Add a max pool over 1 to 3 axes; padding never wins."""
        return self._slide(
            L.MaxPool2D,
            name,
            x,
            len(size),
            channel_axis,
            pool_size=size,
            strides=strides,
            padding=padding,
        )

    def average_pool(
        self,
        name: str,
        x: Value,
        size: Sequence[int],
        strides: Sequence[int] | None = None,
        padding: str | Pads = "valid",
        *,
        channel_axis: int,
        count_padding: bool = False,
    ) -> Value:
        """Add an average pool over 1 to 3 axes."""
        return self._slide(
            L.AveragePool2D,
            name,
            x,
            len(size),
            channel_axis,
            pool_size=size,
            strides=strides,
            padding=padding,
            count_padding=count_padding,
        )

    def global_pool(
        self, name: str, x: Value, *, maximum: bool, channel_axis: int, keep_axes: bool = False
    ) -> Value:
        """Add the mean or the maximum of each channel over all other axes."""
        order = channels_last(name, x.rank, channel_axis)
        source = self._ordered(x, order)
        *cells, channels = self._store.shapes[source]
        if len(cells) == 1:
            source = self._as_plane(source)
        elif len(cells) > 2:
            plane = (cells[0], math.prod(cells[1:]), channels)
            source = self._store.move(L.Reshape, source, "plane", shape=plane)
        kind = L.GlobalMaxPool2D if maximum else L.GlobalAveragePool2D
        pooled = self._store.add(kind, name, (source,))
        if not keep_axes:
            return self._value(pooled, (0,))
        shape = (*(1 for _ in cells), channels)
        return self._value(self._store.move(L.Reshape, pooled, "axes", shape=shape), order)

    def scale_and_shift(self, name: str, x: Value, scale: Any = None, shift: Any = None) -> Value:
        """Add ``x * scale + shift``; both broadcast against the file's shape."""
        constants = {"gamma": _constant(name, x, scale), "beta": _constant(name, x, shift)}
        given = {key: array for key, array in constants.items() if array is not None}
        if not given:
            return x
        varying = {a for array in given.values() for a in range(x.rank) if array.shape[a] > 1}
        if len(varying) > 1:
            return self._scale_each_unit(name, x, given)
        axis = varying.pop() if varying else x.order[-1]
        n = x.shape[axis]
        self._count_expanded(n)
        along = {key: np.broadcast_to(array.ravel(), (n,)) for key, array in given.items()}
        merged = self._merge_bias(name, x, along["beta"], axis) if "gamma" not in along else None
        return merged or self._scale_along(name, x, along, axis)

    def _scale_each_unit(self, name: str, x: Value, given: Mapping[str, Floats]) -> Value:
        self._count_expanded(x.size)
        stored = {
            key: np.broadcast_to(array, x.shape).transpose(x.order).ravel()
            for key, array in given.items()
        }
        flat = self._value(self._store.move(L.Flatten, x.name, "flat"), (0,))
        result = self._scale_along(name, flat, stored, 0)
        return self._value(
            self._store.move(L.Reshape, result.name, "shape", shape=x.stored_shape), x.order
        )

    def _scale_along(self, name: str, x: Value, given: Mapping[str, Floats], axis: int) -> Value:
        n = x.shape[axis]
        mean, variance = np.zeros(n, np.float32), np.ones(n, np.float32)
        return self.batch_norm(name, x, mean, variance, **given, epsilon=0.0, axis=axis)

    def _merge_bias(self, name: str, x: Value, bias: Floats, axis: int) -> Value | None:
        """Return x's own layer once more with this bias, if it is affine and has none."""
        layer = self.layers.get(x.name)
        if not isinstance(layer, (L.Dense, L.Convolution, L.Conv2DTranspose)):
            return None
        if layer.bias is not None or x.order[-1] != axis:
            return None
        values = {"weight": layer.weight, "bias": bias, **layer.parameters}
        return self._value(self._store.add(type(layer), name, layer.inputs, **values), x.order)

    def _count_expanded(self, n: int) -> None:
        """Refuse constants that a few bytes of the file would make enormous."""
        self._n_expanded += n
        if self._n_expanded > MAX_UNITS:
            raise FormatError(
                f"the constants that scale and shift grow to more than {MAX_UNITS} values."
            )

    def batch_norm(
        self,
        name: str,
        x: Value,
        mean: Floats,
        variance: Floats,
        gamma: Floats | None = None,
        beta: Floats | None = None,
        *,
        epsilon: float,
        axis: int,
    ) -> Value:
        """Add a batch norm along an axis."""
        order = channels_last(name, x.rank, axis)
        if x.order[-1] == order[-1]:
            order = x.order
        values = {"mean": mean, "variance": variance, "gamma": gamma, "beta": beta}
        source = self._ordered(x, order)
        made = self._store.add(L.BatchNorm, name, (source,), epsilon=epsilon, **values)
        return self._value(made, order)

    def flatten(self, name: str, x: Value) -> Value:
        """Add a flatten in the file's own order of axes."""
        if x.rank == 1:
            return x
        return self._value(self._store.add(L.Flatten, name, (self._in_file_order(x),)), (0,))

    def reshape(self, name: str, x: Value, shape: Sequence[int]) -> Value:
        """Add a reshape in the file's own order of axes."""
        shape = tuple(int(n) for n in shape)
        if shape == x.shape:
            return x
        if shape == (x.size,):
            return self.flatten(name, x)
        made = self._store.add(L.Reshape, name, (self._in_file_order(x),), shape=shape)
        return self._value(made, tuple(range(len(shape))))

    def transpose(self, x: Value, axes: Sequence[int]) -> Value:
        """Return x with its axes in another order; nothing is computed."""
        return x.transposed(axes)

    def zero_pad(self, name: str, x: Value, padding: Pads, *, channel_axis: int) -> Value:
        """Add zeros around a map; `padding` is for the axes that are not the channels'."""
        if not any(before or after for before, after in padding):
            return x
        return self._slide(L.ZeroPad2D, name, x, len(padding), channel_axis, padding=padding)

    def upsample(self, name: str, x: Value, factors: Sequence[int], *, channel_axis: int) -> Value:
        """Add a repetition of every cell; `factors` are for the axes that are not the channels'."""
        return self._slide(L.Upsample2D, name, x, len(factors), channel_axis, size=factors)

    def add(self, name: str, values: Sequence[Value]) -> Value:
        """Add a sum of values of one shape."""
        return self._join(L.Add, name, values)

    def concat(self, name: str, values: Sequence[Value], axis: int) -> Value:
        """Add values side by side along an axis."""
        return self._join(L.Concat, name, values, axis)

    def step(
        self,
        name: str,
        x: Value,
        threshold: float = 0.5,
        *,
        strict: bool = False,
        falling: bool = False,
        written_as: str,
    ) -> Value:
        """Add a step: 1 if x >= threshold (`strict`: >; `falling`: <= or <).

        `written_as` says how the file writes it, for the user.
        """
        if falling:
            x = self.scale_and_shift(f"{name}/negative", x, scale=-1.0)
            threshold = 0.0 - threshold
        made = self._store.add(L.Step, name, (x.name,), threshold=threshold, strict=strict)
        self.steps[made] = written_as
        return self._value(made, x.order)

    def in_file_order(self, x: Value) -> Value:
        """Return a step's spikes stored in the file's own order of axes.

        A permute before the step costs a convolution its shape, so it is for files alone whose
        units must come back in the order in which they were written.
        """
        layer, plain = self.layers.get(x.name), tuple(range(x.rank))
        if x.order == plain or not isinstance(layer, L.Step):
            return x
        source = self._ordered(Value(layer.inputs[0], x.shape, x.order), plain)
        if not any(x.name in other.inputs for other in self.layers.values()):
            del self._store.layers[x.name]  # its name is free for the one that takes its place
        rule = {"threshold": layer.threshold, "strict": layer.strict}
        made = self._store.add(L.Step, x.name, (source,), **rule)
        self.steps[made] = self.steps[x.name]
        return self._value(made, plain)

    def activation(self, name: str, x: Value, function: str, sharpness: float = 0.0) -> Value:
        """Add an activation that is no step; the network can be computed but not mapped."""
        values = {"function": function, "sharpness": sharpness}
        return self._value(self._store.add(L.Activation, name, (x.name,), **values), x.order)

    def decode(self, x: Value, *, key: Any = None, decoder: Any = None, bias: Any = None) -> Value:
        """Set how the spikes x become classes, with x's units in the file's order; return x.

        key is ``(classes, outputs)``, decoder ``(outputs, classes)``.
        """
        _, units = behind_moves(self.layers, self._store.shapes, x)
        by_class = np.asarray(key) if key is not None else np.asarray(decoder).T
        if by_class.ndim != 2 or by_class.shape[1] != x.size:
            raise FormatError(
                f"readout: it has shape {by_class.shape} (classes, outputs); the output has "
                f"{x.size} units."
            )
        by_class = by_class[:, np.argsort(units)]
        if key is not None:
            self.readout = Readout(key=by_class, bias=bias)
        else:
            self.readout = Readout(decoder=by_class.T, bias=bias)
        return x

    def to_model(
        self,
        name: str,
        output: Value,
        reading: Reading,
        *,
        input_spec: InputSpec | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Model:
        """Return the model whose result is `output`.

        What is affine behind the last step becomes a readout: class scores are real numbers, no
        spikes. Layers that do not lead to the output are left out.
        """
        remarks = list(self.remarks)
        if input_spec is None and reading.input_scale is None:
            remarks.append(GUESSED)
        readout, (last, units) = self.readout, behind_moves(self.layers, self._store.shapes, output)
        if readout is None and not holds_spikes(self.layers, last):
            found = affine_tail(self.layers, self._store.shapes, output.name, remarks)
            if found is not None:
                readout, last = found
        if readout is None and (np.diff(units) != 1).any():
            remarks.append(
                f"the output's units are in the order of {last!r}, of shape "
                f"{self._store.shapes[last]}; the file's output has shape {output.shape}"
            )
        layers = self._store.leading_to(last)
        if not layers:
            raise FormatError("the network has no layers.")
        told = dict(metadata or {})
        told["steps"] = {m.name: self.steps[m.name] for m in layers if m.name in self.steps}
        if remarks:
            told["remarks"] = remarks
        return Model(
            name=clean_name(name),
            input=input_spec or reading.input_spec(self.input_shape),
            layers=layers,
            output=last,
            readout=readout,
            metadata={"source": told},
        )

    def holds_spikes(self, name: str) -> bool:
        """Return whether nothing but zeros and ones come out of a layer."""
        return holds_spikes(self.layers, name)

    def _slide(
        self,
        kind: type[L.Layer],
        name: str,
        x: Value,
        n_axes: int,
        channel_axis: int,
        **parameters: Any,
    ) -> Value:
        """Add a layer that slides over the axes of a map that are not the channels'."""
        if x.rank != n_axes + 1 or not 1 <= n_axes <= 3:
            raise FormatError(
                f"layer {quote(name)}: it slides over {n_axes} axes and channels (got an input of "
                f"shape {x.shape}; need 1 to 3 axes and channels)."
            )
        if n_axes == 3:
            if kind not in _OVER_VOLUMES:
                raise FormatError(
                    f"layer {quote(name)}: {kind.kind} works over 1 or 2 axes (got an input of "
                    f"shape {x.shape}). Convolutions and pools alone work over volumes."
                )
            kind = _OVER_VOLUMES[kind]
        order = channels_last(name, x.rank, channel_axis)
        source = self._ordered(x, order)
        parameters = {k: v for k, v in parameters.items() if v is not None}
        if n_axes == 1:
            source = self._as_plane(source)
            for key in parameters.keys() & _OF_HEIGHT_1.keys():
                if not isinstance(parameters[key], str):
                    parameters[key] = (_OF_HEIGHT_1[key], *parameters[key])
            if "weight" in parameters:
                parameters["weight"] = parameters["weight"][None]
        made = self._store.add(kind, name, (source,), **parameters)
        if n_axes == 1:
            made = self._store.move(L.Reshape, made, "line", shape=self._store.shapes[made][1:])
        return self._value(made, order)

    def _as_plane(self, source: str) -> str:
        """Return a line ``(length, channels)`` as a plane of height 1."""
        plane = (1, *self._store.shapes[source])
        layer = self.layers.get(source)
        if isinstance(layer, L.Reshape) and self._store.shapes[layer.inputs[0]] == plane:
            return layer.inputs[0]
        return self._store.move(L.Reshape, source, "plane", shape=plane)

    def _ordered(self, x: Value, order: Order) -> str:
        """Return the layer that stores x in an order of axes, permuted if need be."""
        if x.order == order:
            return x.name
        return self._store.move(L.Permute, x.name, "permuted", axes=x.axes_for(order))

    def _in_file_order(self, x: Value) -> str:
        """Return the layer that stores the units of x one after the other as the file does."""
        return x.name if x.is_in_file_order else self._ordered(x, tuple(range(x.rank)))

    def _value(self, name: str, order: Order) -> Value:
        """Return what a layer makes, whose axes are stored in an order."""
        return Value.of_stored(name, self._store.shapes[name], order)

    def _join(
        self, kind: type[L.Layer], name: str, values: Sequence[Value], axis: int | None = None
    ) -> Value:
        if not values or any(v.rank != values[0].rank for v in values):
            shapes = ", ".join(str(v.shape) for v in values) or "none"
            raise FormatError(f"layer {quote(name)}: its inputs have shapes {shapes}.")
        rank = values[0].rank
        if axis is not None and not -rank <= axis < rank:
            raise FormatError(f"layer {quote(name)}: axis {axis} is none of {rank}.")
        if len(values) == 1:
            return values[0]
        # The order that most of them have already.
        ((order, _),) = Counter(v.order for v in values).most_common(1)
        parameters = {} if axis is None else {"axis": order.index(axis % rank)}
        inputs = tuple(self._ordered(v, order) for v in values)
        return self._value(self._store.add(kind, name, inputs, **parameters), order)


def _constant(name: str, x: Value, value: Any) -> Floats | None:
    """Return a constant with as many axes as x, float32 where it is no floating-point array."""
    if value is None:
        return None
    kind = getattr(value, "dtype", None)
    with np.errstate(over="ignore"):
        array = np.asarray(value, dtype=kind if kind is not None and kind.kind == "f" else "f4")
    fits = array.ndim <= x.rank and all(
        n in (1, m) for n, m in zip(array.shape[::-1], x.shape[::-1], strict=False)
    )
    if not fits:
        raise FormatError(
            f"layer {quote(name)}: a constant of shape {array.shape} does not fit an input of "
            f"shape {x.shape}."
        )
    return array.reshape((1,) * (x.rank - array.ndim) + array.shape)
