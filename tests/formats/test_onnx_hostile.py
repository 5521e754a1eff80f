"""ONNX files that are damaged or made to harm: each gives a model or one clear error."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whetsim
from tests.formats.onnx_graphs import (
    Draw,
    load,
    network,
    node,
    onnx,
    refused,
    runtime,
    written,
)
from whetsim.errors import FormatError, WhetsimError

DRAW = Draw(3)
weights = DRAW.weights

REPEAT = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def dense() -> Any:
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s i", "n"),
        node("Unsqueeze", "n a", "n1"),
        node("Concat", "n1 m", "t", axis=0),
        node("Reshape", "x t", "f"),
        node("Gemm", "f w b", "h", transB=1),
        node("Sub", "h half", "d"),
        node("Sign", "d", "g"),
        node("Relu", "g", "r"),
        node("MatMul", "r v", "k"),
        node("Add", "k c", "o"),
        node("Softmax", "o", axis=-1),
    ]
    constants = {
        "i": np.array(0),
        "a": np.array([0]),
        "m": np.array([-1]),
        "w": weights(5, 12),
        "b": weights(5),
        "half": np.float32(0.5),
        "v": weights(5, 3),
        "c": weights(3),
    }
    return network(nodes, (3, 4), constants)


def convolutional() -> Any:
    nodes = [
        node("Conv", "x k b", "c", pads=[1, 1, 1, 1], strides=[2, 1], kernel_shape=[3, 3]),
        node("BatchNormalization", "c g b m v", "n", epsilon=0.001),
        node("GreaterOrEqual", "n half", "q"),
        node("Cast", "q", "s", to=1),
        node("MaxPool", "s", "p", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        node("Pad", "p z", "pp"),
        node("Resize", "pp - f", "u", **REPEAT),
        node("ConvTranspose", "u kt", "t", strides=[2, 2], output_padding=[1, 1]),
        node("Greater", "t each", "tq"),
        node("Where", "tq one zero", "ts"),
        node("AveragePool", "ts", "av", kernel_shape=[2, 2], count_include_pad=1),
        node("Concat", "av av", "cc", axis=1),
        node("Slice", "cc s0 s1 s2", "sl"),
        node("Unsqueeze", "sl ua", "us"),
        node("Expand", "us ex", "e5"),
        node("Reshape", "e5 rs", "rr"),
        node("Split", "rr", "h1 h2", axis=1),
        node("Add", "h1 h2", "hh"),
        node("Transpose", "cc", "tr", perm=[0, 2, 3, 1]),
        node("Flatten", "tr", "fl"),
        node("ReduceSum", "hh ax", "gl", keepdims=0),
        node("Gemm", "gl w"),
    ]  # fmt: skip
    constants = {
        "k": weights(4, 2, 3, 3),
        "b": weights(4),
        "g": weights(4),
        "m": weights(4),
        "v": abs(weights(4)) + 1,
        "half": np.float32(0.5),
        "z": np.array([0, 0, 1, 0, 0, 0, 0, 1]),
        "f": np.array([1, 1, 2, 2], np.float32),
        "kt": weights(4, 2, 3, 3),
        "each": weights(2, 1, 1),
        "one": np.float32(1),
        "zero": np.float32(0),
        "s0": np.array([1, 0]),
        "s1": np.array([9, -1]),
        "s2": np.array([2, 3]),
        "ua": np.array([3]),
        "ex": np.array([1, 1, 1, 2, 1]),
        "rs": np.array([0, 4, 16, 16]),
        "ax": np.array([2, 3]),
        "w": weights(2, 3),
    }
    return network(nodes, (2, 7, 6), constants)


NETWORKS = {"dense": dense, "convolutional": convolutional}


def opened(path: Path) -> str:
    """Load a file; return what came of it. Anything but a model or our own error fails."""
    try:
        whetsim.load(path, input_scale=0.25, input_range=(0, 8))
    except WhetsimError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 1000
        return "refused"
    return "loaded"


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_are_sound(name: str, tmp_path: Path) -> None:
    model = NETWORKS[name]()
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    x = np.eye(math.prod(shape), dtype=np.float32).reshape(-1, *shape)
    assert np.ptp(runtime(model, 4 * x)) > 0
    assert load(model, tmp_path).n_parameters > 50


@pytest.mark.parametrize("name", NETWORKS)
def test_a_thousand_damaged_files(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    data = NETWORKS[name]().SerializeToString()
    path = tmp_path / "net.onnx"
    results = {"loaded": 0, "refused": 0}
    for i in range(1000):
        broken = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(len(broken)))
            kind = (i + int(rng.integers(4))) % 4
            if kind == 0:
                broken[at] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                broken[at] = int(rng.integers(256))
            elif kind == 2:
                del broken[at : at + int(rng.integers(1, 9))]
            else:
                broken[at:at] = rng.integers(0, 256, int(rng.integers(1, 9))).astype("u1").tobytes()
        if i % 10 == 0:
            broken = bytearray(data[: int(rng.integers(len(data)))])
        path.write_bytes(bytes(broken))
        results[opened(path)] += 1
    assert results["refused"] > 300


def _any_node(model: Any, rng: np.random.Generator) -> Any:
    return model.graph.node[int(rng.integers(len(model.graph.node)))]


def _names(model: Any) -> list[str]:
    made = [name for n in model.graph.node for name in (*n.output, *n.input)]
    return [*made, "", "nothing", *(t.name for t in model.graph.initializer)]


INTEGERS = (0, 1, -1, 2, 3, 7, -(2**63), 2**63 - 1, 2**31, 10**6, 65)


def edit(model: Any, rng: np.random.Generator) -> None:
    """Change one thing in a message that stays well formed."""
    pick = int(rng.integers(13))
    target = _any_node(model, rng)
    number = int(INTEGERS[int(rng.integers(len(INTEGERS)))])
    tensor = model.graph.initializer[int(rng.integers(len(model.graph.initializer)))]
    names = _names(model)
    name = names[int(rng.integers(len(names)))]
    if pick == 0 and target.input:
        target.input[int(rng.integers(len(target.input)))] = name
    elif pick == 1:
        target.op_type = _any_node(model, rng).op_type
    elif pick == 2:
        target.input.append(name)
    elif pick == 3 and target.input:
        del target.input[-1]
    elif pick == 4 and target.attribute:
        attribute = target.attribute[int(rng.integers(len(target.attribute)))]
        attribute.i = number
        if attribute.ints:
            attribute.ints[int(rng.integers(len(attribute.ints)))] = number
        attribute.f = (float("nan"), float("inf"), -1e38, 0.0)[int(rng.integers(4))]
    elif pick == 5 and target.attribute:
        target.attribute[0].type = int(rng.integers(14))
    elif pick == 6 and target.attribute:
        target.attribute[0].ints.append(number)
    elif pick == 7 and tensor.dims:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = number
    elif pick == 8:
        tensor.data_type = int(rng.integers(0, 24))
    elif pick == 9:
        size = len(tensor.raw_data)
        values = rng.choice(np.array([0, 1, -1, 5, 2**62, -(2**62)]), size // 8)
        if tensor.data_type == 7:
            tensor.raw_data = values.astype(np.int64).tobytes()
        else:
            tensor.raw_data = rng.integers(0, 256, size).astype("u1").tobytes()
    elif pick == 10:
        dims = model.graph.input[0].type.tensor_type.shape.dim
        dims[int(rng.integers(len(dims)))].dim_value = number
    elif pick == 11:
        at = int(rng.integers(len(model.graph.node)))
        del model.graph.node[at]
    else:
        model.graph.node.add().CopyFrom(target)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_thousand_edits(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(12)
    base = NETWORKS[name]()
    path = tmp_path / "net.onnx"
    results = {"loaded": 0, "refused": 0}
    for _ in range(1000):
        model = onnx.ModelProto()
        model.CopyFrom(base)
        for _ in range(int(rng.integers(1, 4))):
            if model.graph.node:
                edit(model, rng)
        results[opened(written(model, path))] += 1
    assert min(results.values()) > 20


def test_circles(tmp_path: Path) -> None:
    refused(network([node("Neg", "y")], (3,)), tmp_path, "needs what it makes itself")
    nodes = [node("Add", "x b", "a"), node("Neg", "a", "b"), node("Neg", "b")]
    refused(network(nodes, (3,)), tmp_path, "Recurrent networks")


def test_names_that_nothing_makes_or_two_make(tmp_path: Path) -> None:
    refused(network([node("Add", "x nobody")], (3,)), tmp_path, "'nobody' is made by no node")
    refused(network([node("Neg", "x"), node("Abs", "x")], (3,)), tmp_path, "made twice")
    refused(network([node("Neg", "x", "z")], (3,)), tmp_path, "'y' is made by no node")
    refused(network([node("Neg", "-")], (3,)), tmp_path, "operator|missing|fit")


def test_a_branch_that_needs_its_own_result(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("o", 1, None)
    branch = onnx.helper.make_graph([node("Neg", "y", "o")], "b", [], [value])
    model = network([node("If", "true", then_branch=branch)], (3,), {"true": np.array(True)})
    refused(model, tmp_path, "nested deeper than|needs what it makes")


def test_messages_in_messages(tmp_path: Path) -> None:
    """Lengths nested a thousand deep, which a careless parser follows by recursion."""
    content = b""
    for _ in range(1000):
        # An attribute (node field 5) with a graph (field 6) with a node (field 1).
        for tag in (0x0A, 0x32, 0x2A):
            content = bytes([tag]) + _varint(len(content)) + content
    graph = b"\x0a" + _varint(len(content)) + content
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08\x08\x3a" + _varint(len(graph)) + graph)
    with pytest.raises(FormatError, match=r"not a valid ONNX message|no graph"):
        whetsim.load(path, input_scale=1)


def _varint(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def test_a_message_of_empty_nodes(tmp_path: Path) -> None:
    graph = b"\x0a\x00" * 300_000
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08\x08\x3a" + _varint(len(graph)) + graph + b"\x42\x02\x10\x11")
    with pytest.raises(FormatError, match="inputs"):
        whetsim.load(path, input_scale=1)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.ClearField("graph"),
        lambda m: m.graph.ClearField("node"),
        lambda m: m.graph.ClearField("input"),
        lambda m: m.graph.ClearField("output"),
        lambda m: m.graph.ClearField("initializer"),
        lambda m: m.ClearField("opset_import"),
        lambda m: m.graph.input[0].ClearField("type"),
        lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"),
        lambda m: m.graph.input[0].type.tensor_type.ClearField("elem_type"),
        lambda m: m.graph.sparse_initializer.add(),
        lambda m: m.graph.initializer[3].ClearField("raw_data"),
        lambda m: m.graph.initializer[3].segment.SetInParent(),
        lambda m: m.graph.initializer[3].ClearField("data_type"),
    ],
    ids=range(13),
)
def test_missing_parts(change: Callable[[Any], None], tmp_path: Path) -> None:
    model = dense()
    change(model)
    with pytest.raises(FormatError) as caught:
        load(model, tmp_path)
    assert len(str(caught.value)) > 20
    assert "\n" not in str(caught.value)


def test_text_that_is_no_unicode(tmp_path: Path) -> None:
    data = dense().SerializeToString().replace(b"Gemm", b"\xff\xfe\xfd\xfc")
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    assert opened(path) == "refused"


def test_numbers_at_the_end_of_their_range(tmp_path: Path) -> None:
    for value in (2.0**127, 2.0**-149, -(2.0**127)):
        constants = {"c": np.float32(value)}
        nodes = [
            node("Mul", "x c", "m"),
            node("GreaterOrEqual", "m c", "q"),
            node("Cast", "q", to=1),
        ]
        loaded = load(network(nodes, (2,), constants), tmp_path)
        assert len(loaded.layers) in (1, 2)
