"""Files that must be refused: each with its own message of one line."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whetsim
from whetsim import layers as L
from whetsim.errors import FormatError
from whetsim.model import InputSpec, Model

from .files import (
    file_bytes,
    layer,
    layout,
    pack,
    refused,
    small_graph,
    small_tensors,
    write,
)

Graph = dict[str, Any]
Tensors = dict[str, np.ndarray]
Change = Callable[[Graph, Tensors], object]


def test_the_small_network_is_valid(tmp_path: Path) -> None:
    model = whetsim.load(write(tmp_path, file_bytes()))
    assert [x.kind for x in model.layers] == ["dense", "step"]


# --- no file, or no network file at all ---------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.safetensors", "no such file")


def test_folder(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder")


def test_empty_file(tmp_path: Path) -> None:
    refused(write(tmp_path, b""), "the file is empty")


def test_unreadable_path() -> None:
    with pytest.raises(FormatError, match=r"no such file|cannot be read"):
        whetsim.load("x" * 5000)


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.ones(3))
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


def torch_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": 1}))
    return buffer.getvalue()


ONNX = b"\x08\x08\x12\x07pytorch\x1a\x051.0.0:\x80\x01"
HDF5 = b"\x89HDF\r\n\x1a\n\x00\x00\x00\x00\x00\x08\x08\x00" + bytes(200)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (HDF5, "HDF5"),
        (npz(), "zip archive"),
        (torch_zip(), "zip archive"),
        (ONNX, "ONNX"),
        (npy(), "NumPy array"),
        (gzip.compress(file_bytes()), "gzip"),
        (b"{}", "no whetsim file"),
        (b"not a network\n" * 20, "no whetsim file"),
        (bytes(1000), "no whetsim file"),
        (b"\xff" * 1000, "no whetsim file"),
    ],
    ids=["hdf5", "npz", "torch", "onnx", "npy", "gzip", "json", "text", "zeros", "ones"],
)
def test_foreign_files_are_named(data: bytes, match: str, tmp_path: Path) -> None:
    refused(write(tmp_path, data), match)


class Trap:
    """Writes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "executed")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_in_disguise_is_not_executed(protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    data = pickle.dumps(Trap(mark), protocol)
    pickle.loads(data)
    assert mark.read_text() == "executed", "the trap works"
    mark.unlink()
    match = "pickle.* runs the code" if protocol >= 2 else "pickle|no whetsim file"
    refused(write(tmp_path, data), match)
    assert not mark.exists()


def test_a_pickle_that_looks_like_safetensors_is_not_executed(tmp_path: Path) -> None:
    # A text first, so that the ninth byte is the brace that a safetensors header begins with.
    mark = tmp_path / "mark"
    data = b"V1234567{\n0" + pickle.dumps(Trap(mark), 0)
    assert data[8:9] == b"{"
    pickle.loads(data)
    assert mark.exists()
    mark.unlink()
    refused(write(tmp_path, data), "header claims .* bytes")
    assert not mark.exists()


# --- damage -------------------------------------------------------------------------------------


def test_truncations_are_refused(tmp_path: Path) -> None:
    data = file_bytes()
    for length in range(0, len(data), 3):
        refused(write(tmp_path, data[:length]), "empty|cut off|no whetsim file|not a valid")


def test_truncations_say_cut_off(tmp_path: Path) -> None:
    data = file_bytes()
    for length in (9, 20, len(data) // 2):
        refused(write(tmp_path, data[:length]), "claims .* but the file has .* cut off")
    refused(write(tmp_path, data[:-1]), "not a valid safetensors file")


def test_every_single_bit_flip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    dense = L.Dense(name="d", inputs="input", weight=np.array([[0.5, -1]], np.float32))
    whetsim.save(Model("m", InputSpec((1,)), (dense,)), path)
    whole = bytearray(path.read_bytes())
    for place in range(len(whole)):
        for bit in range(8):
            whole[place] ^= 1 << bit
            path.write_bytes(whole)
            with pytest.raises(FormatError) as caught:
                whetsim.load(path)
            assert str(caught.value).isprintable()
            whole[place] ^= 1 << bit
    path.write_bytes(whole)
    assert whetsim.load(path).name == "m"


def test_a_changed_weight_is_found_by_the_checksum(tmp_path: Path) -> None:
    data = bytearray(file_bytes())
    data[-1] ^= 1
    refused(write(tmp_path, bytes(data)), "checksum .* does not match")


def test_a_changed_graph_is_found_by_the_checksum(tmp_path: Path) -> None:
    data = file_bytes().replace(b'\\"threshold\\": 0.5', b'\\"threshold\\": 0.6')
    refused(write(tmp_path, data), "checksum .* does not match")


def test_appended_bytes_are_refused(tmp_path: Path) -> None:
    refused(write(tmp_path, file_bytes() + b"x"), "not a valid safetensors file")


@pytest.mark.parametrize("claim", [2**22 + 1, 2**30, 2**40, 2**63, 2**64 - 1])
def test_a_huge_header_is_refused_before_it_is_read(claim: int, tmp_path: Path) -> None:
    data = file_bytes()
    refused(write(tmp_path, claim.to_bytes(8, "little") + data[8:]), f"header claims {claim} bytes")


def test_a_huge_header_in_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    with path.open("wb") as file:
        file.write((2**30).to_bytes(8, "little") + b"{")
        file.truncate(2**30 + 8)  # sparse: it takes no room on the disk
    start = time.perf_counter()
    refused(path, "header claims 1073741824 bytes")
    assert time.perf_counter() - start < 1


# --- the container ------------------------------------------------------------------------------


def test_tensors_without_a_network(tmp_path: Path) -> None:
    top, data = layout(small_graph(), small_tensors())
    del top["__metadata__"]
    refused(write(tmp_path, pack(top, data)), "holds tensors but no network")
    top["__metadata__"] = {"format": "pt"}
    refused(write(tmp_path, pack(top, data)), "holds tensors but no network")
    top["__metadata__"] = ["whetsim"]
    refused(write(tmp_path, pack(top, data)), "holds tensors but no network")


@pytest.mark.parametrize("dtype", ["I32", "BF16", "BOOL", "F8_E4M3", "C64", "", None, 4, ["F32"]])
def test_tensor_types(dtype: object, tmp_path: Path) -> None:
    top, data = layout(small_graph(), small_tensors())
    top["b"]["dtype"] = dtype
    refused(write(tmp_path, pack(top, data)), "tensor 'b': type .*need F16, F32, F64, U8")


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.update(shape=[3]),
        lambda entry: entry.update(shape=[-2]),
        lambda entry: entry.update(shape=[2.0]),
        lambda entry: entry.update(shape="2"),
        lambda entry: entry.update(shape=[2**62, 2**62]),
        lambda entry: entry.update(shape=[10**30]),
        lambda entry: entry.update(data_offsets=[0, 2**63]),
        lambda entry: entry.update(data_offsets=[8, 0]),
        lambda entry: entry.update(data_offsets=[4, 12]),
        lambda entry: entry.update(data_offsets=None),
        lambda entry: entry.pop("shape"),
        lambda entry: entry.pop("data_offsets"),
    ],
)
def test_broken_tensor_entries(change: Callable[[Any], object], tmp_path: Path) -> None:
    top, data = layout(small_graph(), small_tensors())
    change(top["b"])
    refused(write(tmp_path, pack(top, data)), "not a valid safetensors file")


