"""NIR files written: what stands in them, and that they come back as what they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import whetsim
from tests.core.random_models import random_model
from tests.formats import nir_truth
from tests.formats.near_ties import near_ties
from tests.formats.nir_networks import (
    conv_network,
    dense_network,
    everything,
    residual_network,
    values,
)
from whetsim import layers as L
from whetsim.errors import BackendNotInstalledError, FormatError
from whetsim.formats.nir.writer import express
from whetsim.model import INPUT, InputSpec, Model, Readout
from whetsim.reference import forward
from whetsim.testing import networks

nir = pytest.importorskip("nir", reason="the package nir reads what was written")
h5py = pytest.importorskip("h5py", reason="NIR files are HDF5")

NETWORKS: dict[str, Callable[[Any], Model]] = {
    "dense": dense_network,
    "conv": conv_network,
    "residual": residual_network,
    "every kind": everything,
    "skip": networks.dense_model,
    "mixed": networks.conv_model,
    "ties": lambda _: networks.ties_and_biases(),
}
BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "networks"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def native_bytes(model: Model, folder: Path) -> bytes:
    """Return all there is to a model: its arrays, graph, input, readout and metadata."""
    path = folder / "native.safetensors"
    whetsim.save(model, path)
    return path.read_bytes()


def without_description(path: Path) -> Path:
    """Return a copy of a file that has the nodes alone, written by the package nir."""
    graph = nir.read(path)
    graph.metadata = {}
    bare = path.with_name(f"bare_{path.name}")
    nir.write(bare, graph)
    return bare


def channels_first(samples: NDArray[Any]) -> NDArray[Any]:
    return np.moveaxis(samples, -1, 1) if samples.ndim == 4 else samples


def in_nir(model: Model, layer: str, array: NDArray[Any]) -> NDArray[Any]:
    return array.transpose(0, 3, 1, 2) if len(model.shapes[layer]) == 3 else array


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_comes_back_bit_for_bit(name: str, rng: Any, tmp_path: Path) -> None:
    model = NETWORKS[name](rng)
    path = tmp_path / "network.nir"
    whetsim.save(model, path)
    again = whetsim.load(path)
    assert native_bytes(again, tmp_path) == native_bytes(model, tmp_path)
    samples = networks.random_samples(rng, model.input, 1000)
    found, expected = forward(again, samples), forward(model, samples)
    for layer, array in expected.items():
        np.testing.assert_array_equal(found[layer], array)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_nodes_alone_give_the_same_spikes(name: str, rng: Any, tmp_path: Path) -> None:
    """The nodes, computed by NIR's definitions, against the network that was written."""
    model = NETWORKS[name](rng)
    path = tmp_path / "network.nir"
    whetsim.save(model, path)
    samples = networks.random_samples(rng, model.input, 300)
    x = samples.astype(np.float32) * np.float32(model.input.scale)
    graph = nir.read(path)
    found, expected = nir_truth.run(graph, channels_first(x)), forward(model, samples)
    near = near_ties(model, samples, bounds=3)
    assert near.mean() < 0.03
    compared = 0
    for layer in model.layers:
        # Behind a permute the units of NIR stand in another order; the next layer puts it right.
        if isinstance(layer, L.Step) and layer.name != "s6":
            assert isinstance(graph.nodes[layer.name], nir.IF)
            spikes = in_nir(model, layer.name, expected[layer.name])
            computed = found[layer.name].reshape(spikes.shape)
            np.testing.assert_array_equal(computed[~near], spikes[~near], err_msg=layer.name)
            compared += 1
    assert compared >= 2
    assert 0.05 < expected[model.output].mean() < 0.95


@pytest.mark.parametrize("name", NETWORKS)
def test_the_nodes_alone_are_read_as_the_same_network(name: str, rng: Any, tmp_path: Path) -> None:
    model = NETWORKS[name](rng)
    path = tmp_path / "network.nir"
    whetsim.save(model, path)
    spec = model.input
    bare = whetsim.load(
        without_description(path), input_scale=spec.scale, input_range=(spec.low, spec.high)
    )
    samples = networks.random_samples(rng, spec, 1000)
    near = near_ties(model, samples, bounds=3)
    runs = [
        whetsim.run(whetsim.map_to_spikes(m), x, backend="exact", record="rasters")
        for m, x in ((model, samples), (bare, channels_first(samples)))
    ]
    expected, found = (run.raster(m.output) for run, m in zip(runs, (model, bare), strict=True))
    np.testing.assert_array_equal(found[~near], expected[~near])


