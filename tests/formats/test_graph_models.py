"""From a graph to a model: readouts, what is left out, names, remarks, and what is refused."""

from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from whetsim import layers as L
from whetsim.errors import FormatError, MappingError
from whetsim.formats import tail
from whetsim.formats.graph import Graph, Reading, Value
from whetsim.mapping import map_to_spikes
from whetsim.model import MAX_LAYERS, InputSpec, Model
from whetsim.runner import run

from .graphs import FILE, READING, exact_spikes, floats, kinds, made, turned, whole

Build = Callable[[Graph], Value]


def spiking_map(graph: Graph, name: str = "s") -> Value:
    """Return spikes of a map ``(channels, height, width)``, stored with channels last."""
    x = graph.conv(f"{name}_in", graph.input, floats(2, 2, 2, 3), floats(3), channel_axis=0)
    return graph.step(name, x, written_as=FILE)


# --- decoding -----------------------------------------------------------------------------------


@pytest.mark.parametrize("moves", ["none", "flatten", "transpose", "reshape"])
@pytest.mark.parametrize("kind", ["key", "decoder"])
def test_decoding_in_the_order_of_the_file(kind: str, moves: str) -> None:
    graph = Graph((2, 4, 5))
    y = spiking_map(graph)
    if moves == "flatten":
        y = graph.flatten("f", y)
    elif moves == "transpose":
        y = graph.flatten("f", graph.transpose(y, (1, 0, 2)))
    elif moves == "reshape":
        y = graph.transpose(graph.reshape("r", y, (6, 6)), (1, 0))
    if kind == "key":
        key = whole(4, 36, low=0, high=1).astype(np.uint8)
        matrix, bias = 2.0 * key.T - 1, np.zeros(4)
        result = graph.decode(y, key=key)
    else:
        matrix, bias = floats(36, 4).astype(np.float64), floats(4, seed=9)
        result = graph.decode(y, decoder=matrix, bias=bias)
    assert result == y
    model = graph.to_model("m", y, READING)
    assert model.output == "s"
    assert "remarks" not in model.metadata["source"]
    samples = whole(20, 2, 4, 5)
    spikes = made(graph, y, samples).reshape(20, -1)
    assert 0 < spikes.mean() < 1
    expected = (2 * spikes - 1) @ matrix + bias
    recording = run(map_to_spikes(model), samples)
    assert np.array_equal(recording.scores, expected)
    assert len(set(recording.predictions.tolist())) > 1


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"key": np.eye(3, 5)}, r"readout: it has shape \(3, 5\) .*the output has 4 units"),
        ({"decoder": np.ones((5, 3))}, r"readout: it has shape \(3, 5\)"),
        ({"key": np.ones(4)}, "readout: it has shape"),
        ({}, "readout: it has shape"),
        ({"key": np.full((2, 4), 2)}, "readout: key must hold 0 and 1 alone"),
        ({"key": np.eye(4), "bias": np.ones(4)}, "readout: a bias needs a decoder"),
        ({"decoder": np.full((4, 2), np.nan)}, "readout: decoder holds NaN"),
    ],
)
def test_codes_that_do_not_fit(given: dict[str, Any], match: str) -> None:
    graph = Graph((4,))
    with pytest.raises(FormatError, match=match):
        graph.decode(graph.step("s", graph.input, written_as=FILE), **given)


# --- affine layers behind the last step ---------------------------------------------------------


def dense_tail(graph: Graph) -> Value:
    x = graph.step("s", graph.flatten("f", graph.input), written_as=FILE)
    return graph.dense("d", x, floats(40, 5), floats(5, seed=4))


def dense_of_permuted_map(graph: Graph) -> Value:
    x = graph.flatten("f", spiking_map(graph))
    return graph.dense("d", x, floats(36, 5), floats(5, seed=4))


