"""The compiled engine against sums by plain matrix products: every path it may take."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import whetsim
from whetsim import InputSpec, Model
from whetsim import layers as L
from whetsim.backends import exact_kernels, exact_vectors
from whetsim.backends.exact_layers import DENSE_ROWS, layer_of, layout_of
from whetsim.network import SpikingNetwork
from whetsim.recording import Recorder
from whetsim.registry import get_backend
from whetsim.sums import NetworkSums

RNG = np.random.default_rng(0)


def conv(
    name: str, source: str, kernel: tuple[int, int], channels: int, n: int, **rest: Any
) -> list[L.Layer]:
    per_group = channels // rest.get("groups", 1)
    scale = 1.5 / np.sqrt(kernel[0] * kernel[1] * per_group)
    weight = RNG.normal(0.1 * scale, scale, (*kernel, per_group, n)).astype("f4")
    return [
        L.Conv2D(name=f"{name}_w", inputs=source, weight=weight, **rest),
        L.Step(name=name, inputs=f"{name}_w"),
    ]


def dense(name: str, source: str, n_in: int, n: int) -> list[L.Layer]:
    weight = RNG.normal(0.01, 1.5 / np.sqrt(n_in), (n_in, n)).astype("f4")
    return [
        L.Flatten(name=f"{name}_flat", inputs=source),
        L.Dense(name=f"{name}_w", inputs=f"{name}_flat", weight=weight),
        L.Step(name=name, inputs=f"{name}_w"),
    ]


def network(
    layers: list[L.Layer], shape: tuple[int, ...], low: int = 0, high: int = 1
) -> SpikingNetwork:
    return whetsim.map_to_spikes(
        Model("net", InputSpec(shape, low, high, 1.0 / high), tuple(layers))
    )


def check(net: SpikingNetwork, samples: NDArray[Any]) -> None:
    """Compare all that a recording holds with what plain sums give."""
    recording = get_backend("exact").prepare(net).run(samples, record="rasters")
    values = samples.reshape(len(samples), net.input.size).astype(np.int32)
    sums = NetworkSums(net).of(values)
    rasters = {p.name: sums[p.name] >= p.threshold for p in net.populations}
    recorder = Recorder(net, "rasters")
    recorder.add(values, rasters)
    for name, raster in rasters.items():
        assert np.array_equal(recording.raster(name), raster), name
    truth = recorder.finish(
        backend="sums", schedule="pipelined", versions={}, samples=None, samples_digest="",
        input_rounding=0.0, timing=recording.timing,
    )  # fmt: skip
    for kind in ("spike_counts", "synops", "digests", "packed"):
        for name, array in getattr(truth, kind).items():
            assert np.array_equal(getattr(recording, kind)[name], array), (kind, name)


def binary(shape: tuple[int, ...], n: int = 7, density: float = 0.3) -> NDArray[np.uint8]:
    return (np.random.default_rng(1).random((n, *shape)) < density).astype(np.uint8)


def kinds(net: SpikingNetwork) -> dict[str, list[str]]:
    """Return for each population what the engine computes it with."""
    layouts = {p.name: layout_of(net, p) for p in net.populations}
    layers = [layer_of(net, p, layouts) for p in net.populations]
    return {
        layer.name: [
            type(part).__name__
            for part in (layer.pool, layer.windows, *layer.projections)
            if part is not None
        ]
        for layer in layers
    }


@pytest.mark.parametrize("channels", [1, 3, 15, 16, 17, 32, 48, 63, 64, 65, 100, 128, 130])
def test_any_number_of_channels(channels: int) -> None:
    layers = [
        *conv("a", "input", (3, 3), 2, channels, padding="same"),
        *conv("b", "a", (3, 2), channels, 5, padding="same"),
        *conv("c", "b", (2, 2), 5, channels),
        *dense("d", "c", 5 * 4 * channels, channels),
    ]
    net = network(layers, (6, 5, 2))
    assert kinds(net) == {key: ["Sliding"] for key in "abcd"}
    check(net, binary((6, 5, 2)))
    graded = network(layers, (6, 5, 2), high=255)
    check(graded, RNG.integers(0, 256, (5, 6, 5, 2)))
    signed = network(layers, (6, 5, 2), low=-7, high=9)
    check(signed, RNG.integers(-7, 10, (5, 6, 5, 2)))


@pytest.mark.parametrize("density", [0.0, 0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(
    "geometry",
    [
        {"strides": 2},
        {"strides": (1, 3), "padding": "same"},
        {"dilation": 2},
        {"dilation": (1, 2), "padding": "same"},
        {"padding": ((2, 0), (0, 3))},
        {"groups": 2},
    ],
    ids=str,
)
def test_every_geometry_at_every_density(geometry: dict[str, Any], density: float) -> None:
    layers = conv("a", "input", (3, 4), 4, 6, **geometry)
    for high in (1, 255):
        net = network(layers, (8, 9, 4), high=high)
        sliding = "DenseSliding" if high > 1 and "dilation" not in geometry else "Sliding"
        assert kinds(net)["a"] == ["Scattering" if "groups" in geometry else sliding]
        check(net, binary((8, 9, 4), density=density) * high)


def test_transposed_convolution() -> None:
    weight = RNG.normal(0, 0.5, (3, 3, 7, 4)).astype("f4")
    up = L.Conv2DTranspose(name="up_w", inputs="input", weight=weight, strides=2, padding="same")
    net = network([up, L.Step(name="up", inputs="up_w")], (4, 5, 4))
    assert kinds(net) == {"up": ["Sliding"]}
    check(net, binary((4, 5, 4)))


@pytest.mark.parametrize("channels", [5, 32, 64, 70])
@pytest.mark.parametrize(
    "pool",
    [
        {},
        {"padding": "same"},
        {"strides": 1},
        {"pool_size": 3, "strides": 1, "padding": "same"},
        {"pool_size": (2, 3)},
    ],
    ids=str,
)
def test_pools_of_bits(pool: dict[str, Any], channels: int) -> None:
    layers = [*conv("a", "input", (2, 2), 2, channels), L.MaxPool2D(name="p", inputs="a", **pool)]
    net = network([*layers, *conv("b", "p", (2, 2), channels, 3)], (8, 10, 2))
    assert kinds(net)["p"] == ["Pooling"]
    check(net, binary((8, 10, 2)))


@pytest.mark.parametrize("channels", [16, 32, 64])
def test_spikes_of_an_odd_number_of_places(channels: int) -> None:
    net = network(conv("a", "input", (2, 2), 2, channels), (4, 6, 2))
    assert net["a"].size // channels == 15
    check(net, binary((4, 6, 2)))


@pytest.mark.parametrize("signs", ["plus", "minus", "both"])
def test_a_pool_before_a_negative_scale(signs: str) -> None:
    """Where the scale is negative the largest value is the smallest behind it: all must fire."""
    gamma = {"plus": np.ones(4), "minus": -np.ones(4), "both": np.array([1, -1, 1, -1])}[signs]
    layers = [
        conv("a", "input", (2, 2), 2, 4)[0],
        L.MaxPool2D(name="p", inputs="a_w"),
        L.BatchNorm(
            name="n", inputs="p", mean=np.zeros(4, "f4"), variance=np.ones(4, "f4"),
            gamma=gamma.astype("f4"), beta=np.full(4, 0.5, "f4"),
        ),
        L.Step(name="s", inputs="n"),
    ]  # fmt: skip
    net = network(layers, (7, 7, 2))
    assert kinds(net)["s"] == ["Scattering" if signs == "both" else "Pooling"]
    check(net, binary((7, 7, 2)))


def test_a_flat_source_is_read_as_a_map_and_a_map_as_another() -> None:
    layers = [
        *dense("a", "input", 12, 24),
        L.Reshape(name="map", inputs="a", shape=(2, 3, 4)),
        *conv("b", "map", (2, 2), 4, 6, padding="same"),
        L.Reshape(name="other", inputs="b", shape=(6, 3, 2)),
        *conv("c", "other", (3, 2), 2, 5, padding="same"),
        L.MaxPool2D(name="p", inputs="c"),
    ]
    check(network(layers, (12,)), binary((12,), density=0.5))


def test_several_projections_into_one_population() -> None:
    layers = [
        *conv("a", "input", (3, 3), 2, 8, padding="same"),
        *conv("b", "a", (3, 3), 8, 8, padding="same"),
        L.Add(name="sum", inputs=("a", "b")),
        *conv("c", "sum", (3, 3), 8, 20, padding="same"),
        L.Concat(name="both", inputs=("a", "c")),
        *dense("d", "both", 28 * 30, 10),
    ]
    net = network(layers, (6, 5, 2))
    assert kinds(net)["c"] == ["Sliding", "Sliding"]
    check(net, binary((6, 5, 2)))


@pytest.mark.parametrize(
    "n_in", [1, DENSE_ROWS - 1, DENSE_ROWS, DENSE_ROWS + 1, 3 * DENSE_ROWS + 5]
)
def test_dense_inputs_in_pieces(n_in: int) -> None:
    net = network([*dense("a", "input", n_in, 40), *dense("b", "a", 40, 33)], (n_in,))
    check(net, binary((n_in,), density=0.2))


def test_sums_beyond_32_bits_are_float64() -> None:
    net = network(dense("a", "input", 10, 3), (10,), high=2**20)
    layouts = {p.name: layout_of(net, p) for p in net.populations}
    assert layer_of(net, net["a"], layouts).thresholds.dtype == np.float64
    check(net, RNG.integers(0, 2**20, (9, 10)))


def test_a_bias_for_every_place_and_one_for_all() -> None:
    for padding, rows in (("valid", 1), ("same", 25)):
        norm = L.BatchNorm(
            name="shift", inputs="a", mean=np.full(2, -0.25, "f4"), variance=np.ones(2, "f4")
        )
        layers = [*conv("a", "input", (1, 1), 1, 2), norm]
        layers += conv("b", "shift", (3, 3), 2, 3, padding=padding)
        net = network(layers, (5, 5, 1))
        layouts = {p.name: layout_of(net, p) for p in net.populations}
        assert len(layer_of(net, net["b"], layouts).thresholds) == rows
        check(net, binary((5, 5, 1)))


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_parts_change_nothing(n: int, threads: int) -> None:
    net = network([*conv("a", "input", (3, 3), 1, 9), *dense("b", "a", 9 * 36, 12)], (8, 8, 1))
    samples = binary((8, 8, 1), n)
    simulation = get_backend("exact").prepare(net, threads=threads)
    simulation._part_size = 7
    once = simulation.run(samples, record="rasters")
    check(net, samples)
    truth = get_backend("exact").prepare(net).run(samples, record="rasters")
    for name in truth.packed:
        assert np.array_equal(once.packed[name], truth.packed[name])
        assert np.array_equal(once.digests[name], truth.digests[name])


def signed_samples(n: int, low: int, high: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return values with empty rows, full ones and single values at the corners."""
    samples = np.random.default_rng(2).integers(low, high + 1, (n, *shape))
    samples[::3, : shape[0] // 2] = 0
    samples[1::3] = 0
    samples[1::3, 0, 0], samples[1::3, -1, -1] = high, low or high
    return samples


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-128, 127), (-300, 0), (0, 2)])
@pytest.mark.parametrize("kernel", [(1, 2), (2, 1), (4, 4), (3, 5), (7, 7)], ids=str)
@pytest.mark.parametrize("rest", [{}, {"strides": (2, 3)}, {"padding": "same"}], ids=str)
@pytest.mark.parametrize("width", [8, 19])
def test_windows_of_grey_values(
    low: int, high: int, kernel: tuple[int, int], rest: dict[str, Any], width: int
) -> None:
    spec = InputSpec((9, width, 1), low, high, 1 / 128)
    net = whetsim.map_to_spikes(
        Model("net", spec, tuple(conv("a", "input", kernel, 1, 20, **rest)))
    )
    assert kinds(net) == {"a": ["DenseSliding"]}
    for n in (0, 1, 6):
        check(net, signed_samples(n, low, high, (9, width, 1)))


