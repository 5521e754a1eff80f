"""The graph builder: layers that slide over lines, maps and volumes, channels first and last."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from whetsim import layers as L
from whetsim.formats.graph import Graph

from .graphs import (
    FILE,
    READING,
    by_layer,
    exact_spikes,
    floats,
    kinds,
    layer_of,
    made,
    turned,
    whole,
)

SIZES = {1: (7,), 2: (5, 6), 3: (4, 3, 5)}
OF_AXES = {1: L.Conv2D, 2: L.Conv2D, 3: L.Conv3D}


def maps(n_axes: int, channel_axis: int, n_channels: int = 2) -> np.ndarray:
    """Return three samples with that many axes and channels."""
    x = whole(3, *SIZES[n_axes], n_channels)
    return np.moveaxis(x, -1, channel_axis + 1)


def planes(x: np.ndarray, channel_axis: int) -> tuple[np.ndarray, int]:
    """Return lines as planes of height 1, and where their channels are; others as they are."""
    if x.ndim == 3:
        return np.expand_dims(x, 1), channel_axis + 1
    return x, channel_axis


def lines(x: np.ndarray, n_axes: int) -> np.ndarray:
    return x[:, 0] if n_axes == 1 else x


def two(values: tuple[Any, ...], neutral: Any) -> tuple[Any, ...]:
    """Return parameters of a line as those of a plane."""
    return (neutral, *values) if len(values) == 1 else values


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("padding", ["valid", "same", "explicit"])
@pytest.mark.parametrize("n_axes", [1, 2, 3])
@pytest.mark.parametrize("channels", ["first", "last"])
def test_convolutions(channels: str, n_axes: int, padding: Any, groups: int) -> None:
    axis = 0 if channels == "first" else n_axes
    x = maps(n_axes, axis)
    kernel = (3, 2, 2)[:n_axes]
    weight, bias = floats(*kernel, 2 // groups, 4), floats(4, seed=5)
    strides, dilation = (2, 1, 2)[:n_axes], (1, 2, 1)[:n_axes]
    pads: Any = ((1, 0), (0, 2), (1, 1))[:n_axes] if padding == "explicit" else padding
    graph = Graph(x.shape[1:])
    y = graph.conv(
        "c",
        graph.input,
        weight,
        bias,
        channel_axis=axis - n_axes - 1 if channels == "last" else axis,
        strides=strides,
        padding=pads,
        dilation=dilation,
        groups=groups,
    )
    flat, at = planes(x, axis)
    expected = by_layer(
        OF_AXES[n_axes],
        flat,
        at,
        weight=weight[None] if n_axes == 1 else weight,
        bias=bias,
        strides=two(strides, 1),
        dilation=two(dilation, 1),
        padding=pads if isinstance(pads, str) else two(pads, (0, 0)),
        groups=groups,
    )
    assert np.array_equal(made(graph, y, x), lines(expected, n_axes))


@pytest.mark.parametrize("n_axes", [1, 2, 3])
@pytest.mark.parametrize("axis", [0, -1])
def test_depthwise_convolutions(axis: int, n_axes: int) -> None:
    x = maps(n_axes, axis % (n_axes + 1))
    kernel = (2, 3, 1)[:n_axes]
    weight = floats(*kernel, 2, 3)
    graph = Graph(x.shape[1:])
    y = graph.depthwise("d", graph.input, weight, floats(6), channel_axis=axis, padding="same")
    result = np.moveaxis(made(graph, y, x), axis if axis < 0 else axis + 1, -1)
    last = np.moveaxis(x, axis if axis < 0 else axis + 1, -1)
    for channel in range(2):
        for m in range(3):
            one = Graph(last[..., :1].shape[1:])
            alone = one.conv(
                "c", one.input, weight[..., channel, m, None, None], channel_axis=-1, padding="same"
            )
            expected = made(one, alone, last[..., channel : channel + 1])[..., 0]
            expected = expected + floats(6)[channel * 3 + m]
            assert np.array_equal(result[..., channel * 3 + m], expected)


@pytest.mark.parametrize("padding", ["valid", "same", "explicit"])
@pytest.mark.parametrize("n_axes", [1, 2])
@pytest.mark.parametrize("axis", [0, -1])
def test_transposed_convolutions(axis: int, n_axes: int, padding: Any) -> None:
    x = maps(n_axes, axis % (n_axes + 1))
    kernel, strides = (3, 2)[:n_axes], (2, 3)[:n_axes]
    weight, bias = floats(*kernel, 3, 2), floats(3, seed=7)
    pads: Any = ((1, 0), (0, 1))[:n_axes] if padding == "explicit" else padding
    extra = (1, 0)[:n_axes] if padding == "explicit" else None
    graph = Graph(x.shape[1:])
    y = graph.conv_transpose(
        "t",
        graph.input,
        weight,
        bias,
        channel_axis=axis,
        strides=strides,
        padding=pads,
        output_padding=extra,
    )
    flat, at = planes(x, axis % (n_axes + 1))
    expected = by_layer(
        L.Conv2DTranspose,
        flat,
        at,
        weight=weight[None] if n_axes == 1 else weight,
        bias=bias,
        strides=two(strides, 1),
        padding=pads if isinstance(pads, str) else two(pads, (0, 0)),
        output_padding=two(extra, 0) if extra else (0, 0),
    )
    assert np.array_equal(made(graph, y, x), lines(expected, n_axes))


@pytest.mark.parametrize("kind", ["max", "mean", "counted"])
@pytest.mark.parametrize("padding", ["valid", "same", "explicit"])
@pytest.mark.parametrize("n_axes", [1, 2, 3])
@pytest.mark.parametrize("axis", [0, -1])
def test_pools(axis: int, n_axes: int, padding: Any, kind: str) -> None:
    x = maps(n_axes, axis % (n_axes + 1))
    size = (2, 3, 2)[:n_axes]
    pads: Any = ((1, 0), (0, 2), (1, 1))[:n_axes] if padding == "explicit" else padding
    flat, at = planes(x, axis % (n_axes + 1))
    two_d = n_axes < 3
    for strides in (None, (1, 2, 1)[:n_axes]):
        graph = Graph(x.shape[1:])
        values: dict[str, Any] = {"channel_axis": axis, "strides": strides, "padding": pads}
        same: dict[str, Any] = {"pool_size": two(size, 1)}
        same["strides"] = None if strides is None else two(strides, 1)
        same["padding"] = pads if isinstance(pads, str) else two(pads, (0, 0))
        if kind == "max":
            y = graph.max_pool("p", graph.input, size, **values)
            layer: type[L.Layer] = L.MaxPool2D if two_d else L.MaxPool3D
        else:
            counted = kind == "counted"
            y = graph.average_pool("p", graph.input, size, **values, count_padding=counted)
            layer = L.AveragePool2D if two_d else L.AveragePool3D
            same["count_padding"] = counted
        expected = by_layer(layer, flat, at, **same)
        assert np.array_equal(made(graph, y, x), lines(expected, n_axes))


@pytest.mark.parametrize("maximum", [True, False])
@pytest.mark.parametrize("keep_axes", [True, False])
@pytest.mark.parametrize("n_axes", [1, 2, 3, 4])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_global_pools(axis: int, n_axes: int, keep_axes: bool, maximum: bool) -> None:
    x = np.moveaxis(whole(3, *(2, 4, 2, 2)[:n_axes], 3), -1, axis % (n_axes + 1) + 1)
    graph = Graph(x.shape[1:])
    y = graph.global_pool("g", graph.input, maximum=maximum, channel_axis=axis, keep_axes=keep_axes)
    axes = tuple(a + 1 for a in range(n_axes + 1) if a != axis % (n_axes + 1))
    expected = x.max(axes, keepdims=keep_axes) if maximum else x.mean(axes, keepdims=keep_axes)
    assert np.array_equal(made(graph, y, x), expected)


def test_a_kept_axis_needs_no_permute() -> None:
    graph = Graph((2, 5, 5))
    x = graph.conv("a", graph.input, floats(1, 1, 2, 3), channel_axis=0)
    x = graph.global_pool("g", x, maximum=False, channel_axis=0, keep_axes=True)
    x = graph.conv("b", x, floats(1, 1, 3, 4), channel_axis=0)
    x = graph.flatten("flat", x)
    assert kinds(graph) == [
        "permute", "conv2d", "global_average_pool2d", "reshape", "conv2d", "flatten"
    ]  # fmt: skip
    samples = whole(2, 2, 5, 5) * 25
    mean = np.einsum("nchw,co->no", samples, floats(1, 1, 2, 3)[0, 0]) / 25
    assert np.array_equal(made(graph, x, samples), mean @ floats(1, 1, 3, 4)[0, 0])


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("n_axes", [1, 2])
def test_zeros_around_and_repeated_cells(n_axes: int, axis: int) -> None:
    at = axis % (n_axes + 1)
    x = maps(n_axes, at)
    pads, factors = [(1, 2), (0, 3)][:n_axes], [2, 3][:n_axes]
    graph = Graph(x.shape[1:])
    padded = graph.zero_pad("z", graph.input, pads, channel_axis=axis)
    large = graph.upsample("u", graph.input, factors, channel_axis=axis)
    around = [*pads[:at], (0, 0), *pads[at:]]
    assert np.array_equal(made(graph, padded, x), np.pad(x, [(0, 0), *around]))
    repeated = x
    for i, factor in enumerate([*factors[:at], 1, *factors[at:]]):
        repeated = repeated.repeat(factor, axis=i + 1)
    assert np.array_equal(made(graph, large, x), repeated)


def test_no_zeros_around_is_no_layer() -> None:
    graph = Graph((2, 3, 3))
    assert graph.zero_pad("z", graph.input, [(0, 0), (0, 0)], channel_axis=0) == graph.input


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (2, 3, 2, 4)])
def test_dense_along_the_last_axis(shape: L.Shape) -> None:
    x = whole(3, *shape)
    weight, bias = floats(4, 5), floats(5, seed=3)
    graph = Graph(shape)
    assert np.array_equal(
        made(graph, graph.dense("d", graph.input, weight, bias), x), x @ weight + bias
    )
    if len(shape) > 1:
        # The same of a tensor that is stored in another order.
        other = turned(graph, graph.input, 0)
        assert np.array_equal(made(graph, graph.dense("e", other, weight), x), x @ weight)


def test_a_line_stays_a_plane_from_layer_to_layer() -> None:
    graph = Graph((2, 9))
    x = graph.conv("a", graph.input, floats(3, 2, 2), channel_axis=0)
    x = graph.max_pool("b", x, (2,), channel_axis=0)
    x = graph.conv("c", x, floats(2, 2, 3), channel_axis=0)
    model = graph.to_model("m", graph.step("s", x, written_as=FILE), READING)
    used = [layer.kind for layer in model.layers]
    assert used == ["permute", "reshape", "conv2d", "max_pool2d", "conv2d", "reshape", "step"]
    assert model.shapes["s"] == (2, 3)


# --- zeros that become a convolution's own ------------------------------------------------------


@pytest.mark.parametrize("own", ["valid", ((1, 0), (0, 2))])
@pytest.mark.parametrize("twice", [True, False])
def test_zeros_become_the_padding_of_a_convolution(own: Any, twice: bool) -> None:
    x = whole(2, 2, 4, 5)
    graph = Graph((2, 4, 5))
    padded = graph.zero_pad("z", graph.input, [(1, 0), (2, 1)], channel_axis=0)
    full = np.pad(x, [(0, 0), (0, 0), (1, 0), (2, 1)])
    if twice:
        padded = graph.zero_pad("y", padded, [(0, 1), (0, 0)], channel_axis=0)
        full = np.pad(full, [(0, 0), (0, 0), (0, 1), (0, 0)])
    y = graph.conv("c", padded, floats(3, 3, 2, 2), channel_axis=0, padding=own)
    expected = by_layer(L.Conv2D, full, 0, weight=floats(3, 3, 2, 2), padding=own)
    assert np.array_equal(made(graph, y, x), expected)
    model = graph.to_model("m", graph.step("s", y, written_as=FILE), READING)
    assert "zero_pad2d" not in [layer.kind for layer in model.layers]
    zeros = np.array([(1, int(twice)), (2, 1)])
    there = np.zeros((2, 2), int) if own == "valid" else np.array(own)
    assert model["c"].parameters["padding"] == tuple(map(tuple, zeros + there))


def test_zeros_around_a_line_become_padding() -> None:
    x = whole(2, 7, 2)
    graph = Graph((7, 2))
    padded = graph.zero_pad("z", graph.input, [(2, 1)], channel_axis=-1)
    y = graph.conv("c", padded, floats(3, 2, 2), channel_axis=-1)
    full = np.pad(x, [(0, 0), (2, 1), (0, 0)])
    expected = by_layer(L.Conv2D, full[:, None], 2, weight=floats(3, 2, 2)[None])[:, 0]
    assert np.array_equal(made(graph, y, x), expected)
    model = graph.to_model("m", graph.step("s", y, written_as=FILE), READING)
    assert "zero_pad2d" not in [layer.kind for layer in model.layers]


@pytest.mark.parametrize("reader", ["same", "max", "mean", "transposed"])
def test_zeros_that_no_convolution_takes_stay_a_layer(reader: str) -> None:
    x = whole(2, 2, 4, 5) - 5
    graph = Graph((2, 4, 5))
    padded = graph.zero_pad("z", graph.input, [(1, 0), (2, 1)], channel_axis=0)
    full = np.pad(x, [(0, 0), (0, 0), (1, 0), (2, 1)])
    if reader == "same":
        y = graph.conv("c", padded, floats(3, 2, 2, 2), channel_axis=0, padding="same")
        expected = by_layer(L.Conv2D, full, 0, weight=floats(3, 2, 2, 2), padding="same")
    elif reader == "max":
        y = graph.max_pool("p", padded, (2, 2), channel_axis=0)
        expected = by_layer(L.MaxPool2D, full, 0)
        assert (expected == 0).any()
    elif reader == "mean":
        y = graph.average_pool("p", padded, (2, 2), channel_axis=0)
        expected = by_layer(L.AveragePool2D, full, 0)
    else:
        y = graph.conv_transpose("t", padded, floats(2, 2, 2, 2), channel_axis=0)
        expected = by_layer(L.Conv2DTranspose, full, 0, weight=floats(2, 2, 2, 2))
    assert np.array_equal(made(graph, y, x), expected)
    assert layer_of(graph, y).inputs == ("z",)


def test_zeros_that_others_read_too_stay_there() -> None:
    graph = Graph((2, 4, 4))
    x = graph.step("s", graph.input, written_as=FILE)
    padded = graph.zero_pad("z", x, [(1, 1), (1, 1)], channel_axis=0)
    pooled = graph.max_pool("p", padded, (3, 3), (1, 1), channel_axis=0)
    y = graph.conv("c", padded, floats(3, 3, 2, 2), channel_axis=0)
    total = graph.step("t", graph.add("sum", [y, pooled]), written_as=FILE)
    model = graph.to_model("m", total, READING)
    assert model["c"].inputs != ("z",) and model["p"].inputs == ("z",)
    samples = whole(4, 2, 4, 4)
    assert np.array_equal(exact_spikes(model, total, samples), made(graph, total, samples))