def test_a_tensor_entry_that_is_no_object(tmp_path: Path) -> None:
    top, data = layout(small_graph(), small_tensors())
    top["b"] = [1, 2]
    refused(write(tmp_path, pack(top, data)), "tensor 'b'")


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (b"{", "header: is not JSON"),
        (b"{]", "header: is not JSON"),
        (b'{"a": 1,}', "header: is not JSON"),
        (b'{"\xff\xfe": 1}', "header: is not JSON"),
        (b'{"a": NaN}', "header: NaN is no number"),
        (b'{"a": -Infinity}', "header: -Infinity is no number"),
        (b'{"__metadata__": {}, "__metadata__": {}}', "name '__metadata__' is used twice"),
        (b"{}   ", "holds tensors but no network"),
    ],
)
def test_broken_headers(header: bytes, match: str, tmp_path: Path) -> None:
    refused(write(tmp_path, pack(header)), match)


def test_a_metadata_entry_that_is_no_text(tmp_path: Path) -> None:
    refused(write(tmp_path, pack({"__metadata__": {"whetsim": 5}})), "header entry 'whetsim'")
    refused(write(tmp_path, pack({"__metadata__": {"whetsim": "0" * 64}})), "is not JSON")
    refused(write(tmp_path, pack({"__metadata__": {"whetsim": "0" * 64 + " []"}})), "JSON object")


@pytest.mark.parametrize("open_", ["[", '{"a":'])
def test_deep_nesting(open_: str, tmp_path: Path) -> None:
    deep = open_ * 100_000
    refused(write(tmp_path, pack('{"a":' + deep)), "recursion|not JSON|nest")
    close = {"[": "]", '{"a":': "}"}[open_]
    text = json.dumps(small_graph())[:-1] + f', "deep": {deep}0{close * 100_000}}}'
    refused(write(tmp_path, file_bytes(text)), "recursion|not JSON|nest")