@pytest.mark.parametrize("bias", [-1e4, -3.0, 0.0, 0.5, 1e4])
@pytest.mark.parametrize("places", ["one threshold", "a threshold for each place"])
def test_ties_and_large_biases_of_grey_windows(bias: float, places: str) -> None:
    """Weights that are powers of two on values that make many sums the very threshold."""
    signs = RNG.choice([-1.0, 1.0], (2, 2, 3, 17))
    layers: list[L.Layer] = []
    source = "input"
    if places != "one threshold":
        layers.append(
            L.BatchNorm(
                name="shift", inputs="input", mean=np.full(3, -0.25, "f4"),
                variance=np.ones(3, "f4"), epsilon=0.0,
            )
        )  # fmt: skip
        source = "shift"
    weight = (signs / 4).astype("f4")
    layers += [
        L.Conv2D(
            name="w", inputs=source, weight=weight, bias=np.full(17, bias, "f4"), padding="same"
        ),
        L.Step(name="a", inputs="w"),
    ]
    net = whetsim.map_to_spikes(Model("net", InputSpec((5, 11, 3), -2, 2, 1.0), tuple(layers)))
    assert kinds(net) == {"a": ["DenseSliding"]}
    samples = signed_samples(9, -2, 2, (5, 11, 3))
    population = net["a"]
    sums = NetworkSums(net).of(samples.reshape(9, -1).astype(np.int32))["a"]
    assert (sums == population.threshold).any() == (abs(bias) < 100)
    check(net, samples)


