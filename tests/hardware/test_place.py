"""Placement: exact limits of every chip, a literal count of what cores hold, traffic, JSON."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whetsim import InputSpec
from whetsim.connectivity import Connectivity, Convolution, Dense, Geometry, Listed
from whetsim.errors import (
    CapacityError,
    SampleError,
)
from whetsim.network import InputPopulation, Population, Projection, SpikingNetwork
from whetsim_hardware import Chip, load_chip
from whetsim_hardware.place import DoesNotFitError, Placement, place

Edge = tuple[str, str, Connectivity]


def network(shapes: dict[str, tuple[int, ...]], edges: list[Edge], bias: int = 0) -> SpikingNetwork:
    """Return a network; the first shape is that of its input, the last its output."""
    (first, shape), *others = shapes.items()
    assert first == "input"
    depth = {"input": 0}
    for name, _ in others:
        depth[name] = 1 + max(depth[s] for s, t, _ in edges if t == name)
    populations = []
    for name, own in others:
        n = int(np.prod(own))
        one = np.full(n, 1, dtype=np.int64)
        populations.append(Population(name, own, depth[name], one * bias, one))
    return SpikingNetwork(
        name="net",
        input=InputPopulation(shape, 0, 1, "graded", InputSpec(shape, 0, 1, 1.0)),
        populations=tuple(sorted(populations, key=lambda p: p.depth)),
        projections=tuple(Projection(s, t, c, depth[t] - depth[s]) for s, t, c in edges),
        output=others[-1][0],
    )


def ones(n_sources: int, n_targets: int) -> Dense:
    return Dense(np.ones((n_sources, n_targets), dtype=np.int32))


def both_signs(n_sources: int, n_targets: int) -> Dense:
    weight = np.ones((n_sources, n_targets), dtype=np.int32)
    weight[:, ::2] = -1
    return Dense(weight)


def signs_in_turn(n_sources: int, n_targets: int) -> Dense:
    weight = np.ones((n_sources, n_targets), dtype=np.int32)
    weight[::2] = -1
    return Dense(weight)


def one_layer(n_sources: int, n_targets: int, kind: Any = ones, bias: int = 0) -> SpikingNetwork:
    shapes = {"input": (n_sources,), "a": (n_targets,)}
    return network(shapes, [("input", "a", kind(n_sources, n_targets))], bias)


def wide_map(kernel: int) -> SpikingNetwork:
    """Return a map of 2 x 4 neurons that read kernels of ones."""
    geometry = Geometry((kernel + 1, kernel + 3, 1), (2, 4, 1), (kernel, kernel))
    layer = Convolution(np.ones(geometry.weight_shape, dtype=np.int32), geometry)
    return network({"input": geometry.source, "a": geometry.target}, [("input", "a", layer)])


def graded(net: SpikingNetwork, high: int) -> SpikingNetwork:
    shape = net.input.shape
    source = InputPopulation(shape, 0, high, "graded", InputSpec(shape, 0, high, 1.0))
    return replace(net, input=source, graded_fingerprint="")


def limited(chip: str, **limits: int) -> Chip:
    """Return a chip with some limits changed."""
    base = load_chip(chip)
    changed = {
        key: replace(base.limits[key], value=v, low=None, high=None) for key, v in limits.items()
    }
    return replace(base, limits={**base.limits, **changed})


# --- limits, exactly


@pytest.mark.parametrize(
    ("chip", "resource", "fits", "more"),
    [
        ("loihi", "neurons", one_layer(1, 1024), one_layer(1, 1025)),
        # 30 dense 8-bit weights and a header are 250 bits, 4 words; 31 are 258, 5 words.
        ("loihi", "synapse_bits", one_layer(4096, 30), one_layer(4096, 31)),
        ("loihi2", "neurons", one_layer(1, 8192), one_layer(1, 8193)),
        ("loihi2", "synapse_bits", one_layer(65536, 2), one_layer(65536, 3)),
        ("spinnaker", "neurons", one_layer(1, 256), one_layer(1, 257)),
        ("truenorth", "neurons", one_layer(2, 256), one_layer(2, 257)),
        ("odin", "neurons", one_layer(1, 256), one_layer(1, 257)),
        ("odin", "in_axons", one_layer(128, 2, both_signs), one_layer(129, 2, both_signs)),
        ("brainscales2", "neurons", one_layer(1, 256), one_layer(1, 257)),
        (
            "brainscales2",
            "in_axons",
            one_layer(127, 2, both_signs, bias=1),
            one_layer(128, 2, both_signs, bias=1),
        ),
    ],
)
def test_a_core_filled_exactly_is_one_core_and_one_more_is_two(
    chip: str, resource: str, fits: SpikingNetwork, more: SpikingNetwork
) -> None:
    full = place(fits, chip)
    assert full.n_cores == 1
    assert full.used[resource] == (full.limits[resource],) * 2
    assert place(more, chip).n_cores == 2


@pytest.mark.parametrize(
    ("chip", "resource", "fits", "more", "needed", "available"),
    [
        ("loihi", "in_axons", one_layer(4096, 3), one_layer(4097, 3), 4097, 4096),
        ("loihi2", "synapse_bits", one_layer(131072, 1), one_layer(131073, 1), 1048584, 1048576),
        (
            "spinnaker2",
            "memory_bits",
            one_layer(131068, 1),
            one_layer(131069, 1),
            1048584,
            1048576,
        ),
        ("truenorth", "fan_in", one_layer(256, 256), one_layer(257, 1), 257, 256),
        ("odin", "fan_in", one_layer(256, 3), one_layer(257, 3), 257, 256),
        (
            "brainscales2",
            "in_axons",
            one_layer(254, 1, bias=1),
            one_layer(255, 1, bias=1),
            257,
            256,
        ),
        (
            "truenorth",
            "in_axons",
            one_layer(128, 2, signs_in_turn),
            one_layer(129, 2, signs_in_turn),
            258,
            256,
        ),
    ],
)
def test_what_one_neuron_needs_is_refused_with_the_numbers(
    chip: str,
    resource: str,
    fits: SpikingNetwork,
    more: SpikingNetwork,
    needed: int,
    available: int,
) -> None:
    assert place(fits, chip).n_cores >= 1
    with pytest.raises(DoesNotFitError) as caught:
        place(more, chip)
    error = caught.value
    assert isinstance(error, CapacityError)
    assert (error.population, error.resource) == ("a", resource)
    assert (error.needed, error.available, error.chip) == (needed, available, chip)
    text = str(error)
    assert f"population 'a' on chip '{chip}'" in text
    assert f"({resource}: needs {needed:,}; there are {available:,})" in text
    assert text.count(". ") >= 1 and "\n" not in text


def test_sram_share_of_spinnaker() -> None:
    # A row of one synapse takes three words and one: 128 bits.
    chip = limited("spinnaker", memory_bits_per_chip=16 * 128 * 5)
    assert place(one_layer(5, 1), chip).used["memory_bits"] == (640, 640)
    with pytest.raises(DoesNotFitError) as caught:
        place(one_layer(6, 1), chip)
    assert (caught.value.resource, caught.value.needed) == ("memory_bits", 768)


def test_out_axons_split_the_source() -> None:
    # 'b' takes 3 cores of 4 neurons, so each neuron of 'a' sends to 3 axons.
    shapes = {"input": (2,), "a": (4,), "b": (12,)}
    net = network(shapes, [("input", "a", ones(2, 4)), ("a", "b", ones(4, 12))])
    chip = limited("loihi", neurons_per_core=4, out_axons_per_core=6)
    result = place(net, chip)
    assert len(result.cores_of("a")) == 2
    assert result.used["out_axons"] == (6, 6)
    with pytest.raises(DoesNotFitError, match="out_axons: needs 3; there are 2") as caught:
        place(net, limited("loihi", neurons_per_core=4, out_axons_per_core=2))
    assert caught.value.population == "a"


def test_more_cores_than_a_chip_has_take_more_chips() -> None:
    chip = limited("loihi", neurons_per_core=4, cores=8)
    assert place(one_layer(1, 32), chip).n_chips == 1
    assert place(one_layer(1, 33), chip).n_chips == 2
    with pytest.raises(DoesNotFitError, match="chips: needs 2; there are 1"):
        place(one_layer(1, 33), chip, max_chips=1)


def test_small_populations_share_a_core_where_a_chip_can() -> None:
    shapes = {"input": (3,), "a": (4,), "b": (5,)}
    net = network(shapes, [("input", "a", ones(3, 4)), ("a", "b", ones(4, 5))])
    assert [place(net, chip).n_cores for chip in ("loihi", "spinnaker", "odin")] == [1, 2, 2]


WIDE_MAPS = [("loihi", 64), ("truenorth", 16), ("odin", 16)]


@pytest.mark.parametrize(("chip", "kernel"), WIDE_MAPS)
def test_a_wide_map_is_split_down_to_single_neurons(chip: str, kernel: int) -> None:
    # Each of the 8 neurons reads kernel^2 sources: all the axons of a core, or all its fan-in.
    net = wide_map(kernel)
    result = place(net, chip)
    assert result.used["in_axons"] == (kernel**2,) * 2
    assert result.n_cores == 8


@pytest.mark.parametrize(
    "chip", ["loihi", "loihi2", "truenorth", "spinnaker", "spinnaker2", "odin", "brainscales2"]
)
def test_any_limit_that_one_neuron_alone_meets_splits_to_single_neurons(chip: str) -> None:
    keys = {
        "neurons": "neurons_per_core",
        "in_axons": "in_axons_per_core",
        "synapses": "synapses_per_core",
        "synapse_bits": "synapse_bits_per_core",
    }
    net = wide_map(3)
    alone = place(net, limited(chip, neurons_per_core=1)) if chip != "spinnaker2" else None
    base = load_chip(chip)
    for resource, key in keys.items():
        if alone is None or key not in base.limits:
            continue
        most = alone.used[resource][0] if resource in alone.used else 1
        result = place(net, limited(chip, **{key: most}))
        assert result.used[resource] == (most, most)
        assert sum(core.used["neurons"] for core in result.cores) == 8
    if chip == "spinnaker2":
        # Nine weights of 8 bits and the neuron's own word.
        result = place(net, limited(chip, memory_bits_per_core=9 * 8 + 32))
        assert result.n_cores == 8


# --- TrueNorth: axon types, copies, splitters, relays


def test_a_wide_map_before_a_large_layer_is_copied_or_split() -> None:
    layer = conv((2, 4, 1), 1, 1)
    shapes = {"input": (2, 4, 1), "a": (2, 4, 1), "b": (38_400,)}
    net = network(shapes, [("input", "a", layer), ("a", "b", ones(8, 38_400))])
    result = place(net, "truenorth")
    # 150 cores read every neuron; one core holds one neuron with its copies, or its splitters.
    assert len(result.cores_of("b")) == 150
    assert result.n_extra_neurons > 0
    assert all(c.used["neurons"] <= 256 for c in result.cores)


def test_a_neuron_is_copied_for_each_axon_that_it_feeds() -> None:
    shapes = {"input": (2,), "a": (3,), "b": (512,)}
    net = network(shapes, [("input", "a", ones(2, 3)), ("a", "b", ones(3, 512))])
    result = place(net, "truenorth")
    assert result.copies == {"a": 3}
    assert result.messages_per_spike["a"] == 2.0
    assert (result.extra_steps, result.splitters) == (0, {})
    assert sum(c.used["neurons"] for c in result.cores) == 512 + 6


def test_splitters_serve_a_neuron_that_feeds_more_axons_than_a_core_has_neurons() -> None:
    shapes = {"input": (1,), "a": (1,), "b": (30,), "c": (1,)}
    edges: list[Edge] = [("input", "a", ones(1, 1)), ("a", "b", ones(1, 30))]
    edges.append(("b", "c", ones(30, 1)))
    chip = limited("truenorth", neurons_per_core=4, in_axons_per_core=32)
    result = place(network(shapes, edges), chip)
    # 'b' needs 8 cores, so 'a' needs 8 splitters, on 2 cores; 'a' itself 2 copies.
    assert result.splitters == {"a": 8}
    assert result.copies == {"a": 1}
    assert result.extra_steps == 1
    assert result.messages_per_spike["a"] == 2.0
    assert result.messages_per_spike["a/splitter"] == 8.0
    assert len(result.cores_of("a/splitter")) == 2
    assert all(c.used["neurons"] <= 4 for c in result.cores)


def test_relays_stand_in_for_delays_that_are_too_long() -> None:
    names = ["input", *(f"p{i}" for i in range(6))]
    edges: list[Edge] = [(s, t, ones(2, 2)) for s, t in pairwise(names)]
    edges.append(("p0", "p5", ones(2, 2)))
    net = network({name: (2,) for name in names}, edges)
    assert place(net, "truenorth").relays == {}
    result = place(net, limited("truenorth", delay=2))
    # A delay of 5 becomes 2 + 2 + 1.
    assert result.relays == {"p0/relay_2": 2, "p0/relay_4": 2}
    assert result.extra_steps == 0
    assert ("p0/relay_4", "p5") in result.hops


# --- layers on Speck and Akida


def conv(
    source: tuple[int, int, int], kernel: int, features: int, stride: int = 1, groups: int = 1
) -> Convolution:
    h, w = ((n - kernel) // stride + 1 for n in source[:2])
    geometry = Geometry(source, (h, w, features), (kernel, kernel), (stride, stride), groups=groups)
    return Convolution(np.ones(geometry.weight_shape, dtype=np.int32), geometry)


def one_map(source: tuple[int, int, int], kernel: int, features: int, stride: int = 1) -> Any:
    layer = conv(source, kernel, features, stride)
    return network({"input": source, "a": layer.geometry.target}, [("input", "a", layer)])


def test_speck_takes_784_inputs_onto_64_neurons_but_not_128() -> None:
    net = place(one_layer(784, 64), "speck")
    assert net.cores[0].used["kernel_words"] == 784 * 64
    with pytest.raises(DoesNotFitError) as caught:
        place(one_layer(784, 128), "speck")
    assert (caught.value.resource, caught.value.needed) == ("kernel_words", 784 * 128)


@pytest.mark.parametrize(
    ("fits", "more", "resource", "needed", "available"),
    [
        (one_map((32, 32, 1), 16, 4), one_map((32, 32, 1), 17, 4), "kernel_size", 17, 16),
        (one_map((66, 66, 1), 3, 1), one_map((67, 67, 1), 3, 1), "output_size", 65, 64),
        (one_map((128, 128, 1), 4, 1, 2), one_map((129, 129, 1), 5, 1, 2), "input_size", 129, 128),
        (one_map((8, 8, 1), 1, 1, 2), one_map((8, 8, 1), 1, 1, 3), "strides", 3, 8),
        (one_map((4, 4, 1), 1, 1024), one_map((4, 4, 1), 1, 1025), "channels", 1025, 1024),
        (one_map((64, 64, 1), 1, 16), one_map((64, 64, 1), 1, 17), "neuron_words", 69632, 65536),
        (one_map((1, 1, 64), 1, 1024), one_map((1, 1, 65), 1, 1024), "kernel_words", 66560, 65536),
    ],
)
def test_the_geometry_of_speck(
    fits: SpikingNetwork, more: SpikingNetwork, resource: str, needed: int, available: int
) -> None:
    assert place(fits, "speck").n_cores == 1
    with pytest.raises(DoesNotFitError) as caught:
        place(more, "speck")
    error = caught.value
    assert (error.resource, error.needed, error.available) == (resource, needed, available)


def test_speck_has_nine_cores_of_three_sizes() -> None:
    def chain(n: int, width: int = 2) -> SpikingNetwork:
        names = ["input", *(f"p{i}" for i in range(n))]
        edges: list[Edge] = [(s, t, ones(width, width)) for s, t in pairwise(names)]
        return network({name: (width,) for name in names}, edges)

    assert place(chain(9), "speck").n_cores == 9
    with pytest.raises(DoesNotFitError, match="cores: needs 10; there are 9"):
        place(chain(10), "speck")
    # Kernels of 32768 words fit four of the cores, of 65536 words two.
    assert sorted(c.index for c in place(chain(2, 256), "speck").cores) == [5, 6]
    with pytest.raises(DoesNotFitError, match="cores: needs 3; there are 2"):
        place(chain(3, 256), "speck")


def test_a_fully_connected_layer_on_speck_reads_a_map_as_channels() -> None:
    layer = conv((5, 5, 20), 1, 20)
    shapes = {"input": (5, 5, 20), "a": (5, 5, 20), "b": (128,)}
    net = network(shapes, [("input", "a", layer), ("a", "b", ones(500, 128))])
    core = next(c for c in place(net, "speck").cores if c.slices[0].population == "b")
    # As a kernel of 5 x 5 it would take 20 * 32 * 128 words, more than there are.
    assert core.used["kernel_words"] == 500 * 128
    # 1,032 inputs are too many channels, so it has a kernel of 2 x 2.
    net = network({"input": (2, 2, 258), "a": (32,)}, [("input", "a", ones(1032, 32))])
    assert place(net, "speck").cores[0].used["kernel_words"] == 258 * 4 * 32


@pytest.mark.parametrize("chip", ["speck", "akida"])
def test_a_population_that_nothing_feeds_has_no_layer(chip: str) -> None:
    net = replace(one_layer(3, 2), projections=(), graded_fingerprint="")
    with pytest.raises(DoesNotFitError, match="nothing feeds it: its neurons decide by") as caught:
        place(net, chip)
    assert (caught.value.needed, caught.value.available) == (1, 0)
    assert place(net, "loihi").used["neurons"][0] == 2


def test_the_layers_of_akida() -> None:
    assert place(one_layer(57334, 1), "akida").used["dense_inputs"] == (57334, 57334)
    with pytest.raises(DoesNotFitError, match="dense_inputs: needs 57,335; there are 57,334"):
        place(one_layer(57335, 1), "akida")
    assert place(one_map((8, 8, 1), 7, 2), "akida").n_cores == 1
    with pytest.raises(DoesNotFitError, match="legal are 1, 3, 5, 7") as caught:
        place(one_map((8, 8, 1), 4, 2), "akida")
    assert caught.value.resource == "kernel_size"
    many = Listed(np.array([0, 1]), np.array([0]), np.array([1]), 2)
    with pytest.raises(DoesNotFitError, match="neither a convolution nor fully connected"):
        place(network({"input": (1,), "a": (2,)}, [("input", "a", many)]), "akida")


# --- random networks against a literal count


@st.composite
def random_networks(draw: Any) -> SpikingNetwork:
    """Two layers and, at times, a skip connection; convolutions with zeros, groups and strides."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def values(*shape: int) -> Any:
        weight = rng.integers(-2, 3, shape)
        return weight if draw(st.booleans()) else np.where(weight == 0, 1, weight)

    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    groups = draw(st.sampled_from([1, 2]))
    source = (height, width, groups * draw(st.integers(1, 2)))
    target = (
        draw(st.integers(1, height)),
        draw(st.integers(1, width)),
        groups * draw(st.integers(1, 3)),
    )
    geometry = Geometry(
        source,
        target,
        (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        strides=(draw(st.integers(1, 2)), 1),
        dilation=(1, draw(st.integers(1, 2))),
        before=(draw(st.integers(0, 1)), 0),
        groups=groups,
    )
    n_in, n_mid, n_out = int(np.prod(source)), int(np.prod(target)), draw(st.integers(1, 12))
    edges: list[Edge] = [("input", "a", Convolution(values(*geometry.weight_shape), geometry))]
    edges.append(("a", "b", Dense(values(n_mid, n_out))))
    if draw(st.booleans()):
        keep = rng.random((n_in, n_out)) < 0.3
        row, column = np.nonzero(keep)
        start = np.concatenate([[0], np.cumsum(keep.sum(axis=1))])
        edges.append(("input", "b", Listed(start, column, np.ones(len(row), np.int64), n_out)))
    return network({"input": source, "a": target, "b": (n_out,)}, edges)


CHIPS = [
    limited("loihi", neurons_per_core=13, in_axons_per_core=170, out_axons_per_core=30),
    limited("loihi", synapse_bits_per_core=64 * 200),
    limited("spinnaker", neurons_per_core=10),
    limited("odin", in_axons_per_core=170),
    limited("truenorth", neurons_per_core=40),
    limited("truenorth", neurons_per_core=4),
    limited("brainscales2", neurons_per_core=7),
    load_chip("loihi2"),
    load_chip("spinnaker2"),
]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(net=random_networks(), chip=st.sampled_from(CHIPS))
def test_random_networks(net: SpikingNetwork, chip: Chip) -> None:
    try:
        result = place(net, chip)
    except DoesNotFitError as error:
        assert error.needed > error.available
        return
    for core in result.cores:
        assert all(core.used[key] <= limit for key, limit in result.limits.items())
    for population in net.populations:
        pieces = [s for c in result.cores for s in c.slices if s.population == population.name]
        neurons = np.concatenate([piece.neurons() for piece in pieces])
        assert sorted(neurons.tolist()) == list(range(population.size))
        assert sum(piece.n_neurons for piece in pieces) == population.size
        expected = sum(p.connectivity.n_synapses for p in net.into(population.name))
        assert result.synapses[population.name] == expected
    assert result.totals["synapses"] == net.n_synapses
    if chip.name != "truenorth":
        check_literally(net, chip, result)
    assert Placement.from_json(result.to_json()).to_json() == result.to_json()
    moved = place(net, chip, "traffic")
    assert moved.greedy_traffic == result.traffic
    assert moved.traffic <= result.traffic


def check_literally(net: SpikingNetwork, chip: Chip, result: Placement) -> None:
    """Count axons, synapses and messages of every core from the list of all synapses."""
    axons = {core.index: 0 for core in result.cores}
    synapses = dict.fromkeys(axons, 0)
    out = dict.fromkeys(axons, 0)
    hops: dict[tuple[str, str], list[int]] = {}
    at = {}
    for core in result.cores:
        for piece in core.slices:
            at.update({(piece.population, int(n)): core for n in piece.neurons()})
    by_sign = chip.name in ("odin", "brainscales2")
    for projection in net.projections:
        reached: dict[tuple[int, Any, int], int] = {}
        for block in projection.connectivity.synapses():
            for s, t, w in zip(*(a.tolist() for a in block), strict=True):
                core = at[projection.target, t]
                piece = next(
                    p for p in core.slices if p.population == projection.target and t in p.neurons()
                )
                synapses[core.index] += 1
                key = (s, (core.index, piece.start), int(np.sign(w)) if by_sign else 0)
                reached[key] = core.index
        for (s, _, _), index in reached.items():
            axons[index] += 1
            target = result.cores[index]
            x = y = 0
            if projection.source != "input":
                source = at[projection.source, s]
                out[source.index] += 1
                x, y = source.x, source.y
            far = abs(x - target.x) + abs(y - target.y)
            hops.setdefault((projection.source, projection.target), []).append(far)
    for core in result.cores:
        assert core.used["in_axons"] == axons[core.index]
        assert core.used["synapses"] == synapses[core.index]
        assert core.used["out_axons"] == out[core.index]
    for pair, found in result.hops.items():
        assert found == pytest.approx(np.mean(hops.get(pair, [0])))


# --- traffic, values, errors


def wide_network() -> SpikingNetwork:
    shapes = {"input": (64,), "a": (400,), "b": (300,), "c": (200,)}
    edges: list[Edge] = [("input", "a", ones(64, 400)), ("a", "b", ones(400, 300))]
    edges += [("b", "c", ones(300, 200)), ("a", "c", ones(400, 200))]
    return network(shapes, edges)


def test_traffic_travels_less_and_keeps_the_blocks() -> None:
    chip = limited("loihi", neurons_per_core=20)
    greedy, moved = (place(wide_network(), chip, method) for method in ("greedy", "traffic"))
    assert moved.traffic < greedy.traffic == moved.greedy_traffic
    assert 0 < moved.saved == 1 - moved.traffic / greedy.traffic
    assert "less traffic x hops than greedy" in str(moved)
    assert [c.slices for c in moved.cores] == [c.slices for c in greedy.cores]
    places = [(c.chip, c.x, c.y) for c in moved.cores]
    assert max(places.count(p) for p in places) <= 4
    # Mean hops and messages add up to the traffic.
    sizes = {p.name: p.size for p in wide_network().populations} | {"input": 64}
    assert sum(moved.messages_per_spike[s] * sizes[s] for s in ("input", "a", "b")) > 0
    assert moved.hops["a", "b"] > 0.0


def test_spikes_weigh_the_traffic() -> None:
    chip = limited("loihi", neurons_per_core=20)
    silent = {"input": 0.0, "a": 0.0, "b": 0.0, "c": 0.0}
    assert place(wide_network(), chip, spikes=silent).traffic == 0.0
    full = {"input": 64.0, "a": 400.0, "b": 300.0, "c": 200.0}
    assert place(wide_network(), chip, spikes=full).traffic == place(wide_network(), chip).traffic
    with pytest.raises(SampleError, match="nothing is said of 'input'"):
        place(wide_network(), chip, spikes={"a": 1.0})


def test_chips_without_a_mesh_have_no_hops() -> None:
    for chip in ("loihi2", "odin"):
        result = place(one_layer(4, 4), chip, "traffic")
        assert (result.hops, result.traffic) == ({}, 0.0)


def test_hops_of_spinnaker_are_from_chip_to_chip() -> None:
    result = place(wide_network(), limited("spinnaker", neurons_per_core=20))
    assert result.n_chips == 3
    assert {(c.chip, c.x, c.y) for c in result.cores} == {(0, 0, 0), (1, 1, 0), (2, 0, 1)}


def test_a_placement_prints_what_it_uses() -> None:
    lines = str(place(wide_network(), "loihi")).splitlines()
    assert lines[0] == "net on loihi (greedy, spikes input, 8-bit weights): 4 cores, 1 chips"
    assert [line.split() for line in lines[1:3]] == [
        ["resource", "fullest", "of", "mean"],
        ["neurons", "550", "1,024", "225"],
    ]
    assert "  a: 4.00 messages a spike" in lines
    assert "  a -> b: 0.00 hops a message" in lines
    assert lines[-1].strip() == "every synapse stored: no weights shared by population axons"
