"""ONNX files: input and output, names, weights outside, and what whetsim writes itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whetsim
from tests.formats.onnx_graphs import (
    Draw,
    computed,
    load,
    network,
    node,
    onnx,
    runtime,
    same_values,
    written,
)
from whetsim.errors import FormatError, WhetsimError
from whetsim.reference import forward

DRAW = Draw(7)
weights, samples = DRAW.weights, DRAW.samples


def classifier(final: Sequence[Any]) -> Any:
    nodes = [
        node("Gemm", "x w b", "h"),
        node("GreaterOrEqual", "h t", "c"),
        node("Cast", "c", "s", to=1),
        node("Gemm", "s v d", "scores"),
        *final,
    ]
    constants = {"w": weights(6, 8), "b": weights(8), "t": np.float32(0.5)}
    return network(nodes, (6,), constants | {"v": weights(8, 4), "d": weights(4)})


@pytest.mark.parametrize(
    ("final", "remark"),
    [
        ([node("Identity", "scores")], None),
        ([node("Softmax", "scores", axis=-1)], "Softmax is left out"),
        ([node("LogSoftmax", "scores", axis=1)], "LogSoftmax is left out"),
        ([node("Softmax", "scores", "p"), node("Identity", "p")], "Softmax is left out"),
        ([node("ArgMax", "scores", axis=1)], "ArgMax is left out"),
        ([node("Softmax", "scores", "p"), node("ArgMax", "p", axis=1, keepdims=0)], "ArgMax"),
    ],
)
def test_class_scores_become_a_readout(
    final: Sequence[Any], remark: str | None, tmp_path: Path
) -> None:
    model = classifier(final)
    loaded = load(model, tmp_path, input_range=(-16, 16))
    x = samples(6, n=50)
    assert loaded.readout is not None
    scores = loaded.readout.scores(computed(loaded, x))
    inputs = {"x": x.astype(np.float32) * np.float32(0.25)}
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    plain.graph.output[0].name = "scores"
    wanted = runtime(plain, inputs["x"], "scores")
    np.testing.assert_allclose(scores, wanted, atol=1e-5)
    told = loaded.metadata["source"].get("remarks", [])
    assert told == [] if remark is None else remark in told[0]
    recording = whetsim.run(whetsim.map_to_spikes(loaded), x, backend="exact")
    assert np.array_equal(recording.predictions, scores.argmax(1))


def test_a_softmax_inside_is_refused(tmp_path: Path) -> None:
    nodes = [node("Softmax", "x", "p"), node("Gemm", "p w")]
    with pytest.raises(FormatError, match=r"follows a final layer .*Softmax.* Cut the network"):
        load(network(nodes, (3,), {"w": weights(3, 3)}), tmp_path)


def test_layers_are_called_as_their_nodes_and_modules(tmp_path: Path) -> None:
    names = ["/fc1/Gemm", "/act1/GreaterOrEqual", "/act1/Cast", "/head/fc2/MatMul", "/head/fc2/Add"]
    nodes = [
        node("Gemm", "x w", "h"),
        node("Greater", "h t", "c"),
        node("Cast", "c", "s", to=1),
        node("MatMul", "s v", "m"),
        node("Add", "m d", "k"),
        node("Greater", "k t", "q"),
        node("Cast", "q", "y", to=1),
    ]
    for entry, name in zip(nodes, [*names, "/Greater", "/Cast"], strict=True):
        entry.name = name
    constants = {"w": weights(3, 3), "t": np.float32(0.5), "v": weights(3, 2), "d": weights(2)}
    loaded = load(network(nodes, (3,), constants), tmp_path)
    assert [layer.name for layer in loaded.layers] == ["fc1", "act1", "head.fc2", "Greater"]
    assert loaded.metadata["source"]["steps"] == {
        "act1": "Greater, threshold 0.5",
        "Greater": "Greater, threshold 0.5",
    }
    assert loaded.name == "net"
    source = loaded.metadata["source"]
    assert (source["format"], source["opset"], source["producer"]) == ("onnx", 17, "tests")


def external(folder: Path, location: str, **more: str) -> Any:
    model = network([node("Gemm", "x w")], (4,), {"w": weights(4, 3)})
    (tensor,) = model.graph.initializer
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    (folder / "weights.bin").write_bytes(b"abcd" + data)
    return model, np.frombuffer(data, np.float32).reshape(4, 3)


def test_weights_beside_the_file(tmp_path: Path) -> None:
    model, w = external(tmp_path, "weights.bin", offset="4", length="48")
    x = samples(4)
    np.testing.assert_array_equal(computed(load(model, tmp_path), x), (x / 4) @ w)


def test_weights_in_a_folder_below(tmp_path: Path) -> None:
    model, w = external(tmp_path, "data/weights.bin", offset="4")
    (tmp_path / "data").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "data" / "weights.bin")
    x = samples(4)
    np.testing.assert_array_equal(computed(load(model, tmp_path), x), (x / 4) @ w)


@pytest.mark.parametrize(
    ("location", "more", "match"),
    [
        ("../weights.bin", {}, "need a file beside the model"),
        ("data/../../weights.bin", {}, "need a file beside the model"),
        ("/etc/hostname", {}, "need a file beside the model"),
        ("C:\\weights.bin", {}, "need a file beside the model"),
        ("..\\weights.bin", {}, "need a file beside the model"),
        ("", {}, "need a file beside the model"),
        ("link.bin", {}, "lies outside the model's folder"),
        ("linked/weights.bin", {}, "lies outside the model's folder"),
        ("none.bin", {}, "is no file beside the model"),
        (".", {}, "is no file beside the model"),
        ("weights.bin", {"offset": "5"}, "needs 48 bytes from byte 5 of 'weights.bin', which has"),
        ("weights.bin", {"offset": "-4"}, "'-4' is no number of bytes"),
        ("weights.bin", {"offset": "1e9"}, "'1e9' is no number of bytes"),
        ("weights.bin", {"offset": "9" * 30}, "is no number of bytes"),
        ("weights.bin", {"length": "47"}, "length says 47"),
    ],
)
def test_weights_elsewhere_are_refused(
    location: str, more: dict[str, str], match: str, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    model, _ = external(folder, location, **more)
    (tmp_path / "weights.bin").write_bytes(bytes(100))
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    (folder / "linked").symlink_to(tmp_path)
    with pytest.raises(FormatError, match=match) as caught:
        load(model, folder)
    assert str(caught.value).startswith("net.onnx: ")


def test_open_axes_are_refused_with_advice(tmp_path: Path) -> None:
    model = network([node("Neg", "x")], ("h", 3))
    with pytest.raises(FormatError, match=r"axis 1 has no fixed size .* fixed input shape"):
        load(model, tmp_path)


def test_several_inputs_or_outputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"has 2 outputs, 'y', 'z' \(need one\)"):
        load(network([node("Neg", "x"), node("Abs", "x", "z")], (3,), outputs=("y", "z")), tmp_path)
    model = network([node("Add", "x x2")], (3,))
    model.graph.input.append(onnx.helper.make_tensor_value_info("x2", 1, [1, 3]))
    with pytest.raises(FormatError, match=r"has 2 inputs, 'x', 'x2' \(need one\)"):
        load(model, tmp_path)


def test_an_input_that_is_also_a_constant_is_a_constant(tmp_path: Path) -> None:
    model = network([node("Mul", "x s")], (3,), {"s": weights(3)})
    model.graph.input.append(onnx.helper.make_tensor_value_info("s", 1, [3]))
    same_values(model, tmp_path, samples(3))


def test_the_file_needs_an_input_scale(tmp_path: Path) -> None:
    path = written(network([node("Neg", "x")], (3,)), tmp_path / "net.onnx")
    with pytest.raises(FormatError, match=r"net.onnx: input: .*Give input_scale"):
        whetsim.load(path)


def test_old_opsets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"written in opset 9 \(need 13 to"):
        load(network([node("Neg", "x")], (3,), opset=9), tmp_path)


@pytest.mark.parametrize("opset", [13, 15, 18, 20, 22])
def test_opsets(opset: int, tmp_path: Path) -> None:
    nodes = [node("Conv", "x k", "c", pads=[1, 1, 1, 1]), node("MaxPool", "c", kernel_shape=[2, 2])]
    model = network(nodes, (2, 5, 5), {"k": weights(3, 2, 3, 3)}, opset=opset)
    same_values(model, tmp_path, samples(2, 5, 5))


def test_an_empty_batch_one_sample_and_zeros(tmp_path: Path) -> None:
    loaded = load(classifier([node("Identity", "scores")]), tmp_path)
    assert computed(loaded, np.zeros((0, 6), int)).shape == (0, 8)
    assert computed(loaded, np.zeros((1, 6), int)).shape == (1, 8)


# What whetsim writes itself.


def test_what_whetsim_writes_comes_back(tmp_path: Path) -> None:
    from whetsim.bundled import find_network

    model = whetsim.load(find_network("digits_conv"))
    whetsim.save(model, tmp_path / "net.onnx")
    back = whetsim.load(tmp_path / "net.onnx")
    assert (back.name, back.input, dict(back.metadata)) == (
        model.name,
        model.input,
        dict(model.metadata),
    )
    assert [(a.kind, a.name) for a in back.layers] == [(a.kind, a.name) for a in model.layers]
    assert model.readout is not None and back.readout is not None
    assert np.array_equal(back.readout.matrix, model.readout.matrix)
    x = DRAW.rng.integers(model.input.low, model.input.high + 1, (30, *model.input.shape))
    ours, theirs = forward(model, x), forward(back, x)
    for layer in model.layers:
        assert np.array_equal(ours[layer.name], theirs[layer.name])


def test_what_whetsim_writes_needs_no_scale(tmp_path: Path) -> None:
    from whetsim.bundled import find_network

    whetsim.save(whetsim.load(find_network("digits_conv")), tmp_path / "net.onnx")
    with pytest.raises(FormatError, match=r"net.onnx: the file says itself .* Leave"):
        whetsim.load(tmp_path / "net.onnx", input_scale=0.5)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "cannot be read"),
        ("[]", "must be a JSON object"),
        ("{}", "'input' needs low, high and scale"),
        ("[" * 100_000, "cannot be read"),
        ('{"input": {"low": 0, "high": 1, "scale": 0}}', "scale must be positive"),
        ('{"input": {"low": 0, "high": 1, "scale": "a"}}', "scale must be a finite number"),
        ('{"input": {"low": 0.5, "high": 1, "scale": 1}}', "whole numbers"),
        ('{"input": {"low": 0, "high": 1, "scale": 1}, "readout": 3}', "needs a key or a decoder"),
        ('{"input": {"low": 0, "high": 1, "scale": 1}, "readout": {"key": 3}}', "list of rows"),
        ('{"input": {"low": 0, "high": 1, "scale": 1}, "readout": {"key": [[1], [1, 0]]}}', "."),
        ('{"input": {"low": 0, "high": 1, "scale": 1}, "readout": {"key": [["a"]]}}', "."),
        ('{"input": {"low": 0, "high": 1, "scale": 1}, "readout": {"key": [[1, 0]]}}', "readout: "),
    ],
)
def test_a_damaged_entry_is_refused(text: str, match: str, tmp_path: Path) -> None:
    model = network([node("Neg", "x")], (3,))
    model.metadata_props.add(key="whetsim", value=text)
    with pytest.raises(FormatError, match=match):
        whetsim.load(written(model, tmp_path / "net.onnx"))


def test_a_second_output_is_ignored_in_a_file_of_whetsim(tmp_path: Path) -> None:
    nodes = [node("Neg", "x", "spikes"), node("Erf", "spikes", "scores")]
    model = network(nodes, (3,), outputs=("spikes", "scores"))
    told = {"name": "own", "input": {"low": -1, "high": 1, "scale": 0.5}, "readout": None}
    model.metadata_props.add(key="whetsim", value=json.dumps(told | {"metadata": {"a": 1}}))
    loaded = whetsim.load(written(model, tmp_path / "net.onnx"))
    assert (loaded.name, loaded.input.low, loaded.input.scale) == ("own", -1, 0.5)
    assert dict(loaded.metadata) == {"a": 1}


# Which files are ONNX.


def test_onnx_is_recognized_by_content(tmp_path: Path) -> None:
    from whetsim.formats.onnx import reader as onnx_reader

    model = network([node("Neg", "x")], (3,))
    path = written(model, tmp_path / "any.name")
    assert onnx_reader.recognizes(path, path.read_bytes()[:16])
    cut = tmp_path / "cut"
    cut.write_bytes(path.read_bytes()[:-10])
    assert onnx_reader.recognizes(cut, cut.read_bytes()[:16])
    with pytest.raises(FormatError, match=r"not a valid ONNX message. The file is cut off"):
        whetsim.load(cut)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08",
        b"\x08\x07",
        b"\x08\x07 and some text",
        b"\x08\x01" * 40_000,
        b"\x08\x08\x12\x03abc",
        b"\x08\x07:\x00",
        b"PK\x03\x04",
        b"\x80\x04\x95\x00",
    ],
    ids=repr,
)
def test_other_files_are_not_taken_for_onnx(content: bytes, tmp_path: Path) -> None:
    from whetsim.formats.onnx import reader as onnx_reader

    path = tmp_path / "file"
    path.write_bytes(content)
    assert not onnx_reader.recognizes(path, content[:16])
    with pytest.raises(WhetsimError):
        whetsim.load(path)