@pytest.mark.parametrize("margin", [-1, 0, 1])
def test_one_step_beside_the_threshold_of_grey_windows(margin: int) -> None:
    """Both digits of sums at and next to thresholds of either sign."""
    from whetsim.connectivity import Convolution, Geometry
    from whetsim.network import InputPopulation, Population, Projection

    rng = np.random.default_rng(3)
    geometry = Geometry((3, 9, 1), (2, 8, 16), (2, 2))
    weight = rng.integers(-(2**24), 2**24, geometry.weight_shape).astype(np.int32)
    samples = rng.integers(-255, 256, (4, 27))
    spec = InputSpec((3, 9, 1), -255, 255, 1.0)
    source = InputPopulation((3, 9, 1), -255, 255, "graded", spec)
    projection = Projection("input", "a", Convolution(weight, geometry), 1)

    def net(thresholds: NDArray[np.int64]) -> SpikingNetwork:
        bias = 2**39 - thresholds
        population = Population("a", (2, 8, 16), 1, bias, np.full(256, 40))
        return SpikingNetwork("net", source, (population,), (projection,), "a")

    start = net(np.zeros(256, np.int64))
    assert kinds(start) == {"a": ["DenseSliding"]}
    sums = NetworkSums(start).of(samples.astype(np.int32))["a"] - 2**39
    for sample in range(4):
        near = net(sums[sample].astype(np.int64) + margin)
        found = get_backend("exact").prepare(near).run(samples, record="rasters").raster("a")
        assert found[sample].all() == (margin <= 0)
        check(near, samples)


