"""Files in Keras' layouts, written without Keras: they load as the same networks made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import whetsim
from whetsim import layers as L
from whetsim import reference
from whetsim.errors import FormatError
from whetsim.model import Model

from . import keras_files as files
from .keras_networks import CASES, SCALE, Case, Drawn

GROUPS = {
    "residual": {
        "layers/conv2d": "conv2d",
        "layers/spiking_b_relu": "a",
        "layers/conv2d_1": "conv2d_1",
        "layers/spiking_b_relu_1": "b",
        "layers/conv2d_2": "conv2d_2",
        "layers/spiking_b_relu_2": "c",
        "layers/dense": "dense",
    },
    "autoencoder": {
        "layers/conv2d": "conv2d",
        "layers/spiking_b_relu": "code",
        "layers/conv2d_transpose": "conv2d_transpose",
        "layers/spiking_b_relu_1": "wide",
        "layers/conv2d_1": "conv2d_1",
        "layers/spiking_b_relu_2": "mask",
    },
}
"""Where a .keras file keeps the weights of each layer."""


def load(path: Path, **options: Any) -> Model:
    return whetsim.load(path, **{"input_scale": SCALE} | options)


def write(path: Path, case: Case) -> Path:
    return files.write_legacy(path, case.config, case.weights)


def write_archive(path: Path, name: str, case: Case | None = None) -> Path:
    case = case or CASES[name]
    arrays = {
        group: [array for _, array in case.weights[layer]] for group, layer in GROUPS[name].items()
    }
    return files.write_archive(path, files.in_keras_3(case.config), arrays)


def assert_same(case: Case, loaded: Model) -> None:
    """Compare all spikes and scores with those of the network made by hand."""
    samples = case.samples()
    expected = reference.forward(case.model, samples)
    got = reference.forward(loaded, case.as_in_the_file(samples))
    steps = [layer.name for layer in case.model.layers if isinstance(layer, L.Step)]
    assert steps == [layer.name for layer in loaded.layers if isinstance(layer, L.Step)]
    for name in steps:
        assert 0.1 < expected[name].mean() < 0.9, name
        np.testing.assert_array_equal(got[name], expected[name])
    wanted = case.model.readout
    if wanted is None:
        assert loaded.readout is None
    else:
        assert loaded.readout is not None
        flat = expected[case.model.output].reshape(len(samples), -1)
        scores = loaded.readout.scores(got[loaded.output].reshape(len(samples), -1))
        np.testing.assert_allclose(scores, wanted.scores(flat), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_whole_model_in_hdf5(name: str, tmp_path: Path) -> None:
    loaded = load(write(tmp_path / "net.h5", CASES[name]))
    assert_same(CASES[name], loaded)
    assert loaded.name == "net"
    assert (loaded.input.low, loaded.input.high) == (0, 16)


@pytest.mark.parametrize("name", GROUPS)
def test_keras_archive(name: str, tmp_path: Path) -> None:
    loaded = load(write_archive(tmp_path / "net.keras", name))
    assert_same(CASES[name], loaded)
    assert loaded.metadata["source"]["version"] == "3.9.0"


@pytest.mark.parametrize("name", CASES)
def test_runs_as_spikes(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    loaded = load(write(tmp_path / "net.h5", case))
    network = whetsim.map_to_spikes(loaded)
    for n in (0, 1, 60):
        samples = case.as_in_the_file(case.samples(n))
        recording = whetsim.run(network, samples, backend="exact", record="rasters")
        compared = whetsim.compare_with_model(loaded, recording, samples)
        assert compared.n_differences == 0, str(compared)
    zeros = np.zeros_like(case.as_in_the_file(case.samples(2)))
    recording = whetsim.run(network, zeros, backend="exact", record="rasters")
    assert whetsim.compare_with_model(loaded, recording, zeros).n_differences == 0


def test_says_where_it_comes_from(tmp_path: Path) -> None:
    source = load(write(tmp_path / "net.h5", CASES["residual"])).metadata["source"]
    assert source["format"] == "keras"
    assert source["version"] == "2.15.0"
    assert source["backend"] == "tensorflow"
    assert set(source["steps"]) == {"a", "b", "c"}
    assert "x >= 0.5" in source["steps"]["a"]
    (remark,) = source["remarks"]
    assert remark == "the softmax of layer 'dense' is left out: the largest score is the same"


def test_network_as_keras_2_0_wrote_it(tmp_path: Path) -> None:
    """A bare list of layers, the shape in the first one, names of fixed length in parts."""
    case = CASES["dense"]
    first, *others = case.config["config"]["layers"][1:]
    first = dict(first, config=first["config"] | {"batch_input_shape": [None, 20]})
    path = _write_list(tmp_path / "net.h5", [first, *others], case)
    assert_same(case, load(path))


def _write_list(path: Path, layers: list[dict[str, Any]], case: Case) -> Path:
    model = {"class_name": "Sequential", "config": {"layers": layers}}
    files.write_legacy(path, model, case.weights, version="2.0.8")
    with h5py.File(path, "r+") as file:
        model["config"] = layers
        file.attrs["model_config"] = np.bytes_(json.dumps(model))
        for group in file["model_weights"].values():
            names = np.array([n.encode() for n in group.attrs["weight_names"]], dtype="S")
            del group.attrs["weight_names"]
            for i, part in enumerate(names):
                group.attrs[f"weight_names{i}"] = np.array([part])
    return path


@pytest.mark.parametrize("frozen", [False, True])
def test_weights_of_inner_networks_stand_in_one_row(frozen: bool, tmp_path: Path) -> None:
    """All that was trained comes first, then the statistics; if frozen, layer by layer."""
    drawn = Drawn(9)
    one = drawn.kernel("one", 8, 6, fan_in=8, bias=6)
    norm = drawn.norm("norm", 6)
    two = drawn.kernel("two", 6, 5, fan_in=6, bias=5)
    inner = files.sequential(
        files.dense("one", 6, trainable=not frozen),
        files.batch_norm("norm", 1, trainable=not frozen),
        files.dense("two", 5, trainable=not frozen),
        name="inner",
    )
    inner["config"]["trainable"] = not frozen
    inner |= {"name": "inner", "inbound_nodes": [[["input_1", 0, 0, {}]]]}
    model = files.functional(files.image_input("input_1", 8), inner, files.step("spikes", "inner"))
    row = [pair for name in ("one", "norm", "two") for pair in drawn.weights[name]]
    if not frozen:
        row.sort(key=lambda pair: "moving" in pair[0])
    path = files.write_legacy(tmp_path / "net.h5", model, {"inner": row})
    loaded = load(path)
    hand = (
        L.Dense(name="one", inputs=("input",), **one),
        L.BatchNorm(name="norm", inputs=("one",), epsilon=1e-3, **norm),
        L.Dense(name="two", inputs=("norm",), **two),
        L.Step(name="spikes", inputs=("two",)),
    )
    case = Case(model, {}, Model("by hand", loaded.input, hand))
    assert [layer.name for layer in loaded.layers] == [
        "inner/one", "inner/norm", "inner/two", "spikes",
    ]  # fmt: skip
    samples = case.samples()
    np.testing.assert_array_equal(
        reference.forward(loaded, samples)["spikes"],
        reference.forward(case.model, samples)["spikes"],
    )


@pytest.mark.parametrize("numbers", [[0, 1], [1, 2]])
def test_layer_used_twice(numbers: list[int], tmp_path: Path) -> None:
    """Files count the calls of an inner network from 0 or from 1."""
    drawn = Drawn(10)
    values = drawn.kernel("dense", 6, 6, fan_in=6, bias=6)
    inner = files.sequential(files.dense("dense", 6), files.step("spikes"), name="inner")
    first, second = numbers
    inner |= {
        "name": "inner",
        "inbound_nodes": [[["input_1", 0, 0, {}]], [["inner", first, 0, {}]]],
    }
    add = files.layer("Add", "add", "inner", "inner")
    add["inbound_nodes"] = [[["inner", first, 0, {}], ["inner", second, 0, {}]]]
    model = files.functional(files.image_input("input_1", 6), inner, add, files.step("last", "add"))
    row = [*drawn.weights["dense"]]
    loaded = load(files.write_legacy(tmp_path / "net.h5", model, {"inner": row}))
    names = ["inner/dense", "inner/spikes", "inner/dense_2", "inner/spikes_2", "add", "last"]
    assert [layer.name for layer in loaded.layers] == names
    one, two = loaded["inner/dense"], loaded["inner/dense_2"]
    assert isinstance(one, L.Dense) and isinstance(two, L.Dense)
    np.testing.assert_array_equal(one.weight, values["weight"])
    np.testing.assert_array_equal(two.weight, values["weight"])
    assert two.inputs == ("inner/spikes",)
    assert loaded["add"].inputs == ("inner/spikes", "inner/spikes_2")


def _small(*layers: dict[str, Any], shape: tuple[int, ...] = (4,)) -> dict[str, Any]:
    return files.sequential(files.image_input("input_1", *shape), *layers)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "code": (
        _small(files.layer("Lambda", "code", function=["4wEAAAA=", None, None])),
        "layer 'code': a layer of kind 'Lambda' cannot be loaded: it holds code, which whetsim "
        "never runs. Put layers of Keras in its place.",
    ),
    "recurrent": (
        _small(files.layer("LSTM", "memory", units=3), shape=(5, 4)),
        "layer 'memory': a layer of kind 'LSTM' cannot be loaded: it is recurrent, and one sample "
        "is one pass here.",
    ),
    "wrapped": (
        _small(files.layer("TimeDistributed", "each", layer={}), shape=(5, 4)),
        "layer 'each': a layer of kind 'TimeDistributed' cannot be loaded: it wraps a layer for "
        "each time step. Use the layer on the whole input.",
    ),
    "class of a user": (
        _small(files.layer("mine>Binary", "steps")),
        "layer 'steps': a layer of kind 'mine>Binary' cannot be loaded: it is a class of its "
        "author, whose code is not in the file. For steps, use Spiking_BRelu of Whetstone or "
        "SpikingBReLU of whetsim, or write the network as ONNX.",
    ),
    "misspelled": (
        _small(files.layer("Dens", "one", units=2)),
        "layer 'one': a layer of kind 'Dens' cannot be loaded: it has no exact form here. Did you "
        "mean 'Dense'? Replace it, or write the network as ONNX.",
    ),
    "activation of a user": (
        _small(files.dense("one", 4, activation={"class_name": "mine>step", "config": {}})),
        "layer 'one': activation 'mine>step' is unknown (known: linear, relu, sigmoid, tanh, "
        "softmax). For steps, put a layer Spiking_BRelu of Whetstone or SpikingBReLU of whetsim "
        "behind it, or write the comparison in ONNX.",
    ),
    "softmax inside": (
        _small(files.dense("one", 4, activation="softmax"), files.dense("two", 4)),
        "layer 'two': it reads the softmax of 'one', which has no form as spikes except as the "
        "last layer.",
    ),
    "leaky": (
        _small(files.layer("ReLU", "leaky", negative_slope=0.1)),
        "layer 'leaky': negative_slope = 0.1 cannot be expressed (need 0 or None).",
    ),
    "renorm": (
        _small(files.batch_norm("norm", 1, renorm=True)),
        "layer 'norm': renorm = True cannot be expressed (need False or None).",
    ),
    "units": (
        _small(files.dense("one", 5)),
        "layer 'one': kernel has shape (4, 4); expected (4, 5) because of its configuration and "
        "input.",
    ),
    "no setting": (
        _small({"class_name": "Dense", "config": {"name": "one"}}),
        "layer 'one': its configuration has no units. The file is damaged.",
    ),
    "bilinear": (
        _small(
            files.layer("UpSampling2D", "up", size=2, interpolation="bilinear"), shape=(2, 2, 1)
        ),
        "layer 'up': interpolation = 'bilinear' cannot be expressed (need 'nearest' or None).",
    ),
    "any size": (
        files.sequential(files.image_input("input_1", 4, 4, 1) | {
            "config": {"name": "input_1", "batch_input_shape": [None, None, 4, 1]}
        }),
        "the network reads samples of any size (shape (None, 4, 1); need whole numbers). Build it "
        "with a fixed keras.Input(shape), set its weights, and save it again.",
    ),
    "no shape": (
        files.sequential(files.dense("one", 4)),
        "the file does not say which shape the network reads. Begin the network with "
        "keras.Input(shape) and save it again.",
    ),
    "subclass": (
        {"class_name": "MyModel", "config": {"layers": []}},
        "the model is of the class 'MyModel'; need Sequential or Functional, whose layers the file "
        "lists. Build it with keras.Sequential or keras.Model(inputs, outputs).",
    ),
    "two outputs": (
        files.functional(
            files.image_input("input_1", 4),
            files.dense("one", 4, "input_1"),
            output_layers=[["one", 0, 0], ["input_1", 0, 0]],
        ),
        "the network has 2 outputs (need one). Save a model of one: keras.Model(model.inputs[0], "
        "model.outputs[0]).",
    ),
    "missing source": (
        files.functional(files.image_input("input_1", 4), files.dense("one", 4, "other")),
        "layer 'other' is read, but it is not in the file.",
    ),
    "circle": (
        files.functional(
            files.image_input("input_1", 4),
            files.dense("one", 4, "two"),
            files.dense("two", 4, "one"),
        ),
        "nothing makes output 0 of call 0 of layer 'two', which is read. The file is damaged, or "
        "layers form a circle.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str, tmp_path: Path) -> None:
    config, text = REFUSED[name]
    ones = np.ones((4, 4), np.float32)
    weights = {k: [(f"{k}/kernel:0", ones), (f"{k}/bias:0", ones[0])] for k in ("one", "two")}
    path = files.write_legacy(tmp_path / "net.h5", config, weights)
    with pytest.raises(FormatError) as caught:
        load(path)
    assert str(caught.value) == f"net.h5: {text}"


def test_called_as_in_training(tmp_path: Path) -> None:
    dropout = files.layer("Dropout", "drop", "input_1", rate=0.5)
    dropout["inbound_nodes"] = [[["input_1", 0, 0, {"training": True}]]]
    config = files.functional(files.image_input("input_1", 4), dropout, files.step("s", "drop"))
    with pytest.raises(FormatError, match=r"layer 'drop': it is called with training = True"):
        load(files.write_legacy(tmp_path / "net.h5", config, {}))


def test_constant_added_to_a_tensor(tmp_path: Path) -> None:
    config = files.in_keras_3(
        files.functional(
            files.image_input("input_1", 4), files.layer("Add", "add", "input_1", "input_1")
        )
    )
    add = config["config"]["layers"][1]
    add["inbound_nodes"][0]["args"] = [add["inbound_nodes"][0]["args"][0][0], 0.5]
    path = files.write_archive(tmp_path / "net.keras", config, {})
    with pytest.raises(FormatError, match=r"layer 'add': it is called with argument 0 = 0.5"):
        load(path)


def test_weights_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "net.h5", CASES["dense"])
    with h5py.File(path, "r+") as file:
        del file.attrs["model_config"]
    with pytest.raises(FormatError) as caught:
        load(path)
    assert str(caught.value) == (
        "net.h5: it holds weights and no network. Save the whole model: "
        "model.save('network.keras') or model.save('network.h5')."
    )


def test_weights_of_keras_3_alone(tmp_path: Path) -> None:
    path = tmp_path / "net.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/dense/vars/0", data=np.zeros((2, 2), np.float32))
    with pytest.raises(FormatError, match=r"it holds weights and no network\. Save"):
        load(path)


def test_other_hdf5_is_none_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "table.h5"
    with h5py.File(path, "w") as file:
        file["values"] = np.zeros(3)
    with pytest.raises(FormatError, match="an HDF5 file that holds neither a Keras model nor"):
        load(path)


def test_weights_swapped(tmp_path: Path) -> None:
    case = CASES["dense"]
    kernel, bias = case.weights["dense"]
    weights = dict(case.weights) | {"dense": [bias, kernel]}
    with pytest.raises(FormatError, match=r"layer 'dense': its kernel is not in the file where"):
        load(files.write_legacy(tmp_path / "net.h5", case.config, weights))


def test_too_many_weights(tmp_path: Path) -> None:
    case = CASES["dense"]
    more = ("dense/lora_a:0", np.zeros((20, 1), np.float32))
    weights = dict(case.weights) | {"dense": [*case.weights["dense"], more]}
    with pytest.raises(FormatError, match=r"layer 'dense': the file has 3 weights for it \(need 2"):
        load(files.write_legacy(tmp_path / "net.h5", case.config, weights))


def test_weights_of_another_layer(tmp_path: Path) -> None:
    """Newer versions write the name of the layer beside its weights."""
    path = write_archive(tmp_path / "net.keras", "residual")
    names = {"layers/dense": "other"}
    arrays = {
        g: [a for _, a in CASES["residual"].weights[n]] for g, n in GROUPS["residual"].items()
    }
    config = files.in_keras_3(CASES["residual"].config)
    path = files.write_archive(tmp_path / "net.keras", config, arrays, names=names)
    with pytest.raises(
        FormatError, match=r"layer 'dense': its weights should be at 'layers/dense/"
    ):
        load(path)


@pytest.mark.parametrize("version", ["0.3.2", "1.2.2"])
def test_keras_1(version: str, tmp_path: Path) -> None:
    case = CASES["dense"]
    path = files.write_legacy(tmp_path / "net.h5", case.config, case.weights, version=version)
    with pytest.raises(FormatError, match=f"it was written by Keras '{version}'"):
        load(path)


def test_kernels_of_theano(tmp_path: Path) -> None:
    path = write(tmp_path / "net.h5", CASES["conv"])
    with h5py.File(path, "r+") as file:
        file.attrs["backend"] = b"theano"
    with pytest.raises(FormatError, match="Theano backend, which turns kernels around"):
        load(path)


def test_half_precision_is_said(tmp_path: Path) -> None:
    policy = {"class_name": "Policy", "config": {"name": "mixed_float16"}}
    case = CASES["dense"]
    config = json.loads(json.dumps(case.config))
    config["config"]["layers"][1]["config"]["dtype"] = policy
    loaded = load(files.write_legacy(tmp_path / "net.h5", config, case.weights))
    (remark,) = loaded.metadata["source"]["remarks"]
    assert "'dense' was trained in 'mixed_float16'" in remark


def test_input_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "net.h5", CASES["dense"])
    with pytest.raises(FormatError, match=r"net.h5: input: the file does not say"):
        whetsim.load(path)
