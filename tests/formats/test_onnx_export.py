"""ONNX files written: onnxruntime computes from them what the network computes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import whetsim
from tests.core.random_models import random_model
from tests.formats.near_ties import near_ties
from tests.formats.nir_networks import everything, values
from whetsim import layers as L
from whetsim.errors import BackendNotInstalledError, FormatError
from whetsim.formats.onnx import writer as onnx_writer
from whetsim.model import INPUT, InputSpec, Model, Readout
from whetsim.reference import forward
from whetsim.testing import networks

onnx = pytest.importorskip("onnx", reason="ONNX files are written with the package onnx")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime computes what was written")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "networks"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2)


def volumes(rng: Any) -> Model:
    """Return convolution and pools over volumes."""
    layers = (
        L.Conv3D(
            name="conv",
            inputs=(INPUT,),
            weight=values(rng, 2, 3, 2, 1, 4),
            bias=values(rng, 4),
            padding="same",
            groups=2,
        ),
        L.Step(name="a", inputs=("conv",), threshold=0.25),
        L.MaxPool3D(name="most", inputs=("a",), padding="same"),
        L.AveragePool3D(name="mean", inputs=("a",), padding="same"),
        L.Add(name="sum", inputs=("most", "mean", "most")),
        L.Conv3D(name="next", inputs=("sum",), weight=values(rng, 1, 2, 2, 4, 3), strides=1),
        L.Step(name="b", inputs=("next",), strict=True),
    )
    return Model("volumes", InputSpec((4, 5, 6, 2), 0, 3, 0.5), layers)


def odd_windows(rng: Any) -> Model:
    """Return pools and transposed convolutions whose sides are padded and cut unevenly."""
    layers = (
        L.Conv2DTranspose(
            name="up",
            inputs=(INPUT,),
            weight=values(rng, 3, 2, 3, 2),
            bias=values(rng, 3),
            strides=(2, 3),
            padding=((1, 0), (0, 2)),
            output_padding=(1, 1),
        ),
        L.Step(name="a", inputs=("up",), threshold=0.2),
        L.Conv2DTranspose(
            name="wide",
            inputs=("a",),
            weight=values(rng, 2, 2, 2, 3),
            strides=(2, 2),
            dilation=(3, 1),
            output_padding=(2, 1),
            padding=((0, 3), (1, 0)),
        ),
        L.Step(name="b", inputs=("wide",), threshold=0.2),
        L.AveragePool2D(
            name="counted",
            inputs=("b",),
            pool_size=(3, 2),
            strides=(2, 2),
            padding=((2, 0), (0, 1)),
            count_padding=True,
        ),
        L.AveragePool2D(
            name="uncounted", inputs=("b",), pool_size=(3, 2), padding=((2, 1), (0, 1)),
            strides=(2, 2),
        ),
        L.MaxPool2D(
            name="most", inputs=("b",), pool_size=(3, 2), strides=(2, 2), padding=((2, 0), (0, 1))
        ),
        L.Add(name="sum", inputs=("counted", "most")),
        L.Step(name="c", inputs=("sum",), threshold=0.6),
        L.Step(name="d", inputs=("uncounted",), threshold=0.4),
        L.ZeroPad2D(name="border", inputs=("c",), padding=((0, 1), (2, 0))),
        L.Flatten(name="flat_c", inputs=("border",)),
        L.Flatten(name="flat_d", inputs=("d",)),
        L.Concat(name="both", inputs=("flat_c", "flat_d")),
    )  # fmt: skip
    n = Model("shapes", InputSpec((4, 3, 2)), layers).shapes["both"][0]
    layers += (
        L.Dense(name="dense", inputs=("both",), weight=values(rng, n, 5, spread=0.2)),
        L.Step(name="out", inputs=("dense",), threshold=0.0),
    )
    readout = Readout(decoder=rng.normal(size=(5, 3)), bias=np.array([0.5, 0.0, -0.5]))
    return Model("odd windows", InputSpec((4, 3, 2), -2, 2, 0.5), layers, readout=readout)


def other_types(rng: Any) -> Model:
    """Return a network whose arrays are float16 and float64."""
    layers = (
        L.Dense(
            name="first",
            inputs=(INPUT,),
            weight=values(rng, 8, 10).astype(np.float16),
            bias=rng.normal(size=10),
        ),
        networks.batch_norm(rng, "norm", "first", 10, negative=True),
        L.Step(name="a", inputs=("norm",)),
        L.Dense(name="second", inputs=("a",), weight=rng.normal(size=(10, 6))),
        L.Step(name="b", inputs=("second",)),
    )
    readout = Readout(decoder=rng.normal(size=(6, 3)).astype(np.float32))
    return Model("types", InputSpec((8,), 0, 5, 0.2), layers, readout=readout)


NETWORKS: dict[str, Callable[[Any], Model]] = {
    "all kinds": networks.all_kinds,
    "every kind": everything,
    "conv": networks.conv_model,
    "dense": networks.dense_model,
    "ties": lambda _: networks.ties_and_biases(),
    "volumes": volumes,
    "odd windows": odd_windows,
    "other types": other_types,
}
TIES = ("dense", "ties")
"""Networks on so coarse a grid that sums are exact and often tie."""


def written(model: Model, folder: Path) -> Any:
    """Write a network, check the file, and return its message."""
    path = folder / "network.onnx"
    whetsim.save(model, path)
    onnx.checker.check_model(str(path), full_check=True)
    return onnx.load(str(path))


def run(message: Any, samples: NDArray[Any], *outputs: str) -> dict[str, NDArray[Any]]:
    """Return what onnxruntime gives, and what stands in other tensors of the graph."""
    copy = onnx.ModelProto()
    copy.CopyFrom(message)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    session = ort.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"input": samples.astype(np.float32)}), strict=True))


def channels_last(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a tensor of the graph in the model's order of axes."""
    return array if array.shape[1:] == shape else np.moveaxis(array, 1, -1)


