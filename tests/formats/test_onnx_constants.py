"""Constants of ONNX graphs: their types, arithmetic on shapes, branches and functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.onnx_graphs import Array, Draw, computed, load, network, node, onnx, same_values
from whetsim.errors import FormatError

DRAW = Draw(7)
weights, samples = DRAW.weights, DRAW.samples


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_weights_of_other_types(dtype: str, tmp_path: Path) -> None:
    w = weights(4, 3)
    model = network([node("Gemm", "x w")], (4,), {"w": w})
    (tensor,) = model.graph.initializer
    if dtype == "bfloat16":
        tensor.data_type = onnx.TensorProto.BFLOAT16
        tensor.raw_data = (w.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    else:
        tensor.CopyFrom(onnx.numpy_helper.from_array(w.astype(dtype), "w"))
    x = samples(4)
    got = computed(load(model, tmp_path), x)
    np.testing.assert_array_equal(got, (x / 4) @ w)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_weights_as_numbers_instead_of_bytes(dtype: str, tmp_path: Path) -> None:
    w = weights(4, 3)
    model = network([node("Gemm", "x w")], (4,), {"w": w})
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensor = onnx.helper.make_tensor("w", kind, w.shape, w.ravel().tolist())
    model.graph.initializer[0].CopyFrom(tensor)
    assert not model.graph.initializer[0].HasField("raw_data")
    x = samples(4)
    np.testing.assert_array_equal(computed(load(model, tmp_path), x), (x / 4) @ w)


FOLDED: dict[str, tuple[list[Any], dict[str, Array]]] = {
    "shape, gather, concat": (
        [
            node("Shape", "x", "s"),
            node("Gather", "s i0", "n", axis=0),
            node("Unsqueeze", "n i0a", "n1"),
            node("Concat", "n1 minus", "t", axis=0),
            node("Reshape", "x t", "f"),
            node("Gemm", "f w"),
        ],
        {"i0": np.array(0), "i0a": np.array([0]), "minus": np.array([-1])},
    ),
    "shape, slice, product": (
        [
            node("Shape", "x", "s"),
            node("Slice", "s one end", "rest"),
            node("ReduceProd", "rest", "p", axes=[0], keepdims=1),
            node("Slice", "s zero one", "n"),
            node("Concat", "n p", "t", axis=0),
            node("Reshape", "x t", "f"),
            node("Gemm", "f w"),
        ],
        {"zero": np.array([0]), "one": np.array([1]), "end": np.array([2**62])},
    ),
    "expand, constant of shape, where": (
        [
            node("ConstantOfShape", "len", "c"),
            node("Equal", "c c0", "e"),
            node("Where", "e a b", "t"),
            node("Reshape", "x t", "f"),
            node("Gemm", "f w", "g"),
            node("Expand", "k len3", "kk"),
            node("Add", "g kk"),
        ],
        {
            "len": np.array([2]),
            "c0": np.float32(0),
            "a": np.array([0, -1]),
            "b": np.array([5, 5]),
            "k": weights(1),
            "len3": np.array([1, 3]),
        },
    ),
    "range and casts": (
        [
            node("Range", "r0 r24 r1", "r"),
            node("Cast", "r", "rf", to=1),
            node("Div", "rf n", "m"),
            node("Flatten", "x", "f"),
            node("Mul", "f m", "g"),
            node("Gemm", "g w"),
        ],
        {"r0": np.array(0), "r24": np.array(24), "r1": np.array(1), "n": np.float32(8)},
    ),
    "binary weights": (
        [
            node("Flatten", "x", "f"),
            node("Abs", "w", "a"),
            node("ReduceMean", "a", "m", keepdims=0),
            node("Sign", "w", "s"),
            node("Mul", "s m", "v"),
            node("Transpose", "v", "vt", perm=[1, 0]),
            node("Gemm", "f vt", transB=1),
        ],
        {},
    ),
    "split": (
        [
            node("Split", "pair parts", "w1 w2", axis=0),
            node("Flatten", "x", "f"),
            node("Gemm", "f w1", "g"),
            node("Gemm", "f w2", "h"),
            node("Add", "g h"),
        ],
        {"pair": weights(48, 3), "parts": np.array([24, 24])},
    ),
    "integer division": (
        [
            node("Div", "m47 two", "d"),
            node("Mul", "d m1", "e"),
            node("Add", "e one", "p"),
            node("Unsqueeze", "p ax", "q"),
            node("Concat", "zero q", "t", axis=0),
            node("Reshape", "x t", "f"),
            node("Gemm", "f w"),
        ],
        {
            "m47": np.array(-47),
            "two": np.array(2),
            "m1": np.array(-1),
            "one": np.array(1),
            "ax": np.array([0]),
            "zero": np.array([0]),
        },
    ),
}


@pytest.mark.parametrize("case", FOLDED)
def test_arithmetic_on_constants_and_shapes(case: str, tmp_path: Path) -> None:
    nodes, constants = FOLDED[case]
    model = network(nodes, (2, 3, 4), {"w": weights(24, 3)} | constants)
    same_values(model, tmp_path, samples(2, 3, 4))


def branch(name: str, nodes: list[Any], output: str) -> Any:
    value = onnx.helper.make_tensor_value_info(output, 1, None)
    return onnx.helper.make_graph(nodes, name, [], [value])


def test_a_branch_with_a_constant_condition_is_followed(tmp_path: Path) -> None:
    then = branch("then", [node("Mul", "x two", "a")], "a")
    other = branch("else", [node("Erf", "x", "b")], "b")
    nodes = [
        node("Greater", "two one", "c"),
        node("If", "c", "i", then_branch=then, else_branch=other),
        node("Add", "i one"),
    ]
    constants = {"one": np.float32(1), "two": np.float32(2)}
    same_values(network(nodes, (3,), constants), tmp_path, samples(3))


def test_a_branch_that_depends_on_the_input_is_refused(tmp_path: Path) -> None:
    then = branch("then", [node("Neg", "x", "a")], "a")
    nodes = [node("Greater", "x one", "c"), node("If", "c", then_branch=then, else_branch=then)]
    with pytest.raises(FormatError, match="condition depends on the input"):
        load(network(nodes, (3,), {"one": np.float32(1)}), tmp_path)


def function(name: str, inputs: str, nodes: list[Any], output: str, attributes: str = "") -> Any:
    return onnx.helper.make_function(
        "local",
        name,
        inputs.split(),
        [output],
        nodes,
        [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("local", 1)],
        attributes.split(),
    )


def test_functions_are_followed(tmp_path: Path) -> None:
    inner = node("Gemm", "a w", "r")
    inner.attribute.add(name="alpha", type=1, ref_attr_name="factor")
    functions = [
        function("scaled", "a w", [inner], "r", "factor"),
        function("twice", "v w", [_local("scaled", "v w", "s", factor=2.0)], "s"),
    ]
    nodes = [_local("twice", "x w", "m"), node("Add", "m b")]
    model = network(nodes, (3,), {"w": weights(3, 3), "b": weights(3)}, functions=functions)
    loaded = same_values(model, tmp_path, samples(3))
    assert [layer.kind for layer in loaded.layers] == ["dense"]


def _local(op: str, inputs: str, output: str, **attributes: Any) -> Any:
    made = node(op, inputs, output, **attributes)
    made.domain = "local"
    return made


def test_nothing_is_read_that_the_output_does_not_need(tmp_path: Path) -> None:
    nodes = [node("Erf", "x", "unused"), node("Mul", "x s")]
    loaded = load(network(nodes, (3,), {"s": weights(3)}), tmp_path)
    assert [layer.name for layer in loaded.layers] == ["y"]


@pytest.mark.parametrize("batch", [None, "n", 1, 5])
def test_the_first_axis_counts_samples_however_it_is_written(batch: Any, tmp_path: Path) -> None:
    n = batch if isinstance(batch, int) else 1
    nodes = [node("Reshape", "x s", "f"), node("Gemm", "f w b")]
    bias = np.tile(weights(1, 3), (n, 1))
    constants = {"s": np.array([n, 6]), "w": weights(6, 3), "b": bias}
    loaded = load(network(nodes, (2, 3), constants, batch=batch), tmp_path)
    x = samples(2, 3)
    wanted = (x / 4).reshape(4, 6) @ constants["w"] + bias[0]
    np.testing.assert_allclose(computed(loaded, x), wanted, rtol=1e-6)
