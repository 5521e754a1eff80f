"""NIR files read: node by node against the definitions, ties, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whetsim
from tests.formats import nir_truth
from whetsim import layers as L
from whetsim.errors import FormatError
from whetsim.model import Model
from whetsim.reference import forward

nir = pytest.importorskip("nir", reason="the files are made by the package nir")

SCALE = 1 / 16


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def normal(rng: Any, *shape: int, spread: float = 0.5) -> Any:
    return rng.normal(0, spread, shape).astype(np.float32)


def neurons(shape: Sequence[int], threshold: Any = 0.5, r: Any = 1.0) -> Any:
    return nir.IF(
        r=np.broadcast_to(np.float32(r), shape).copy(),
        v_threshold=np.broadcast_to(np.float32(threshold), shape).copy(),
    )


def conv(rng: Any, size: Sequence[int], n_in: int, n_out: int, kernel: int, **given: Any) -> Any:
    groups = given.get("groups", 1)
    values = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **given}
    return nir.Conv2d(
        input_shape=tuple(size),
        weight=normal(rng, n_out, n_in // groups, kernel, kernel),
        bias=normal(rng, n_out, spread=0.2),
        **values,
    )


def chain(shape: Sequence[int], output: Sequence[int], **nodes: Any) -> Any:
    """Return a graph of nodes one behind the other."""
    named = {"input": nir.Input(np.array(shape)), **nodes, "output": nir.Output(np.array(output))}
    names = list(named)
    pairs = list(pairwise(names))
    return nir.NIRGraph(named, pairs, type_check=False)


def load(path: Path, graph: Any, **given: Any) -> Model:
    nir.write(path, graph)
    return whetsim.load(path, **{"input_scale": SCALE, **given})


def samples_of(model: Model, rng: Any, n: int = 200) -> Any:
    return rng.integers(0, 17, (n, *model.input.shape), dtype=np.uint8)


def assert_same_spikes(graph: Any, model: Model, samples: Any, most_near: float = 1e-3) -> None:
    """Compare every node that fires with the definitions, except where rounding may decide."""
    truth = nir_truth.run(graph, samples.astype(np.float32) * np.float32(SCALE))
    found = forward(model, samples)
    fired = [layer for layer in model.layers if isinstance(layer, L.Step)]
    assert fired
    near = np.zeros(len(samples), dtype=bool)
    for layer in fired:
        expected, spikes = truth[layer.name], found[layer.name]
        if spikes.ndim == 4:
            spikes = spikes.transpose(0, 3, 1, 2)
        elif spikes.ndim == 3 and spikes.shape != expected.shape:
            spikes = spikes.transpose(0, 2, 1)
        assert spikes.shape == expected.shape, layer.name
        assert 0.02 < expected.mean() < 0.98, layer.name
        x = found[layer.inputs[0]].reshape(len(samples), -1)
        near |= (np.abs(x - layer.threshold) < 1e-5).any(axis=1) & (x != layer.threshold).any(
            axis=1
        )
        unequal = (spikes != expected).reshape(len(samples), -1).any(axis=1)
        assert not (unequal & ~near).any(), layer.name
    assert near.mean() <= most_near * 20

    recording = whetsim.run(
        whetsim.map_to_spikes(model), samples, backend="exact", record="rasters"
    )
    comparison = whetsim.compare_with_model(model, recording, samples)
    assert not comparison.faults, comparison


def dense_graph(rng: Any) -> Any:
    return chain(
        (12,),
        (6,),
        first=nir.Affine(normal(rng, 10, 12), normal(rng, 10)),
        a=neurons((10,)),
        second=nir.Linear(normal(rng, 8, 10)),
        b=nir.Threshold(np.full(8, 0.25, np.float32)),
        each=nir.Scale(normal(rng, 8, spread=1.0)),
        third=nir.Affine(normal(rng, 6, 8), normal(rng, 6)),
        c=neurons((6,)),
    )


def conv_graph(rng: Any) -> Any:
    return chain(
        (2, 10, 9),
        (5,),
        first=conv(rng, (10, 9), 2, 4, 3, padding="same"),
        a=neurons((4, 10, 9)),
        second=conv(rng, (10, 9), 4, 6, 3, stride=(2, 1), padding=(1, 0), groups=2),
        b=nir.Threshold(np.full((6, 5, 7), 0.1, np.float32)),
        mean=nir.AvgPool2d(np.array([2, 2]), np.array([1, 2]), np.array([1, 0])),
        third=conv(rng, (6, 3), 6, 4, 2, dilation=(2, 1), padding="valid"),
        c=neurons((4, 4, 2)),
        flat=nir.Flatten(np.array([4, 4, 2]), start_dim=0, end_dim=-1),
        last=nir.Affine(normal(rng, 5, 32), normal(rng, 5)),
        d=neurons((5,)),
    )


def line_graph(rng: Any) -> Any:
    weight = normal(rng, 4, 3, 5)
    return chain(
        (3, 20),
        (4,),
        first=nir.Conv1d(20, weight, 2, 2, 1, 1, normal(rng, 4, spread=0.2)),
        a=neurons((4, 10)),
        second=nir.Conv1d(10, normal(rng, 6, 2, 3), 1, "same", 2, 2, normal(rng, 6, spread=0.2)),
        b=neurons((6, 10)),
        flat=nir.Flatten(np.array([6, 10]), 0, 1),
        last=nir.Affine(normal(rng, 4, 60), normal(rng, 4)),
        c=neurons((4,)),
    )


def sums_graph(rng: Any) -> Any:
    """Return two paths that meet, a skip connection, and a graph within the graph."""
    inner = chain(
        (8,),
        (8,),
        weigh=nir.Affine(normal(rng, 8, 8), normal(rng, 8)),
        fire=neurons((8,)),
    )
    nodes = {
        "input": nir.Input(np.array([9])),
        "first": nir.Affine(normal(rng, 8, 9), normal(rng, 8)),
        "a": neurons((8,)),
        "inner": inner,
        "second": nir.Linear(normal(rng, 6, 8)),
        "skip": nir.Linear(normal(rng, 6, 8)),
        "far": nir.Linear(normal(rng, 6, 9)),
        "b": neurons((6,)),
        "output": nir.Output(np.array([6])),
    }
    edges = [
        ("input", "first"),
        ("first", "a"),
        ("a", "inner"),
        ("inner", "second"),
        ("a", "second"),
        ("a", "skip"),
        ("input", "far"),
        ("second", "b"),
        ("skip", "b"),
        ("far", "b"),
        ("b", "output"),
    ]
    return nir.NIRGraph(nodes, edges, type_check=False)


def own_thresholds_graph(rng: Any) -> Any:
    """Return neurons each with a threshold and a resistance of its own."""
    return chain(
        (2, 5, 5),
        (4,),
        first=conv(rng, (5, 5), 2, 3, 3, padding=1),
        a=neurons((3, 5, 5), normal(rng, 3, 5, 5), rng.uniform(0.5, 2, (3, 5, 5))),
        pool=nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([1, 1])),
        b=neurons((3, 3, 3), 1.5),
        rows=nir.Flatten(np.array([3, 3, 3]), start_dim=1),
        flat=nir.Flatten(np.array([3, 9]), start_dim=0),
        last=nir.Affine(normal(rng, 4, 27), normal(rng, 4)),
        c=nir.Threshold(normal(rng, 4)),
    )


GRAPHS = (dense_graph, conv_graph, line_graph, sums_graph, own_thresholds_graph)


@pytest.mark.parametrize("make", GRAPHS)
def test_every_node_computes_what_nir_defines(make: Any, rng: Any, tmp_path: Path) -> None:
    graph = make(rng)
    model = load(tmp_path / "graph.nir", graph)
    samples = samples_of(model, rng)
    assert_same_spikes(graph, model, samples)


@pytest.mark.parametrize("make", GRAPHS)
def test_no_sample_one_sample_and_zeros(make: Any, rng: Any, tmp_path: Path) -> None:
    graph = make(rng)
    model = load(tmp_path / "graph.nir", graph)
    samples = samples_of(model, rng, 3)
    samples[2] = 0
    truth = nir_truth.run(graph, samples.astype(np.float32) * np.float32(SCALE))["output"]
    for part in (samples[:0], samples[:1], samples[2:]):
        found = forward(model, part)[model.output]
        assert len(found) == len(part)
    found = forward(model, samples)[model.output]
    np.testing.assert_array_equal(found.reshape(truth.shape), truth)


@pytest.mark.parametrize("kind", ["IF", "Threshold"])
def test_a_tie_does_not_fire(kind: str, tmp_path: Path) -> None:
    threshold = np.full(3, 0.5, np.float32)
    step = neurons((3,)) if kind == "IF" else nir.Threshold(threshold)
    graph = chain((3,), (3,), weigh=nir.Affine(np.eye(3) / 8, np.zeros(3)), fire=step)
    model = load(tmp_path / "ties.nir", graph, input_scale=1.0, input_range=(0, 8))
    samples = np.array([[4, 5, 3]])
    np.testing.assert_array_equal(forward(model, samples)["fire"], [[0, 1, 0]])
    recording = whetsim.run(
        whetsim.map_to_spikes(model), samples, backend="exact", record="rasters"
    )
    np.testing.assert_array_equal(recording.raster("fire"), [[0, 1, 0]])


def pooled(rng: Any, pool: Any, step: Any, size: Sequence[int]) -> Any:
    n = int(np.prod(size))
    return chain(
        (2, 6, 6),
        (3,),
        first=conv(rng, (6, 6), 2, 3, 3, padding=1),
        a=neurons((3, 6, 6)),
        pool=pool,
        any=step,
        flat=nir.Flatten(np.array(size), 0),
        last=nir.Affine(normal(rng, 3, n), normal(rng, 3)),
        c=neurons((3,)),
    )


def diagonal(kernel: Any) -> Any:
    """Return a convolution of each channel by itself with the same kernel."""
    weight = np.einsum("oc,yx->ocyx", np.eye(3), kernel).astype(np.float32)
    return nir.Conv2d((6, 6), weight, 2, 1, 1, 1, np.zeros(3, np.float32))


MAX_POOLS = {
    "sum": lambda: (
        nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        nir.Threshold(np.zeros((3, 3, 3), np.float32)),
    ),
    "padded": lambda: (
        nir.SumPool2d(np.array([3, 3]), np.array([2, 2]), np.array([1, 1])),
        neurons((3, 3, 3), 0.5),
    ),
    "mean": lambda: (
        nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        neurons((3, 3, 3), 0.2),
    ),
    "convolution": lambda: (
        diagonal([[0, 0, 0], [0, 2, 2], [0, 2, 2]]),
        neurons((3, 3, 3), 1.5),
    ),
}


@pytest.mark.parametrize("form", MAX_POOLS)
def test_a_sum_of_spikes_that_fires_for_one_is_a_max_pool(
    form: str, rng: Any, tmp_path: Path
) -> None:
    graph = pooled(rng, *MAX_POOLS[form](), size=(3, 3, 3))
    model = load(tmp_path / "pool.nir", graph)
    pools = [layer for layer in model.layers if isinstance(layer, L.MaxPool2D)]
    assert [pool.name for pool in pools] == ["any"]
    samples = samples_of(model, rng)
    truth = nir_truth.run(graph, samples.astype(np.float32) * np.float32(SCALE))
    found = forward(model, samples)
    np.testing.assert_array_equal(found["any"].transpose(0, 3, 1, 2), truth["any"])
    np.testing.assert_array_equal(found["c"], truth["c"])


@pytest.mark.parametrize(
    ("pool", "threshold"),
    [
        (nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])), 1.0),
        (nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])), -0.5),
        (nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])), 0.3),
        (diagonal([[0, 0, 0], [0, 1, 1], [0, 1, 2]]), 0.5),
        (diagonal([[0, 0, 0], [0, 1, 1], [0, 1, -1]]), 0.5),
    ],
)
def test_other_sums_of_spikes_are_no_max_pool(
    pool: Any, threshold: float, rng: Any, tmp_path: Path
) -> None:
    graph = pooled(rng, pool, neurons((3, 3, 3), threshold), size=(3, 3, 3))
    model = load(tmp_path / "pool.nir", graph)
    assert not any(isinstance(layer, L.MaxPool2D) for layer in model.layers)
    samples = samples_of(model, rng)
    truth = nir_truth.run(graph, samples.astype(np.float32) * np.float32(SCALE))
    found = forward(model, samples)
    np.testing.assert_array_equal(found["any"].transpose(0, 3, 1, 2), truth["any"])


def test_an_affine_tail_becomes_the_readout(rng: Any, tmp_path: Path) -> None:
    weight, bias = normal(rng, 4, 8), normal(rng, 4)
    graph = chain(
        (8,), (4,), first=nir.Affine(normal(rng, 8, 8), normal(rng, 8)), a=neurons((8,)),
        scores=nir.Affine(weight, bias),
    )  # fmt: skip
    model = load(tmp_path / "tail.nir", graph)
    samples = samples_of(model, rng)
    assert model.output == "a"
    assert model.readout is not None
    truth = nir_truth.run(graph, samples.astype(np.float32) * np.float32(SCALE))["scores"]
    scores = model.readout.scores(forward(model, samples)["a"])
    np.testing.assert_allclose(scores, truth, atol=1e-5)


def test_a_resistance_is_said_in_a_remark(rng: Any, tmp_path: Path) -> None:
    graph = chain((3,), (3,), weigh=nir.Linear(normal(rng, 3, 3)), fire=neurons((3,), 0.5, 2.0))
    model = load(tmp_path / "r.nir", graph)
    source = model.metadata["source"]
    assert source["format"] == "NIR"
    assert source["version"] == nir.version
    assert "r is not 1" in source["remarks"][0]
    assert source["steps"] == {"fire": "NIR IF: r * x > v_threshold"}


def ends(shape: int = 3) -> dict[str, Any]:
    return {"input": nir.Input(np.array([shape])), "output": nir.Output(np.array([shape]))}


LEAKY: dict[str, Any] = {
    "LIF": nir.LIF(*(np.ones(3),) * 4),
    "LI": nir.LI(*(np.ones(3),) * 3),
    "CubaLIF": nir.CubaLIF(*(np.ones(3),) * 5),
    "CubaLI": nir.CubaLI(*(np.ones(3),) * 4),
    "I": nir.I(np.ones(3)),
    "Delay": nir.Delay(np.ones(3)),
}


@pytest.mark.parametrize("kind", LEAKY)
def test_neurons_with_a_memory_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    reason = {"I": "adds up over time", "Delay": "it delays"}.get(kind, "its neurons leak")
    graph = chain((3,), (3,), unit=LEAKY[kind])
    with pytest.raises(
        FormatError, match=f"^x.nir: node 'unit': a {kind} cannot be read: .*{reason}"
    ):
        load(tmp_path / "x.nir", graph)


def two_inputs() -> Any:
    nodes = {**ends(), "more": nir.Input(np.array([3])), "fire": neurons((3,))}
    edges = [("input", "fire"), ("more", "fire"), ("fire", "output")]
    return nir.NIRGraph(nodes, edges, type_check=False)


def circle() -> Any:
    nodes = {**ends(), "fire": neurons((3,)), "back": nir.Linear(np.eye(3))}
    edges = [("input", "fire"), ("fire", "back"), ("back", "fire"), ("fire", "output")]
    return nir.NIRGraph(nodes, edges, type_check=False)


def with_edges(*edges: tuple[str, str]) -> Any:
    return nir.NIRGraph({**ends(), "fire": neurons((3,))}, list(edges), type_check=False)


def fed(*edges: tuple[str, str]) -> Any:
    return with_edges(("input", "fire"), ("fire", "output"), *edges)


REFUSED = {
    "two inputs": (two_inputs, "the graph has 2 nodes of type Input"),
    "circle": (circle, "nodes form a circle: .* Recurrent networks cannot be loaded"),
    "twice": (lambda: fed(("input", "fire")), "'input' -> 'fire' stands there twice"),
    "unknown": (lambda: fed(("fire", "nobody")), "names 'nobody', which is no node"),
    "not fed": (lambda: with_edges(("fire", "output")), "node 'fire': no edge leads to it"),
    "no output": (lambda: with_edges(("input", "fire")), "node 'output': no edge leads to it"),
    "reset": (
        lambda: chain(
            (3,), (3,), fire=nir.IF(np.ones(3), np.ones(3), v_reset=np.full(3, 0.25))
        ),
        "node 'fire': v_reset is not 0, so that a sample depends on the one before it",
    ),
    "shape": (
        lambda: chain((3,), (4,), fire=neurons((4,))),
        r"node 'fire': r has shape \(4,\); what reaches the node has \(3,\)",
    ),
    "output shape": (
        lambda: chain((3,), (4,), fire=neurons((3,))),
        r"node 'output': it has shape \(4,\); what reaches it has \(3,\)",
    ),
    "not flat": (
        lambda: chain((3, 2, 2), (3,), weigh=nir.Linear(np.eye(3)), fire=neurons((3,))),
        "node 'weigh': .* Put a Flatten before it",
    ),
    "same with stride": (
        lambda: chain(
            (1, 4, 4),
            (1, 2, 2),
            c=nir.Conv2d((4, 4), np.ones((1, 1, 3, 3)), 2, "same", 1, 1, np.zeros(1)),
            fire=neurons((1, 2, 2)),
        ),
        "node 'c': padding 'same' with stride",
    ),
    "NaN": (
        lambda: chain((3,), (3,), weigh=nir.Linear(np.full((3, 3), np.nan)), fire=neurons((3,))),
        "NaN or infinite",
    ),
    "NaN threshold": (
        lambda: chain((3,), (3,), fire=neurons((3,), np.inf)),
        "node 'fire': v_threshold holds NaN or infinite values",
    ),
    "no step": (lambda: chain((3,), (3,), weigh=nir.Linear(np.eye(3))), ""),
}  # fmt: skip


@pytest.mark.parametrize("case", [case for case in REFUSED if case != "no step"])
def test_what_cannot_be_read_is_refused_by_name(case: str, tmp_path: Path) -> None:
    make, text = REFUSED[case]
    with pytest.raises(FormatError, match=text) as caught:
        load(tmp_path / "x.nir", make())
    assert str(caught.value).startswith("x.nir: ")
    assert "\n" not in str(caught.value)


def test_a_graph_that_nothing_fires_in_loads_but_has_no_spikes(tmp_path: Path) -> None:
    model = load(tmp_path / "x.nir", REFUSED["no step"][0]())
    assert model.output == "weigh"
    with pytest.raises(whetsim.errors.MappingError, match="'weigh'"):
        whetsim.map_to_spikes(model)


def test_the_caller_must_say_what_a_foreign_file_reads(rng: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    nir.write(path, dense_graph(rng))
    with pytest.raises(FormatError, match=r"^x.nir: input: .*Give input_scale"):
        whetsim.load(path)


def test_a_node_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    nir.write(path, nir.Linear(np.eye(3)))
    with pytest.raises(FormatError, match=r"^x.nir: its node is a 'Linear' \(need a NIRGraph\)"):
        whetsim.load(path, input_scale=1.0)
