"""The ONNX writer: a `Model` as an ONNX graph that gives the same spikes in any ONNX runtime.

The graph reads whole numbers as float32, ``(n, *shape)`` in the model's own order of axes, and
multiplies them by the input scale first, as `whetsim.reference.forward` does. It returns ``spikes``
and, with a readout, ``scores`` in float64. What ONNX has no place for stands as JSON in the
metadata entry ``whetsim``: name, input range, readout, metadata.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim import layers as L
from whetsim.errors import BackendNotInstalledError, FormatError, install_line
from whetsim.formats.native import write_whole
from whetsim.model import INPUT, Model, Readout

__all__ = ["write"]

OPSET = 17
IR_VERSION = 8
"""Of ONNX 1.12, the first with opset 17; every later runtime reads it."""
MAX_BYTES = 2**31 - 1
"""Largest message that protobuf allows."""
SPIKES, SCORES = "spikes", "scores"
_BATCH = "n"


def write(model: Model, path: Path) -> None:
    """Write `model` as ONNX; the same model always gives the same bytes.

    Raises
    ------
    FormatError
        If the network is too large for one ONNX file.
    BackendNotInstalledError
        If the package `onnx` is missing.
    """
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise BackendNotInstalledError(
            f"{path.name}: writing ONNX needs the package onnx. Get it: {install_line('formats')}"
        ) from None
    try:
        arrays = (getattr(layer, key) for layer in model.layers for key in layer.arrays)
        n_bytes = sum(array.nbytes for array in arrays if array is not None)
        message = None if n_bytes > MAX_BYTES else _Graph(model).message()
        if message is None or message.ByteSize() > MAX_BYTES:
            raise FormatError(
                f"the network is larger than an ONNX file may be ({MAX_BYTES} bytes). Save it as a "
                "native file."
            )
    except FormatError as error:
        raise FormatError(f"{path.name}: {error}") from None
    write_whole(path, message.SerializeToString(deterministic=True))


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the graph; its axis i (the batch not counted) is axis ``order[i]`` in whetsim."""

    name: str
    order: tuple[int, ...]

    @property
    def plain(self) -> tuple[int, ...]:
        """The order of whetsim itself."""
        return tuple(range(len(self.order)))

    @property
    def channels_first(self) -> tuple[int, ...]:
        """The last axis of whetsim first, as ONNX wants the channels."""
        return (len(self.order) - 1, *range(len(self.order) - 1))


