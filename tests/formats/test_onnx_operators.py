"""ONNX operators that are affine, against another ONNX runtime, and those that are refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.onnx_graphs import Array, Draw, load, network, node, same_values
from whetsim.errors import FormatError

DRAW = Draw(7)
weights, samples = DRAW.weights, DRAW.samples

AFFINE: dict[str, tuple[Sequence[int], list[Any], dict[str, Array]]] = {
    "gemm": ((5,), [node("Gemm", "x w b")], {"w": weights(5, 3), "b": weights(3)}),
    "gemm transposed": (
        (5,),
        [node("Gemm", "x w b", transB=1, alpha=0.5, beta=2.0)],
        {"w": weights(3, 5), "b": weights(1, 3)},
    ),
    "gemm without bias": ((5,), [node("Gemm", "x w")], {"w": weights(5, 3)}),
    "gemm with one bias": ((5,), [node("Gemm", "x w b")], {"w": weights(5, 3), "b": weights(1)}),
    "matmul and add": (
        (5,),
        [node("MatMul", "x w", "m"), node("Add", "b m")],
        {"w": weights(5, 3), "b": weights(3)},
    ),
    "matmul and sub": (
        (5,),
        [node("MatMul", "x w", "m"), node("Sub", "m b")],
        {"w": weights(5, 3), "b": weights(1, 3)},
    ),
    "constant minus": (
        (5,),
        [node("MatMul", "x w", "m"), node("Sub", "b m")],
        {"w": weights(5, 3), "b": weights(3)},
    ),
    "matmul on every cell": ((4, 5), [node("MatMul", "x w")], {"w": weights(5, 3)}),
    "matmul from the left": ((5, 4), [node("MatMul", "w x")], {"w": weights(3, 5)}),
    "matmul of maps from the left": ((2, 5, 4), [node("MatMul", "w x")], {"w": weights(3, 5)}),
    "scale each channel": ((3, 4, 5), [node("Mul", "x s")], {"s": weights(3, 1, 1)}),
    "scale each row": ((3, 4, 5), [node("Mul", "s x")], {"s": weights(4, 1)}),
    "scale each unit": ((3, 4, 5), [node("Mul", "x s")], {"s": weights(3, 4, 5)}),
    "divide each channel": (
        (3, 4, 5),
        [node("Div", "x s")],
        {"s": np.array([2, 4, -0.5], np.float32).reshape(1, 3, 1, 1)},
    ),
    "scale and shift all": (
        (3, 4),
        [node("Mul", "x s", "m"), node("Add", "m t")],
        {"s": np.float32(-3), "t": np.float32(0.5)},
    ),
    "negate": ((3,), [node("Neg", "x")], {}),
    "add two": ((3,), [node("Mul", "x s", "m"), node("Add", "m x")], {"s": weights(3)}),
    "subtract two": ((3,), [node("Mul", "x s", "m"), node("Sub", "m x")], {"s": weights(3)}),
    "sum of three": (
        (3,),
        [node("Mul", "x s", "m"), node("Mul", "x t", "k"), node("Sum", "x m k s")],
        {"s": weights(3), "t": weights(3)},
    ),
    "mean of two": ((3,), [node("Mul", "x s", "m"), node("Mean", "m x")], {"s": weights(3)}),
    "batch norm": (
        (3, 4, 5),
        [node("BatchNormalization", "x g b m v", epsilon=0.01)],
        {"g": weights(3), "b": weights(3), "m": weights(3), "v": abs(weights(3)) + 1},
    ),
    "batch norm of a vector": (
        (3,),
        [node("BatchNormalization", "x g b m v")],
        {"g": weights(3), "b": weights(3), "m": weights(3), "v": abs(weights(3)) + 1},
    ),
    "flatten": ((2, 3, 4), [node("Flatten", "x", "f"), node("Gemm", "f w")], {"w": weights(24, 3)}),
    "reshape 0 -1": (
        (2, 3, 4),
        [node("Reshape", "x s", "f"), node("Gemm", "f w")],
        {"w": weights(24, 3), "s": np.array([0, -1])},
    ),
    "reshape -1": (
        (2, 3, 4),
        [node("Reshape", "x s", "f"), node("MatMul", "f w")],
        {"w": weights(12, 3), "s": np.array([-1, 2, 12])},
    ),
    "transpose": (
        (2, 3, 4),
        [node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("MatMul", "t w")],
        {"w": weights(2, 5)},
    ),
    "transpose and flatten": (
        (2, 3, 4),
        [
            node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
            node("Flatten", "t", "f"),
            node("Gemm", "f w"),
        ],
        {"w": weights(24, 3)},
    ),
    "unsqueeze and squeeze": (
        (6,),
        [node("Unsqueeze", "x a", "u"), node("Conv", "u k", "c"), node("Squeeze", "c a")],
        {"a": np.array([1]), "k": weights(1, 1, 3)},
    ),
    "squeeze all": (
        (1, 6),
        [node("Squeeze", "x", "s"), node("Gemm", "s w")],
        {"w": weights(6, 2)},
    ),
    "concat": (
        (2, 3, 3),
        [node("Mul", "x s", "m"), node("Concat", "m x", axis=1)],
        {"s": weights(2, 1, 1)},
    ),
    "concat of rows": (
        (2, 3, 3),
        [node("Mul", "x s", "m"), node("Concat", "m x", axis=-1)],
        {"s": weights(2, 1, 1)},
    ),
    "pad": ((2, 3, 4), [node("Pad", "x p")], {"p": np.array([0, 0, 1, 2, 0, 0, 0, 1])}),
    "pad a line": ((2, 5), [node("Pad", "x p")], {"p": np.array([0, 0, 1, 0, 0, 2])}),
    "pad and convolve": (
        (2, 5, 5),
        [node("Pad", "x p z", "q"), node("Conv", "q k", strides=[2, 2])],
        {"p": np.array([0, 0, 0, 0, 0, 0, 1, 1]), "z": np.float32(0), "k": weights(3, 2, 3, 3)},
    ),
    "slice of a map": (
        (2, 5, 6),
        [node("Slice", "x a b c")],
        {"a": np.array([1, -4]), "b": np.array([4, 2**62]), "c": np.array([2, 3])},
    ),
    "slice of channels": (
        (4, 3, 3),
        [node("Slice", "x a b c s")],
        {"a": np.array([1]), "b": np.array([3]), "c": np.array([1]), "s": np.array([1])},
    ),
    "slice of everything": (
        (4, 4, 4),
        [node("Slice", "x a b c")],
        {"a": np.array([1, 1, 2]), "b": np.array([3, 4, 4]), "c": np.array([1, 2, 3])},
    ),
    "slice of a vector": (
        (6,),
        [node("Slice", "x a b c")],
        {"a": np.array([1]), "b": np.array([-1]), "c": np.array([-1])},
    ),
    "slice of a transposed convolution": (
        (2, 4, 4),
        [
            node("ConvTranspose", "x k", "t", strides=[2, 2], output_padding=[1, 0]),
            node("Slice", "t a b c"),
        ],
        {
            "k": weights(2, 3, 3, 3),
            "a": np.array([1, 0]),
            "b": np.array([-2, -1]),
            "c": np.array([2, 3]),
        },
    ),
    "slice of a turned transposed convolution": (
        (2, 4, 4),
        [
            node("ConvTranspose", "x k", "t", strides=[2, 2]),
            node("Transpose", "t", "u", perm=[0, 3, 2, 1]),
            node("Slice", "u a b c"),
        ],
        {
            "k": weights(2, 3, 3, 3),
            "a": np.array([1, 0]),
            "b": np.array([-2, -1]),
            "c": np.array([2, 1]),
        },
    ),
    "crop by padding": (
        (2, 5, 6),
        [node("Pad", "x p")],
        {"p": np.array([0, 0, -1, 0, 0, 0, 2, -3])},
    ),
    "split": (
        (4, 3, 3),
        [
            node("Split", "x p", "a b", axis=1),
            node("MaxPool", "b", "bb", kernel_shape=[1, 1]),
            node("Add", "a bb"),
        ],
        {"p": np.array([2, 2])},
    ),
    "repeated rows": (
        (3, 4, 2),
        [node("Unsqueeze", "x i", "u"), node("Expand", "u e", "v"), node("Reshape", "v r")],
        {
            "i": np.array([2]),
            "e": np.array([1, 1, 1, 3, 1, 1])[[0, 1, 3, 4, 5]],
            "r": np.array([0, 9, 4, 2]),
        },
    ),
    "tiled rows": (
        (3, 4, 2),
        [node("Unsqueeze", "x i", "u"), node("Tile", "u e", "v"), node("Reshape", "v r")],
        {"i": np.array([3]), "e": np.array([1, 1, 1, 2, 1]), "r": np.array([0, 3, 8, 2])},
    ),
    "repeated whole": (
        (3, 4),
        [node("Unsqueeze", "x i", "u"), node("Expand", "u e", "v"), node("Reshape", "v r")],
        {"i": np.array([1]), "e": np.array([1, 3, 1, 1]), "r": np.array([0, 9, 4])},
    ),
    "dropout": ((3,), [node("Dropout", "x", "d"), node("Mul", "d s")], {"s": weights(3)}),
}


@pytest.mark.parametrize("case", AFFINE)
def test_affine_operators(case: str, tmp_path: Path) -> None:
    shape, nodes, constants = AFFINE[case]
    opset = 17
    same_values(network(nodes, shape, constants, opset=opset), tmp_path, samples(*shape))


REFUSED: dict[str, tuple[list[Any], Sequence[int], dict[str, Array], str]] = {
    "dynamic weight": ([node("MatMul", "x x")], (3, 3), {}, "two tensors that both depend"),
    "transposed input": (
        [node("Gemm", "x w", transA=1)],
        (3,),
        {"w": weights(3, 3)},
        "samples would mix",
    ),
    "weight that does not fit": (
        [node("Gemm", "x w")],
        (3,),
        {"w": weights(4, 3)},
        r"weight has shape \(4, 3\); expected \(3, n\)",
    ),
    "conv that does not fit": (
        [node("Conv", "x w")],
        (3, 5, 5),
        {"w": weights(4, 2, 3, 3)},
        "weight has shape|fits|input channels",
    ),
    "kernel larger than the map": (
        [node("Conv", "x w")],
        (3, 2, 2),
        {"w": weights(4, 3, 3, 3)},
        "the window spans 3 cells",
    ),
    "constant that enlarges": (
        [node("Add", "x c")],
        (3,),
        {"c": weights(4, 1, 3)},
        "need one that broadcasts",
    ),
    "training batch norm": (
        [node("BatchNormalization", "x g g g v", training_mode=1)],
        (3,),
        {"g": weights(3), "v": np.ones(3, np.float32)},
        "statistics of the batch",
    ),
    "grouped transposed convolution": (
        [node("ConvTranspose", "x w", group=3)],
        (3, 4, 4),
        {"w": weights(3, 1, 2, 2)},
        "in 3 groups",
    ),
    "dilated pool": (
        [node("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 2])],
        (3, 6, 6),
        {},
        "dilations",
    ),
    "counted padding that rounds up": (
        [
            node(
                "AveragePool",
                "x",
                kernel_shape=[2, 2],
                strides=[2, 2],
                ceil_mode=1,
                count_include_pad=1,
            )
        ],
        (3, 5, 5),
        {},
        "different divisors",
    ),
    "places of maxima": (
        [node("MaxPool", "x", "m y", kernel_shape=[2, 2])],
        (3, 6, 6),
        {},
        "places of maxima",
    ),
    "pad with ones": (
        [node("Pad", "x p v")],
        (3,),
        {"p": np.array([0, 1, 0, 1]), "v": np.float32(1)},
        "another number than 0",
    ),
    "crop": ([node("Pad", "x p")], (3, 4), {"p": np.array([0, 0, -2, 0, 0, -2])}, "leave nothing"),
    "reflect": (
        [node("Pad", "x p", mode="reflect")],
        (3, 4),
        {"p": np.array([0, 0, 1, 0, 0, 1])},
        "mode 'reflect'",
    ),
    "linear resize": (
        [node("Resize", "x - s", mode="linear")],
        (3, 4, 4),
        {"s": np.array([1, 1, 2, 2], np.float32)},
        "mode 'linear'",
    ),
    "resize by a fraction": (
        [node("Resize", "x - s")],
        (3, 4, 4),
        {"s": np.array([1, 1, 1.5, 2], np.float32)},
        "it enlarges by 1, 1, 1.5, 2 ",
    ),
    "mixed samples": ([node("Flatten", "x", axis=0)], (3, 4), {}, "axis 0 mixes samples"),
    "moved samples": ([node("Transpose", "x", perm=[1, 0])], (3,), {}, "keep the samples first"),
    "joined samples": (
        [node("Reshape", "x s")],
        (4,),
        {"s": np.array([-1, 2])},
        "need the samples first",
    ),
    "slice with gaps": (
        [node("Slice", "x a b c s")],
        (4,),
        {"a": np.array([0]), "b": np.array([4]), "c": np.array([1]), "s": np.array([2])},
        "takes every 2th of axis 1",
    ),
    "tiled map": (
        [node("Tile", "x r")],
        (4,),
        {"r": np.array([1, 2])},
        "need axes of size 1",
    ),
    "slice of nothing": (
        [node("Slice", "x a b c")],
        (4,),
        {"a": np.array([2]), "b": np.array([2]), "c": np.array([1])},
        "leaves nothing of axis 1",
    ),
    "slice of samples": (
        [node("Slice", "x a b")],
        (4,),
        {"a": np.array([0]), "b": np.array([0])},
        "leaves nothing of axis 0",
    ),
    "loop": ([node("Loop", "- - x")], (4,), {}, "operator 'Loop' is not supported"),
    "recurrent": ([node("LSTM", "x w w")], (4, 3), {"w": weights(1, 4, 3)}, "operator 'LSTM'"),
    "NaN": (
        [node("Gemm", "x w")],
        (2,),
        {"w": np.full((2, 2), np.nan, np.float32)},
        "holds 4 NaN or infinite values",
    ),
    "infinite constant": (
        [node("Mul", "x s")],
        (2,),
        {"s": np.float32(np.inf)},
        "a constant is inf",
    ),
    "strings": (
        [node("Gemm", "x w")],
        (2,),
        {"w": np.array([["a"]], object)},
        "type STRING is not supported",
    ),
    "sequence": ([node("ReduceMean", "x", axes=[0])], (4,), {}, "without the samples|need all but"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exact_is_refused(case: str, tmp_path: Path) -> None:
    nodes, shape, constants, match = REFUSED[case]
    with pytest.raises(FormatError, match=match) as caught:
        load(network(nodes, shape, constants), tmp_path)
    assert str(caught.value).startswith("net.onnx: ")
    assert "\n" not in str(caught.value)


def test_operators_of_others_are_refused_by_name(tmp_path: Path) -> None:
    made = node("Swish", "x")
    made.domain = "local"
    with pytest.raises(FormatError, match="operator 'Swish' of domain 'local' is not supported"):
        load(network([made], (3,)), tmp_path)