def test_deep_nesting_in_the_metadata(tmp_path: Path) -> None:
    text = json.dumps(small_graph()).replace(
        '"metadata": {}', '"metadata": {"a": ' + "[" * 900 + "]" * 900 + "}"
    )
    path = write(tmp_path, file_bytes(text))
    try:
        assert whetsim.load(path).name == "small"
    except FormatError as error:
        assert "recursion" in str(error)


# --- the graph ----------------------------------------------------------------------------------


def put(*path: Any, value: Any) -> Change:
    """Return a change that sets one place of the graph."""

    def change(graph: Graph, tensors: Tensors) -> None:
        place: Any = graph
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def drop(*path: Any) -> Change:
    """Return a change that removes one place of the graph."""

    def change(graph: Graph, tensors: Tensors) -> None:
        place: Any = graph
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


def tensor(name: str, value: Any) -> Change:
    """Return a change that replaces a tensor."""
    return lambda graph, tensors: tensors.update({name: np.asarray(value)})


def add_layer(*values: Any, **named: Any) -> Change:
    """Return a change that appends a layer."""
    return lambda graph, tensors: graph["layers"].append(layer(*values, **named))


def f4(*values: Any) -> np.ndarray:
    return np.array(values, "<f4")


DENSE = ("layers", 0)
STEP = ("layers", 1)
BAD_GRAPHS: dict[str, tuple[Change, str]] = {
    # format and version
    "wrong format name": (put("format", value="nir"), "format is 'nir' .need 'whetsim'"),
    "no format name": (drop("format"), "format is None"),
    "format name is a number": (put("format", value=1), "format is 1 "),
    "newer version": (put("version", value=2), "version is 2; .* reads version 1. Update"),
    "version zero": (put("version", value=0), "version is 0"),
    "version is a text": (put("version", value="1"), "version is '1'"),
    "version is true": (put("version", value=True), "version is True"),
    "version is a float": (put("version", value=1.0), "version is 1.0"),
    "no version": (drop("version"), "version is None"),
    # the graph as a whole
    "no name": (drop("name"), "'name' is missing"),
    "no layers": (drop("layers"), "'layers' is missing"),
    "no output": (drop("output"), "'output' is missing"),
    "no metadata": (drop("metadata"), "'metadata' is missing"),
    "no input": (drop("input"), "'input' is missing"),
    "unknown entry": (put("layer", value=[]), "header: 'layer' is unknown. Did you mean 'layers'"),
    "layers are no list": (put("layers", value={}), "layers must be a list"),
    "empty layers": (put("layers", value=[]), "the model has no layers"),
    "a layer is a text": (put("layers", 0, value="dense"), "layer must be an object"),
    "name is a list": (put("name", value=["x"]), "name must be a text"),
    "name is empty": (put("name", value=""), "name must be a text of 1 to 200"),
    "name is long": (put("name", value="x" * 201), "name must be a text of 1 to 200"),
    "name with a line break": (put("name", value="two\nlines"), "name.* printable"),
    "name with an escape": (put("name", value="\x1b[31mred"), "name.* printable"),
    "name is a lone surrogate": (put("name", value="\ud800"), "name"),
    "output is null": (put("output", value=None), "output must be a text"),
    "output is no layer": (
        put("output", value="stop"),
        "output 'stop' is no layer of the model. Did you mean 'step'",
    ),
    "output is the input": (put("output", value="input"), "output 'input' is no layer"),
    "metadata is a list": (put("metadata", value=[]), "metadata must be an object"),
    # the input
    "input is a list": (put("input", value=[3]), "input must be an object"),
    "input lacks its scale": (drop("input", "scale"), "input: 'scale' is missing"),
    "input with more": (put("input", "size", value=1), "input: 'size' is unknown"),
    "no axes": (put("input", "shape", value=[]), "1 to 16 axes"),
    "17 axes": (put("input", "shape", value=[1] * 17), "1 to 16 axes"),
    "shape is a number": (put("input", "shape", value=3), "shape must have 1 to 16 axes"),
    "negative size": (put("input", "shape", value=[-3]), "is empty or larger"),
    "zero size": (put("input", "shape", value=[3, 0]), "is empty or larger"),
    "negative sizes that cancel": (put("input", "shape", value=[-1, -3]), "is empty or larger"),
    "huge size": (put("input", "shape", value=[2**31]), "is empty or larger than 16777216"),
    "huge sizes": (put("input", "shape", value=[10**18] * 16), "is empty or larger"),
    "enormous size": (put("input", "shape", value=[10**4000]), "is empty or larger"),
    "broken size": (put("input", "shape", value=[2.5]), "must be whole numbers .got 2.5"),
    "size is true": (put("input", "shape", value=[True]), "must be whole numbers .got True"),
    "size is a text": (put("input", "shape", value=["3"]), "must be whole numbers"),
    "range upside down": (put("input", "low", value=1), "range 1..1 must be rising"),
    "range too wide": (put("input", "high", value=2**24 + 1), "within .*2.24"),
    "range is a float": (put("input", "high", value=1.5), "must be whole numbers"),
    "scale zero": (put("input", "scale", value=0), "scale must be .*(positive|finite)"),
    "scale negative": (put("input", "scale", value=-1.0), "scale must be .*(positive|finite)"),
    "scale is a text": (put("input", "scale", value="1"), "scale must be a .*number"),
    "scale is true": (put("input", "scale", value=True), "scale must be a .*number"),
    "scale is enormous": (put("input", "scale", value=10**400), "scale|too large"),
    # layers
    "no layer name": (drop(*DENSE, "name"), "layer name must be a text"),
    "no kind": (drop(*DENSE, "kind"), "layer 'dense': 'kind' is missing"),
    "no inputs": (drop(*DENSE, "inputs"), "layer 'dense': 'inputs' is missing"),
    "no parameters": (drop(*DENSE, "parameters"), "layer 'dense': 'parameters' is missing"),
    "no arrays": (drop(*DENSE, "arrays"), "layer 'dense': 'arrays' is missing"),
    "layer with more": (put(*DENSE, "bias", value=1), "layer 'dense': 'bias' is unknown"),
    "unknown kind": (
        put(*DENSE, "kind", value="densee"),
        "layer 'dense': kind 'densee' is unknown; known: dense, conv2d, .* Did you mean 'dense'",
    ),
    "kind is a list": (put(*DENSE, "kind", value=["dense"]), "kind .* is unknown"),
    "kind is null": (put(*DENSE, "kind", value=None), "kind None is unknown"),
    "layer called input": (put(*DENSE, "name", value="input"), "kept for the input"),
    "layer name with a line break": (put(*DENSE, "name", value="a\nb"), "name must be printable"),
    "layer name is a surrogate": (put(*DENSE, "name", value="\udcff"), "name must be printable"),
    "layer name is long": (put(*DENSE, "name", value="x" * 201), "1 to 200 characters"),
    "duplicate layer name": (put(*STEP, "name", value="dense"), "'dense': the name is used twice"),
    "unknown input": (
        put(*STEP, "inputs", value=["dens"]),
        "layer 'step': its input 'dens' is no layer of the model. Did you mean 'dense'",
    ),
    "inputs are a text": (put(*STEP, "inputs", value="dense"), "inputs must be a list of names"),
    "an input is a number": (put(*STEP, "inputs", value=[1]), "inputs must be layer names"),
    "an input is a list": (put(*STEP, "inputs", value=[["dense"]]), "inputs must be layer names"),
    "no input at all": (put(*STEP, "inputs", value=[]), "step takes 1 input .got 0"),
    "two inputs": (put(*STEP, "inputs", value=["dense", "dense"]), "step takes 1 input .got 2"),
    "a layer that reads itself": (put(*STEP, "inputs", value=["step"]), "circle: 'step' -> 'step'"),
    "a circle": (put(*DENSE, "inputs", value=["step"]), "layers form a circle: .*Recurrent"),
    "a dead end": (
        add_layer("aside", "flatten", ["dense"]),
        "layer 'aside': it does not lead to the output 'step'",
    ),
    "add of one": (add_layer("sum", "add", ["step"]), "layer 'sum': add needs 2 or more inputs"),
    "unknown parameter": (
        put(*STEP, "parameters", "treshold", value=0.5),
        "layer 'step': step has no parameter 'treshold'; known: strict, threshold. Did",
    ),
    "parameter of the class": (
        put(*STEP, "parameters", "kind", value="step"),
        "layer 'step': step has no parameter 'kind'; known: strict, threshold",
    ),
    "strict that is a number": (
        put(*STEP, "parameters", "strict", value=1),
        r"layer 'step': strict must be true or false \(got 1\)",
    ),
    "array as a parameter": (
        put(*DENSE, "parameters", "weight", value=[[1.0]]),
        "dense has no parameter 'weight'",
    ),
    "parameters are a list": (put(*STEP, "parameters", value=[]), "parameters must be an object"),
    "threshold is null": (put(*STEP, "parameters", "threshold", value=None), "threshold must be a"),
    "threshold is a text": (
        put(*STEP, "parameters", "threshold", value="0"),
        "threshold must be a",
    ),
    "threshold is enormous": (
        put(*STEP, "parameters", "threshold", value=10**400),
        "threshold|too large",
    ),
    "parameter that is needed": (
        put("layers", 1, value=layer("step", "reshape", ["dense"])),
        "layer 'step': reshape lacks 'shape'",
    ),
    # arrays
    "no weight": (drop(*DENSE, "arrays", "weight"), "layer 'dense': dense lacks 'weight'"),
    "unknown array": (put(*DENSE, "arrays", "gamma", value="b"), "dense has no array 'gamma'"),
    "arrays are a list": (put(*DENSE, "arrays", value=["w"]), "arrays must be an object"),
    "unknown tensor": (
        put(*DENSE, "arrays", "weight", value="v"),
        "layer 'dense': weight: tensor 'v' is not in the file",
    ),
    "tensor name is a list": (put(*DENSE, "arrays", "weight", value=["w"]), "is not in the file"),
    "tensor name is null": (put(*DENSE, "arrays", "bias", value=None), "tensor None is not in"),
    "tensor used twice": (
        put(*DENSE, "arrays", "bias", value="w"),
        "layer 'dense': bias: tensor 'w' is used twice",
    ),
    "tensor used by the readout too": (
        put("readout", "key", value="w"),
        "readout: key: tensor 'w' is used twice",
    ),
    "extra tensor": (tensor("x", f4(1)), "tensor 'x' belongs to no layer"),
    "NaN": (tensor("w", f4([1, np.nan], [0, 0], [0, 0])), "'dense': weight holds 1 NaN or inf"),
    "infinite": (tensor("b", f4(np.inf, -np.inf)), "'dense': bias holds 2 NaN or infinite"),
    "weight of bytes": (tensor("w", np.ones((3, 2), np.uint8)), "weight must be .*float"),
    "too few axes": (tensor("w", f4(1, 2)), r"weight has shape \(2,\) .got 1-D; need 2-D"),
    "no axes at all": (tensor("w", np.float32(1)), r"weight has shape \(\)"),
    "too many axes": (tensor("b", f4([1, 2])), r"bias has shape \(1, 2\)"),
    "wrong input size": (
        tensor("w", np.ones((4, 2), "<f4")),
        r"weight has shape \(4, 2\); expected \(3, n\) because 'input' has 3 outputs",
    ),
    "wrong bias": (tensor("b", f4(1, 2, 3)), r"bias has shape \(3,\); expected \(2,\)"),
    "no outputs": (
        lambda graph, tensors: tensors.update(w=np.ones((3, 0), "<f4"), b=f4()),
        r"layer 'dense': its output has shape \(0,\)",
    ),
    # the readout
    "neither key nor decoder": (
        lambda graph, tensors: (graph.update(readout={}), tensors.pop("k")),
        "readout: need either a key or a decoder",
    ),
    "both key and decoder": (
        lambda graph, tensors: (
            graph["readout"].update(decoder="d"),
            tensors.update(d=np.eye(2)),
        ),
        "readout: need either a key or a decoder",
    ),
    "key that is not in the file": (put("readout", "key", value="q"), "tensor 'q' is not in the"),
    "readout with more": (put("readout", "labels", value="k"), "readout: 'labels' is unknown"),
    "readout is a list": (put("readout", value=["k"]), "readout must be an object"),
    "key left over": (put("readout", value=None), "tensor 'k' belongs to no layer"),
    "key of twos": (tensor("k", np.full((2, 2), 2, np.uint8)), "key must hold 0 and 1 alone"),
    "key of NaN": (tensor("k", np.full((2, 2), np.nan)), "key must hold 0 and 1 alone"),
    "flat key": (tensor("k", np.ones(2, np.uint8)), r"key has shape \(2,\); expected .classes"),
    "empty key": (tensor("k", np.ones((0, 2), np.uint8)), "key has shape"),
    "key of the wrong width": (
        tensor("k", np.ones((2, 3), np.uint8)),
        "readout: it decodes 3 outputs; the output layer 'step' has 2",
    ),
    "decoder of bytes": (put("readout", value={"decoder": "k"}), "decoder is uint8 .*expected"),
    "decoder with NaN": (
        lambda graph, tensors: (
            graph.update(readout={"decoder": "k"}),
            tensors.update(k=np.array([[1.0, np.nan], [0, 0]])),
        ),
        "decoder holds NaN or infinite",
    ),
    "decoder of the wrong height": (
        lambda graph, tensors: (
            graph.update(readout={"decoder": "k"}),
            tensors.update(k=np.ones((3, 2))),
        ),
        "readout: it decodes 3 outputs",
    ),
    "bias of a key": (
        lambda graph, tensors: (
            graph["readout"].update(bias="c"),
            tensors.update(c=np.ones(2)),
        ),
        "readout: a bias needs a decoder; a key has none",
    ),
    "bias of another number of classes": (
        lambda graph, tensors: (
            graph.update(readout={"decoder": "k", "bias": "c"}),
            tensors.update(k=np.ones((2, 4)), c=np.ones(3)),
        ),
        r"readout: bias is float64 of shape \(3,\); expected floats \(4,\)",
    ),
    "bias with NaN": (
        lambda graph, tensors: (
            graph.update(readout={"decoder": "k", "bias": "c"}),
            tensors.update(k=np.ones((2, 1)), c=np.array([np.nan])),
        ),
        "readout: bias holds NaN or infinite values",
    ),
}