def mean_and_dense(graph: Graph) -> Value:
    x = graph.average_pool("p", spiking_map(graph), (2, 2), (1, 2), channel_axis=0)
    return graph.dense("d", graph.flatten("f", x), floats(12, 5))


def global_mean_and_convolution(graph: Graph) -> Value:
    x = graph.zero_pad("z", spiking_map(graph), [(0, 1), (0, 0)], channel_axis=0)
    x = graph.global_pool("p", x, maximum=False, channel_axis=0, keep_axes=True)
    return graph.conv("c", x, floats(1, 1, 3, 5), floats(5), channel_axis=0)


def batch_norms(graph: Graph) -> Value:
    x = graph.batch_norm(
        "n", spiking_map(graph), floats(3), np.ones(3), floats(3, seed=2), epsilon=0.0, axis=0
    )
    x = graph.dense("d", graph.flatten("f", x), floats(36, 5))
    variance = np.array([1, 4, 0.25, 1, 16])
    return graph.batch_norm(
        "m", x, floats(5), variance, None, floats(5, seed=7), epsilon=0.0, axis=0
    )


def branches_of_one_step(graph: Graph) -> Value:
    s = spiking_map(graph)
    a = graph.dense("a", graph.flatten("f", s), floats(36, 5))
    up = graph.upsample("u", s, (2, 1), channel_axis=0)
    both = graph.concat("cat", [up, up], 0)
    c = graph.conv("c", both, floats(6, 4, 6, 5), channel_axis=0, strides=(1, 1))
    return graph.add("sum", [a, graph.flatten("g", c)])


def pooled_spikes(graph: Graph) -> Value:
    x = graph.max_pool("p", spiking_map(graph), (2, 2), channel_axis=0)
    return graph.scale_and_shift("half", graph.dense("d", graph.flatten("f", x), floats(6, 5)), 0.5)


def volume(graph: Graph) -> Value:
    x = graph.reshape("r", spiking_map(graph), (3, 3, 2, 2))
    x = graph.conv("v", x, floats(2, 1, 2, 3, 4), channel_axis=0)
    return graph.dense("d", graph.flatten("f", x), floats(16, 5))


TAILS: dict[str, Build] = {
    build.__name__: build
    for build in (
        dense_tail,
        dense_of_permuted_map,
        mean_and_dense,
        global_mean_and_convolution,
        batch_norms,
        branches_of_one_step,
        pooled_spikes,
        volume,
    )
}


@pytest.mark.parametrize("rows", [1, 7, 2**22])
@pytest.mark.parametrize("name", TAILS)
def test_an_affine_tail_becomes_a_readout(
    name: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "BLOCK_VALUES", rows * 200)
    graph = Graph((2, 4, 5))
    y = TAILS[name](graph)
    samples = whole(50, 2, 4, 5)
    scores = made(graph, y, samples).reshape(50, -1).astype(np.float64)
    model = graph.to_model("m", y, READING)
    assert model.output == ("p" if name == "pooled_spikes" else "s")
    assert model.readout is not None and model.readout.n_classes == 5
    assert "remarks" not in model.metadata["source"]
    for n in (50, 1, 0):
        recording = run(map_to_spikes(model), samples[:n], record="rasters")
        assert n < 50 or 0.02 < recording.raster(model.output).mean() < 0.98
        assert np.array_equal(recording.scores, scores[:n])
        assert np.array_equal(recording.predictions, scores[:n].argmax(axis=1))