def test_grey_windows_too_large_for_two_digits_go_another_way() -> None:
    small = conv("a", "input", (3, 3), 2, 5)
    for high, kind in ((2**11, "DenseSliding"), (2**13, "Sliding"), (2**16, "Sliding")):
        net = network(small, (5, 6, 2), high=high)
        assert kinds(net) == {"a": [kind]}, high
        check(net, RNG.integers(0, high + 1, (5, 5, 6, 2)))


def test_a_grey_input_beside_another_source() -> None:
    layers = [
        *conv("a", "input", (3, 3), 2, 2, padding="same"),
        L.Add(name="sum", inputs=("input", "a")),
        *conv("b", "sum", (3, 3), 2, 20, padding="same"),
    ]
    net = network(layers, (6, 5, 2), high=255)
    assert kinds(net) == {"a": ["DenseSliding"], "b": ["Sliding", "Sliding"]}
    check(net, RNG.integers(0, 256, (5, 6, 5, 2)))


def test_what_numba_keeps_goes_with_the_vector_operations() -> None:
    source = Path(exact_vectors.__file__).read_text(encoding="utf-8")
    assert zlib.crc32(source.encode()) == exact_kernels.VECTORS, (
        "exact_vectors.py has changed: write its checksum into exact_kernels.VECTORS, or numba "
        "goes on with what it compiled before"
    )


def test_nowhere_to_keep_what_was_compiled() -> None:
    """On a read-only system loops are compiled for the process alone."""
    code = """
from numba.core.caching import CacheImpl
CacheImpl._locator_classes = []
from whetsim.backends.exact_kernels import scatter
assert type(scatter._cache).__name__ == "NullCache", scatter._cache
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_convolutions_onto_one_population_seen_as_different_maps() -> None:
    """The mapper makes no such network, but others may: the first decides how spikes lie."""
    from whetsim.connectivity import Convolution, Geometry
    from whetsim.network import InputPopulation, Population, Projection

    shapes = [(2, 2, 2), (1, 2, 4), (1, 1, 8), (8, 1, 1)]
    spec = InputSpec((8,))
    sources = [Population(f"s{i}", (8,), 1, np.zeros(8), np.ones(8)) for i in range(4)]
    identity = Convolution(np.ones((1, 1, 1, 1), np.int32), Geometry((8, 1, 1), (8, 1, 1), (1, 1)))
    projections = [Projection("input", s.name, identity, 1) for s in sources]
    for source, shape in zip(sources, shapes, strict=True):
        geometry = Geometry(shape, shape, (1, 1))
        weight = RNG.integers(-3, 4, geometry.weight_shape).astype(np.int32)
        projections.append(Projection(source.name, "out", Convolution(weight, geometry), 1))
    out = Population("out", (8,), 2, np.zeros(8), np.full(8, 2))
    net = SpikingNetwork(
        "maps",
        InputPopulation((8,), 0, 1, "graded", spec),
        (*sources, out),
        tuple(projections),
        "out",
    )
    assert sorted(kinds(net)["out"]) == ["Scattering", "Scattering", "Scattering", "Sliding"]
    check(net, binary((8,), 50, 0.5))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_can_run_what_its_parent_prepared() -> None:
    net = network(dense("a", "input", 12, 24), (12,))
    simulation = get_backend("exact").prepare(net)
    truth = simulation.run(binary((12,))).digests["a"]
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if np.array_equal(simulation.run(binary((12,))).digests["a"], truth) else 1)
    assert os.waitpid(child, 0)[1] == 0
