"""NIR files that are damaged, or made to do harm: a network or one line of text, nothing else."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whetsim
from tests.formats.nir_networks import conv_network, dense_network
from whetsim.errors import FormatError, WhetsimError
from whetsim.formats.nir import file as nir_file
from whetsim.formats.nir import format as nir_format
from whetsim.formats.reading import Reading
from whetsim.model import Model

h5py = pytest.importorskip("h5py", reason="NIR files are HDF5")
nir = pytest.importorskip("nir", reason="the files are made by the package nir")

SAYS = Reading(1.0)


def plain(path: Path) -> Path:
    """Write a small graph of many kinds of nodes, whose arrays are not compressed."""
    ones = np.ones((2, 2, 3, 3), np.float32)
    nodes = {
        "input": nir.Input(np.array([2, 4, 4])),
        "conv": nir.Conv2d((4, 4), ones, 1, "same", 1, 1, np.zeros(2, np.float32)),
        "fire": nir.IF(np.ones((2, 4, 4)), np.ones((2, 4, 4))),
        "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "any": nir.Threshold(np.zeros((2, 2, 2))),
        "flat": nir.Flatten(np.array([2, 2, 2]), 0, -1),
        "weigh": nir.Affine(np.ones((3, 8)), np.ones(3)),
        "scale": nir.Scale(np.ones(3)),
        "out": nir.Threshold(np.ones(3)),
        "output": nir.Output(np.array([3])),
    }
    names = list(nodes)
    edges = list(pairwise(names))
    nir.write(path, nir.NIRGraph(nodes, edges, type_check=False), compression=None)
    return path


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return a file with bytes changed, overwritten by large or zero numbers, moved, or cut off."""
    result = bytearray(data)
    numbers = (b"\xff" * 8, bytes(8), (2**40).to_bytes(8, "little"), b"\x7f" * 8)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, way = rng.randrange(len(result)), rng.random()
        if way < 0.5:
            result[at] = rng.randrange(256)
        elif way < 0.7:
            result[at : at + 8] = rng.choice(numbers)
        elif way < 0.8 and at:
            del result[at:]
        elif way < 0.9:
            source, n = rng.randrange(len(result)), rng.randrange(1, 64)
            result[at : at + n] = result[source : source + n]
        else:
            result[at] ^= 1 << rng.randrange(8)
    return bytes(result)


def test_a_thousand_damaged_files_give_a_network_or_one_line(tmp_path: Path) -> None:
    ours = tmp_path / "ours.nir"
    whetsim.save(dense_network(np.random.default_rng(1)), ours)
    sources = [
        (ours.read_bytes(), Reading()),
        (plain(tmp_path / "plain.nir").read_bytes(), SAYS),
    ]
    path = tmp_path / "damaged.nir"
    rng = random.Random(8)
    n_refused = 0
    for i in range(1000):
        data, reading = sources[i % 2]
        path.write_bytes(mutated(data, rng))
        try:
            nir_format.recognizes(path, path.read_bytes()[:16])
            assert isinstance(nir_format.read(path, reading), Model)
        except WhetsimError as error:
            n_refused += 1
            assert str(error).startswith("damaged.nir: ")
            assert "\n" not in str(error)
    assert 200 < n_refused < 900