@pytest.mark.parametrize("what", BAD_GRAPHS)
def test_bad_graphs(what: str, tmp_path: Path) -> None:
    change, match = BAD_GRAPHS[what]
    graph, tensors = small_graph(), small_tensors()
    change(graph, tensors)
    refused(write(tmp_path, file_bytes(graph, tensors)), match)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('"scale": 1.0', '"scale": 1e999', "scale must be .*(positive|finite)"),
        ('"scale": 1.0', '"scale": NaN', "NaN is no number"),
        ('"scale": 1.0', '"scale": Infinity', "Infinity is no number"),
        ('"threshold": 0.5', '"threshold": -1e999', "threshold must be .*finite"),
        ('"threshold": 0.5', '"threshold": 0.5, "threshold": 0.5', "'threshold' is used twice"),
        ('"high": 1', '"high": 1e999', "must be whole numbers"),
        ('"shape": [3]', '"shape": [1e999]', "must be whole numbers"),
        ('"shape": [3]', '"shape": [' + "9" * 5000 + "]", "digits"),
        ('"metadata": {}', '"metadata": {"a": 1e999}', "metadata: must be plain JSON"),
        ('"metadata": {}', '"metadata": {"a": 1, "b": 2, "a": 3}', "the name 'a' is used twice"),
        ('"version": 1', '"version": 1, "version": 1', "the name 'version' is used twice"),
        ('"name": "small"', '"name": "small', "is not JSON"),
        ('"metadata": {}', '"metadata": {}} {', "is not JSON"),
    ],
)
def test_bad_json_in_the_graph(old: str, new: str, match: str, tmp_path: Path) -> None:
    text = json.dumps(small_graph())
    assert text.count(old) == 1
    refused(write(tmp_path, file_bytes(text.replace(old, new))), match)