@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_computes_the_same_spikes(name: str, rng: Any, tmp_path: Path) -> None:
    model = NETWORKS[name](rng)
    samples = networks.random_samples(rng, model.input, 300)
    steps = [layer.name for layer in model.layers if isinstance(layer, L.Step)]
    found = run(written(model, tmp_path), samples, *steps)
    expected = forward(model, samples)
    near = near_ties(model, samples)
    for step in steps:
        spikes = channels_last(found[step], model.shapes[step])
        np.testing.assert_array_equal(spikes[~near], expected[step][~near], err_msg=step)
        assert 0.01 < expected[step].mean() < 0.99, step
    if name in TIES:
        assert not near.any()
    assert near.mean() < 0.02
    np.testing.assert_array_equal(found["spikes"][~near], expected[model.output][~near])
    assert found["spikes"].dtype == np.float32


def test_random_networks(tmp_path: Path) -> None:
    n_near = 0
    for seed in range(60):
        model = random_model(Random(seed))
        samples = networks.random_samples(np.random.default_rng(seed), model.input, 30)
        found = run(written(model, tmp_path), samples)["spikes"]
        near = near_ties(model, samples)
        expected = forward(model, samples)[model.output]
        np.testing.assert_array_equal(found[~near], expected[~near], err_msg=str(seed))
        n_near += int(near.sum())
    assert n_near < 60 * 30 // 20


@pytest.mark.parametrize("name", TIES)
def test_networks_on_a_grid_tie_and_agree(name: str, rng: Any, tmp_path: Path) -> None:
    model = NETWORKS[name](rng)
    samples = networks.random_samples(rng, model.input, 200)
    expected = forward(model, samples)
    steps = [layer for layer in model.layers if isinstance(layer, L.Step)]
    assert any((expected[step.inputs[0]] == step.threshold).any() for step in steps)
    found = run(written(model, tmp_path), samples, *(step.name for step in steps))
    for step in steps:
        np.testing.assert_array_equal(found[step.name], expected[step.name])


@pytest.mark.parametrize("strict", [False, True])
def test_a_tie_fires_as_the_step_says(strict: bool, tmp_path: Path) -> None:
    layers = (
        L.Dense(name="sum", inputs=(INPUT,), weight=np.eye(3, dtype=np.float32) / 8),
        L.Step(name="fires", inputs=("sum",), strict=strict),
    )
    model = Model("ties", InputSpec((3,), 0, 8), layers)
    found = run(written(model, tmp_path), np.array([[3, 4, 5]]))["spikes"]
    np.testing.assert_array_equal(found, [[0, 0 if strict else 1, 1]])


