"""The native file: round trips, old files, and docs/format.md."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import whetsim
from whetsim import layers as L
from whetsim.errors import FormatError
from whetsim.mapping import map_to_spikes
from whetsim.model import InputSpec, Model, Readout
from whetsim.reference import forward
from whetsim.runner import run
from whetsim.testing.networks import all_kinds, conv_model, dense_model, ties_and_biases

from .files import file_bytes, layer, small_graph, small_tensors, write
from .random_models import models

DATA = Path(__file__).parent / "data"
NORM = Path(__file__).parents[2] / "docs" / "format.md"


def assert_same(a: Model, b: Model) -> None:
    """Check that two models are equal bit for bit, types included."""
    assert (a.name, a.input, a.output, dict(a.metadata)) == (b.name, b.input, b.output, b.metadata)
    assert [type(x) for x in a.layers] == [type(x) for x in b.layers]
    for x, y in zip(a.layers, b.layers, strict=True):
        assert (x.name, x.inputs, x.parameters) == (y.name, y.inputs, y.parameters)
        for key in x.arrays:
            assert_same_array(getattr(x, key), getattr(y, key))
    assert (a.readout is None) == (b.readout is None)
    if a.readout is not None and b.readout is not None:
        assert_same_array(a.readout.key, b.readout.key)
        assert_same_array(a.readout.decoder, b.readout.decoder)
        assert_same_array(a.readout.bias, b.readout.bias)
    assert a.shapes == b.shapes


def assert_same_array(a: Any, b: Any) -> None:
    assert (a is None) == (b is None)
    if a is not None:
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def round_trip(model: Model, folder: Path) -> Model:
    path = folder / "net.safetensors"
    whetsim.save(model, path)
    return whetsim.load(path)


@pytest.mark.parametrize("make", [dense_model, conv_model, all_kinds])
def test_round_trip_is_exact(make: Any, tmp_path: Path) -> None:
    model = make(np.random.default_rng(1))
    assert_same(model, round_trip(model, tmp_path))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(models())
def test_round_trip_of_random_models(tmp_path: Path, model: Model) -> None:
    assert_same(model, round_trip(model, tmp_path))


EVERY_KIND = [
    L.Dense(name="x", inputs="flat", weight=np.ones((72, 2), "f4")),
    L.Dense(name="x", inputs="flat", weight=np.ones((72, 2), "f8"), bias=np.ones(2, "f2")),
    L.Conv2D(name="x", inputs="input", weight=np.ones((2, 3, 2, 3), "f4")),
    L.Conv2D(
        name="x",
        inputs="input",
        weight=np.ones((2, 3, 1, 4), "f2"),
        bias=np.zeros(4, "f4"),
        strides=(2, 1),
        padding=((0, 1), (2, 3)),
        dilation=(1, 2),
        groups=2,
    ),
    L.Conv3D(name="x", inputs="volume", weight=np.ones((2, 3, 1, 4, 3), "f4")),
    L.Conv3D(
        name="x",
        inputs="volume",
        weight=np.ones((2, 3, 1, 2, 4), "f2"),
        bias=np.zeros(4, "f4"),
        strides=(2, 1, 3),
        padding=((0, 1), (2, 3), (1, 0)),
        dilation=(1, 1, 2),
        groups=2,
    ),
    L.DepthwiseConv2D(name="x", inputs="input", weight=np.ones((2, 2, 2, 3), "f4"), padding="same"),
    L.Conv2DTranspose(
        name="x",
        inputs="input",
        weight=np.ones((2, 3, 5, 2), "f4"),
        bias=np.ones(5, "f4"),
        strides=(2, 3),
        padding=((1, 0), (0, 1)),
        dilation=(2, 1),
        output_padding=(1, 0),
    ),
    L.MaxPool2D(name="x", inputs="input", pool_size=(3, 2), strides=(1, 2), padding="same"),
    L.AveragePool2D(name="x", inputs="input", padding=((1, 1), (0, 1)), count_padding=True),
    L.MaxPool3D(name="x", inputs="volume", pool_size=(2, 1, 3), strides=(1, 2, 1), padding="same"),
    L.AveragePool3D(
        name="x", inputs="volume", padding=((1, 1), (0, 1), (0, 0)), count_padding=True
    ),
    L.GlobalMaxPool2D(name="x", inputs="input"),
    L.GlobalAveragePool2D(name="x", inputs="input"),
    L.BatchNorm(name="x", inputs="input", mean=np.ones(2, "f4"), variance=np.ones(2, "f8")),
    L.BatchNorm(
        name="x",
        inputs="input",
        mean=np.ones(2, "f4"),
        variance=np.ones(2, "f4"),
        gamma=-np.ones(2, "f4"),
        beta=np.full(2, 1e-45, "f4"),
        epsilon=1e-05,
    ),
    L.Flatten(name="x", inputs="input"),
    L.Reshape(name="x", inputs="input", shape=(3, 4, 3, 2)),
    L.Permute(name="x", inputs="input", axes=(2, 0, 1)),
    L.ZeroPad2D(name="x", inputs="input", padding=((1, 0), (2, 3))),
    L.Upsample2D(name="x", inputs="input", size=(1, 3)),
    L.Add(name="x", inputs=("input", "same")),
    L.Concat(name="x", inputs=("input", "same", "input"), axis=-2),
    L.Step(name="x", inputs="input", threshold=0.1),
    L.Step(name="x", inputs="input", threshold=-0.1, strict=True),
    L.Activation(name="x", inputs="input", function="bounded_relu", sharpness=0.75),
]


@pytest.mark.parametrize("tested", EVERY_KIND, ids=lambda tested: tested.kind)
def test_every_kind_round_trips(tested: L.Layer, tmp_path: Path) -> None:
    before = {
        "flat": L.Flatten(name="flat", inputs="input"),
        "same": L.Step(name="same", inputs="input"),
        "volume": L.Reshape(name="volume", inputs="input", shape=(2, 3, 3, 4)),
    }
    layers = [before[i] for i in dict.fromkeys(tested.inputs) if i in before] + [tested]
    model = Model("one", InputSpec((6, 6, 2), -2, 9, 0.125), tuple(layers))
    assert_same(model, round_trip(model, tmp_path))


def test_every_kind_is_tested() -> None:
    assert {tested.kind for tested in EVERY_KIND} == set(L.KINDS)


@pytest.mark.parametrize(
    "readout",
    [
        Readout(key=np.array([[0, 1], [1, 0], [1, 1]], np.uint8)),
        Readout(decoder=np.array([[0.1, -2], [1e300, 5e-324]])),
        Readout(decoder=np.array([[0.1, -2], [3, 4]], np.float32)),
        Readout(decoder=np.ones((2, 3)), bias=np.array([0.1, -1e300, 0])),
        Readout(decoder=np.ones((2, 3), np.float32), bias=np.array([1, -1, 0], np.float16)),
    ],
    ids=["key", "float64", "float32", "biased64", "biased16"],
)
def test_readouts_round_trip(readout: Readout, tmp_path: Path) -> None:
    layers = (L.Step(name="s", inputs="input"),)
    model = Model("readout", InputSpec((2,)), layers, readout=readout)
    assert_same(model, round_trip(model, tmp_path))


def test_a_step_that_is_not_strict_is_written_as_ever(tmp_path: Path) -> None:
    whetsim.save(ties_and_biases(), tmp_path / "net")
    assert b"strict" not in (tmp_path / "net").read_bytes()


def test_text_and_numbers_round_trip(tmp_path: Path) -> None:
    metadata = {
        "trained with": "ünïcode → 網",
        "nested": [1, 2.5, None, {"deep": True}],
        "e": 1e-300,
    }
    spec = InputSpec((1, 2), -(2**24), 2**24, 1 / 3)
    layers = (L.Step(name="étape ₁/x", inputs="input", threshold=0.1 + 0.2),)
    model = Model("nämé", spec, layers, metadata=metadata)
    loaded = round_trip(model, tmp_path)
    assert_same(model, loaded)
    assert loaded.metadata == metadata


def test_big_endian_arrays_round_trip(tmp_path: Path) -> None:
    weight = np.arange(6, dtype=">f4").reshape(2, 3)
    layers = (L.Dense(name="d", inputs="input", weight=weight),)
    loaded = round_trip(Model("m", InputSpec((2,)), layers), tmp_path)
    assert np.array_equal(loaded["d"].weight, weight)


@pytest.mark.parametrize("make", [dense_model, conv_model, all_kinds])
def test_same_model_gives_same_bytes(make: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        whetsim.save(make(np.random.default_rng(2)), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_loaded_arrays_are_read_only(tmp_path: Path) -> None:
    model = round_trip(dense_model(np.random.default_rng(3)), tmp_path)
    for array in (model["dense_0"].weight, model["dense_0"].bias, model.readout.key):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_save_replaces_a_file_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_text("old")
    whetsim.save(ties_and_biases(), path)
    assert_same(ties_and_biases(), whetsim.load(path))
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


def test_save_to_no_folder_raises_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no_folder"):
        whetsim.save(ties_and_biases(), tmp_path / "no_folder" / "net.safetensors")


@pytest.mark.parametrize("name", ["", "a" * 201, "two\nlines", "\x1b[31mred", "\ud800", 7])
def test_a_model_name_that_no_file_may_hold_is_refused(name: Any) -> None:
    with pytest.raises(FormatError, match="name"):
        Model(name, InputSpec((2,)), (L.Step(name="s", inputs="input"),))


def test_save_writes_nothing_that_load_refuses(tmp_path: Path) -> None:
    layers = (L.Step(name="s", inputs="input"),)
    model = Model("m", InputSpec((2,)), layers, metadata={"long": "x" * 2**24})
    with pytest.raises(FormatError, match="4194304"):
        whetsim.save(model, tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    path = write(tmp_path, file_bytes(), "network.h5")
    assert whetsim.load(path).name == "small"
    assert whetsim.load(str(path)).name == "small"


def test_layers_may_come_in_any_order(tmp_path: Path) -> None:
    graph = small_graph()
    graph["layers"].reverse()
    model = whetsim.load(write(tmp_path, file_bytes(graph)))
    assert [x.name for x in model.layers] == ["dense", "step"]


def test_parameters_may_be_left_out(tmp_path: Path) -> None:
    graph = small_graph()
    graph["input"]["shape"] = [4, 4, 2]
    graph["layers"] = [
        layer("c", "conv2d", ["input"], arrays={"weight": "c"}),
        layer("p", "max_pool2d", ["c"], {"strides": None}),
        layer("n", "batch_norm", ["p"], arrays={"mean": "m", "variance": "v"}),
        layer("step", "step", ["n"]),
    ]
    graph["readout"] = None
    tensors = {
        "c": np.ones((1, 1, 2, 3), np.float32),
        "m": np.zeros(3, np.float32),
        "v": np.ones(3, np.float32),
    }
    model = whetsim.load(write(tmp_path, file_bytes(graph, tensors)))
    assert model["c"].parameters == {
        "strides": (1, 1),
        "padding": "valid",
        "dilation": (1, 1),
        "groups": 1,
    }
    assert model["p"].parameters == {"pool_size": (2, 2), "strides": (2, 2), "padding": "valid"}
    assert model["n"].parameters == {"epsilon": 0.001}
    assert model["step"].parameters == {"threshold": 0.5}
    assert model.readout is None


def test_other_metadata_entries_are_ignored(tmp_path: Path) -> None:
    data = file_bytes()
    other = data[8:].replace(b'{"__metadata__": {', b'{"__metadata__": {"author": "x", ', 1)
    length = int.from_bytes(data[:8], "little") + len(other) - len(data) + 8
    assert whetsim.load(write(tmp_path, length.to_bytes(8, "little") + other)).name == "small"


# Golden files: written once by version 1, readable for ever.
GOLDEN = {
    "golden_v1_kinds.safetensors": (
        "e22729cc66e36f7ee47a91227f77d0e5dc1b6ef700f09ab3700cc1215fcd8b8f"
    ),
    "golden_v1_decoder.safetensors": (
        "bee75d72fb283ae7af9387be4d0d34f706b2c589548d5bfdeb12147e62f358c6"
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_files_stay_readable(name: str) -> None:
    path = DATA / name
    assert path.stat().st_size < 20_000
    assert map_to_spikes(whetsim.load(path)).fingerprint == GOLDEN[name]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_files_keep_their_spikes(name: str) -> None:
    model = whetsim.load(DATA / name)
    expected = json.loads((DATA / name).with_suffix(".json").read_text())
    samples = np.array(expected["samples"]).reshape(-1, *model.input.shape)
    recording = run(map_to_spikes(model), samples, record="rasters")
    for population, places in expected["spikes"].items():
        found = [[int(i) for i in row] for row in np.argwhere(recording.raster(population))]
        assert found == places, population
    if model.readout is not None:
        assert recording.predictions.tolist() == expected["predictions"]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_files_are_what_save_writes(name: str, tmp_path: Path) -> None:
    whetsim.save(whetsim.load(DATA / name), tmp_path / name)
    assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()


def example() -> str:
    """Return the code block of docs/format.md."""
    (code,) = re.findall(r"```python\n(.*?)```", NORM.read_text(encoding="utf-8"), re.DOTALL)
    return str(code)


def test_example_of_the_norm_needs_no_whetsim() -> None:
    code = example()
    assert "whetsim" not in re.findall(r"^(?:import|from) +(\w+)", code, re.MULTILINE)
    assert len(code.splitlines()) <= 15


def test_example_of_the_norm_writes_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(example(), str(NORM), "exec"), {})
    (path,) = tmp_path.iterdir()
    model = whetsim.load(path)
    samples = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    spikes = run(map_to_spikes(model), samples, record="rasters").raster("xor")
    assert spikes.ravel().tolist() == [False, True, True, False]
    assert np.array_equal(forward(model, samples)["xor"].astype(bool), spikes)


def norm_rows() -> dict[str, str]:
    """Return the rows of the table of layers by kind."""
    rows = {}
    for line in NORM.read_text(encoding="utf-8").splitlines():
        cells = line.split(" | ")
        if line.startswith("| `") and len(cells) >= 3:
            for kind in re.findall(r"`(\w+)`", cells[0]):
                rows[kind] = line
    return rows


@pytest.mark.parametrize("kind", L.KINDS)
def test_norm_names_every_parameter_and_array(kind: str) -> None:
    row = norm_rows()[kind]
    if "as `max_pool2d`" in row:
        row += norm_rows()["max_pool2d"]
    cls = L.KINDS[kind]
    names = set(cls.arrays) | {
        f
        for f in cls.__dataclass_fields__
        if f not in ("name", "inputs", "kind", "arrays", "n_inputs", "n_axes", "functions")
    }
    for name in names:
        assert re.search(rf"\b{name}\b", row), f"{kind} has {name}"


def test_norm_gives_the_limits_of_the_code() -> None:
    from whetsim import model
    from whetsim.formats import native

    text = NORM.read_text(encoding="utf-8")
    assert f"{native.MAX_HEADER:,}" in text
    assert f"1 to {model.MAX_LAYERS:,} layers" in text
    assert L.MAX_EXTENT == 2**31 - 1 and "2^31 - 1" in text
    assert f"{model.MAX_UNITS:,} units" in text
    assert f"{model.MAX_ALL_UNITS:,}" in text
    assert native.VERSION == 1 and native.FORMAT == "whetsim"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_floats_load_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tensors = small_tensors()
    tensors["w"] = rng.normal(size=(3, 2)).astype(rng.choice(["<f2", "<f4", "<f8"]))
    path = write(tmp_path_factory.mktemp("made"), file_bytes(small_graph(), tensors))
    weight = whetsim.load(path)["dense"].weight
    assert (weight.dtype, weight.tobytes()) == (tensors["w"].dtype, tensors["w"].tobytes())


def test_arrays_in_another_memory_order_are_written_right(tmp_path: Path) -> None:
    key = np.asfortranarray(np.random.default_rng(0).integers(0, 2, (10, 7), dtype=np.uint8))
    decoder = np.asfortranarray(np.random.default_rng(0).normal(size=(7, 10)))
    weight = np.asfortranarray(np.random.default_rng(0).normal(size=(3, 7)).astype("f4"))
    layers = (
        L.Dense(name="d", inputs="input", weight=weight),
        L.Step(name="s", inputs="d"),
    )
    for readout in (Readout(key=key), Readout(decoder=decoder)):
        model = Model("order", InputSpec((3,)), layers, readout=readout)
        assert_same(model, round_trip(model, tmp_path))