def test_a_tail_of_any_weights_scores_as_in_float32() -> None:
    rng = np.random.default_rng(0)

    def values(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    graph = Graph((2, 6, 6))
    x = graph.conv("c", graph.input, values(3, 3, 2, 8), channel_axis=0)
    x = graph.step("s", x, written_as=FILE)
    x = graph.average_pool("p", x, (3, 3), (1, 1), "same", channel_axis=0)
    x = graph.batch_norm(
        "n", x, values(8), values(8) ** 2, values(8), values(8), epsilon=1e-3, axis=0
    )
    y = graph.dense("d", graph.flatten("f", x), values(128, 10), values(10))
    samples = whole(200, 2, 6, 6)
    scores = made(graph, y, samples)
    model = graph.to_model("m", y, READING)
    recording = run(map_to_spikes(model), samples, record="rasters")
    spikes = made(graph, Value("s", (4, 4, 8), (0, 1, 2)), samples)
    assert np.array_equal(recording.raster("s"), spikes.reshape(200, -1))
    assert np.allclose(recording.scores, scores, rtol=0, atol=1e-6 * np.abs(scores).max())
    assert np.array_equal(recording.predictions, scores.argmax(axis=1))


def relu_in_the_tail(graph: Graph) -> Value:
    return graph.activation("relu", dense_tail(graph), "relu")


def reads_the_input(graph: Graph) -> Value:
    a = graph.dense("e", graph.flatten("g", graph.input), floats(40, 5))
    return graph.add("sum", [dense_tail(graph), a])


def two_layers_of_spikes(graph: Graph) -> Value:
    first = spiking_map(graph, "one")
    second = spiking_map(graph, "two")
    a = graph.dense("a", graph.flatten("f", first), floats(36, 5))
    b = graph.dense("b", graph.flatten("g", second), floats(36, 5))
    return graph.add("sum", [a, b])


def map_of_numbers(graph: Graph) -> Value:
    return graph.conv("c", spiking_map(graph), floats(1, 1, 3, 5), channel_axis=0)


NO_READOUTS: dict[str, tuple[Build, str | None, str]] = {
    "relu": (relu_in_the_tail, None, "layer 'relu': relu is not a step"),
    "input": (reads_the_input, None, "layer 'sum': the output is a add"),
    "two": (
        two_layers_of_spikes,
        "'sum' reads 2 layers of spikes: 'one', 'two'; class scores are read from one",
        "layer 'sum': the output is a add",
    ),
    "map": (
        map_of_numbers,
        "'c' makes numbers of shape (3, 4, 5), which are no class scores",
        "layer 'c': the output is a conv2d",
    ),
}


@pytest.mark.parametrize("what", NO_READOUTS)
def test_tails_that_make_no_readout(what: str) -> None:
    build, remark, match = NO_READOUTS[what]
    graph = Graph((2, 4, 5))
    y = build(graph)
    model = graph.to_model("m", y, READING)
    assert model.readout is None and model.output == y.name
    remarks = model.metadata["source"].get("remarks", [])
    assert (remark in remarks) if remark else not any("scores" in r for r in remarks)
    with pytest.raises(MappingError, match=match):
        map_to_spikes(model)


def test_a_tail_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "MAX_VALUES", 36 * (36 + 36 + 5) - 1)
    graph = Graph((2, 4, 5))
    y = dense_of_permuted_map(graph)
    (remark,) = graph.to_model("m", y, READING).metadata["source"]["remarks"]
    assert remark == "what makes 'd' of 's' is too large for a readout"


@pytest.mark.filterwarnings("error")
def test_a_tail_whose_sums_overflow_is_refused() -> None:
    graph = Graph((3,))
    x = graph.step("s", graph.input, written_as=FILE)
    for name in "ab":
        x = graph.dense(name, x, np.full((3, 3), 1e200))
    with pytest.raises(FormatError, match=r"readout: .* NaN or infinite"):
        graph.to_model("m", x, READING)