@dataclass(eq=False)
class _Graph:
    """The nodes and constants written so far."""

    model: Model
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    # The names of inputs and outputs are promised; layers so named give way.
    _names: set[str] = field(default_factory=lambda: {INPUT, SPIKES, SCORES})
    _layer_names: set[str] = field(init=False)
    _values: dict[str, _Tensor] = field(default_factory=dict)
    _ordered: dict[tuple[str, tuple[int, ...]], _Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._layer_names = set(self.model.shapes)

    def message(self) -> Any:
        """Return the whole network as a ModelProto."""
        from onnx import helper

        model = self.model
        scaled = self._node(
            "Mul", f"{INPUT}/scaled", INPUT, self._float32("scale", model.input.scale)
        )
        self._values[INPUT] = _Tensor(scaled, tuple(range(len(model.input.shape))))
        for layer in model.layers:
            inputs = [self._values[i] for i in layer.inputs]
            self._values[layer.name] = self._add(layer, inputs)
        outputs = [self._spikes(self._values[model.output])]
        if model.readout is not None:
            outputs.append(self._scores(model.readout))
        graph = helper.make_graph(
            self.nodes,
            model.name,
            [self._info(INPUT, np.float32, model.input.shape)],
            outputs,
            initializer=list(self.constants.values()),
        )
        message = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="whetsim",
            ir_version=IR_VERSION,
        )
        helper.set_model_props(message, {"whetsim": _description(model)})
        return message

    def _add(self, layer: L.Layer, inputs: list[_Tensor]) -> _Tensor:
        """Add the nodes of a layer and return what it makes."""
        x = inputs[0]
        match layer:
            case L.Dense():
                given = [self._array(layer, "weight", layer.weight), *self._bias(layer)]
                return _Tensor(self._node("Gemm", layer.name, x.name, *given), (0,))
            case L.DepthwiseConv2D():
                return self._convolution(layer.as_conv2d(), x)
            case L.Convolution():
                return self._convolution(layer, x)
            case L.Conv2DTranspose():
                return self._transposed_convolution(layer, x)
            case L.MaxPool():
                return self._slide(layer, "MaxPool", x, **self._window(layer))
            case L.AveragePool():
                counted = {"count_include_pad": int(layer.count_padding)}
                return self._slide(layer, "AveragePool", x, **self._window(layer), **counted)
            case L.GlobalMaxPool2D() | L.GlobalAveragePool2D():
                kind = "Max" if isinstance(layer, L.GlobalMaxPool2D) else "Average"
                first = self._in_order(x, x.channels_first).name
                pooled = self._node(f"Global{kind}Pool", f"{layer.name}/map", first)
                return _Tensor(self._node("Flatten", layer.name, pooled, axis=1), (0,))
            case L.BatchNorm():
                return self._batch_norm(layer, x)
            case L.Flatten():
                plain = self._in_order(x, x.plain).name
                return _Tensor(self._node("Flatten", layer.name, plain, axis=1), (0,))
            case L.Reshape():
                plain = self._in_order(x, x.plain).name
                # 0 keeps the number of samples, even if it is none.
                shape = self._constant(f"{layer.name}/shape", np.array([0, *layer.shape]))
                made = self._node("Reshape", layer.name, plain, shape)
                return _Tensor(made, tuple(range(len(layer.shape))))
            case L.Permute():
                return _Tensor(x.name, tuple(layer.axes.index(a) for a in x.order))
            case L.ZeroPad2D():
                return self._zero_pad(layer, x)
            case L.Upsample2D():
                return self._upsample(layer, x)
            case L.Add():
                names = [self._in_order(v, x.order).name for v in inputs]
                made = self._node("Add" if len(names) == 2 else "Sum", layer.name, *names)
                return _Tensor(made, x.order)
            case L.Concat():
                names = [self._in_order(v, x.order).name for v in inputs]
                axis = 1 + x.order.index(layer.axis % len(x.order))
                return _Tensor(self._node("Concat", layer.name, *names, axis=axis), x.order)
            case L.Step():
                kind = "Greater" if layer.strict else "GreaterOrEqual"
                threshold = self._float32(f"{layer.name}/threshold", layer.threshold)
                fires = self._node(kind, f"{layer.name}/fires", x.name, threshold)
                return _Tensor(self._cast(layer.name, fires, np.float32), x.order)
            case L.Activation():
                return self._activation(layer, x)
        raise FormatError(f"layer {layer.name!r}: {layer.kind} cannot be written as ONNX.")

    def _convolution(self, layer: L.Convolution, x: _Tensor) -> _Tensor:
        given = [
            self._array(layer, "weight", np.moveaxis(layer.weight, (-1, -2), (0, 1))),
            *self._bias(layer),
        ]
        size = self.model.shapes[layer.inputs[0]][:-1]
        return self._slide(
            layer,
            "Conv",
            x,
            *given,
            kernel_shape=layer.kernel,
            strides=layer.strides,
            dilations=layer.dilation,
            pads=_pads(layer.explicit_padding(size)),
            group=layer.groups,
        )

    def _transposed_convolution(self, layer: L.Conv2DTranspose, x: _Tensor) -> _Tensor:
        crops, extra = layer.explicit_padding()
        # Cells added behind take back what is cut there: ONNX wants no more of them than needed.
        back = [min(after, more) for (_, after), more in zip(crops, extra, strict=True)]
        pads = [(a, b - less) for (a, b), less in zip(crops, back, strict=True)]
        given = [self._array(layer, "weight", layer.weight.transpose(3, 2, 0, 1))]
        return self._slide(
            layer,
            "ConvTranspose",
            x,
            *given,
            *self._bias(layer),
            kernel_shape=layer.kernel,
            strides=layer.strides,
            dilations=layer.dilation,
            pads=_pads(pads),
            output_padding=[more - less for more, less in zip(extra, back, strict=True)],
        )

    def _window(self, layer: L.Pool) -> dict[str, Any]:
        size = self.model.shapes[layer.inputs[0]][:-1]
        pads = _pads(layer.explicit_padding(size))
        return {"kernel_shape": layer.pool_size, "strides": layer.steps, "pads": pads}

    def _batch_norm(self, layer: L.BatchNorm, x: _Tensor) -> _Tensor:
        n = len(layer.mean)
        gamma = np.ones(n, np.float32) if layer.gamma is None else layer.gamma
        beta = np.zeros(n, np.float32) if layer.beta is None else layer.beta
        arrays = {"gamma": gamma, "beta": beta, "mean": layer.mean, "variance": layer.variance}
        given = [self._array(layer, key, array) for key, array in arrays.items()]
        return self._slide(layer, "BatchNormalization", x, *given, epsilon=layer.epsilon)

    def _zero_pad(self, layer: L.ZeroPad2D, x: _Tensor) -> _Tensor:
        ahead = [(0, 0), (0, 0), *layer.padding]
        pads = self._constant(f"{layer.name}/pads", np.array(_pads(ahead)))
        return self._slide(layer, "Pad", x, pads)

    def _upsample(self, layer: L.Upsample2D, x: _Tensor) -> _Tensor:
        factors = np.array([1, 1, *layer.size], np.float32)
        scales = self._constant(f"{layer.name}/scales", factors)
        return self._slide(
            layer,
            "Resize",
            x,
            "",
            scales,
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )

    def _slide(
        self, layer: L.Layer, op: str, x: _Tensor, *given: str, **attributes: Any
    ) -> _Tensor:
        """Add a node whose first input has its channels first."""
        first = self._in_order(x, x.channels_first)
        return _Tensor(self._node(op, layer.name, first.name, *given, **attributes), first.order)

    def _activation(self, layer: L.Activation, x: _Tensor) -> _Tensor:
        plain = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
        if layer.function in plain:
            return _Tensor(self._node(plain[layer.function], layer.name, x.name), x.order)
        half = self._float32(f"{layer.name}/half", 0.5)
        width = self._float32(f"{layer.name}/width", 1 - layer.sharpness)
        low, high = (self._float32(f"{layer.name}/{v}", v) for v in (0, 1))
        y = self._node("Sub", f"{layer.name}/centered", x.name, half)
        y = self._node("Div", f"{layer.name}/steeper", y, width)
        y = self._node("Add", f"{layer.name}/shifted", y, half)
        return _Tensor(self._node("Clip", layer.name, y, low, high), x.order)

    def _spikes(self, output: _Tensor) -> Any:
        plain = self._in_order(output, output.plain)
        self._node("Identity", SPIKES, plain.name, promised=True)
        return self._info(SPIKES, np.float32, self.model.shapes[self.model.output])

    def _scores(self, readout: Readout) -> Any:
        """Add ``(2 s - 1) @ matrix + bias`` in float64, as `Readout.scores` computes it."""
        y = self._node("Flatten", f"{SCORES}/flat", SPIKES, axis=1)
        y = self._cast(f"{SCORES}/wide", y, np.float64)
        y = self._node("Mul", f"{SCORES}/twice", y, self._constant(f"{SCORES}/two", np.array(2.0)))
        y = self._node("Sub", f"{SCORES}/signs", y, self._constant(f"{SCORES}/one", np.array(1.0)))
        matrix = self._constant(f"{SCORES}/matrix", readout.matrix)
        if readout.bias is None:
            self._node("MatMul", SCORES, y, matrix, promised=True)
        else:
            bias = self._constant(f"{SCORES}/bias", readout.bias.astype(np.float64))
            y = self._node("MatMul", f"{SCORES}/product", y, matrix)
            self._node("Add", SCORES, y, bias, promised=True)
        return self._info(SCORES, np.float64, (readout.n_classes,))

    def _in_order(self, x: _Tensor, order: tuple[int, ...]) -> _Tensor:
        """Return x with its axes in an order, transposed once if need be."""
        if x.order == order:
            return x
        if (x.name, order) not in self._ordered:
            axes = [0, *(1 + x.order.index(a) for a in order)]
            made = self._node("Transpose", f"{x.name}/transposed", x.name, perm=axes)
            self._ordered[x.name, order] = _Tensor(made, order)
            self._ordered[made, x.order] = x
        return self._ordered[x.name, order]

    def _bias(self, layer: Any) -> list[str]:
        return [] if layer.bias is None else [self._array(layer, "bias", layer.bias)]

    def _array(self, layer: L.Layer, key: str, array: L.FloatArray) -> str:
        """Add a trained array as it is; one that is not float32 is cast in the graph."""
        name = f"{layer.name}/{key}"
        if array.dtype == np.float32:
            return self._constant(name, array)
        return self._cast(name, self._constant(f"{name}/{array.dtype}", array), np.float32)

    def _float32(self, name: str, value: float) -> str:
        return self._constant(name, np.array(value, np.float32))

    def _constant(self, name: str, array: NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = self._fresh(name)
        little = np.ascontiguousarray(array).reshape(array.shape)
        self.constants[name] = numpy_helper.from_array(little, name)
        return name

    def _cast(self, name: str, x: str, dtype: Any) -> str:
        return self._node("Cast", name, x, to=_onnx_type(dtype))

    def _node(self, op: str, name: str, *inputs: str, promised: bool = False, **given: Any) -> str:
        """Add a node; its own name is that of its output, which is returned."""
        from onnx import helper

        name = name if promised else self._fresh(name)
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **given))
        return name

    def _fresh(self, name: str) -> str:
        """Return a name that nothing else has."""
        unique, count = name, 1
        # What is made up on the way gives way to layers that are still to come.
        while unique in self._names or (unique in self._layer_names and unique != name):
            count += 1
            unique = f"{name}_{count}"
        self._names.add(unique)
        return unique

    def _info(self, name: str, dtype: Any, shape: Sequence[int]) -> Any:
        from onnx import helper

        return helper.make_tensor_value_info(name, _onnx_type(dtype), [_BATCH, *shape])


def _onnx_type(dtype: Any) -> int:
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _pads(padding: Sequence[tuple[int, int]]) -> list[int]:
    """Return the cells before each axis, then those behind."""
    return [before for before, _ in padding] + [after for _, after in padding]


def _description(model: Model) -> str:
    spec, readout = model.input, model.readout
    decoded: dict[str, Any] | None = None
    if readout is not None and readout.key is not None:
        decoded = {"key": readout.key.tolist()}
    elif readout is not None and readout.decoder is not None:
        bias = None if readout.bias is None else readout.bias.tolist()
        decoded = {"decoder": readout.decoder.tolist(), "bias": bias}
    content = {
        "name": model.name,
        "input": {"low": spec.low, "high": spec.high, "scale": spec.scale},
        "readout": decoded,
        "metadata": dict(model.metadata),
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False)
