"""Keras files made to do harm: nothing runs, nothing else is opened, little memory is taken."""

from __future__ import annotations

import base64
import copy
import io
import json
import marshal
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
import pytest

import whetsim
from whetsim.errors import FormatError, WhetsimError

from . import keras_files as files
from .keras_networks import CASES, SCALE
from .test_keras_files import load, write, write_archive

KERNEL = "model_weights/dense/dense/kernel:0"


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def edited(path: Path, edit: Callable[[h5py.File], None]) -> Path:
    """Write a network and change the file."""
    write(path, CASES["dense"])
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def refused(path: Path, text: str) -> None:
    before = peak_mb()
    with pytest.raises(FormatError, match=text) as caught:
        load(path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(f"{path.name}: ")
    assert peak_mb() - before < 100


def test_links_to_other_files_and_places(tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["kernel"] = np.zeros((20, 30), np.float32)
    for link in (
        h5py.ExternalLink(str(secret), "/kernel"),
        h5py.SoftLink("/model_weights/dense/dense/bias:0"),
    ):

        def relink(file: h5py.File, link: Any = link) -> None:
            del file[KERNEL]
            file[KERNEL] = link

        refused(edited(tmp_path / "net.h5", relink), "is a link to another place or file")


def test_group_that_is_a_link(tmp_path: Path) -> None:
    def relink(file: h5py.File) -> None:
        file.move("model_weights", "elsewhere")
        file["model_weights"] = h5py.SoftLink("/elsewhere")

    refused(edited(tmp_path / "net.h5", relink), "'model_weights' is a link to another place")


def replaced(file: h5py.File, **how: Any) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, **how)


def test_array_in_another_file(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_bytes(b"\0" * 2400)
    external = [(str(tmp_path / "passwd"), 0, 2400)]
    path = edited(
        tmp_path / "net.h5",
        lambda file: replaced(file, shape=(20, 30), dtype="f4", external=external),
    )
    refused(path, "is stored in another file, which is never opened")


def test_virtual_array(tmp_path: Path) -> None:
    def virtual(file: h5py.File) -> None:
        del file[KERNEL]
        layout = h5py.VirtualLayout(shape=(20, 30), dtype="f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "kernel", shape=(20, 30))
        file.create_virtual_dataset(KERNEL, layout)

    refused(edited(tmp_path / "net.h5", virtual), "in pieces, compressed or virtual")


@pytest.mark.parametrize(
    "how",
    [
        {"shape": (2**20, 2**10), "dtype": "f4", "chunks": (1024, 1024), "compression": "gzip"},
        {"shape": (2**20, 2**10), "dtype": "f4", "chunks": (2**20, 2**10)},
    ],
)
def test_array_that_unpacks_to_gigabytes(how: dict[str, Any], tmp_path: Path) -> None:
    path = edited(tmp_path / "net.h5", lambda file: replaced(file, **how))
    assert path.stat().st_size < 200_000
    refused(path, "in pieces, compressed or virtual")


def test_array_that_was_never_stored(tmp_path: Path) -> None:
    path = edited(
        tmp_path / "net.h5", lambda file: replaced(file, shape=(2**20, 2**10), dtype="f4")
    )
    assert path.stat().st_size < 200_000
    refused(path, "is not stored in full")


@pytest.mark.parametrize("kind", ["i4", "S4", h5py.ref_dtype, h5py.string_dtype()])
def test_array_of_something_else(kind: Any, tmp_path: Path) -> None:
    path = edited(
        tmp_path / "net.h5",
        lambda file: (
            replaced(file, data=np.zeros((20, 30)), dtype=kind)
            if kind == "i4"
            else replaced(file, shape=(20, 30), dtype=kind)
        ),
    )
    refused(path, r"need float16, float32 or float64|is not stored in full")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none(value: float, tmp_path: Path) -> None:
    def spoil(file: h5py.File) -> None:
        file[KERNEL][0, 0] = value

    refused(edited(tmp_path / "net.h5", spoil), "layer 'dense': weight holds 1 NaN or infinite")


def test_one_array_used_ten_thousand_times(tmp_path: Path) -> None:
    """A file of 2 MB must not become a network of gigabytes."""
    kernel = np.zeros((700, 700), np.float32)
    nodes = [[["dense", i - 1, 0, {}]] if i else [["input_1", 0, 0, {}]] for i in range(5000)]
    dense = files.dense("dense", 700, "input_1", use_bias=False) | {"inbound_nodes": nodes}
    model = files.functional(files.image_input("input_1", 700), dense)
    path = files.write_legacy(tmp_path / "net.h5", model, {"dense": [("dense/kernel:0", kernel)]})
    before = peak_mb()
    with pytest.raises(FormatError, match="take far more memory than the file holds"):
        load(path)
    assert peak_mb() - before < 1000


def test_networks_that_double_at_every_level(tmp_path: Path) -> None:
    """Each network calls the one inside it twice: 2^15 calls from a few lines."""
    inner = files.sequential(files.layer("Dropout", "drop", rate=0.1), name="n0")
    for level in range(1, 16):
        inner |= {"name": f"n{level - 1}"}
        inner["inbound_nodes"] = [[["x", 0, 0, {}]], [[f"n{level - 1}", 0, 0, {}]]]
        name = f"n{level}"
        inner = files.functional(files.image_input("x", 4), inner, name=name)
        inner["config"]["output_layers"] = [[f"n{level - 1}", 1, 0]]
    path = files.write_legacy(tmp_path / "net.h5", inner, {})
    refused(path, "the network uses its layers more than 10000 times")


def test_deep_configuration(tmp_path: Path) -> None:
    path = write(tmp_path / "net.h5", CASES["dense"])
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = "[" * 200_000
    refused(path, "the configuration is nested too deep")


def test_deep_networks(tmp_path: Path) -> None:
    inner = files.sequential(files.step("spikes"))
    for level in range(30):
        inner = files.sequential(inner, name=f"level_{level}")
    path = files.write_legacy(tmp_path / "net.h5", inner, {})
    refused(path, "networks lie inside each other more than 16 deep")


def test_long_configuration(tmp_path: Path) -> None:
    path = write(tmp_path / "net.h5", CASES["dense"])
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = " " * (2**24 + 1)
    refused(path, "the configuration has 16777217 characters")


def references(data: bytes, length: int) -> list[int]:
    """Return where a file refers to texts of this length: length, place of a heap, number."""
    pattern, found = length.to_bytes(4, "little"), []
    at = data.find(pattern)
    while at >= 0:
        heap = int.from_bytes(data[at + 4 : at + 12], "little")
        if data[heap : heap + 4] == b"GCOL":
            found.append(at)
        at = data.find(pattern, at + 1)
    return found


def test_list_whose_entries_are_one_long_text(tmp_path: Path) -> None:
    """References of 16 bytes that all lead to the same megabyte."""

    def fill(file: h5py.File) -> None:
        group = file["model_weights/dense"]
        del group.attrs["weight_names"]
        group.attrs["weight_names"] = ["x" * 2**20] + [""] * 3000

    path = edited(tmp_path / "net.h5", fill)
    data = bytearray(path.read_bytes())
    (first,) = references(data, 2**20)
    data[first : first + 16 * 3001] = data[first : first + 16] * 3001
    path.write_bytes(data)
    refused(path, f"claims texts of {3001 * 2**20} bytes")


def test_text_that_claims_four_gigabytes(tmp_path: Path) -> None:
    path = write(tmp_path / "net.h5", CASES["dense"])
    data = bytearray(path.read_bytes())
    for at in references(data, len("dense/kernel:0")):
        data[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    refused(path, r"claims texts of 42949\d{5} bytes")


def test_heap_that_never_ends(tmp_path: Path) -> None:
    path = write(tmp_path / "net.h5", CASES["dense"])
    data = bytearray(path.read_bytes())
    at = data.find(b"GCOL")
    while at >= 0:
        data[at + 16 : at + 32] = bytes([9, 0, 1, 0]) + bytes(12)  # an object of no size
        at = data.find(b"GCOL", at + 1)
    path.write_bytes(data)
    refused(path, "a text of the HDF5 file is not where it should be")


def test_code_in_the_configuration_never_runs(tmp_path: Path) -> None:
    trace = tmp_path / "it_ran"
    code = compile(f"open({str(trace)!r}, 'w').close()", "<lambda>", "exec")
    text = base64.b64encode(marshal.dumps(code)).decode()
    for function in (
        [text, None, None],
        {"class_name": "__lambda__", "config": {"code": text}},
    ):
        model = files.sequential(
            files.image_input("input_1", 4), files.layer("Lambda", "code", function=function)
        )
        path = files.write_legacy(tmp_path / "net.h5", model, {})
        refused(path, "layer 'code': a layer of kind 'Lambda' cannot be loaded: it holds code")
    assert not trace.exists()


def rezipped(path: Path, **members: bytes) -> Path:
    """Write a .keras file with other members; names have underscores for dots."""
    write_archive(path, "residual")
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content |= {name.replace("__", "."): data for name, data in members.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def test_archive_may_be_compressed(tmp_path: Path) -> None:
    assert load(rezipped(tmp_path / "net.keras")).name == "net"


@pytest.mark.parametrize("name", ["config__json", "model__weights__h5"])
def test_member_that_unpacks_to_megabytes(name: str, tmp_path: Path) -> None:
    path = rezipped(tmp_path / "net.keras", **{name: b" " * 2**24})
    assert path.stat().st_size < 100_000
    refused(path, "of the archive unpacks to 16777216 bytes")


def test_member_whose_size_lies(tmp_path: Path) -> None:
    path = rezipped(tmp_path / "net.keras", config__json=b" " * 2**24)
    data = bytearray(path.read_bytes())
    entry = data.rfind(b"config.json") - 46
    assert data[entry : entry + 4] == b"PK\x01\x02"
    data[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    refused(path, "config.json")


def test_names_that_lead_out_of_the_archive(tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    path = write_archive(folder / "net.keras", "residual")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../outside.txt", "x")
        archive.writestr(str(tmp_path / "absolute.txt"), "x")
    assert load(path).name == "net"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["inside", "net.keras"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_member_that_is_there_twice(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "net.keras", "residual")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("config.json", "{}")
    refused(path, "the archive has 2 members 'config.json'")


def test_archive_without_weights(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "{}")
    refused(path, r"the archive has no model\.weights\.h5")


def test_damaged_files_are_called_so(tmp_path: Path) -> None:
    whole = write(tmp_path / "net.h5", CASES["dense"]).read_bytes()
    (tmp_path / "net.h5").write_bytes(whole[:-100])
    refused(tmp_path / "net.h5", "the HDF5 file cannot be read .* The file is damaged")
    zipped = write_archive(tmp_path / "net.keras", "residual").read_bytes()
    (tmp_path / "net.keras").write_bytes(zipped[:-100])
    refused(tmp_path / "net.keras", "the zip archive cannot be read .* The file is damaged")


def flipped(data: bytes, random: Random) -> bytes:
    if random.random() < 0.15:
        return data[: random.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 4, 16, 64])):
        at = random.randrange(len(changed))
        changed[at] = random.choice(
            [0, 255, random.randrange(256), changed[at] ^ (1 << random.randrange(8))]
        )
    return bytes(changed)


VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 255, 2**31 - 1, 2**31, -(2**63), 2**64, 10**30, 0.5, 1e300,
    "", "input_1", "same", "Dense", "relu", "\x00", "\ud800", "x" * 300, [], {}, [0], [1, 1],
    [[1, 1], [0, 2]], [[[]]], {"a": 1}, [1] * 20, "Lambda", "Conv1D", "Reshape", "Add",
    [["a", 0, 0]], [[["a", 0, 0, {}]]], {"args": [], "kwargs": {"training": True}},
]  # fmt: skip


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    entries: Any = ()
    if isinstance(value, dict):
        entries = value.items()
    elif isinstance(value, list):
        entries = enumerate(value)
    return [place, *(p for key, inner in entries for p in _places(inner, (*place, key)))]


def changed_config(config: dict[str, Any], random: Random) -> dict[str, Any]:
    config = copy.deepcopy(config)
    for _ in range(random.choice([1, 1, 2, 3])):
        *outer, key = random.choice(_places(config)[1:])
        target: Any = config
        for step in outer:
            target = target[step]
        choice = random.random()
        if choice < 0.7:
            target[key] = copy.deepcopy(random.choice(VALUES))
        elif choice < 0.85 or not isinstance(target, list):
            del target[key]
        else:
            target.append(copy.deepcopy(target[key]))
    return config


def loaded_or_refused(path: Path) -> bool:
    try:
        whetsim.load(path, input_scale=SCALE)
    except WhetsimError as error:
        assert len(str(error).splitlines()) == 1
        return False
    return True


def test_damaged_hdf5_is_loaded_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.h5"
    case = CASES["residual"]
    whole = write(path, case).read_bytes()
    before, n_loaded = peak_mb(), 0
    for seed in range(1000):
        random = Random(seed)
        if seed % 2:
            path.write_bytes(flipped(whole, random))
        else:
            path.write_bytes(whole)
            with h5py.File(path, "r+") as file:
                file.attrs["model_config"] = json.dumps(changed_config(case.config, random))
        n_loaded += loaded_or_refused(path)
    assert 50 < n_loaded < 950
    assert peak_mb() - before < 300


def test_damaged_archive_is_loaded_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    case = CASES["residual"]
    config = files.in_keras_3(case.config)
    whole = write_archive(path, "residual").read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        weights = archive.read("model.weights.h5")
    before, n_loaded = peak_mb(), 0
    for seed in range(1000):
        random = Random(seed)
        if seed % 4 == 0:
            path.write_bytes(flipped(whole, random))
        else:
            # The archive checks its members, so that damage inside must be put there.
            inside = flipped(weights, random) if seed % 4 == 1 else weights
            text = json.dumps(config if seed % 4 == 1 else changed_config(config, random))
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("metadata.json", "{}")
                archive.writestr("config.json", text)
                archive.writestr("model.weights.h5", inside)
        n_loaded += loaded_or_refused(path)
    assert 50 < n_loaded < 950
    assert peak_mb() - before < 300