def test_a_checksum_of_something_else(tmp_path: Path) -> None:
    top, data = layout(small_graph(), small_tensors())
    entry = top["__metadata__"]["whetsim"]
    for wrong in ("", "0" * 64, entry[:64].upper(), entry[:63], entry[:64] + "0"):
        top["__metadata__"]["whetsim"] = f"{wrong} {entry[65:]}"
        refused(write(tmp_path, pack(top, data)), "checksum")


LAYERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no strides": ("conv2d", {"strides": [0, 1]}, "strides is out of range .got 0; need >= 1"),
    "strides back": ("conv2d", {"strides": -1}, "strides is out of range"),
    "three strides": ("conv2d", {"strides": [1, 1, 1]}, "strides must have 2 entries .got 3"),
    "strides of floats": ("conv2d", {"strides": [1.0, 1]}, "strides must be a whole number"),
    "strides of text": ("conv2d", {"strides": "11"}, "strides must be a list of whole numbers"),
    "huge strides": ("conv2d", {"strides": [2**31, 1]}, "strides is out of range"),
    "null strides": ("conv2d", {"strides": None}, "strides must be a list"),
    "no dilation": ("conv2d", {"dilation": 0}, "dilation is out of range"),
    "huge dilation": ("conv2d", {"dilation": 10**18}, "dilation is out of range"),
    "wide dilation": ("conv2d", {"dilation": 9}, "the window spans 10 cells but the padded map"),
    "no groups": ("conv2d", {"groups": 0}, "groups is out of range"),
    "groups of true": ("conv2d", {"groups": True}, "groups must be a whole number"),
    "groups that do not divide": ("conv2d", {"groups": 2}, "not divisible by groups = 2"),
    "groups that do not fit": ("conv2d", {"groups": 3}, "expected 2 / 3 input channels"),
    "odd padding": (
        "conv2d",
        {"padding": "sane"},
        "padding is unknown .got 'sane'; need 'valid', 'same' or .* Did you mean 'same'",
    ),
    "padding of one": ("conv2d", {"padding": [[1, 1]]}, "padding must be 'valid', 'same' or"),
    "padding of null": ("conv2d", {"padding": None}, "padding must be 'valid', 'same' or"),
    "negative padding": ("conv2d", {"padding": [[0, -1], [0, 0]]}, "padding is out of range"),
    "huge padding": ("conv2d", {"padding": [[2**31, 0], [0, 0]]}, "padding is out of range"),
    "huge map": (
        "conv2d",
        {"padding": [[2**30, 0], [2**30, 0]]},
        "output has shape .*need 1 to 16777216 units",
    ),
    "pool of nothing": ("max_pool2d", {"pool_size": [0, 2]}, "pool_size is out of range"),
    "pool of text": ("max_pool2d", {"pool_size": "2"}, "pool_size must be a list"),
    "pool too large": ("max_pool2d", {"pool_size": 9}, "the window spans 9 cells"),
    "padded pool": (
        "max_pool2d",
        {"padding": [[2, 0], [0, 0]]},
        "is not smaller than the pool .*padding alone",
    ),
    "count_padding of one": ("average_pool2d", {"count_padding": 1}, "must be true or false"),
    "reshape to nothing": ("reshape", {"shape": []}, "shape must have an axis"),
    "reshape to zero": ("reshape", {"shape": [0]}, "shape is out of range"),
    "reshape to less": ("reshape", {"shape": [3]}, "shape .* holds 3 values; 'input' has 32"),
    "reshape to -1": ("reshape", {"shape": [-1]}, "shape is out of range"),
    "many axes": ("reshape", {"shape": [1] * 40}, "shape has too many entries .got 40"),
    "permute twice": ("permute", {"axes": [0, 0, 1]}, "do not order the 3 axes"),
    "permute two": ("permute", {"axes": [1, 0]}, "do not order the 3 axes"),
    "permute back": ("permute", {"axes": [-1, 0, 1]}, "axes is out of range"),
    "upsample by none": ("upsample2d", {"size": 0}, "size is out of range"),
    "upsample by much": ("upsample2d", {"size": 2**30}, "output has shape"),
    "unknown function": (
        "activation",
        {"function": "rely"},
        "function 'rely' is unknown; need one of relu, .* Did you mean 'relu'",
    ),
    "function of null": ("activation", {"function": None}, "function None is unknown"),
    "function of list": ("activation", {"function": ["relu"]}, "is unknown; need one of"),
    "fully sharp": (
        "activation",
        {"function": "bounded_relu", "sharpness": 1.0},
        r"sharpness must be in \[0, 1\).*is a step",
    ),
    "sharpness of text": ("activation", {"function": "relu", "sharpness": "0"}, "sharpness must"),
    "epsilon below zero": ("batch_norm", {"epsilon": -1e-3}, "epsilon must .*negative"),
    "epsilon of null": ("batch_norm", {"epsilon": None}, "epsilon must be a .*number"),
    "enormous epsilon": ("batch_norm", {"epsilon": 10**400}, "epsilon|too large"),
    "crop too much": (
        "conv2d_transpose",
        {"padding": [[9, 0], [0, 0]]},
        "leaves no output for a map of 4 cells",
    ),
    "output padding with same": (
        "conv2d_transpose",
        {"padding": "same", "output_padding": 1},
        "output_padding needs explicit padding",
    ),
}
ARRAYS = {
    "conv2d": {"weight": np.ones((2, 2, 2, 3), "<f4")},
    "conv2d_transpose": {"weight": np.ones((2, 2, 3, 2), "<f4")},
    "batch_norm": {"mean": np.ones(2, "<f4"), "variance": np.ones(2, "<f4")},
}