@pytest.mark.parametrize("name", NETWORKS)
def test_no_sample_and_one_sample(name: str, rng: Any, tmp_path: Path) -> None:
    model = NETWORKS[name](rng)
    message = written(model, tmp_path)
    samples = networks.random_samples(rng, model.input, 2)
    both = run(message, samples)
    for n in (0, 1):
        found = run(message, samples[:n])
        for key, array in both.items():
            assert found[key].shape == (n, *array.shape[1:])
            np.testing.assert_array_equal(found[key], array[:n])


@pytest.mark.parametrize("name", [n for n in NETWORKS if n not in ("all kinds", "volumes")])
def test_scores_are_those_of_the_readout(name: str, rng: Any, tmp_path: Path) -> None:
    model = NETWORKS[name](rng)
    samples = networks.random_samples(rng, model.input, 300)
    found = run(written(model, tmp_path), samples)
    assert model.readout is not None
    scores = model.readout.scores(found["spikes"].reshape(len(samples), -1))
    assert found["scores"].dtype == np.float64
    if model.readout.key is not None:
        np.testing.assert_array_equal(found["scores"], scores)
    else:
        np.testing.assert_allclose(found["scores"], scores, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found["scores"].argmax(axis=1), scores.argmax(axis=1))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_comes_back_with_the_same_spikes(name: str, rng: Any, tmp_path: Path) -> None:
    model = NETWORKS[name](rng)
    path = tmp_path / "network.onnx"
    whetsim.save(model, path)
    again = whetsim.load(path)
    assert again.name == model.name
    assert again.input == model.input
    assert again.metadata == model.metadata
    samples = networks.random_samples(rng, model.input, 1000)
    runs = [
        whetsim.run(whetsim.map_to_spikes(m), samples, backend="exact", record="rasters")
        for m in (model, again)
    ]
    np.testing.assert_array_equal(runs[0].raster(model.output), runs[1].raster(again.output))
    if model.readout is not None:
        np.testing.assert_array_equal(runs[0].predictions, runs[1].predictions)


@pytest.mark.parametrize("function", L.Activation.functions)
def test_activations_that_are_no_steps(function: str, rng: Any, tmp_path: Path) -> None:
    sharpness = {"sharpness": 0.75} if function == "bounded_relu" else {}
    layers = (
        L.Dense(name="sum", inputs=(INPUT,), weight=values(rng, 4, 6)),
        L.Activation(name="soft", inputs=("sum",), function=function, **sharpness),
    )
    model = Model("soft", InputSpec((4,), -8, 8, 0.25), layers)
    samples = networks.random_samples(rng, model.input, 100)
    found = run(written(model, tmp_path), samples)["spikes"]
    np.testing.assert_allclose(found, forward(model, samples)["soft"], atol=1e-6)


def test_layers_give_their_names_to_nodes_and_tensors(rng: Any, tmp_path: Path) -> None:
    model = networks.conv_model(rng)
    message = written(model, tmp_path)
    outputs = {name for node in message.graph.node for name in node.output}
    assert {layer.name for layer in model.layers} <= outputs
    assert all([node.name] == list(node.output) for node in message.graph.node)
    assert {t.name for t in message.graph.initializer} >= {"conv_a/weight", "norm_b/gamma"}


def test_layers_with_the_names_of_inputs_and_outputs_give_way(tmp_path: Path) -> None:
    eye = np.eye(3, dtype=np.float32)
    names = ("scores", "scale", "spikes", "input/scaled")
    layers: list[L.Layer] = []
    source = INPUT
    for name in names:
        layers.append(L.Dense(name=name, inputs=(source,), weight=eye))
        source = f"{name}/fires"
        layers.append(L.Step(name=source, inputs=(name,)))
    readout = Readout(key=np.eye(3, dtype=np.uint8))
    model = Model("names", InputSpec((3,)), tuple(layers), readout=readout)
    samples = np.array([[0, 1, 0], [1, 1, 1]])
    found = run(written(model, tmp_path), samples)
    np.testing.assert_array_equal(found["spikes"], samples)
    assert readout.scores(samples).tolist() == found["scores"].tolist()