def test_exact_ties_fire_in_the_nodes_as_in_the_network(tmp_path: Path) -> None:
    weight = np.array([[0.5, 0.25, 0.75, -0.5]], np.float32)
    for threshold, strict in ((0.5, False), (0.5, True), (0.0, False), (0.0, True), (-0.5, False)):
        model = Model(
            "ties",
            InputSpec((1,), -2, 2),
            (
                L.Dense(name="sum", inputs=(INPUT,), weight=weight),
                L.Step(name="fires", inputs=("sum",), threshold=threshold, strict=strict),
            ),
        )
        path = tmp_path / "ties.nir"
        whetsim.save(model, path)
        samples = np.arange(-2, 3)[:, None]
        expected = forward(model, samples)["fires"]
        assert (samples * weight == threshold).any()
        nodes = nir_truth.run(nir.read(path), samples.astype(np.float32))["fires"]
        np.testing.assert_array_equal(nodes, expected)
        bare = whetsim.load(without_description(path), input_scale=1.0, input_range=(-2, 2))
        np.testing.assert_array_equal(forward(bare, samples)["fires"], expected)
        assert bare["fires"].strict == strict
        assert bare["fires"].threshold == threshold
        recording = whetsim.run(
            whetsim.map_to_spikes(bare), samples, backend="exact", record="rasters"
        )
        np.testing.assert_array_equal(recording.raster("fires"), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_nodes_are_those_that_frameworks_read(name: str, rng: Any, tmp_path: Path) -> None:
    path = tmp_path / "network.nir"
    whetsim.save(NETWORKS[name](rng), path)
    graph = nir.read(path)
    kinds = {type(node).__name__ for node in graph.nodes.values()}
    assert kinds <= {"Input", "Output", "Affine", "Conv2d", "IF", "Flatten", "Scale"}
    assert next(iter(graph.nodes)) == "input"
    assert [*graph.nodes][-1] == "output"
    assert all(node.isidentifier() for node in graph.nodes)
    position = {node: i for i, node in enumerate(graph.nodes)}
    assert all(position[source] < position[target] for source, target in graph.edges)
    for node in graph.nodes.values():
        if isinstance(node, nir.IF):
            assert node.r.dtype == node.v_threshold.dtype == np.float32
            assert (node.r == 1).all()
            assert not node.v_reset.any()
        elif isinstance(node, nir.Conv2d):
            assert node.groups == 1
            assert node.weight.dtype == np.float32


def test_a_threshold_is_one_number_where_it_can_be(rng: Any, tmp_path: Path) -> None:
    """Several frameworks take no others, even where a pool with negative scales is moved."""
    path = tmp_path / "network.nir"
    whetsim.save(conv_network(rng), path)
    nodes = [node for node in nir.read(path).nodes.values() if isinstance(node, nir.IF)]
    assert len(nodes) == 5
    assert all(np.unique(node.v_threshold).size == 1 for node in nodes)


def test_random_networks_come_back_or_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.nir"
    n_written = 0
    for seed in range(80):
        model = random_model(Random(seed))
        try:
            whetsim.save(model, path)
        except FormatError as error:
            assert str(error).startswith("network.nir: layer ")
            continue
        n_written += 1
        assert native_bytes(whetsim.load(path), tmp_path) == native_bytes(model, tmp_path)
        samples = networks.random_samples(np.random.default_rng(seed), model.input, 30)
        graph = nir.read(path, type_check=False)
        x = samples.astype(np.float32) * np.float32(model.input.scale)
        shape = graph.nodes["input"].input_type["input"]
        if len(shape) == 3:
            x = np.moveaxis(x.reshape(len(x), shape[1], shape[2], shape[0]), -1, 1)
        found = nir_truth.run(graph, x)["output"].reshape(len(x), -1)
        order = express(model).output_index
        expected = forward(model, samples)[model.output].reshape(len(x), -1)[:, order]
        near = near_ties(model, samples, bounds=3)
        np.testing.assert_array_equal(found[~near], expected[~near], err_msg=str(seed))
    assert n_written > 30


def test_names_that_are_equal_but_for_odd_characters(rng: Any, tmp_path: Path) -> None:
    names = ("a.b", "a b", "a/b", "a_b", "output", "a_b_2")
    layers: list[L.Layer] = []
    source = INPUT
    for dense, step in zip(names[::2], names[1::2], strict=True):
        layers.append(L.Dense(name=dense, inputs=(source,), weight=values(rng, 5, 5)))
        layers.append(L.Step(name=step, inputs=(dense,), threshold=0.1))
        source = step
    model = Model("names", InputSpec((5,), 0, 3, 0.5), tuple(layers))
    path = tmp_path / "network.nir"
    whetsim.save(model, path)
    graph = nir.read(path)
    assert len(graph.nodes) == 8
    samples = networks.random_samples(rng, model.input, 50)
    found = nir_truth.run(graph, samples.astype(np.float32) * np.float32(0.5))["output"]
    np.testing.assert_array_equal(found, forward(model, samples)[model.output])
    assert native_bytes(whetsim.load(path), tmp_path) == native_bytes(model, tmp_path)


def test_the_same_network_gives_the_same_bytes(rng: Any, tmp_path: Path) -> None:
    model = everything(rng)
    for name in ("a.nir", "b.nir"):
        whetsim.save(model, tmp_path / name)
    assert (tmp_path / "a.nir").read_bytes() == (tmp_path / "b.nir").read_bytes()


def test_the_package_nir_keeps_the_description(rng: Any, tmp_path: Path) -> None:
    model = everything(rng)
    path, copy = tmp_path / "network.nir", tmp_path / "copy.nir"
    whetsim.save(model, path)
    nir.write(copy, nir.read(path))
    assert native_bytes(whetsim.load(copy), tmp_path) == native_bytes(model, tmp_path)


def test_other_programs_find_input_and_readout(rng: Any, tmp_path: Path) -> None:
    model = everything(rng)
    path = tmp_path / "network.nir"
    whetsim.save(model, path)
    graph = nir.read(path)
    told = graph.metadata["whetsim"]
    assert (told["input_low"], told["input_high"], told["input_scale"]) == (-3, 4, 0.25)
    samples = networks.random_samples(rng, model.input, 50)
    x = channels_first(samples.astype(np.float32) * np.float32(told["input_scale"]))
    spikes = nir_truth.run(graph, x)["output"].reshape(50, -1)
    assert model.readout is not None
    expected = model.readout.scores(forward(model, samples)[model.output])
    np.testing.assert_allclose((2 * spikes - 1) @ told["decoder"] + told["bias"], expected)


def test_the_key_stands_in_the_order_of_the_output(rng: Any, tmp_path: Path) -> None:
    """The output is a map, whose units NIR has channels first."""
    key = rng.integers(0, 2, (3, 3 * 3 * 4)).astype(np.uint8)
    model = Model(
        "map",
        InputSpec((4, 4, 2)),
        (
            L.Conv2D(name="conv", inputs=(INPUT,), weight=values(rng, 2, 2, 2, 4)),
            L.Step(name="fires", inputs=("conv",), threshold=0.2),
        ),
        readout=Readout(key=key),
    )
    path = tmp_path / "network.nir"
    whetsim.save(model, path)
    graph = nir.read(path)
    samples = networks.random_samples(rng, model.input, 50)
    spikes = nir_truth.run(graph, channels_first(samples))["output"].reshape(50, -1)
    found = (2 * spikes - 1) @ (2.0 * graph.metadata["whetsim"]["key"] - 1).T
    assert model.readout is not None
    expected = model.readout.scores(forward(model, samples)["fires"].reshape(50, -1))
    np.testing.assert_array_equal(found, expected)


def with_bias(path: Path, node: str, value: float) -> Model:
    """Return what is read after another program has changed a node."""
    graph = nir.read(path)
    graph.nodes[node].bias[:] = value
    changed = path.with_name("changed.nir")
    nir.write(changed, graph)
    return whetsim.load(changed)


def test_a_changed_node_changes_its_layer(rng: Any, tmp_path: Path) -> None:
    model = conv_network(rng)
    path = tmp_path / "network.nir"
    whetsim.save(model, path)
    changed = with_bias(path, "dense", 100)
    assert [layer.name for layer in changed.layers] == [layer.name for layer in model.layers]
    np.testing.assert_array_equal(changed["dense"].bias, np.full(8, 100))
    np.testing.assert_array_equal(changed["dense"].weight, model["dense"].weight)
    np.testing.assert_array_equal(changed["conv_a"].weight, model["conv_a"].weight)


def test_nodes_that_were_changed_count_more_than_the_description(rng: Any, tmp_path: Path) -> None:
    """The bias of this node is that of a convolution and a batch norm in one."""
    model = conv_network(rng)
    path = tmp_path / "network.nir"
    whetsim.save(model, path)
    changed = with_bias(path, "conv_b", 100)
    assert "read from the nodes alone" in changed.metadata["source"]["remarks"][0]
    assert (changed.input.low, changed.input.high) == (0, 15)
    assert changed.input.scale == model.input.scale
    assert changed.readout is not None
    assert model.readout is not None
    np.testing.assert_array_equal(changed.readout.key, model.readout.key)
    samples = networks.random_samples(rng, model.input, 20)
    assert forward(changed, channels_first(samples))["b"].all()
    assert not forward(model, samples)["b"].all()


def test_a_description_of_another_network_is_not_believed(rng: Any, tmp_path: Path) -> None:
    """A file shows whetsim the network that it shows everybody else."""
    path, other = tmp_path / "network.nir", tmp_path / "other.nir"
    whetsim.save(conv_network(rng), path)
    whetsim.save(conv_network(rng), other)
    with h5py.File(path, "a") as file, h5py.File(other) as source:
        del file["node/metadata"]
        source.copy("node/metadata", file["node"])
    remarks = whetsim.load(path).metadata["source"]["remarks"]
    assert "not those that the file's description gives" in remarks[0]


def test_the_caller_need_not_say_what_the_file_says(rng: Any, tmp_path: Path) -> None:
    path = tmp_path / "network.nir"
    whetsim.save(dense_network(rng), path)
    with pytest.raises(FormatError, match=r"^network.nir: the file says itself"):
        whetsim.load(path, input_scale=1.0)


def layers_with(layer: L.Layer, *after: L.Layer) -> tuple[L.Layer, ...]:
    """Return a convolution with a step, a layer behind it, and what makes it an output."""
    conv = L.Conv2D(name="conv", inputs=(INPUT,), weight=np.ones((2, 2, 2, 3), np.float32))
    return conv, L.Step(name="spikes", inputs=("conv",)), layer, *after


SOURCE = {"inputs": ("spikes",)}
REFUSED: dict[str, tuple[tuple[L.Layer, ...], str]] = {
    "transposed": (
        layers_with(
            L.Conv2DTranspose(name="up", weight=np.ones((2, 2, 3, 3), np.float32), **SOURCE)
        ),
        "layer 'up': NIR has no node for a layer of kind 'conv2d_transpose'",
    ),
    "upsample": (
        layers_with(L.Upsample2D(name="up", **SOURCE)),
        "layer 'up': NIR has no node for a layer of kind 'upsample2d'",
    ),
    "activation": (
        layers_with(L.Activation(name="soft", function="relu", **SOURCE)),
        "layer 'soft': NIR has no node for a layer of kind 'activation'",
    ),
    "permuted": (
        layers_with(
            L.Permute(name="turn", axes=(1, 0, 2), **SOURCE),
            L.MaxPool2D(name="pool", inputs=("turn",)),
        ),
        "layer 'pool': it reads a map of shape .* that was reshaped or permuted",
    ),
    "maximum": (
        layers_with(
            L.BatchNorm(
                name="norm", mean=np.zeros(3, np.float32), variance=np.ones(3, np.float32), **SOURCE
            ),
            L.MaxPool2D(name="pool", inputs=("norm",)),
            L.Conv2D(name="next", inputs=("pool",), weight=np.ones((1, 1, 3, 1), np.float32)),
        ),
        "layer 'next': a max pool of real numbers stands before it",
    ),
    "last maximum": (
        layers_with(
            L.BatchNorm(
                name="norm", mean=np.zeros(3, np.float32), variance=np.ones(3, np.float32), **SOURCE
            ),
            L.MaxPool2D(name="pool", inputs=("norm",)),
        ),
        "layer 'pool': a max pool of real numbers",
    ),
    "concat": (
        layers_with(
            L.Concat(name="join", inputs=("spikes", "spikes"), axis=0),
        ),
        "layer 'join': NIR can join maps along their channels alone",
    ),
    "large": (
        layers_with(
            L.Conv2D(name="wide", weight=np.full((1, 1, 3, 1), 1e39, np.float64), **SOURCE),
            L.Step(name="out", inputs=("wide",)),
        ),
        "layer 'out': it has a value that is too large for float32",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_nir_cannot_say_is_refused_by_name(case: str, tmp_path: Path) -> None:
    layers, text = REFUSED[case]
    model = Model("refused", InputSpec((6, 6, 2)), layers)
    path = tmp_path / "network.nir"
    with pytest.raises(FormatError, match=f"^network.nir: {text}"):
        whetsim.save(model, path)
    assert not list(tmp_path.iterdir())


def test_a_pool_of_too_many_channels_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    layers = (L.Step(name="s", inputs=(INPUT,)), L.MaxPool2D(name="pool", inputs=("s",)))
    model = Model("wide", InputSpec((2, 2, 2**20)), layers)
    with pytest.raises(FormatError, match="layer 'pool': NIR would need too many weights"):
        whetsim.save(model, tmp_path / "network.nir")


def test_without_h5py_the_error_says_how_to_get_it(
    rng: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "network.nir"
    whetsim.save(dense_network(rng), path)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(BackendNotInstalledError, match=r"^network.nir: reading NIR .*formats"):
        whetsim.formats.nir.format.read(path, whetsim.formats.Reading())
    with pytest.raises(BackendNotInstalledError, match=r"^network.nir: writing NIR .*formats"):
        whetsim.save(dense_network(rng), path)


@pytest.mark.parametrize("name", ["mnist_dense", "mnist_conv", "mnist_residual"])
def test_trained_networks_come_back_and_their_nodes_agree(name: str, tmp_path: Path) -> None:
    model = whetsim.load(BENCHMARKS / f"{name}.safetensors")
    path = tmp_path / "network.nir"
    whetsim.save(model, path)
    assert native_bytes(whetsim.load(path), tmp_path) == native_bytes(model, tmp_path)
    rng = np.random.default_rng(3)
    samples = networks.random_samples(rng, model.input, 40)
    x = channels_first(samples.astype(np.float32) * np.float32(model.input.scale))
    found = nir_truth.run(nir.read(path), x)["output"]
    expected = forward(model, samples)[model.output]
    near = near_ties(model, samples, bounds=3)
    assert (found != expected).mean() < 1e-3
    np.testing.assert_array_equal(found[~near], expected[~near])


def test_kernels_that_cannot_be_squares_are_written_all_the_same(rng: Any, tmp_path: Path) -> None:
    """The package nir takes them for squares when it checks shapes, so it must not check them."""
    layers = (
        L.Conv2D(name="conv", inputs=(INPUT,), weight=values(rng, 2, 3, 2, 4)),
        L.Step(name="fires", inputs=("conv",), threshold=0.2),
    )
    model = Model("wide", InputSpec((5, 5, 2)), layers)
    path = tmp_path / "network.nir"
    whetsim.save(model, path)
    assert native_bytes(whetsim.load(path), tmp_path) == native_bytes(model, tmp_path)
    with pytest.raises(ValueError, match="type mismatch"):
        nir.read(path)
    samples = networks.random_samples(rng, model.input, 50)
    graph = nir.read(path, type_check=False)
    found = nir_truth.run(graph, channels_first(samples))["fires"]
    np.testing.assert_array_equal(found, in_nir(model, "fires", forward(model, samples)["fires"]))