def of_kind(
    kind: str, parameters: dict[str, Any], arrays: dict[str, np.ndarray], shape: list[int]
) -> bytes:
    """Return a file with one layer of `kind` on an input of `shape`."""
    graph = small_graph()
    graph["input"]["shape"] = shape
    graph["layers"] = [layer("x", kind, ["input"], parameters, {key: key for key in arrays})]
    graph["output"], graph["readout"] = "x", None
    return file_bytes(graph, arrays)


@pytest.mark.parametrize("what", LAYERS)
def test_bad_parameters(what: str, tmp_path: Path) -> None:
    kind, parameters, match = LAYERS[what]
    data = of_kind(kind, parameters, ARRAYS.get(kind, {}), [4, 4, 2])
    text = refused(write(tmp_path, data), match)
    assert "layer 'x': " in text


@pytest.mark.parametrize(
    ("kind", "arrays", "match"),
    [
        ("conv2d", {"weight": np.ones((2, 2, 3, 1), "f4")}, "expected 2 / 1 input channels"),
        ("conv2d", {"weight": np.ones((0, 2, 2, 1), "f4")}, "need no empty axis"),
        ("depthwise_conv2d", {"weight": np.ones((2, 2, 3, 1), "f4")}, "channels because 'input'"),
        ("depthwise_conv2d", {"weight": np.ones((2, 2, 2, 0), "f4")}, "need no empty axis"),
        ("conv2d_transpose", {"weight": np.ones((2, 2, 2, 3), "f4")}, r"\(kh, kw, n, 2\)"),
        ("conv2d_transpose", {"weight": np.ones((2, 2, 0, 2), "f4")}, "need no empty axis"),
        ("dense", {"weight": np.ones((2, 2), "f4")}, "need a flat one. Add a flatten"),
        ("batch_norm", {"mean": np.ones(3, "f4"), "variance": np.ones(3, "f4")}, "2 channels"),
        ("batch_norm", {"mean": np.ones(2, "f4"), "variance": np.ones(3, "f4")}, "variance has sh"),
        ("batch_norm", {"mean": np.ones(2, "f4")}, "batch_norm lacks 'variance'"),
        (
            "batch_norm",
            {"mean": np.ones(2, "f4"), "variance": -np.ones(2, "f4")},
            "variance . epsilon must be positive",
        ),
    ],
)
def test_bad_arrays(kind: str, arrays: dict[str, np.ndarray], match: str, tmp_path: Path) -> None:
    refused(write(tmp_path, of_kind(kind, {}, arrays, [4, 4, 2])), match)