def test_maps_are_turned_once(rng: Any, tmp_path: Path) -> None:
    ops = [node.op_type for node in written(networks.conv_model(rng), tmp_path).graph.node]
    assert ops.count("Transpose") == 2
    ops = [node.op_type for node in written(networks.all_kinds(rng), tmp_path).graph.node]
    assert ops.count("Transpose") == 1


def test_what_onnx_has_no_place_for_stands_in_the_metadata(rng: Any, tmp_path: Path) -> None:
    model = odd_windows(rng)
    message = written(model, tmp_path)
    assert [p.key for p in message.metadata_props] == ["whetsim"]
    told = json.loads(message.metadata_props[0].value)
    assert model.readout is not None
    assert model.readout.decoder is not None
    assert told == {
        "name": "odd windows",
        "input": {"low": -2, "high": 2, "scale": 0.5},
        "readout": {"decoder": model.readout.decoder.tolist(), "bias": [0.5, 0.0, -0.5]},
        "metadata": {},
    }
    assert message.opset_import[0].version == 17
    assert message.producer_name == "whetsim"
    axes = message.graph.input[0].type.tensor_type.shape.dim
    assert [axes[0].dim_param, *(a.dim_value for a in axes[1:])] == ["n", 4, 3, 2]


def test_the_same_network_gives_the_same_bytes(rng: Any, tmp_path: Path) -> None:
    model = everything(rng)
    for name in ("a.onnx", "b.onnx"):
        whetsim.save(model, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]


def test_a_network_too_large_for_one_message_is_refused(
    rng: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_writer, "MAX_BYTES", 1000)
    with pytest.raises(FormatError, match=r"^x.onnx: the network is larger than an ONNX file"):
        whetsim.save(networks.dense_model(rng), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_without_the_package_the_error_says_how_to_get_it(
    rng: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendNotInstalledError, match=r"^x.onnx: .*whetsim\[formats\]"):
        whetsim.save(networks.dense_model(rng), tmp_path / "x.onnx")


@pytest.mark.skipif("WHETSIM_DATA" not in os.environ, reason="WHETSIM_DATA names no data folder")
@pytest.mark.parametrize(("name", "n"), [("mnist_dense", 10_000), ("mnist_conv", 1_000)])
def test_predictions_on_mnist_are_those_of_the_exact_backend(
    name: str, n: int, tmp_path: Path
) -> None:
    model = whetsim.load(BENCHMARKS / f"{name}.safetensors")
    images, labels = whetsim.datasets.load("mnist", split="test")
    images, labels = images[:n], labels[:n]
    message = written(model, tmp_path)
    session = ort.InferenceSession(message.SerializeToString(), providers=["CPUExecutionProvider"])
    parts = []
    for start in range(0, n, 500):
        block = images[start : start + 500].reshape(-1, *model.input.shape)
        parts.append(session.run(["spikes", "scores"], {"input": block.astype(np.float32)}))
    spikes, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    recording = whetsim.run(whetsim.map_to_spikes(model), images, backend="exact", record="rasters")
    predictions = scores.argmax(axis=1)
    unequal = (spikes != recording.raster(model.output)).any(axis=1)
    unequal |= predictions != recording.predictions
    assert unequal.sum() <= n // 200
    assert near_ties(model, images[unequal]).all()
    assert (predictions == labels).mean() > 0.98


@pytest.mark.parametrize("axes", [(2, 0, 1), (1, 0, 2), (2, 1, 0)], ids=str)
def test_output_units_come_back_in_their_order(axes: tuple[int, int, int], tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(3, 3, 1, 4)).astype("f4")
    layers = (
        L.Conv2D(name="conv", inputs="input", weight=weight),
        L.Permute(name="turned", inputs="conv", axes=axes),
        L.Step(name="fired", inputs="turned", threshold=0.25, strict=True),
    )
    model = Model("turned", InputSpec((6, 5, 1)), layers)
    whetsim.save(model, tmp_path / "turned.onnx")
    back = whetsim.load(tmp_path / "turned.onnx")
    samples = np.random.default_rng(1).integers(0, 2, (50, 6, 5, 1))
    first, second = (
        whetsim.run(whetsim.map_to_spikes(m), samples, record="rasters") for m in (model, back)
    )
    assert back.output == "fired"
    assert np.array_equal(first.raster("fired"), second.raster("fired"))
