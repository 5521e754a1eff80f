"""The NIR writer: a `Model` as Input, Conv2d, Affine, IF, Flatten, Scale and Output nodes.

Written with what other frameworks read: an IF node for every step, at most one step of time per
layer; a Conv2d without groups for every convolution and pool; sums as several edges into one node.
NIR's maps are channels first. What is affine between two steps is folded in float64 and then
rounded to float32; the network as it was stands beside it in the metadata (`nir_description`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim import layers as L
from whetsim.errors import FormatError
from whetsim.formats.nir.file import NirGraph, Node
from whetsim.formats.nir.nodes import OUTPUT, NodeList
from whetsim.formats.nir.ops import (
    Floats,
    Index,
    Op,
    Value,
    channels_first,
    float32,
    geometry,
    map_index,
    map_value,
    n_cells,
    per_unit,
    ungrouped,
    wide,
    wide_bias,
    with_padding,
)
from whetsim.layers import Shape
from whetsim.model import INPUT, Model

__all__ = ["FIRES_AT", "Expressed", "express"]

FIRES_AT = "fires_at"
"""Metadata of an IF node whose neurons fire at this value too: v_threshold is the float below."""
MAX_VALUES = 2**27
"""Largest number of weights and thresholds that are written."""


@dataclass(frozen=True, eq=False)
class _Pooled:
    """Max pools of real numbers: written behind the step that must follow.

    A step s is monotone, so ``s(max(x)) = max(s(x))``; with a negative scale between pool and step
    the pool is a minimum.
    """

    before: Value
    pools: tuple[L.MaxPool2D | L.GlobalMaxPool2D, ...]
    signs: tuple[Floats, ...]
    """For each pool, per channel, the sign of the scales behind it."""
    shape: Shape
    """Behind the last pool."""


@dataclass(frozen=True, eq=False)
class Expressed:
    """A model in NIR.

    Parameters
    ----------
    graph : NirGraph
    places : dict
        Tensors that a node holds bit for bit: its name in `whetsim.formats.native.describe` to the
        node, and to the map ``(height, width, channels)`` whose order the rows of an Affine have.
    output_index : int array
        Unit ``output_index[i]`` of the model's output is unit i of the node 'output'.
    """

    graph: NirGraph
    places: dict[str, tuple[str, Shape | None]]
    output_index: Index


def express(model: Model, limit: int = MAX_VALUES) -> Expressed:
    """Return a model in nodes that NIR has, without metadata of the graph.

    Parameters
    ----------
    model : Model
    limit : int
        Largest number of weights and thresholds.

    Raises
    ------
    FormatError
        If NIR has no node for a layer; the text names it.
    """
    return _Writer(model, NodeList(limit)).expressed()


@dataclass(eq=False)
class _Writer:
    model: Model
    _out: NodeList
    places: dict[str, tuple[str, Shape | None]] = field(default_factory=dict)
    _values: dict[str, Value | _Pooled] = field(default_factory=dict)
    _as_trained: dict[Op, Shape | None] = field(default_factory=dict)
    """Ops that hold a layer's own weights, and the map that gives the order of their rows."""
    _flattened: dict[tuple[str | Op, ...], str] = field(default_factory=dict)

    def expressed(self) -> Expressed:
        model = self.model
        self._values[INPUT] = self._input()
        for layer in model.layers:
            try:
                self._values[layer.name] = self._add(layer, [self._values[i] for i in layer.inputs])
            except FormatError as error:
                where = f"layer {layer.name!r}"
                text = str(error) if str(error).startswith(where) else f"{where}: {error}"
                raise FormatError(text) from None
        output = self._values[model.output]
        if isinstance(output, _Pooled):
            raise FormatError(f"layer {model.output!r}: {_NO_MAXIMUM}")
        sources = self._sources(output)
        shape = {"shape": np.array(output.nir_shape, np.int64)}
        self._out.write(OUTPUT, Node("Output", shape), sources)
        return Expressed(self._out.graph, self.places, output.index)

    def _input(self) -> Value:
        """Return the input: maps channels first, as the first layer that reads one sees it."""
        spec = self.model.input
        shape = self._first_map() or spec.shape
        value = Value((INPUT,), spec.shape, spec.shape, np.arange(spec.size))
        if len(shape) == 3:
            value = replace(value, nir_shape=channels_first(shape), index=map_index(shape))
        values = {"shape": np.array(value.nir_shape, np.int64)}
        self._out.write(INPUT, Node("Input", values), ())
        return replace(value, is_binary=(spec.low, spec.high, spec.scale) == (0, 1, 1.0))

    def _first_map(self) -> Shape | None:
        """Return the shape in which the input first reaches a layer that needs a map."""
        same = {INPUT}
        for layer in self.model.layers:
            if layer.inputs[0] in same:
                if isinstance(layer, (L.Flatten, L.Reshape)):
                    same.add(layer.name)
                elif isinstance(layer, _NEED_MAPS):
                    return self.model.shapes[layer.inputs[0]]
        return None

    def _add(self, layer: L.Layer, inputs: Sequence[Value | _Pooled]) -> Value | _Pooled:
        """Return what a layer makes of its inputs."""
        first = inputs[0]
        if isinstance(first, _Pooled):
            return self._behind_pool(layer, first)
        plain = [v for v in inputs if isinstance(v, Value)]
        if len(plain) < len(inputs):
            raise FormatError(_NO_MAXIMUM)
        x, shape = plain[0], self.model.shapes[layer.name]
        match layer:
            case L.Dense():
                return self._dense(layer, x)
            case L.Conv2D():
                return self._conv(layer, x, shape)
            case L.DepthwiseConv2D():
                return self._conv(layer.as_conv2d(), x, shape)
            case L.AveragePool2D():
                return self._average(layer, x, shape)
            case L.GlobalAveragePool2D():
                whole = L.AveragePool2D(
                    name=layer.name, inputs=layer.inputs, pool_size=(x.shape[0], x.shape[1])
                )
                pooled = self._average(whole, x, (1, 1, *shape))
                return replace(pooled, shape=shape)
            case L.MaxPool2D() | L.GlobalMaxPool2D():
                if x.is_binary:
                    return self._any(layer.name, layer, x, np.ones(x.shape[-1]), shape)
                once = np.ones(x.shape[-1])
                return _Pooled(self._map(x), (layer,), (once,), shape)
            case L.BatchNorm():
                return self._scaled(layer.name, x, *per_unit(layer, x))
            case L.Flatten() | L.Reshape():
                return replace(x, shape=shape)
            case L.Permute():
                moved = np.arange(x.index.size).reshape(x.shape).transpose(layer.axes).ravel()
                place = np.empty_like(moved)
                place[moved] = np.arange(moved.size)
                return replace(x, shape=shape, index=place[x.index])
            case L.ZeroPad2D():
                return self._zero_pad(layer, x, shape)
            case L.Add():
                return self._total(plain)
            case L.Concat():
                return self._side_by_side(layer, plain, shape)
            case L.Step():
                return self._step(layer.name, layer, x)
        raise FormatError(
            f"NIR has no node for a layer of kind {layer.kind!r}. Save the network as a native "
            "file or as ONNX."
        )

    def _behind_pool(self, layer: L.Layer, x: _Pooled) -> Value | _Pooled:
        """Return what a layer makes of max pools that still wait for their step."""
        match layer:
            case L.MaxPool2D() | L.GlobalMaxPool2D():
                once = np.ones(x.shape[-1])
                shape = self.model.shapes[layer.name]
                return replace(x, pools=(*x.pools, layer), signs=(*x.signs, once), shape=shape)
            case L.BatchNorm():
                scale, _ = layer.scale_and_shift()
                before = self._scaled(layer.name, x.before, *per_unit(layer, x.before))
                signs = tuple(sign * np.sign(scale) for sign in x.signs)
                return replace(x, before=before, signs=signs)
            case L.Step():
                names = [f"{layer.name}_before_{pool.name}" for pool in x.pools]
                value = self._step(names[0], layer, x.before)
                names = [*names[1:], layer.name]
                for name, pool, sign in zip(names, x.pools, x.signs, strict=True):
                    target = pool.output_shape(value.shape)
                    value = self._any(name, pool, value, sign, target)
                return value
        raise FormatError(_NO_MAXIMUM)

    def _dense(self, layer: L.Dense, x: Value) -> Value:
        flat = self._flat(layer.name, x)
        n = layer.weight.shape[1]
        weight = layer.weight[flat.index].T
        op = Op(layer.name, self._sources(flat), wide(weight), wide_bias(layer.bias, n))
        if np.array_equal(x.index, np.arange(x.index.size)):
            self._as_trained[op] = None
        elif len(x.nir_shape) == 3:
            channels, *size = x.nir_shape
            if np.array_equal(x.index, map_index((*size, channels))):
                self._as_trained[op] = (*size, channels)
        return Value((op,), (n,), (n,), np.arange(n))

    def _conv(self, layer: L.Conv2D, x: Value, shape: Shape) -> Value:
        source = self._map(x)
        self._out.spend(layer.weight.size * layer.groups)
        weight = ungrouped(layer)
        padding = layer.explicit_padding(source.shape[:2])
        op = Op(
            layer.name,
            self._sources(source),
            weight,
            wide_bias(layer.bias, weight.shape[0]),
            stride=layer.strides,
            dilation=layer.dilation,
            input_shape=source.nir_shape[1:],
        )
        op, is_same = with_padding(op, padding, self._out.spend)
        if is_same and layer.groups == 1 and layer is self.model[layer.name]:
            self._as_trained[op] = None
        return map_value(op, shape)

    def _window(
        self,
        name: str,
        layer: L.Pool | L.GlobalMaxPool2D,
        x: Value,
        value: float,
        bias: Floats,
        shape: Shape,
    ) -> Value:
        """Return the sum under the window of a pool times a value, plus a bias per channel."""
        source = self._map(x)
        channels = source.shape[2]
        size, stride, padding = geometry(layer, source.shape)
        self._out.spend(channels * channels * size[0] * size[1])
        weight = np.zeros((channels, channels, *size))
        weight[np.arange(channels), np.arange(channels)] = value
        op = Op(
            name,
            self._sources(source),
            weight,
            bias,
            stride=stride,
            input_shape=source.nir_shape[1:],
        )
        op, _ = with_padding(op, padding, self._out.spend)
        return map_value(op, shape)

    def _average(self, layer: L.AveragePool2D, x: Value, shape: Shape) -> Value:
        nothing = np.zeros(x.shape[-1])
        cells = n_cells(layer, x.shape)
        n = layer.pool_size[0] * layer.pool_size[1]
        if layer.count_padding or (cells == n).all():
            return self._window(layer.name, layer, x, 1 / n, nothing, shape)
        total = self._window(f"{layer.name}_sum", layer, x, 1.0, nothing, shape)
        scale = np.broadcast_to(1 / cells, total.nir_shape)
        self._out.spend(scale.size)
        values = {"scale": float32(scale)}
        node = self._write(layer.name, Node("Scale", values), total)
        return replace(total, parts=(node,))

    def _any(
        self,
        name: str,
        layer: L.MaxPool2D | L.GlobalMaxPool2D,
        x: Value,
        signs: Floats,
        shape: Shape,
    ) -> Value:
        """Return the maximum of 0/1 maps, and the minimum in channels of negative sign.

        The maximum is 1 if the sum s under the window is > 1/2, the minimum of n cells if it is
        > n - 1/2. So that most networks have one threshold alone, the window's size goes into the
        bias of the minimum, and only windows that lie partly outside have another threshold.
        """
        target = shape if len(shape) == 3 else (1, 1, *shape)
        size, _, _ = geometry(layer, x.shape)
        n = size[0] * size[1]
        least = signs < 0
        total = self._window(f"{layer.name}_sum", layer, x, 1.0, np.where(least, 1 - n, 0), target)
        missing = n_cells(layer, x.shape) - n
        threshold = 0.5 + np.where(least[:, None, None], missing, 0.0)
        return replace(self._fires(name, total, threshold, {}), shape=shape)

    def _scaled(self, name: str, x: Value, scale: Floats, shift: Floats) -> Value:
        """Return ``scale * x + shift``, both of x's shape in NIR."""
        if len(x.nir_shape) == 3:
            each = scale.reshape(len(scale), -1), shift.reshape(len(shift), -1)
            if any((v != v[:, :1]).any() for v in each):
                flat = self._flat(name, x)
                return self._scaled(name, flat, scale.ravel(), shift.ravel())
            scale, shift = each[0][:, 0], each[1][:, 0]
        ops = [part for part in x.parts if isinstance(part, Op)]
        wires = tuple(part for part in x.parts if isinstance(part, str))
        if wires:
            sources = self._sources(replace(x, parts=wires))
            ops.append(self._diagonal(name, sources, x.nir_shape))
        scaled = []
        for op in ops:
            factors = scale.reshape(-1, *(1,) * (op.weight.ndim - 1))
            own = shift if op is ops[0] else 0.0
            scaled.append(replace(op, weight=op.weight * factors, bias=op.bias * scale + own))
        return replace(x, parts=tuple(scaled), is_binary=False)

    def _diagonal(self, name: str, sources: tuple[str, ...], shape: Shape) -> Op:
        """Return the sum of nodes, channel by channel or unit by unit."""
        n = shape[0]
        self._out.spend(n * n)
        weight = np.eye(n).reshape(n, n, *(1,) * (len(shape) - 1))
        return Op(name, sources, weight, np.zeros(n), input_shape=shape[1:])

    def _zero_pad(self, layer: L.ZeroPad2D, x: Value, shape: Shape) -> Value:
        source = self._map(x)
        op = self._diagonal(layer.name, self._sources(source), source.nir_shape)
        op, _ = with_padding(op, layer.padding, self._out.spend)
        return replace(map_value(op, shape), is_binary=x.is_binary)

    def _total(self, values: Sequence[Value]) -> Value:
        first = values[0]
        for other in values[1:]:
            if other.nir_shape != first.nir_shape or (other.index != first.index).any():
                raise FormatError("its inputs stand in different orders of units in NIR.")
        parts = tuple(part for value in values for part in value.parts)
        return replace(first, parts=parts, is_binary=False)

    def _side_by_side(self, layer: L.Concat, values: Sequence[Value], shape: Shape) -> Value:
        """Return values one after the other along the channels, each as part of a sum."""
        is_map = len(shape) == 3
        if len(shape) not in (1, 3) or layer.axis % len(shape) != len(shape) - 1:
            raise FormatError(f"NIR can join maps along their channels alone (axis {layer.axis}).")
        arranged = [self._map(v) if is_map else self._flat(layer.name, v) for v in values]
        total, start, parts = shape[-1], 0, []
        for value in arranged:
            n = value.shape[-1]
            ops = [part for part in value.parts if isinstance(part, Op)]
            wires = tuple(part for part in value.parts if isinstance(part, str))
            if wires:
                sources = self._sources(replace(value, parts=wires))
                ops.append(self._diagonal(f"{layer.name}_{wires[0]}", sources, value.nir_shape))
            around = (start, total - start - n)
            for op in ops:
                self._out.spend(op.weight.size // n * total)
                rest = ((0, 0),) * (op.weight.ndim - 1)
                weight = np.pad(op.weight, (around, *rest))
                parts.append(replace(op, weight=weight, bias=np.pad(op.bias, around)))
            start += n
        if is_map:
            result = map_value(parts[0], shape)
        else:
            starts = np.cumsum([0, *(v.index.size for v in arranged)])
            index = np.concatenate([v.index + s for v, s in zip(arranged, starts, strict=False)])
            result = Value((), shape, shape, index)
        return replace(result, parts=tuple(parts), is_binary=all(v.is_binary for v in values))

    def _step(self, name: str, layer: L.Step, x: Value) -> Value:
        threshold = float32(np.array(layer.threshold))
        if layer.strict:
            return self._fires(name, x, threshold, {})
        # The largest float32 below the threshold: v > it is v >= threshold.
        below = np.nextafter(threshold, np.float32(-np.inf))
        return self._fires(name, x, below, {FIRES_AT: threshold})

    def _fires(
        self, name: str, x: Value, threshold: NDArray[Any], metadata: dict[str, Any]
    ) -> Value:
        """Return neurons that fire if x > threshold."""
        self._out.spend(2 * x.index.size)
        each = float32(np.broadcast_to(threshold, x.nir_shape))
        values = {"r": np.ones(x.nir_shape, np.float32), "v_threshold": each}
        node = self._write(name, Node("IF", values, metadata), x)
        return replace(x, parts=(node,), is_binary=True)

    def _map(self, x: Value) -> Value:
        """Return x if it is a map in NIR too."""
        is_map = len(x.shape) == 3 and x.nir_shape == channels_first(x.shape)
        if is_map and np.array_equal(x.index, map_index(x.shape)):
            return x
        raise FormatError(
            f"it reads a map of shape {x.shape} that was reshaped or permuted; NIR has no node for "
            "that. Save the network as a native file or as ONNX."
        )

    def _flat(self, name: str, x: Value) -> Value:
        """Return x as one axis."""
        if len(x.nir_shape) == 1:
            return x
        if x.parts not in self._flattened:
            # Named after the layer that flattens, if there is one in front of this one.
            before = self.model[name].inputs[0]
            is_flatten = before != INPUT and isinstance(self.model[before], L.Flatten)
            values = {"input_type": np.array(x.nir_shape, np.int64), "start_dim": 0, "end_dim": -1}
            fresh = before if is_flatten else f"{name}_flat"
            self._flattened[x.parts] = self._write(fresh, Node("Flatten", values), x)
        return replace(x, parts=(self._flattened[x.parts],), nir_shape=(x.index.size,))

    def _sources(self, x: Value) -> tuple[str, ...]:
        """Return the nodes whose sum is x, written if they were not."""
        names = [part if isinstance(part, str) else self._write_op(part) for part in x.parts]
        twice = sorted({name for name in names if names.count(name) > 1})
        for name in twice:
            # Two nodes can be joined by one edge alone.
            op = self._diagonal(f"{name}_times", (name,), x.nir_shape)
            op = replace(op, weight=op.weight * names.count(name))
            names = [other for other in names if other != name] + [self._write_op(op)]
        return tuple(names)

    def _write(self, name: str, node: Node, x: Value) -> str:
        """Add a node that reads x, under a name like this one, and return its name."""
        sources = self._sources(x)
        return self._out.write(self._out.fresh(name), node, sources)

    def _write_op(self, op: Op) -> str:
        name = self._out.write_op(op)
        if op in self._as_trained:
            self._keep_place(op, name)
        return name

    def _keep_place(self, op: Op, node: str) -> None:
        layer = self.model[op.name]
        for key, rows in (("weight", self._as_trained[op]), ("bias", None)):
            array = getattr(layer, key)
            if array is not None and array.dtype == np.float32:
                self.places[f"{layer.name}/{key}"] = node, rows


_NEED_MAPS = (L.Conv2D, L.DepthwiseConv2D, L.Pool, L.GlobalMaxPool2D, L.GlobalAveragePool2D)
_NO_MAXIMUM = (
    "a max pool of real numbers stands before it, which NIR can only say of spikes. Put a step "
    "behind the pool (a batch norm may stand between them)."
)