def refused(path: Path, text: str) -> None:
    tracemalloc.start()
    with pytest.raises(FormatError, match=text) as caught:
        nir_format.read(path, SAYS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**25
    assert "\n" not in str(caught.value)


Change = Callable[[Any], None]


def swap(make: Callable[[Any, str], None], name: str = "weight") -> Change:
    """Return a change that puts something else in the place of a parameter of a node."""

    def change(file: Any) -> None:
        group = file["node/nodes/weigh"]
        del group[name]
        make(group, name)

    return change


def soft(group: Any, name: str) -> None:
    group[name] = h5py.SoftLink("/node/nodes/weigh/bias")


def external(group: Any, name: str) -> None:
    group[name] = h5py.ExternalLink("/etc/hostname", "/x")


def in_another_file(group: Any, name: str) -> None:
    group.create_dataset(name, (3, 8), "f8", external=[("/etc/hostname", 0, 192)])


def virtual(group: Any, name: str) -> None:
    layout = h5py.VirtualLayout((3, 8), "f8")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", (3, 8))
    group.create_virtual_dataset(name, layout)


def never_written(group: Any, name: str) -> None:
    group.create_dataset(name, (2**20, 2**20), "f8", chunks=(2**10, 2**10))


def large_chunk(group: Any, name: str) -> None:
    made = group.create_dataset(
        name, (3, 8), "f8", chunks=(2**14, 2**14), maxshape=(None, None), compression="gzip"
    )
    assert made.chunks


def not_stored(group: Any, name: str) -> None:
    group.create_dataset(name, (2**11, 2**10), "f8", chunks=(2**10, 2**10), compression="gzip")


def packed_twice(group: Any, name: str) -> None:
    space, kind = h5py.h5s.create_simple((3, 8)), h5py.h5t.NATIVE_DOUBLE
    storage = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    storage.set_chunk((3, 8))
    storage.set_deflate(9)
    storage.set_deflate(9)
    h5py.h5d.create(group.id, name.encode(), kind, space, storage)


def of_texts(group: Any, name: str) -> None:
    group.create_dataset(name, data=["a", "b"])


def of_records(group: Any, name: str) -> None:
    group.create_dataset(name, data=np.zeros(3, [("a", "f8"), ("b", "f8")]))


def empty(group: Any, name: str) -> None:
    group.create_dataset(name, data=h5py.Empty("f8"))


def is_group(group: Any, name: str) -> None:
    group.create_group(name)


def itself(file: Any) -> None:
    """Put the graph into itself, by another name of the same group."""
    file["node/nodes/weigh/type"][()] = "NIRGraph"
    file["node/nodes/weigh/nodes"] = file["node/nodes"]
    file["node/nodes/weigh/edges"] = file["node/edges"]


def long_edges(file: Any) -> None:
    del file["node/edges"]
    pairs = np.array([["x" * 300, "y"]], dtype=object)
    file["node"].create_dataset("edges", data=pairs, dtype=h5py.string_dtype())


def many_edges(file: Any) -> None:
    del file["node/edges"]
    file["node"].create_dataset("edges", (2**30, 2), dtype=h5py.string_dtype())


def bad_type(file: Any) -> None:
    del file["node/nodes/weigh/type"]
    file["node/nodes/weigh"]["type"] = "__import__('os').system"


def huge_window(file: Any) -> None:
    file["node/nodes/pool/kernel_size"][:] = 2**31 - 1


def huge_input(file: Any) -> None:
    file["node/nodes/input/shape"][:] = 2**40


def huge_padding(file: Any) -> None:
    del file["node/nodes/conv/padding"]
    file["node/nodes/conv"]["padding"] = 2**30


def zero_stride(file: Any) -> None:
    file["node/nodes/conv/stride"][...] = 0
    del file["node/nodes/conv/padding"]
    file["node/nodes/conv"]["padding"] = 1


HOSTILE: dict[str, tuple[Change, str]] = {
    "soft link": (swap(soft), "'weight' is a link to another place or file"),
    "external link": (swap(external), "'weight' is a link to another place or file"),
    "another file": (swap(in_another_file), "stored in another file, which is never opened"),
    "virtual": (swap(virtual), "a virtual array, which is not followed"),
    "never written": (swap(never_written), "needs far more memory than the file holds"),
    "large chunk": (swap(large_chunk), "needs far more memory than the file holds"),
    "not stored": (swap(not_stored), "'weight' is not stored in full"),
    "packed twice": (swap(packed_twice), "stored with filters"),
    "texts": (swap(of_texts), "node 'weigh': weight must be numbers|must be a text"),
    "records": (swap(of_records), r"has type .* \(need numbers\)"),
    "empty": (swap(empty), "'weight' is empty"),
    "group": (swap(is_group), "'weight' is missing"),
    "type is a link": (swap(external, "type"), "'type' is a link"),
    "itself": (itself, "graphs stand in graphs more than 8 deep"),
    "long edges": (long_edges, "a text has 300 bytes"),
    "many edges": (many_edges, "'edges' has more than 100000 entries"),
    "type": (bad_type, "node 'weigh': type .* is unknown; known: "),
    "window": (huge_window, "node 'pool': its window .* is too large"),
    "input": (huge_input, "input: shape .* is empty or larger than"),
    "padding": (huge_padding, r"node 'conv': layer 'conv': its output has shape"),
    "stride": (zero_stride, "node 'conv': .*strides is out of range"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_files_made_to_do_harm_are_refused(case: str, tmp_path: Path) -> None:
    change, text = HOSTILE[case]
    path = plain(tmp_path / "x.nir")
    with h5py.File(path, "a") as file:
        change(file)
    refused(path, text)


def test_a_length_of_a_text_is_never_believed(tmp_path: Path) -> None:
    """The HDF5 library would allocate 4 GB for this one."""
    path = plain(tmp_path / "x.nir")
    with h5py.File(path) as file:
        offset = file["node/nodes/weigh/type"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[offset : offset + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    refused(path, "a text has 4294967295 bytes")


def test_a_heap_that_leads_nowhere_is_not_followed_for_ever(tmp_path: Path) -> None:
    """The HDF5 library never comes back from an object of size 0."""
    path = plain(tmp_path / "x.nir")
    data = bytearray(path.read_bytes())
    first = data.find(b"GCOL") + 16
    data[first : first + 16] = bytes(16)
    path.write_bytes(data)
    refused(path, "a text is not where the file says")


def test_deep_metadata_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    whetsim.save(conv_network(np.random.default_rng(1)), path)
    with h5py.File(path, "a") as file:
        entry = file["node/metadata/whetsim"]
        del entry["where"]
        entry["where"] = "[" * 200_000
    remarks = nir_format.read(path, Reading()).metadata["source"]["remarks"]
    assert "read from the nodes alone" in remarks[0]


def test_a_description_may_not_claim_a_larger_network(tmp_path: Path) -> None:
    """Written out again, a pool of 2^20 channels would take 4 TB."""
    path = tmp_path / "x.nir"
    whetsim.save(conv_network(np.random.default_rng(1)), path)
    graph = (
        '{"format":"whetsim","version":1,"name":"x","input":{"shape":[2,2,1048576],"low":0,'
        '"high":1,"scale":1.0},"layers":[{"name":"p","kind":"max_pool2d","inputs":["input"],'
        '"parameters":{},"arrays":{}}],"output":"p","metadata":{}}'
    )
    with h5py.File(path, "a") as file:
        entry = file["node/metadata/whetsim"]
        for name, text in (("graph", graph), ("where", "{}")):
            del entry[name]
            entry[name] = text
    tracemalloc.start()
    remarks = nir_format.read(path, Reading()).metadata["source"]["remarks"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "read from the nodes alone" in remarks[0]
    assert peak < 2**28


def test_too_many_nodes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nir_file, "MAX_NODES", 5)
    refused(plain(tmp_path / "x.nir"), "more than 5 nodes")


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(90)])
def test_files_that_are_cut_off_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"^x.nir"):
        whetsim.load(path, input_scale=1.0)


def test_other_hdf5_files_are_not_taken_for_nir(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["node"] = np.zeros(3)
    assert not nir_format.recognizes(path, path.read_bytes()[:16])
    assert nir_format.recognizes(plain(tmp_path / "y.h5"), path.read_bytes()[:16])