def test_numbers_that_are_spikes_need_no_readout() -> None:
    graph = Graph((2, 4, 5))
    x = spiking_map(graph)
    assert graph.holds_spikes("s")
    pooled = graph.max_pool("p", x, (2, 2), channel_axis=0)
    for y in (
        graph.flatten("f", x),
        graph.zero_pad("z", x, [(1, 1), (0, 0)], channel_axis=0),
        graph.upsample("u", x, (2, 2), channel_axis=0),
        graph.concat("cat", [pooled, pooled], 1),
        graph.global_pool("any", x, maximum=True, channel_axis=0),
    ):
        assert graph.holds_spikes(y.name), y.name
    for y in (
        graph.input,
        graph.add("sum", [x, x]),
        graph.average_pool("a", x, (2, 2), channel_axis=0),
        graph.concat("both", [x, turned(graph, graph.transpose(x, (0, 1, 2)))], 0),
    ):
        assert not graph.holds_spikes(y.name), y.name


# --- models -------------------------------------------------------------------------------------


def test_layers_that_lead_nowhere_are_left_out() -> None:
    graph = Graph((4,))
    x = graph.dense("a", graph.input, floats(4, 3))
    s = graph.step("s", x, written_as="x >= 0.5")
    graph.step("unused", graph.dense("b", s, floats(3, 9)), written_as=FILE)
    model = graph.to_model("m", s, READING, metadata={"format": "test", "version": 3})
    assert [layer.name for layer in model.layers] == ["a", "s"]
    assert model.metadata == {
        "source": {"format": "test", "version": 3, "steps": {"s": "x >= 0.5"}}
    }
    assert len(graph.layers) == 4


def test_a_graph_may_become_a_model_twice() -> None:
    graph = Graph((2, 4, 5))
    graph.remarks.append("a remark")
    y = map_of_numbers(graph)
    first, second = (graph.to_model("m", y, READING) for _ in range(2))
    assert first.metadata == second.metadata
    assert first.metadata["source"]["remarks"][0] == "a remark"
    assert graph.remarks == ["a remark"]


@pytest.mark.parametrize("stored", ["channels first", "channels last", "one channel"])
def test_a_remark_says_in_which_order_the_output_is(stored: str) -> None:
    n_out = 1 if stored == "one channel" else 3
    graph = Graph((2, 4, 5))
    x = graph.conv("c", graph.input, floats(2, 2, 2, n_out), channel_axis=0)
    s = graph.step("s", x, written_as=FILE)
    y = graph.transpose(s, (1, 2, 0)) if stored == "channels last" else s
    for output in (y, graph.flatten("f", y)):
        model = graph.to_model("m", output, READING)
        assert model.output == "s"
        remarks = model.metadata["source"].get("remarks", [])
        if stored == "channels first":
            (remark,) = remarks
            assert remark == (
                "the output's units are in the order of 's', of shape (3, 4, 3); the file's output "
                f"has shape {output.shape}"
            )
        else:
            assert not remarks
    samples = whole(5, 2, 4, 5)
    model = graph.to_model("m", s, READING)
    assert np.array_equal(exact_spikes(model, s, samples), made(graph, s, samples))


def test_a_network_without_layers_is_refused() -> None:
    graph = Graph((2, 3))
    for output in (graph.input, graph.flatten("f", graph.input)):
        with pytest.raises(FormatError, match="the network has no layers"):
            graph.to_model("m", output, READING)


def test_the_input_may_be_told_by_the_file() -> None:
    graph = Graph((3,))
    s = graph.step("s", graph.input, written_as=FILE)
    spec = InputSpec((3,), -1, 2, 0.5)
    assert graph.to_model("m", s, Reading(), input_spec=spec).input == spec
    with pytest.raises(FormatError, match=r"input: .* Give input_scale: 1/255"):
        graph.to_model("m", s, Reading())


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("dense", "dense"),
        ("a/b:0", "a/b:0"),
        ("", "layer"),
        ("input", "input_2"),
        ("two\nlines\x1b[31m", "two_lines_[31m"),
        ("\ud800", "_"),
        ("étape", "étape"),
        ("x" * 500, "x" * 180),
    ],
)
def test_names_are_those_of_the_file_if_a_layer_may_have_them(given: str, name: str) -> None:
    graph = Graph((3,))
    y = graph.step(given, graph.input, written_as=FILE)
    assert y.name == name
    assert graph.to_model(given, y, READING).output == name