@pytest.mark.parametrize("kind", ["conv2d", "max_pool2d", "global_max_pool2d", "upsample2d"])
def test_maps_need_three_axes(kind: str, tmp_path: Path) -> None:
    data = of_kind(kind, {}, ARRAYS.get(kind, {}), [8])
    refused(write(tmp_path, data), r"its input has shape \(8,\); need a map")


@pytest.mark.parametrize(
    ("kind", "parameters", "match"),
    [
        ("add", {}, "inputs have shapes .* add needs equal ones"),
        ("concat", {"axis": 0}, "they may differ in axis 0 alone"),
        ("concat", {"axis": 3}, "axis 3 does not exist in shape"),
        ("concat", {"axis": -4}, "axis -4 does not exist in shape"),
        ("concat", {"axis": "last"}, "axis must be a whole number"),
    ],
)
def test_bad_joins(kind: str, parameters: dict[str, Any], match: str, tmp_path: Path) -> None:
    graph = small_graph()
    graph["input"]["shape"] = [2, 2, 1]
    graph["layers"] = [
        layer("wide", "concat", ["input", "input"]),
        layer("x", kind, ["input", "wide"], parameters),
    ]
    graph["output"], graph["readout"] = "x", None
    refused(write(tmp_path, file_bytes(graph, {})), f"layer 'x': .*{match}")


