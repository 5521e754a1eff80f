"""Random damage: `load` returns a network or raises `FormatError`, and never takes much memory."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import tracemalloc
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import whetsim
from whetsim.errors import FormatError, MappingError
from whetsim.mapping import map_to_spikes
from whetsim.model import Model

from .files import file_bytes, pack, small_graph, small_tensors

DATA = Path(__file__).parent / "data"
FILES = ("golden_v1_kinds.safetensors", "golden_v1_decoder.safetensors")

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 255, 2**31 - 1, 2**31, -(2**63), 2**64, 10**30, 10**400,
    0.5, -0.0, 1.5, 1e-320, 1e300, -1e300, "", "input", "same", "valid", "step", "dense", "relu",
    "\x00", "\n", "\ud800", "é", "x" * 300, [], {}, [0], [1, 1], [[1, 1], [0, 2]], [2, 3, 1],
    [[[]]], {"a": 1}, ["input", "input"], [1] * 20,
]  # fmt: skip


def load_or_refuse(data: bytes, path: Path) -> Model | None:
    """Load `data`; check that only a `FormatError` of one line may come, and little memory goes."""
    path.write_bytes(data)
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            model = whetsim.load(path)
        except FormatError as error:
            assert len(str(error).splitlines()) == 1
            model = None
    _, peak = tracemalloc.get_traced_memory()
    assert peak - before < 20 * len(data) + 2_000_000
    return model


@pytest.fixture
def traced(tmp_path: Path) -> Any:
    """Trace memory for one test."""
    # Readers of other formats are imported when a file is none of whetsim's; that counts once.
    (tmp_path / "foreign").write_bytes(bytes(100))
    with contextlib.suppress(FormatError):
        whetsim.load(tmp_path / "foreign")
    tracemalloc.start()
    yield
    tracemalloc.stop()


def damaged(data: bytes, random: Random) -> bytes:
    """Return `data` with one to three random changes of its bytes."""
    for _ in range(random.choice([1, 1, 2, 3])):
        place = random.randrange(len(data))
        length = random.choice([1, 1, 2, 8, 100])
        kind = random.randrange(7)
        if kind == 0:
            part = bytes([data[place] ^ random.randrange(1, 256)])
            data = data[:place] + part + data[place + 1 :]
        elif kind == 1:
            data = data[:place] + random.randbytes(length) + data[place:]
        elif kind == 2:
            data = data[:place] + data[place + length :] or b"x"
        elif kind == 3:
            data = data[: place + 1]
        elif kind == 4:
            source = random.randrange(len(data))
            part = data[source : source + length]
            data = data[:place] + part + data[place + len(part) :]
        elif kind == 5:
            digits = [i for i, byte in enumerate(data) if 48 <= byte < 58]
            place = random.choice(digits) if digits else place
            data = data[:place] + str(random.randrange(10)).encode() + data[place + 1 :]
        else:
            number = random.choice([0, 1, 8, len(data), 2**24, 2**31, 2**63])
            data = number.to_bytes(8, "little") + data[8:]
    return data


@pytest.mark.parametrize("name", FILES)
def test_random_damage(name: str, tmp_path: Path, traced: None) -> None:
    whole = (DATA / name).read_bytes()
    random = Random(name)
    path = tmp_path / "net.safetensors"
    for _ in range(400):
        data = damaged(whole, random)
        model = load_or_refuse(data, path)
        assert model is None or data == whole or same_content(model, whole, path)


def same_content(model: Model, whole: bytes, path: Path) -> bool:
    """Return whether a file that loads in spite of damage still holds the same network."""
    path.write_bytes(whole)
    return map_to_spikes(model).fingerprint == map_to_spikes(whetsim.load(path)).fingerprint


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of everything inside a JSON value."""
    found = [path] if path else []
    if isinstance(value, dict):
        items: Any = value.items()
    else:
        items = enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        found += places(part, (*path, key))
    return found


