"""ONNX operators that slide over maps, against another ONNX runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.onnx_graphs import (
    Array,
    Draw,
    computed,
    load,
    network,
    node,
    runtime,
    same_values,
)
from whetsim import layers as L
from whetsim.errors import FormatError

DRAW = Draw(7)
weights, samples = DRAW.weights, DRAW.samples


def conv(**attributes: Any) -> list[Any]:
    return [node("Conv", "x k b", **attributes)]


CONVOLUTIONS: dict[str, tuple[Sequence[int], list[Any], dict[str, Array]]] = {
    "valid": ((2, 6, 7), conv(), {"k": weights(3, 2, 3, 3), "b": weights(3)}),
    "explicit": ((2, 6, 7), conv(pads=[1, 1, 1, 1]), {"k": weights(3, 2, 3, 3), "b": weights(3)}),
    "asymmetric": (
        (2, 6, 7),
        conv(pads=[0, 2, 1, 1], strides=[2, 1]),
        {"k": weights(3, 2, 3, 4), "b": weights(3)},
    ),
    "groups": ((4, 6, 6), conv(group=2), {"k": weights(6, 2, 3, 3), "b": weights(6)}),
    "depthwise": ((4, 6, 6), conv(group=4), {"k": weights(8, 1, 3, 3), "b": weights(8)}),
    "dilated": ((2, 9, 9), conv(dilations=[2, 3]), {"k": weights(3, 2, 3, 3), "b": weights(3)}),
    "line": ((2, 9), conv(pads=[1, 2], strides=[2]), {"k": weights(3, 2, 4), "b": weights(3)}),
    "volume": (
        (2, 4, 5, 6),
        conv(pads=[1, 0, 1, 0, 1, 1], strides=[1, 2, 1]),
        {"k": weights(3, 2, 2, 3, 2), "b": weights(3)},
    ),
} | {
    f"{auto} {size} kernel {kernel} stride {stride} dilation {dilation}": (
        (2, size, size + 1),
        conv(auto_pad=auto, strides=[stride, stride], dilations=[dilation, dilation]),
        {"k": weights(3, 2, kernel, kernel), "b": weights(3)},
    )
    for auto in ("SAME_UPPER", "SAME_LOWER", "VALID")
    for size, kernel, stride, dilation in ((7, 2, 1, 1), (8, 3, 2, 1), (7, 4, 3, 1))
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(case: str, tmp_path: Path) -> None:
    shape, nodes, constants = CONVOLUTIONS[case]
    loaded = same_values(network(nodes, shape, constants), tmp_path, samples(*shape))
    assert sum(isinstance(layer, L.Convolution) for layer in loaded.layers) == 1


@pytest.mark.parametrize(
    ("auto", "before", "after"), [("SAME_UPPER", 4, 5), ("SAME_LOWER", 5, 4), ("VALID", 0, 0)]
)
def test_padding_of_a_dilated_convolution(
    auto: str, before: int, after: int, tmp_path: Path
) -> None:
    given = {"dilations": [3, 1], "strides": [1, 1]}
    k = {"k": weights(3, 2, 4, 1), "b": weights(3)}
    one = load(network(conv(auto_pad=auto, **given), (2, 10, 9), k), tmp_path)
    other = load(network(conv(pads=[before, 0, after, 0], **given), (2, 10, 9), k), tmp_path)
    x = samples(2, 10, 9)
    assert np.array_equal(computed(one, x), computed(other, x))


TRANSPOSED: dict[str, dict[str, Any]] = {
    "plain": {},
    "strides": {"strides": [2, 3]},
    "pads": {"strides": [2, 2], "pads": [1, 0, 0, 1]},
    "output padding": {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]},
    "dilated": {"dilations": [2, 1]},
    "output shape": {"strides": [2, 2], "output_shape": [8, 7]},
    "output shape, upper": {
        "strides": [2, 2],
        "output_shape": [8, 9],
        "auto_pad": "SAME_UPPER",
    },
    "same upper": {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    "same lower": {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
    "valid": {"strides": [2, 2], "auto_pad": "VALID"},
}


@pytest.mark.parametrize("case", TRANSPOSED)
@pytest.mark.parametrize("kernel", [3, 4])
def test_transposed_convolutions(case: str, kernel: int, tmp_path: Path) -> None:
    nodes = [node("ConvTranspose", "x k b", **TRANSPOSED[case])]
    constants = {"k": weights(2, 3, kernel, kernel), "b": weights(3)}
    same_values(network(nodes, (2, 4, 4), constants), tmp_path, samples(2, 4, 4))


def test_a_transposed_convolution_of_a_line(tmp_path: Path) -> None:
    nodes = [node("ConvTranspose", "x k", strides=[2], pads=[1, 0])]
    same_values(network(nodes, (2, 5), {"k": weights(2, 3, 3)}), tmp_path, samples(2, 5))


POOLS: dict[str, tuple[Sequence[int], list[Any], dict[str, Array]]] = {
    "max": ((2, 6, 6), [node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2])], {}),
    "max, stride 1": ((2, 6, 6), [node("MaxPool", "x", kernel_shape=[3, 2])], {}),
    "max, pads": (
        (2, 6, 6),
        [node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
        {},
    ),
    "max, line": ((2, 7), [node("MaxPool", "x", kernel_shape=[2], strides=[2])], {}),
    "max, same": (
        (2, 7, 7),
        [node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER")],
        {},
    ),
    "average": ((2, 6, 6), [node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2])], {}),
    "average, pads": (
        (2, 6, 6),
        [node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
        {},
    ),
    "average, counted": (
        (2, 6, 6),
        [
            node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        ],
        {},
    ),
    "average, same lower": (
        (2, 7, 6),
        [node("AveragePool", "x", kernel_shape=[2, 3], auto_pad="SAME_LOWER")],
        {},
    ),
    "global average": ((2, 6, 5), [node("GlobalAveragePool", "x")], {}),
    "global max": ((2, 6, 5), [node("GlobalMaxPool", "x")], {}),
    "global of a line": ((2, 6), [node("GlobalMaxPool", "x")], {}),
    "global and dense": (
        (2, 6, 5),
        [node("GlobalAveragePool", "x", "g"), node("Flatten", "g", "f"), node("Gemm", "f w")],
        {"w": weights(2, 3)},
    ),
    "mean": ((2, 6, 5), [node("ReduceMean", "x", axes=[2, 3], keepdims=0)], {}),
    "mean, channels last": ((6, 5, 2), [node("ReduceMean", "x", axes=[1, -2], keepdims=0)], {}),
    "mean of groups": (
        (12,),
        [node("Reshape", "x s", "r"), node("ReduceMean", "r", axes=[-1], keepdims=0)],
        {"s": np.array([0, 4, 3])},
    ),
    "maximum": ((2, 6, 5), [node("ReduceMax", "x", axes=[2, 3])], {}),
    "sum": ((2, 6, 5), [node("ReduceSum", "x a")], {"a": np.array([2, 3])}),
}


@pytest.mark.parametrize("case", POOLS)
def test_pools(case: str, tmp_path: Path) -> None:
    shape, nodes, constants = POOLS[case]
    same_values(network(nodes, shape, constants), tmp_path, samples(*shape))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("size", range(4, 11))
@pytest.mark.parametrize(("kernel", "stride", "pad"), [(2, 2, 0), (3, 2, 1), (2, 3, 1), (3, 3, 0)])
def test_pools_that_round_up(
    op: str, size: int, kernel: int, stride: int, pad: int, tmp_path: Path
) -> None:
    given = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    nodes = [node(op, "x", ceil_mode=1, **given)]
    torch = pytest.importorskip("torch", reason="runtimes differ here; PyTorch defines it")
    x = samples(2, size, size)
    loaded = load(network(nodes, (2, size, size)), tmp_path)
    pool = torch.nn.functional.max_pool2d if op == "MaxPool" else torch.nn.functional.avg_pool2d
    more = {} if op == "MaxPool" else {"count_include_pad": False}
    wanted = pool(torch.tensor(x / 4), kernel, stride, pad, ceil_mode=True, **more).numpy()
    got = np.moveaxis(computed(loaded, x), -1, 1)
    np.testing.assert_allclose(got, wanted, atol=1e-6)


MODES = [
    {"coordinate_transformation_mode": where, "nearest_mode": nearest}
    for where in ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners")
    for nearest in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
]


@pytest.mark.parametrize("modes", MODES, ids=lambda modes: " ".join(modes.values()))
@pytest.mark.parametrize("factors", [(2, 2), (3, 1), (4, 5)])
def test_resizing_that_repeats(
    modes: dict[str, str], factors: tuple[int, int], tmp_path: Path
) -> None:
    scales = np.array([1, 1, *factors], np.float32)
    model = network([node("Resize", "x - s", **modes)], (2, 3, 4), {"s": scales})
    x = samples(2, 3, 4)
    wanted = runtime(model, x.astype(np.float32) / 4)
    plain = np.repeat(np.repeat(x / 4, factors[0], 2), factors[1], 3)
    if np.array_equal(wanted, plain):
        same_values(model, tmp_path, x)
    else:
        with pytest.raises(FormatError, match="do not repeat every cell"):
            load(model, tmp_path)


def test_resizing_to_a_size(tmp_path: Path) -> None:
    modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    nodes = [node("Resize", "x - - s", **modes)]
    model = network(nodes, (2, 3, 4), {"s": np.array([1, 2, 6, 12])}, batch=1)
    same_values(model, tmp_path, samples(2, 3, 4, n=1))