def test_names_are_unique() -> None:
    graph = Graph((3,))
    x, names = graph.input, []
    for given in ["a", "a_2", "a", "a", "a_2", "input", "input", "x" * 300, "x" * 250]:
        x = graph.step(given, x, written_as=FILE)
        names.append(x.name)
    assert names == [
        "a", "a_2", "a_3", "a_4", "a_2_2", "input_2", "input_3", "x" * 180, "x" * 180 + "_2"
    ]  # fmt: skip
    assert [layer.name for layer in graph.to_model("m", x, READING).layers] == names


def test_thousands_of_names_in_each_other_s_way() -> None:
    graph = Graph((1,))
    x = graph.input
    for i in range(2, 4000):
        x = graph.step(f"a_{i}", x, written_as=FILE)
    for _ in range(3):
        x = graph.step("a", x, written_as=FILE)
    assert x.name == "a_4001"


# --- refusals -----------------------------------------------------------------------------------


def conv(**values: Any) -> Build:
    given = {"weight": floats(2, 2, 2, 3), "channel_axis": 0, **values}
    return lambda graph: graph.conv("x", graph.input, **given)


REFUSED: dict[str, tuple[L.Shape, Build, str]] = {
    "rank": ((2, 4), conv(), r"layer 'x': it slides over 2 axes .* shape \(2, 4\); need 1 to 3"),
    "four axes": ((2, 1, 1, 1, 1), conv(weight=floats(1, 1, 1, 1, 2, 2)), "over 4 axes"),
    "no axis": ((2,), conv(weight=floats(2, 2)), "slides over 0 axes"),
    "channels": ((3, 4, 4), conv(), "layer 'x': weight has shape .* has 3 channels"),
    "channel axis": ((2, 4, 4), conv(channel_axis=3), "layer 'x': axis 3 is none of 3"),
    "strides": ((2, 4, 4), conv(strides=(1, 1, 1)), "layer 'x': strides must have 2 entries"),
    "half a cell": ((2, 4, 4), conv(strides=(1.5, 1)), "strides must be a whole number"),
    "half a cell of padding": ((2, 4, 4), conv(padding=((0.5, 0), (0, 0))), "padding must be a"),
    "padding": ((2, 4, 4), conv(padding="reflect"), "layer 'x': padding is unknown"),
    "negative padding": ((2, 4, 4), conv(padding=((-1, 0), (0, 0))), "padding is out of range"),
    "padding of a line": (
        (2, 4),
        conv(weight=floats(2, 2, 3), padding=((1, 0), (0, 0))),
        "layer 'x': padding must be 'valid'",
    ),
    "window": ((2, 1, 4), conv(), "layer 'x': the window spans 2 cells"),
    "NaN": ((2, 4, 4), conv(bias=np.full(3, np.nan)), "layer 'x': bias holds 3 NaN"),
    "whole numbers": ((2, 4, 4), conv(weight=whole(2, 2, 2, 3)), "weight must be float16"),
    "flat weight": (
        (4, 4, 2),
        lambda g: g.depthwise("x", g.input, floats(4, 4), channel_axis=0),
        r"layer 'x': weight has shape \(4, 4\)",
    ),
    "volume upsampled": (
        (2, 2, 2, 2),
        lambda g: g.upsample("x", g.input, (2, 2, 2), channel_axis=0),
        "layer 'x': upsample2d works over 1 or 2 axes .* Convolutions and pools alone",
    ),
    "zeros around a volume": (
        (2, 2, 2, 2),
        lambda g: g.zero_pad("x", g.input, [(1, 1)] * 3, channel_axis=0),
        "layer 'x': zero_pad2d works over 1 or 2 axes",
    ),
    "volume transposed": (
        (2, 2, 2, 2),
        lambda g: g.conv_transpose("x", g.input, floats(1, 1, 1, 2, 2), channel_axis=0),
        "layer 'x': conv2d_transpose works over 1 or 2 axes",
    ),
    "global pool of a line without cells": (
        (4,),
        lambda g: g.global_pool("x", g.input, maximum=True, channel_axis=0),
        "layer 'x': its input has shape .4,.; need a map",
    ),
    "negative zeros": (
        (2, 4, 4),
        lambda g: g.zero_pad("x", g.input, [(-1, 0), (0, 0)], channel_axis=0),
        "layer 'x': padding is out of range",
    ),
    "constant too wide": (
        (2, 3),
        lambda g: g.scale_and_shift("x", g.input, floats(4, 2, 3)),
        r"layer 'x': a constant of shape \(4, 2, 3\) does not fit an input of shape \(2, 3\)",
    ),
    "constant too long": (
        (2, 3),
        lambda g: g.scale_and_shift("x", g.input, None, floats(2)),
        "layer 'x': a constant of shape .2,. does not fit",
    ),
    "constant that would enlarge": (
        (1, 3),
        lambda g: g.scale_and_shift("x", g.input, None, floats(2, 3)),
        "layer 'x': a constant of shape .2, 3. does not fit",
    ),
    "constant that is too large": (
        (3,),
        lambda g: g.scale_and_shift("x", g.input, 1e300),
        "layer 'x': gamma holds 3 NaN or infinite",
    ),
    "norm": (
        (2, 3),
        lambda g: g.batch_norm("x", g.input, np.ones(2), np.ones(2), epsilon=0.0, axis=1),
        "layer 'x': mean has shape .2,.; expected .3,.",
    ),
    "axis of a norm": (
        (2, 3),
        lambda g: g.batch_norm("x", g.input, np.ones(2), np.ones(2), epsilon=0.0, axis=2),
        "layer 'x': axis 2 is none of 2",
    ),
    "reshape": (
        (2, 3),
        lambda g: g.reshape("x", g.input, (4, 2)),
        r"layer 'x': shape \(4, 2\) holds 8 values; 'input' has 6",
    ),
    "flat reshape": (
        (2, 3),
        lambda g: g.reshape("x", g.input, (5,)),
        r"layer 'x': shape \(5,\) holds 5 values; 'input' has 6",
    ),
    "reshape to nothing": (
        (2, 3),
        lambda g: g.reshape("x", g.input, ()),
        "layer 'x': shape must have an axis",
    ),
    "unknown size": (
        (2, 3),
        lambda g: g.reshape("x", g.input, (-1, 2)),
        "layer 'x': shape is out of range",
    ),
    "transpose": (
        (2, 3),
        lambda g: g.transpose(g.input, (0, 2)),
        r"axes \(0, 2\) do not order the 2 axes of 'input'",
    ),
    "sum": (
        (2, 3),
        lambda g: g.add("x", [g.input, g.transpose(g.input, (1, 0))]),
        r"layer 'x': inputs have shapes",
    ),
    "ranks": (
        (2, 3),
        lambda g: g.concat("x", [g.input, g.flatten("f", g.input)], 0),
        r"layer 'x': its inputs have shapes \(2, 3\), \(6,\)",
    ),
    "nothing to add": ((2,), lambda g: g.add("x", []), "layer 'x': its inputs have shapes none"),
    "axis of a concat": (
        (2, 3),
        lambda g: g.concat("x", [g.input, g.input], -3),
        "layer 'x': axis -3 is none of 2",
    ),
    "threshold": (
        (2,),
        lambda g: g.step("x", g.input, float("inf"), written_as=FILE),
        "layer 'x': threshold must be a finite number",
    ),
    "units": (
        (2**12, 2**12),
        lambda g: g.dense("x", g.input, np.ones((2**12, 2**13), np.float16)),
        r"layer 'x': its output has shape \(1, 4096, 8192\) \(need 1 to 16777216 units\)",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.filterwarnings("error")
def test_refusals_name_the_layer_and_the_reason(what: str) -> None:
    shape, build, match = REFUSED[what]
    graph = Graph(shape)
    with pytest.raises(FormatError, match=match) as caught:
        build(graph)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("shape", [(), (0, 3), (2, -1), (2, None), (2**13, 2**13), (1,) * 17])
def test_inputs_that_no_sample_has(shape: Any) -> None:
    with pytest.raises(FormatError, match="input: "):
        Graph(shape)


def test_too_many_layers() -> None:
    graph = Graph((1,))
    x = graph.input
    for _ in range(MAX_LAYERS):
        x = graph.step("s", x, written_as=FILE)
    with pytest.raises(FormatError, match=f"the network has more than {MAX_LAYERS} layers"):
        graph.step("s", x, written_as=FILE)


def grow(graph: Graph, x: Value, how: str) -> Value:
    if how == "steps":
        return graph.step("s", x, written_as=FILE)
    if how == "scalars":
        return graph.scale_and_shift("x", x, 2.0)
    rows, columns = np.ones((4096, 1), np.float32), np.ones((1, 4096), np.float32)
    return graph.scale_and_shift("x", x, rows, columns)


@pytest.mark.parametrize("how", ["steps", "scalars", "each unit"])
def test_a_few_bytes_never_take_gigabytes(how: str) -> None:
    graph = Graph((2**24,) if how == "scalars" else (2**12, 2**12))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=r"more than 1(34217728 units|6777216 values)"):
            x = graph.input
            for _ in range(100):
                x = grow(graph, x, how)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 600_000_000


# --- what the caller says -----------------------------------------------------------------------


def test_the_range_follows_from_the_scale() -> None:
    assert Reading(1 / 255).input_spec((2,)) == InputSpec((2,), 0, 255, 1 / 255)
    assert Reading(1.0).input_spec((2,)) == InputSpec((2,), 0, 1, 1.0)
    assert Reading(2.0).input_spec((2,)) == InputSpec((2,), 0, 1, 2.0)
    assert Reading(0.25, (-3, 9)).input_spec((2,)) == InputSpec((2,), -3, 9, 0.25)
    assert Reading(1, [0, 7]).input_spec((2,)) == InputSpec((2,), 0, 7, 1.0)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ((None, (0, 1)), "Give input_scale"),
        ((0.0,), "input: scale must be positive"),
        ((-1.0,), "input: scale must be positive"),
        ((float("nan"),), "input_scale must be a finite number"),
        (("1",), "input_scale must be a finite number"),
        ((5e-324,), "input: range 0..33554432 must be rising and within"),
        ((1.0, (1, 2, 3)), "input_range must be two whole numbers"),
        ((1.0, 255), "input_range must be two whole numbers"),
        ((1.0, ()), "input_range must be two whole numbers"),
        ((1.0, (5, 5)), "input: range 5..5 must be rising"),
        ((1.0, (0, 0.5)), "input: shape and range must be whole numbers"),
    ],
)
def test_what_a_caller_cannot_say(given: tuple[Any, ...], match: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(FormatError, match=match):
            Reading(*given).input_spec((2,))


def test_a_caller_who_says_nothing() -> None:
    assert Reading().says_nothing
    for reading in (Reading(1.0), Reading(None, (0, 1)), Reading(assume_sharp=True)):
        assert not reading.says_nothing


def test_kinds_of_a_whole_network() -> None:
    graph = Graph((2, 4, 5))
    y = dense_of_permuted_map(graph)
    model = graph.to_model("m", y, READING)
    assert isinstance(model, Model)
    assert kinds(graph) == ["permute", "conv2d", "step", "permute", "flatten", "dense"]
    assert [layer.kind for layer in model.layers] == ["permute", "conv2d", "step"]