def edit_graph(graph: Any, random: Random) -> None:
    """Change one random place of the graph."""
    path = random.choice(places(graph))
    parent = graph
    for key in path[:-1]:
        parent = parent[key]
    key, kind = path[-1], random.randrange(6)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, list):
        parent.insert(random.randrange(len(parent) + 1), copy.deepcopy(parent[key]))
    elif kind == 2 and isinstance(parent[key], (int, float)):
        parent[key] = parent[key] * random.choice([2, -1, 0.5, 3]) + random.choice([0, 1])
    elif kind == 3:
        other = graph
        for step in random.choice(places(graph)):
            other = other[step]
        parent[key] = copy.deepcopy(other)
    elif kind == 4 and isinstance(parent, dict):
        name = random.choice(["weight", "bias", "kind", "padding", "strides", "shape", "é"])
        parent[name] = parent.pop(key)
    else:
        parent[key] = copy.deepcopy(random.choice(VALUES))


def edit_tensors(tensors: dict[str, np.ndarray], random: Random) -> None:
    """Change one random tensor."""
    name = random.choice(sorted(tensors))
    array = tensors[name]
    kind = random.randrange(7)
    if kind == 0:
        del tensors[name]
    elif kind == 1:
        tensors[name] = array.reshape(-1)
    elif kind == 2:
        tensors[name] = array.T.copy()
    elif kind == 3:
        with np.errstate(over="ignore"):
            tensors[name] = array.astype(random.choice(["<f2", "<f4", "<f8", "u1", "<i4"]))
    elif kind == 4 and array.size and array.dtype.kind == "f":
        changed = array.copy()
        changed.flat[random.randrange(array.size)] = random.choice([np.nan, np.inf, 0, -1, 6e4])
        tensors[name] = changed
    elif kind == 5:
        tensors[name] = np.zeros(random.choice([(), (0,), (0, 3), (2, 0, 2, 2)]), array.dtype)
    else:
        tensors[random.choice(["x", "", "\x1b", "__metadata"])] = array


def parts_of(name: str) -> tuple[Any, dict[str, np.ndarray]]:
    """Return the graph and the tensors of a golden file."""
    from safetensors.numpy import load

    data = (DATA / name).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"]["whetsim"][65:]), load(data)


def mutant(graph: Any, tensors: dict[str, np.ndarray], random: Random) -> bytes:
    """Return a file with one or two changes and a checksum that fits them."""
    graph, tensors = copy.deepcopy(graph), dict(tensors)
    for _ in range(random.choice([1, 1, 2])):
        if tensors and random.random() < 0.25:
            edit_tensors(tensors, random)
        elif graph:
            edit_graph(graph, random)
    text = json.dumps(graph)
    if random.random() < 0.05:
        text = text.replace("0.5", "1e999").replace("0.25", "-1e999")
    return file_bytes(text, tensors)


@pytest.mark.parametrize("name", [*FILES, "small"])
def test_changes_with_a_valid_checksum(name: str, tmp_path: Path, traced: None) -> None:
    graph, tensors = (small_graph(), small_tensors()) if name == "small" else parts_of(name)
    random = Random(name)
    path = tmp_path / "net.safetensors"
    outcomes: Counter[str] = Counter()
    for _ in range(400):
        model = load_or_refuse(mutant(graph, tensors, random), path)
        outcomes["refused" if model is None else "loaded"] += 1
        if model is None or sum(math.prod(s) for s in model.shapes.values()) > 50_000:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                map_to_spikes(model)
                outcomes["mapped"] += 1
            except MappingError as error:
                assert len(str(error).splitlines()) == 1
    # Changes reach the rules behind the checksum, and harmless ones pass.
    assert outcomes["refused"] > 200
    assert outcomes["mapped"] > 20


def test_headers_of_random_bytes(tmp_path: Path, traced: None) -> None:
    random = Random(5)
    for _ in range(200):
        text = "".join(random.choice('{}[]",:0123456789.eE-\\ n\t"a') for _ in range(60))
        data = pack("{" + text, random.randbytes(random.randrange(50)))
        assert load_or_refuse(data, tmp_path / "net.safetensors") is None