# --- hostile sizes ------------------------------------------------------------------------------


def seconds_to_refuse(path: Path, match: str) -> float:
    start = time.perf_counter()
    refused(path, match)
    return time.perf_counter() - start


def test_many_names_and_one_twice_is_quick(tmp_path: Path) -> None:
    names = ",".join(f'"k{i}":0' for i in range(20_000))
    text = json.dumps(small_graph())[:-1] + f',{names},"k19999":0}}'
    assert seconds_to_refuse(write(tmp_path, file_bytes(text)), "'k19999' is used twice") < 2


def test_many_layers_and_an_unknown_input_is_quick(tmp_path: Path) -> None:
    graph = small_graph()
    for i in range(1000):
        graph["layers"].append(layer("a" * 190 + str(i), "flatten", ["a" * 194]))
    assert seconds_to_refuse(write(tmp_path, file_bytes(graph)), "is no layer of the model") < 2


def test_long_tensor_names_are_quick(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    name = "".join(chr(i) for i in rng.integers(0x4E00, 0x9000, 100_000))
    graph, tensors = small_graph(), small_tensors()
    graph["layers"][0]["arrays"]["weight"] = name
    tensors["x" + name[:-1]] = tensors.pop("w")
    path = write(tmp_path, file_bytes(graph, tensors))
    assert seconds_to_refuse(path, "is not in the file") < 1


def test_suggestions_are_escaped(tmp_path: Path) -> None:
    graph, tensors = small_graph(), small_tensors()
    graph["layers"][0]["arrays"]["weight"] = "weight"
    tensors["w\neight"] = tensors.pop("w")
    refused(write(tmp_path, file_bytes(graph, tensors)), r"Did you mean .w\\neight")


def test_messages_stay_short(tmp_path: Path) -> None:
    graph = small_graph()
    graph["layers"][0]["kind"] = "x" * 100_000
    assert len(refused(write(tmp_path, file_bytes(graph)), "is unknown")) < 2000


def chain(n: int) -> list[Graph]:
    """Return n layers in a row."""
    return [layer(f"s{i}", "step", [f"s{i - 1}" if i else "input"]) for i in range(n)]


def test_too_many_layers(tmp_path: Path) -> None:
    graph = small_graph()
    graph["layers"] = chain(10_001)
    graph["output"], graph["readout"] = "s10000", None
    refused(write(tmp_path, file_bytes(graph, {})), "the model has 10001 layers")


def test_a_long_chain_of_layers_is_valid(tmp_path: Path) -> None:
    graph = small_graph()
    graph["layers"] = chain(5000)
    graph["output"], graph["readout"] = "s4999", None
    assert len(whetsim.load(write(tmp_path, file_bytes(graph, {}))).layers) == 5000


def test_length_field_alone(tmp_path: Path) -> None:
    for n in range(1, 9):
        refused(write(tmp_path, struct.pack("<Q", 2)[:n]), "no whetsim file")
